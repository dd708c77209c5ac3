# The guard against lost optimizations: host instructions per guest instruction of fixed code. See tests/guard/README.md.
GUARD_OBJ := $(BUILD)/obj/tests/guard/main.c.o $(BUILD)/obj/tests/guard/corpus.S.o

$(GUARD_OBJ): $(BUILD)/obj/tests/guard/%.o: tests/guard/% | $(BUILD)/.deps-test
	@mkdir -p $(@D)
	@echo "  CC      $<"
	$(Q)$(CC) $(CFLAGS) -Itests -Itests/guard -MMD -MP -c -o $@ $<

$(BUILD)/tests/guard: $(GUARD_OBJ) $(BUILD)/libdoppel.a
	@mkdir -p $(@D)
	@echo "  LINK    $@"
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ -lcmocka $(LIBS)

test-guard: $(BUILD)/tests/guard
	$(Q)timeout 170 $(BUILD)/tests/guard tests/guard/maxima

# make guard-maxima: writes down what is now.
guard-maxima: $(BUILD)/tests/guard
	$(Q)$(BUILD)/tests/guard --print >$(BUILD)/tests/guard.new && \
		{ sed -n '/^#/p' tests/guard/maxima; cat $(BUILD)/tests/guard.new; } >$(BUILD)/tests/guard.table && \
		cp $(BUILD)/tests/guard.table tests/guard/maxima

-include $(GUARD_OBJ:.o=.d)
.PHONY: test-guard guard-maxima
