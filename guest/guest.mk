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

$(GUEST)/modules.tar: guest/modules.list
	@echo "  FETCH   $@"
	$(Q)guest/fetch modules $(GUEST)

# fio and iperf3 for the bench and for tests of disks.
$(GUEST)/tools.img:
	@echo "  FETCH   $@"
	$(Q)guest/fetch tools $(GUEST)

# An archive that can be appended to any initramfs: /modules/*.ko and /modules/order, which is also the order to load them in.
$(GUEST)/modules.cpio.gz: $(GUEST)/modules.tar $(GUEST)/newc
	@echo "  CPIO    $@"
	$(Q)rm -rf $(GUEST)/modules && mkdir $(GUEST)/modules && tar -C $(GUEST)/modules -xf $<
	$(Q){ echo 'dir /modules 755'; for f in order $$(cat $(GUEST)/modules/order); do \
		echo "file /modules/$$f 644 $(GUEST)/modules/$$f"; done; } | $(GUEST)/newc | gzip -9n > $@

$(GUEST)/newc: guest/newc.c | $(BUILD)/.deps-run
	@mkdir -p $(@D)
	@echo "  HOSTCC  $@"
	$(Q)$(CC) -std=gnu11 -O2 -Wall -Wextra -Werror -o $@ $<

$(GUEST)/initramfs.cpio.gz: guest/list.sh guest/init $(GUEST)/newc $(GUEST)/busybox
	@echo "  CPIO    $@"
	$(Q)guest/list.sh $(GUEST)/busybox | $(GUEST)/newc | gzip -9n > $@

# `make run ARGS="--memory 1G"` passes more options on; they come last, so they win. Status 8 is the user's own Ctrl-A x.
run: $(BUILD)/.deps-run all $(GUEST_FILES)
	$(Q)$(BUILD)/doppel run --kernel $(GUEST)/vmlinuz --initrd $(GUEST)/initramfs.cpio.gz --append "console=ttyS0" $(ARGS) || [ $$? = 8 ]

.PHONY: guest run

# A whole Debian as a disk image. The build takes minutes, so it happens when the image is missing or on
# `make debian REBUILD=1`; DEBIAN_ARGS="--packages gcc" passes options on (`guest/debian/build --help`).
DEBIAN_IMAGE := $(GUEST)/debian.raw

debian: $(DEBIAN_IMAGE)

$(DEBIAN_IMAGE): $(if $(REBUILD),always) | $(BUILD)/.deps-image all
	@mkdir -p $(@D)
	@echo "  DEBIAN  $@"
	$(Q)DOPPEL=$(BUILD)/doppel guest/debian/build --out $@ $(DEBIAN_ARGS)

always:

.PHONY: debian always
