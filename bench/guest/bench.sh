#!/bin/sh
# Runs the bench in a guest; BENCH_ARGS comes from the kernel command line.
exec /bench $BENCH_ARGS
