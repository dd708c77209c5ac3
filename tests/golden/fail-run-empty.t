$ doppel run -n --name=
doppel: --name: the value is empty; give N
[2]
