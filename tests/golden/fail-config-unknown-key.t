file machine.conf
| kernel = kernel.elf
| memroy = 64M
$ doppel run -n -c machine.conf
doppel: machine.conf:2: there is no key 'memroy'; doppel.conf(5) lists them, they are the options of `doppel run`
[2]
