$ doppel memory x 0
doppel: '0' is no size; write for example 512M or 2G, or max
[2]
