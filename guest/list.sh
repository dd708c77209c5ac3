#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Prints the file list of the demo guest's initramfs for guest/newc. Arguments: the busybox binary.
set -eu
busybox=$1
src=$(dirname "$0")
for d in /bin /sbin /dev /proc /sys /root /etc /usr /usr/bin /usr/sbin; do
	echo "dir $d 755"
done
echo "dir /tmp 1777"
# The kernel opens /dev/console before anything is mounted.
echo "nod /dev/console 600 c 5 1"
echo "nod /dev/null 666 c 1 3"
echo "file /init 755 $src/init"
echo "file /bin/busybox 755 $busybox"
"$busybox" --list-full | while read -r path; do
	[ "$path" = bin/busybox ] || echo "slink /$path /bin/busybox"
done
