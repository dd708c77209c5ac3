# What a killed machine leaves: shown once, then gone. Its log stays.
$ mkdir -m 700 .runtime/doppel; cd .runtime/doppel; echo 1 >web.lock; touch web.sock web.log; doppel ps && ls && doppel ps
NAME                     PID STATE     CPUS   MEMORY ENGINE       UPTIME        CPU
web                        - dead         -        - -                 -          -
web.log
NAME                     PID STATE     CPUS   MEMORY ENGINE       UPTIME        CPU
[0]
