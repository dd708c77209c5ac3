#!/bin/sh
# Runs fio on the second disk, or iperf3 to the host, in a guest whose first disk is build/guest/tools.img. From the kernel command line:
#   IO_RUN="disk SECONDS LINE..."                 prints `io LINE bytes-per-second operations-per-second` for each
#   IO_RUN="network SECONDS PORT LINE..."         likewise, from the receiver's count
. /tools.sh

# Fields of fio's terse format, version 3: 5 error; 7, 8 read KiB/s and IOPS; 48, 49 those of writing.
disk_line() {
	name=$1
	shift
	fio --name="$name" --filename=/dev/vdb --direct=1 --ioengine=libaio --time_based --ramp_time=1 --runtime="$seconds" --size=100% \
		--group_reporting --randrepeat=1 --output-format=terse --terse-version=3 "$@" >/tmp/fio.out 2>/tmp/fio.err
	awk -F';' -v n="$name" '/^3;/ { seen = 1; if ($5 != 0) exit 1; printf "io %s %.0f %.0f\n", n, ($7 + $48) * 1024, $8 + $49 }
		END { exit !seen }' /tmp/fio.out || { echo "io $name failed"; tail -n 3 /tmp/fio.err /tmp/fio.out; }
}

disk() {
	seconds=$1
	shift
	for line; do
		case $line in
		seqread) disk_line $line --rw=read --bs=1M --iodepth=8 ;;
		seqwrite) disk_line $line --rw=write --bs=1M --iodepth=8 --end_fsync=1 ;;
		randread) disk_line $line --rw=randread --bs=4k --iodepth=32 ;;
		randwrite) disk_line $line --rw=randwrite --bs=4k --iodepth=32 ;;
		randrw) disk_line $line --rw=randrw --bs=4k --iodepth=32 ;;
		randread-1) disk_line $line --rw=randread --bs=4k --iodepth=1 ;;
		randread-2jobs) disk_line $line --rw=randread --bs=4k --iodepth=16 --numjobs=2 --norandommap ;;
		write-sync) disk_line $line --rw=randwrite --bs=4k --iodepth=1 --fdatasync=1 ;;
		fill) disk_line $line --rw=write --bs=64k --iodepth=8 --end_fsync=1 ;;
		*) echo "io $line failed: there is no such line" ;;
		esac
	done
}

# The sum over all streams as the receiver saw it: the last line that says so.
network_line() {
	name=$1
	shift
	iperf3 -c 10.0.2.2 -p "$port" -O 1 -t "$seconds" -f k "$@" >/tmp/iperf.out 2>&1
	awk -v n="$name" '/receiver/ { for (i = 1; i <= NF; i++) if ($i == "Kbits/sec") rate = $(i - 1) }
		END { if (!rate) exit 1; printf "io %s %.0f 0\n", n, rate * 125 }' /tmp/iperf.out || {
		echo "io $name failed"
		tail -n 3 /tmp/iperf.out
	}
}

network() {
	seconds=$1
	port=$2
	shift 2
	cat >/tmp/dhcp.sh <<'X'
#!/bin/sh
[ "$1" = bound ] || exit 0
[ -z "$mtu" ] || ip link set "$interface" mtu "$mtu"
ip addr add "$ip/$mask" dev "$interface"
ip route add default via "$router"
X
	chmod +x /tmp/dhcp.sh
	ip link set lo up
	ip link set eth0 up
	udhcpc -i eth0 -n -q -f -O mtu -s /tmp/dhcp.sh >/dev/null 2>&1 || echo "io network failed: no address"
	echo "mtu $(cat /sys/class/net/eth0/mtu)"
	for line; do
		case $line in
		tx) network_line $line ;;
		rx) network_line $line -R ;;
		tx-2) network_line $line -P 2 ;;
		rx-2) network_line $line -P 2 -R ;;
		*) echo "io $line failed: there is no such line" ;;
		esac
	done
}

set -- $IO_RUN
"$@"
echo "io done"
