file machine.conf
| kernel = kernel.elf
| no-reboot = maybe
$ doppel run -n -c machine.conf
doppel: machine.conf:2: 'no-reboot' is a switch; write no-reboot = yes or no-reboot = no
[2]
