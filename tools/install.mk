# make install PREFIX=/usr DESTDIR=/tmp/package
PREFIX := /usr/local
DESTDIR :=

install: all
	install -d "$(DESTDIR)$(PREFIX)/bin" "$(DESTDIR)$(PREFIX)/share/man/man1" "$(DESTDIR)$(PREFIX)/share/man/man5"
	install -m 755 $(BUILD)/doppel "$(DESTDIR)$(PREFIX)/bin/doppel"
	install -m 755 $(BUILD)/doppel-vm "$(DESTDIR)$(PREFIX)/bin/doppel-vm"
	install -m 755 $(BUILD)/doppel-fs "$(DESTDIR)$(PREFIX)/bin/doppel-fs"
	install -d "$(DESTDIR)$(PREFIX)/libexec/doppel/debian"
	install -m 755 guest/debian/build "$(DESTDIR)$(PREFIX)/libexec/doppel/debian/build"
	install -m 644 guest/debian/prepare guest/debian/customize "$(DESTDIR)$(PREFIX)/libexec/doppel/debian"
	install -m 644 docs/man/doppel.1 "$(DESTDIR)$(PREFIX)/share/man/man1/doppel.1"
	install -m 644 docs/man/doppel.conf.5 "$(DESTDIR)$(PREFIX)/share/man/man5/doppel.conf.5"

.PHONY: install
