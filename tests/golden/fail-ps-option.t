$ doppel ps --all
doppel: --all is no option here; see `doppel ps --help`
[2]
