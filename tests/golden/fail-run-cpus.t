$ doppel run -n --cpus 0
doppel: --cpus: '0' is not possible; give a number from 1 to 16
[2]
