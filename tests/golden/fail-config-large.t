$ head -c 2000000 /dev/zero | tr '\0' '#' >machine.conf; doppel run -n -c machine.conf
doppel: --config: cannot read machine.conf: File too large; check the path, or give another
[10]
