file machine.conf
| kernel = kernel.elf
| memory 64M
$ doppel run -n -c machine.conf
doppel: machine.conf:2: 'memory 64M' is no setting; write key = value, or # before a comment
[2]
