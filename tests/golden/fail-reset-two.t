$ doppel reset a b
doppel: b is one argument too many; see `doppel reset --help`
[2]
