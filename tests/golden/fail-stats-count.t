$ doppel stats x --count -1
doppel: --count: '-1' is no number; give at least 1
[2]
