$ doppel run -n --kernel kernel.elf --initrd missing
doppel: --initrd: cannot open missing: No such file or directory; check the path, or give another
[10]
