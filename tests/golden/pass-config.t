file machine.conf
| # Everything a line may be: comments, blanks, switches in several words, values with = and # in them.
|
| kernel = kernel.elf
|   memory=64M   
| append = console=ttyS0 root=/dev/vda1 # not a comment
| cpus = 1
| engine = interp
| serial = none
| module = kernel.elf,first module
| module = kernel.elf
| debug-exit = on
| no-reboot = false
$ doppel run -n -c machine.conf
[0]
