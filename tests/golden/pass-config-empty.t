file machine.conf
$ doppel run -n -c machine.conf --kernel kernel.elf --append ""
[0]
