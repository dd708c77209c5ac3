$ printf 'kernel = k\0\n' >machine.conf; doppel run -n -c machine.conf
doppel: --config: machine.conf is no text file; give one with lines of key = value
[2]
