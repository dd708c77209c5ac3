$ doppel stats x --interval
doppel: --interval needs a value; see `doppel stats --help`
[2]
