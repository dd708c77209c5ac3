# tests/unit: tests/unit/FOLDER/test_*.c, each linked with the real code and run; tests/fuzz: harnesses, run for a fixed number
# of iterations. Output of each test goes to FILE.log; the summary counts programs.
UNIT_SRC := $(wildcard tests/unit/*/test_*.c tests/unit/*/*/test_*.c)
UNIT_BIN := $(patsubst tests/unit/%.c,$(BUILD)/tests/unit/%,$(UNIT_SRC))
FUZZ_SRC := $(wildcard tests/fuzz/fuzz_*.c)
FUZZ_BIN := $(patsubst tests/fuzz/%.c,$(BUILD)/tests/fuzz/%,$(FUZZ_SRC))
FUZZ_RUNS ?= $(if $(filter 1,$(SAN)),3000,20000)

$(UNIT_BIN): $(BUILD)/tests/unit/%: tests/unit/%.c $(BUILD)/libdoppel.a $(BUILD)/libcli.a | $(BUILD)/.deps-test
	@mkdir -p $(@D)
	@echo "  TEST    $<"
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -Itests -Itests/lib -MMD -MP -MF $@.d -o $@ $< $(BUILD)/libcli.a $(BUILD)/libdoppel.a -lcmocka $(LIBS) -ljansson

$(FUZZ_BIN): $(BUILD)/tests/fuzz/%: tests/fuzz/%.c $(BUILD)/libdoppel.a
	@mkdir -p $(@D)
	@echo "  FUZZ    $<"
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -Itests -Itests/lib -MMD -MP -MF $@.d -o $@ $< $(BUILD)/libdoppel.a $(LIBS)

-include $(UNIT_BIN:=.d) $(FUZZ_BIN:=.d)

# Prints PASS/FAIL a program and `N passed, N failed`; the log of a failing one is shown.
test-unit: $(UNIT_BIN) $(FUZZ_BIN)
	@passed=0; failed=0; for t in $(UNIT_BIN) $(FUZZ_BIN:=:$(FUZZ_RUNS)); do \
		bin=$${t%%:*}; arg=; [ $$bin = $$t ] || arg=$${t##*:}; \
		if timeout 300 $$bin $$arg >$$bin.log 2>&1; then passed=$$((passed + 1)); echo "PASS $${bin#$(BUILD)/tests/}"; \
		else failed=$$((failed + 1)); echo "FAIL $${bin#$(BUILD)/tests/}"; tail -40 $$bin.log | sed 's/^/    /'; fi; \
	done; echo "$$passed passed, $$failed failed"; [ $$failed = 0 ]

# The same harnesses under libFuzzer: make fuzz FUZZ=loaders
FUZZ ?= loaders
fuzz: $(BUILD)/libdoppel.a
	clang -g -O1 -fsanitize=fuzzer,address,undefined -DLIBFUZZER -std=gnu11 -D_GNU_SOURCE -Isrc -Itests -o $(BUILD)/fuzz_$(FUZZ) \
		tests/fuzz/fuzz_$(FUZZ).c $(wildcard src/vm/boot/*.c) $(BUILD)/libdoppel.a $(LIBS)
	$(BUILD)/fuzz_$(FUZZ) -max_len=65536

.PHONY: test-unit fuzz
