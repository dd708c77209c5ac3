$ doppel run -n --kernel
doppel: --kernel needs a value; see `doppel run --help`
[2]
