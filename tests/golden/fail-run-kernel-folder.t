$ doppel run -n --kernel /
doppel: --kernel: / is not a regular file; give a file
[10]
