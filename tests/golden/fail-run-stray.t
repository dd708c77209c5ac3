$ doppel run -n vmlinuz
doppel: 'vmlinuz' is no option; kernels are given with --kernel F, see `doppel run --help`
[2]
