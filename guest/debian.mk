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
