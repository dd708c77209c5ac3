# SPDX-License-Identifier: Apache-2.0
"""What a processor does: the static program of bench/guest/bench.c, natively and in guests, and the time until user space."""
import os
import re
import subprocess
import sys
import time

import machine

BENCH = os.path.join(machine.TOP, "build", "bench", "bench")
INITRD = os.path.join(machine.TOP, "build", "bench", "initramfs.cpio.gz")
GROUPS = {
    "integer": ["sort", "sha256", "sieve", "hash", "calls", "bytecode"],
    "memory": ["memcpy", "chase"],
    "floating point": ["matrix", "nbody", "saxpy"],
    "system": ["syscall", "pipe", "fork", "exec", "pagefault", "file"],
}


def parse(text):
    times = {m[1]: float(m[2]) for m in re.finditer(r"^bench (\w+) ([\d.]+)$", text, re.M)}
    sums = {m[1]: m[2] for m in re.finditer(r"^sum (\w+) (\w+)$", text, re.M)}
    if "bench done" not in text:
        sys.exit("bench/run: the bench did not finish; its output ended with:\n" + text[-600:])
    return times, sums


def run_native(args):
    return parse(subprocess.run([BENCH, *args], capture_output=True, text=True, check=True).stdout)


def run_guest(engine, args, timeout):
    append = f"{machine.APPEND} quiet doppel.run=/bench.sh \"BENCH_ARGS={' '.join(args)}\""
    with machine.Machine(machine.command(engine, initrd=INITRD, append=append), stdin=subprocess.DEVNULL) as m:
        m.finish(timeout)
        return parse("\n".join(machine.lines(m.out)))


def boot_time(engine):
    with machine.Machine(machine.command(engine), stdin="pipe") as m:
        m.expect(machine.BANNER, 300)
        return time.monotonic() - m.start


class Results:
    """Nanoseconds of each line for each contender, the best over the rounds."""

    def __init__(self, names, opt):
        self.names = names
        self.opt = opt
        self.args = ["-s", str(opt.samples), "-t", str(opt.ms), *names]
        self.best = {}
        self.sums = {}
        self.boots = {}

    def round(self, contender):
        times, got = run_native(self.args) if contender == "native" else run_guest(contender, self.args, self.opt.timeout)
        best = self.best.setdefault(contender, {})
        for name, ns in times.items():
            best[name] = min(ns, best.get(name, ns))
        for name, value in got.items():
            if self.sums.setdefault(name, value) != value:
                sys.exit(f"bench/run: {name}: {contender} computed {value}, not {self.sums[name]}")

    def boot(self, contender):
        seconds = boot_time(contender)
        self.boots[contender] = min(seconds, self.boots.get(contender, seconds))

    def print(self, contenders):
        print_table(contenders, self.best, self.boots)


def ns_text(ns):
    if ns is None:
        return "-"
    for unit, scale in (("ms", 1e6), ("us", 1e3)):
        if ns >= scale:
            return f"{ns / scale:.2f} {unit}"
    return f"{ns:.1f} ns"


def print_table(contenders, best, boots):
    ours = [c for c in contenders if c not in ("native", "qemu")]
    head = f"{'':12}" + "".join(f"{c:>12}" for c in contenders)
    head += "".join(f"{c + '/native':>16}" for c in contenders[1:])
    if "qemu" in contenders:
        head += "".join(f"{'qemu/' + c:>14}" for c in ours)
    print(head)
    for group, names in GROUPS.items():
        names = [n for n in names if any(n in best.get(c, {}) for c in contenders)]
        if names:
            print(group)
        for name in names:
            row = [best[c].get(name) for c in contenders]
            text = f"  {name:10}" + "".join(f"{ns_text(ns):>12}" for ns in row)
            text += "".join(f"{best[c][name] / row[0]:>16.2f}" if name in best[c] and row[0] else f"{'-':>16}"
                            for c in contenders[1:])
            if "qemu" in contenders:
                text += "".join(f"{best['qemu'][name] / best[c][name]:>14.2f}"
                                if name in best[c] and name in best["qemu"] else f"{'-':>14}" for c in ours)
            print(text)
    if boots:
        print("boot to user space: " + ", ".join(f"{c} {t:.2f} s" for c, t in boots.items()))
