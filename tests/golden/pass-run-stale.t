# The next start takes over the name of a killed machine.
$ mkdir -m 700 .runtime/doppel; echo 1 >.runtime/doppel/web.lock; touch .runtime/doppel/web.sock; doppel run --name web --kernel kernel.elf --engine interp --debug-exit --serial none; echo status $?; ls .runtime/doppel
status 1
[0]
