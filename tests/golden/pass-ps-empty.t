$ doppel ps
NAME                     PID STATE     CPUS   MEMORY ENGINE       UPTIME        CPU
[0]
$ doppel ps --format json
[]
[0]
