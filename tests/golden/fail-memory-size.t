$ doppel memory x all
doppel: 'all' is no size; write for example 512M or 2G, or max
[2]
