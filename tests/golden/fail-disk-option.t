$ doppel run -n --disk x,colour=red
doppel: --disk: 'x,colour=red': the options are format, readonly and serial; see `doppel run --help`
[2]
