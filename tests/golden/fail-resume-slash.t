$ doppel resume a/b
doppel: no machine called 'a/b' is running; `doppel ps` lists those that are
[10]
