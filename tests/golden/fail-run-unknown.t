$ doppel run -n --frobnicate
doppel: unknown option --frobnicate; see `doppel run --help`
[2]
