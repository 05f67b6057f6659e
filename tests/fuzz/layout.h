/* tests/fuzz/layout.h: where a fuzzed guest has what. Read by C and by the assembler.
 *
 * Everything lies in the first 128 KiB, so that putting a case up and comparing its memory cost little.
 * Linear addresses are physical ones, and with paging on the first 4 MiB appear again at LAY_ALIAS_1 and
 * LAY_ALIAS_2.
 */
#ifndef VERSO_TESTS_FUZZ_LAYOUT_H
#define VERSO_TESTS_FUZZ_LAYOUT_H

#define LAY_IDT      0x0000 /* 256 gates */
#define LAY_GDT      0x0800 /* LAY_GDT_COUNT descriptors */
#define LAY_LDT      0x0A00 /* 16 */
#define LAY_TSS      0x0C00 /* 32-bit, I/O bitmap for 100h ports behind it */
#define LAY_TSS_DF   0x0D00 /* of the double-fault task */
#define LAY_TSS16    0x0E00
#define LAY_TSS2     0x0E80
#define LAY_HANDLER  0x1000 /* the page of guest.S */
#define LAY_VARS     0x4800 /* see LAY_VAR_*: not in a page of code */
#define LAY_FRAMES   0x2000 /* register frames of the chunks, LAY_FRAME bytes each */
#define LAY_LOG      0x3000 /* one record for each exception */
#define LAY_LOG_END  0x4400
#define LAY_KSTACK   0x8000 /* ESP0: the page below it */
#define LAY_CODE     0x8000 /* four pages */
#define LAY_CODE_END 0xC000
#define LAY_DATA     0xC000 /* two pages */
#define LAY_STACK    0xF000 /* initial ESP of chunks; the page below it */
#define LAY_PD       0x10000
#define LAY_PT       0x11000
#define LAY_PDPT     0x12000
#define LAY_PAE_PD   0x13000
#define LAY_PAE_PT   0x14000 /* two: the first 4 MiB */
#define LAY_WILD     0x16000 /* a page table of garbage */
#define LAY_FREE     0x17000 /* plain memory from here on */
#define LAY_SMALL    0x20000 /* least RAM */

#define LAY_ALIAS_1 0x00400000
#define LAY_ALIAS_2 0xC0000000

#define LAY_GDT_COUNT 64
#define LAY_FRAME     80
#define LAY_RECORD    96
#define LAY_CHUNKS    24

/* Words of LAY_VARS */
#define LAY_VAR_NEXT (LAY_VARS + 0) /* frame of the next chunk */
#define LAY_VAR_LAST (LAY_VARS + 4) /* behind the last */
#define LAY_VAR_LOG  (LAY_VARS + 8) /* next record */

#define SEL_CODE0      0x08
#define SEL_DATA0      0x10
#define SEL_CODE3      0x18
#define SEL_DATA3      0x20
#define SEL_TSS        0x28
#define SEL_LDT        0x30
#define SEL_TSS_DF     0x38
#define SEL_GATE       0x40 /* call gates, task gates: eight */
#define SEL_GATE_LAST  0x78
#define SEL_CONFORMING 0x80
#define SEL_CODE16     0x88
#define SEL_DATA16     0x90
#define SEL_SMALL      0x98
#define SEL_DOWN       0xA0
#define SEL_ABSENT     0xA8
#define SEL_TSS2       0xB0
#define SEL_TSS16      0xB8
#define SEL_CODE1      0xC0
#define SEL_DATA1      0xC8
#define SEL_BASED      0xD0
#define SEL_READONLY   0xD8
#define SEL_WILD       0xE0 /* garbage from here on */

#endif
