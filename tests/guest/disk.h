/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk that can tell whether somebody lost or tore a write to it.
 *
 * The first blocks of a device, or all of a file, are slots. Each write puts a whole block into a
 * random slot, with O_DIRECT: the slot's number, the write's number (from 1, by slot), random words
 * keyed with both, and a checksum of all that. For each slot memory has the last write that was
 * begun and the last that was acknowledged; so what must be on the disk is known exactly. A check
 * reads every slot while no write is under way and compares all of it.
 *
 * GW_DISK_LANES threads write, each to slots of its own, so that several writes are under way
 * when the machine is paused. No write is followed by a flush: an acknowledged one must be there
 * as it is.
 *
 * What a block is worth as a witness: an older write's block is LOST; anything that is no
 * write's block is TORN. A write that the disk refused (EIO) may be there or not.
 */
#ifndef GW_GUEST_DISK_H
#define GW_GUEST_DISK_H

#include <netinet/in.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#define GW_DISK_LANES       4u
#define GW_DISK_BLOCK_BYTES 4096u
#define GW_DISK_BLOCK_WORDS 512u
#define GW_DISK_N_KEPT      6u
#define GW_DISK_ID_BYTES    33u

enum gw_disk_kind {
    GW_DISK_GOOD,
    GW_DISK_LOST,       /* an older write than the last acknowledged one, or none at all */
    GW_DISK_TORN,       /* no write of this slot */
    GW_DISK_UNREADABLE, /* the disk gives an error */
};

/* Which writes of one slot have happened; numbers count from 1, 0 is none. */
struct gw_disk_slot {
    uint32_t n_begun;
    uint32_t n_acked;
};

struct gw_disk_finding {
    uint32_t slot;
    enum gw_disk_kind kind;
    uint32_t acked; /* write that must be there, or a later one that was begun */
    uint32_t found; /* write that is there; 0: none */
};

/* The one check that is asked for, kept after its answer for who asks again. */
struct gw_disk_request {
    enum { GW_DISK_IDLE, GW_DISK_WAITING, GW_DISK_RUNNING, GW_DISK_DONE } state;
    char id[GW_DISK_ID_BYTES];
    struct sockaddr_in from;
    char reply[900];
};

struct gw_disk {
    int fd;       /* of the device, O_DIRECT; -1: there is no disk */
    int reply_fd; /* where answers go out; -1: nowhere */
    uint64_t seed;
    uint32_t n_slots;
    uint32_t writes_per_s;      /* of all lanes */
    struct gw_disk_slot *slots; /* each written by its lane only */
    pthread_rwlock_t quiet;     /* writers share it; who has it alone sees no write under way */
    uint64_t n_acked;           /* atomic, like all below */
    uint64_t n_errors;          /* writes that the disk refused */
    uint64_t max_write_ns;      /* the slowest one; whoever stores 0 starts anew */
    uint64_t max_read_ns;
    pthread_mutex_t lock; /* guards the request */
    pthread_cond_t wake;
    struct gw_disk_request request;
};

/* "good", "lost", "torn", "unreadable". */
const char *gw_disk_kind_name(enum gw_disk_kind kind);

/* The block of that write, into words[GW_DISK_BLOCK_WORDS]. Pure. */
void gw_disk_build(uint64_t seed, uint32_t slot, uint32_t write, uint64_t *words);

/* What a block says that was read from the slot. Pure. */
struct gw_disk_finding gw_disk_judge(uint64_t seed, uint32_t slot, const struct gw_disk_slot *known,
                                     const uint64_t *words);

/* Opens the device, or makes a file of that size, and writes every slot once. Fatal when it
 * fails. */
void gw_disk_init(struct gw_disk *disk, const char *path, uint64_t bytes, uint64_t seed,
                  uint32_t writes_per_s);

/* The body of a lane's thread; lanes find their number by being started. Never returns. */
void *gw_disk_write_run(void *disk);

/* The body of the thread that checks on request. Never returns. */
void *gw_disk_check_run(void *disk);

/* Asks for a check that begins after this call; its answer goes to `from`. A known id is not
 * checked again. Returns 0, or 1 while another check is under way. */
int gw_disk_request(struct gw_disk *disk, const char *id, const struct sockaddr_in *from);

/* Puts the write before the last one (LOST) or half of another (TORN) into the slot, as a bad
 * disk would: the proof that a check can fail. Returns 0 or an errno. */
int gw_disk_spoil(struct gw_disk *disk, uint32_t slot, enum gw_disk_kind kind);

#endif
