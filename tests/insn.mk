# Instruction tests: the host's processor against an engine. make test-insn ENGINE=bt
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

test-insn: ENGINE ?= interp
test-insn: $(BUILD)/tests/insn
	$(Q)$(BUILD)/tests/insn --engine $(ENGINE)
	$(Q)[ $(ENGINE) = interp ] || $(BUILD)/tests/insn --engine $(ENGINE) --stream 20

-include $(INSN_OBJ:.o=.d)
.PHONY: test-insn
