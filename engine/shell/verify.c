/* SPDX-License-Identifier: Apache-2.0 */
#include "shell/verify.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "flow/digest.h"
#include "shell/error_json.h"
#include "util/cleanup.h"

#define THREADS_MAX     64
#define HEX             16    /* digits of a hash */
#define PAGES_MAX       16384 /* whose hashes are asked for when regions differ */
#define NARROW_MAX      16    /* regions, likewise */
#define NAMED_PAGES_MAX 64    /* in the record; in the error's message fewer */

enum state {
    IDLE,
    COMPARES_REGIONS, /* source */
    COMPARES_PAGES,   /* source */
    ANSWERS_REGIONS,  /* destination */
    ANSWERS_PAGES,    /* destination */
};

struct gw_verify {
    struct gw_verify_handler *handler;
    struct gw_ram ram;
    struct event *mail;
    int mail_fd; /* readable: all units are hashed, or it has failed */

    enum state state;
    uint64_t region_bytes;
    size_t n_regions;
    struct gw_digest_unit *units; /* being hashed */
    size_t n_units;
    uint64_t *theirs; /* source: of each unit, by the destination */
    bool hashed, heard;

    pthread_t thread[THREADS_MAX];
    unsigned n_threads; /* to be joined */
    unsigned n_threads_used;
    atomic_bool cancelled;
    atomic_size_t next_unit;
    atomic_uint n_running;
    pthread_mutex_t lock;
    struct gw_error error; /* under the lock: the first one */

    bool is_known, is_equal;
    size_t n_different_regions, n_different_pages;
    json_t *pages; /* [{block, page}], the first ones that differ */
};

/* --- hashing --------------------------------------------------------------------------------- */

static void keep_error(struct gw_verify *v, const struct gw_error *error)
{
    pthread_mutex_lock(&v->lock);
    if (v->error.code == GW_OK)
        v->error = *error;
    pthread_mutex_unlock(&v->lock);
    atomic_store(&v->cancelled, true);
}

static void hash_units(struct gw_verify *v, uint8_t *buffer)
{
    struct gw_error error;
    size_t i;

    while (!atomic_load(&v->cancelled) && (i = atomic_fetch_add(&v->next_unit, 1)) < v->n_units)
        if (gw_digest_hash(&v->ram, &v->units[i], buffer, &error) < 0)
            keep_error(v, &error);
}

static void *hash_thread(void *arg)
{
    struct gw_verify *v = arg;
    gw_autofree uint8_t *buffer = malloc(GW_DIGEST_BUFFER_BYTES);
    uint64_t one = 1;
    struct gw_error error;

    if (buffer) {
        hash_units(v, buffer);
    } else {
        gw_error_set_sys(&error, ENOMEM, "hash the guest's memory");
        keep_error(v, &error);
    }
    if (atomic_fetch_sub(&v->n_running, 1) == 1 && write(v->mail_fd, &one, sizeof one) < 0)
        abort(); /* an eventfd that nobody else writes to */
    return NULL;
}

static unsigned count_processors(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;

    return n > THREADS_MAX ? THREADS_MAX : (unsigned)n;
}

static void join(struct gw_verify *v)
{
    while (v->n_threads)
        pthread_join(v->thread[--v->n_threads], NULL);
}

/* Its end is mail. At least one thread runs, or the error is there. */
static int start_hashing(struct gw_verify *v, struct gw_error *error)
{
    unsigned n_wanted = count_processors();
    sigset_t all, before;
    int r = 0;

    v->hashed = v->heard = false;
    v->error.code = GW_OK;
    atomic_store(&v->cancelled, false);
    atomic_store(&v->next_unit, 0);
    atomic_store(&v->n_running, n_wanted);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (v->n_threads < n_wanted && r == 0) {
        r = pthread_create(&v->thread[v->n_threads], NULL, hash_thread, v);
        v->n_threads += r == 0;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    v->n_threads_used = v->n_threads;
    if (v->n_threads == n_wanted)
        return 0;
    atomic_store(&v->cancelled, true);
    join(v);
    return gw_error_set_sys(error, r, "start threads that hash the guest's memory");
}

static int make_units(struct gw_verify *v, size_t n_max, struct gw_error *error)
{
    free(v->units);
    free(v->theirs);
    v->units = calloc(n_max, sizeof *v->units);
    v->theirs = calloc(n_max, sizeof *v->theirs);
    v->n_units = 0;
    return v->units && v->theirs ? 0 : gw_error_set_sys(error, ENOMEM, "verify memory");
}

static int hash_regions(struct gw_verify *v, struct gw_error *error)
{
    if (make_units(v, GW_DIGEST_UNITS_MAX, error) < 0)
        return -1;
    v->n_units = v->n_regions =
        gw_digest_regions(&v->ram, v->region_bytes, v->units, GW_DIGEST_UNITS_MAX);
    if (!v->n_units)
        return gw_error_set(error, GW_E_UNSUPPORTED,
                            "%" PRIu64 " bytes of RAM cannot be cut into regions of %" PRIu64,
                            gw_digest_bytes(&v->ram), v->region_bytes);
    return start_hashing(v, error);
}

/* --- hashes as text -------------------------------------------------------------------------- */

static json_t *hashes_to_json(const struct gw_digest_unit *units, size_t n)
{
    gw_autofree char *text = malloc(n * HEX + 1);

    if (!text)
        return NULL;
    text[0] = '\0';
    for (size_t i = 0; i < n; i++)
        snprintf(text + i * HEX, HEX + 1, "%016" PRIx64, units[i].hash);
    return json_string(text);
}

/* 0; -1: not n hashes. Without sscanf(), which looks for the end of the text each time. */
static int hashes_from_json(const json_t *json, uint64_t *hashes, size_t n)
{
    static const char digits[] = "0123456789abcdef";
    const char *text = json_string_value(json);

    if (!text || json_string_length(json) != n * HEX || strspn(text, digits) != n * HEX)
        return -1;
    for (size_t i = 0; i < n * HEX; i++)
        hashes[i / HEX] = hashes[i / HEX] << 4 | (uint64_t)(strchr(digits, text[i]) - digits);
    return 0;
}

/* --- the source ------------------------------------------------------------------------------ */

static void finish(struct gw_verify *v, const struct gw_error *error)
{
    if (v->state == IDLE)
        return;
    v->state = IDLE;
    atomic_store(&v->cancelled, true);
    v->handler->done(v->handler, error);
}

static void name_pages(const struct gw_verify *v, char *text, size_t size)
{
    size_t used = 0, i;
    json_t *entry;

    text[0] = '\0';
    json_array_foreach (v->pages, i, entry) {
        if (used + 80 > size)
            break;
        used += (size_t)snprintf(text + used, size - used, "%s%.40s %lld", i ? ", " : "",
                                 json_string_value(json_object_get(entry, "block")),
                                 (long long)json_integer_value(json_object_get(entry, "page")));
    }
}

static void tell_difference(struct gw_verify *v)
{
    struct gw_error error;
    char pages[300];

    name_pages(v, pages, sizeof pages);
    gw_error_set(&error, GW_E_MEMORY,
                 "the guest's memory is not the same on both nodes: %zu of %zu regions of %" PRIu64
                 " KiB differ; %s pages that differ: %s",
                 v->n_different_regions, v->n_regions, v->region_bytes / 1024,
                 v->n_different_regions > NARROW_MAX || v->n_different_pages > NAMED_PAGES_MAX
                     ? "the first"
                     : "the",
                 pages[0] ? pages : "none any more");
    gw_error_hint(&error, "the guest goes on at the source; please report this with the logs of "
                          "both nodes");
    finish(v, &error);
}

static const char *block_name(const struct gw_verify *v, const struct gw_digest_unit *unit)
{
    return v->ram.block[unit->block].name;
}

static void compare_pages(struct gw_verify *v)
{
    for (size_t i = 0; i < v->n_units; i++) {
        const struct gw_digest_unit *page = &v->units[i];

        if (page->hash == v->theirs[i])
            continue;
        v->n_different_pages++;
        if (json_array_size(v->pages) < NAMED_PAGES_MAX)
            json_array_append_new(v->pages,
                                  json_pack("{s:s, s:I}", "block", block_name(v, page), "page",
                                            (json_int_t)(page->offset / GW_DIGEST_PAGE_BYTES)));
    }
    tell_difference(v);
}

/* The first regions that differ, page by page. */
static int narrow_down(struct gw_verify *v, struct gw_error *error)
{
    gw_autofree struct gw_digest_unit *regions = gw_steal_ptr(&v->units);
    gw_autofree uint64_t *theirs = gw_steal_ptr(&v->theirs);
    size_t n_regions = v->n_units;
    json_t *list = json_array(), *body;

    if (make_units(v, PAGES_MAX, error) < 0) {
        json_decref(list);
        return -1;
    }
    for (size_t i = 0; i < n_regions && json_array_size(list) < NARROW_MAX; i++) {
        const struct gw_digest_unit *r = &regions[i];
        size_t n;

        if (r->hash == theirs[i])
            continue;
        n = gw_digest_pages(r, v->units + v->n_units, PAGES_MAX - v->n_units);
        if (n == 0)
            break;
        v->n_units += n;
        json_array_append_new(list,
                              json_pack("{s:s, s:I, s:I}", "block", block_name(v, r), "offset",
                                        (json_int_t)r->offset, "bytes", (json_int_t)r->n_bytes));
    }
    v->state = COMPARES_PAGES;
    if (start_hashing(v, error) < 0) {
        json_decref(list);
        return -1;
    }
    body = json_pack("{s:o}", "regions", list);
    v->handler->send(v->handler, body);
    json_decref(body);
    return 0;
}

static void compare_regions(struct gw_verify *v)
{
    struct gw_error error;

    for (size_t i = 0; i < v->n_units; i++)
        v->n_different_regions += v->units[i].hash != v->theirs[i];
    v->is_known = true;
    v->is_equal = v->n_different_regions == 0;
    if (v->is_equal)
        finish(v, NULL);
    else if (narrow_down(v, &error) < 0)
        finish(v, &error);
}

static void compare(struct gw_verify *v)
{
    if (!v->hashed || !v->heard)
        return;
    if (v->state == COMPARES_REGIONS)
        compare_regions(v);
    else if (v->state == COMPARES_PAGES)
        compare_pages(v);
}

static const json_t *find_block(const json_t *blocks, const char *name)
{
    const json_t *entry;
    size_t i;

    json_array_foreach (blocks, i, entry) {
        const char *have = json_string_value(json_object_get(entry, "name"));

        if (have && strcmp(have, name) == 0)
            return entry;
    }
    return NULL;
}

static int take_regions(struct gw_verify *v, const json_t *blocks, struct gw_error *error)
{
    size_t at = 0;

    if (!json_is_array(blocks) || json_array_size(blocks) != v->ram.n_blocks)
        return gw_error_set(error, GW_E_PROTOCOL,
                            "the destination has hashed %zu RAM blocks, and the source has %u",
                            json_array_size(blocks), v->ram.n_blocks);
    for (unsigned i = 0; i < v->ram.n_blocks; i++) {
        const struct gw_ram_block *block = &v->ram.block[i];
        const json_t *theirs = find_block(blocks, block->name);
        size_t n = gw_digest_n_regions(block->n_bytes, v->region_bytes);

        if (json_integer_value(json_object_get(theirs, "bytes")) != (json_int_t)block->n_bytes ||
            hashes_from_json(json_object_get(theirs, "hashes"), v->theirs + at, n) < 0)
            return gw_error_set(error, GW_E_PROTOCOL,
                                "the destination has no RAM block %s of %" PRIu64
                                " bytes, or has not hashed it",
                                block->name, block->n_bytes);
        at += n;
    }
    return 0;
}

void gw_verify_take_hashes(struct gw_verify *verify, const json_t *body)
{
    const json_t *refusal = json_object_get(body, "error");
    struct gw_error error;
    int r = 0;

    if (verify->heard || (verify->state != COMPARES_REGIONS && verify->state != COMPARES_PAGES))
        return;
    if (refusal) {
        gw_error_from_json(refusal, &error);
        gw_error_prefix(&error, "the destination cannot hash its memory");
        r = -1;
    } else if (verify->state == COMPARES_REGIONS) {
        r = take_regions(verify, json_object_get(body, "blocks"), &error);
    } else if (hashes_from_json(json_object_get(body, "pages"), verify->theirs, verify->n_units) <
               0) {
        r = gw_error_set(&error, GW_E_PROTOCOL, "the destination has not hashed those pages");
    }
    if (r < 0) {
        finish(verify, &error);
        return;
    }
    verify->heard = true;
    compare(verify);
}

void gw_verify_begin(struct gw_verify *verify)
{
    struct gw_error error;
    json_t *body;

    verify->state = COMPARES_REGIONS;
    verify->region_bytes = gw_digest_region_bytes(&verify->ram);
    if (!verify->region_bytes)
        gw_error_set(&error, GW_E_UNSUPPORTED, "the guest has too much memory to be verified");
    if (!verify->region_bytes || hash_regions(verify, &error) < 0) {
        finish(verify, &error);
        return;
    }
    body = json_pack("{s:I}", "region_bytes", (json_int_t)verify->region_bytes);
    verify->handler->send(verify->handler, body);
    json_decref(body);
}

/* --- the destination ------------------------------------------------------------------------- */

static void refuse(struct gw_verify *v, const struct gw_error *error)
{
    json_t *body = json_pack("{s:o}", "error", gw_error_to_json(error));

    v->state = IDLE;
    v->handler->send(v->handler, body);
    json_decref(body);
}

static void answer(struct gw_verify *v)
{
    json_t *blocks = json_array(), *body;
    size_t at = 0;

    for (unsigned i = 0; v->state == ANSWERS_REGIONS && i < v->ram.n_blocks; i++) {
        const struct gw_ram_block *block = &v->ram.block[i];
        size_t n = gw_digest_n_regions(block->n_bytes, v->region_bytes);

        json_array_append_new(blocks, json_pack("{s:s, s:I, s:o}", "name", block->name, "bytes",
                                                (json_int_t)block->n_bytes, "hashes",
                                                hashes_to_json(v->units + at, n)));
        at += n;
    }
    if (v->state == ANSWERS_REGIONS)
        body = json_pack("{s:O}", "blocks", blocks);
    else
        body = json_pack("{s:o}", "pages", hashes_to_json(v->units, v->n_units));
    v->state = IDLE;
    v->handler->send(v->handler, body);
    json_decref(body);
    json_decref(blocks);
}

/* One of {block, offset, bytes}. 0 with *unit; -1: there is no such piece of memory. */
static int find_unit(const struct gw_verify *v, const json_t *entry, struct gw_digest_unit *unit)
{
    const char *name = json_string_value(json_object_get(entry, "block"));
    json_int_t offset = json_integer_value(json_object_get(entry, "offset"));
    json_int_t n_bytes = json_integer_value(json_object_get(entry, "bytes"));

    for (unsigned i = 0; name && i < v->ram.n_blocks; i++) {
        const struct gw_ram_block *block = &v->ram.block[i];

        if (strcmp(block->name, name) != 0)
            continue;
        if (offset < 0 || n_bytes < 1 || (uint64_t)offset > block->n_bytes ||
            (uint64_t)n_bytes > block->n_bytes - (uint64_t)offset)
            return -1;
        *unit = (struct gw_digest_unit){i, (uint64_t)offset, (uint64_t)n_bytes, 0};
        return 0;
    }
    return -1;
}

static int hash_pages(struct gw_verify *v, const json_t *regions, struct gw_error *error)
{
    struct gw_digest_unit region;
    json_t *entry;
    size_t i, n;

    if (make_units(v, PAGES_MAX, error) < 0)
        return -1;
    json_array_foreach (regions, i, entry) {
        if (find_unit(v, entry, &region) < 0 ||
            (n = gw_digest_pages(&region, v->units + v->n_units, PAGES_MAX - v->n_units)) == 0)
            return gw_error_set(error, GW_E_PROTOCOL, "VERIFY names memory that is not there");
        v->n_units += n;
    }
    return start_hashing(v, error);
}

void gw_verify_take_request(struct gw_verify *verify, const json_t *body)
{
    const json_t *regions = json_object_get(body, "regions");
    json_int_t bytes = json_integer_value(json_object_get(body, "region_bytes"));
    struct gw_error error;
    int r;

    if (verify->state != IDLE)
        return; /* it did not wait for the answer: it does not want it */
    if (regions) {
        verify->state = ANSWERS_PAGES;
        r = hash_pages(verify, regions, &error);
    } else {
        verify->state = ANSWERS_REGIONS;
        verify->region_bytes = bytes > 0 ? (uint64_t)bytes : 0;
        r = hash_regions(verify, &error);
    }
    if (r < 0)
        refuse(verify, &error);
}

/* --- both ------------------------------------------------------------------------------------ */

static void mail_came(evutil_socket_t fd, short what, void *arg)
{
    struct gw_verify *v = arg;
    uint64_t n;

    (void)what;
    if (read(fd, &n, sizeof n) < 0)
        return;
    join(v);
    v->hashed = true;
    if (v->state == IDLE)
        return;
    if (v->state == COMPARES_REGIONS || v->state == COMPARES_PAGES) {
        if (v->error.code != GW_OK)
            finish(v, &v->error);
        else
            compare(v);
    } else if (v->error.code != GW_OK) {
        refuse(v, &v->error);
    } else {
        answer(v);
    }
}

int gw_verify_open(struct event_base *base, struct gw_verify_handler *handler, pid_t pid,
                   const char *info_ramblock, struct gw_verify **verifyp, struct gw_error *error)
{
    struct gw_verify *v = calloc(1, sizeof *v);

    if (!v)
        return gw_error_set_sys(error, ENOMEM, "verify memory");
    v->handler = handler;
    v->pages = json_array();
    pthread_mutex_init(&v->lock, NULL);
    v->mail_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (v->mail_fd >= 0)
        v->mail = event_new(base, v->mail_fd, EV_READ | EV_PERSIST, mail_came, v);
    if (!v->mail || event_add(v->mail, NULL) < 0)
        gw_error_set_sys(error, ENOMEM, "verify memory");
    else if (gw_digest_open(&v->ram, pid, info_ramblock, error) == 0) {
        *verifyp = v;
        return 0;
    }
    gw_verify_free(v);
    return -1;
}

json_t *gw_verify_to_json(const struct gw_verify *verify)
{
    return json_pack(
        "{s:I, s:I, s:I, s:I, s:o, s:I, s:O}", "bytes", (json_int_t)gw_digest_bytes(&verify->ram),
        "regions", (json_int_t)verify->n_regions, "region_bytes", (json_int_t)verify->region_bytes,
        "threads", (json_int_t)verify->n_threads_used, "equal",
        verify->is_known ? json_boolean(verify->is_equal) : json_null(), "different_regions",
        (json_int_t)verify->n_different_regions, "different_pages", verify->pages);
}

void gw_verify_free(struct gw_verify *verify)
{
    if (!verify)
        return;
    atomic_store(&verify->cancelled, true);
    join(verify);
    if (verify->mail)
        event_free(verify->mail);
    gw_cleanup_close(&verify->mail_fd);
    gw_ram_close(&verify->ram);
    free(verify->units);
    free(verify->theirs);
    json_decref(verify->pages);
    pthread_mutex_destroy(&verify->lock);
    free(verify);
}
