$ doppel run -n --net user,mac=01:00:5e:00:00:01
doppel: --net: 'user,mac=01:00:5e:00:00:01': mac is a unicast address like 52:54:00:12:34:56; see `doppel run --help`
[2]
