#!/bin/sh
# Runs in the guest as doppel.run: shared folders for tests/vm/folders.py. Tags: rw, ro; a folder's own name is in `name`.
check() { # NAME GOT WANT
	if [ "$2" = "$3" ]; then echo "ok $1"; else echo "not ok $1: got '$2', not '$3'"; fi
}
# wait_for COMMAND...: what the host does shows after at most a second, on a busy host later.
wait_for() {
	for i in $(seq 100); do
		"$@" && return
		sleep 0.1
	done
	echo "waited in vain: $*"
	return 1
}

for module in $(cat /modules/order); do
	insmod "/modules/$module"
done
mkdir /rw /ro
mount -t virtiofs rw /rw
mount -t virtiofs ro /ro
check folder-no-tag "$(mount -t virtiofs nobody /tmp 2>/dev/null; echo $?)" 255
check folder-tags "$(cat /rw/name /ro/name)" "$(printf 'rw\nro')"
/vmtest --folder /rw
check folder-ro "$(touch /ro/new 2>&1; rm /ro/name 2>&1; chmod 600 /ro/name 2>&1; mv /ro/name /ro/x 2>&1)" "$(
	echo 'touch: /ro/new: Read-only file system'
	echo "rm: can't remove '/ro/name': Read-only file system"
	echo 'chmod: /ro/name: Read-only file system'
	echo "mv: can't rename '/ro/name': Read-only file system")"
# Things of the host that must not be opened, or not be left by.
check folder-fifo "$(timeout 5 cat /rw/host-fifo 2>/dev/null; echo $?)" 143
check folder-host-link "$(cat /rw/host-link 2>/dev/null; echo $?)" 1
check folder-host-parent "$(cd /rw/..; pwd; ls -d rw)" "$(printf '/\nrw')"
# Changes on the host.
cat /rw/changes >/dev/null
echo "host: change"
check folder-host-new "$(wait_for test -e /rw/host-new && cat /rw/host-new)" fresh
check folder-host-changed "$(wait_for grep -q after /rw/changes && cat /rw/changes)" "after, and longer"
check folder-host-gone "$(wait_for test ! -e /rw/host-gone && ls /rw/host-gone 2>&1)" "ls: /rw/host-gone: No such file or directory"
umount /rw
umount /ro
mount -t virtiofs rw /rw
check folder-again "$(cat /rw/name)" rw
echo "log begin"
dmesg -r | grep '^<[0-4]>'
echo "log end"
echo "script done"
