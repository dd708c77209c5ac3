file machine.conf
| kernel =
$ doppel run -n -c machine.conf
doppel: machine.conf:1: 'kernel' has no value; write kernel = F
[2]
