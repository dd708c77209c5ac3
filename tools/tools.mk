# `make check-nofpu`: code that runs while the guest's vector state is live must not disturb it. `make shape`: sizes.
NOFPU_OBJ = $(foreach d,$(patsubst src/%,%,$(NOFPU_DIRS)),$(patsubst src/%,$(BUILD)/obj/%.o,$(wildcard src/$(d)/*.c))) $(patsubst src/%,$(BUILD)/obj/%.o,$(NOFPU_FILES))

check-nofpu: $(NOFPU_OBJ) | $(BUILD)/.deps-test
	$(Q)tools/check-nofpu $^

shape:
	$(Q)tools/shape

.PHONY: check-nofpu shape
