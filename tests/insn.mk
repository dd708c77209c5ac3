# Instruction tests: the host's processor against an engine. make test-insn ENGINE=bt
# The fixed seed guards what is known. Another one changes with every commit (outside of a clone with the day), for what nobody has thought of:
# the same tree tests the same, and a failure prints the command that repeats it.
INSN_SRC := $(wildcard tests/insn/*.c tests/insn/*.S)
INSN_OBJ := $(patsubst tests/%,$(BUILD)/obj/tests/%.o,$(INSN_SRC))

$(BUILD)/obj/tests/insn/%.o: tests/insn/%
	@mkdir -p $(@D)
	@echo "  CC      $<"
	$(Q)$(CC) $(CFLAGS) -Itests/insn -MMD -MP -c -o $@ $<

$(BUILD)/tests/insn: $(INSN_OBJ) $(BUILD)/libdoppel.a
	@mkdir -p $(@D)
	@echo "  LINK    $@"
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ -lZydis

INSN_SEED ?= 0x$(shell id=$$(git rev-parse HEAD 2>/dev/null || date +%Y%m%d); echo $$id | cut -c1-8)

test-insn: ENGINE ?= interp
test-insn: $(BUILD)/tests/insn
	$(Q)$(BUILD)/tests/insn --engine $(ENGINE)
	$(Q)$(BUILD)/tests/insn --engine $(ENGINE) $(INSN_SEED) 150000
	$(Q)[ $(ENGINE) = interp ] || $(BUILD)/tests/insn --engine $(ENGINE) --stream 20
	$(Q)[ $(ENGINE) = interp ] || $(BUILD)/tests/insn --engine $(ENGINE) --stream 10 $(INSN_SEED)

-include $(INSN_OBJ:.o=.d)
.PHONY: test-insn
