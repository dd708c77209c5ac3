file machine.conf
| kernel = kernel.elf
| disk = missing.raw,readonly=on
$ doppel run -n -c machine.conf
doppel: machine.conf:2: disk: cannot open missing.raw: No such file or directory; check the path
[10]
