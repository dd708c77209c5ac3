$ doppel stats x --interval 0
doppel: --interval: '0' is no number of seconds; give one up to 86400
[2]
