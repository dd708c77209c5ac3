/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the machine boots: a kernel given as a file, or the one on its first bootable disk.
 *
 * Runs in the sealed process, on the main thread before the guest starts and at a rendezvous when it resets; a disk is read anew
 * each time, so a kernel that the guest has installed is what it boots next. No requests are in flight then.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "cpu/cpu.h"
#include "dev/platform/acpi.h"
#include "dev/platform/smbios.h"
#include "vm/boot/disk.h"
#include "vm/vm.h"

#define KERNEL_MAX (1ull << 30)

/* Reads the whole kernel into anonymous memory: a mapping of the file would let whoever shortens it kill us. */
static const char *read_kernel(const struct vm_file *f, uint8_t **image)
{
	uint64_t off = 0;

	if (f->size == 0 || f->size > KERNEL_MAX)
		return f->size ? "larger than 1 GiB, which no kernel is; give a kernel" : "an empty file; give a kernel";
	*image = mmap(NULL, f->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (*image == MAP_FAILED)
		return "not enough host memory to read it; free some";
	while (off < f->size) {
		ssize_t n = pread(f->fd, *image + off, f->size - off, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			munmap(*image, f->size);
			return "cannot be read to its end; check the file";
		}
		off += (uint64_t)n;
	}
	return NULL;
}

/* The ACPI tables go where firmware would leave them; the FACS among them is the guest's to write. */
static const char *write_acpi(struct vm *vm)
{
	uint8_t buf[ACPI_TABLES_MAX(VCPU_MAX)];
	int len = acpi_tables_build(buf, sizeof(buf), BOOT_ACPI, vm->config->cpus, vm->board.virtio_mmio, &vm->target.rsdp);

	return len < 0 ? "the ACPI tables cannot be built; give --cpus less" : boot_copy(&vm->target, BOOT_ACPI, buf, (size_t)len);
}

/* The processor's names as CPUID has them, blanks around them left out. */
static void name_processor(struct vcpu *v, struct smbios_config *c)
{
	uint32_t r[4], brand[3][4];
	const char *text = (const char *)brand;
	size_t skip = 0;

	cpu_cpuid(v, 0, 0, r);
	memcpy(c->vendor, (const uint32_t[]){r[1], r[3], r[2]}, sizeof(c->vendor) - 1);
	for (unsigned i = 0; i < 3; i++)
		cpu_cpuid(v, 0x80000002 + i, 0, brand[i]);
	while (skip < sizeof(brand) && text[skip] == ' ')
		skip++;
	for (size_t i = skip; i < sizeof(brand) && text[i]; i++)
		c->brand[i - skip] = text[i];
	for (size_t n = strlen(c->brand); n && c->brand[n - 1] == ' '; n--)
		c->brand[n - 1] = 0;
	cpu_cpuid(v, 1, 0, r);
	c->signature = r[0];
	c->features = r[3];
}

static const char *write_smbios(struct vm *vm)
{
	struct smbios_config c = {.ncpus = vm->ncpus, .mhz = (unsigned)(vm->io.guest_tsc_khz / 1000),
				  .low_ram = vm->target.low_ram, .high_ram = vm->target.high_ram};
	uint8_t buf[SMBIOS_TABLES_MAX];
	int len;

	name_processor(vm->vcpu[0], &c);
	len = smbios_tables_build(buf, sizeof(buf), BOOT_SMBIOS, &c);

	return len < 0 ? "the SMBIOS tables cannot be built" : boot_copy(&vm->target, BOOT_SMBIOS, buf, (size_t)len);
}

/* Tables and kernel; `name` is for the log. */
static const char *enter(struct vm *vm, const char *name, const struct boot_source *src)
{
	struct boot_entry entry;
	const char *err = write_acpi(vm);

	if (!err)
		err = write_smbios(vm);
	if (!err)
		err = boot_load(&vm->target, src, &entry);
	if (err)
		return err;
	boot_enter(&vm->target, &entry, vm->vcpu[0]);
	log_info("%s: %s protocol, entry %#llx", name, entry.protocol, (unsigned long long)entry.rip);
	return NULL;
}

static int read_block(void *opaque, void *buf, size_t len, uint64_t off)
{
	return block_pread(opaque, buf, len, off);
}

/* The first disk that has something to boot; the first disk's error if none does. */
static const char *find_on_disks(struct vm *vm, struct disk_boot *found)
{
	const char *first = NULL, *err;
	char append[sizeof(vm->config->append) + 16];

	/* The last console= is where /dev/console leads; what the user appends comes after it. */
	snprintf(append, sizeof(append), "%s%s", vm->config->hvc ? "console=hvc0 " : "", vm->config->append);
	for (unsigned i = 0; i < vm->ndisks; i++) {
		struct disk d = {.read = read_block, .opaque = vm->disk[i], .size = block_size(vm->disk[i])};

		err = disk_boot_find(&d, append, found);
		if (!err) {
			log_info("disk %u, partition %u: kernel %s, initrd %s", i, found->partition, found->kernel_path,
				 found->initrd ? found->initrd_path : "none");
			log_info("command line: %s", found->cmdline);
			return NULL;
		}
		if (!first)
			first = err;
	}
	return first;
}

static const char *boot_disk(struct vm *vm)
{
	struct disk_boot found;
	const char *err = find_on_disks(vm, &found);
	struct boot_file initrd = {.fd = -1, .data = found.initrd, .size = found.initrd_size, .args = ""};
	struct boot_source src = {.image = found.kernel, .size = found.kernel_size, .append = found.cmdline, .module = &initrd,
				  .nmodules = found.initrd ? 1 : 0, .has_initrd = found.initrd};

	if (err)
		return err;
	err = enter(vm, found.kernel_path, &src);
	disk_boot_fini(&found);
	return err;
}

static const char *boot_file(struct vm *vm)
{
	struct boot_source src = {.size = vm->kernel.size, .append = vm->config->append, .module = vm->module,
				  .nmodules = vm->nmodules, .has_initrd = vm->has_initrd};
	uint8_t *image = NULL;
	const char *err = read_kernel(&vm->kernel, &image);

	if (err)
		return err;
	src.image = image;
	err = enter(vm, vm->config->kernel, &src);
	munmap(image, vm->kernel.size);
	return err;
}

const char *machine_boot(struct vm *vm)
{
	return vm->kernel.fd < 0 ? boot_disk(vm) : boot_file(vm);
}
