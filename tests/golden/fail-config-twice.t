file machine.conf
| memory = 64M
| kernel = kernel.elf
| memory = 32M
$ doppel run -n -c machine.conf
doppel: machine.conf:3: 'memory' is given twice, first in line 1; remove one
[2]
