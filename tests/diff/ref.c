/* tests/diff/ref.c: the reference: fetches, decodes with Zydis, has the host or the model do the instruction,
 * delivers what it raises. */
#include "ref.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct ref ref;
struct cpu *ref_cpu;
uint8_t *ref_ram;
int ref_ram_fd;
unsigned ref_how;
int ref_vector;
static ZydisDecoder decoder[2];
static bool native_ok;

/* -- Set-up
 * ----------------------------------------------------------------------------------------------------------
 */

static int protection(uint32_t rights, bool user)
{
    if (!(rights & BOX_P) || (user && !(rights & BOX_U)))
        return PROT_NONE;
    return rights & BOX_W ? PROT_READ | PROT_WRITE : PROT_READ;
}

static bool map_at(uint64_t at, uint32_t phys, uint32_t pages)
{
    void *want = (void *)(uintptr_t)at;

    return mmap(want, pages * 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED_NOREPLACE, ref_ram_fd,
                phys) == want;
}

/* The guest's linear addresses are the host's own, so that the processor computes and checks them. What lies
 * below 64 KiB may not be mapped; the page that linear 0 shows stands behind the top for accesses that wrap.
 */
static bool map_low(void)
{
    bool ok = map_at(1ull << 32, W_HOT, 1);

    for (unsigned n = 0; n < world_ranges; n++)
        if (world_range[n].linear >= 0x10000)
            ok = map_at(world_range[n].linear, world_range[n].ram, world_range[n].pages) && ok;
    return ok;
}

void ref_init(void)
{
    static const ZydisDecoderMode off[] = {ZYDIS_DECODER_MODE_MPX,      ZYDIS_DECODER_MODE_CET,
                                           ZYDIS_DECODER_MODE_LZCNT,    ZYDIS_DECODER_MODE_TZCNT,
                                           ZYDIS_DECODER_MODE_WBNOINVD, ZYDIS_DECODER_MODE_CLDEMOTE};

    ZydisDecoderInit(&decoder[0], ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16);
    ZydisDecoderInit(&decoder[1], ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
    for (unsigned n = 0; n < 2 * sizeof off / sizeof off[0]; n++)
        ZydisDecoderEnableMode(&decoder[n & 1], off[n / 2], ZYAN_FALSE);
    ref_cpu = aligned_alloc(64, (sizeof *ref_cpu + 63) & ~(size_t)63);
    ref_ram_fd = memfd_create("reference", 0);
    if (!ref_cpu || ref_ram_fd < 0 || ftruncate(ref_ram_fd, BOX_RAM_BYTES))
        exit(2);
    memset(ref_cpu, 0, sizeof *ref_cpu);
    ref_ram = mmap(NULL, BOX_RAM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, ref_ram_fd, 0);
    if (ref_ram == MAP_FAILED)
        exit(2);
    ref_cpu->a20_mask = 0xFFFFFFFFu;
    native_ok = map_low();
    native_init();
}

bool ref_native_possible(void)
{
    return native_ok;
}

/* Real mode has no pages: the supervisor's rights, and what is read-only elsewhere is not reached from it. */
void ref_set_mode(enum diff_mode mode)
{
    bool user = diff_mode_cpl(mode) == 3;

    ref.mode = mode;
    for (unsigned n = 0; native_ok && n < world_ranges; n++)
        if (world_range[n].linear >= 0x10000)
            mprotect((void *)(uintptr_t)world_range[n].linear, world_range[n].pages * 4096,
                     protection(world_range[n].rights, user));
}

/* -- Faults and memory
 * ----------------------------------------------------------------------------------------------- */

_Noreturn void ref_raise(unsigned vector, bool has_error, uint32_t error)
{
    ref.vector = vector;
    ref.has_error = has_error;
    ref.error = error;
    longjmp(ref.out, 1);
}

_Noreturn void ref_skip(void)
{
    ref.skip = true;
    longjmp(ref.out, 1);
}

static bool paging(void)
{
    return ref.c->cr0 & CPU_CR0_PG;
}

/* May the page be used so? CR0.WP decides about supervisor writes (SDM vol. 3, 4.6.1). */
static bool allowed(uint32_t rights, bool write, bool user)
{
    if (!(rights & BOX_P) || (user && !(rights & BOX_U)))
        return false;
    return !write || (rights & BOX_W) || (!user && !(ref.c->cr0 & CPU_CR0_WP));
}

uint32_t ref_page_error(uint32_t lin, bool write, bool user)
{
    uint32_t phys;

    return (world_rights(paging(), lin, &phys) & BOX_P) | (write ? 2 : 0) | (user ? 4 : 0);
}

static void touch_page(uint32_t lin, bool write, bool user)
{
    uint32_t phys, rights = world_rights(paging(), lin, &phys);

    if (!paging() && !rights) /* beyond RAM */
        ref_skip();
    if (allowed(rights, write, user))
        return;
    ref.c->cr2 = lin;
    ref_raise(CPU_EXC_PF, true, ref_page_error(lin, write, user));
}

void ref_touch(uint32_t lin, unsigned size, bool write, bool user)
{
    uint32_t last = lin + size - 1;

    touch_page(lin, write, user);
    for (uint32_t page = lin | 0xFFF; page + 1 != (last & ~0xFFFu) + 0x1000; page += 0x1000)
        touch_page(page + 1, write, user);
}

static uint8_t *byte_at(uint32_t lin)
{
    uint32_t phys;

    world_rights(paging(), lin, &phys);
    return ref_ram + phys;
}

uint32_t ref_read(uint32_t lin, unsigned size, bool user)
{
    uint32_t v = 0;

    ref_touch(lin, size, false, user);
    for (unsigned n = 0; n < size; n++)
        v |= (uint32_t)*byte_at(lin + n) << 8 * n;
    return v;
}

void ref_write(uint32_t lin, unsigned size, uint32_t v, bool user)
{
    ref_touch(lin, size, true, user);
    for (unsigned n = 0; n < size; n++)
        *byte_at(lin + n) = (uint8_t)(v >> 8 * n);
}

/* SDM vol. 3, 5.3 to 5.5. */
uint32_t ref_segment(unsigned seg, uint32_t off, unsigned size, bool write)
{
    const struct cpu_seg *s = &ref.c->seg[seg];
    unsigned vector = seg == SCAN_SS ? CPU_EXC_SS : CPU_EXC_GP;
    bool real = diff_mode_real(ref.mode), code = s->attr & 8, down = !code && (s->attr & 4);
    uint64_t last = (uint64_t)off + size - 1, top = s->attr & 0x4000 ? 0xFFFFFFFFu : 0xFFFFu;

    if (!real && (s->unusable || (write && (code || !(s->attr & 2))) || (!write && code && !(s->attr & 2))))
        ref_raise(vector, true, 0);
    if (down ? off <= s->limit || last > top : last > s->limit && s->limit != 0xFFFFFFFFu)
        ref_raise(vector, true, 0);
    return s->base + off;
}

bool ref_aligns(void)
{
    return ref.c->cpl == 3 && (ref.c->cr0 & CPU_CR0_AM) && (cpu_eflags(ref.c) & CPU_AC);
}

/* -- Operands
 * ---------------------------------------------------------------------------------------------------------
 */

uint32_t ref_get(unsigned reg, unsigned size)
{
    uint32_t v = ref.c->gpr[size == 1 ? reg & 3 : reg];

    return size == 4 ? v : size == 2 ? v & 0xFFFF : (reg & 4 ? v >> 8 : v) & 0xFF;
}

void ref_put(unsigned reg, unsigned size, uint32_t v)
{
    uint32_t *r = &ref.c->gpr[size == 1 ? reg & 3 : reg], shift = size == 1 && (reg & 4) ? 8 : 0;
    uint32_t mask = size == 4 ? 0xFFFFFFFFu : size == 2 ? 0xFFFF : 0xFFu << shift;

    *r = (*r & ~mask) | (v << shift & mask);
}

static int32_t displacement(void)
{
    return (int32_t)ref.in.raw.disp.value;
}

/* SDM vol. 2, tables 2-1 to 2-3. */
static uint32_t ea16(unsigned *seg)
{
    const uint32_t *g = ref.c->gpr;
    uint32_t sum[8] = {g[CPU_EBX] + g[CPU_ESI],
                       g[CPU_EBX] + g[CPU_EDI],
                       g[CPU_EBP] + g[CPU_ESI],
                       g[CPU_EBP] + g[CPU_EDI],
                       g[CPU_ESI],
                       g[CPU_EDI],
                       g[CPU_EBP],
                       g[CPU_EBX]};
    unsigned mod = ref.modrm >> 6;

    if (mod == 0 && ref.rm == 6)
        return (uint32_t)displacement() & 0xFFFF;
    if (ref.rm == 2 || ref.rm == 3 || ref.rm == 6)
        *seg = SCAN_SS;
    return (sum[ref.rm] + (uint32_t)displacement()) & 0xFFFF;
}

static uint32_t ea32(unsigned *seg)
{
    const uint32_t *g = ref.c->gpr;
    unsigned mod = ref.modrm >> 6, base = ref.rm;
    uint32_t a = (uint32_t)displacement();

    if (ref.rm == 4) {
        base = ref.in.raw.sib.base;
        if (ref.in.raw.sib.index != 4)
            a += g[ref.in.raw.sib.index] << ref.in.raw.sib.scale;
    }
    if (base == 5 && mod == 0)
        return a;
    if (base == CPU_ESP || base == CPU_EBP)
        *seg = SCAN_SS;
    return a + g[base];
}

static uint32_t address(unsigned *seg)
{
    unsigned own = SCAN_DS;
    uint32_t a;

    if (!ref.has_modrm)
        a = ref.asz == 2 ? (uint32_t)displacement() & 0xFFFF : (uint32_t)displacement();
    else
        a = ref.asz == 2 ? ea16(&own) : ea32(&own);
    *seg = ref.seg == SCAN_SEG_NONE ? own : ref.seg;
    return a;
}

uint32_t ref_ea(void)
{
    unsigned seg;

    return address(&seg);
}

unsigned ref_seg(void)
{
    unsigned seg;

    address(&seg);
    return seg;
}

/* -- Fetch
 * -------------------------------------------------------------------------------------------------------------
 */

/* The first byte that cannot be fetched raises what it must if the instruction reaches it. */
static void fetch(void)
{
    struct cpu *c = ref.c;
    const struct cpu_seg *cs = &c->seg[SCAN_CS];
    bool user = c->cpl == 3;
    unsigned n = 0;
    ZyanStatus status;

    memset(ref.bytes, 0, sizeof ref.bytes);
    while (n < 15) {
        uint32_t off = c->eip + n, phys;

        if (off > cs->limit || !allowed(world_rights(paging(), cs->base + off, &phys), false, user))
            break;
        ref.bytes[n++] = *byte_at(cs->base + off);
    }
    status = ZydisDecoderDecodeFull(&decoder[!!(cs->attr & 0x4000)], ref.bytes, n, &ref.in, ref.op);
    if (status == ZYDIS_STATUS_NO_MORE_DATA && n < 15) {
        if (c->eip + n > cs->limit)
            ref_raise(CPU_EXC_GP, true, 0);
        touch_page(cs->base + c->eip + n, false, user);
    }
    if (status == ZYDIS_STATUS_NO_MORE_DATA || status == ZYDIS_STATUS_INSTRUCTION_TOO_LONG)
        ref_raise(CPU_EXC_GP, true, 0);
    if (!ZYAN_SUCCESS(status))
        ref_raise(CPU_EXC_UD, false, 0);
}

/* The CPU model: an i686 with MMX, SSE to SSSE3, MOVBE (scanner/README.md). What later processors added is
 * undefined. */
static bool known_isa(void)
{
    static const uint8_t sets[] = {
        ZYDIS_ISA_SET_CLFSH,         ZYDIS_ISA_SET_CMOV,        ZYDIS_ISA_SET_FAT_NOP,
        ZYDIS_ISA_SET_FCMOV,         ZYDIS_ISA_SET_FXSAVE,      ZYDIS_ISA_SET_I186,
        ZYDIS_ISA_SET_I286PROTECTED, ZYDIS_ISA_SET_I286REAL,    ZYDIS_ISA_SET_I386,
        ZYDIS_ISA_SET_I486,          ZYDIS_ISA_SET_I486REAL,    ZYDIS_ISA_SET_I86,
        ZYDIS_ISA_SET_LAHF,          ZYDIS_ISA_SET_MOVBE,       ZYDIS_ISA_SET_PAUSE,
        ZYDIS_ISA_SET_PENTIUMMMX,    ZYDIS_ISA_SET_PENTIUMREAL, ZYDIS_ISA_SET_PPRO,
        ZYDIS_ISA_SET_RDPMC,         ZYDIS_ISA_SET_SSE,         ZYDIS_ISA_SET_SSE2,
        ZYDIS_ISA_SET_SSE2MMX,       ZYDIS_ISA_SET_SSE3,        ZYDIS_ISA_SET_SSE3X87,
        ZYDIS_ISA_SET_SSEMXCSR,      ZYDIS_ISA_SET_SSSE3,       ZYDIS_ISA_SET_SSSE3MMX,
        ZYDIS_ISA_SET_SSE_PREFETCH,  ZYDIS_ISA_SET_X87,         ZYDIS_ISA_SET_PREFETCH_NOP,
    };

    for (unsigned n = 0; n < sizeof sets; n++)
        if (ref.in.meta.isa_set == sets[n])
            return true;
    return false;
}

static void take_prefixes(void)
{
    ref.seg = SCAN_SEG_NONE;
    ref.p66 = ref.lock = false;
    ref.rep = 0;
    for (const uint8_t *p = ref.bytes;; p++)
        switch (*p) {
        case 0x66:
            ref.p66 = true;
            break;
        case 0x67:
            break;
        case 0xF0:
            ref.lock = true;
            break;
        case 0xF2:
        case 0xF3:
            ref.rep = *p;
            break;
        case 0x26:
        case 0x2E:
        case 0x36:
        case 0x3E:
            ref.seg = *p >> 3 & 3;
            break;
        case 0x64:
        case 0x65:
            ref.seg = (uint8_t)(SCAN_FS + *p - 0x64);
            break;
        default:
            return;
        }
}

static void decode(void)
{
    fetch();
    take_prefixes();
    bool code32 = ref.c->seg[SCAN_CS].attr & 0x4000, p67 = false;

    for (unsigned n = 0; n < ref.in.raw.prefix_count; n++)
        p67 |= ref.in.raw.prefixes[n].value == 0x67;
    ref.osz = code32 != ref.p66 ? 4 : 2;
    ref.asz = code32 != p67 ? 4 : 2;
    ref.len = ref.in.length;
    ref.opcode = ref.in.opcode;
    ref.has_modrm = ref.in.attributes & ZYDIS_ATTRIB_HAS_MODRM;
    ref.modrm = ref.has_modrm
                    ? (unsigned)(ref.in.raw.modrm.mod << 6 | ref.in.raw.modrm.reg << 3 | ref.in.raw.modrm.rm)
                    : 0xC0;
    ref.reg = ref.modrm >> 3 & 7;
    ref.rm = ref.modrm & 7;
    ref.mem = ref.has_modrm && ref.modrm < 0xC0;
    ref.imm = (uint32_t)ref.in.raw.imm[0].value.u;
    ref.imm2 = (uint32_t)ref.in.raw.imm[1].value.u;
    ref.next = ref.c->eip + ref.len;
    ref.cpl0 = ref.c->cpl;
}

/* -- The host
 * ----------------------------------------------------------------------------------------------------------
 */

static enum ref_unit unit_of(void)
{
    bool map0f = ref.in.opcode_map == ZYDIS_OPCODE_MAP_0F;

    if (ref.in.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT)
        return ref.opcode >= 0xD8 && ref.opcode <= 0xDF ? UNIT_X87 : UNIT_NONE;
    switch (ref.in.meta.isa_set) {
    case ZYDIS_ISA_SET_PENTIUMMMX:
    case ZYDIS_ISA_SET_SSE2MMX:
    case ZYDIS_ISA_SET_SSSE3MMX:
        return UNIT_MMX;
    case ZYDIS_ISA_SET_SSE:
    case ZYDIS_ISA_SET_SSE2:
    case ZYDIS_ISA_SET_SSE3:
    case ZYDIS_ISA_SET_SSSE3:
        if (map0f && ref.opcode == 0xC3) /* MOVNTI */
            return UNIT_NONE;
        if (map0f && (ref.opcode & 0xFE) == 0x2C) /* conversions to MMX registers */
            return UNIT_SSE;
        break;
    default:
        return UNIT_NONE;
    }
    for (unsigned n = 0; n < ref.in.operand_count; n++) /* SSE instructions on MMX registers alone */
        if (ref.op[n].type == ZYDIS_OPERAND_TYPE_REGISTER && ref.op[n].reg.value >= ZYDIS_REGISTER_XMM0 &&
            ref.op[n].reg.value <= ZYDIS_REGISTER_XMM7)
            return UNIT_SSE;
    for (unsigned n = 0; n < ref.in.operand_count; n++)
        if (ref.op[n].type == ZYDIS_OPERAND_TYPE_REGISTER && ref.op[n].reg.value >= ZYDIS_REGISTER_MM0 &&
            ref.op[n].reg.value <= ZYDIS_REGISTER_MM7)
            return UNIT_MMX;
    return UNIT_SSE;
}

static uint16_t fx16(unsigned off)
{
    uint16_t v;

    memcpy(&v, ref.c->fx + off, 2);
    return v;
}

/* All but FNSTCW, FNSTSW, FNSTENV, FNSAVE, FNCLEX, FNINIT and the two that are no more. */
static bool waits(void)
{
    if (ref.mem)
        return !(ref.opcode == 0xD9 || ref.opcode == 0xDD) || ref.reg < 6;
    return !(ref.opcode == 0xDB && ref.modrm >= 0xE0 && ref.modrm <= 0xE4) &&
           !(ref.opcode == 0xDF && ref.modrm == 0xE0);
}

void ref_need(enum ref_unit unit)
{
    uint32_t cr0 = ref.c->cr0;
    bool pending = fx16(2) & 0x80, mmx = false;

    if (unit == UNIT_NONE)
        return;
    if (unit == UNIT_WAIT) {
        if ((cr0 & (CPU_CR0_MP | CPU_CR0_TS)) == (CPU_CR0_MP | CPU_CR0_TS))
            ref_raise(CPU_EXC_NM, false, 0);
        return;
    }
    if (unit == UNIT_X87 && (cr0 & (CPU_CR0_EM | CPU_CR0_TS)))
        ref_raise(CPU_EXC_NM, false, 0);
    if (unit == UNIT_X87 && pending && waits())
        ref_raise(CPU_EXC_MF, false, 0);
    if (unit != UNIT_X87 && ((cr0 & CPU_CR0_EM) || (unit == UNIT_SSE && !(ref.c->cr4 & CPU_CR4_OSFXSR))))
        ref_raise(CPU_EXC_UD, false, 0);
    if (unit != UNIT_X87 && (cr0 & CPU_CR0_TS))
        ref_raise(CPU_EXC_NM, false, 0);
    for (unsigned n = 0; n < ref.in.operand_count; n++)
        mmx |= ref.op[n].type == ZYDIS_OPERAND_TYPE_REGISTER && ref.op[n].reg.value >= ZYDIS_REGISTER_MM0 &&
               ref.op[n].reg.value <= ZYDIS_REGISTER_MM7;
    if (pending && (unit == UNIT_MMX || mmx))
        ref_raise(CPU_EXC_MF, false, 0);
}

static const ZydisDecodedOperand *memory_operand(void)
{
    for (unsigned n = 0; n < ref.in.operand_count; n++)
        if (ref.op[n].type == ZYDIS_OPERAND_TYPE_MEMORY &&
            ref.op[n].visibility != ZYDIS_OPERAND_VISIBILITY_HIDDEN)
            return &ref.op[n];
    return NULL;
}

/* The segment is all of memory and lets the access through: the host may compute the address itself. */
static bool flat(unsigned seg, bool write)
{
    const struct cpu_seg *s = &ref.c->seg[seg];

    return !s->unusable && s->base == 0 && s->limit == 0xFFFFFFFFu &&
           (s->attr & 8 ? !write && (s->attr & 2) : s->attr & 2);
}

static bool is_string(void)
{
    return ref.in.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT &&
           ((ref.opcode >= 0xA4 && ref.opcode <= 0xA7) || (ref.opcode >= 0xAA && ref.opcode <= 0xAF));
}

/* Re-encoded for 64-bit mode. lin: put this address in, instead of the guest's form. Returns the length. */
static unsigned encode(uint8_t *out, enum ref_unit unit, bool absolute, uint32_t lin)
{
    static const uint8_t map_bytes[4][2] = {{0, 0}, {0x0F, 0}, {0x0F, 0x38}, {0x0F, 0x3A}};
    unsigned n = 0, map = ref.in.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT ? 0
                          : ref.in.opcode_map == ZYDIS_OPCODE_MAP_0F    ? 1
                          : ref.in.opcode_map == ZYDIS_OPCODE_MAP_0F38  ? 2
                                                                        : 3;
    bool vector = unit == UNIT_MMX || unit == UNIT_SSE, moffs = map == 0 && (ref.opcode & 0xFC) == 0xA0;
    bool plain = unit == UNIT_NONE && !(map == 1 && ref.opcode == 0xC3);

    out[n++] = 0x67;
    if (ref.lock)
        out[n++] = 0xF0;
    if (vector ? ref.p66 : plain && ref.osz == 2)
        out[n++] = 0x66;
    if (ref.rep && (vector || is_string()))
        out[n++] = ref.rep;
    for (unsigned k = 0; k < 2 && map_bytes[map][k]; k++)
        out[n++] = map_bytes[map][k];
    if (map == 0 && ref.opcode >= 0x40 && ref.opcode <= 0x4F) { /* INC, DEC: FF /0, /1 */
        out[n++] = 0xFF;
        out[n++] = (uint8_t)(0xC0 | (ref.opcode & 8) | (ref.opcode & 7));
        return n;
    }
    out[n++] = map == 0 && ref.opcode == 0x82 ? 0x80 : (uint8_t)ref.opcode;
    if (moffs) {
        lin = absolute ? lin : (uint32_t)displacement();
        memcpy(out + n, &lin, 4);
        n += 4;
    } else if (ref.mem && (absolute || (ref.modrm & 0xC7) == 5)) {
        lin = absolute ? lin : (uint32_t)displacement();
        out[n++] = (uint8_t)((ref.modrm & 0x38) | 4);
        out[n++] = 0x25;
        memcpy(out + n, &lin, 4);
        n += 4;
    } else if (ref.has_modrm) {
        out[n++] = (uint8_t)ref.modrm;
        if (ref.in.raw.sib.offset)
            out[n++] = ref.bytes[ref.in.raw.sib.offset];
        memcpy(out + n, ref.bytes + ref.in.raw.disp.offset, ref.in.raw.disp.size / 8);
        n += ref.in.raw.disp.size / 8;
    }
    if (ref.in.raw.imm[0].size) {
        memcpy(out + n, ref.bytes + ref.in.raw.imm[0].offset, ref.in.raw.imm[0].size / 8);
        n += ref.in.raw.imm[0].size / 8;
    }
    return n;
}

static bool is_x87_control(void)
{
    if (ref.mem)
        return (ref.opcode == 0xD9 && ref.reg >= 5) || (ref.opcode == 0xDD && ref.reg == 7);
    return (ref.opcode == 0xDB && ref.modrm >= 0xE0 && ref.modrm <= 0xE4) ||
           (ref.opcode == 0xDF && ref.modrm == 0xE0);
}

/* Instruction and data pointers (SDM vol. 1, 8.1.8). */
static void note_x87(uint32_t ea, unsigned seg)
{
    uint8_t *fx = ref.c->fx;
    uint16_t fop = (uint16_t)((ref.opcode & 7) << 8 | ref.modrm);

    if (ref.opcode == 0xDB && ref.modrm == 0xE3) {
        memset(fx + 6, 0, 18);
        return;
    }
    if (is_x87_control())
        return;
    memcpy(fx + 6, &fop, 2);
    memcpy(fx + 8, &ref.c->eip, 4);
    memcpy(fx + 12, &ref.c->seg[SCAN_CS].sel, 2);
    if (ref.mem) {
        memcpy(fx + 16, &ea, 4);
        memcpy(fx + 20, &ref.c->seg[seg].sel, 2);
    }
}

/* CMPS: neither operand can be read. */
static bool both_missing(bool user)
{
    const uint32_t *g = ref.c->gpr;
    unsigned size = ref.opcode & 1 ? ref.osz : 1;
    bool missing[2];

    for (unsigned n = 0; n < 2; n++) {
        uint32_t at = g[n ? CPU_EDI : CPU_ESI], phys;

        missing[n] = !allowed(world_rights(paging(), at, &phys), false, user) ||
                     !allowed(world_rights(paging(), at + size - 1, &phys), false, user);
    }
    return missing[0] && missing[1];
}

static _Noreturn void host_fault(int vector, uint32_t error, uint32_t cr2)
{
    uint32_t phys;
    bool write = error & 2, user = ref.c->cpl == 3;

    /* Which operand of CMPS is read first is not said; with alignment checks on, any fault may be the
     * other's. */
    if (is_string() && (ref.opcode & 0xFE) == 0xA6 && ref_aligns())
        ref_skip();
    switch (vector) {
    case CPU_EXC_PF:
        /* The host may lack what the guest has: below 64 KiB, supervisor pages with CR0.WP clear. */
        if (allowed(world_rights(paging(), cr2, &phys), write, user))
            ref_skip();
        /* With no byte selected a masked store may fault or not (SDM vol. 2, MASKMOVDQU). */
        if (ref.in.opcode_map == ZYDIS_OPCODE_MAP_0F && ref.opcode == 0xF7)
            ref_skip();
        if (is_string() && (ref.opcode & 0xFE) == 0xA6 &&
            both_missing(user)) /* which is read first is not said */
            ref_skip();
        ref.c->cr2 = cr2;
        ref_raise(CPU_EXC_PF, true, ref_page_error(cr2, write, user));
    case CPU_EXC_XM:
        ref_raise(ref.c->cr4 & CPU_CR4_OSXMMEXCPT ? CPU_EXC_XM : CPU_EXC_UD, false, 0);
    case CPU_EXC_AC:
        /* For 16 bytes that need not be aligned, and for masked bytes, it is the processor's choice (SDM vol.
         * 2, MOVUPS). */
        if ((memory_operand() && memory_operand()->size == 128) ||
            (ref.in.opcode_map == ZYDIS_OPCODE_MAP_0F && ref.opcode == 0xF7))
            ref_skip();
        /* fall through */
    case CPU_EXC_GP:
        ref_raise((unsigned)vector, true, 0);
    default:
        ref_raise((unsigned)vector, false, 0);
    }
}

static void native_instruction(void)
{
    const ZydisDecodedOperand *m = memory_operand();
    bool wait = ref.in.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && ref.opcode == 0x9B, absolute = false;
    enum ref_unit unit = wait ? UNIT_WAIT : unit_of();
    uint32_t lin = 0, ea = 0, error, cr2;
    unsigned seg = SCAN_DS;
    uint8_t bytes[24];
    int vector;

    if (!native_ok)
        ref_skip();
    ref_need(unit);
    if (m && !is_string()) {
        bool write = m->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;

        ea = address(&seg);
        if (ref.asz == 2 || !flat(seg, write)) {
            lin = ref_segment(seg, ea, m->size / 8, write);
            absolute = true;
        }
    }
    ref_how |= REF_NATIVE;
    vector = native_run(ref.c, bytes, encode(bytes, unit, absolute, lin), ref_aligns(), unit != UNIT_NONE,
                        &error, &cr2);
    if (vector >= 0)
        host_fault(vector, error, cr2);
    if (unit == UNIT_X87)
        note_x87(ea, seg);
}

/* -- One instruction, and many
 * ------------------------------------------------------------------------------------------- */

static struct cpu before;

static unsigned
fault_class(unsigned vector) /* SDM vol. 3, table 6-4: 0 benign, 1 contributory, 2 page fault */
{
    if (vector == CPU_EXC_PF)
        return 2;
    return vector == CPU_EXC_DE || (vector >= CPU_EXC_TS && vector <= CPU_EXC_GP);
}

/* False: triple fault. */
static bool exception(unsigned vector, unsigned kind_now, bool has_error, uint32_t error)
{
    volatile unsigned v = vector, kind = kind_now;
    volatile bool has = has_error;
    volatile uint32_t e = error;

    for (;;) {
        struct cpu saved = *ref.c;

        if (!setjmp(ref.out)) {
            ref_deliver(v, kind, has, e, ref.c->eip, 1);
            return true;
        }
        if (ref.skip)
            return true;
        saved.cr2 = ref.c->cr2;
        *ref.c = saved;
        kind = KIND_FAULT;
        if (v == CPU_EXC_DF)
            return false;
        if ((fault_class(v) == 1 && fault_class(ref.vector) == 1) ||
            (fault_class(v) == 2 && fault_class(ref.vector))) {
            v = CPU_EXC_DF;
            has = true;
            e = 0;
        } else {
            v = ref.vector;
            has = ref.has_error;
            e = ref.error;
        }
    }
}

/* SDM vol. 3, 17.3.1.4; 17.2.3: the hit bits are cleared, GD of DR7 too; 17.3.1.1: RF is set in the frame
 * while a repeat goes on. False: triple fault. */
static bool single_step(bool repeating)
{
    struct cpu *c = ref.c;

    c->dr[6] = (c->dr[6] & ~15u) | 1u << 14;
    c->dr[7] &= ~(1u << 13);
    ref_vector = CPU_EXC_DB;
    return exception(CPU_EXC_DB, repeating ? KIND_FAULT : KIND_TRAP, false, 0);
}

static enum diff_stop step(void)
{
    struct cpu *c = ref.c;

    ref.skip = ref.halted = false;
    before = *c;
    ref.in = (ZydisDecodedInstruction){0};
    ref.opcode = 0;
    if (!setjmp(ref.out)) {
        decode();
        bool tf = cpu_eflags(c) & CPU_TF;

        ref.traps = tf;
        if (ref.in.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY)
            ref_raise(CPU_EXC_UD, false, 0);
        if (model_instruction())
            ref_how |= REF_MODEL;
        else if (known_isa())
            native_instruction();
        else
            ref_raise(CPU_EXC_UD, false, 0);
        c->eip = ref.next;
        if (tf && ref.traps) /* that ends a HLT, too */
            return single_step(c->eip == before.eip) ? ref.skip ? DIFF_SKIP : DIFF_EXCEPTION : DIFF_SHUTDOWN;
        return ref.halted ? DIFF_HALT : DIFF_END;
    }
    if (ref.skip)
        return DIFF_SKIP;
    ref_vector = (int)ref.vector;
    /* A fault leaves everything but what a repeated string instruction has done, and what the host noted of
     * it (MXCSR). */
    if (!is_string() && !(ref.opcode >= 0x6C && ref.opcode <= 0x6F)) {
        before.cr2 = c->cr2;
        if (ref.vector == CPU_EXC_XM || ref.vector == CPU_EXC_UD)
            memcpy(before.fx, c->fx, sizeof before.fx);
        *c = before;
    }
    if (!exception(ref.vector, KIND_FAULT, ref.has_error, ref.error))
        return DIFF_SHUTDOWN;
    return ref.skip ? DIFF_SKIP : DIFF_EXCEPTION;
}

enum diff_stop ref_run(const struct diff_case *d, unsigned limit)
{
    enum diff_stop stop = DIFF_END;

    ref.c = ref_cpu;
    ref.mode = d->mode;
    ref_how = 0;
    ref_vector = -1;
    for (unsigned n = 0; n < limit; n++) {
        stop = step();
        if (stop != DIFF_END || world_ends_at(d, ref_ram, ref.c->eip, ref.c))
            break;
    }
    return stop;
}

bool ref_run_to(uint32_t eip, unsigned limit)
{
    ref.c = ref_cpu;
    ref.mode = DIFF_FLAT0;
    ref_vector = -1;
    for (unsigned n = 0; n < limit && ref.c->eip != eip; n++) {
        enum diff_stop stop = step();

        if (stop != DIFF_END && stop != DIFF_EXCEPTION)
            return false;
    }
    return ref.c->eip == eip;
}
