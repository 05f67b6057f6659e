/* Whole programs: translated code against the emulator, undisturbed, stopped at every host instruction, and paged in on demand. */
#include "xlat_box.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DATA "0x10000"
#define HIGH "0xC0010000"

/* --- programs ------------------------------------------------------------------------------------------------------ */

BOX_PROGRAM(p_addressing, "mov ebx, " DATA "\nmov esi, 0x20\nmov ecx, " HIGH "\nmov ebp, 0x11000\n"
            "mov eax, [ebx]\nadd eax, [ebx+4]\nadd eax, [ebx+0x1234]\nadd eax, [ebx+esi]\nadd eax, [ebx+esi*4+8]\n"
            "add eax, [esi*8+" DATA "]\nadd eax, ds:[" DATA "+0x40]\nadd eax, ds:[" HIGH "+0x44]\nadd eax, [esi+" HIGH "]\n"
            "add eax, [ecx+4]\nadd eax, [ebp]\nadd eax, [ebp-0x20]\nadd eax, [esp-8]\nadd eax, [esp+0]\nadd eax, [esp+esi*2]\n"
            "add eax, [ebx-0xF000]\nsub ebx, 0x100\nadd eax, [ebx-0xF800]\nadd eax, [ecx-0xBFFF0000]\nadd eax, [ebx+esi*1-4]\n"
            "mov edx, 0xFFFFFFF0\nadd eax, [edx*1+" DATA "]\nadd eax, [edx+ebx+0x10]\nlea edi, [edx+ebx+0x20]\nlea edi, [edi*4+8]\n"
            "lea edi, [esp+4]\nlea esp, [esp-8]\n.byte 0x8D,0x15,0x34,0x12,0,0\n.byte 0x66\nlea edi, [ebx+esi]\nmov [esp], eax");
BOX_PROGRAM(p_esp, "mov eax, 5\nmov ecx, 0x2F000\nxchg esp, ecx\nmov ebp, esp\nadd esp, eax\nadc esp, 3\nand esp, -16\n"
            "cmp esp, ecx\nmov [" DATA "+0x100], esp\nmov edx, [" DATA "+0x100]\ninc esp\ndec esp\n.byte 0xFF, 0xC4\n.byte 0xFF, 0xCC\n"
            "xchg eax, esp\nxchg eax, esp\nimul edi, esp, 7\nimul esi, esp\nbswap esp\nbswap esp\nmovzx esi, sp\nmovsx edi, sp\n"
            "cmovne edx, esp\ncmove esp, edx\ntest esp, esp\nnot esp\nneg esp\nsub esp, 1\nbt esp, eax\nbts esp, 3\nbtr esp, 3\nshl esp, 1\n"
            "shr esp, 1\nshld esp, ecx, 4\nshrd esp, ecx, 4\nbsf ebx, esp\nxadd esp, edx\nmov esp, 0x2E000\n.byte 0x66, 0xBC, 0x00, 0xD0\n"
            "cmpxchg esp, ebx\nmov esp, 0x2E000\nlea ebx, [esp+ebx]\npush esp\npop eax\npush esp\npop esp\npush 0x2D000\npop esp\n"
            "mov dword ptr [esp], 0x2C000\n.byte 0x8F, 0x04, 0x24\nmov eax, [esp]\n.byte 0x8F, 0xC4\n");
BOX_PROGRAM(p_stack, "push eax\npush 0x12345678\npush -3\npush dword ptr [" DATA "]\npush dword ptr [esp+4]\npush dword ptr [esp-4]\n"
            "push dword ptr [esp-2]\npop dword ptr [" DATA "+8]\npop dword ptr [esp+4]\npop dword ptr [esp-4]\npop ebx\npop ecx\n"
            "pushad\nmov eax, 1\nmov edi, 2\npopad\npush ds\npush cs\npush fs\npush gs\npush es\npush ss\npop edx\nmov ebp, esp\n"
            "push ebp\nmov ebp, esp\nsub esp, 0x40\nmov [ebp-4], eax\nleave\nenter 0x20, 0\nleave\nenter 16, 2\nleave\n"
            ".byte 0x66\npush ax\n.byte 0x66\npop cx\nmov eax, ds\nmov ecx, 0xFFFFFFFF\n.byte 0x66\nmov cx, fs\nmov [" DATA "+0x20], gs");
BOX_PROGRAM(p_calls, "mov edi, 0\ncall f1\ncall f2\nmov eax, offset f3 - p_calls + 0x100000\ncall eax\nmov [" DATA "], eax\n"
            "call dword ptr [" DATA "]\npush ebx\npush offset back - p_calls + 0x100000\nret\nback:\npop ebx\nmov ecx, 3\nagain:\n"
            "call f1\nloop again\nmov eax, offset over - p_calls + 0x100000\njmp eax\nmov edi, 99\nover:\ncall next\nnext:\npop edx\n"
            "push 7\npush 8\ncall f4\nstc\ncall f5\nadc edi, 0\nclc\ncall f5\nsetc al\njmp the_end\nmov edi, 77\n"
            "f1: inc edi\nret\nf2: call f1\ncall f1\nret\nf3: add edi, 100\nret\nf4: mov eax, [esp+4]\nadd edi, eax\nret 8\n"
            "f5: ret\nthe_end:");
/* Returns that go elsewhere: the landing check must notice, with flags kept. */
BOX_PROGRAM(p_odd_returns, "call a1\nmov eax, 1\nmov ebx, 2\nhere:\nsetc dl\njmp out1\na1: mov dword ptr [esp], offset here - p_odd_returns + 0x100000\n"
            "stc\nret\nout1: call a2\nafter2: adc eax, 5\njmp out2\na2: pop ecx\npush offset out2 - p_odd_returns + 0x100000\nstc\nret\n"
            "out2: adc esi, 0\ncall a3\nxor eax, eax\nnop\nout3: mov edi, 1\njmp out4\na3: add dword ptr [esp], 3\nret\nout4:");
BOX_PROGRAM(p_strings, "cld\nmov esi, " DATA "\nmov edi, 0x12000\nmov ecx, 0x500\nrep movsd\nmov ecx, 7\nrep movsb\nmovsw\nmovsd\n"
            "mov ecx, 33\nrep stosb\nstosd\nlodsb\nlodsd\nlodsw\nscasb\nscasd\nmov esi, " DATA "\nmov edi, 0x12000\nmov ecx, 0x300\nrepe cmpsd\n"
            "setz bl\nmov ecx, 100\nmov al, 0x41\nrepne scasb\nsetz bh\nstd\nmov ecx, 17\nmov esi, 0x13000\nmov edi, 0x14FFC\nrep movsd\n"
            "lodsb\nstosb\ncmpsb\ncld\nmov ecx, 0\nrep stosd\nrep movsb\nmov ecx, 0x800\nmov edi, 0x1FF00\nmov esi, " HIGH "\nrep movsd\n"
            "mov ebx, " DATA "\nmov al, 0x33\nxlatb\nmov ebx, 0xFF00\nxlatb");
/* REP MOVS after STD, of no element to several; overlapping; and forwards after all. */
#define BACK(n, op) "mov ecx, " #n "\nlea esi, [ebx+ecx*4]\nlea edi, [esi+3]\nrep " op "\nadd ebx, ecx\nadd ebx, esi\nsub ebx, esi\n"
BOX_PROGRAM(p_backwards, "mov ebx, " DATA "+0x40\nstd\n" BACK(0, "movsd") BACK(1, "movsd") BACK(2, "movsb") BACK(5, "movsd") BACK(6, "movsd")
            BACK(9, "movsb") BACK(7, "movsw") BACK(3, "movsw") "push 2\npopfd\nmov esi, ebx\nlea edi, [ebx+0x80]\nstc\nmov ecx, 4\n"
            "rep movsd\nmov ecx, 11\n.byte 0xF2\nmovsb\nadc eax, 0\nstd\nmov edi, 0x11FFE\nmov esi, " DATA "+0x80\nmov ecx, 8\nrep movsd\ncld\n");
/* The same between STD and CLD, where the host's DF stays clear: a libc's memmove() of all small sizes; branches that leave it, forwards and backwards,
 * with DF to be seen behind them; what shows DF or uses it otherwise; single elements; and entries into the middle, with DF clear and set. */
BOX_PROGRAM(p_memmove, "mov ebx, " DATA "+0x40\nxor ebp, ebp\nmm_size: mov ecx, ebp\nmov esi, ebx\nlea edi, [ebx+1]\nstd\nlea edi, [edi+ecx-1]\n"
            "lea esi, [esi+ecx-1]\nshr ecx\njae mm_1\nmovsb\nmm_1: sub edi, 1\nsub esi, 1\nshr ecx\njae mm_2\nmovsw\nmm_2: sub edi, 2\nsub esi, 2\n"
            "rep movsd\nmov edx, esi\nmov eax, [esp]\ncld\nadc eax, ebp\ninc ebp\ncmp ebp, 10\njb mm_size\n"
            "mov ebp, 3\nmm_again: mov ecx, ebp\nlea esi, [ebx+ecx]\nlea edi, [esi+5]\nstd\ndec ebp\njz mm_out\nrep movsb\njns mm_again\nmm_out: pushfd\npop eax\n"
            "std\nmov ecx, 2\nmov esi, ebx\nlea edi, [ebx+3]\nrep movsb\nlodsb\nstosd\ncld\n"
            "push ebx\nstd\nmov ecx, 7\nlea esi, [ebx+0x21]\nlea edi, [ebx+0x22]\nrepne movsw\nstc\nsbb edx, edx\npushfd\npop edx\ncld\nadc edx, 0\npop eax\n"
            "cld\nmov esi, ebx\nlea edi, [ebx+0x11]\nmov ecx, 5\ncall mm_in\nstd\nmov ecx, 5\nlea esi, [ebx+0x80]\nlea edi, [ebx+0x81]\ncall mm_in\njmp mm_end\n"
            "std\nnop\nmm_in: rep movsb\nmov eax, fs:[0x10]\nmovsd\nret\nmm_end: std\nmovsb\ncld\n"
            "std\nstd\nmov ecx, 3\nmov esi, ebx\nlea edi, [ebx+1]\nrep movsb\ncld\nmovsb\n"
            "std\nmov edi, 0x11FFE\nmov esi, " DATA "+0x80\nmov ecx, 9\nrep movsd\ncld\nadc esi, 0\n");
BOX_PROGRAM(p_high_bytes, "mov ebx, " DATA "\nmov eax, 0x12345678\nmov ecx, 0x9ABCDEF0\nmov edx, 0x11223344\nmov ah, [ebx]\nmov ch, [ebx+5]\n"
            "mov bh, [ebx]\nmov ebx, " DATA "\nmov [ebx+1], ah\nmov [ebx+2], bh\nmov [ebx+0x103], ch\nmov [ebx+0x100], dh\nadd [ebx], ah\n"
            "add ah, [ebx]\nsub dh, [ebx+4]\nxor [ebx+8], ch\ncmp ah, [ebx]\ntest [ebx], dh\nxchg [ebx], ah\nxchg dh, [ebx+9]\nxadd [ebx], ch\n"
            "cmpxchg [ebx], dh\ncmpxchg [ebx], ah\nlock add [ebx], ch\nmov ah, ch\nadd bh, dl\nmov dh, 7\nmov ds:[0x10020], ah\nmov fs:[ebx], ah\n"
            "mov ah, fs:[0x30]\nadd ah, ds:[" DATA "]\nmovzx esi, ah\nmovsx edi, bh\nmovzx edx, byte ptr [ebx+3]\nsetc ah\nsetz byte ptr [ebx]\n"
            ".byte 0x0F, 0xB6, 0xE4\nmov esp, 0x2F000\n.byte 0x82, 0xC4, 0x05\n.byte 0x82, 0x03, 0x05");
BOX_PROGRAM(p_segments, "mov ebx, 0x100\nmov esi, 4\nmov eax, fs:[0x10]\nadd eax, fs:[ebx]\nadd eax, fs:[ebx+esi*4+4]\nmov fs:[ebx], eax\n"
            "add fs:[ebx+8], eax\nmov eax, gs:[0]\nmov eax, gs:[ebx+8]\ninc dword ptr fs:[esi]\npush dword ptr fs:[ebx]\npop dword ptr fs:[ebx+4]\n"
            "mov al, fs:[0x20]\nmov fs:[0x24], eax\nmov gs:[0x24], al\nmov eax, es:[ebx+" DATA "]\nmov eax, ss:[" DATA "]\nmov ds:[ebx+" DATA "], eax\n"
            "mov ecx, cs:[ebx+" DATA "]\nmov ecx, 0xFFFFFFFC\nadd eax, fs:[ecx]\nadd eax, fs:[ecx+ebx]\nmov esi, 0x10040\n.byte 0x64\nlodsd\n"
            ".byte 0x65\nxlatb\n.byte 0x64\nlea eax, [ebx+4]");
BOX_PROGRAM(p_flags, "stc\npushfd\npop eax\nclc\npushfd\npop ecx\nstd\npushfd\npop edx\ncld\npush 0xCD7\npopfd\npushfd\npop esi\npush 2\npopfd\npushfd\npop edi\n"
            "sti\nnop\npushfd\npop eax\ncli\npushfd\npop ebx\npush 0x202\npopfd\npushfd\npop ebp\nsti\ncli\npush 0x200202\npopfd\npushfd\npop ecx\n"
            "push 0x3202\npopfd\npushfd\npush 2\npopfd\nstc\nlahf\nmov ah, 0\nsahf\nsti\nret_here: pushfd\npopfd\nadc eax, eax\n"
            ".byte 0x66\npushf\n.byte 0x66\npopf");
BOX_PROGRAM(p_jcc, "mov ecx, 0\nmov edi, 0\nall:\nmov eax, ecx\nshl eax, 4\nmov ah, cl\nand ah, 0xD5\nmov al, cl\nadd al, 0x7F\nsahf\n"
            ".irp cc, o,no,b,nb,z,nz,be,nbe,s,ns,p,np,l,nl,le,nle\nj\\cc 1f\nrol edi, 3\ninc edi\nlahf\nmov ah, cl\nsahf\n1:\nset\\cc dl\n"
            "push eax\nmovzx eax, dl\nlea edi, [edi+eax*4+1]\npop eax\n.endr\n"
            "add ecx, 7\ncmp ecx, 260\njb all\nmov ecx, 5\nl1: dec edi\nloop l1\nmov ecx, 5\nl2: cmp ecx, 3\nloopne l2\nmov edx, ecx\nmov ecx, 9\nl3: cmp eax, eax\n"
            "loope l3\njecxz l4\nmov edi, 1\nl4: mov ecx, 1\njecxz l5\ninc edi\nl5: .byte 0x67\njecxz l6\ninc edi\nl6:\nmov ecx, 0\n"
            "dec ecx\nmov ecx, 0x10\n.byte 0x67\nloop l6x\nl6x: nop");
BOX_PROGRAM(p_fpu, "fninit\nfld1\nfldpi\nfadd st(0), st(1)\nfst qword ptr [" DATA "]\nfstp dword ptr [esp-8]\nfld dword ptr [esp-8]\nfmul qword ptr [" DATA "]\n"
            "fistp dword ptr [" HIGH "+8]\nfnstcw [esp-4]\nfldcw [esp-4]\nfnstsw ax\nfld st(0)\nfstp tbyte ptr fs:[0x80]\nfcomip st, st(0)\nemms\n"
            "movaps xmm0, xmm1\nmovups xmm2, [" DATA "+4]\nmovups [esp-0x40], xmm2\naddps xmm0, xmm2\nmovd xmm3, esp\nmovd eax, xmm3\nmovd esp, xmm3\n"
            "cvtsi2sd xmm4, esp\ncvttsd2si ecx, xmm4\ncvtsi2ss xmm5, dword ptr [esp-8]\nmovmskps edx, xmm2\npextrw esi, xmm2, 3\npinsrw xmm2, esp, 1\n"
            "pmovmskb edi, xmm2\nmovq xmm6, qword ptr [" DATA "]\npshufd xmm7, xmm2, 0x1B\nmovnti [" DATA "+0x60], esp\nmovq mm1, qword ptr [" DATA "]\n"
            "paddd mm1, mm1\nmovq fs:[8], mm1\npshufb xmm1, xmm2\npalignr xmm1, xmm2, 3\nemms\nstmxcsr [esp-16]\nldmxcsr [esp-16]\nfwait\nsfence\nlfence\n"
            "mfence\nclflush [esp]\nprefetcht0 [eax]\npause");
BOX_PROGRAM(p_misc, "mov ebx, " DATA "\nmov eax, 0x11223344\nmov ds:[0x10010], eax\nmov eax, ds:[0xC0010020]\nmov al, ds:[0x10011]\nmov ds:[0x10012], al\n"
            ".byte 0x66\nmov ax, ds:[0x10030]\nlock inc dword ptr [ebx]\nlock cmpxchg [ebx], ecx\nlock xadd [ebx+4], edx\nxchg [ebx+8], eax\n"
            "mov edx, [ebx+0x44]\nmov eax, [ebx+0x40]\nlock cmpxchg8b [ebx+0x40]\ncmpxchg8b [esp-0x20]\nbt dword ptr [ebx], 5\nmov ecx, 77\nbts dword ptr [ebx], ecx\n"
            "mov ecx, 100\nbtc [ebx], ecx\nmov ecx, -100\nbtr [ebx+0x100], ecx\nmovbe eax, [ebx]\nmovbe [ebx+4], esp\n.byte 0xF3\nbsf edx, eax\n.byte 0xF3\nbsr esi, eax\n"
            "cwde\ncdq\nmov ecx, 7\nidiv ecx\nmul dword ptr [ebx]\nimul eax, [ebx+4], 99\nimul ecx, [esp], 0x12345\nshl dword ptr [ebx], cl\nrcr byte ptr [ebx+1], 1\n"
            "sar dword ptr [esp-4], 3\nshld [ebx], eax, 5\nshrd [ebx], esp, cl\nadd word ptr [ebx], 0x1234\nadd dword ptr [ebx], -1\nmov ecx, 9\nmov byte ptr [ebx+ecx*4], 9\n"
            "mov word ptr [ebx], 0x1234\nmov dword ptr [ebx+4], 0x12345678\ndaa\naaa\naam\naad\n.byte 0xD6\ncmc\nnop\n.byte 0x0F, 0x1F, 0x44, 0, 0\n"
            ".byte 0x66, 0x90\ncpuid\nmov eax, 0\n.byte 0x2E, 0x74, 0\n.byte 0x66, 0x0F, 0x1F, 0x84, 0, 0, 0, 0, 0\n");

struct program {
    const char *name;
    const uint8_t *code, *end;
};
#define ROW(p) {#p, p, p##_end}
static const struct program programs[] = {ROW(p_addressing), ROW(p_esp),      ROW(p_stack), ROW(p_calls), ROW(p_odd_returns),
                                          ROW(p_strings),    ROW(p_backwards), ROW(p_memmove), ROW(p_high_bytes), ROW(p_segments), ROW(p_flags), ROW(p_jcc),
                                          ROW(p_fpu),        ROW(p_misc)};
#define PROGRAMS ((int)(sizeof programs / sizeof programs[0]))

/* Ways to translate a program. */
static const struct way {
    uint32_t options;
    enum xlat_hint hint;
} ways[] = {{0, XLAT_HINT_NONE},
            {XLAT_OPT_BMI2, XLAT_HINT_NONE},
            {XLAT_OPT_BMI2 | XLAT_OPT_STEP, XLAT_HINT_NONE},
            {XLAT_OPT_BMI2, XLAT_HINT_WRAP},
            {XLAT_OPT_BMI2, XLAT_HINT_USER},
            {XLAT_OPT_BMI2, XLAT_HINT_VOLATILE},
            {XLAT_OPT_BMI2 | XLAT_OPT_STEP, XLAT_HINT_VOLATILE}};
#define WAYS ((int)(sizeof ways / sizeof ways[0]))

static const struct program *start(int i)
{
    const struct program *p = &programs[i % PROGRAMS];
    const struct way *w = &ways[i / PROGRAMS];
    char why[100];

    box.options = w->options & (xlat_host_options() | XLAT_OPT_STEP);
    box.hint = box.options & XLAT_OPT_BMI2 ? w->hint : XLAT_HINT_NONE;
    box.mode = 0;
    box_reset(7);
    for (unsigned r = 0; r < 8; r++)
        if (r != CPU_ESP)
            box.cpu->gpr[r] = box_random();
    box_copy_cpu();
    ck_assert(box_load(p->code, (size_t)(p->end - p->code) - 1, NULL, 0));
    ck_assert_msg(xlat_validate(&box.piece[0].verso, why, sizeof why), "%s: %s", p->name, why);
    box_save();
    return p;
}

START_TEST(program_run_to_its_end_agrees_with_emulator)
{
    const struct program *p = start(_i);
    enum box_stop stop;
    const char *diff;

    stop = box_run(20000);
    ck_assert_msg(stop == BOX_HLT, "%s: stop %d at %08x, signal %d guest %d address %lx", p->name, stop, box.cpu->eip,
                  box.fault.signal, box.fault.at.guest_rel, (unsigned long)(box.fault.address - (uintptr_t)box.window));
    ck_assert_msg(box_run_oracle(100000) == BOX_HLT, "%s: emulator at %08x", p->name, box.oracle->cpu->eip);
    diff = box_compare();
    ck_assert_msg(!diff, "%s: %s", p->name, diff);
}
END_TEST

START_TEST(program_interrupted_at_each_host_instruction_ends_the_same)
{
    const struct program *p = start(_i);
    unsigned points = 0;
    const char *why;

    why = box_interrupt_everywhere(&points);
    ck_assert_msg(!why, "%s: %s", p->name, why);
    ck_assert_uint_ge(points, 40);
}
END_TEST

START_TEST(program_paged_in_on_demand_ends_the_same)
{
    const struct program *p = start(_i);
    unsigned faults = 0;
    const char *why;

    why = box_page_in_on_demand(&faults);
    ck_assert_msg(!why, "%s: %s", p->name, why);
    ck_assert_uint_gt(faults, 0);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("xlat_run");
    TCase *t = tcase_create("programs");

    tcase_set_timeout(t, 120);
    tcase_add_loop_test(t, program_run_to_its_end_agrees_with_emulator, 0, WAYS * PROGRAMS);
    tcase_add_loop_test(t, program_interrupted_at_each_host_instruction_ends_the_same, 0, WAYS * PROGRAMS);
    tcase_add_loop_test(t, program_paged_in_on_demand_ends_the_same, 0, WAYS * PROGRAMS);
    suite_add_tcase(s, t);
    return s;
}

int main(void)
{
    SRunner *r = srunner_create(suite());
    int failed;

    box_init();
    srunner_set_fork_status(r, CK_NOFORK); /* shared mappings and an alternate signal stack */
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
