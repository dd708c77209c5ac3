# The demo guest: Debian's cloud kernel, byte for byte, and an initramfs with a static busybox. Everything lands in
# build/guest whatever $(BUILD) is. Downloads have no prerequisites: once there, they stay until `make clean`.
GUEST := build/guest
GUEST_FILES := $(GUEST)/vmlinuz $(GUEST)/initramfs.cpio.gz

guest: $(GUEST_FILES)

$(GUEST)/vmlinuz:
	@echo "  FETCH   $@"
	$(Q)guest/fetch kernel $(GUEST)

$(GUEST)/busybox:
	@echo "  FETCH   $@"
	$(Q)guest/fetch $(@F) $(GUEST)

$(GUEST)/newc: guest/newc.c | $(BUILD)/.deps-run
	@mkdir -p $(@D)
	@echo "  HOSTCC  $@"
	$(Q)$(CC) -std=gnu11 -O2 -Wall -Wextra -Werror -o $@ $<

$(GUEST)/initramfs.cpio.gz: guest/list.sh guest/init $(GUEST)/newc $(GUEST)/busybox
	@echo "  CPIO    $@"
	$(Q)guest/list.sh $(GUEST)/busybox | $(GUEST)/newc | gzip -9n > $@

# `make run ARGS="--memory 1G"` passes more options on; they come last, so they win.
run: $(BUILD)/.deps-run all $(GUEST_FILES)
	$(Q)$(BUILD)/doppel run --kernel $(GUEST)/vmlinuz --initrd $(GUEST)/initramfs.cpio.gz --append "console=ttyS0" $(ARGS)

.PHONY: guest run
