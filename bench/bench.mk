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

# make bench ARGS="--format json"
bench: all $(BENCH)/initramfs.cpio.gz $(GUEST_FILES) | $(BUILD)/.deps-test
	$(Q)BUILD=$(BUILD) bench/run $(ARGS)

.PHONY: bench
