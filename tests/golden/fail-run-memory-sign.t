$ doppel run -n --memory -5
doppel: --memory: '-5' is no size; write for example 512M or 2G
[2]
