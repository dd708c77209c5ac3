$ doppel run -n --net carrier
doppel: --net: 'carrier': the kinds are user, tap and none; see `doppel run --help`
[2]
