#!/bin/sh
# Runs in the guest as doppel.run: services on vsock for tests/vm/sockets.py.
for module in $(cat /modules/order); do
	insmod "/modules/$module"
done
/vmtest --vsock
echo "log begin"
dmesg -r | grep '^<[0-4]>'
echo "log end"
echo "script done"
