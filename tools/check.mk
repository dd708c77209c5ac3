# Checks of the source itself.
check-layers: | $(BUILD)/.deps-test
	$(Q)tools/check-layers

check-headers: | $(BUILD)/.deps-build
	$(Q)CC=$(CC) CHECK_FLAGS="$(filter-out -Werror,$(CFLAGS)) -Werror" tools/check-headers

check-source: | $(BUILD)/.deps-test
	$(Q)tools/check-source

.PHONY: check-layers check-headers check-source
