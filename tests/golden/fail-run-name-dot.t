$ doppel run -n --name ..hidden
doppel: --name: '..hidden' is no name; use letters, digits, '_', and after the first also '.' and '-'
[2]
