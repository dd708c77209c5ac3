/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 8042 keyboard controller with nothing plugged in, and port 92h.
 *
 * Enough for software that resets the machine (FEh pulse, output port bit 0, port 92h bit 0), opens the A20 gate, or
 * asks whether the controller works. Bytes sent to the missing keyboard set the time-out bit of the status. The FADT
 * says that there is no 8042, so operating systems do not look for a keyboard. No interrupts.
 *
 * A20 is a latch that reads back what was written; the address line itself is always open (as on machines without the
 * gate).
 * Locking: io->lock. Spec: IBM PS/2 hardware interface reference, "Keyboard and auxiliary device controller".
 */
#include "dev/platform/i8042.h"

#include <errno.h>
#include <stdlib.h>

#include "dev/device.h"

enum { STATUS_OBF = 0x01, STATUS_SYS = 0x04, STATUS_CMD = 0x08, STATUS_UNLOCKED = 0x10, STATUS_TIMEOUT = 0x40 };
enum { OUT_RESET_N = 0x01, OUT_A20 = 0x02 };
enum { PORT_A_RESET = 0x01, PORT_A_A20 = 0x02 };
enum i8042_command {
	CMD_READ_MODE = 0x20,
	CMD_WRITE_MODE = 0x60,
	CMD_AUX_OFF = 0xa7,
	CMD_AUX_ON = 0xa8,
	CMD_AUX_TEST = 0xa9,
	CMD_SELF_TEST = 0xaa,
	CMD_KBD_TEST = 0xab,
	CMD_KBD_OFF = 0xad,
	CMD_KBD_ON = 0xae,
	CMD_READ_OUT = 0xd0,
	CMD_WRITE_OUT = 0xd1,
	CMD_A20_OFF = 0xdd,
	CMD_A20_ON = 0xdf,
	CMD_PULSE = 0xf0,
};
enum { TEST_OK = 0x55, LINE_STUCK = 0x03 /* data line stuck: no device */ };

struct i8042 {
	struct io *io;
	struct i8042_config cfg;
	uint8_t status, mode, out_port, data;
	uint8_t pending; /* command whose data byte comes next at port 60h, or 0 */
};

static void i8042_reset_machine(struct i8042 *d)
{
	d->io->request(d->io->vm, IO_REQ_RESET, 0);
}

static void i8042_answer(struct i8042 *d, uint8_t val)
{
	d->data = val;
	d->status |= STATUS_OBF;
}

static void i8042_write_out(struct i8042 *d, uint8_t val)
{
	d->out_port = val;
	if (!(val & OUT_RESET_N))
		i8042_reset_machine(d);
}

static void i8042_do_command(struct i8042 *d, uint8_t cmd)
{
	d->status |= STATUS_CMD;
	d->pending = 0;
	switch (cmd) {
	case CMD_READ_MODE:
		i8042_answer(d, d->mode);
		return;
	case CMD_WRITE_MODE:
	case CMD_WRITE_OUT:
		d->pending = cmd;
		return;
	case CMD_AUX_TEST:
	case CMD_KBD_TEST:
		i8042_answer(d, LINE_STUCK);
		return;
	case CMD_SELF_TEST:
		d->status |= STATUS_SYS;
		i8042_answer(d, TEST_OK);
		return;
	case CMD_AUX_OFF:
		d->mode |= 0x20;
		return;
	case CMD_AUX_ON:
		d->mode &= ~0x20;
		return;
	case CMD_KBD_OFF:
		d->mode |= 0x10;
		return;
	case CMD_KBD_ON:
		d->mode &= ~0x10;
		return;
	case CMD_READ_OUT:
		i8042_answer(d, d->out_port);
		return;
	case CMD_A20_OFF:
		d->out_port &= ~OUT_A20;
		return;
	case CMD_A20_ON:
		d->out_port |= OUT_A20;
		return;
	}
	/* F0-FF pulse the output port bits that are 0 in the command; bit 0 is the processor's reset. */
	if ((cmd & CMD_PULSE) == CMD_PULSE && !(cmd & 1))
		i8042_reset_machine(d);
}

static void i8042_do_data(struct i8042 *d, uint8_t val)
{
	uint8_t cmd = d->pending;

	d->status &= ~STATUS_CMD;
	d->pending = 0;
	if (cmd == CMD_WRITE_MODE) {
		d->mode = val;
	} else if (cmd == CMD_WRITE_OUT) {
		i8042_write_out(d, val);
	} else {
		d->status |= STATUS_TIMEOUT; /* nobody clocks the byte in */
		i8042_answer(d, 0xfe);
	}
}

static uint64_t i8042_read_data(void *opaque, uint64_t off, unsigned size)
{
	struct i8042 *d = opaque;

	(void)off;
	(void)size;
	d->status &= ~(STATUS_OBF | STATUS_TIMEOUT);
	return d->data;
}

static void i8042_write_data(void *opaque, uint64_t off, unsigned size, uint64_t val)
{
	(void)off;
	(void)size;
	i8042_do_data(opaque, val);
}

static uint64_t i8042_read_status(void *opaque, uint64_t off, unsigned size)
{
	struct i8042 *d = opaque;

	(void)off;
	(void)size;
	return d->status;
}

static void i8042_write_command(void *opaque, uint64_t off, unsigned size, uint64_t val)
{
	(void)off;
	(void)size;
	i8042_do_command(opaque, val);
}

static uint64_t i8042_read_port_a(void *opaque, uint64_t off, unsigned size)
{
	struct i8042 *d = opaque;

	(void)off;
	(void)size;
	return d->out_port & OUT_A20 ? PORT_A_A20 : 0;
}

static void i8042_write_port_a(void *opaque, uint64_t off, unsigned size, uint64_t val)
{
	struct i8042 *d = opaque;

	(void)off;
	(void)size;
	d->out_port = (val & PORT_A_A20) ? d->out_port | OUT_A20 : d->out_port & ~OUT_A20;
	if (val & PORT_A_RESET)
		i8042_reset_machine(d);
}

static const struct io_handler i8042_data_handler = {.read = i8042_read_data, .write = i8042_write_data};
static const struct io_handler i8042_command_handler = {.read = i8042_read_status, .write = i8042_write_command};
static const struct io_handler i8042_port_a_handler = {.read = i8042_read_port_a, .write = i8042_write_port_a};

static void i8042_reset(void *dev)
{
	struct i8042 *d = dev;

	d->status = STATUS_SYS | STATUS_UNLOCKED;
	d->mode = 0x34; /* both ports off, system flag: no keyboard was found */
	d->out_port = OUT_RESET_N | OUT_A20;
	d->data = d->pending = 0;
}

static int i8042_create(struct io *io, const void *config, void **out)
{
	struct i8042 *d = calloc(1, sizeof(*d));
	int r;

	if (!d)
		return -ENOMEM;
	d->io = io;
	d->cfg = *(const struct i8042_config *)config;
	r = io_register(io, IO_PIO, d->cfg.data, 1, &i8042_data_handler, d);
	if (r)
		goto err_free;
	r = io_register(io, IO_PIO, d->cfg.command, 1, &i8042_command_handler, d);
	if (r)
		goto err_data;
	r = io_register(io, IO_PIO, d->cfg.port_a, 1, &i8042_port_a_handler, d);
	if (r)
		goto err_command;
	i8042_reset(d);
	*out = d;
	return 0;

err_command:
	io_unregister(io, IO_PIO, d->cfg.command);
err_data:
	io_unregister(io, IO_PIO, d->cfg.data);
err_free:
	free(d);
	return r;
}

static void i8042_state(void *dev, struct io_state *s)
{
	struct i8042 *d = dev;

	DEV_FIELD(s, d, status);
	DEV_FIELD(s, d, mode);
	DEV_FIELD(s, d, out_port);
	DEV_FIELD(s, d, data);
	DEV_FIELD(s, d, pending);
}

static void i8042_destroy(void *dev)
{
	struct i8042 *d = dev;

	io_unregister(d->io, IO_PIO, d->cfg.port_a);
	io_unregister(d->io, IO_PIO, d->cfg.command);
	io_unregister(d->io, IO_PIO, d->cfg.data);
	free(d);
}

const struct device_class i8042_class = {
	.name = "i8042",
	.create = i8042_create,
	.reset = i8042_reset,
	.state = i8042_state,
	.destroy = i8042_destroy,
};
