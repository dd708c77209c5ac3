# Guests that assert inside: $(BUILD)/tests/guest/test-ENV-NAME.elf from tests/guest/NAME/main.c. See tests/guest/README.md.
# Linked for the environment's own architecture, then rewritten as ELF32 because multiboot loaders take nothing else.
GUEST_long64 := $(patsubst tests/guest/%/main.c,%,$(shell grep -ls '^ \* Environments:.*long64' tests/guest/*/main.c))
GUEST_prot32 := $(patsubst tests/guest/%/main.c,%,$(shell grep -ls '^ \* Environments:.*prot32' tests/guest/*/main.c))
GUEST_OUT := $(BUILD)/tests/guest
GUEST_IMG := $(GUEST_long64:%=$(GUEST_OUT)/test-long64-%.elf) $(GUEST_prot32:%=$(GUEST_OUT)/test-prot32-%.elf)

GUEST_CFLAGS := -std=gnu11 -O2 -g -ffreestanding -fno-pic -fno-pie -fno-stack-protector -fno-asynchronous-unwind-tables \
	-fcf-protection=none -fno-strict-aliasing -fno-delete-null-pointer-checks -mgeneral-regs-only -Itests/lib/guest $(WARN) -Wno-main -Wno-overlength-strings -Wno-array-bounds -Wno-stringop-overflow -Wno-stringop-overread
GUEST_CFLAGS_long64 := $(GUEST_CFLAGS) -m64 -mno-red-zone -mcmodel=small
GUEST_CFLAGS_prot32 := $(GUEST_CFLAGS) -m32 -march=i686
GUEST_LD_long64 := -m elf_x86_64
GUEST_LD_prot32 := -m elf_i386
GUEST_LIB := report.c trap.c paging.c platform.c
GUEST_LIB_long64 := start64.S desc64.c ap64.S smp.c $(GUEST_LIB)
GUEST_LIB_prot32 := start32.S desc32.c $(GUEST_LIB)

define guest_env
GUEST_OBJ_$(1) := $$(GUEST_LIB_$(1):%=$$(GUEST_OUT)/$(1)/lib/%.o)
$$(GUEST_OUT)/$(1)/lib/%.o: tests/lib/guest/% tests/guest.mk
	@mkdir -p $$(@D)
	$$(Q)$$(CC) $$(GUEST_CFLAGS_$(1)) -MMD -MP -c -o $$@ $$<
$$(GUEST_OUT)/$(1)/%.o: tests/guest/%/main.c tests/guest.mk
	@mkdir -p $$(@D)
	@echo "  GUEST   $$<"
	$$(Q)$$(CC) $$(GUEST_CFLAGS_$(1)) -MMD -MP -c -o $$@ $$<
$$(GUEST_OUT)/test-$(1)-%.elf: $$(GUEST_OUT)/$(1)/%.o $$(GUEST_OBJ_$(1)) tests/lib/guest/link.ld
	$$(Q)ld $$(GUEST_LD_$(1)) -z max-page-size=4096 -z noexecstack --no-warn-rwx-segments -static -T tests/lib/guest/link.ld -o $$@.native $$(GUEST_OBJ_$(1)) $$<
	$$(Q)objcopy -O elf32-i386 $$@.native $$@
-include $$(wildcard $$(GUEST_OUT)/$(1)/*.d $$(GUEST_OUT)/$(1)/lib/*.d)
.SECONDARY: $$(GUEST_OBJ_$(1)) $$(patsubst %,$$(GUEST_OUT)/$(1)/%.o,$$(GUEST_$(1)))
endef
$(eval $(call guest_env,long64))
$(eval $(call guest_env,prot32))

guests: $(GUEST_IMG)

# Every guest on one engine: make test-guest ENGINE=bt
ENGINE ?= interp
test-guest: $(GUEST_IMG) $(BUILD)/doppel $(BUILD)/doppel-vm
	$(Q)tests/guest/run --build $(BUILD) --engine $(ENGINE) $(GUEST_ARGS)

# Stock gdb against the guest of tests/guest/gdb, and against Debian's kernel if it is there.
test-gdb: $(GUEST_OUT)/test-long64-gdb.elf $(BUILD)/doppel $(BUILD)/doppel-vm | $(BUILD)/.deps-test
	$(Q)BUILD=$(BUILD) tests/gdb/run --engine $(ENGINE)

.PHONY: guests test-guest test-gdb
