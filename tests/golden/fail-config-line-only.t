file machine.conf
| check = yes
$ doppel run -n -c machine.conf
doppel: machine.conf:1: 'check' is not for files; give --check on the command line
[2]
