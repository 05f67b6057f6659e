/* tests/unit/emu_box.h: a bare machine for the emulator's suites: 2 MiB of RAM, descriptor tables, page
 * tables. */
#ifndef VERSO_TESTS_EMU_BOX_H
#define VERSO_TESTS_EMU_BOX_H

#include "monitor/vm.h"
#include "scanner/scan.h"

#define BOX_RAM     (2u << 20)
#define BOX_IDT     0x0000u /* 256 gates; in real mode the vectors */
#define BOX_GDT     0x0800u
#define BOX_LDT     0x0C00u
#define BOX_TSS     0x1000u /* BOX_SEL_TSS */
#define BOX_TSS2    0x1200u
#define BOX_TSS16   0x1400u
#define BOX_HANDLER 0x4000u /* handler of vector v is at BOX_HANDLER + v * 16 */
#define BOX_CODE    0x8000u
#define BOX_STACK0  0x20000u /* ESP0 in the TSS */
#define BOX_STACK   0x30000u /* ESP */
#define BOX_DATA    0x40000u
#define BOX_PD      0x100000u
#define BOX_PT      0x101000u

/* Selectors of the GDT. */
enum {
    BOX_SEL_CODE0 = 0x08,
    BOX_SEL_DATA0 = 0x10,
    BOX_SEL_CODE3 = 0x18,
    BOX_SEL_DATA3 = 0x20,
    BOX_SEL_TSS = 0x28,
    BOX_SEL_LDT = 0x30,
    BOX_SEL_GATE = 0x38,
    BOX_SEL_CONF0 = 0x40,
    BOX_SEL_CODE16 = 0x48,
    BOX_SEL_DATA16 = 0x50,
    BOX_SEL_SMALL = 0x58,
    BOX_SEL_ABSENT = 0x60,
    BOX_SEL_XONLY = 0x68,
    BOX_SEL_TSS2 = 0x70,
    BOX_SEL_TSS16 = 0x78,
    BOX_SEL_TASK = 0x80,
    BOX_SEL_CODE_ABSENT = 0x88,
    BOX_SEL_DOWN = 0x90,
    BOX_SEL_CODE1 = 0x98,
    BOX_SEL_DATA1 = 0xA0,
    BOX_SEL_RO = 0xA8,
    BOX_SEL_BASE = 0xB0,
    BOX_SEL_LAST = 0xB0,
};

struct box {
    struct vm *vm;
    struct cpu *c;
    uint8_t *ram;
};

struct box box_new(void); /* after reset: real mode */
void box_free(struct box *b);
/* 32-bit protected mode, flat, CPL 0 or 3, tables loaded, IF clear, no paging. ESP = BOX_STACK, EIP =
 * BOX_CODE. */
void box_flat(struct box *b, unsigned cpl);
void box_paging(struct box *b);             /* identity, 4 KiB pages, all user and writable; WP set */
void box_real(struct box *b);               /* CS:IP = 0000:8000, SS:SP = 3000:0000, DS = ES = 4000 */
void box_v86(struct box *b, unsigned iopl); /* the same addresses under protected mode */
void box_code(struct box *b, const void *bytes, unsigned n);
#define BOX_CODE_BYTES(b, ...)                                                                               \
    box_code(b, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))
void box_desc(struct box *b, unsigned sel, uint32_t base, uint32_t limit,
              unsigned attr); /* attr as in cpu_seg */
void box_gate(struct box *b, uint32_t at, uint16_t sel, uint32_t off, unsigned attr);
uint32_t box_get(const struct box *b, uint32_t at, unsigned size);
void box_set(struct box *b, uint32_t at, unsigned size, uint32_t v);
void box_pte(struct box *b, uint32_t lin, uint32_t flags); /* identity frame | flags */
/* The vector whose handler EIP points at, or -1. */
int box_vector(const struct box *b);
uint32_t box_stack(const struct box *b, unsigned n); /* n-th dword of the stack */

#endif
