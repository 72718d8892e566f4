/* SPDX-License-Identifier: Apache-2.0 */
#include "disk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "say.h"

#define SECOND_NS    1000000000ull
#define MAX_DEBT_NS  100000000ull
#define MAGIC        0x6469736b676f6477ull
#define CHUNK_BLOCKS 16u /* read at once by a check */

const char *gw_disk_kind_name(enum gw_disk_kind kind)
{
    static const char *const names[] = {"good", "lost", "torn", "unreadable"};

    return names[kind];
}

/* The finaliser of splitmix64: one bit in, half of the bits out. */
static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

static uint64_t checksum(const uint64_t *words)
{
    uint64_t sum = MAGIC;

    for (uint32_t i = 0; i < GW_DISK_BLOCK_WORDS - 1; i++)
        sum = mix(sum + words[i]);
    return sum;
}

void gw_disk_build(uint64_t seed, uint32_t slot, uint32_t write, uint64_t *words)
{
    uint64_t key = mix(mix(seed) + ((uint64_t)write << 32 | slot));

    words[0] = MAGIC;
    words[1] = (uint64_t)write << 32 | slot;
    for (uint32_t i = 2; i < GW_DISK_BLOCK_WORDS - 1; i++)
        words[i] = mix(key + i);
    words[GW_DISK_BLOCK_WORDS - 1] = checksum(words);
}

struct gw_disk_finding gw_disk_judge(uint64_t seed, uint32_t slot, const struct gw_disk_slot *known,
                                     const uint64_t *words)
{
    struct gw_disk_finding finding = {.slot = slot, .kind = GW_DISK_TORN, .acked = known->n_acked};
    uint64_t wanted[GW_DISK_BLOCK_WORDS];
    uint32_t write = (uint32_t)(words[1] >> 32);

    gw_disk_build(seed, slot, write, wanted);
    if (memcmp(words, wanted, sizeof(wanted))) {
        static const uint64_t zeros[GW_DISK_BLOCK_WORDS];

        if (!memcmp(words, zeros, sizeof(zeros)))
            finding.kind = GW_DISK_LOST;
        return finding;
    }
    finding.found = write;
    if (write >= known->n_acked && write <= known->n_begun)
        finding.kind = GW_DISK_GOOD;
    else if (write < known->n_acked)
        finding.kind = GW_DISK_LOST;
    return finding;
}

static void *aligned(size_t bytes)
{
    void *memory = NULL;

    if (posix_memalign(&memory, GW_DISK_BLOCK_BYTES, bytes))
        gw_fatal("disk: %s", strerror(ENOMEM));
    return memory;
}

static void keep_largest(uint64_t *largestp, uint64_t value)
{
    uint64_t seen = __atomic_load_n(largestp, __ATOMIC_RELAXED);

    while (value > seen && !__atomic_compare_exchange_n(largestp, &seen, value, true,
                                                        __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        ;
}

static off_t offset_of(uint32_t slot)
{
    return (off_t)slot * GW_DISK_BLOCK_BYTES;
}

/* The slot's next write, from its beginning to the acknowledgement. Returns 0 or an errno. */
static int write_slot(struct gw_disk *disk, uint32_t slot, uint64_t *words)
{
    struct gw_disk_slot *known = &disk->slots[slot];

    gw_disk_build(disk->seed, slot, ++known->n_begun, words);
    uint64_t began_ns = gw_now_ns();
    ssize_t n = pwrite(disk->fd, words, GW_DISK_BLOCK_BYTES, offset_of(slot));
    int error = n < 0 ? errno : n == GW_DISK_BLOCK_BYTES ? 0 : EIO;

    keep_largest(&disk->max_write_ns, gw_now_ns() - began_ns);
    if (error) {
        __atomic_add_fetch(&disk->n_errors, 1, __ATOMIC_RELAXED);
        return error;
    }
    known->n_acked = known->n_begun;
    __atomic_add_fetch(&disk->n_acked, 1, __ATOMIC_RELAXED);
    return 0;
}

/* In large pieces: one by one it would take seconds before the guest is ready. */
static void write_all(struct gw_disk *disk)
{
    uint64_t *words = aligned(CHUNK_BLOCKS * GW_DISK_BLOCK_BYTES);

    for (uint32_t at = 0; at < disk->n_slots; at += CHUNK_BLOCKS) {
        uint32_t n = disk->n_slots - at < CHUNK_BLOCKS ? disk->n_slots - at : CHUNK_BLOCKS;

        for (uint32_t i = 0; i < n; i++)
            gw_disk_build(disk->seed, at + i, 1, words + i * GW_DISK_BLOCK_WORDS);
        if (pwrite(disk->fd, words, n * GW_DISK_BLOCK_BYTES, offset_of(at)) !=
            (ssize_t)(n * GW_DISK_BLOCK_BYTES))
            gw_fatal("disk: the first write of slots %u to %u: %s", at, at + n - 1,
                     strerror(errno));
        for (uint32_t i = 0; i < n; i++)
            disk->slots[at + i] = (struct gw_disk_slot){1, 1};
    }
    /* What a new file's blocks are is known for good now; no later write is followed by this. */
    if (fsync(disk->fd))
        gw_fatal("disk: flush: %s", strerror(errno));
    free(words);
}

/* A device is as large as it is; a file's blocks are all allocated, so that no write needs the file
 * system's journal to find its data again. */
static int open_space(const char *path, off_t bytes)
{
    int make = strncmp(path, "/dev/", 5) ? O_CREAT : 0;
    int fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC | make, 0600);
    struct stat is;

    if (fd < 0 || fstat(fd, &is))
        gw_fatal("gw.disk: open %s: %s", path, strerror(errno));
    int error = S_ISREG(is.st_mode) ? posix_fallocate(fd, 0, bytes) : 0;
    if (error)
        gw_fatal("gw.disk: %s: %s", path, strerror(error));
    if (lseek(fd, 0, SEEK_END) < bytes)
        gw_fatal("gw.disk: %s is smaller than that", path);
    return fd;
}

void gw_disk_init(struct gw_disk *disk, const char *path, uint64_t bytes, uint64_t seed,
                  uint32_t writes_per_s)
{
    pthread_rwlockattr_t attributes;

    *disk = (struct gw_disk){.reply_fd = -1,
                             .seed = seed,
                             .n_slots = (uint32_t)(bytes / GW_DISK_BLOCK_BYTES),
                             .writes_per_s = writes_per_s};
    disk->fd = open_space(path, (off_t)bytes);
    disk->slots = calloc(disk->n_slots, sizeof(*disk->slots));
    if (!disk->slots || disk->n_slots < GW_DISK_LANES)
        gw_fatal("gw.disk: %u blocks", disk->n_slots);
    pthread_rwlockattr_init(&attributes);
    /* A check must get its turn, and there is always a writer. */
    pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&disk->quiet, &attributes);
    pthread_mutex_init(&disk->lock, NULL);
    pthread_cond_init(&disk->wake, NULL);
    write_all(disk);
}

static void sleep_until(uint64_t at_ns)
{
    struct timespec at = {.tv_sec = (time_t)(at_ns / SECOND_NS),
                          .tv_nsec = (long)(at_ns % SECOND_NS)};

    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL))
        ;
}

void *gw_disk_write_run(void *arg)
{
    static uint32_t n_lanes;
    struct gw_disk *disk = arg;
    uint32_t lane = __atomic_fetch_add(&n_lanes, 1, __ATOMIC_RELAXED);
    uint64_t *words = aligned(GW_DISK_BLOCK_BYTES);
    uint64_t period_ns = SECOND_NS * GW_DISK_LANES / disk->writes_per_s, due_ns = gw_now_ns();
    uint64_t random = disk->seed + lane;
    uint32_t n_own = disk->n_slots / GW_DISK_LANES;

    for (;;) {
        uint64_t now_ns = gw_now_ns();

        due_ns = due_ns + MAX_DEBT_NS > now_ns ? due_ns + period_ns : now_ns;
        sleep_until(due_ns);
        random = mix(random + 0x9e3779b97f4a7c15ull);
        pthread_rwlock_rdlock(&disk->quiet);
        write_slot(disk, (uint32_t)(random % n_own) * GW_DISK_LANES + lane, words);
        pthread_rwlock_unlock(&disk->quiet);
    }
    return NULL;
}

int gw_disk_spoil(struct gw_disk *disk, uint32_t slot, enum gw_disk_kind kind)
{
    uint64_t *words = aligned(GW_DISK_BLOCK_BYTES);
    int error = 0;

    pthread_rwlock_wrlock(&disk->quiet);
    gw_disk_build(disk->seed, slot, disk->slots[slot].n_acked - (kind == GW_DISK_LOST), words);
    if (kind == GW_DISK_TORN)
        memset(words + GW_DISK_BLOCK_WORDS / 2, 0, GW_DISK_BLOCK_BYTES / 2);
    if (pwrite(disk->fd, words, GW_DISK_BLOCK_BYTES, offset_of(slot)) != GW_DISK_BLOCK_BYTES)
        error = EIO;
    pthread_rwlock_unlock(&disk->quiet);
    free(words);
    return error;
}

/* --- the check ---------------------------------------------------------------------- */

struct check {
    uint32_t n_bad[4]; /* by kind */
    uint32_t n_kept;
    struct gw_disk_finding kept[GW_DISK_N_KEPT];
};

static void note(struct check *check, const struct gw_disk_finding *finding)
{
    check->n_bad[finding->kind]++;
    if (finding->kind == GW_DISK_GOOD)
        return;
    gw_say("DISK BAD slot=%u kind=%s acked=%u found=%u", finding->slot,
           gw_disk_kind_name(finding->kind), finding->acked, finding->found);
    if (check->n_kept < GW_DISK_N_KEPT)
        check->kept[check->n_kept++] = *finding;
}

static void check_all(struct gw_disk *disk, struct check *check)
{
    uint64_t *words = aligned(CHUNK_BLOCKS * GW_DISK_BLOCK_BYTES);

    for (uint32_t at = 0; at < disk->n_slots; at += CHUNK_BLOCKS) {
        uint32_t n = disk->n_slots - at < CHUNK_BLOCKS ? disk->n_slots - at : CHUNK_BLOCKS;
        uint64_t began_ns = gw_now_ns();
        bool read = pread(disk->fd, words, n * GW_DISK_BLOCK_BYTES, offset_of(at)) ==
                    (ssize_t)(n * GW_DISK_BLOCK_BYTES);

        keep_largest(&disk->max_read_ns, gw_now_ns() - began_ns);
        for (uint32_t i = 0; i < n; i++) {
            struct gw_disk_finding finding = {.slot = at + i, .kind = GW_DISK_UNREADABLE};

            if (read)
                finding = gw_disk_judge(disk->seed, at + i, &disk->slots[at + i],
                                        words + i * GW_DISK_BLOCK_WORDS);
            note(check, &finding);
        }
    }
    free(words);
}

/* {"slot":17,"kind":"lost","acked":4,"found":3}, …: below 90 bytes each. */
static void format_kept(char *text, size_t n_text, const struct check *check)
{
    size_t at = 0;

    text[0] = '\0';
    for (uint32_t i = 0; i < check->n_kept; i++)
        at += (size_t)snprintf(text + at, n_text - at,
                               "%s{\"slot\":%u,\"kind\":\"%s\",\"acked\":%u,\"found\":%u}",
                               i ? "," : "", check->kept[i].slot,
                               gw_disk_kind_name(check->kept[i].kind), check->kept[i].acked,
                               check->kept[i].found);
}

static void send_reply(const struct gw_disk *disk, const struct gw_disk_request *request)
{
    if (disk->reply_fd >= 0)
        sendto(disk->reply_fd, request->reply, strlen(request->reply), MSG_DONTWAIT,
               (const struct sockaddr *)&request->from, sizeof(request->from));
}

static void answer(struct gw_disk *disk, const struct check *check, uint64_t took_ns)
{
    uint32_t n_bad = disk->n_slots - check->n_bad[GW_DISK_GOOD];
    struct gw_disk_request *request = &disk->request;
    char list[600];

    format_kept(list, sizeof(list), check);
    pthread_mutex_lock(&disk->lock);
    snprintf(request->reply, sizeof(request->reply),
             "{\"id\":\"%s\",\"verdict\":\"%s\",\"blocks\":%u,\"lost\":%u,\"torn\":%u,"
             "\"unreadable\":%u,\"writes\":%llu,\"write_errors\":%llu,\"took_ms\":%llu,"
             "\"bad_blocks\":[%s]}\n",
             request->id, n_bad ? "bad" : "good", disk->n_slots, check->n_bad[GW_DISK_LOST],
             check->n_bad[GW_DISK_TORN], check->n_bad[GW_DISK_UNREADABLE],
             (unsigned long long)__atomic_load_n(&disk->n_acked, __ATOMIC_RELAXED),
             (unsigned long long)__atomic_load_n(&disk->n_errors, __ATOMIC_RELAXED),
             (unsigned long long)(took_ns / 1000000), list);
    request->state = GW_DISK_DONE;
    send_reply(disk, request);
    pthread_mutex_unlock(&disk->lock);
}

void *gw_disk_check_run(void *arg)
{
    struct gw_disk *disk = arg;

    for (;;) {
        struct check check = {.n_kept = 0};

        pthread_mutex_lock(&disk->lock);
        while (disk->request.state != GW_DISK_WAITING)
            pthread_cond_wait(&disk->wake, &disk->lock);
        disk->request.state = GW_DISK_RUNNING;
        pthread_mutex_unlock(&disk->lock);
        pthread_rwlock_wrlock(&disk->quiet);
        uint64_t began_ns = gw_now_ns();
        check_all(disk, &check);
        pthread_rwlock_unlock(&disk->quiet);
        answer(disk, &check, gw_now_ns() - began_ns);
    }
    return NULL;
}

int gw_disk_request(struct gw_disk *disk, const char *id, const struct sockaddr_in *from)
{
    struct gw_disk_request *request = &disk->request;
    int busy = 0;

    pthread_mutex_lock(&disk->lock);
    bool under_way = request->state == GW_DISK_WAITING || request->state == GW_DISK_RUNNING;
    bool known = request->state != GW_DISK_IDLE && !strcmp(request->id, id);
    if (under_way && !known) {
        busy = 1;
    } else if (known) {
        request->from = *from;
        if (request->state == GW_DISK_DONE)
            send_reply(disk, request);
    } else {
        *request = (struct gw_disk_request){.state = GW_DISK_WAITING, .from = *from};
        snprintf(request->id, sizeof(request->id), "%s", id);
        pthread_cond_signal(&disk->wake);
    }
    pthread_mutex_unlock(&disk->lock);
    return busy;
}
