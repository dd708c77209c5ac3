# The bench: one static program and an initramfs holding it, run everywhere by bench/run.
BENCH := build/bench

$(BENCH)/bench: bench/guest/bench.c | $(BUILD)/.deps-build
	@mkdir -p $(@D)
	@echo "  CC      $<"
	$(Q)$(CC) -std=gnu11 -O2 -static $(WARN) -D_GNU_SOURCE -o $@ $< -lm

# A second archive behind the first is unpacked over it.
$(BENCH)/initramfs.cpio.gz: $(BENCH)/bench bench/guest/bench.sh $(GUEST)/initramfs.cpio.gz $(GUEST)/newc
	@echo "  CPIO    $@"
	$(Q)printf 'file /bench 755 $(BENCH)/bench\nfile /bench.sh 755 bench/guest/bench.sh\n' | $(GUEST)/newc | gzip -9n | \
		cat $(GUEST)/initramfs.cpio.gz - > $@

$(BENCH)/io.cpio.gz: bench/guest/io.sh guest/tools.sh $(GUEST)/initramfs.cpio.gz $(GUEST)/modules.cpio.gz $(GUEST)/newc
	@mkdir -p $(@D)
	@echo "  CPIO    $@"
	$(Q)printf 'file /io.sh 755 bench/guest/io.sh\nfile /tools.sh 755 guest/tools.sh\n' | $(GUEST)/newc | gzip -9n | \
		cat $(GUEST)/initramfs.cpio.gz $(GUEST)/modules.cpio.gz - > $@

# make bench ARGS="--format json"
bench: all $(BENCH)/initramfs.cpio.gz $(BENCH)/io.cpio.gz $(GUEST)/tools.img $(GUEST_FILES) | $(BUILD)/.deps-test
	$(Q)BUILD=$(BUILD) bench/run $(ARGS)

# Real programs; some 100 MiB of packages, so they are asked for by themselves: make bench-programs ARGS="gcc python"
$(GUEST)/programs.img:
	@echo "  FETCH   $@"
	$(Q)guest/fetch programs $(GUEST)

$(BENCH)/programs.cpio.gz: bench/guest/programs.sh bench/guest/programs-init bench/guest/bench.c guest/newc.c $(GUEST)/initramfs.cpio.gz \
		$(GUEST)/modules.cpio.gz $(GUEST)/newc
	@mkdir -p $(@D)
	@echo "  CPIO    $@"
	$(Q)printf 'file /%s 755 bench/guest/%s\n' programs.sh programs.sh programs-init programs-init bench.c bench.c >$@.list
	$(Q)printf 'file /newc.c 644 guest/newc.c\n' | cat $@.list - | $(GUEST)/newc | gzip -9n | \
		cat $(GUEST)/initramfs.cpio.gz $(GUEST)/modules.cpio.gz - > $@

bench-programs: all $(BENCH)/programs.cpio.gz $(GUEST)/programs.img $(GUEST_FILES) | $(BUILD)/.deps-test
	$(Q)BUILD=$(BUILD) bench/programs $(ARGS)

# A whole Debian to its login prompt: needs the image of `make debian`, which takes minutes and a mirror, so it is asked for by itself.
bench-debian: all | $(BUILD)/.deps-test
	$(Q)BUILD=$(BUILD) bench/debian $(ARGS)

.PHONY: bench bench-debian bench-programs
