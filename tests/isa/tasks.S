# tasks.S: hardware tasks (SDM vol. 3, chapter 7): every way in and out, what is saved and loaded, busy bits, links, NT, CR3, LDT, the T bit,
# and faults on both sides of the point of commitment (7.3, step 12).
# QEMU's TCG takes a conforming CS in a TSS for a fault and leaves CR0.TS to the old task; its taskswitch2 stops half-way.
        .include "common.inc"

        .set T2, 0x38                   # the other task, 32 bits
        .set T16, 0x40                  # 16 bits
        .set TH, 0x48                   # takes faults of new tasks
        .set TGATE, 0x50                # task gate to T2
        .set LDTSEL, 0x58
        .set X, 0x60
        .set CONF, 0x68
        .set C1, 0x70
        .set D16, 0x78                  # 16-bit stack
        .set STACK2, 0x880000
        .set STACKH, 0x890000
        .set STACK16, 0x4000
        .set PD2, 0x206000              # another page directory

        .macro DESC sel, base, limit, attr
        movl $(((\base)&0xFFFF)<<16|((\limit)&0xFFFF)), gdt+\sel
        movl $(((\base)&0xFF000000)|((\base)>>16&0xFF)|((\attr)<<8)|((\limit)&0xF0000)), gdt+\sel+4
        .endm
# A descriptor whose base is a label.
        .macro LDESC sel, label, limit, attr
        movl $\label, %eax
        movl %eax, %edx
        shll $16, %eax
        orl $(\limit), %eax
        movl %eax, gdt+\sel
        movl %edx, %eax
        shrl $16, %eax
        movzbl %al, %eax
        andl $0xFF000000, %edx
        orl %edx, %eax
        orl $((\attr)<<8), %eax
        movl %eax, gdt+\sel+4
        .endm
        .macro BUSY name, sel, want
        movzbl gdt+\sel+5, %eax
        shrl $1, %eax
        andl $1, %eax
        CHECK "\name", %eax, $\want
        .endm
# The other task, flat, from the label on.
        .macro TASK2 entry, flags=2
        movl $tss2, %edi
        movl $26, %ecx
        xorl %eax, %eax
        cld
        rep stosl
        movl $PD, tss2+0x1C
        movl $\entry, tss2+0x20
        movl $(\flags), tss2+0x24
        movl $0x11111111, tss2+0x28
        movl $0x22222222, tss2+0x2C
        movl $0x33333333, tss2+0x30
        movl $0x44444444, tss2+0x34
        movl $STACK2, tss2+0x38
        movl $0x66666666, tss2+0x3C
        movl $0x77777777, tss2+0x40
        movl $0x88888888, tss2+0x44
        movw $KDS, tss2+0x48
        movw $KCS, tss2+0x4C
        movw $KDS, tss2+0x50
        movw $KDS, tss2+0x54
        movw $KDS, tss2+0x58
        movw $KDS, tss2+0x5C
        movw $104, tss2+0x66
        movb $0x89, gdt+T2+5
        .endm
        .macro TASKGATE vec, sel, attr=0x85
        movl $((\sel)<<16), idt+(\vec)*8
        movl $((\attr)<<8), idt+(\vec)*8+4
        .endm
        .macro SAVEGATE vec
        movl idt+(\vec)*8, %eax
        movl %eax, gate_save
        movl idt+(\vec)*8+4, %eax
        movl %eax, gate_save+4
        .endm
        .macro RESTGATE vec
        movl gate_save, %eax
        movl %eax, idt+(\vec)*8
        movl gate_save+4, %eax
        movl %eax, idt+(\vec)*8+4
        .endm
# Switching to T2 by a jump makes a fault in T2: TH takes it through a task gate and jumps back to the main task.
        .macro NEWFAULT name, vec, err
        SAVEGATE \vec
        TASKGATE \vec, TH
        movl $-1, h_error
        movl $-1, h_link
        ljmp $T2, $0
        movb $0x89, gdt+T2+5
        RESTGATE \vec
        CHECK "\name: error code", h_error, $\err
        CHECK "\name: it is the new task's", h_link, $T2
        CHECK "\name: EIP in its TSS", tss2+0x20, $t2_entry
        .endm
# Switching faults in the old task, at the instruction.
        .macro OLDFAULT name, sel, vec, err, cr2
        TRY 1f
9:      ljmp $(\sel), $0
1:      MET "\name", \vec, \err, 9b, \cr2
        BUSY "\name: the old task stays busy", TSS, 1
        .endm

        .data
        .balign 128
tss2:   .fill 26, 4, 0
        .balign 128
tssh:   .fill 26, 4, 0
        .balign 128
tss16:  .fill 22, 2, 0
        .balign 16
ldt2:   .quad 0, 0x00CF93B00000FFFF     # 0Ch: base B00000h
gate_save: .long 0, 0
h_error: .long 0
h_link: .long 0
seen:   .fill 16, 4, 0
old_cr0: .long 0
count:  .long 0
v:      .long 0

        .text
# -- Code of the other tasks
t2_entry:
t2_note: movl %eax, seen
        movl %ecx, seen+4
        movl %edx, seen+8
        movl %ebx, seen+12
        movl %esp, seen+16
        movl %ebp, seen+20
        movl %esi, seen+24
        movl %edi, seen+28
        pushfl
        popl seen+32
        str seen+36
        movl %cr0, %eax
        movl %eax, seen+40
        clts
        movl %fs, %eax
        movl %eax, seen+44
        ljmp $TSS, $0
t2_nested: pushfl                       # entered by CALL, INT or an exception: returns by IRET
        popl seen+32
        str seen+36
        movl %cr0, %eax
        movl %eax, seen+40
        clts
        incl count
        iretl
        jmp t2_nested
t2_error: popl seen                     # an exception with an error code
        pushfl
        popl seen+32
        movl tss+0x20, %eax
        movl %eax, seen+4
        movl tss+0x24, %eax
        movl %eax, seen+8
        movl %esp, seen+12
        movl $after_error, tss+0x20
        clts
        iretl
        jmp t2_error
t2_cr3: movl HI, %eax
        movl %eax, seen
        movl %cr3, %eax
        movl %eax, seen+4
        movl %fs:0, %eax
        movl %eax, seen+8
        sldt seen+12
        clts
        ljmp $TSS, $0
th_entry: popl h_error
        movzwl tssh, %eax
        movl %eax, h_link
        clts
        pushfl                          # no nested task any more
        andl $~0x4000, (%esp)
        popfl
        ljmp $TSS, $0
        jmp th_entry

test_main:
        LDESC T2, tss2, 103, 0x89
        LDESC TH, tssh, 103, 0x89
        LDESC T16, tss16, 43, 0x81
        LDESC LDTSEL, ldt2, 15, 0x82
        movl $0, gdt+TGATE
        movw $T2, gdt+TGATE+2
        movl $0xE500, gdt+TGATE+4
        DESC CONF, 0, 0xFFFFF, 0xC09F
        DESC C1, 0, 0xFFFFF, 0xC0BB
        movl $PD, tssh+0x1C
        movl $th_entry, tssh+0x20
        movl $2, tssh+0x24
        movl $STACKH, tssh+0x38
        movw $KDS, tssh+0x48
        movw $KCS, tssh+0x4C
        movw $KDS, tssh+0x50
        movw $KDS, tssh+0x54
        movl $PD, tss+0x1C
        movl $PD, %esi                  # the other directory: the same but for HI
        movl $PD2, %edi
        movl $1024, %ecx
        cld
        rep movsl
        movl $(0x207007), PD2+(HI>>20)
        movl $0x207000, %edi
        movl $1024, %ecx
        xorl %eax, %eax
        rep stosl
        movl $0x980003, 0x207000
        MAP HI, 0x990003
        movl $0x98, 0x980000
        movl $0x99, 0x990000
        movl $0xB0, 0xB00000

        # -- JMP and back
        TASK2 t2_note, 0x846            # ZF PF OF
        clts
        movl $0xA1, %eax
        movl $0xA2, %ecx
        movl $0xA3, %edx
        movl $0xA4, %ebx
        movl $0xA5, %ebp
        movl $0xA6, %esi
        movl $0xA7, %edi
        movw $0x5555, tss2
        stc
        ljmp $T2, $0x12345678
j1:     movl %eax, seen+48
        pushfl
        popl seen+52
        CHECK "JMP: eax of the task", seen, $0x11111111
        CHECK "JMP: ecx", seen+4, $0x22222222
        CHECK "JMP: edx", seen+8, $0x33333333
        CHECK "JMP: ebx", seen+12, $0x44444444
        CHECK "JMP: esp", seen+16, $STACK2
        CHECK "JMP: ebp", seen+20, $0x66666666
        CHECK "JMP: esi", seen+24, $0x77777777
        CHECK "JMP: edi", seen+28, $0x88888888
        CHECK "JMP: flags, no NT", seen+32, $0x846
        movzwl seen+36, %eax
        CHECK "JMP: TR", %eax, $T2
        movl seen+40, %eax
        andl $8, %eax
        CHECK "JMP: CR0.TS", %eax, $8
        movl %cr0, %eax
        andl $8, %eax
        CHECK "JMP: CR0.TS, back again", %eax, $8
        clts
        movzwl tss2, %eax
        CHECK "JMP: the link is not written", %eax, $0x5555
        CHECK "JMP: EIP saved", tss+0x20, $j1
        CHECK "JMP: eax saved", tss+0x28, $0xA1
        CHECK "JMP: edi saved", tss+0x44, $0xA7
        movl tss+0x24, %eax
        andl $1, %eax
        CHECK "JMP: flags saved", %eax, $1
        CHECK "JMP back: eax", seen+48, $0xA1
        movl seen+52, %eax
        andl $0x4001, %eax
        CHECK "JMP back: flags", %eax, $1
        BUSY "JMP back: main is busy", TSS, 1
        BUSY "JMP back: the other is not", T2, 0
        movzwl tss2+0x48, %eax
        CHECK "JMP back: ES saved", %eax, $KDS

        # -- CALL and IRET, directly and through a gate
        TASK2 t2_nested
        movl $0, count
        lcall $T2, $0
c1:     CHECK "CALL: ran", count, $1
        CHECK "CALL: NT", seen+32, $0x4002
        movzwl tss2, %eax
        CHECK "CALL: link", %eax, $TSS
        CHECK "CALL: EIP saved", tss+0x20, $c1
        BUSY "IRET: main is busy", TSS, 1
        BUSY "IRET: the other is not", T2, 0
        movl tss2+0x24, %eax
        andl $0x4000, %eax
        CHECK "IRET: NT is cleared in the image", %eax, $0
        pushfl
        popl %eax
        andl $0x4000, %eax
        CHECK "IRET: no NT here", %eax, $0
        lcall $TGATE, $0
        CHECK "CALL through a task gate: ran on behind IRET", count, $2
        USER
        lcall $TGATE+3, $0
        movl %cs, %ecx
        UEND
        MET "CALL through a task gate from ring 3", 0x80
        CHECK "CALL through a task gate from ring 3: came back", x_ecx, $UCS
        clts
        USER
9:      lcall $T2, $0
        UEND
        MET "TSS of DPL 0 from ring 3", 13, T2, 9b
        TASK2 t2_nested
        TASKGATE 0x90, T2, 0xE5
        USER 0x202
        int $0x90
u1:     movl $0x77, %ecx
        UEND
        clts
        MET "INT n through a task gate", 0x80
        CHECK "INT n through a task gate: EIP saved", tss+0x20, $u1
        CHECK "INT n through a task gate: NT", seen+32, $0x4002
        TASKGATE 0x90, T2, 0x85
        USER
9:      int $0x90
        UEND
        MET "INT n through a task gate of DPL 0", 13, 0x90*8+2, 9b
        TASKGATE 0x90, T2, 0x65
        USER
9:      int $0x90
        UEND
        MET "INT n through an absent task gate", 11, 0x90*8+2, 9b

        # -- An exception with an error code
        TASK2 t2_error
        SAVEGATE 13
        TASKGATE 13, T2
        movl $0x138, %eax
f1:     movl %eax, %fs
        hlt
after_error:
        RESTGATE 13
        CHECK "exception through a task gate: error code", seen, $0x138
        CHECK "exception through a task gate: EIP saved", seen+4, $f1
        movl seen+8, %eax
        andl $0x10000, %eax
        CHECK "exception through a task gate: RF saved", %eax, $0x10000
        CHECK "exception through a task gate: a dword was pushed", seen+12, $STACK2
        # the gate's TSS is busy, or absent: a fault with EXT, and then a double fault for #GP
        SAVEGATE 6
        TASKGATE 6, T2
        movb $0x8B, gdt+T2+5
        TRY 1f
9:      ud2
1:      MET "task gate to a busy task: EXT", 13, T2+1, 9b
        movb $0x09, gdt+T2+5
        TRY 1f
9:      ud2
1:      MET "task gate to an absent task: EXT", 11, T2+1, 9b
        TASKGATE 6, 4
        TRY 1f
9:      ud2
1:      MET "task gate to the LDT: EXT", 13, 5, 9b
        movb $0x89, gdt+T2+5
        RESTGATE 6

        # -- CR3, LDT, segments
        TASK2 t2_cr3
        movl $PD2, tss2+0x1C
        movw $LDTSEL, tss2+0x60
        movw $0xC, tss2+0x58
        ljmp $T2, $0
        CHECK "CR3 is loaded", seen+4, $PD2
        CHECK "CR3 is used", seen, $0x98
        CHECK "LDT is used", seen+8, $0xB0
        movzwl seen+12, %eax
        CHECK "LDT is loaded", %eax, $LDTSEL
        movl %cr3, %eax
        CHECK "CR3 is back", %eax, $PD
        movl HI, %eax
        CHECK "CR3 is back and used", %eax, $0x99
        sldt %eax
        CHECK "LDT is back", %eax, $0
        clts
        # conforming code: CPL is the RPL
        TASK2 t2_note
        movw $CONF, tss2+0x4C
        ljmp $T2, $0
        CHECK "conforming CS in a TSS", seen, $0x11111111
        # null FS
        TASK2 t2_note
        movw $3, tss2+0x58
        ljmp $T2, $0
        CHECK "null FS with RPL in a TSS", seen+44, $3

        # -- The T bit
        TASK2 t2_note
        movw $1, tss2+0x64
        movl $0xFFFF0FF0, %eax
        movl %eax, %dr6
        movl $0, count
        HOOK 1, note_bt
        ljmp $T2, $0
        UNHOOK 1
        CHECK "T bit: #DB once", count, $1
        CHECK "T bit: in front of the first instruction", v, $t2_note
        movl %dr6, %eax
        CHECK "T bit: BT", %eax, $0xFFFF8FF0
        CHECK "T bit: then the task runs", seen, $0x11111111
        TASK2 t2_nested
        movw $1, tss2+0x64
        movl $0, count
        HOOK 1, note_bt
        TASKGATE 0x90, T2
        int $0x90
        UNHOOK 1
        CHECK "T bit, INT n: #DB once", count, $2
        CHECK "T bit, INT n: in front of the first instruction", v, $t2_nested
        clts
        # local breakpoints are switched off, global ones are not
        movl $0x7FF, %eax
        movl $0x123456, %ecx
        movl %ecx, %dr0
        movl %ecx, %dr1
        movl %ecx, %dr2
        movl %ecx, %dr3
        movl %eax, %dr7
        TASK2 t2_note
        ljmp $T2, $0
        movl %dr7, %ecx
        xorl %eax, %eax
        movl %eax, %dr7
        CHECK "DR7: local bits", %ecx, $0x6AA
        clts

        # -- Faults before the commitment: nothing has happened
        TASK2 t2_note
        movb $0x8B, gdt+T2+5
        OLDFAULT "JMP to a busy task", T2, 13, T2
        OLDFAULT "JMP to the present task", TSS, 13, TSS
        movb $0x09, gdt+T2+5
        OLDFAULT "JMP to an absent task", T2, 11, T2
        movb $0x89, gdt+T2+5
        movw $102, gdt+T2
        OLDFAULT "JMP to a short TSS", T2, 10, T2
        BUSY "JMP to a short TSS: it is not busy", T2, 0
        movw $103, gdt+T2
        movw $42, gdt+T16
        OLDFAULT "JMP to a short 16-bit TSS", T16, 10, T16
        movw $43, gdt+T16
        OLDFAULT "JMP to a TSS in the LDT", (T2+4), 13, T2+4
        OLDFAULT "JMP to a TSS with RPL 1", (T2+1), 13, T2
        movw $0x138, gdt+TGATE+2
        OLDFAULT "task gate behind the GDT", TGATE, 13, 0x138
        movw $KDS, gdt+TGATE+2
        OLDFAULT "task gate to data", TGATE, 13, KDS
        movw $T2+4, gdt+TGATE+2
        OLDFAULT "task gate into the LDT", TGATE, 13, T2+4
        movw $T2, gdt+TGATE+2
        movb $0x65, gdt+TGATE+5
        OLDFAULT "absent task gate", TGATE, 11, TGATE
        movb $0x85, gdt+TGATE+5
        TRY 1f
        int3
1:      MET "still alive", 3
        DESC X, 0x9A0FC0, 103, 0x89     # over two pages, the second absent
        MAP 0x9A1000, 0
        OLDFAULT "JMP to a TSS in an absent page", X, 14, 0, 0x9A1000
        BUSY "JMP to a TSS in an absent page: it is not busy", X, 0
        MAP 0x9A1000, 0x9A1003
        # a short present TSS
        movw $0x5E, gdt_tss
        movb $0x89, gdt_tss+5
        movw $TSS, %ax
        ltr %ax
        OLDFAULT "the present TSS is too short", T2, 10, TSS
        movw $(tss_end-tss), gdt_tss
        movb $0x89, gdt_tss+5
        movw $TSS, %ax
        ltr %ax
        # IRET with NT
        .macro NTFAULT name, link, vec, err
        movw $\link, tss
        TRY 1f
        pushfl
        orl $0x4000, (%esp)
        popfl
9:      iretl
1:      MET "\name", \vec, \err, 9b
        .endm
        NTFAULT "IRET, NT: link to a task that is not busy", T2, 10, T2
        NTFAULT "IRET, NT: null link", 0, 10, 0
        NTFAULT "IRET, NT: link to data", KDS, 10, KDS
        NTFAULT "IRET, NT: link behind the GDT", 0x138, 10, 0x138
        NTFAULT "IRET, NT: link into the LDT", (T2+4), 10, T2+4
        movb $0x0B, gdt+T2+5
        NTFAULT "IRET, NT: absent", T2, 11, T2
        # IRET to a busy task saves this one, without NT
        TASK2 t2_note
        movb $0x8B, gdt+T2+5
        movw $T2, tss
        movb $0x89, gdt+T16+5
        pushfl
        orl $0x4001, (%esp)
        popfl
        iretl
1:      movl tss+0x24, %eax
        andl $0x4001, %eax
        CHECK "IRET by hand: NT is cleared in the image", %eax, $1
        CHECK "IRET by hand: EIP", tss+0x20, $1b
        CHECK "IRET by hand: no NT in the task", seen+32, $2
        clts

        # -- Faults after it: the new task's
        TASK2 t2_entry
        movw $0, tss2+0x4C
        NEWFAULT "null CS", 10, 0
        TASK2 t2_entry
        movw $0x138, tss2+0x4C
        NEWFAULT "CS behind the GDT", 10, 0x138
        TASK2 t2_entry
        movw $KDS, tss2+0x4C
        NEWFAULT "CS is data", 10, KDS
        TASK2 t2_entry
        movw $KCS+1, tss2+0x4C
        movw $KDS+1, tss2+0x50
        NEWFAULT "CS: RPL is not DPL", 10, KCS
        DESC CONF, 0, 0xFFFFF, 0xC0DF   # conforming code of DPL 2 with RPL 0
        TASK2 t2_entry
        movw $CONF, tss2+0x4C
        NEWFAULT "conforming CS of an outer level", 10, CONF
        TASK2 t2_entry
        movw $0, tss2+0x4C
        movw $0x138, tss2+0x50
        NEWFAULT "null CS and SS behind the GDT: SS first", 10, 0x138
        DESC X, 0, 0xFFFFF, 0xC01B
        TASK2 t2_entry
        movw $X, tss2+0x4C
        NEWFAULT "CS absent", 11, X
        DESC X, 0, 0xFFF, 0x409B
        TASK2 t2_entry
        movw $X, tss2+0x4C
        NEWFAULT "EIP behind the limit", 13, 0
        TASK2 t2_entry
        movw $0, tss2+0x50
        NEWFAULT "null SS", 10, 0
        TASK2 t2_entry
        movw $UDS, tss2+0x50
        NEWFAULT "SS of ring 3", 10, UDS-3
        TASK2 t2_entry
        movw $KCS, tss2+0x50
        NEWFAULT "SS is code", 10, KCS
        DESC X, 0, 0xFFFFF, 0xC013
        TASK2 t2_entry
        movw $X, tss2+0x50
        NEWFAULT "SS absent", 12, X
        TASK2 t2_entry
        movw $X, tss2+0x54
        NEWFAULT "DS absent", 11, X
        TASK2 t2_entry
        movw $TSS, tss2+0x5C
        NEWFAULT "GS is a TSS", 10, TSS
        DESC X, 0, 0xFFFFF, 0xC099
        TASK2 t2_entry
        movw $X, tss2+0x48
        NEWFAULT "ES is execute-only", 10, X
        TASK2 t2_entry
        movw $(C1+1), tss2+0x4C
        movw $0x138, tss2+0x60
        NEWFAULT "LDT behind the GDT", 10, 0x138
        DESC X, 0, 15, 0x02
        TASK2 t2_entry
        movw $X, tss2+0x60
        NEWFAULT "LDT absent", 10, X
        TASK2 t2_entry
        movw $KDS, tss2+0x60
        NEWFAULT "LDT is data", 10, KDS
        # -- 16 bits
        movl $tss16, %edi
        movl $22, %ecx
        xorl %eax, %eax
        rep stosw
        DESC X, 0x100000, 0xFFFF, 0x009B # 16-bit code
        movl $t16_entry, %eax
        movw %ax, tss16+0x0E
        movw $0x0847, tss16+0x10
        movw $0x1616, tss16+0x12
        movw $STACK16, tss16+0x1A
        movw $KDS, tss16+0x22
        movw $X, tss16+0x24
        movw $D16, tss16+0x26
        DESC D16, 0, 0xFFFF, 0x0093
        movw $KDS, tss16+0x28
        movb $0x81, gdt+T16+5
        movl $KDS, %eax
        movl %eax, %fs
        movl $0xABCD1234, %esi
        lcall $T16, $0
k1:     CHECK "16-bit task: eax", seen, $0xFFFF1616
        movzwl seen+4, %eax
        CHECK "16-bit task: flags, NT", %eax, $0x4847
        movzwl seen+8, %eax
        CHECK "16-bit task: FS", %eax, $0
        movzwl tss16, %eax
        CHECK "16-bit task: link", %eax, $TSS
        CHECK "16-bit task: back, esi", %esi, $0xABCD1234
        movl %fs, %eax
        CHECK "16-bit task: back, FS", %eax, $KDS
        movzwl tss16+0x0E, %eax
        CHECK "16-bit task: IP saved", %eax, $t16_back-0x100000
        movzwl tss16+0x1A, %eax
        CHECK "16-bit task: SP saved", %eax, $STACK16
        BUSY "16-bit task: not busy any more", T16, 0
        clts
        jmp finish

note_bt: movl 4(%esp), %ecx
        movl 56(%ecx), %eax
        movl %eax, v
        incl count
        ret

        .code16
t16_entry: movl $seen, %ebx
        movl %eax, (%ebx)
        pushfw
        popw %cx
        movw %cx, 4(%ebx)
        movw %fs, 8(%ebx)
        clts
        iretw
t16_back: hlt
        .code32
        .section .utext
        .balign 4096
utext_end:
