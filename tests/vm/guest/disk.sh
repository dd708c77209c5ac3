#!/bin/sh
# Runs in the guest as doppel.run: virtio disks and random numbers through the kernel's own drivers. vda: scratch, its
# checksum is doppel.md5; vdb: read-only; vdc: gets a pattern that the host looks for.
check() { # NAME GOT WANT
	if [ "$2" = "$3" ]; then echo "ok $1"; else echo "not ok $1: got '$2', not '$3'"; fi
}
param() { sed -n "s/.*$1=\([^ ]*\).*/\1/p" /proc/cmdline; }

for module in $(cat /modules/order); do
	insmod "/modules/$module"
done

check disk-serial "$(cat /sys/block/vda/serial)" first
check disk-read "$(md5sum </dev/vda | cut -c1-32)" "$(param doppel.md5)"
check disk-queues "$(ls /sys/block/vda/mq | wc -l)" "$(grep -c ^processor /proc/cpuinfo)"
check disk-cache "$(cat /sys/block/vda/queue/write_cache)" "write back"
check disk-ro "$(blockdev --getro /dev/vdb)" 1
check disk-ro-write "$(dd if=/dev/zero of=/dev/vdb bs=512 count=1 2>/dev/null; echo $?)" 1
check disk-pattern "$(seq 1 100000 | dd of=/dev/vdc bs=4096 seek=16 conv=fsync 2>/dev/null; echo $?)" 0

mke2fs /dev/vda >/dev/null 2>&1
mkdir /mnt
mount -t ext4 /dev/vda /mnt
for i in 1 2 3 4 5 6 7 8; do
	cp /bin/busybox /mnt/copy-$i &
done
wait
rm /mnt/copy-3
check disk-trim "$(fstrim /mnt; echo $?)" 0
umount /mnt
echo 3 >/proc/sys/vm/drop_caches
mount -t ext4 /dev/vda /mnt
check disk-files "$(cat /mnt/copy-* | md5sum)" "$(for i in 1 2 4 5 6 7 8; do cat /bin/busybox; done | md5sum)"
umount /mnt

check rng-name "$(cat /sys/class/misc/hw_random/rng_current)" virtio_rng.0
a=$(dd if=/dev/hwrng bs=4096 count=4 2>/dev/null | md5sum)
b=$(dd if=/dev/hwrng bs=4096 count=4 2>/dev/null | md5sum)
check rng-differs "$([ "$a" != "$b" ] && echo yes)" yes
check rng-bytes "$(dd if=/dev/hwrng bs=1024 count=64 2>/dev/null | wc -c)" 65536

# Unbinding resets the device; it must come back with its data.
bus=$(basename "$(readlink -f /sys/block/vdc/device/..)")
drv=$(basename "$(readlink -f /sys/block/vdc/device/../driver)")
[ "$drv" = virtio-pci ] || bus=$(basename "$(readlink -f /sys/block/vdc/device)")
[ "$drv" = virtio-pci ] || drv=virtio_blk
dir=$(ls -d /sys/bus/*/drivers/$drv)
for i in 1 2 3; do
	echo "$bus" >"$dir/unbind"
	echo "$bus" >"$dir/bind"
done
check disk-again "$(dd if=/dev/vdc bs=4096 skip=16 2>/dev/null | head -n 100000 | md5sum)" "$(seq 1 100000 | md5sum)"
grep virtio /proc/interrupts
echo "log begin"
dmesg -r | grep '^<[0-4]>'
echo "log end"
echo "script done"
