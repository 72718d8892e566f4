/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A QEMU's RAM, read and written from outside: the destination's pages are put where the guest will
 * find them, without passing through QEMU, and the memory of both QEMUs can be compared.
 *
 * Where RAM is, `info ramblock` says: it names each block with its length and its address in QEMU
 * (HVA; QEMU 8.0 or newer prints it). process_vm_readv(2) and process_vm_writev(2) copy from and to
 * there. So it is all the same whether QEMU has the memory for itself, shares it or has it from a
 * file, in small pages or large ones, from one NUMA backend or from several; and as nothing has to
 * be shared, a guest keeps the kernel's huge pages, which shared memory seldom gets.
 *
 * They need the daemon to be root, with CAP_SYS_PTRACE (ptrace(2), "Ptrace access mode checking").
 *
 * QEMU is to be stopped in incoming state while its RAM is written. gw_ram_open() may only be
 * called once all backends exist (after QEMU's QMP answers); plugging memory makes a new open
 * necessary. After it the struct is not changed: any thread may use it. Two threads must not write
 * one page at a time, which the barrier provides (barrier.h).
 *
 * A process that got the pid of a QEMU which ended is never touched: each call first asks the
 * pidfd whether QEMU still runs, and the kernel gives a pid anew only after all others had their
 * turn (alloc_pid() in kernel/pid.c, cyclic).
 */
#ifndef GW_FLOW_RAM_H
#define GW_FLOW_RAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "godwit/error.h"

#define GW_RAM_BLOCKS_MAX 256
#define GW_RAM_PARTS_MAX  128

struct gw_ram_block {
    char name[256]; /* as in the packets of the stream */
    uint64_t n_bytes;
    uint64_t address; /* in QEMU */
    bool writable;    /* pages can be put into it: QEMU may write to all of it, and its size is for
                         good; some tables of firmware get theirs with the migration */
    bool anonymous;   /* private: of no file */
    int file;         /* private: what is mapped shared there; -1: nothing, or not within reach */
    uint64_t file_offset; /* private: of the block's first byte */
};

/* Zeros: no RAM. */
struct gw_ram {
    bool is_open; /* private, as the next two */
    int pidfd, pagemap;
    pid_t pid;
    struct gw_ram_block block[GW_RAM_BLOCKS_MAX]; /* all that `info ramblock` names */
    unsigned n_blocks;
};

/* A line of `info ramblock`. */
struct gw_ram_line {
    char name[256];
    uint64_t used_bytes, total_bytes; /* what migrates; what it can grow to */
    uint64_t address;
};

/* Bytes of a block, and where they are in this process. */
struct gw_ram_part {
    uint64_t offset;
    void *here;
    size_t n_bytes;
};

struct gw_ram_parts {
    struct gw_ram_part part[GW_RAM_PARTS_MAX];
    unsigned n;
};

/* Reads one line (up to '\n' or '\0') of `info ramblock`. 0; 1 if it is none of a block with an
 * address: a heading, or a QEMU that does not print it. */
int gw_ram_parse_line(const char *text, struct gw_ram_line *line);

/*
 * Finds the RAM of the QEMU with this pid, and reads a byte of the last block to see that it may;
 * info_ramblock is the answer to that command. 0 with n_blocks, which is 0 with a QEMU that tells
 * no addresses; -1 with *error and nothing held: GW_E_SYSTEM where the process may not
 * be read or has no readable memory at one of the addresses, GW_E_UNSUPPORTED for too many blocks
 * or two of one name.
 */
int gw_ram_open(struct gw_ram *ram, pid_t pid, const char *info_ramblock, struct gw_error *error);

/* Twice is fine, and so is a struct of zeros. */
void gw_ram_close(struct gw_ram *ram);

/* The block of that name; NULL if there is none. */
const struct gw_ram_block *gw_ram_find(const struct gw_ram *ram, const char *name);

/* Whether these bytes are all in the block. */
bool gw_ram_holds(const struct gw_ram_block *block, uint64_t offset, uint64_t n_bytes);

/* Adds one to fewer than GW_RAM_PARTS_MAX parts. What follows the last one at both ends makes that
 * one longer. */
void gw_ram_add_part(struct gw_ram_parts *parts, uint64_t offset, void *here, size_t n_bytes);

/* Copies from, and to, the block, which is one of ram's. 0; -1 with *error: GW_E_PROTOCOL if a part
 * is not in the block, and then nothing was copied; GW_E_SYSTEM. */
int gw_ram_read(const struct gw_ram *ram, const struct gw_ram_block *block,
                const struct gw_ram_parts *parts, struct gw_error *error);
int gw_ram_write(const struct gw_ram *ram, const struct gw_ram_block *block,
                 const struct gw_ram_parts *parts, struct gw_error *error);

/* As gw_ram_read(), of whole pages in a row. Those that are not there yet are zeros, and are
 * neither made nor have the kernel's zero page put in their place, in the way of a huge one. */
int gw_ram_look(const struct gw_ram *ram, const struct gw_ram_block *block, uint64_t offset,
                void *here, size_t n_bytes, struct gw_error *error);

/* Makes whole pages of the block zero; offset and n_bytes are multiples of GW_PAGE_BYTES. Pages
 * that are zero are not written, and those that are not there yet are not made. As gw_ram_write().
 */
int gw_ram_zero(const struct gw_ram *ram, const struct gw_ram_block *block, uint64_t offset,
                size_t n_bytes, struct gw_error *error);

#endif
