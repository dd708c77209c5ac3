/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plays acpid: waits for the power button and switches off. The demo kernel has its button driver as a module that is not
 * there, so nobody enables the event: its enable bit (PM1_EN, bit 8) is set by hand. That the kernel then counts an ACPI interrupt shows
 * that status bit, enable bit, level and I/O APIC pin go together.
 */
#include <sys/io.h>
#include <sys/reboot.h>

#include "vmtest.h"

#define PM1_STS 0x600
#define PM1_EN 0x602
#define PM1_PWRBTN 0x100

/* Interrupts that the kernel has counted on the line of ACPI. */
static unsigned long acpi_interrupts(void)
{
	FILE *f = fopen("/proc/interrupts", "r");
	unsigned long n, sum = 0;
	char line[512];

	while (f && fgets(line, sizeof(line), f)) {
		if (strstr(line, "acpi") && sscanf(line, "%*u: %lu", &n) == 1)
			sum = n;
	}
	if (f)
		fclose(f);
	return sum;
}

int power_button(void)
{
	unsigned long before = acpi_interrupts();

	if (iopl(3) < 0) {
		perror("iopl");
		return 1;
	}
	outw(PM1_PWRBTN, PM1_STS); /* forgets what was pressed before */
	outw((unsigned short)(inw(PM1_EN) | PM1_PWRBTN), PM1_EN);
	puts("waiting for the power button");
	fflush(stdout);
	for (int i = 0; i < 600 && acpi_interrupts() == before; i++)
		usleep(100000);
	if (acpi_interrupts() == before)
		return 1;
	puts("the button was pressed");
	fflush(stdout);
	return reboot(RB_POWER_OFF);
}
