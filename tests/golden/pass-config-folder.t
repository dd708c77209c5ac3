file conf/machine.conf
| kernel = ../kernel.elf
| serial = file:console.log
$ doppel run -n -c conf/machine.conf && ls conf
console.log
machine.conf
[0]
