$ doppel run -n --net tap,queues=2
doppel: --net: 'tap,queues=2': a tap has either ifname or fd; see `doppel run --help`
[2]
