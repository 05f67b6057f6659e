/* monitor/gdb.c: connection and packets; see gdb.h. */
#include "monitor/gdb.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "monitor/gdb_proto.h"
#include "monitor/machine.h"
#include "monitor/signals.h"

#define SAY_MAX 1024u

enum { CONTROL_WATCH = 'w', CONTROL_END = 'e' };
enum { SIGNAL_INT = 2, SIGNAL_TRAP = 5, SIGNAL_ABORT = 6 };

struct gdb {
    struct machine *m;
    int fd;               /* the client, -1: none */
    int control[2];       /* to the watching thread */
    pthread_t thread;
    bool thread_started;
    volatile int watched; /* descriptor the thread is to watch */
    volatile int called;
    bool go_on, no_ack, physical;
    bool fresh; /* the client has come and not let the guest go on yet */
    bool asked; /* a packet came while the guest ran */
    struct debug_stop stop;
    struct gdb_reader reader;
    uint8_t in[4096];
    size_t in_at, in_len;
    char out[GDB_PACKET_MAX + 1]; /* an answer being made */
    uint8_t memory[GDB_PACKET_MAX / 2];
    uint8_t frame[GDB_FRAME_MAX];
    size_t frame_len;
};

/* -- The watching thread ---------------------------------------------------------------------------------- */

static void *watch_main(void *arg)
{
    struct gdb *g = arg;
    bool watching = false;
    for (;;) {
        struct pollfd p[2] = {{g->control[0], POLLIN, 0}, {g->watched, POLLIN, 0}};
        if (poll(p, watching ? 2 : 1, -1) < 0 && errno != EINTR)
            return NULL;
        if (p[0].revents) {
            char c;
            if (read(g->control[0], &c, 1) != 1 || c == CONTROL_END)
                return NULL;
            watching = true;
        } else if (watching && p[1].revents) {
            watching = false;
            g->called = 1;
            signals_kick(g->m);
        }
    }
}

/* From now on whatever arrives calls, and so does what has been received and not looked at. A call may be about the descriptor watched
 * before: gdb_answer() finds nothing then. */
static void watch(struct gdb *g)
{
    char c = CONTROL_WATCH;
    g->watched = g->fd >= 0 ? g->fd : g->m->cfg->gdb->listen_fd;
    g->called = g->in_at < g->in_len;
    (void)!write(g->control[1], &c, 1);
}

struct gdb *gdb_open(struct machine *m)
{
    struct gdb *g = calloc(1, sizeof(*g));
    if (!g)
        return NULL;
    g->m = m;
    g->fd = -1;
    if (pipe2(g->control, O_CLOEXEC)) {
        free(g);
        return NULL;
    }
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &old); /* the thread takes no signals */
    g->thread_started = pthread_create(&g->thread, NULL, watch_main, g) == 0;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (!g->thread_started) {
        gdb_close(g);
        return NULL;
    }
    watch(g);
    return g;
}

void gdb_close(struct gdb *g)
{
    char c = CONTROL_END;
    if (g->thread_started) {
        (void)!write(g->control[1], &c, 1);
        pthread_join(g->thread, NULL);
    }
    close(g->control[0]);
    close(g->control[1]);
    if (g->fd >= 0)
        close(g->fd);
    free(g);
}

bool gdb_calls(const struct gdb *g)
{
    return g->called;
}

void gdb_set_physical(struct gdb *g, bool on)
{
    g->physical = on;
}

bool gdb_physical(const struct gdb *g)
{
    return g->physical;
}

/* -- Bytes ------------------------------------------------------------------------------------------------ */

/* Waits for the descriptor. False: the run is to end. */
static bool wait_for(struct gdb *g, int fd, short what)
{
    struct pollfd p = {fd, what, 0};
    sigset_t block, old;
    sigemptyset(&block);
    signals_block_events(&block);
    for (;;) {
        pthread_sigmask(SIG_BLOCK, &block, &old);
        int n = g->m->quit ? 0 : ppoll(&p, 1, NULL, &old);
        pthread_sigmask(SIG_SETMASK, &old, NULL);
        if (g->m->quit)
            return false;
        if (n > 0 || (n < 0 && errno != EINTR))
            return true;
    }
}

/* The client is gone: what it had set is, too. */
static void drop_client(struct gdb *g)
{
    if (g->fd >= 0)
        close(g->fd);
    g->fd = -1;
    g->go_on = true;
    debug_remove_all(g->m);
}

static bool take_client(struct gdb *g)
{
    int fd = accept4(g->m->cfg->gdb->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return false;
    g->fd = fd;
    g->no_ack = g->physical = g->asked = false;
    g->fresh = true;
    g->in_at = g->in_len = g->frame_len = 0;
    memset(&g->reader, 0, sizeof(g->reader));
    return true;
}

static void send_frame(struct gdb *g)
{
    for (size_t done = 0; done < g->frame_len && g->fd >= 0;) {
        ssize_t n = send(g->fd, g->frame + done, g->frame_len - done, MSG_NOSIGNAL);
        if (n > 0)
            done += (size_t)n;
        else if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            if (!wait_for(g, g->fd, POLLOUT))
                return;
        } else {
            drop_client(g);
        }
    }
}

static void send_content(struct gdb *g, const void *content, size_t len)
{
    g->frame_len = gdb_frame(content, len, g->frame);
    send_frame(g);
}

static void send_text(struct gdb *g, const char *text)
{
    send_content(g, text, strlen(text));
}

static void send_error(struct gdb *g, int error)
{
    char text[8];
    snprintf(text, sizeof(text), "E%02x", (unsigned)error & 0xFF);
    send_text(g, text);
}

static void send_ok_or(struct gdb *g, bool ok, int error)
{
    if (ok)
        send_text(g, "OK");
    else
        send_error(g, error);
}

static void acknowledge(struct gdb *g, char sign)
{
    if (!g->no_ack && g->fd >= 0)
        (void)!send(g->fd, &sign, 1, MSG_NOSIGNAL);
}

void gdb_say(struct gdb *g, const char *format, ...)
{
    char text[SAY_MAX], hex[2 * SAY_MAX + 2] = "O";
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    size_t len = n < 0 ? 0 : (size_t)n < sizeof(text) ? (size_t)n : sizeof(text) - 1;
    gdb_put_hex(hex + 1, text, len);
    send_text(g, hex);
}

/* The next thing that arrived. wait: false only looks. GDB_INPUT_NONE: nothing (any more). */
static enum gdb_input next_input(struct gdb *g, bool wait)
{
    while (g->fd >= 0) {
        while (g->in_at < g->in_len) {
            enum gdb_input got = gdb_feed(&g->reader, g->in[g->in_at++]);
            if (got != GDB_INPUT_NONE)
                return got;
        }
        ssize_t n = recv(g->fd, g->in, sizeof(g->in), 0);
        if (n > 0) {
            g->in_at = 0;
            g->in_len = (size_t)n;
        } else if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            if (!wait || !wait_for(g, g->fd, POLLIN))
                return GDB_INPUT_NONE;
        } else {
            drop_client(g);
        }
    }
    return GDB_INPUT_NONE;
}

/* -- Why it stopped --------------------------------------------------------------------------------------- */

/* fresh: it has been stopped by this very client's coming. */
static void send_stop(struct gdb *g, bool fresh)
{
    static const char *const watch_name[] = {
        [DEBUG_WRITE] = "watch", [DEBUG_READ] = "rwatch", [DEBUG_ACCESS] = "awatch"};
    static const uint8_t signal[] = {[DEBUG_WHY_ASKED] = SIGNAL_INT,
                                     [DEBUG_WHY_STEP] = SIGNAL_TRAP,
                                     [DEBUG_WHY_BREAK] = SIGNAL_TRAP,
                                     [DEBUG_WHY_WATCH] = SIGNAL_TRAP,
                                     [DEBUG_WHY_SHUTDOWN] = SIGNAL_ABORT};
    static const uint8_t sent_along[] = {CPU_ESP, CPU_EBP, 8 /* EIP */};
    char *p = g->out;
    p += sprintf(p, "T%02xthread:1;", fresh ? SIGNAL_TRAP : signal[g->stop.why]);
    for (unsigned i = 0; i < sizeof(sent_along); i++) {
        uint8_t value[GDB_REG_BYTES];
        unsigned size = gdb_reg_get(g->m, sent_along[i], value);
        p += sprintf(p, "%02x:", sent_along[i]);
        gdb_put_hex(p, value, size);
        p += 2 * size;
        *p++ = ';';
    }
    *p = 0;
    if (g->stop.why == DEBUG_WHY_WATCH)
        sprintf(p, "%s:%x;", watch_name[g->stop.point.kind], (unsigned)g->stop.lin);
    else if (g->stop.why == DEBUG_WHY_BREAK && !g->m->vm.cpu->seg[SCAN_CS].base)
        /* GDB goes on at once when told of a breakpoint that it does not find at EIP: where EIP is an offset it is a plain SIGTRAP. */
        sprintf(p, "%s:;", g->stop.point.kind == DEBUG_SOFT ? "swbreak" : "hwbreak");
    send_text(g, g->out);
}

/* -- Packets ---------------------------------------------------------------------------------------------- */

static void general_registers_get(struct gdb *g)
{
    char *p = g->out;
    for (unsigned n = 0; n < gdb_reg_count_general(); n++) {
        uint8_t value[GDB_REG_BYTES];
        unsigned size = gdb_reg_get(g->m, n, value);
        gdb_put_hex(p, value, size);
        p += 2 * size;
    }
    send_text(g, g->out);
}

/* All or none would need a copy of everything: what cannot be changed is left, and told. */
static void general_registers_set(struct gdb *g, const char *text)
{
    bool ok = true;
    for (unsigned n = 0; n < gdb_reg_count_general(); n++) {
        uint8_t now[GDB_REG_BYTES], value[GDB_REG_BYTES];
        unsigned size = gdb_reg_get(g->m, n, now);
        if (!gdb_get_hex(value, text, size)) {
            ok &= !*text; /* a shorter packet leaves the rest */
            break;
        }
        text += 2 * size;
        if (memcmp(now, value, size))
            ok &= gdb_reg_set(g->m, n, value);
    }
    send_ok_or(g, ok, EINVAL);
}

static void register_get(struct gdb *g, const char *text)
{
    uint64_t n;
    uint8_t value[GDB_REG_BYTES];
    char hex[2 * GDB_REG_BYTES + 1];
    if (!gdb_get_number(&text, &n) || n >= gdb_reg_count()) {
        send_error(g, EINVAL);
        return;
    }
    unsigned size = gdb_reg_get(g->m, (unsigned)n, value);
    gdb_put_hex(hex, value, size);
    send_text(g, hex);
}

static void register_set(struct gdb *g, const char *text)
{
    uint64_t n;
    uint8_t value[GDB_REG_BYTES];
    bool ok = gdb_get_field(&text, '=', &n) && n < gdb_reg_count() &&
              gdb_get_hex(value, text, gdb_reg_size((unsigned)n)) && gdb_reg_set(g->m, (unsigned)n, value);
    send_ok_or(g, ok, EINVAL);
}

static void memory_get(struct gdb *g, const char *text)
{
    uint64_t address, len;
    if (!gdb_get_field(&text, ',', &address) || !gdb_get_number(&text, &len)) {
        send_error(g, EINVAL);
        return;
    }
    if (len > sizeof(g->memory))
        len = sizeof(g->memory);
    size_t n = debug_read(g->m, g->physical, address, g->memory, len);
    if (!n && len) {
        send_error(g, EFAULT);
        return;
    }
    gdb_put_hex(g->out, g->memory, n);
    send_text(g, g->out);
}

static void memory_set(struct gdb *g, const char *text, bool binary)
{
    uint64_t address, len;
    bool ok = gdb_get_field(&text, ',', &address) && gdb_get_field(&text, ':', &len);
    size_t given = ok ? g->reader.len - (size_t)(text - (const char *)g->reader.buf) : 0;
    const void *bytes = binary ? (const void *)text : g->memory;
    if (!ok || len > sizeof(g->memory) || given < (binary ? len : 2 * len) ||
        (!binary && !gdb_get_hex(g->memory, text, len))) {
        send_error(g, EINVAL);
        return;
    }
    send_ok_or(g, debug_write(g->m, g->physical, address, bytes, len) == len, EFAULT);
}

static void point(struct gdb *g, const char *text, bool insert)
{
    uint64_t kind, address, len;
    if (!gdb_get_field(&text, ',', &kind) || !gdb_get_field(&text, ',', &address) || !gdb_get_number(&text, &len) ||
        address > UINT32_MAX) {
        send_error(g, EINVAL);
        return;
    }
    if (kind > DEBUG_ACCESS) { /* not supported */
        send_text(g, "");
        return;
    }
    bool ok = insert ? debug_insert(g->m, (enum debug_kind)kind, (uint32_t)address, len)
                     : debug_remove(g->m, (enum debug_kind)kind, (uint32_t)address, len);
    send_ok_or(g, ok, ENOSPC);
}

static void resume(struct gdb *g, bool step)
{
    g->m->debug->stepping = step;
    g->go_on = true;
}

/* [address], after a signal number and a semicolon where one is given; signals are not passed on. */
static void resume_at(struct gdb *g, const char *text, bool step, bool with_signal)
{
    uint64_t n;
    if (with_signal) {
        if (!gdb_get_number(&text, &n)) {
            send_error(g, EINVAL);
            return;
        }
        if (*text == ';')
            text++;
    }
    if (gdb_get_number(&text, &n))
        debug_set_eip(g->m, (uint32_t)n);
    resume(g, step);
}

/* vCont;ACTION[:THREAD];...: the first one that is for thread 1. */
static void continue_threads(struct gdb *g, const char *text)
{
    while (*text == ';') {
        char action = *++text;
        uint64_t n;
        text++;
        if (action == 'C' || action == 'S')
            (void)gdb_get_number(&text, &n);
        bool ours = *text != ':';
        if (*text == ':') {
            text++;
            ours = !strncmp(text, "-1", 2) || (gdb_get_number(&text, &n) && n <= 1);
            text += strspn(text, "-1");
        }
        if (ours && strchr("cCsS", action)) {
            resume(g, action == 's' || action == 'S');
            return;
        }
    }
    send_error(g, EINVAL);
}

static void kill_machine(struct gdb *g)
{
    machine_end(g->m, RUN_QUIT);
    g->go_on = true;
}

static bool starts(const char **text, const char *with)
{
    size_t n = strlen(with);
    if (strncmp(*text, with, n))
        return false;
    *text += n;
    return true;
}

static void packet_v(struct gdb *g, const char *text)
{
    if (!strcmp(text, "Cont?")) {
        send_text(g, "vCont;c;C;s;S");
    } else if (starts(&text, "Cont")) {
        continue_threads(g, text);
    } else if (starts(&text, "Kill")) {
        send_text(g, "OK");
        kill_machine(g);
    } else {
        send_text(g, "");
    }
}

/* qXfer: a piece of a document. */
static void transfer(struct gdb *g, const char *text)
{
    uint64_t from, len;
    size_t size;
    if (!starts(&text, "features:read:target.xml:")) {
        send_error(g, 0);
        return;
    }
    const char *xml = gdb_target_xml(&size);
    if (!gdb_get_field(&text, ',', &from) || !gdb_get_number(&text, &len) || from > size) {
        send_error(g, EINVAL);
        return;
    }
    size_t n = size - from < len ? size - from : len;
    if (n > GDB_PACKET_MAX - 1)
        n = GDB_PACKET_MAX - 1;
    g->out[0] = from + n < size ? 'm' : 'l';
    memcpy(g->out + 1, xml + from, n);
    send_content(g, g->out, n + 1);
}

static void monitor_command(struct gdb *g, const char *hex)
{
    char command[SAY_MAX];
    size_t n = strlen(hex) / 2;
    if (n >= sizeof(command) || !gdb_get_hex(command, hex, n)) {
        send_error(g, EINVAL);
        return;
    }
    command[n] = 0;
    gdb_monitor(g, g->m, command);
    send_text(g, "OK");
}

static void send_number(struct gdb *g, unsigned n)
{
    char text[16];
    snprintf(text, sizeof(text), "%x", n);
    send_text(g, text);
}

static void query(struct gdb *g, const char *text)
{
    if (starts(&text, "Supported")) {
        snprintf(g->out, sizeof(g->out),
                 "PacketSize=%x;qXfer:features:read+;vContSupported+;swbreak+;hwbreak+;QStartNoAckMode+",
                 GDB_PACKET_MAX);
        send_text(g, g->out);
    } else if (starts(&text, "Xfer:")) {
        transfer(g, text);
    } else if (starts(&text, "Rcmd,")) {
        monitor_command(g, text);
    } else if (starts(&text, "fThreadInfo")) {
        send_text(g, "m1");
    } else if (starts(&text, "sThreadInfo")) {
        send_text(g, "l");
    } else if (starts(&text, "ThreadExtraInfo,")) {
        static const char what[] = "vCPU 0";
        gdb_put_hex(g->out, what, sizeof(what) - 1);
        send_text(g, g->out);
    } else if (starts(&text, "Attached")) {
        send_text(g, "1");
    } else if (starts(&text, "Symbol")) {
        send_text(g, "OK");
    } else if (!strcmp(text, "C")) {
        send_text(g, "QC1");
    } else if (starts(&text, "qemu.PhyMemMode")) {
        send_number(g, g->physical);
    } else if (!strcmp(text, "qemu.sstepbits")) {
        snprintf(g->out, sizeof(g->out), "ENABLE=%x,NOIRQ=%x,NOTIMER=%x", DEBUG_STEP_ENABLE, DEBUG_STEP_NO_IRQ,
                 DEBUG_STEP_NO_TIMER);
        send_text(g, g->out);
    } else if (!strcmp(text, "qemu.sstep")) {
        snprintf(g->out, sizeof(g->out), "0x%x", g->m->debug->step_flags);
        send_text(g, g->out);
    } else {
        send_text(g, "");
    }
}

static void set(struct gdb *g, const char *text)
{
    uint64_t n;
    if (!strcmp(text, "StartNoAckMode")) {
        send_text(g, "OK");
        g->no_ack = true;
    } else if (starts(&text, "qemu.PhyMemMode:")) {
        g->physical = *text == '1';
        send_text(g, "OK");
    } else if (starts(&text, "qemu.sstep")) {
        bool ok = starts(&text, "=");
        (void)starts(&text, "0x");
        ok = ok && gdb_get_number(&text, &n) && n <= 7;
        if (ok)
            g->m->debug->step_flags = (unsigned)n;
        send_ok_or(g, ok, EINVAL);
    } else {
        send_text(g, "");
    }
}

static void handle(struct gdb *g)
{
    const char *text = (const char *)g->reader.buf;
    switch (*text++) {
    case '?':
        send_stop(g, g->fresh);
        break;
    case 'g':
        general_registers_get(g);
        break;
    case 'G':
        general_registers_set(g, text);
        break;
    case 'p':
        register_get(g, text);
        break;
    case 'P':
        register_set(g, text);
        break;
    case 'm':
        memory_get(g, text);
        break;
    case 'M':
    case 'X':
        memory_set(g, text, text[-1] == 'X');
        break;
    case 'Z':
    case 'z':
        point(g, text, text[-1] == 'Z');
        break;
    case 'c':
    case 'C':
        resume_at(g, text, false, text[-1] == 'C');
        break;
    case 's':
    case 'S':
        resume_at(g, text, true, text[-1] == 'S');
        break;
    case 'v':
        packet_v(g, text);
        break;
    case 'H':
    case 'T':
        send_text(g, "OK");
        break;
    case 'D':
        send_text(g, "OK");
        drop_client(g);
        break;
    case 'k':
        kill_machine(g);
        break;
    case 'q':
        query(g, text);
        break;
    case 'Q':
        set(g, text);
        break;
    default:
        send_text(g, "");
    }
}

static void handle_input(struct gdb *g, enum gdb_input got)
{
    switch (got) {
    case GDB_INPUT_PACKET:
        acknowledge(g, '+');
        handle(g);
        break;
    case GDB_INPUT_DAMAGED:
        acknowledge(g, '-');
        break;
    case GDB_INPUT_TOO_LONG:
        acknowledge(g, '+');
        send_error(g, E2BIG);
        break;
    case GDB_INPUT_NAK:
        send_frame(g);
        break;
    case GDB_INPUT_NONE: /* the client is gone, or the run is to end */
        g->go_on = true;
        break;
    case GDB_INPUT_BREAK: /* stopped already */
    case GDB_INPUT_ACK:
        break;
    }
}

/* -- For the run loop ------------------------------------------------------------------------------------- */

bool gdb_wait(struct gdb *g)
{
    do {
        if (!wait_for(g, g->m->cfg->gdb->listen_fd, POLLIN))
            return false;
    } while (!take_client(g));
    return true;
}

bool gdb_answer(struct gdb *g)
{
    if (g->fd < 0) {
        bool came = take_client(g);
        watch(g);
        return came;
    }
    enum gdb_input got;
    while ((got = next_input(g, false)) == GDB_INPUT_ACK || got == GDB_INPUT_NAK || got == GDB_INPUT_DAMAGED)
        handle_input(g, got);
    g->asked = got == GDB_INPUT_PACKET;
    if (got == GDB_INPUT_NONE && g->fd < 0) {
        watch(g); /* for the next client; the guest stops once more to take the breakpoints out */
        return true;
    }
    watch(g);
    return got != GDB_INPUT_NONE;
}

void gdb_stopped(struct gdb *g, const struct debug_stop *why)
{
    g->stop = *why;
    g->go_on = g->fd < 0;
    if (g->asked)
        handle_input(g, GDB_INPUT_PACKET);
    else if (!g->fresh && g->fd >= 0)
        send_stop(g, false);
    g->asked = false; /* a fresh client asks first */
    while (!g->go_on && !g->m->quit)
        handle_input(g, next_input(g, true));
    g->fresh = false;
    watch(g);
}

void gdb_exited(struct gdb *g, const struct run_result *res)
{
    char text[8];
    if (g->fd < 0)
        return;
    snprintf(text, sizeof(text), "W%02x", (unsigned)g->m->cfg->gdb->exit_status(res) & 0xFF);
    send_text(g, text);
}
