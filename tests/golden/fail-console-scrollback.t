$ doppel console x --scrollback many
doppel: --scrollback: 'many' is no number of bytes; give one up to 262144
[2]
