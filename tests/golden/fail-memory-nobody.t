$ doppel memory nobody 1G
doppel: no machine called 'nobody' is running; `doppel ps` lists those that are
[10]
