$ doppel run -n --kernel kernel.elf --module ,args
doppel: --module: ',args' names no file; write F or F,ARGS
[2]
