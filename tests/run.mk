# make test: everything; ends with `N passed, N failed`. make test ARGS="--only vm" runs a part.
test: | $(BUILD)/.deps-test
test: all vm-files
	$(Q)BUILD=$(BUILD) tests/run $(ARGS)

# make test-vm ENGINE=bt
test-vm: all vm-files | $(BUILD)/.deps-test
	$(Q)BUILD=$(BUILD) tests/vm/run --engine $(ENGINE) $(ARGS)

# Disks under fio, and under kill -9: make test-disk ARGS="--seconds 600"
test-disk: all vm-files $(GUEST)/tools.img | $(BUILD)/.deps-test
	$(Q)BUILD=$(BUILD) tests/vm/disk $(ARGS)

# What the user reads, to the letter.
test-golden: all $(GUEST_OUT)/test-long64-hlt.elf | $(BUILD)/.deps-test
	$(Q)BUILD=$(BUILD) tests/golden/run

.PHONY: test test-vm test-disk test-golden
