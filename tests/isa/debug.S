# debug.S: single steps, breakpoints and the debug registers (SDM vol. 3, chapter 17), and what the shadow of MOV SS does to them.
# QEMU's TCG and a processor differ: TCG reports a single step after MOV SS and POP SS, and takes data breakpoints on port strings late.
        .include "common.inc"

        .data
        .balign 4
lines:  .fill 64 * 4, 4, 0              # eip, eflags, dr6, ecx of each #DB
line:   .long lines
count:  .long 0
inside: .long 0
resume_flag: .long 0
ss_image: .long KDS
data:   .fill 16, 4, 0
data2:  .fill 16, 4, 0

        .macro LOG
        movl $lines, line
        movl $0, count
        .endm
        .macro STEP
        pushfl
        orl $0x100, (%esp)
        popfl
        .endm
        .macro STEP_END
        pushfl
        andl $~0x100, (%esp)
        popfl
        .endm
# DRn = address, DR7 = value
        .macro BREAK n, address, dr7
        movl $(\address), %eax
        movl %eax, %dr\n
        movl $(\dr7), %eax
        movl %eax, %dr7
        .endm
        .macro BREAK_END
        xorl %eax, %eax
        movl %eax, %dr7
        .endm
        .macro SEEN name, n, eip, dr6
        CHECK "\name eip", lines+16*\n, $(\eip)
        .ifnb \dr6
        CHECK "\name dr6", lines+16*\n+8, $(0xFFFF0FF0+\dr6)
        .endif
        .endm

        .text
# Each #DB: a line in the log; DR6 is cleared. RF goes into the image of breakpoints if resume_flag says so.
note:   movl 4(%esp), %ecx
        movl line, %edx
        movl 56(%ecx), %eax
        movl %eax, (%edx)
        movl 64(%ecx), %eax
        movl %eax, 4(%edx)
        movl %dr6, %eax
        movl %eax, 8(%edx)
        movl 40(%ecx), %eax
        movl %eax, 12(%edx)
        addl $16, %edx
        movl %edx, line
        incl count
        movl %dr6, %edx
        movl $0xFFFF0FF0, %eax
        movl %eax, %dr6
        testb $15, %dl
        jz 1f
        movl resume_flag, %eax
        orl %eax, 64(%ecx)
1:      ret
# Other interrupts: is TF clear here?
look:   pushfl
        popl %eax
        andl $0x100, %eax
        orl %eax, inside
        incl inside
        ret

test_main:
        HOOK 1, note
        HOOK 0x81, look

        # -- Single step
        LOG
        xorl %ecx, %ecx
        STEP
        incl %ecx
s1:     incl %ecx
s2:     STEP_END
s3:     CHECK "single step: traps", count, $5
        SEEN "single step: first", 0, s1, 0x4000
        SEEN "single step: second", 1, s2, 0x4000
        SEEN "single step: POPF that ends it", 4, s3, 0x4000
        CHECK "single step: RF in the image", lines+4, $0x102

        # A branch, a call, a string instruction
        LOG
        movl $3, %ecx
        movl $data, %esi
        movl $data2, %edi
        cld
        STEP
r0:     rep movsb
r1:     jmp 1f
        hlt
1:      call 2f
r2:     STEP_END
        jmp 3f
2:      ret
3:      CHECK "steps of a string, a branch, a call: traps", count, $9
        SEEN "step after the first element", 0, r0, 0x4000
        CHECK "step after the first element: RF", lines+4, $0x10102
        CHECK "step after the first element: ecx", lines+12, $2
        SEEN "step after the second element", 1, r0, 0x4000
        SEEN "step after the last element", 2, r1, 0x4000
        CHECK "step after the last element: RF", lines+32+4, $0x102
        SEEN "step after CALL", 4, 2b, 0x4000
        SEEN "step after RET", 5, r2, 0x4000

        # INT n: no trap behind it, none inside; IRET brings TF back, and the next instruction traps
        LOG
        movl $0, inside
        STEP
        int $0x81
i1:     nop
i2:     STEP_END
        CHECK "INT n under TF: inside", inside, $1
        CHECK "INT n under TF: traps", count, $4
        SEEN "INT n under TF: first", 0, i2, 0x4000

        # Faults: TF in the image, no trap
        LOG
        movl $0x900000, %edx
        SETPTE 0x900000, 0
        invlpg 0x900000
        TRY 1f
        STEP
9:      movl (%edx), %eax
1:      MET "fault under TF", 14, 0, 9b, 0x900000
        CHECK "fault under TF: traps", count, $0
        movl x_eflags, %eax
        andl $0x10100, %eax
        CHECK "fault under TF: TF and RF in the image", %eax, $0x10100
        MAP 0x900000, 0x900003

        # MOV SS and POP SS: the single step after them is lost, the next is not (vol. 3, 6.8.3)
        LOG
        movl %ss, %ebx
        STEP
        movl %ebx, %ss
m1:     nop
m2:     nop
m3:     STEP_END
        CHECK "MOV SS under TF: traps", count, $5
        SEEN "MOV SS under TF: first", 0, m2, 0x4000
        SEEN "MOV SS under TF: second", 1, m3, 0x4000
        LOG
        pushl %ebx
        STEP
        popl %ss
        nop
m4:     nop
        STEP_END
        SEEN "POP SS under TF: first", 0, m4, 0x4000
        CHECK "POP SS under TF: traps", count, $5

        # Single step in ring 3: INT3 and back through SYSENTER is left out; PUSHF shows TF
        LOG
        USER 0x102
u0:     movl $5, %ecx
u1:     pushfl
u2:     popl %ebx
u3:     nop
        UEND
        CHECK "single step in ring 3: traps", count, $4
        SEEN "single step in ring 3: first", 0, u1, 0x4000
        movl x_ebx, %eax
        CHECK "single step in ring 3: PUSHF", %eax, $0x102

        # -- Instruction breakpoints
        LOG
        movl $0x10000, resume_flag
        BREAK 0, b1, 0x401
        xorl %ecx, %ecx
b1:     incl %ecx
        BREAK_END
        CHECK "instruction breakpoint: hits", count, $1
        SEEN "instruction breakpoint", 0, b1, 1
        movl lines + 4, %eax
        andl $0x10000, %eax
        CHECK "instruction breakpoint: RF in the image", %eax, $0
        CHECK "instruction breakpoint: instruction done", %ecx, $1
        # globally enabled, and two at once
        LOG
        movl $b2, %eax
        movl %eax, %dr2
        BREAK 3, b2, 0x4A0              # L2 G3
        nop
b2:     nop
        BREAK_END
        SEEN "two breakpoints at once", 0, b2, 12
        # behind MOV SS there is none
        LOG
        BREAK 0, b3, 0x401
        movl %ss, %ebx
        movl %ebx, %ss
b3:     nop
        BREAK_END
        CHECK "instruction breakpoint behind MOV SS: hits", count, $0
        # RF set by IRET holds it back once
        LOG
        BREAK 0, b4, 0x401
        movl $2, %ecx
        pushl $0x10002
        pushl $KCS
        pushl $b4
        iretl
b4:     decl %ecx
        jnz b4
        BREAK_END
        CHECK "RF loaded by IRET: hits", count, $1
        SEEN "RF loaded by IRET: hit the second time", 0, b4, 1
        # a breakpoint comes before what the instruction itself raises; RF survives no instruction
        LOG
        BREAK 0, b5, 0x401
        TRY 1f
b5:     ud2
1:      MET "breakpoint on UD2", 6,,b5
        CHECK "breakpoint on UD2: hits", count, $1
        BREAK_END
        # on a repeat: before the first element only
        LOG
        BREAK 0, b6, 0x401
        movl $6000, %ecx
        movl $0x900000, %edi
b6:     rep stosb
        BREAK_END
        CHECK "breakpoint on a repeat: hits", count, $1
        # after a single step both are reported one after the other
        LOG
        BREAK 0, b7, 0x401
        STEP
        nop
b7:     nop
b8:     STEP_END
        BREAK_END
        SEEN "step in front of a breakpoint", 0, b7, 0x4000
        SEEN "breakpoint after a step", 1, b7, 1
        SEEN "step over a breakpoint", 2, b8, 0x4000
        # ring 3
        LOG
        BREAK 1, b9, 0x404
        USER
        nop
b9:     incl %ecx
        UEND
        BREAK_END
        CHECK "instruction breakpoint in ring 3: hits", count, $1
        SEEN "instruction breakpoint in ring 3", 0, b9, 2
        movl $0, resume_flag

        # -- Data breakpoints
        LOG
        BREAK 0, data+4, 0x000D0401   # writes, 4 bytes
        movl data + 4, %ecx
        movl %ecx, data + 8
        movl %ecx, data
        movl %ecx, data + 4
d1:     nop
        BREAK_END
        CHECK "data breakpoint, write: hits", count, $1
        SEEN "data breakpoint, write", 0, d1, 1
        LOG
        BREAK 1, data+2, 0x00700404   # reads and writes, 2 bytes
        movb data + 1, %cl
        movb data + 4, %cl
        movl data, %ecx
d2:     movb %cl, data + 3
d3:     BREAK_END
        CHECK "data breakpoint, both: hits", count, $2
        SEEN "data breakpoint, read", 0, d2, 2
        SEEN "data breakpoint, write of a byte", 1, d3, 2
        # the stack: PUSH, CALL
        LOG
        movl %esp, %eax
        subl $4, %eax
        movl %eax, %dr3
        movl $0xD0000440, %eax
        movl %eax, %dr7
        pushl %ecx
d4:     popl %ecx
        call 2f
2:      popl %ecx
        movl $0, %eax
        movl %eax, %dr7
        CHECK "data breakpoint on the stack: hits", count, $2
        SEEN "data breakpoint, PUSH", 0, d4, 8
        SEEN "data breakpoint, CALL", 1, 2b, 8
        # string: after the element
        LOG
        BREAK 0, data2+5, 0x00010401
        movl $data, %esi
        movl $data2, %edi
        movl $12, %ecx
d5:     rep movsb
        BREAK_END
        CHECK "data breakpoint in a repeat: hits", count, $1
        SEEN "data breakpoint in a repeat", 0, d5, 1
        CHECK "data breakpoint in a repeat: ecx", lines+12, $6
        movl lines + 4, %eax
        andl $0x10000, %eax
        CHECK "data breakpoint in a repeat: RF", %eax, $0x10000
        # with a single step: one exception
        LOG
        BREAK 0, data, 0x000D0401
        STEP
        movl %ecx, data
d6:     STEP_END
        BREAK_END
        SEEN "data breakpoint and step", 0, d6, 0x4001
        # held back by MOV SS, then reported after the next instruction
        LOG
        BREAK 0, ss_image, 0x00070401
        movw ss_image, %ss
        nop
d7:     nop
        BREAK_END
        CHECK "data breakpoint on MOV SS: hits", count, $1
        SEEN "data breakpoint on MOV SS", 0, d7, 1
        # the next one is INT n: in front of the handler's first instruction
        LOG
        BREAK 0, ss_image, 0x00070401
        movl $0, inside
        movw ss_image, %ss
        int $0x81
        BREAK_END
        CHECK "data breakpoint on MOV SS, INT n: hits", count, $1
        SEEN "data breakpoint on MOV SS, INT n", 0, stubs+0x810, 1
        CHECK "data breakpoint on MOV SS, INT n: handler", inside, $1
        # the next one faults
        LOG
        BREAK 0, ss_image, 0x00070401
        TRY 1f
        movw ss_image, %ss
9:      ud2
1:      MET "data breakpoint on MOV SS, UD2", 6,,9b
        CHECK "data breakpoint on MOV SS, UD2: hits", count, $1
        SEEN "data breakpoint on MOV SS, UD2", 0, stubs+0x60, 1
        BREAK_END
        # a fault takes the hit of what did not happen with it
        LOG
        BREAK 0, data, 0x000F0401
        movl $0, PT + (0x901000 >> 12) * 4
        invlpg 0x901000
        movl $0x901000, %edi
        movl $data, %esi
        TRY 1f
9:      movsl
1:      MET "MOVS whose store faults", 14, 2, 9b, 0x901000
        CHECK "MOVS whose store faults: hits", count, $0
        BREAK_END
        MAP 0x901000, 0x901003

        # -- Ports (CR4.DE)
        movl %cr4, %eax
        orl $8, %eax
        movl %eax, %cr4
        LOG
        BREAK 0, 0x80, 0x00020401
        inb $0x81, %al
        outb %al, $0x80
p1:     nop
        movw $0x80, %dx
        movl $3, %ecx
        movl $data, %edi
p2:     rep insb
p3:     BREAK_END
        CHECK "port breakpoint: hits", count, $4
        SEEN "port breakpoint, OUT", 0, p1, 1
        SEEN "port breakpoint, first of INS", 1, p2, 1
        CHECK "port breakpoint, first of INS: ecx", lines+16+12, $2
        SEEN "port breakpoint, last of INS", 3, p3, 1
        # DR4 and DR5 are undefined now
        TRY 1f
9:      movl %dr4, %eax
1:      MET "DR4 with CR4.DE", 6,,9b
        TRY 1f
9:      movl %eax, %dr5
1:      MET "DR5 with CR4.DE", 6,,9b
        movl %cr4, %eax
        andl $~8, %eax
        movl %eax, %cr4
        LOG                             # without DE R/W 10b is nothing
        BREAK 0, 0x80, 0x00020401
        outb %al, $0x80
        BREAK_END
        CHECK "port breakpoint without CR4.DE: hits", count, $0
        movl %dr4, %ebx
        movl %dr6, %ecx
        CHECK "DR4 is DR6", %ebx, %ecx
        movl $0x700, %eax
        movl %eax, %dr5
        movl %dr7, %ecx
        CHECK "DR5 is DR7", %ecx, $0x700
        # -- Fixed bits
        movl $-1, %eax
        movl %eax, %dr6
        movl %dr6, %ecx
        CHECK "DR6: bits that are one", %ecx, $0xFFFFEFFF
        xorl %eax, %eax
        movl %eax, %dr6
        movl %dr6, %ecx
        CHECK "DR6: bits that are one, after 0", %ecx, $0xFFFF0FF0
        movl $0xDC00, %eax
        movl %eax, %dr7
        movl %dr7, %ecx
        CHECK "DR7: fixed bits", %ecx, $0x400
        # -- General detect
        LOG
        movl $0x2000, %eax
        movl %eax, %dr7
        TRY 1f
        UNHOOK 1
9:      movl %dr0, %eax
1:      MET "general detect", 1,,9b
        movl %dr6, %ecx
        CHECK "general detect: DR6", %ecx, $0xFFFF2FF0
        movl %dr7, %ecx
        CHECK "general detect: GD is clear in the handler", %ecx, $0x400
        movl x_eflags, %eax
        andl $0x10000, %eax
        CHECK "general detect: RF in the image", %eax, $0x10000
        movl $0, %eax
        movl %eax, %dr6
        # rights come first
        movl $0x2000, %eax
        movl %eax, %dr7
        USER
9:      movl %dr0, %eax
        UEND
        MET "MOV DR in ring 3", 13, 0, 9b
        movl $0, %eax
        TRY 1f
        movl %eax, %dr7
1:      MET "general detect once more", 1
        # -- INT1, INT3, INTO, BOUND
        movl $0, %eax
        movl %eax, %dr6
        TRY 1f
        .byte 0xF1
9:      nop
1:      MET "INT1", 1,,9b
        movl %dr6, %ecx
        CHECK "INT1: DR6", %ecx, $0xFFFF0FF0
        movl x_eflags, %eax
        andl $0x10000, %eax
        CHECK "INT1: RF in the image", %eax, $0
        USER
        .byte 0xF1
9:      nop
        UEND
        MET "INT1 in ring 3 asks no DPL", 1,,9b
        USER
9:      int $1
        UEND
        MET "INT 1 does", 13, 1*8+2, 9b
        USER
        int3
9:      nop
        UEND
        MET "INT3", 3,,9b
        USER
        int $3
9:      nop
        UEND
        MET "INT 3", 3,,9b
        andb $~0x60, idt + 3 * 8 + 5
        USER
9:      int3
        UEND
        MET "INT3 to a gate of DPL 0", 13, 3*8+2, 9b
        orb $0x60, idt + 3 * 8 + 5
        USER
        movb $0x7F, %al
        incb %al
        into
9:      nop
        UEND
        MET "INTO", 4,,9b
        USER
        xorb %al, %al
        into
        UEND
        MET "INTO without OF", 0x80
        movl $-5, data
        movl $7, data + 4
        movl $-5, %eax
        TRY 1f
        bound %eax, data
        movl $7, %eax
        bound %eax, data
        incl %eax
9:      bound %eax, data
1:      MET "BOUND", 5,,9b
        movl $0x00037FFD, data          # 16 bits: -3 to 3... upper word 3
        movw $-3, data
        movw $-3, %ax
        TRY 1f
        boundw %ax, data
        decw %ax
9:      boundw %ax, data
1:      MET "BOUND, 16 bits", 5,,9b
        jmp finish

        .section .utext
        .balign 4096
utext_end:
