file machine.conf
| kernel = kernel.elf
| memory = 12Q
$ doppel run -n -c machine.conf
doppel: machine.conf:2: memory: '12Q' is no size; write for example 512M or 2G
[2]
