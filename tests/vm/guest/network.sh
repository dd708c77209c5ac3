#!/bin/sh
# What the guest of tests/vm/network does: loads the modules, gets an address and answers for each check with a line `ok NAME` or `not ok NAME`.
# Kernel command line: net.kind=user|tap, net.loopback=on|off, net.wait=SECONDS to stay for the host.
arg() { sed -n "s/.*net\.$1=\([^ ]*\).*/\1/p" /proc/cmdline; }
check() {
	name=$1
	shift
	if "$@" >/tmp/out 2>&1; then echo "ok $name"; else echo "not ok $name: $(tail -n 1 /tmp/out)"; fi
}
not() { ! "$@"; }
sum_is() { [ "$(md5sum | cut -d' ' -f1)" = "$1" ]; }
download() { wget -q -O - "http://$host:8099/$1" | sum_is "$(wget -q -O - "http://$host:8099/$1.md5")"; }
# The server answers an upload with the sum of what it got. It closes first: passt of 2023 forgets the other side's FIN if both
# close at about the same time, and nc closes its side as soon as there is nothing more to send.
upload() {
	sum=$(head -c "$1" /dev/urandom | tee /tmp/up | md5sum | cut -d' ' -f1)
	[ "$( { printf '%08d' "$1"; cat /tmp/up; sleep 2; } | nc "$host" 8098)" = "$sum" ]
}
lookup() { nslookup -type=a name.example "$host:8097" | grep -q 192.0.2.77; }

for m in $(cat /modules/order); do insmod "/modules/$m"; done
ip link set lo up
ip link set eth0 up
echo "mac $(cat /sys/class/net/eth0/address) mtu $(cat /sys/class/net/eth0/mtu)"
if [ "$(arg kind)" = tap ]; then
	host=10.9.0.1
	ip addr add 10.9.0.2/24 dev eth0
	check ping ping -c 2 -w 5 "$host"
else
	host=10.0.2.2
	cat >/tmp/dhcp.sh <<'X'
#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr add "$ip/$mask" dev "$interface"
ip route add default via "$router"
echo "lease $ip/$mask $router"
X
	chmod +x /tmp/dhcp.sh
	check dhcp udhcpc -i eth0 -n -q -f -s /tmp/dhcp.sh
	grep lease /tmp/out
fi
if [ "$(arg loopback)" = off ]; then
	check closed not wget -q -T 3 -O - "http://$host:8099/1"
else
	for n in 1 1000 100000 20000000; do check "download-$n" download $n; done
	for n in 1 1460 100000 20000000; do check "upload-$n" upload $n; done
	check udp lookup
fi
check interrupts grep -q virtio /proc/interrupts
ip link set eth0 down
ip link set eth0 up
[ "$(arg kind)" = tap ] || ip route add default via "$host" 2>/dev/null
[ "$(arg loopback)" = off ] || check after-down download 1000
check no-complaint not dmesg -l warn,err,crit,alert,emerg
# An echo server for the host, and the link's state for as long as it wants to see it.
wait=$(arg wait)
[ -n "$wait" ] || exit 0
# It serves when the kernel lists port 7 as listening (state 0A), not when nc was started: a connection before that is reset.
nc -ll -p 7 -e cat &
tries=100
until grep -q ':0007 [0-9A-F]*:0000 0A ' /proc/net/tcp /proc/net/tcp6; do
	tries=$((tries - 1))
	[ "$tries" -gt 0 ] || exit 1
	sleep 0.1
done
echo serving
while [ "$wait" -gt 0 ]; do
	[ "$(cat /sys/class/net/eth0/carrier)" = 1 ] || echo "link down"
	sleep 1
	wait=$((wait - 1))
done
