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

# The same harnesses under libFuzzer, code under test included: built by clang into a folder of their own, with ASan and UBSan. What
# reached new code is kept in build-fuzz/NAME.corpus for the next time. make fuzz FUZZ=qcow2 FUZZ_ARGS="-len_control=0 -max_total_time=3600"
FUZZ ?= loaders
FUZZ_ARGS ?= -max_len=4096 -len_control=0
ifeq ($(LIBFUZZER),1)
CC := clang
CFLAGS := $(filter-out -W%,$(CFLAGS)) -w
NOFPU :=
# Names of processor features that it does not know; the host has those of the code that is fuzzed.
$(BUILD)/obj/x86/insn.c.o: CFLAGS += -D'__builtin_cpu_supports(x)=1'

$(BUILD)/fuzz_%: tests/fuzz/fuzz_%.c $(wildcard tests/fuzz/*.h tests/lib/*.h) $(BUILD)/libdoppel.a
	@echo "  FUZZ    $@"
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -fsanitize=fuzzer -DLIBFUZZER -Itests -Itests/lib -o $@ $< $(BUILD)/libdoppel.a $(LIBS)
else
fuzz: | $(BUILD)/.deps-fuzz
	$(Q)$(MAKE) LIBFUZZER=1 build-fuzz/fuzz_$(FUZZ)
	$(Q)mkdir -p build-fuzz/$(FUZZ).corpus
	build-fuzz/fuzz_$(FUZZ) $(FUZZ_ARGS) build-fuzz/$(FUZZ).corpus
endif

.PHONY: test-unit fuzz
