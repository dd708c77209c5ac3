/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 16550A UART: the console.
 *
 * The transmitter is infinitely fast: a byte written to THR is handed to the host at once, so THRE and TEMT always read
 * 1 and the transmitter-empty interrupt follows each write. The receiver has the real 16-byte FIFO with its four
 * trigger levels and the character timeout.
 *
 * Invariant: after every entry point the interrupt line equals (some enabled source pending) && OUT2 && !loopback.
 * Locking: io->lock. Spec: National Semiconductor PC16550D data sheet, section 8 (registers).
 */
#include "dev/platform/serial.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dev/device.h"

enum serial_reg {
	REG_DATA = 0,
	REG_IER = 1,
	REG_IIR_FCR = 2,
	REG_LCR = 3,
	REG_MCR = 4,
	REG_LSR = 5,
	REG_MSR = 6,
	REG_SCR = 7
};

/* 8.8 interrupt enable; the low bits of IIR (8.7) per source in order of priority. */
enum { IER_RDA = 0x01, IER_THRE = 0x02, IER_RLS = 0x04, IER_MSI = 0x08, IER_MASK = 0x0f };
enum {
	IIR_MSI = 0x00,
	IIR_NONE = 0x01,
	IIR_THRE = 0x02,
	IIR_RDA = 0x04,
	IIR_RLS = 0x06,
	IIR_TIMEOUT = 0x0c,
	IIR_FIFO = 0xc0
};
enum { FCR_ENABLE = 0x01, FCR_CLEAR_RX = 0x02, FCR_CLEAR_TX = 0x04, FCR_KEPT = 0xc9 };
enum { LCR_DLAB = 0x80 };
enum { MCR_DTR = 0x01, MCR_RTS = 0x02, MCR_OUT1 = 0x04, MCR_OUT2 = 0x08, MCR_LOOP = 0x10, MCR_MASK = 0x1f };
enum {
	LSR_DR = 0x01,
	LSR_OE = 0x02,
	LSR_PE = 0x04,
	LSR_FE = 0x08,
	LSR_BI = 0x10,
	LSR_THRE = 0x20,
	LSR_TEMT = 0x40,
	LSR_FIFOERR = 0x80
};
#define LSR_CHAR_ERRORS (LSR_PE | LSR_FE | LSR_BI)
#define LSR_ERRORS (LSR_OE | LSR_CHAR_ERRORS)
enum {
	MSR_DCTS = 0x01,
	MSR_DDSR = 0x02,
	MSR_TERI = 0x04,
	MSR_DDCD = 0x08,
	MSR_CTS = 0x10,
	MSR_DSR = 0x20,
	MSR_RI = 0x40,
	MSR_DCD = 0x80
};
#define MSR_LINES 0xf0

#define FIFO_SIZE 16
#define LISTEN_POLLS 64 /* drivers read LSR once or twice for each character they send */
#define UART_CLOCK 1843200ull

struct serial {
	struct io *io;
	struct serial_config cfg;
	struct io_timer timeout;
	uint8_t ier, fcr, lcr, mcr, lsr, msr, scr;
	uint16_t divisor;
	bool thre_pending;     /* transmitter-empty interrupt not yet acknowledged */
	bool timeout_pending;  /* characters sit below the trigger level for four character times */
	uint8_t fifo[FIFO_SIZE];
	uint8_t fifo_err[FIFO_SIZE]; /* LSR error bits of each character */
	uint8_t head, count;
	bool irq_driven;       /* an interrupt has been enabled since reset: see serial_listening() */
	bool starved;          /* the host was refused bytes and waits for room() */
	uint8_t polls;         /* LSR reads since the last transmission, saturating at LISTEN_POLLS */
};

static const uint8_t trigger_level[4] = {1, 4, 8, 14};

static unsigned serial_trigger(const struct serial *d)
{
	return (d->fcr & FCR_ENABLE) ? trigger_level[d->fcr >> 6] : 1;
}

static unsigned serial_capacity(const struct serial *d)
{
	return (d->fcr & FCR_ENABLE) ? FIFO_SIZE : 1;
}

/* 8.7: the highest-priority pending source. */
static uint8_t serial_cause(const struct serial *d)
{
	if ((d->ier & IER_RLS) && (d->lsr & LSR_ERRORS))
		return IIR_RLS;
	if ((d->ier & IER_RDA) && d->count >= serial_trigger(d))
		return IIR_RDA;
	if ((d->ier & IER_RDA) && d->timeout_pending)
		return IIR_TIMEOUT;
	if ((d->ier & IER_THRE) && d->thre_pending)
		return IIR_THRE;
	if ((d->ier & IER_MSI) && (d->msr & 0x0f))
		return IIR_MSI;
	return IIR_NONE;
}

/* On a PC the interrupt output passes a buffer enabled by OUT2, and loopback turns OUT2 off at the pin (8.6). */
static void serial_update(struct serial *d)
{
	bool gate = (d->mcr & MCR_OUT2) && !(d->mcr & MCR_LOOP);

	io_irq_set(d->io, d->cfg.irq, gate && serial_cause(d) != IIR_NONE);
}

/* Four character times: start, data, parity and stop bits at the programmed rate. */
static uint64_t serial_timeout_ns(const struct serial *d)
{
	unsigned bits = 1 + 5 + (d->lcr & 3) + !!(d->lcr & 0x08) + 1 + !!(d->lcr & 0x04);
	unsigned div = d->divisor ? d->divisor : 1;

	return dev_scale_up(4ull * bits * 16 * div, NS_PER_SEC, UART_CLOCK);
}

static void serial_arm_timeout(struct serial *d)
{
	d->timeout_pending = false;
	if ((d->fcr & FCR_ENABLE) && d->count && d->count < serial_trigger(d))
		io_timer_arm(d->io, &d->timeout, io_now(d->io) + serial_timeout_ns(d));
	else
		io_timer_cancel(d->io, &d->timeout);
}

static void serial_timeout_expire(void *opaque, uint64_t now)
{
	struct serial *d = opaque;

	(void)now;
	io_timer_cancel(d->io, &d->timeout);
	d->timeout_pending = d->count > 0;
	serial_update(d);
}

/* Error bits show in LSR when their character reaches the top of the FIFO (8.4). */
static void serial_reveal(struct serial *d)
{
	if (d->count) {
		d->lsr |= LSR_DR | d->fifo_err[d->head];
		d->fifo_err[d->head] = 0;
	} else {
		d->lsr &= ~LSR_DR;
	}
}

static void serial_receive(struct serial *d, uint8_t c, uint8_t err)
{
	unsigned at;

	if (d->count >= serial_capacity(d)) {
		d->lsr |= LSR_OE;
		/* Without FIFO the new character overwrites the holding register; with it the new one is lost. */
		if (!(d->fcr & FCR_ENABLE))
			d->fifo[d->head] = c;
	} else {
		at = (d->head + d->count) % FIFO_SIZE;
		d->fifo[at] = c;
		d->fifo_err[at] = err;
		d->count++;
		if (d->count == 1)
			serial_reveal(d);
	}
	serial_arm_timeout(d);
}

static void serial_clear_rx(struct serial *d)
{
	d->head = d->count = 0;
	memset(d->fifo_err, 0, sizeof(d->fifo_err));
	d->lsr &= ~LSR_DR;
	serial_arm_timeout(d);
}

/*
 * The other end sends only to a receiver that asks for it: what is piped into a machine before its driver has started would be lost
 * in the clearing of FIFO and data register that drivers begin with. A driver that has ever enabled an interrupt asks by the receive
 * interrupt (Linux raises RTS before its last clearing read); one that polls asks by RTS, or by polling.
 */
static bool serial_listening(const struct serial *d)
{
	if (d->mcr & MCR_LOOP)
		return false;
	return d->irq_driven ? d->ier & IER_RDA : (d->mcr & MCR_RTS) || d->polls >= LISTEN_POLLS;
}

/* Tells a host that was refused that it may try again, when that is worth a wake-up. */
static void serial_room_now(struct serial *d)
{
	if (!d->starved || !serial_listening(d) || d->count > serial_capacity(d) / 2)
		return;
	d->starved = false;
	if (d->cfg.chr && d->cfg.chr->room)
		d->cfg.chr->room(d->cfg.chr_opaque);
}

/* Modem inputs: a null modem whose other end is always ready, or the outputs in loopback (8.6). */
static uint8_t serial_modem_lines(const struct serial *d)
{
	if (!(d->mcr & MCR_LOOP))
		return MSR_CTS | MSR_DSR | MSR_DCD;
	return ((d->mcr & MCR_RTS) ? MSR_CTS : 0) | ((d->mcr & MCR_DTR) ? MSR_DSR : 0) |
	       ((d->mcr & MCR_OUT1) ? MSR_RI : 0) | ((d->mcr & MCR_OUT2) ? MSR_DCD : 0);
}

static void serial_modem_update(struct serial *d)
{
	uint8_t lines = serial_modem_lines(d), changed = (lines ^ d->msr) & MSR_LINES, delta = d->msr & 0x0f;

	delta |= (changed & (MSR_CTS | MSR_DSR | MSR_DCD)) >> 4;
	if ((changed & MSR_RI) && !(lines & MSR_RI))
		delta |= MSR_TERI; /* trailing edge only */
	d->msr = lines | delta;
}

static uint8_t serial_read_data(struct serial *d)
{
	uint8_t c = d->fifo[d->head];

	if (!d->count)
		return c; /* the last character stays in the holding register */
	d->head = (d->head + 1) % FIFO_SIZE;
	d->count--;
	if (!(d->fcr & FCR_ENABLE))
		d->head = 0;
	serial_reveal(d);
	serial_arm_timeout(d);
	serial_room_now(d);
	return c;
}

static bool serial_fifo_has_error(const struct serial *d)
{
	for (unsigned i = 0; i < d->count; i++)
		if (d->fifo_err[(d->head + i) % FIFO_SIZE])
			return true;
	return false;
}

static uint8_t serial_read_lsr(struct serial *d)
{
	uint8_t val = d->lsr | LSR_THRE | LSR_TEMT;

	if ((d->fcr & FCR_ENABLE) && ((d->lsr & LSR_CHAR_ERRORS) || serial_fifo_has_error(d)))
		val |= LSR_FIFOERR;
	d->lsr &= ~LSR_ERRORS;
	if (d->polls < LISTEN_POLLS && ++d->polls == LISTEN_POLLS)
		serial_room_now(d);
	return val;
}

static uint8_t serial_get(void *opaque, uint64_t off)
{
	struct serial *d = opaque;
	uint8_t val = 0xff;

	switch (off) {
	case REG_DATA:
		val = (d->lcr & LCR_DLAB) ? d->divisor & 0xff : serial_read_data(d);
		break;
	case REG_IER:
		val = (d->lcr & LCR_DLAB) ? d->divisor >> 8 : d->ier;
		break;
	case REG_IIR_FCR:
		val = serial_cause(d);
		if (val == IIR_THRE)
			d->thre_pending = false; /* reading IIR acknowledges this source only */
		if (d->fcr & FCR_ENABLE)
			val |= IIR_FIFO;
		break;
	case REG_LCR:
		val = d->lcr;
		break;
	case REG_MCR:
		val = d->mcr;
		break;
	case REG_LSR:
		val = serial_read_lsr(d);
		break;
	case REG_MSR:
		val = d->msr;
		d->msr &= MSR_LINES;
		break;
	case REG_SCR:
		val = d->scr;
		break;
	}
	serial_update(d);
	return val;
}

static void serial_transmit(struct serial *d, uint8_t c)
{
	/* The write withdraws the interrupt and the (instant) transmission raises it anew: an edge. */
	d->thre_pending = false;
	if (d->polls < LISTEN_POLLS)
		d->polls = 0; /* it polls for the transmitter; once known as a reader it stays one */
	serial_update(d);
	if (d->mcr & MCR_LOOP)
		serial_receive(d, c, 0);
	else if (d->cfg.chr && d->cfg.chr->put)
		d->cfg.chr->put(d->cfg.chr_opaque, &c, 1);
	d->thre_pending = true;
}

static void serial_write_fcr(struct serial *d, uint8_t val)
{
	bool toggled = (val ^ d->fcr) & FCR_ENABLE;

	/* 8.5: bit 0 must be set for the others to be programmed; changing it clears both FIFOs. */
	d->fcr = (val & FCR_ENABLE) ? val & FCR_KEPT : 0;
	if (toggled || ((val & FCR_ENABLE) && (val & FCR_CLEAR_RX))) {
		serial_clear_rx(d);
		serial_room_now(d);
	}
	if (toggled || ((val & FCR_ENABLE) && (val & FCR_CLEAR_TX)))
		d->thre_pending = true;
	serial_arm_timeout(d);
}

static void serial_put(void *opaque, uint64_t off, uint8_t val)
{
	struct serial *d = opaque;

	switch (off) {
	case REG_DATA:
		if (d->lcr & LCR_DLAB)
			d->divisor = (d->divisor & 0xff00) | val;
		else
			serial_transmit(d, val);
		break;
	case REG_IER:
		if (d->lcr & LCR_DLAB) {
			d->divisor = (d->divisor & 0x00ff) | (uint16_t)val << 8;
			break;
		}
		/* Enabling the transmitter interrupt while THR is empty raises it (drivers start output this way). */
		if ((val & IER_THRE) && !(d->ier & IER_THRE))
			d->thre_pending = true;
		d->ier = val & IER_MASK;
		d->irq_driven |= d->ier != 0;
		serial_room_now(d);
		break;
	case REG_IIR_FCR:
		serial_write_fcr(d, val);
		break;
	case REG_LCR:
		d->lcr = val;
		break;
	case REG_MCR:
		d->mcr = val & MCR_MASK;
		serial_modem_update(d);
		serial_room_now(d);
		break;
	case REG_SCR:
		d->scr = val;
		break;
	default: /* LSR is for factory testing, MSR read-only here */
		break;
	}
	serial_update(d);
}

static uint64_t serial_read(void *opaque, uint64_t off, unsigned size)
{
	return dev_read_bytes(serial_get, opaque, off, size);
}

static void serial_write(void *opaque, uint64_t off, unsigned size, uint64_t val)
{
	dev_write_bytes(serial_put, opaque, off, size, val);
}

static const struct io_handler serial_handler = {.read = serial_read, .write = serial_write};

size_t serial_room(void *dev)
{
	struct serial *d = dev;

	return serial_listening(d) ? serial_capacity(d) - d->count : 0;
}

size_t serial_input(void *dev, const uint8_t *buf, size_t n)
{
	struct serial *d = dev;
	size_t room = serial_room(dev);

	if (n > room) {
		n = room;
		d->starved = true;
	}
	for (size_t i = 0; i < n; i++)
		serial_receive(d, buf[i], 0);
	serial_update(d);
	return n;
}

void serial_break(void *dev)
{
	struct serial *d = dev;

	if (d->mcr & MCR_LOOP)
		return;
	serial_receive(d, 0, LSR_BI | LSR_FE);
	serial_update(d);
}

/* Table 3 of the data sheet: state after master reset. */
static void serial_reset(void *dev)
{
	struct serial *d = dev;

	d->ier = d->fcr = d->lcr = d->mcr = d->lsr = d->scr = 0;
	d->msr = MSR_CTS | MSR_DSR | MSR_DCD;
	d->divisor = 12; /* firmware leaves 9600 baud */
	d->thre_pending = false;
	d->polls = 0;
	d->irq_driven = false;
	serial_clear_rx(d);
	memset(d->fifo, 0, sizeof(d->fifo));
	serial_room_now(d);
	serial_update(d);
}

static int serial_create(struct io *io, const void *config, void **out)
{
	struct serial *d = calloc(1, sizeof(*d));
	int r;

	if (!d)
		return -ENOMEM;
	d->io = io;
	d->cfg = *(const struct serial_config *)config;
	r = io_register(io, IO_PIO, d->cfg.base, 8, &serial_handler, d);
	if (r) {
		free(d);
		return r;
	}
	d->timeout = (struct io_timer){.deadline = UINT64_MAX, .expire = serial_timeout_expire, .opaque = d};
	io_timer_register(io, &d->timeout);
	serial_reset(d);
	*out = d;
	return 0;
}

static void serial_state(void *dev, struct io_state *s)
{
	struct serial *d = dev;

	DEV_FIELD(s, d, ier);
	DEV_FIELD(s, d, irq_driven);
	DEV_FIELD(s, d, fcr);
	DEV_FIELD(s, d, lcr);
	DEV_FIELD(s, d, mcr);
	DEV_FIELD(s, d, lsr);
	DEV_FIELD(s, d, msr);
	DEV_FIELD(s, d, scr);
	DEV_FIELD(s, d, divisor);
	DEV_FIELD(s, d, thre_pending);
	DEV_FIELD(s, d, timeout_pending);
	DEV_FIELD(s, d, fifo);
	DEV_FIELD(s, d, fifo_err);
	DEV_FIELD(s, d, head);
	DEV_FIELD(s, d, count);
	DEV_FIELD(s, d, starved);
	DEV_FIELD(s, d, timeout.deadline);
	d->head %= FIFO_SIZE;
	if (d->count > FIFO_SIZE)
		d->count = FIFO_SIZE;
}

static void serial_destroy(void *dev)
{
	struct serial *d = dev;

	io_timer_unregister(d->io, &d->timeout);
	io_unregister(d->io, IO_PIO, d->cfg.base);
	free(d);
}

const struct device_class serial_class = {
	.name = "serial",
	.create = serial_create,
	.reset = serial_reset,
	.state = serial_state,
	.destroy = serial_destroy,
};
