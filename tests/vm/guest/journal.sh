#!/bin/sh
# What the guest of tests/vm/disk does until it is killed: writes files on ext4 (/dev/vda) and syncs them, one after the other, while two
# loops beside it write, delete and give back space without syncing. `synced N` on the console promises that file N will be there.
# DISK_FROM: the first N.
for m in $(cat /modules/order); do insmod "/modules/$m"; done
mkdir -p /mnt
mount -t ext4 -o discard /dev/vda /mnt || exit 1

churn() {
	i=0
	while :; do
		i=$((i + 1))
		dd if=/dev/urandom of="/mnt/churn.$1.$((i % 8))" bs=16k count=$((i % 24 + 1)) 2>/dev/null
		rm -f "/mnt/churn.$1.$(((i + 3) % 8))"
	done
}
churn 1 &
churn 2 &

n=$DISK_FROM
echo "writing"
while :; do
	# The host knows what is in file n: tests/vm/disk, content().
	yes "file $n" | head -c $((n * 7919 % 200 * 1024 + n)) | dd of="/mnt/file.$n" bs=64k conv=fsync 2>/dev/null || break
	echo "synced $n"
	rm -f "/mnt/file.$((n - 40))"
	n=$((n + 1))
done
echo "a write failed"
