$ doppel stop
doppel: stop needs the name of a machine, `doppel ps` lists them; see `doppel stop --help`
[2]
