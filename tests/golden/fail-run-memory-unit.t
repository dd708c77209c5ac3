$ doppel run -n --memory 12Q
doppel: --memory: '12Q' is no size; write for example 512M or 2G
[2]
