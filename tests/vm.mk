# tests/vm: what runs inside the Debian guest, and the driver's targets.
VMT := build/tests/vm
VMT_BIN := $(VMT)/vmtest $(VMT)/elf32

# These programs do forbidden things on purpose; the compiler need not point them out.
VMTEST_SRC := $(filter-out %/elf32.c,$(wildcard tests/vm/guest/*.c))
$(VMT)/vmtest: $(VMTEST_SRC) tests/vm/guest/vmtest.h | $(BUILD)/.deps-build
	@mkdir -p $(@D)
	@echo "  CC      $@"
	$(Q)$(CC) -std=gnu11 -O2 -msse4.2 -static -pthread $(WARN) -Wno-clobbered -Wno-array-bounds -Wno-stringop-overflow \
		-D_GNU_SOURCE -o $@ $(VMTEST_SRC) -lm

$(VMT)/elf32: tests/vm/guest/elf32.c | $(BUILD)/.deps-build
	@mkdir -p $(@D)
	@echo "  CC      $<"
	$(Q)$(CC) -std=gnu11 -m32 -O2 -msse2 -mfpmath=sse -ffreestanding -fno-strict-aliasing -fno-stack-protector \
		-fno-asynchronous-unwind-tables -nostdlib -static -no-pie -fno-pic $(WARN) -o $@ $<

# Debian's i386 busybox is a bonus: without network the rest still runs, and the driver says what it left out.
$(VMT)/initramfs.cpio.gz: $(VMT_BIN) $(wildcard tests/vm/guest/*.sh) $(GUEST)/initramfs.cpio.gz \
		$(GUEST)/modules.cpio.gz $(GUEST)/newc
	@echo "  CPIO    $@"
	$(Q)[ -f $(GUEST)/busybox32 ] || guest/fetch busybox32 $(GUEST) || true
	$(Q){ printf 'file /%s 755 %s\n' vmtest $(VMT)/vmtest elf32 $(VMT)/elf32 script.sh tests/vm/guest/script.sh \
		disk.sh tests/vm/guest/disk.sh vsock.sh tests/vm/guest/vsock.sh \
		folder.sh tests/vm/guest/folder.sh hvc.sh tests/vm/guest/hvc.sh; \
		[ ! -f $(GUEST)/busybox32 ] || echo 'file /busybox32 755 $(GUEST)/busybox32'; } | \
		$(GUEST)/newc | gzip -9n | cat $(GUEST)/initramfs.cpio.gz $(GUEST)/modules.cpio.gz - > $@

vm-files: $(VMT)/initramfs.cpio.gz $(GUEST_FILES)

.PHONY: vm-files
