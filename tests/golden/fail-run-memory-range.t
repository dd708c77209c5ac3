$ doppel run -n --memory 1
doppel: --memory: '1' is out of range; give between 2M and 512G
[2]
