$ doppel run -n --serial telepathy
doppel: --serial: 'telepathy' is unknown; choose stdio, none or file:F
[2]
