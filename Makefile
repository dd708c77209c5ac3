# doppel: one non-recursive make. `make` builds build/doppel; V=1 shows commands, SAN=1 builds with ASan and UBSan
# (into build-san), TORTURE=name builds a hostile variant (into build-torture-name), LIBFUZZER=1 is for `make fuzz` (tests/unit.mk).
# Fragments: tests/*.mk, bench/*.mk.
ifeq ($(SAN),1)
BUILD := build-san
SANFLAGS := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
else ifeq ($(LIBFUZZER),1)
BUILD := build-fuzz
SANFLAGS := -fsanitize=address,undefined,fuzzer-no-link -fno-sanitize-recover=undefined -fno-omit-frame-pointer
else ifneq ($(TORTURE),)
BUILD := build-torture-$(TORTURE)
TORTUREFLAGS := -DTORTURE_$(TORTURE)
else
BUILD := build
endif
Q := $(if $(V),,@)

CC := gcc
WARN := -Wall -Wextra -Wshadow -Wmissing-prototypes -Wstrict-prototypes -Wimplicit-fallthrough -Wvla -Werror
CFLAGS := -std=gnu11 -O2 -g -march=x86-64-v2 -fno-strict-aliasing -D_GNU_SOURCE -Isrc $(WARN) $(SANFLAGS) $(TORTUREFLAGS)
LDFLAGS := $(SANFLAGS) -pthread
LIBS := -lZydis -lseccomp -luring -lz -lzstd -lext2fs -lcom_err

# Code that runs while the guest's vector state is live in the host registers: see docs/design/cpu.md.
NOFPU_DIRS := src/cpu src/mem src/engine src/engine/interp src/engine/bt src/engine/lockstep
NOFPU_FILES := src/x86/form.c
NOFPU := -mgeneral-regs-only -minline-all-stringops -fno-stack-protector -fno-tree-vectorize

LIB_DIRS := base x86 proto host host/block host/net fs mem io cpu engine engine/interp engine/bt engine/lockstep gdb dev dev/platform dev/virtio vm vm/boot
LIB_SRC := $(filter-out src/vm/main.c src/fs/main.c,$(foreach d,$(LIB_DIRS),$(wildcard src/$(d)/*.c src/$(d)/*.S)))
LIB_OBJ := $(patsubst src/%,$(BUILD)/obj/%.o,$(LIB_SRC))
CLI_SRC := $(wildcard src/cli/*.c)
CLI_LIB_OBJ := $(patsubst src/%,$(BUILD)/obj/%.o,$(filter-out src/cli/main.c,$(CLI_SRC)))
CLI_OBJ := $(patsubst src/%,$(BUILD)/obj/%.o,$(CLI_SRC) $(wildcard src/base/*.c src/proto/*.c src/host/*.c src/host/block/*.c src/host/net/*.c))
VM_OBJ := $(BUILD)/obj/vm/main.c.o
FS_OBJ := $(BUILD)/obj/fs/main.c.o
ALL_OBJ := $(sort $(LIB_OBJ) $(CLI_OBJ) $(VM_OBJ) $(FS_OBJ))

all: $(BUILD)/doppel $(BUILD)/doppel-vm $(BUILD)/doppel-fs

$(BUILD)/libdoppel.a: $(LIB_OBJ)
	@echo "  AR      $@"
	$(Q)rm -f $@ && ar rcs $@ $^

# Not linked into a program: what the unit tests of the command line take their objects from.
$(BUILD)/libcli.a: $(CLI_LIB_OBJ)
	@echo "  AR      $@"
	$(Q)rm -f $@ && ar rcs $@ $^

$(BUILD)/doppel: $(CLI_OBJ)
	@echo "  LINK    $@"
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LIBS) -ljansson

$(BUILD)/doppel-vm: $(VM_OBJ) $(BUILD)/libdoppel.a
	@echo "  LINK    $@"
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LIBS)

$(BUILD)/doppel-fs: $(FS_OBJ) $(BUILD)/libdoppel.a
	@echo "  LINK    $@"
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LIBS)

nofpu = $(if $(filter $(patsubst %/,%,$(dir $<)),$(NOFPU_DIRS))$(filter $<,$(NOFPU_FILES)),$(NOFPU))
$(BUILD)/obj/%.c.o: src/%.c
	@mkdir -p $(@D)
	@echo "  CC      $<"
	$(Q)$(CC) $(CFLAGS) $(nofpu) -MMD -MP -c -o $@ $<

$(BUILD)/obj/%.S.o: src/%.S
	@mkdir -p $(@D)
	@echo "  AS      $<"
	$(Q)$(CC) $(CFLAGS) -MMD -MP -c -o $@ $<

-include $(ALL_OBJ:.o=.d)
-include $(wildcard guest/*.mk tests/*.mk bench/*.mk tools/*.mk)

clean:
	rm -rf $(BUILD)

.PHONY: all clean
.DELETE_ON_ERROR:
