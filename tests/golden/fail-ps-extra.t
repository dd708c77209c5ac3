$ doppel ps web
doppel: web is one argument too many; see `doppel ps --help`
[2]
