file first.conf
| kernel = nowhere
| memory = 12M
| debug-exit = yes
file second.conf
| kernel = kernel.elf
| memory = 512G
# Files in their order, whatever stands between them; then the rest of the line. 512G would not do.
$ doppel run -n --memory 64M -c first.conf --debug-exit=no -c second.conf --engine interp
[0]
