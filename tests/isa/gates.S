# gates.S: transfers between privilege levels: call gates, far returns, gates of the IDT, IRET, rings 1 and 2, conforming code, IOPL
# (SDM vol. 3, chapters 5 and 6; vol. 2, CALL, RET, INT n, IRET).
# QEMU's TCG does not compare EIP with the limit of the new segment in front of the pushes, and does not check stack limits.
        .include "common.inc"

        .set GATE, 0x38                 # the gate under test
        .set C1, 0x40                   # code and data of rings 1 and 2
        .set D1, 0x48
        .set C2, 0x50
        .set D2, 0x58
        .set CONF, 0x60                 # conforming code, DPL 0
        .set X, 0x68                    # whatever a check needs
        .set C16, 0x70                  # 16-bit code, DPL 0
        .set D16, 0x78                  # 16-bit stack, DPL 0
        .set STACK1, 0x880000
        .set STACK2, 0x890000
        .set RSTACK, 0x8A0000           # where rings 1 and 2 start

        .macro DESC sel, base, limit, attr
        movl $(((\base)&0xFFFF)<<16|((\limit)&0xFFFF)), gdt+\sel
        movl $(((\base)&0xFF000000)|((\base)>>16&0xFF)|((\attr)<<8)|((\limit)&0xF0000)), gdt+\sel+4
        .endm
# Gate in the GDT: attr is the byte with type, DPL and P.
        .macro CALLGATE cs, entry, attr, params=0
        movl $(\entry), %eax
        movl %eax, %edx
        andl $0xFFFF, %eax
        orl $((\cs)<<16), %eax
        movl %eax, gdt+GATE
        andl $0xFFFF0000, %edx
        orl $((\attr)<<8|(\params)), %edx
        movl %edx, gdt+GATE+4
        .endm
        .macro IDTGATE vec, cs, entry, attr
        movl $(\entry), %eax
        movl %eax, %edx
        andl $0xFFFF, %eax
        orl $((\cs)<<16), %eax
        movl %eax, idt+(\vec)*8
        andl $0xFFFF0000, %edx
        orl $((\attr)<<8), %edx
        movl %edx, idt+(\vec)*8+4
        .endm
# Code that follows runs in ring 1 or 2 (supervisor pages), until REND or an exception.
        .macro RING n, flags=2
        movl %esp, x_trysp
        movl $-1, x_vec
        movl $99f, x_resume
        pushl $(D\n+\n)
        pushl $RSTACK
        pushl $(\flags)
        pushl $(C\n+\n)
        pushl $98f
        pushl $UDS
        popl %ds
        pushl $UDS
        popl %es
        iretl
98:
        .endm
        .macro REND
        int $0x80
99:
        .endm

        .data
        .balign 4
got_esp: .long 0
got_cs: .long 0
got_ss: .long 0
got_ds: .long 0
got_es: .long 0
got_flags: .long 0
got:    .fill 16, 4, 0
back:   .long 0
back_cs: .long 0
save:   .long 0
v:      .long 0
fptr:   .long 0
        .word GATE

        .text
# What a gate leads to: notes the registers and the stack.
note_all:
        movl %esp, %ss:got_esp
        pushfl
        pushl %eax
        pushl %ecx
        movl %cs, %eax
        movl %eax, %ss:got_cs
        movl %ss, %eax
        movl %eax, %ss:got_ss
        movl %ds, %eax
        movl %eax, %ss:got_ds
        movl 8(%esp), %eax
        movl %eax, %ss:got_flags
        .set i, 0
        .rept 10
        movl 12+i*4(%esp), %eax
        movl %eax, %ss:got+i*4
        .set i, i+1
        .endr
        popl %ecx
        popl %eax
        popfl
        ret
# The return address of the call of note_all is in got[0]; the frame begins at got[1].
entry32: call note_all
        lretl
entry32_3: call note_all
        lretl $12
entry_int: call note_all
        iretl
entry_err: call note_all                # with an error code
        movl %ss:back, %eax
        movl %eax, 4(%esp)
        addl $4, %esp
        iretl
        .balign 64
entry_conf: movl %cs, %ecx
        lretl
conf_int: movl %cs, %ecx
        iretl

        .code16
entry16: popw %cx                       # IP, CS: 16 bits each, so that there is no way back above 64 KiB
        popw %dx
        ljmpl $KCS, $from_gate16
        .code32

test_main:
        DESC C1, 0, 0xFFFFF, 0xC0BB
        DESC D1, 0, 0xFFFFF, 0xC0B3
        DESC C2, 0, 0xFFFFF, 0xC0DB
        DESC D2, 0, 0xFFFFF, 0xC0D3
        DESC CONF, 0, 0xFFFFF, 0xC09F
        DESC C16, 0x100000, 0xFFFF, 0x009B
        DESC D16, 0x200000, 0xFFFF, 0x0093
        movl $STACK1, tss+12
        movl $(D1+1), tss+16
        movl $STACK2, tss+20
        movl $(D2+2), tss+24

        # -- Same level
        CALLGATE KCS, entry32, 0x8C
        movl %esp, save
        lcall $GATE, $0x12345678
1:      CHECK "call gate, ring 0: EIP pushed", got+4, $1b
        CHECK "call gate, ring 0: CS pushed", got+8, $KCS
        CHECK "call gate, ring 0: ESP back", %esp, $(KSTACK-0x28)
        CALLGATE KCS, 1f, 0x8C
        ljmp $GATE, $0
        hlt
1:      CHECK "jump through a call gate", %esp, $(KSTACK-0x28)
        CALLGATE CONF, entry_conf, 0x8C
        lcall $GATE, $0
        CHECK "call gate to conforming code in ring 0: CS", %ecx, $CONF
        CALLGATE C16, entry16-0x100000, 0x84
        movl $0xFFFFFFFF, %ecx
        movl $0xFFFFFFFF, %edx
        lcall $GATE, $0
1:      hlt
from_gate16:
        movl $1b, %eax
        orl $0xFFFF0000, %eax
        CHECK "16-bit call gate: IP", %ecx, %eax
        CHECK "16-bit call gate: CS", %edx, $(0xFFFF0000+KCS)
        CHECK "16-bit call gate: ESP", %esp, $(KSTACK-0x28)

        # -- From ring 3 inwards, with parameters
        CALLGATE KCS, entry32_3, 0xEC, 3
        USER 0x202
        pushl $0x33
        pushl $0x22
        pushl $0x11
        lcall $(GATE+3), $0
1:      movl %esp, %ebp
        movl %cs, %esi
        movl %ss, %edi
        UEND
        MET "call gate from ring 3", 0x80
        CHECK "call gate from ring 3: CS inside", got_cs, $KCS
        CHECK "call gate from ring 3: SS inside", got_ss, $KDS
        CHECK "call gate from ring 3: ESP inside", got_esp, $(ESP0-0x20)
        CHECK "call gate from ring 3: EIP", got+4, $1b
        CHECK "call gate from ring 3: CS", got+8, $UCS
        CHECK "call gate from ring 3: last parameter", got+12, $0x11
        CHECK "call gate from ring 3: first parameter", got+20, $0x33
        CHECK "call gate from ring 3: ESP", got+24, $(USTACK-12)
        CHECK "call gate from ring 3: SS", got+28, $UDS
        CHECK "call gate from ring 3: DS stays", got_ds, $UDS
        movl got_flags, %eax
        andl $0x200, %eax
        CHECK "call gate from ring 3: IF stays", %eax, $0x200
        CHECK "RETF 12 to ring 3: ESP", x_ebp, $USTACK
        CHECK "RETF to ring 3: CS", x_esi, $UCS
        CHECK "RETF to ring 3: SS", x_edi, $UDS
        # ring 3 to ring 1, ring 2 to ring 1, ring 1 to ring 0
        CALLGATE C1, entry32, 0xEC
        USER
        lcall $GATE, $0
        UEND
        MET "call gate, ring 3 to 1", 0x80
        CHECK "call gate, ring 3 to 1: CS", got_cs, $(C1+1)
        CHECK "call gate, ring 3 to 1: SS", got_ss, $(D1+1)
        CHECK "call gate, ring 3 to 1: ESP", got_esp, $(STACK1-0x14)
        RING 2
        lcall $GATE, $0
        REND
        MET "call gate, ring 2 to 1", 0x80
        CHECK "call gate, ring 2 to 1: CS", got_cs, $(C1+1)
        CHECK "call gate, ring 2 to 1: pushed CS", got+8, $(C2+2)
        CALLGATE KCS, entry32, 0xEC
        RING 1
        lcall $GATE, $0
        REND
        MET "call gate, ring 1 to 0", 0x80
        CHECK "call gate, ring 1 to 0: CS", got_cs, $KCS
        CHECK "call gate, ring 1 to 0: pushed SS", got+16, $(D1+1)
        CALLGATE CONF, entry_conf, 0xEC
        movl $entry_conf, %eax          # its page is opened to ring 3
        shrl $12, %eax
        movl %eax, %ecx
        shll $12, %ecx
        orl $7, %ecx
        movl %ecx, PT(,%eax,4)
        movl %cr3, %ecx
        movl %ecx, %cr3
        USER
        lcall $GATE, $0
        UEND
        MET "call gate to conforming code from ring 3", 0x80
        CHECK "call gate to conforming code: CS", x_ecx, $(CONF+3)

        # -- What may be wrong with a call gate
        .macro GATEFAULT name, vec, err
        USER
9:      lcall $(GATE+3), $0
        UEND
        MET "\name", \vec, \err, 9b
        .endm
        CALLGATE KCS, entry32, 0x8C
        GATEFAULT "gate of DPL 0 from ring 3", 13, GATE
        CALLGATE KCS, entry32, 0xCC
        GATEFAULT "gate of DPL 2, RPL 3", 13, GATE
        CALLGATE KCS, entry32, 0x6C
        GATEFAULT "absent gate", 11, GATE
        CALLGATE 0, entry32, 0xEC
        GATEFAULT "gate to null", 13, 0
        CALLGATE 0x138, entry32, 0xEC
        GATEFAULT "gate behind the GDT", 13, 0x138
        CALLGATE KDS, entry32, 0xEC
        GATEFAULT "gate to data", 13, KDS
        DESC X, 0, 0xFFFFF, 0xC01B
        CALLGATE X, entry32, 0xEC
        GATEFAULT "gate to absent code", 11, X
        CALLGATE UCS, entry32, 0xEC
        TRY 1f
9:      lcall $GATE, $0
1:      MET "gate to an outer level", 13, UCS-3, 9b
        CALLGATE KCS, entry32, 0xEC
        USER
9:      ljmp $GATE, $0
        UEND
        MET "jump through a gate inwards", 13, KCS, 9b
        DESC X, 0, 0xFFF, 0x409B
        CALLGATE X, 0x1000, 0xEC
        GATEFAULT "gate: EIP behind the limit", 13, 0
        # the fault goes to ring 0, whose stack has to be right: bad stacks are tried for ring 1
        CALLGATE C1, entry32, 0xEC
        movl $0, tss+16
        GATEFAULT "gate: null SS1", 10, 0
        movl $0x138, tss+16
        GATEFAULT "gate: SS1 behind the GDT", 10, 0x138
        movl $D1, tss+16
        GATEFAULT "gate: SS1 with RPL 0", 10, D1
        movl $(KDS+1), tss+16
        GATEFAULT "gate: SS1 of DPL 0", 10, KDS
        movl $(C1+1), tss+16
        GATEFAULT "gate: SS1 is code", 10, C1
        DESC X, 0, 0xFFFFF, 0xC033
        movl $(X+1), tss+16
        GATEFAULT "gate: absent SS1", 12, X
        DESC X, 0, 0xFFFF, 0x40B3
        movl $0x10000, tss+12
        CALLGATE C1, entry_conf, 0xEC   # which needs no data on the stack
        USER
        lcall $GATE, $0
        UEND
        MET "gate: stack that just fits", 0x80
        movl $0x10001, tss+12
        CALLGATE C1, entry32, 0xEC
        GATEFAULT "gate: stack over its limit", 12, X
        movl $8, tss+12
        CALLGATE C1, entry32, 0xEC, 1
        GATEFAULT "gate: stack too small, wraps", 12, X
        movl $STACK1, tss+12
        movl $(D1+1), tss+16
        movw $15, gdt_tss               # TSS limit: SS1 is not inside, SS0 is
        movl gdt_tss+4, %eax
        andl $~0x200, %eax
        movl %eax, gdt_tss+4
        movw $TSS, %ax
        ltr %ax
        GATEFAULT "gate: TSS too short", 10, TSS
        movw $(tss_end-tss), gdt_tss
        andl $~0x200, gdt_tss+4
        movw $TSS, %ax
        ltr %ax
        # no words are written when the target's EIP is wrong
        DESC X, 0, 0xFFF, 0x40BB
        CALLGATE X, 0x1000, 0xEC
        movl $0x5A5A5A5A, STACK1-4
        GATEFAULT "gate: EIP behind the limit, ring 1", 13, 0
        CHECK "gate: nothing was pushed", STACK1-4, $0x5A5A5A5A
        # the new stack's page is absent
        CALLGATE C1, entry32, 0xEC
        MAP (STACK1-0x1000), 0
        GATEFAULT "gate: page of the inner stack", 14, 2
        MAP (STACK1-0x1000), (STACK1-0x1000+3)

        # -- Far jumps and calls
        .macro FARFAULT name, sel, off, vec, err
        TRY 1f
9:      ljmp $(\sel), $(\off)
1:      MET "\name", \vec, \err, 9b
        .endm
        FARFAULT "far jump to null", 0, 0, 13, 0
        FARFAULT "far jump to data", KDS, 0, 13, KDS
        FARFAULT "far jump outwards", UCS, 0, 13, UCS-3
        FARFAULT "far jump behind the GDT", 0x13F, 0, 13, 0x13C
        FARFAULT "far jump with RPL 1", (KCS+1), 0, 13, KCS
        DESC X, 0, 0xFFFFF, 0xC01B
        FARFAULT "far jump to absent code", X, 0, 11, X
        DESC X, 0, 0xFFF, 0x409B
        FARFAULT "far jump behind the limit", X, 0x1000, 13, 0
        DESC X, 0, 0xFFFFF, 0xC0FF
        FARFAULT "far jump to conforming code of DPL 3", X, 0, 13, X
        USER
9:      ljmp $KCS, $0
        UEND
        MET "far jump inwards", 13, KCS, 9b
        USER
        ljmp $(CONF), $1f
1:      movl %cs, %ecx
        UEND
        MET "far jump to conforming code", 0x80
        CHECK "far jump to conforming code: CPL", x_ecx, $(CONF+3)
        ljmp $(CONF), $1f
1:      movl %cs, %ecx
        CHECK "far jump to conforming code in ring 0", %ecx, $CONF
        ljmp $(KCS), $1f
1:
        # -- Code segments with base, limit and 16 bits
        DESC X, 0x100000, 0xFFFFF, 0xC09B
        ljmp $X, $1f-0x100000
        hlt
1:      call 2f
2:      popl %ecx
        ljmp $KCS, $1f
1:      CHECK "code with a base: EIP", %ecx, $2b-0x100000
        DESC X, 0x100000, 0x7FFFF, 0x009B
        ljmp $X, $code16-0x100000
from16: CHECK "16-bit code: registers", %ecx, $0x12345678
        CHECK "16-bit code: operand size", %edx, $0xFFFF1234
        CHECK "16-bit code: stack", %esp, $(KSTACK-0x28)
        # running over the limit
        DESC X, 0x100000, 0, 0x409B
        movl $limit_at, %eax
        movw %ax, gdt+X
        TRY 2f
        ljmp $X, $1f-0x100000
1:      nop
        nop
limit_at: nop                           # the last byte inside
1:      nop
2:      MET "running over the limit", 13, 0, 1b-0x100000
        movl $branch_end, %eax
        movw %ax, gdt+X
        TRY 2f
        ljmp $X, $1f-0x100000
1:      jmp 3f
branch_end: nop
2:      MET "branch over the limit", 13, 0, 1b-0x100000
3:
        # -- RETF
        .macro RETFAULT name, cs, eip, vec, err
        pushl $(\cs)
        pushl $(\eip)
        TRY 1f
9:      lretl
1:      MET "\name", \vec, \err, 9b
        addl $8, %esp
        .endm
        RETFAULT "RETF to null", 0, 0, 13, 0
        RETFAULT "RETF to data", KDS, 0, 13, KDS
        RETFAULT "RETF to absent code", 0x138, 0, 13, 0x138
        RING 1
        pushl $KCS
        pushl $0
9:      lretl
        REND
        MET "RETF inwards", 13, KCS, 9b
        pushl $UDS
        pushl $USTACK
        pushl $(UCS-3+2)                # RPL 2, DPL 3
        pushl $0
        TRY 1f
9:      lretl
1:      MET "RETF, RPL is not DPL", 13, UCS-3, 9b
        addl $16, %esp
        pushl $KDS
        pushl $USTACK
        pushl $UCS
        pushl $0
        TRY 1f
9:      lretl
1:      MET "RETF, SS of ring 0", 13, KDS, 9b
        addl $16, %esp
        pushl $0
        pushl $USTACK
        pushl $UCS
        pushl $0
        TRY 1f
9:      lretl
1:      MET "RETF, null SS", 13, 0, 9b
        addl $16, %esp
        # what ring 3 may not use is lost: KDS, not UDS, conforming code or null
        movl $UDS, %eax
        movl %eax, %es
        movl $KDS, %eax
        movl %eax, %fs
        movl $CONF, %eax
        movl %eax, %gs
        movl %esp, x_trysp
        movl $1f, x_resume
        movl $-1, x_vec
        pushl $UDS
        pushl $USTACK
        pushl $UCS
        pushl $2f
        lretl
        .section .utext
2:      int $0x80
        .text
1:      MET "RETF to ring 3", 0x80
        CHECK "RETF to ring 3: DS of ring 0 is lost", x_ds, $0
        CHECK "RETF to ring 3: ES of ring 3 stays", x_es, $UDS
        CHECK "RETF to ring 3: FS of ring 0 is lost", x_fs, $0
        CHECK "RETF to ring 3: conforming code stays", x_gs, $CONF

        # -- Gates of the IDT
        .macro INTFAULT name, vec, n, err
        USER
9:      int $\n
        UEND
        MET "\name", \vec, \err, 9b
        .endm
        IDTGATE 0x90, KCS, entry_int, 0x8E
        INTFAULT "INT n: DPL 0", 13, 0x90, 0x90*8+2
        IDTGATE 0x90, KCS, entry_int, 0x6E
        INTFAULT "INT n: absent gate", 11, 0x90, 0x90*8+2
        IDTGATE 0x90, KCS, entry_int, 0xEC
        INTFAULT "INT n: call gate", 13, 0x90, 0x90*8+2
        IDTGATE 0x90, 0, entry_int, 0xEE
        INTFAULT "INT n: null CS", 13, 0x90, 0
        IDTGATE 0x90, 0x138, entry_int, 0xEE
        INTFAULT "INT n: CS behind the GDT", 13, 0x90, 0x138
        IDTGATE 0x90, KDS, entry_int, 0xEE
        INTFAULT "INT n: data", 13, 0x90, KDS
        DESC X, 0, 0xFFFFF, 0xC01B
        IDTGATE 0x90, X, entry_int, 0xEE
        INTFAULT "INT n: absent code", 11, 0x90, X
        DESC X, 0, 0xFFF, 0x409B
        IDTGATE 0x90, X, 0x1000, 0xEE
        INTFAULT "INT n: EIP behind the limit", 13, 0x90, 0
        IDTGATE 0x90, UCS, entry_int, 0xEE
        TRY 1f
9:      int $0x90
1:      MET "INT n: outwards", 13, UCS-3, 9b
        movw $0x90*8+6, idtr
        lidt idtr
        INTFAULT "INT n: behind the IDT", 13, 0x90, 0x90*8+2
        movw $256*8-1, idtr
        lidt idtr
        # an exception whose gate is wrong: EXT
        movl idt+6*8+4, %esi
        andl $~0x8000, idt+6*8+4
        TRY 1f
9:      ud2
1:      MET "#UD, absent gate: EXT", 11, 6*8+3, 9b
        movl %esi, idt+6*8+4
        movl idt+6*8, %esi
        movw $0x138, idt+6*8+2
        TRY 1f
9:      ud2
1:      MET "#UD, CS behind the GDT: EXT", 13, 0x139, 9b
        movl %esi, idt+6*8
        # trap gates keep IF, interrupt gates do not
        IDTGATE 0x90, KCS, entry_int, 0xEF
        USER 0x202
        int $0x90
        UEND
        movl got_flags, %eax
        andl $0x200, %eax
        CHECK "trap gate keeps IF", %eax, $0x200
        IDTGATE 0x90, KCS, entry_int, 0xEE
        USER 0x4202                     # NT too
1:      int $0x90
1:      pushfl
        popl %ebx
        UEND
        movl got_flags, %eax
        andl $0x4200, %eax
        CHECK "interrupt gate clears IF and NT", %eax, $0
        CHECK "interrupt gate: EIP", got+4, $1b
        CHECK "interrupt gate: CS", got+8, $UCS
        CHECK "interrupt gate: EFLAGS", got+12, $0x4202
        CHECK "interrupt gate: ESP", got+16, $USTACK
        CHECK "interrupt gate: SS", got+20, $UDS
        CHECK "IRET brings NT and IF back", x_ebx, $0x4202
        # ring 3 to ring 1; ring 1 to itself
        IDTGATE 0x90, C1, entry_int, 0xEE
        USER
        int $0x90
        UEND
        MET "INT n, ring 3 to 1", 0x80
        CHECK "INT n, ring 3 to 1: CS", got_cs, $(C1+1)
        CHECK "INT n, ring 3 to 1: ESP", got_esp, $(STACK1-0x18)
        RING 1
        int $0x90
        REND
        MET "INT n, ring 1 to 1", 0x80
        CHECK "INT n, ring 1 to 1: ESP", got_esp, $(RSTACK-0x10)
        TRY 1f
9:      int $0x90
1:      MET "INT n, ring 0 to 1", 13, C1, 9b
        # conforming: the level stays
        IDTGATE 0x90, CONF, conf_int, 0xEE
        USER
        int $0x90
        UEND
        MET "INT n to conforming code", 0x80
        CHECK "INT n to conforming code: CS", x_ecx, $(CONF+3)

        # -- IRET
        .macro IRETFAULT name, cs, eip, vec, err
        pushl $2
        pushl $(\cs)
        pushl $(\eip)
        TRY 1f
9:      iretl
1:      MET "\name", \vec, \err, 9b
        addl $12, %esp
        .endm
        IRETFAULT "IRET to null", 0, 0, 13, 0
        IRETFAULT "IRET to data", KDS, 0, 13, KDS
        DESC X, 0, 0xFFFFF, 0xC01B
        IRETFAULT "IRET to absent code", X, 0, 11, X
        DESC X, 0, 0xFFF, 0x409B
        IRETFAULT "IRET behind the limit", X, 0x1000, 13, 0
        RING 2
        pushl $2
        pushl $KCS
        pushl $0
9:      iretl
        REND
        MET "IRET inwards", 13, KCS, 9b
        # ring 1 cannot change IOPL; IF only with IOPL >= 1
        RING 1, 2
        pushl $0x3202
        pushl $(C1+1)
        pushl $1f
        iretl
1:      pushfl
        popl %ebx
        REND
        CHECK "IRET in ring 1, IOPL 0", x_ebx, $2
        RING 1, 0x1002
        pushl $0x3202
        pushl $(C1+1)
        pushl $1f
        iretl
1:      pushfl
        popl %ebx
        REND
        CHECK "IRET in ring 1, IOPL 1", x_ebx, $0x1202

        # -- IOPL
        RING 1, 2
9:      cli
        REND
        MET "CLI in ring 1, IOPL 0", 13, 0, 9b
        RING 1, 0x1202
        cli
        pushfl
        popl %ebx
        sti
        pushfl
        popl %edx
        REND
        MET "CLI and STI in ring 1, IOPL 1", 0x80
        CHECK "CLI in ring 1, IOPL 1", x_ebx, $0x1002
        CHECK "STI in ring 1, IOPL 1", x_edx, $0x1202
        RING 2, 0x1002
9:      sti
        REND
        MET "STI in ring 2, IOPL 1", 13, 0, 9b
        USER 0x3002
        sti
        pushfl
        popl %ebx
        cli
        pushfl
        popl %edx
        pushl $0x202
        popfl
        pushfl
        popl %esi
        UEND
        MET "STI and CLI in ring 3, IOPL 3", 0x80
        CHECK "STI in ring 3, IOPL 3", x_ebx, $0x3202
        CHECK "CLI in ring 3, IOPL 3", x_edx, $0x3002
        CHECK "POPF in ring 3, IOPL 3: IF changes, IOPL does not", x_esi, $0x3202
        USER 0x2002
        pushl $0x3202
        popfl
        pushfl
        popl %esi
9:      cli
        UEND
        MET "CLI in ring 3, IOPL 2", 13, 0, 9b
        CHECK "POPF in ring 3, IOPL 2", x_esi, $0x2002
        RING 1
9:      hlt
        REND
        MET "HLT in ring 1", 13, 0, 9b
        RING 2
9:      movl %cr0, %eax
        REND
        MET "MOV CR in ring 2", 13, 0, 9b
        # rings 1 and 2 are supervisors to paging
        MAP 0x900000, 0x900003
        movl $0x99, 0x900000
        RING 2
        movl 0x900000, %ecx
        REND
        CHECK "ring 2 reads a supervisor page", x_ecx, $0x99
        jmp finish

        .section .utext
        .balign 4096
utext_end:
        .text
        .code16
code16: movl $0x12345678, %ecx
        movl $0xFFFFFFFF, %edx
        movw $0x1234, %dx
        ljmpl $KCS, $from16
        .code32
