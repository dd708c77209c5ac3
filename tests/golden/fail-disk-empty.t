$ doppel run -n --disk ,readonly=on
doppel: --disk: ',readonly=on' names no file; write F or F,OPTS
[2]
