/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A QEMU's guest RAM, mapped into this process: the destination's pages are written where the guest
 * will find them, without passing through QEMU.
 *
 * Which memory belongs to which RAM block is taken from two lists and nothing is guessed from names
 * or sizes (all memfds of QEMU are called "memory-backend-memfd"): `info ramblock` names each block
 * with its length and its address in QEMU (HVA; QEMU 8.0 or newer prints it), /proc/PID/maps says
 * which file is mapped shared at that address, and one of /proc/PID/fd is that file. So memfds,
 * files, huge pages and several NUMA backends are all the same here. A block that is not shared, or
 * whose file QEMU does not hold open, is simply not there: its pages go through QEMU.
 *
 * QEMU is to be stopped in incoming state while its RAM is written. gw_ram_open() may only be
 * called once all backends exist (after QEMU's QMP answers); plugging memory makes a new open
 * necessary. After it the struct is not changed: any thread may use it. Two threads must not write
 * one page at a time, which the barrier provides (barrier.h).
 *
 * A file that its owner shortens ends this process with SIGBUS at the next access; memfds of QEMU
 * and ours (util/shmem.h) are sealed against that.
 */
#ifndef GW_FLOW_RAM_H
#define GW_FLOW_RAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "godwit/error.h"

#define GW_RAM_BLOCKS_MAX 64

/* One mapped RAM block. */
struct gw_ram_block {
    char name[256]; /* as in the packets of the stream */
    uint64_t n_bytes;
    uint8_t *at;        /* private: [0, n_bytes), shared with QEMU */
    int fd;             /* private: of its file, opened anew */
    bool by_file;       /* private: its pages can be written with pwrite() */
    uint64_t fd_offset; /* private: where in the file the block begins */
};

struct gw_ram {
    struct gw_ram_block block[GW_RAM_BLOCKS_MAX];
    unsigned n_blocks; /* mapped */
};

/* A line of `info ramblock`. */
struct gw_ram_line {
    char name[256];
    uint64_t used_bytes; /* what migrates */
    uint64_t address;    /* in QEMU's address space */
};

/* Reads one line (up to '\n' or '\0') of `info ramblock`. 0; 1 if it is none of a block with an
 * address: a heading, or a QEMU that does not print it. */
int gw_ram_parse_line(const char *text, struct gw_ram_line *line);

/*
 * Maps what can be mapped of the QEMU with this pid; info_ramblock is the answer to that command.
 * 0 with n_blocks, which may be 0. -1 with *error (GW_E_SYSTEM) and nothing held if /proc/PID
 * cannot be read: it needs QEMU's user or root.
 */
int gw_ram_open(struct gw_ram *ram, pid_t pid, const char *info_ramblock, struct gw_error *error);

/* Unmaps everything. Twice is fine, and so is a struct of zeros. */
void gw_ram_close(struct gw_ram *ram);

/* The block of that name; NULL if it is not mapped. */
const struct gw_ram_block *gw_ram_find(const struct gw_ram *ram, const char *name);

/* Where these bytes of the block are, for reading or writing; NULL if any is outside of it. */
uint8_t *gw_ram_at(const struct gw_ram_block *block, uint64_t offset, size_t n_bytes);

/* Copies bytes into the block. 0; 1 if any is outside of it, and nothing was written. Memory of a
 * memfd is written by its descriptor where it has no huge pages (util/shmem.h): that takes no page
 * fault, and pages which are new and written whole are not cleared first. */
int gw_ram_write(const struct gw_ram_block *block, uint64_t offset, const void *data,
                 size_t n_bytes);

/* Makes these bytes zero. Pages that are zero are not written, and what the file does not have
 * yet is not even made. 0; 1 if any is outside of the block. */
int gw_ram_zero(const struct gw_ram_block *block, uint64_t offset, size_t n_bytes);

#endif
