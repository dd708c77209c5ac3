#!/bin/sh
# What the guest of tests/vm/disk does with fio; the disk under test is /dev/vdb. From the kernel command line:
#   DISK_TEST="write SECONDS SEED"   two jobs, each on its half of the first three quarters: reads and writes of mixed sizes with flushes between,
#                                    every block with its checksum, checked while the jobs run; then a fixed amount of such work
#   DISK_TEST="check SEED"           the latter is all there after the machine's end
# Each prints `ok NAME` or `not ok NAME: why`.
. /tools.sh
set -- $DISK_TEST
half=$(($(blockdev --getsize64 /dev/vdb) / 8 * 3 / 65536 * 65536))

# verify_fatal: the first wrong block ends the job with an error. blockalign: what O_DIRECT asks for.
run() {
	name=$1
	shift
	if fio --name=verify --filename=/dev/vdb --direct=1 --ioengine=libaio --rw=randrw --rwmixread=30 --bsrange=512-128k \
		--blockalign=512 --numjobs=2 --size=$half --offset_increment=$half --verify=crc32c --verify_fatal=1 --fdatasync=32 \
		--group_reporting "$@" >/tmp/fio.out 2>&1; then
		grep -E '^ *(read|write):' /tmp/fio.out
		echo "ok $name"
	else
		echo "not ok $name: $(grep -m 2 -i -E 'verify|err' /tmp/fio.out | tr '\n' ' ')"
	fi
}

case $1 in
write)
	run load --iodepth=8 --verify_backlog=128 --time_based --runtime="$2"
	run write --iodepth=8 --io_size=24M --randseed="$3" --do_verify=0
	;;
check) run check --iodepth=8 --io_size=24M --randseed="$2" --verify_only ;;
esac
dmesg -r | grep '^<[0-3]>'
echo "script done"
