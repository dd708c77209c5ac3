$ doppel run -n --kernel kernel.elf --profile missing/file
doppel: --profile: cannot write missing/file: No such file or directory; check the path, or give another
[10]
