$ doppel run -n --name a/b
doppel: --name: 'a/b' is no name; use letters, digits, '_', and after the first also '.' and '-'
[2]
