$ doppel run -n -q
doppel: unknown option -q; see `doppel run --help`
[2]
