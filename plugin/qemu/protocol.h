/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What crosses the border between the plugin and the monitor: messages on a Unix socket, programs of
 * probes, and the rings of records in shared memory. All numbers are little endian and naturally
 * aligned. trace/plugin/protocol.go has the same in Go; a test compares the two.
 */
#ifndef OUTSIGHT_PROTOCOL_H
#define OUTSIGHT_PROTOCOL_H

#include <stdint.h>

#define OS_PROTOCOL 5u
#define OS_MAGIC 0x74737566u

/* Messages. Each starts with a struct os_message, and its payload follows. */
enum os_message_type {
	OS_HELLO = 1,   /* plugin: struct os_hello, then names of registers, each ended by a zero */
	OS_PROGRAM = 2, /* monitor: a program; with it comes the descriptor of the rings */
	OS_READY = 3,   /* plugin: the program runs */
	OS_ERROR = 4,   /* plugin: text, why it does not */
};

struct os_message {
	uint32_t magic;
	uint32_t type;
	uint32_t length; /* of the payload */
	uint32_t reserved;
};

enum os_feature {
	OS_CAN_READ_REGISTERS = 1,
	OS_CAN_READ_MEMORY = 2,
	OS_CAN_SEE_VALUES = 4, /* of memory accesses */
	OS_CAN_GATE = 8,       /* gates spare callbacks; without, every gate is open */
};

struct os_hello {
	uint32_t protocol;
	uint32_t api_min, api_cur; /* of QEMU's plugin interface */
	uint32_t vcpus, max_vcpus;
	uint32_t features;
	uint32_t registers; /* how many names follow */
	uint32_t reserved;
	char target[16];
};

#define OS_MAX_PROGRAM (8u << 20)
#define OS_MAX_PROBES 4096u
#define OS_MAX_CODE (1u << 18)
#define OS_MAX_RANGES 64u
#define OS_MAX_REGISTERS 64u
#define OS_SLOTS 32u
#define OS_SCRATCH 32u

/* A program: this header, then its arrays in the order of their counts. */
struct os_program {
	uint32_t protocol;
	uint32_t probes;    /* struct os_probe */
	uint32_t code;      /* struct os_insn */
	uint32_t linears;   /* struct os_linear */
	uint32_t windows;   /* struct os_window */
	uint32_t registers; /* struct os_register */
	uint32_t words;     /* uint32_t: tables of jumps and bitmaps */
	uint32_t reserved;
};

enum os_where {
	OS_AT_SYSCALL = 1,   /* before a system call instruction of a kind in arg */
	OS_AT_ADDRESS = 2,   /* before the instruction at the virtual address */
	OS_AT_PHYSICAL = 3,  /* before the instruction at the guest-physical address, wherever it is mapped */
	OS_AT_WRITE = 4,     /* after a store into length bytes at the virtual address */
	OS_AT_CONTROL = 5,   /* before a load of control register arg */
	OS_AT_NEW_PAGE = 6,  /* before the first instruction in a page that was not seen with these bytes */
	OS_AT_RETURN = 7,    /* before a return from an interrupt (iret) */
	OS_AT_SLEEP = 8,     /* when a vCPU has nothing to do, and when it goes on: without registers and holds */
};

enum os_syscall_kind {
	OS_SYSCALL = 1,
	OS_SYSENTER = 2,
	OS_INT80 = 4,
};

/*
 * Each vCPU has a gate, open at the start. OS_GATE shuts and opens it; a gated probe's program runs only while it is open. QEMU
 * looks at the gate in translated code, which costs a tenth of a callback.
 */
enum os_gate {
	OS_GATED = 1, /* in arg of OS_AT_ADDRESS */
	OS_OPENS = 2, /* no program: the instruction opens the gate */
};

struct os_probe {
	uint32_t where;
	uint32_t arg;
	uint64_t address;
	uint64_t length;
	uint32_t entry; /* index of its first instruction */
	uint32_t id;    /* what its records are marked with: 16 bits */
};

/* A virtual range that maps guest-physical memory in one piece, like a kernel's direct map. */
struct os_linear {
	uint64_t address;
	uint64_t physical;
	uint64_t size;
};

/* Guest-physical memory as this process has it: an address in it, or an offset in a descriptor. */
struct os_window {
	uint64_t physical;
	uint64_t size;
	uint64_t host;   /* address, or offset in the file */
	uint32_t file;   /* 0: address; n: the nth descriptor behind that of the rings */
	uint32_t reserved;
};

struct os_register {
	char name[16];
};

/*
 * The machine has OS_SLOTS slots of 64 bits, all zero at the start, and OS_SCRATCH words for each
 * vCPU that last. Jumps go forward only, so that every program ends.
 */
enum os_op {
	OS_END = 0,  /* the record is complete */
	OS_DROP = 1, /* no record */
	OS_IMM,      /* dst = imm */
	OS_REG,      /* dst = register number arg of the program */
	OS_CTX,      /* dst = context word arg */
	OS_ADD,      /* dst = src + imm */
	OS_ADDS,     /* dst = dst + src */
	OS_AND,      /* dst = src & imm */
	OS_SHL,      /* dst = src << arg */
	OS_SHR,      /* dst = src >> arg */
	OS_MUL,      /* dst = src * imm */
	OS_FAULTED,  /* dst = whether something could not be read so far */
	OS_LOAD,     /* dst = size bytes at src + imm; if unreadable 0, and on at arg unless that is 0 */
	OS_PUT,      /* word src */
	OS_PUTN,     /* arg words: src and the slots behind it */
	OS_COPY,     /* item: min(slot dst, arg) bytes at slot src */
	OS_STR,      /* item: a string at src, up to arg bytes without its zero */
	OS_STRV,     /* items: strings by a vector of pointers of size dst at src, up to imm of them, arg bytes each */
	OS_VEC,      /* item: bytes by a vector of (pointer, length) at src, slot dst elements, arg bytes in all; pointers of imm bytes */
	OS_JMP,      /* on at arg */
	OS_JEQ,      /* if src == imm */
	OS_JNE,
	OS_JLT,      /* unsigned */
	OS_JGT,
	OS_JSET,     /* if src & imm */
	OS_JSAME,    /* if slot src == slot dst */
	OS_JBIT,     /* if bit src of the bitmap of (imm >> 32) words at word (uint32_t)imm is set */
	OS_TABLE,    /* on at word[(uint32_t)imm + src], if src < imm >> 32 and that is not 0 */
	OS_VGET,     /* dst = scratch word arg */
	OS_VSET,     /* scratch word arg = src */
	OS_VGETN,    /* dst and the slots behind it = imm scratch words from arg on */
	OS_VSETN,    /* the reverse, from src */
	OS_VFORGET,  /* scratch word arg of every vCPU that has src there, or src + 1, = 0 */
	OS_HOLD,     /* when the record is complete, wait for a decision up to arg microseconds; then do imm */
	OS_GATE,     /* open this vCPU's gate, or shut it if arg is 0 */
	OS_LAST,     /* dst = address of the last 64-bit word that is not zero, of arg words at src; 0 if there is none */
	OS_ASIDE,    /* the record is for the monitor alone: if it is lost, it counts apart */
	OS_OPS,
};

struct os_insn {
	uint8_t op, dst, src;
	uint8_t size; /* of OS_LOAD; of items: their tag */
	uint32_t arg;
	uint64_t imm;
};

enum os_context {
	OS_CTX_VCPU,
	OS_CTX_PC,
	OS_CTX_ADDRESS, /* of the access */
	OS_CTX_SIZE,
	OS_CTX_VALUE,   /* stored, or loaded into the control register; 1 if the vCPU goes on, 0 if it sleeps */
	OS_CTX_KIND,    /* enum os_syscall_kind, or the control register's number */
	OS_CTX_HASH,    /* of the new page */
	OS_CTX_CODE,    /* selector of the code segment when a system call instruction was translated; 0: unknown */
	OS_CTX_WORDS,
};

/* The rings: a page with the header, a page for each ring, then the data of each ring. */
#define OS_PAGE 4096u
#define OS_MAX_RECORD (128u << 10)

struct os_header {
	uint64_t magic;
	uint32_t protocol;
	uint32_t rings;
	uint64_t size; /* of the data of one ring, a power of two */
	uint8_t pad0[40];
	uint64_t sequence; /* of the next record, over all rings: no number is missing */
	uint8_t pad1[56];
	uint32_t waiting; /* a futex: enum os_waiting */
	uint8_t pad2[60];
	uint32_t clock_version; /* odd while the next two change */
	uint32_t pad3;
	uint64_t ticks; /* what records have as their time */
	uint64_t nanoseconds; /* CLOCK_REALTIME at that moment */
	uint64_t first_ticks, first_nanoseconds; /* the same when the program came */
};

struct os_ring {
	uint64_t head; /* bytes written; the plugin's */
	uint64_t lost; /* records that found no room */
	uint64_t aside; /* the same, of those by OS_ASIDE */
	uint8_t pad0[40];
	uint64_t tail; /* bytes read; the monitor's */
	uint8_t pad1[56];
	uint32_t hold;     /* a futex: enum os_hold_state */
	uint32_t overdue;  /* holds that nobody decided */
	uint64_t held;     /* sequence number of the record that waits */
	uint64_t waited;   /* ticks of the last hold, from the record to the decision's arrival */
};

/* How the monitor waits. One that looks by itself every moment needs no call to the host's kernel from a vCPU. */
enum os_waiting {
	OS_AWAKE = 0,
	OS_SLEEPS = 1, /* wake it for any record */
	OS_DOZES = 2,  /* wake it for a record that is held, or when a ring is half full */
};

enum os_hold_state {
	OS_FREE = 0,
	OS_HELD = 1,
	OS_GO = 2,
	OS_ASLEEP = 3, /* held, and the vCPU has to be woken */
};

enum os_hold_default {
	OS_HOLD_GO = 0,
	OS_HOLD_STOP = 1, /* stop QEMU as a whole (SIGSTOP), to be continued by hand */
};

enum os_record_flag {
	OS_FAULT = 1,     /* something could not be read */
	OS_TRUNCATED = 2, /* the record was full before the program's end */
	OS_WAITS = 4,     /* the vCPU waits for a decision */
	OS_PAD = 0x8000,  /* nothing: the rest of the ring up to its end */
};

struct os_record {
	uint32_t length; /* with this header, a multiple of 8 */
	uint16_t probe;
	uint16_t flags;
	uint64_t sequence;
	uint64_t ticks;
	uint32_t words; /* 64-bit words that follow; behind them come items */
	uint32_t reserved;
};

enum os_item_status {
	OS_WHOLE = 0,
	OS_CUT = 1,        /* there is more */
	OS_UNREADABLE = 2, /* what follows the bytes that are here */
};

struct os_item {
	uint32_t length; /* of the bytes that follow, which are padded to 8 */
	uint8_t tag;
	uint8_t status;
	uint16_t reserved;
};

#endif
