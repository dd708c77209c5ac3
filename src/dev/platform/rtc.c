/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MC146818A real-time clock.
 *
 * The clock is the host's UTC plus an offset that the guest sets by writing the time registers; while it is stopped
 * (SET, or the divider held in reset) the registers are plain memory, and starting it computes a new offset. Flags of
 * register C are brought up to date when somebody looks: PF from the 32.768 kHz tick, UF and AF from the seconds that
 * passed. Timers exist only while an enabled interrupt waits for one of them.
 *
 * Invariant: irq line == IRQF of register C.
 * Locking: io->lock. Spec: Motorola MC146818A data sheet; 82371AB (PIIX4) 8.5 for the alarm's don't-care codes (two
 * highest bits set).
 */
#include "dev/platform/rtc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "dev/device.h"

enum rtc_reg {
	RTC_SEC = 0x00,
	RTC_SEC_ALARM = 0x01,
	RTC_MIN = 0x02,
	RTC_MIN_ALARM = 0x03,
	RTC_HOUR = 0x04,
	RTC_HOUR_ALARM = 0x05,
	RTC_WDAY = 0x06,
	RTC_DAY = 0x07,
	RTC_MONTH = 0x08,
	RTC_YEAR = 0x09,
	RTC_A = 0x0a,
	RTC_B = 0x0b,
	RTC_C = 0x0c,
	RTC_D = 0x0d,
	RTC_CENTURY = 0x32,
};
enum { A_UIP = 0x80, A_DV = 0x70, A_DV_RUN = 0x20, A_DV_RESET = 0x60, A_RS = 0x0f };
enum { B_SET = 0x80, B_PIE = 0x40, B_AIE = 0x20, B_UIE = 0x10, B_BINARY = 0x04, B_24H = 0x02 };
enum { C_IRQF = 0x80, C_PF = 0x40, C_AF = 0x20, C_UF = 0x10 };
enum { D_VALID = 0x80 };
#define CMOS_SIZE 128
#define RTC_HZ 32768ull
#define UIP_NS 244000ull /* UIP rises this long before the update */
#define SECS_PER_DAY 86400ll

struct rtc {
	struct io *io;
	struct rtc_config cfg;
	struct io_timer timer;
	uint8_t index;
	uint8_t cmos[CMOS_SIZE];   /* time registers here are valid only while stopped */
	int64_t offset_ns;         /* RTC time - host UTC */
	int64_t seen_sec;          /* RTC second up to which UF and AF have been accounted */
	uint64_t seen_tick;        /* 32.768 kHz tick (machine time) up to which PF has been accounted */
};

static uint64_t rtc_host_wall(void *vm)
{
	struct timespec ts;

	(void)vm;
	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_SEC + ts.tv_nsec;
}

static bool rtc_running(const struct rtc *d)
{
	return !(d->cmos[RTC_B] & B_SET) && (d->cmos[RTC_A] & A_DV_RESET) != A_DV_RESET;
}

/* RTC time in ns since 1970, as signed: a guest may set any year of its four digits. */
static __int128 rtc_time_ns(const struct rtc *d)
{
	return (__int128)d->cfg.wall_ns(d->io->vm) + d->offset_ns;
}

static int64_t rtc_floor_sec(__int128 ns)
{
	return ns >= 0 ? (int64_t)(ns / (int64_t)NS_PER_SEC)
		       : -(int64_t)((-ns + (int64_t)NS_PER_SEC - 1) / (int64_t)NS_PER_SEC);
}

/* --- register formats (BCD or binary, 12 or 24 hours) ------------------------------------------------------------- */

static uint8_t rtc_encode(const struct rtc *d, unsigned v)
{
	return (d->cmos[RTC_B] & B_BINARY) ? v : v % 10 | v / 10 << 4;
}

static unsigned rtc_decode(const struct rtc *d, uint8_t raw)
{
	return (d->cmos[RTC_B] & B_BINARY) ? raw : (raw >> 4) * 10 + (raw & 15);
}

static uint8_t rtc_encode_hour(const struct rtc *d, unsigned hour)
{
	if (d->cmos[RTC_B] & B_24H)
		return rtc_encode(d, hour);
	return rtc_encode(d, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? 0x80 : 0);
}

static unsigned rtc_decode_hour(const struct rtc *d, uint8_t raw)
{
	if (d->cmos[RTC_B] & B_24H)
		return rtc_decode(d, raw);
	return rtc_decode(d, raw & 0x7f) % 12 + ((raw & 0x80) ? 12 : 0);
}

/* --- calendar: proleptic Gregorian, days since 1970-01-01 -------------------------------------------------------- */

static int64_t days_from_civil(int64_t y, unsigned m, unsigned day)
{
	int64_t era;
	unsigned yoe, doy;

	y -= m <= 2;
	era = (y >= 0 ? y : y - 399) / 400;
	yoe = y - era * 400;
	doy = (153 * (m + (m > 2 ? -3u : 9u)) + 2) / 5 + day - 1;
	return era * 146097 + (int64_t)(yoe * 365 + yoe / 4 - yoe / 100 + doy) - 719468;
}

static void civil_from_days(int64_t z, int64_t *year, unsigned *month, unsigned *day)
{
	int64_t era;
	unsigned doe, yoe, doy, mp;

	z += 719468;
	era = (z >= 0 ? z : z - 146096) / 146097;
	doe = z - era * 146097;
	yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
	doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
	mp = (5 * doy + 2) / 153;
	*day = doy - (153 * mp + 2) / 5 + 1;
	*month = mp < 10 ? mp + 3 : mp - 9;
	*year = yoe + era * 400 + (*month <= 2);
}

/* Fills the time registers from a second count. */
static void rtc_fill(struct rtc *d, int64_t sec)
{
	int64_t days = sec / SECS_PER_DAY, rest = sec % SECS_PER_DAY, year;
	unsigned month, day;

	if (rest < 0) {
		rest += SECS_PER_DAY;
		days--;
	}
	civil_from_days(days, &year, &month, &day);
	d->cmos[RTC_SEC] = rtc_encode(d, rest % 60);
	d->cmos[RTC_MIN] = rtc_encode(d, rest / 60 % 60);
	d->cmos[RTC_HOUR] = rtc_encode_hour(d, rest / 3600);
	d->cmos[RTC_WDAY] = rtc_encode(d, ((days + 4) % 7 + 7) % 7 + 1); /* 1970-01-01 was a Thursday; Sunday is 1 */
	d->cmos[RTC_DAY] = rtc_encode(d, day);
	d->cmos[RTC_MONTH] = rtc_encode(d, month);
	d->cmos[RTC_YEAR] = rtc_encode(d, (year % 100 + 100) % 100);
	d->cmos[RTC_CENTURY] = rtc_encode(d, (year / 100 % 100 + 100) % 100);
}

/* The second count the time registers stand for. Nonsense is reduced to something in range. */
static int64_t rtc_collect(const struct rtc *d)
{
	unsigned month = rtc_decode(d, d->cmos[RTC_MONTH]), day = rtc_decode(d, d->cmos[RTC_DAY]);
	int64_t year = rtc_decode(d, d->cmos[RTC_CENTURY]) * 100 + rtc_decode(d, d->cmos[RTC_YEAR]) % 100;
	int64_t days;

	month = month < 1 ? 1 : month > 12 ? 12 : month;
	day = day < 1 ? 1 : day > 31 ? 31 : day;
	days = days_from_civil(year, month, day);
	return days * SECS_PER_DAY + rtc_decode_hour(d, d->cmos[RTC_HOUR]) % 24 * 3600 +
	       rtc_decode(d, d->cmos[RTC_MIN]) % 60 * 60 + rtc_decode(d, d->cmos[RTC_SEC]) % 60;
}

/* --- flags and interrupts ---------------------------------------------------------------------------------------- */

/* Period in 32.768 kHz ticks; 0 = off. Rates 1 and 2 alias 8 and 9 with this time base. */
static uint64_t rtc_period(const struct rtc *d)
{
	unsigned rs = d->cmos[RTC_A] & A_RS;

	if (!rs || (d->cmos[RTC_A] & A_DV) != A_DV_RUN)
		return 0;
	return 1ull << ((rs < 3 ? rs + 7 : rs) - 1);
}

static uint64_t rtc_tick(const struct rtc *d)
{
	return dev_scale(io_now(d->io), RTC_HZ, NS_PER_SEC);
}

/* C0-FF in an alarm register matches everything. */
static bool alarm_any(uint8_t raw)
{
	return (raw & 0xc0) == 0xc0;
}

/* First second >= `from` at which the alarm matches, or INT64_MAX (an impossible time). At most 24 + 60 + 60 steps. */
static int64_t rtc_next_alarm(const struct rtc *d, int64_t from)
{
	uint8_t rs = d->cmos[RTC_SEC_ALARM], rm = d->cmos[RTC_MIN_ALARM], rh = d->cmos[RTC_HOUR_ALARM];
	unsigned want_s = rtc_decode(d, rs), want_m = rtc_decode(d, rm);
	unsigned want_h = (rh & 0x7f) > 0x40 && (d->cmos[RTC_B] & B_24H) ? 99 : rtc_decode_hour(d, rh);
	int64_t day = from / SECS_PER_DAY - (from % SECS_PER_DAY < 0), t = from - day * SECS_PER_DAY;

	if ((!alarm_any(rs) && want_s > 59) || (!alarm_any(rm) && want_m > 59) || (!alarm_any(rh) && want_h > 23))
		return INT64_MAX;
	for (unsigned i = 0; i < 200; i++) {
		int64_t tod = t % SECS_PER_DAY;

		if (!alarm_any(rh) && tod / 3600 != want_h)
			t += 3600 - tod % 3600;
		else if (!alarm_any(rm) && tod / 60 % 60 != want_m)
			t += 60 - tod % 60;
		else if (!alarm_any(rs) && tod % 60 != want_s)
			t++;
		else
			return day * SECS_PER_DAY + t;
	}
	return INT64_MAX;
}

/* Sets the flags for everything that happened since the last look. */
static void rtc_sync(struct rtc *d)
{
	uint64_t tick = rtc_tick(d), period = rtc_period(d);
	int64_t sec;

	if (period && tick / period != d->seen_tick / period)
		d->cmos[RTC_C] |= C_PF;
	d->seen_tick = tick;
	if (!rtc_running(d))
		return;
	sec = rtc_floor_sec(rtc_time_ns(d));
	if (sec > d->seen_sec) {
		d->cmos[RTC_C] |= C_UF;
		if (rtc_next_alarm(d, d->seen_sec + 1) <= sec)
			d->cmos[RTC_C] |= C_AF;
	}
	d->seen_sec = sec;
}

static void rtc_update_irq(struct rtc *d)
{
	/* The enables of B sit at the flags' bit positions of C. */
	if (d->cmos[RTC_B] & d->cmos[RTC_C] & (B_PIE | B_AIE | B_UIE))
		d->cmos[RTC_C] |= C_IRQF;
	else
		d->cmos[RTC_C] &= ~C_IRQF;
	io_irq_set(d->io, d->cfg.irq, d->cmos[RTC_C] & C_IRQF);
}

/* Arms the timer for the first event whose interrupt is enabled and whose flag is clear. */
static void rtc_arm(struct rtc *d)
{
	uint8_t b = d->cmos[RTC_B], c = d->cmos[RTC_C];
	uint64_t now = io_now(d->io), period = rtc_period(d), best = UINT64_MAX, at;
	__int128 t = rtc_time_ns(d), delta;
	int64_t sec = INT64_MAX;

	if ((b & B_PIE) && !(c & C_PF) && period)
		best = dev_scale_up((d->seen_tick / period + 1) * period, NS_PER_SEC, RTC_HZ);
	if ((b & B_UIE) && !(c & C_UF))
		sec = d->seen_sec + 1;
	if ((b & B_AIE) && !(c & C_AF) && sec != d->seen_sec + 1)
		sec = rtc_next_alarm(d, d->seen_sec + 1);
	if (rtc_running(d) && sec != INT64_MAX) {
		delta = (__int128)sec * (int64_t)NS_PER_SEC - t;
		at = now + (delta > 0 ? (uint64_t)delta : 0);
		if (at < best)
			best = at;
	}
	if (best == UINT64_MAX)
		io_timer_cancel(d->io, &d->timer);
	else
		io_timer_arm(d->io, &d->timer, best);
}

static void rtc_settle(struct rtc *d)
{
	rtc_sync(d);
	rtc_update_irq(d);
	rtc_arm(d);
}

static void rtc_expire(void *opaque, uint64_t now)
{
	(void)now;
	rtc_settle(opaque); /* host UTC may have been stepped: what is not due is armed again */
}

/* --- registers --------------------------------------------------------------------------------------------------- */

/* Makes the registers the truth: the clock reads `registers + sub-second` now. */
static void rtc_set_time(struct rtc *d, uint64_t sub_ns)
{
	__int128 want = (__int128)rtc_collect(d) * (int64_t)NS_PER_SEC + sub_ns;

	d->offset_ns = (int64_t)(want - (__int128)d->cfg.wall_ns(d->io->vm));
	d->seen_sec = rtc_floor_sec(want);
}

static uint64_t rtc_sub_second(const struct rtc *d)
{
	__int128 t = rtc_time_ns(d);

	return (uint64_t)(t - (__int128)rtc_floor_sec(t) * (int64_t)NS_PER_SEC);
}

/* Writes A or B; handles the clock stopping and starting. Invalid rates are harmless. */
static void rtc_write_control(struct rtc *d, unsigned reg, uint8_t val)
{
	bool was = rtc_running(d), divider_was_reset = (d->cmos[RTC_A] & A_DV_RESET) == A_DV_RESET;
	uint64_t sub = rtc_sub_second(d);

	if (was)
		rtc_fill(d, rtc_floor_sec(rtc_time_ns(d)));
	d->cmos[reg] = reg == RTC_A ? val & ~A_UIP : val;
	if (reg == RTC_B && (val & B_SET))
		d->cmos[RTC_B] &= ~B_UIE; /* "SET ... clears UIE" */
	if (was || !rtc_running(d)) /* a running clock shows itself in the new format at the next read */
		return;
	/* "The first update cycle begins one-half second" after the divider is released. */
	rtc_set_time(d, divider_was_reset ? NS_PER_SEC / 2 : sub);
}

static bool rtc_is_time(unsigned reg)
{
	return (reg <= RTC_YEAR && reg != RTC_SEC_ALARM && reg != RTC_MIN_ALARM && reg != RTC_HOUR_ALARM) ||
	       reg == RTC_CENTURY;
}

static uint8_t rtc_read_data(struct rtc *d)
{
	unsigned reg = d->index;
	uint8_t val;

	rtc_sync(d);
	if (rtc_is_time(reg) && rtc_running(d))
		rtc_fill(d, rtc_floor_sec(rtc_time_ns(d)));
	val = d->cmos[reg];
	switch (reg) {
	case RTC_A:
		if (rtc_running(d) && rtc_sub_second(d) >= NS_PER_SEC - UIP_NS)
			val |= A_UIP;
		break;
	case RTC_C:
		rtc_update_irq(d);
		val = d->cmos[RTC_C];
		d->cmos[RTC_C] = 0;
		break;
	}
	rtc_update_irq(d);
	rtc_arm(d);
	return val;
}

static void rtc_write_data(struct rtc *d, uint8_t val)
{
	unsigned reg = d->index;
	uint64_t sub;

	rtc_sync(d);
	switch (reg) {
	case RTC_A:
	case RTC_B:
		rtc_write_control(d, reg, val);
		break;
	case RTC_C:
	case RTC_D:
		break;
	default:
		if (rtc_is_time(reg) && rtc_running(d)) {
			/* Written into a running clock: the other fields stay. */
			sub = rtc_sub_second(d);
			rtc_fill(d, rtc_floor_sec(rtc_time_ns(d)));
			d->cmos[reg] = val;
			rtc_set_time(d, sub);
		} else {
			d->cmos[reg] = val;
		}
		break;
	}
	rtc_settle(d);
}

static uint8_t rtc_get(void *opaque, uint64_t off)
{
	return off == 1 ? rtc_read_data(opaque) : 0xff; /* the index port is write-only */
}

static void rtc_put(void *opaque, uint64_t off, uint8_t val)
{
	struct rtc *d = opaque;

	if (off == 0)
		d->index = val & (CMOS_SIZE - 1); /* bit 7 is the NMI mask of another chip */
	else if (off == 1)
		rtc_write_data(d, val);
}

static uint64_t rtc_read(void *o, uint64_t off, unsigned size)
{
	return dev_read_bytes(rtc_get, o, off, size);
}

static void rtc_write(void *o, uint64_t off, unsigned size, uint64_t val)
{
	dev_write_bytes(rtc_put, o, off, size, val);
}

static const struct io_handler rtc_handler = {.read = rtc_read, .write = rtc_write};

static void cmos_put16(struct rtc *d, unsigned reg, uint64_t val)
{
	if (val > 0xffff)
		val = 0xffff;
	d->cmos[reg] = val;
	d->cmos[reg + 1] = val >> 8;
}

/* What firmware would have stored about the machine. */
static void rtc_fill_cmos(struct rtc *d)
{
	uint64_t low = d->cfg.ram_below_4g, ext_kib = low > 0x100000 ? (low - 0x100000) >> 10 : 0;
	uint64_t high = d->cfg.ram_above_4g >> 16;
	unsigned sum = 0;

	cmos_put16(d, 0x15, 640);                                    /* base memory, KiB */
	cmos_put16(d, 0x17, ext_kib);                                /* above 1 MiB, KiB: as set up, and as found */
	cmos_put16(d, 0x30, ext_kib);
	cmos_put16(d, 0x34, low > 0x1000000 ? (low - 0x1000000) >> 16 : 0); /* above 16 MiB, 64 KiB units */
	d->cmos[0x5b] = high;
	d->cmos[0x5c] = high >> 8;
	d->cmos[0x5d] = high >> 16;
	for (unsigned i = 0x10; i <= 0x2d; i++)
		sum += d->cmos[i];
	d->cmos[0x2e] = sum >> 8;
	d->cmos[0x2f] = sum;
}

/* The battery keeps the time across a reset; interrupt enables and flags go (data sheet, "RESET"). */
static void rtc_reset(void *dev)
{
	struct rtc *d = dev;

	d->index = 0;
	if (!rtc_running(d)) {
		d->cmos[RTC_B] &= ~B_SET;
		d->cmos[RTC_A] = 0x26;
		rtc_set_time(d, 0);
	}
	d->cmos[RTC_A] = 0x26; /* 32.768 kHz, 1024 Hz periodic rate: firmware's choice */
	d->cmos[RTC_B] = B_24H;
	d->cmos[RTC_C] = 0;
	d->cmos[RTC_D] = D_VALID;
	d->cmos[0x0f] = 0; /* shutdown status: normal reset */
	rtc_fill_cmos(d);
	d->seen_tick = rtc_tick(d);
	d->seen_sec = rtc_floor_sec(rtc_time_ns(d));
	rtc_settle(d);
}

static int rtc_create(struct io *io, const void *config, void **out)
{
	struct rtc *d = calloc(1, sizeof(*d));
	int r;

	if (!d)
		return -ENOMEM;
	d->io = io;
	d->cfg = *(const struct rtc_config *)config;
	if (!d->cfg.wall_ns)
		d->cfg.wall_ns = rtc_host_wall;
	r = io_register(io, IO_PIO, d->cfg.base, 2, &rtc_handler, d);
	if (r) {
		free(d);
		return r;
	}
	d->timer = (struct io_timer){.deadline = UINT64_MAX, .expire = rtc_expire, .opaque = d};
	io_timer_register(io, &d->timer);
	rtc_reset(d);
	*out = d;
	return 0;
}

static void rtc_state(void *dev, struct io_state *s)
{
	struct rtc *d = dev;

	DEV_FIELD(s, d, index);
	DEV_FIELD(s, d, cmos);
	DEV_FIELD(s, d, offset_ns);
	DEV_FIELD(s, d, seen_sec);
	DEV_FIELD(s, d, seen_tick);
	DEV_FIELD(s, d, timer.deadline);
	d->index &= CMOS_SIZE - 1;
}

static void rtc_destroy(void *dev)
{
	struct rtc *d = dev;

	io_timer_unregister(d->io, &d->timer);
	io_unregister(d->io, IO_PIO, d->cfg.base);
	free(d);
}

const struct device_class rtc_class = {
	.name = "rtc",
	.create = rtc_create,
	.reset = rtc_reset,
	.state = rtc_state,
	.destroy = rtc_destroy,
};
