# Sourced in a guest whose first disk is build/guest/tools.img: loads the modules and makes fio and iperf3 commands.
for m in $(cat /modules/order); do insmod "/modules/$m"; done
mkdir -p /tools /etc
mount -t ext4 -o ro /dev/vda /tools
ln -s /tools/lib64 /lib64
ln -s /tools/lib /lib
ln -s /tools/usr/lib /usr/lib
export PATH=$PATH:/tools/usr/bin
