file conf/machine.conf
| # Relative to the file.
| kernel = kernel.elf
$ doppel run -n -c conf/machine.conf
doppel: conf/machine.conf:2: kernel: cannot open conf/kernel.elf: No such file or directory; check the path, or give another
[10]
