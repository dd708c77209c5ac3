$ doppel run -n --net user,hostfwd=22
doppel: --net: 'user,hostfwd=22': hostfwd is [ADDRESS:]HOSTPORT:GUESTPORT[/tcp|/udp]; see `doppel run --help`
[2]
