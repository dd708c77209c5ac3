#!/bin/sh
# Runs in the guest as doppel.run: every user-space test, then the kernel log with levels. Lines as vmtest's.
check() { # NAME GOT WANT
	if [ "$2" = "$3" ]; then echo "ok $1"; else echo "not ok $1: got '$2', not '$3'"; fi
}

/vmtest
/elf32

check sh-pipe "$(seq 1 5000 | sort -rn | sed -n '1p;$p' | tr '\n' ' ')" "5000 1 "
check sh-awk "$(awk 'BEGIN { for (i = 1; i <= 200; i++) s += 1 / i; printf "%.12f", s }')" "5.878030948121"
check sh-bc "$(echo '2^200' | bc)" "1606938044258990275541962092341162602522202993782792835301376"
check sh-gzip "$(gzip -c /bin/busybox | gunzip | sha256sum)" "$(sha256sum </bin/busybox)"
check sh-sha512 "$(printf abc | sha512sum | cut -c1-32)" ddaf35a193617abacc417349ae204131
check sh-md5 "$(printf abc | md5sum | cut -c1-32)" 900150983cd24fb0d6963f7d28e17f72
check sh-job "$(sleep 0.2 & wait $!; echo $?)" 0
check sh-kill "$(sh -c 'kill -9 $$'; echo $?)" 137
check sh-devnull "$(dd if=/dev/zero bs=64k count=64 2>/dev/null | wc -c)" 4194304
check sh-date "$([ "$(date +%s)" -gt 1700000000 ] && echo set)" set
if [ -x /busybox32 ]; then
	check i386-uname "$(/busybox32 uname -s)" Linux
	check i386-sha256 "$(/busybox32 sha256sum </bin/busybox)" "$(sha256sum </bin/busybox)"
	check i386-awk "$(/busybox32 awk 'BEGIN { for (i = 1; i <= 200; i++) s += 1 / i; printf "%.12f", s }')" "5.878030948121"
	check i386-sh "$(/busybox32 sh -c 'i=0; while [ $i -lt 500 ]; do i=$((i + 1)); done; echo $i')" 500
	check i386-gzip "$(/busybox32 gzip -c /bin/busybox | gunzip | md5sum)" "$(md5sum </bin/busybox)"
fi
echo "clock $(awk '{ print $1 }' /proc/uptime)"
sleep 2
echo "clock $(awk '{ print $1 }' /proc/uptime)"
echo "log begin"
dmesg -r | grep '^<[0-4]>'
echo "log end"
echo "script done"
