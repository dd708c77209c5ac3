$ doppel run -n --kernel kernel.elf --stats missing/file
doppel: --stats: cannot write missing/file: No such file or directory; check the path, or give another
[10]
