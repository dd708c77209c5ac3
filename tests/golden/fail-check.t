$ doppel check --all
doppel: check takes only --format text or --format json; see `doppel check --help`
[2]
