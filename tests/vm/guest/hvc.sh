#!/bin/sh
# Runs in the guest as doppel.run: a shell on the virtio console, whose driver is a module.
echo "loading the console's driver"
for module in $(cat /modules/order); do
	insmod "/modules/$module"
done
while [ ! -e /dev/hvc0 ]; do sleep 0.1; done
cd /
export PS1='hvc0# '
setsid cttyhack sh -c 'exec sh -i </dev/hvc0 >/dev/hvc0 2>&1'
