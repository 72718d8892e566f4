/* SPDX-License-Identifier: Apache-2.0 */
#include "scanner.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "say.h"

#define SLICE_PAGES    16u
#define SECOND_NS      1000000000u
#define MIN_PASS_NS    SECOND_NS /* a small fill must not flood the console */
#define ANSWER_KEPT_NS (60ull * SECOND_NS)

void gw_scanner_init(struct gw_scanner *scanner, struct gw_pages *pages, struct gw_verdict *verdict,
                     uint32_t rate_mb_per_s)
{
    pthread_condattr_t attributes;

    *scanner = (struct gw_scanner){
        .pages = pages, .verdict = verdict, .rate_mb_per_s = rate_mb_per_s, .fd = -1};
    pthread_mutex_init(&scanner->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&scanner->wake, &attributes);
    pthread_condattr_destroy(&attributes);
}

static void check_slice(struct gw_scanner *scanner, uint32_t from, uint32_t to)
{
    struct gw_finding finding;

    for (uint32_t page = from; page < to; page++) {
        if (page % GW_CHUNK_PAGES == 0 &&
            gw_pages_check_table(scanner->pages, page / GW_CHUNK_PAGES, &finding))
            gw_verdict_add(scanner->verdict, &finding);
        if (gw_pages_check(scanner->pages, page, &finding))
            gw_verdict_add(scanner->verdict, &finding);
    }
}

static void finish_pass(struct gw_scanner *scanner)
{
    struct gw_finding finding, kept[GW_N_KEPT];

    if (gw_pages_check_total(scanner->pages, &finding))
        gw_verdict_add(scanner->verdict, &finding);
    uint64_t now_ns = gw_now_ns();
    uint64_t n = __atomic_add_fetch(&scanner->n_passes, 1, __ATOMIC_RELAXED);

    __atomic_store_n(&scanner->pass_done_ns, now_ns, __ATOMIC_RELAXED);
    gw_say("PASS n=%llu pages=%u bad=%u writes=%llu uptime_ms=%llu", (unsigned long long)n,
           scanner->pages->n_pages, gw_verdict_get(scanner->verdict, kept),
           (unsigned long long)__atomic_load_n(&scanner->pages->n_writes, __ATOMIC_RELAXED),
           (unsigned long long)(now_ns / 1000000));
}

uint32_t gw_scanner_scan_once(struct gw_scanner *scanner)
{
    struct gw_finding kept[GW_N_KEPT];

    check_slice(scanner, 0, scanner->pages->n_pages);
    finish_pass(scanner);
    return gw_verdict_get(scanner->verdict, kept);
}

static bool any_waiting(const struct gw_scanner *scanner)
{
    for (uint32_t i = 0; i < GW_N_SCAN_REQUESTS; i++)
        if (scanner->requests[i].state == GW_SCAN_WAITING)
            return true;
    return false;
}

/* Waits until then or until somebody wants a full scan; true in the latter case. */
static bool wait_until(struct gw_scanner *scanner, uint64_t at_ns)
{
    struct timespec at = {.tv_sec = (time_t)(at_ns / SECOND_NS),
                          .tv_nsec = (long)(at_ns % SECOND_NS)};
    int timed_out = 0;

    pthread_mutex_lock(&scanner->lock);
    while (!any_waiting(scanner) && !timed_out)
        timed_out = pthread_cond_timedwait(&scanner->wake, &scanner->lock, &at);
    bool wanted = any_waiting(scanner);
    pthread_mutex_unlock(&scanner->lock);
    return wanted;
}

/* The continuous scan; gives way as soon as a full one is asked for. */
static void paced_pass(struct gw_scanner *scanner)
{
    uint64_t started_ns = gw_now_ns(), due_ns = started_ns;

    for (uint32_t page = 0; page < scanner->pages->n_pages; page += SLICE_PAGES) {
        uint64_t rate = __atomic_load_n(&scanner->rate_mb_per_s, __ATOMIC_RELAXED);
        uint64_t now_ns = gw_now_ns();

        /* Time lost is not made up for: the scan is what may wait. */
        due_ns = due_ns > now_ns ? due_ns : now_ns;
        due_ns += rate ? SLICE_PAGES * GW_PAGE_BYTES * 1000ull / rate : 0;
        if (wait_until(scanner, rate ? due_ns : UINT64_MAX) || !rate)
            return;
        uint32_t rest = scanner->pages->n_pages - page;
        check_slice(scanner, page, page + (rest < SLICE_PAGES ? rest : SLICE_PAGES));
    }
    finish_pass(scanner);
    wait_until(scanner, started_ns + MIN_PASS_NS);
}

/* {"page":17,"kind":"lost","expected":4,"found":"generation:3"}, …: below 120 bytes each. */
static void format_findings(char *text, size_t n_text, const struct gw_finding *kept, uint32_t n)
{
    size_t at = 0;

    text[0] = '\0';
    for (uint32_t i = 0; i < n && i < GW_N_KEPT; i++)
        at += (size_t)snprintf(text + at, n_text - at,
                               "%s{\"page\":%u,\"kind\":\"%s\",\"expected\":%llu,\"found\":\"%s\"}",
                               i ? "," : "", kept[i].page, gw_bad_kind_name(kept[i].kind),
                               (unsigned long long)kept[i].expected, kept[i].found);
}

static void send_reply(const struct gw_scanner *scanner, const struct gw_scan_request *request)
{
    if (scanner->fd < 0)
        return;
    sendto(scanner->fd, request->reply, strlen(request->reply), MSG_DONTWAIT,
           (const struct sockaddr *)&request->from, sizeof(request->from));
}

static void answer_running(struct gw_scanner *scanner, uint64_t started_ns)
{
    struct gw_finding kept[GW_N_KEPT];
    char list[900];
    uint32_t n_bad = gw_verdict_get(scanner->verdict, kept);
    uint64_t now_ns = gw_now_ns();

    format_findings(list, sizeof(list), kept, n_bad);
    pthread_mutex_lock(&scanner->lock);
    for (uint32_t i = 0; i < GW_N_SCAN_REQUESTS; i++) {
        struct gw_scan_request *request = &scanner->requests[i];

        if (request->state != GW_SCAN_RUNNING)
            continue;
        snprintf(request->reply, sizeof(request->reply),
                 "{\"id\":\"%s\",\"verdict\":\"%s\",\"pages_checked\":%u,\"bad\":%u,"
                 "\"took_ms\":%llu,\"mono_ms\":%llu,\"bad_pages\":[%s]}\n",
                 request->id, n_bad ? "bad" : "good", scanner->pages->n_pages, n_bad,
                 (unsigned long long)((now_ns - started_ns) / 1000000),
                 (unsigned long long)(now_ns / 1000000), list);
        request->done_ns = now_ns;
        request->state = GW_SCAN_DONE;
        send_reply(scanner, request);
    }
    pthread_mutex_unlock(&scanner->lock);
}

/* All who wait now are served by one scan; who asks while it runs waits for the next. */
static void full_pass(struct gw_scanner *scanner)
{
    uint64_t started_ns = gw_now_ns();

    pthread_mutex_lock(&scanner->lock);
    for (uint32_t i = 0; i < GW_N_SCAN_REQUESTS; i++)
        if (scanner->requests[i].state == GW_SCAN_WAITING)
            scanner->requests[i].state = GW_SCAN_RUNNING;
    pthread_mutex_unlock(&scanner->lock);
    gw_scanner_scan_once(scanner);
    answer_running(scanner, started_ns);
}

void *gw_scanner_run(void *arg)
{
    struct gw_scanner *scanner = arg;

    for (;;) {
        if (wait_until(scanner, 0))
            full_pass(scanner);
        else
            paced_pass(scanner);
    }
    return NULL;
}

static struct gw_scan_request *find_known(struct gw_scanner *scanner, const char *id)
{
    uint64_t now_ns = gw_now_ns();

    for (uint32_t i = 0; i < GW_N_SCAN_REQUESTS; i++) {
        struct gw_scan_request *request = &scanner->requests[i];

        if (request->state == GW_SCAN_DONE && now_ns - request->done_ns > ANSWER_KEPT_NS)
            *request = (struct gw_scan_request){0};
        if (request->state != GW_SCAN_FREE && !strcmp(request->id, id))
            return request;
    }
    return NULL;
}

/* A free slot (its done_ns is 0), else the one answered the longest ago, made free. */
static struct gw_scan_request *find_free(struct gw_scanner *scanner)
{
    struct gw_scan_request *best = NULL;

    for (uint32_t i = 0; i < GW_N_SCAN_REQUESTS; i++) {
        struct gw_scan_request *request = &scanner->requests[i];
        bool usable = request->state == GW_SCAN_FREE || request->state == GW_SCAN_DONE;

        if (usable && (!best || request->done_ns < best->done_ns))
            best = request;
    }
    if (best)
        *best = (struct gw_scan_request){0};
    return best;
}

int gw_scanner_request(struct gw_scanner *scanner, const char *id, const struct sockaddr_in *from)
{
    pthread_mutex_lock(&scanner->lock);
    struct gw_scan_request *request = find_known(scanner, id);
    request = request ? request : find_free(scanner);
    if (request) {
        request->from = *from;
        if (request->state == GW_SCAN_FREE) {
            snprintf(request->id, sizeof(request->id), "%s", id);
            request->state = GW_SCAN_WAITING;
            pthread_cond_signal(&scanner->wake);
        } else if (request->state == GW_SCAN_DONE) {
            send_reply(scanner, request);
        }
    }
    pthread_mutex_unlock(&scanner->lock);
    return request ? 0 : 1;
}
