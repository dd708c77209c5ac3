$ mkdir -m 755 .runtime/doppel; doppel ps 2>&1 | sed "s|$XDG_RUNTIME_DIR|RUNTIME|"; doppel ps 2>/dev/null
doppel: RUNTIME/doppel is not yours alone; remove it, or chmod 700 it if it is yours
[10]
