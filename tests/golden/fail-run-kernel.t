$ doppel run -n --kernel missing
doppel: --kernel: cannot open missing: No such file or directory; check the path, or give another
[10]
