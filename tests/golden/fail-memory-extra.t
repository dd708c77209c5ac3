$ doppel memory x 1G 2G
doppel: 2G is one argument too many; see `doppel memory --help`
[2]
