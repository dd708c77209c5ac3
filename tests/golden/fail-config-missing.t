$ doppel run -n -c missing.conf
doppel: --config: cannot read missing.conf: No such file or directory; check the path, or give another
[10]
