$ mkdir -m 700 elsewhere; ln -s $PWD/elsewhere .runtime/doppel; doppel ps 2>&1 | sed "s|$XDG_RUNTIME_DIR|RUNTIME|"; doppel ps 2>/dev/null
doppel: cannot open RUNTIME/doppel: Not a directory; remove it, or set XDG_RUNTIME_DIR
[10]
