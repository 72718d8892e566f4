/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest that tries an accelerator: a firmware of one page, mapped at the very top of 4 GiB.
 *
 * It does what the first milliseconds of every kernel do and what half-working virtualisation
 * gets wrong or slow, writes one letter to the debug console (port 0xe9) after each stage, and
 * leaves through isa-debug-exit (port 0xf4). No firmware, disk or kernel is needed.
 *
 *   L   real mode -> protected mode -> long mode with four-level paging
 *   C   cpuid, and 40 million instructions of supervisor code with memory writes
 *   P   4096 page faults on a 4 KiB-paged window, each mapped by the handler, written and read
 *       back through another mapping; remapped and flushed between rounds
 *   T   ten interrupts of the local APIC's timer while halted
 *
 * Any unexpected exception leaves at once with another status. RAM is used below 8 MiB and is
 * known to be zero: QEMU has just allocated it.
 */
#define IMAGE      0xfffff000 /* where the page lies in the guest */
#define CODE32     0x08
#define CODE64     0x10
#define DATA       0x18

#define PML4       0x10000
#define PDPT       0x11000
#define PD_LOW     0x12000 /* identity, 0-1 GiB */
#define PD_HIGH    0x13000 /* identity, 3-4 GiB: this page and the local APIC */
#define PD_WINDOW  0x14000 /* 1 GiB: the window of stage P */
#define PT_WINDOW  0x15000
#define IDT        0x16000
#define STACK_TOP  0x20000
#define SCRATCH    0x20000
#define FRAMES     0x400000 /* the window's 512 frames */
#define WINDOW     0x40000000
#define N_PAGES    512
#define N_ROUNDS   8
#define N_TICKS    10
#define N_LOOPS    10000000 /* of four instructions */
#define N_CPUID    64

#define APIC       0xfee00000
#define APIC_EOI   0xb0
#define APIC_SVR   0xf0
#define APIC_LVT_TIMER 0x320
#define APIC_COUNT 0x380
#define APIC_DIVIDE 0x3e0
#define VECTOR_PF  14
#define VECTOR_TIMER 0x40

#define STATUS_PASS 0x2a /* QEMU's exit status is 2 * this + 1 = 85 */
#define STATUS_FAULT 0x2b
#define STATUS_DATA 0x2c

#define OFFSET(label) (label - gw_accel_payload)
#define AT(label)     (IMAGE + OFFSET(label))

    .section .rodata.gw_accel_payload, "a"
    .balign 16
    .globl gw_accel_payload
    .hidden gw_accel_payload
gw_accel_payload:

    .code16
start16:
    cli
    lgdtl %cs:(0xf000 + OFFSET(gdt_pointer))
    movl %cr0, %eax
    orl $1, %eax
    movl %eax, %cr0
    ljmpl $CODE32, $AT(start32)

    .code32
start32:
    movl $DATA, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl $STACK_TOP, %esp

    movl $(PDPT + 3), PML4
    movl $(PD_LOW + 3), PDPT
    movl $(PD_WINDOW + 3), PDPT + 8
    movl $(PD_HIGH + 3), PDPT + 24
    movl $(PT_WINDOW + 3), PD_WINDOW
    movl $0x83, %eax /* present, writable, 2 MiB */
    movl $0xc0000083, %ebx
    xorl %edi, %edi
1:  movl %eax, PD_LOW(, %edi, 8)
    movl %ebx, PD_HIGH(, %edi, 8)
    addl $0x200000, %eax
    addl $0x200000, %ebx
    incl %edi
    cmpl $512, %edi
    jne 1b

    movl $0x20, %eax /* PAE */
    movl %eax, %cr4
    movl $PML4, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx /* EFER */
    rdmsr
    orl $0x100, %eax /* LME */
    wrmsr
    movl %cr0, %eax
    orl $0x80010000, %eax /* PG, WP */
    movl %eax, %cr0
    ljmpl $CODE64, $AT(start64)

    .code64
start64:
    movb $'L', %al
    outb %al, $0xe9

    /* Every vector leaves; those that are expected are replaced. */
    xorl %edi, %edi
1:  movl $AT(on_fault), %esi
    call set_vector
    incl %edi
    cmpl $256, %edi
    jne 1b
    movl $VECTOR_PF, %edi
    movl $AT(on_page_fault), %esi
    call set_vector
    movl $VECTOR_TIMER, %edi
    movl $AT(on_timer), %esi
    call set_vector
    movl $AT(idt_pointer), %eax
    lidt (%rax)

    movl $N_CPUID, %edi
1:  xorl %eax, %eax
    xorl %ecx, %ecx
    cpuid
    decl %edi
    jnz 1b
    movl $N_LOOPS, %ecx
    xorl %eax, %eax
1:  addl %ecx, %eax
    movl %eax, SCRATCH
    decl %ecx
    jnz 1b
    movb $'C', %al
    outb %al, $0xe9

    xorl %r12d, %r12d /* the round */
    xorl %r13d, %r13d /* faults taken, counted by the handler */
3:  movq $PML4, %rax
    movq %rax, %cr3
    xorl %ebx, %ebx
4:  movl %ebx, %edi
    shll $12, %edi
    movl %ebx, %eax
    shll $8, %eax
    orl %r12d, %eax
    movl %eax, WINDOW(%rdi) /* faults; on_page_fault maps it */
    leal (%rbx, %r12), %edx /* the frame that the handler chose */
    andl $(N_PAGES - 1), %edx
    shll $12, %edx
    cmpl %eax, FRAMES(%rdx)
    jne bad_data
    movq $0, PT_WINDOW(, %rbx, 8)
    invlpg WINDOW(%rdi)
    incl %ebx
    cmpl $N_PAGES, %ebx
    jne 4b
    incl %r12d
    cmpl $N_ROUNDS, %r12d
    jne 3b
    cmpl $(N_PAGES * N_ROUNDS), %r13d
    jne bad_data
    movb $'P', %al
    outb %al, $0xe9

    xorl %r14d, %r14d /* ticks, counted by the handler */
    movl $APIC, %ebx
    movl $0x1ff, APIC_SVR(%rbx)
    movl $0xb, APIC_DIVIDE(%rbx)
    movl $(0x20000 | VECTOR_TIMER), APIC_LVT_TIMER(%rbx) /* periodic */
    movl $500000, APIC_COUNT(%rbx)
5:  sti
    hlt
    cli
    cmpl $N_TICKS, %r14d
    jb 5b
    movb $'T', %al
    outb %al, $0xe9
    movb $STATUS_PASS, %al
leave:
    outb %al, $0xf4
6:  hlt
    jmp 6b

bad_data:
    movb $STATUS_DATA, %al
    jmp leave
on_fault:
    movb $STATUS_FAULT, %al
    jmp leave

/* edi: vector, esi: handler. */
set_vector:
    movl %edi, %edx
    shll $4, %edx
    movw %si, IDT(%rdx)
    movl %esi, %eax
    shrl $16, %eax
    movw %ax, IDT + 6(%rdx)
    movw $0x8e00, IDT + 4(%rdx) /* present, interrupt gate */
    movw $CODE64, IDT + 2(%rdx)
    ret

/* Maps page ebx of the window to frame (ebx + round) mod N_PAGES: no other fault is expected. */
on_page_fault:
    addq $8, %rsp /* the error code */
    pushq %rax
    pushq %rdx
    movq %cr2, %rax
    shrq $12, %rax
    subl $(WINDOW >> 12), %eax
    cmpl %ebx, %eax
    jne bad_data
    leal (%rbx, %r12), %edx
    andl $(N_PAGES - 1), %edx
    shll $12, %edx
    leal FRAMES + 3(%rdx), %edx
    movq %rdx, PT_WINDOW(, %rax, 8)
    incl %r13d
    popq %rdx
    popq %rax
    iretq

on_timer:
    incl %r14d
    movl $0, APIC_EOI(%rbx)
    iretq

    .balign 8
gdt:
    .quad 0
    .quad 0x00cf9b000000ffff
    .quad 0x00af9b000000ffff
    .quad 0x00cf93000000ffff
gdt_pointer:
    .word gdt_pointer - gdt - 1
    .long AT(gdt)
idt_pointer:
    .word 256 * 16 - 1
    .quad IDT

    .org OFFSET(gw_accel_payload) + 0xff0
    .code16
    /* The reset vector: F000:FFF0, at the end of the page. */
    jmp start16
    .org OFFSET(gw_accel_payload) + 0x1000
    .globl gw_accel_payload_end
    .hidden gw_accel_payload_end
gw_accel_payload_end:

    .section .note.GNU-stack, "", @progbits
