file machine.conf
| kernel = kernel.elf
| console = virtio
| serial = file:log
$ doppel run -n -c machine.conf
[0]
