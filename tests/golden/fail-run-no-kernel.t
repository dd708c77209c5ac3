$ doppel run -n --kernel /dev/null
doppel: --kernel: /dev/null is not a regular file; give a file
[10]
