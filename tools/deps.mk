# Missing Debian packages are installed before anything that needs them; a stamp per purpose, so the check costs nothing
# afterwards. DEPS=0 skips it (other distributions, packagers).
ifneq ($(DEPS),0)
$(ALL_OBJ): | $(BUILD)/.deps-build
endif

$(BUILD)/.deps-%: tools/deps
	@mkdir -p $(@D)
	$(Q)$(if $(filter 0,$(DEPS)),:,tools/deps $*)
	@touch $@
