/* devices/rtc.c: the MC146818 real-time clock and its CMOS memory.
 *
 * Time is computed when somebody looks. Update-ended, alarm and periodic flags are brought up to date at the
 * same occasions; a timer runs only while one of the three interrupts is enabled and not yet signalled. Rules
 * from Motorola's MC146818 data sheet, cited by section.
 */
#include "devices/chips.h"

#include <string.h>

enum { R_SEC, R_SEC_ALARM, R_MIN, R_MIN_ALARM, R_HOUR, R_HOUR_ALARM, R_WEEKDAY, R_DAY, R_MONTH, R_YEAR };
enum { R_A = 10, R_B, R_C, R_D, R_CENTURY = 0x32 };
enum { A_UIP = 0x80, A_DIVIDER = 0x70, A_RATE = 0x0F };
enum { B_SET = 0x80, B_PIE = 0x40, B_AIE = 0x20, B_UIE = 0x10, B_SQWE = 0x08, B_BINARY = 0x04, B_24H = 0x02 };
enum { C_IRQF = 0x80, C_PF = 0x40, C_AF = 0x20, C_UF = 0x10 };
enum { D_VRT = 0x80 };

#define RTC_IRQ 8u
#define RTC_HZ  32768u
#define DAY_S   86400
/* "Update Cycle", 32.768 kHz time base: UIP rises 244 us before an update that takes 1,984 us. */
#define UIP_NS 2228000u

/* -- Calendar -------------------------------------------------------------------------------------------- */

static int64_t floor_div(int64_t a, int64_t b)
{
    return a / b - (a % b < 0);
}

/* Days since 1970-01-01 of a date of the Gregorian calendar; years begin in March so that leap days come
 * last. */
static int64_t days_from_date(int64_t year, int64_t month, int64_t day)
{
    int64_t y, era, yoe, doy;

    month -= 1;
    year += month / 12;
    month = month % 12 + 1;
    y = year - (month <= 2);
    era = floor_div(y, 400);
    yoe = y - era * 400;
    doy = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return era * 146097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719468;
}

struct date {
    int64_t year;
    unsigned month, day, weekday; /* 1-12, 1-31, 0-6 from Sunday */
};

static struct date date_from_days(int64_t days)
{
    int64_t z = days + 719468, era = floor_div(z, 146097), doe = z - era * 146097;
    int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100), mp = (5 * doy + 2) / 153;
    unsigned month = (unsigned)(mp < 10 ? mp + 3 : mp - 9);
    int64_t weekday = (days + 4) % 7;

    return (struct date){
        .year = yoe + era * 400 + (month <= 2),
        .month = month,
        .day = (unsigned)(doy - (153 * mp + 2) / 5 + 1),
        .weekday = (unsigned)(weekday < 0 ? weekday + 7 : weekday),
    };
}

/* -- Encoding -------------------------------------------------------------------------------------------- */

static uint8_t encode(const struct dev_rtc *r, unsigned v)
{
    return (uint8_t)(r->cmos[R_B] & B_BINARY ? v : v / 10 << 4 | v % 10);
}

static unsigned decode(const struct dev_rtc *r, uint8_t v)
{
    return r->cmos[R_B] & B_BINARY ? v : (v >> 4) * 10u + (v & 15);
}

static uint8_t encode_hour(const struct dev_rtc *r, unsigned hour)
{
    if (r->cmos[R_B] & B_24H)
        return encode(r, hour);
    return (uint8_t)(encode(r, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? 0x80 : 0));
}

static unsigned decode_hour(const struct dev_rtc *r, uint8_t v)
{
    if (r->cmos[R_B] & B_24H)
        return decode(r, v);
    return decode(r, v & 0x7F) % 12 + (v & 0x80 ? 12 : 0);
}

/* -- Time ------------------------------------------------------------------------------------------------ */

static int64_t rtc_seconds(const struct dev_rtc *r, uint64_t now)
{
    return r->divider_reset ? r->frozen_s : r->base_s + (int64_t)((now + r->phase_ns) / NS_PER_S);
}

static uint64_t rtc_fraction(const struct dev_rtc *r, uint64_t now)
{
    return r->divider_reset ? 0 : (now + r->phase_ns) % NS_PER_S;
}

static void set_seconds(struct dev_rtc *r, int64_t s, uint64_t now)
{
    r->frozen_s = s;
    r->base_s = s - (int64_t)((now + r->phase_ns) / NS_PER_S);
    r->seen_s = s;
}

static bool updates(const struct dev_rtc *r)
{
    return !(r->cmos[R_B] & B_SET) && !r->divider_reset;
}

static void fields_from_time(struct dev_rtc *r, int64_t s)
{
    int64_t days = floor_div(s, DAY_S);
    unsigned tod = (unsigned)(s - days * DAY_S);
    struct date d = date_from_days(days);

    r->cmos[R_SEC] = encode(r, tod % 60);
    r->cmos[R_MIN] = encode(r, tod / 60 % 60);
    r->cmos[R_HOUR] = encode_hour(r, tod / 3600);
    r->cmos[R_WEEKDAY] = encode(r, (d.weekday + r->weekday_shift) % 7 + 1);
    r->cmos[R_DAY] = encode(r, d.day);
    r->cmos[R_MONTH] = encode(r, d.month);
    r->cmos[R_YEAR] = encode(r, (unsigned)(d.year % 100));
    r->cmos[R_CENTURY] = encode(r, (unsigned)(d.year / 100 % 100));
}

/* Any bytes make some time: fields beyond their range carry over. */
static void time_from_fields(struct dev_rtc *r, uint64_t now)
{
    unsigned month = decode(r, r->cmos[R_MONTH]);
    int64_t year = (int64_t)decode(r, r->cmos[R_CENTURY]) * 100 + decode(r, r->cmos[R_YEAR]);
    int64_t days = days_from_date(year, month ? month : 1, decode(r, r->cmos[R_DAY]));
    unsigned calendar = date_from_days(days).weekday, weekday = decode(r, r->cmos[R_WEEKDAY]);

    r->weekday_shift = (uint8_t)((weekday % 7 + 6 + 7 - calendar) % 7);
    set_seconds(r,
                days * DAY_S + decode_hour(r, r->cmos[R_HOUR]) * 3600 + decode(r, r->cmos[R_MIN]) * 60 +
                    decode(r, r->cmos[R_SEC]),
                now);
}

static bool is_time(unsigned reg)
{
    return reg == R_SEC || reg == R_MIN || reg == R_HOUR || (reg >= R_WEEKDAY && reg <= R_YEAR) ||
           reg == R_CENTURY;
}

/* -- Flags and interrupts -------------------------------------------------------------------------------- */

/* Ticks of 32,768 Hz between periodic interrupts, 0 for none. "Register A", rates 1 and 2 repeat 8 and 9. */
static uint32_t periodic_ticks(const struct dev_rtc *r)
{
    unsigned rate = r->cmos[R_A] & A_RATE;

    if (!rate || r->divider_reset)
        return 0;
    return 1u << ((rate < 3 ? rate + 7 : rate) - 1);
}

static uint64_t rtc_tick(const struct dev_rtc *r, uint64_t now)
{
    return bus_ticks(now + r->phase_ns, RTC_HZ);
}

/* "Alarm": a byte with both top bits set matches anything. -1: any; 255: none. */
static int alarm_field(uint8_t raw, unsigned value, unsigned limit)
{
    if ((raw & 0xC0) == 0xC0)
        return -1;
    return value < limit ? (int)value : 255;
}

/* The first second after s at which the alarm matches; INT64_MAX if it never does. */
static int64_t next_alarm(const struct dev_rtc *r, int64_t s)
{
    int hour = alarm_field(r->cmos[R_HOUR_ALARM], decode_hour(r, r->cmos[R_HOUR_ALARM]), 24);
    int min = alarm_field(r->cmos[R_MIN_ALARM], decode(r, r->cmos[R_MIN_ALARM]), 60);
    int sec = alarm_field(r->cmos[R_SEC_ALARM], decode(r, r->cmos[R_SEC_ALARM]), 60);
    int64_t midnight = floor_div(s + 1, DAY_S) * DAY_S;
    int first = (int)(s + 1 - midnight);

    if (hour == 255 || min == 255 || sec == 255)
        return INT64_MAX;
    for (int t = first; t < first + DAY_S;) {
        int tod = t % DAY_S;

        if (hour >= 0 && tod / 3600 != hour)
            t += 3600 - tod % 3600;
        else if (min >= 0 && tod / 60 % 60 != min)
            t += 60 - tod % 60;
        else if (sec >= 0 && tod % 60 != sec)
            t++;
        else
            return midnight + t;
    }
    return INT64_MAX;
}

static void bring_up_to_date(struct dev_rtc *r, uint64_t now)
{
    uint32_t period = periodic_ticks(r);
    uint64_t tick = rtc_tick(r, now);
    int64_t s = rtc_seconds(r, now);

    if (updates(r) && s > r->seen_s) {
        r->cmos[R_C] |= C_UF;
        if (next_alarm(r, r->seen_s) <= s)
            r->cmos[R_C] |= C_AF;
        r->seen_s = s;
    }
    if (period && tick / period != r->seen_tick / period)
        r->cmos[R_C] |= C_PF;
    r->seen_tick = tick;
}

static uint64_t at_second(const struct dev_rtc *r, int64_t s)
{
    return (uint64_t)(s - r->base_s) * NS_PER_S - r->phase_ns;
}

static void schedule(struct dev_rtc *r, uint64_t now)
{
    uint8_t wanted = r->cmos[R_B] & (uint8_t)~r->cmos[R_C];
    uint32_t period = periodic_ticks(r);
    uint64_t at = DEV_NEVER, t;

    if ((wanted & B_UIE) && updates(r))
        at = at_second(r, rtc_seconds(r, now) + 1);
    if ((wanted & B_AIE) && updates(r)) {
        int64_t s = next_alarm(r, rtc_seconds(r, now));

        t = s == INT64_MAX ? DEV_NEVER : at_second(r, s);
        at = t < at ? t : at;
    }
    if ((wanted & B_PIE) && period) {
        t = bus_ticks_to_ns((rtc_tick(r, now) / period + 1) * period, RTC_HZ) - r->phase_ns;
        at = t < at ? t : at;
    }
    bus_timer(r->bus, TIMER_RTC, at);
}

/* IRQF = PF.PIE + AF.AIE + UF.UIE ("Register C"), and the IRQ pin follows it. */
static void signal_irq(struct dev_rtc *r, uint64_t now)
{
    bool irq = (r->cmos[R_C] & r->cmos[R_B] & (C_PF | C_AF | C_UF)) != 0;

    r->cmos[R_C] = (uint8_t)((r->cmos[R_C] & ~C_IRQF) | (irq ? C_IRQF : 0));
    schedule(r, now);
    bus_irq(r->bus, RTC_IRQ, irq);
}

void dev_rtc_run(struct dev_rtc *r, uint64_t now_ns)
{
    bring_up_to_date(r, now_ns);
    signal_irq(r, now_ns);
}

/* -- Registers ------------------------------------------------------------------------------------------- */

/* "Register A", divider: 110 and 111 hold it in reset; the first update comes half a second after its
 * release. */
static void write_a(struct dev_rtc *r, uint8_t v, uint64_t now)
{
    bool hold = (v & 0x60) == 0x60;

    if (hold && !r->divider_reset) {
        r->frozen_s = rtc_seconds(r, now);
    } else if (!hold && r->divider_reset) {
        r->phase_ns = (NS_PER_S + NS_PER_S / 2 - now % NS_PER_S) % NS_PER_S;
        set_seconds(r, r->frozen_s, now);
    }
    r->divider_reset = hold;
    r->cmos[R_A] = v & (A_DIVIDER | A_RATE);
    r->seen_tick = rtc_tick(r, now);
}

static void write_b(struct dev_rtc *r, uint8_t v, uint64_t now)
{
    bool was_set = (r->cmos[R_B] & B_SET) != 0;

    if (v & B_SET)
        v &= (uint8_t)~B_UIE; /* "Register B": SET clears UIE */
    if ((v & B_SET) && !was_set)
        fields_from_time(r, rtc_seconds(r, now));
    r->cmos[R_B] = v;
    if (!(v & B_SET) && was_set)
        time_from_fields(r, now);
}

static void write_register(struct dev_rtc *r, unsigned reg, uint8_t v, uint64_t now)
{
    switch (reg) {
    case R_A:
        write_a(r, v, now);
        return;
    case R_B:
        write_b(r, v, now);
        return;
    case R_C:
    case R_D:
        return; /* read only */
    default:
        break;
    }
    if (!is_time(reg)) {
        r->cmos[reg] = v;
        return;
    }
    if (!(r->cmos[R_B] & B_SET))
        fields_from_time(r, rtc_seconds(r, now));
    r->cmos[reg] = v;
    if (!(r->cmos[R_B] & B_SET))
        time_from_fields(r, now);
}

static uint8_t read_register(struct dev_rtc *r, unsigned reg, uint64_t now)
{
    uint8_t v;

    switch (reg) {
    case R_A:
        return r->cmos[R_A] | (updates(r) && rtc_fraction(r, now) >= NS_PER_S - UIP_NS ? A_UIP : 0);
    case R_C: /* reading clears all flags */
        bring_up_to_date(r, now);
        signal_irq(r, now);
        v = r->cmos[R_C];
        r->cmos[R_C] = 0;
        signal_irq(r, now);
        return v;
    case R_D:
        return D_VRT;
    default:
        break;
    }
    if (is_time(reg) && !(r->cmos[R_B] & B_SET))
        fields_from_time(r, rtc_seconds(r, now));
    return r->cmos[reg];
}

/* Port 70h is write-only on a PC; bit 7 gates NMI. */
static uint32_t rtc_read(void *dev, uint32_t port, unsigned size)
{
    struct dev_rtc *r = dev;

    (void)size;
    return port & 1 ? read_register(r, r->index, bus_now(r->bus)) : 0xFF;
}

static void rtc_write(void *dev, uint32_t port, unsigned size, uint32_t value)
{
    struct dev_rtc *r = dev;
    uint64_t now;

    (void)size;
    if (!(port & 1)) {
        r->index = value & 0x7F;
        r->nmi_masked = (value & 0x80) != 0;
        return;
    }
    now = bus_now(r->bus);
    bring_up_to_date(r, now);
    write_register(r, r->index, (uint8_t)value, now);
    signal_irq(r, now);
}

const struct dev_io_ops dev_rtc_ops = {rtc_read, rtc_write};

/* -- CMOS contents --------------------------------------------------------------------------------------- */

static void put16(uint8_t *at, uint64_t v)
{
    uint16_t w = (uint16_t)(v > 0xFFFF ? 0xFFFF : v);

    at[0] = (uint8_t)w;
    at[1] = (uint8_t)(w >> 8);
}

/* Bytes 10h-2Dh are covered by the checksum in 2Eh (high byte first). */
static void put_checksum(uint8_t *cmos)
{
    unsigned sum = 0;

    for (unsigned i = 0x10; i < 0x2E; i++)
        sum += cmos[i];
    cmos[0x2E] = (uint8_t)(sum >> 8);
    cmos[0x2F] = (uint8_t)sum;
}

void dev_rtc_init(struct dev_rtc *r, uint64_t ram_bytes, int64_t epoch_s)
{
    uint64_t mib = 1024 * 1024, above_1m = ram_bytes > mib ? ram_bytes - mib : 0;

    r->base_s = epoch_s;
    r->seen_s = epoch_s;
    r->cmos[R_A] = 0x26; /* 32.768 kHz, 1,024 Hz */
    r->cmos[R_B] = B_24H;
    r->cmos[0x14] = 0x06; /* equipment: x87, pointing device */
    put16(r->cmos + 0x15, 640);
    put16(r->cmos + 0x17, above_1m / 1024);
    put16(r->cmos + 0x30, above_1m / 1024);
    put16(r->cmos + 0x34, ram_bytes > 16 * mib ? (ram_bytes - 16 * mib) / 65536 : 0);
    put_checksum(r->cmos);
}

/* "RESET" pin: clears the interrupt enables and flags; time and memory stay. */
void dev_rtc_reset(struct dev_rtc *r)
{
    uint64_t now = bus_now(r->bus);

    bring_up_to_date(r, now);
    r->cmos[R_B] &= (uint8_t) ~(B_PIE | B_AIE | B_UIE | B_SQWE);
    r->cmos[R_C] = 0;
    r->index = 0;
    r->nmi_masked = false;
    signal_irq(r, now);
}
