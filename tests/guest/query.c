/* SPDX-License-Identifier: Apache-2.0 */
#include "query.h"

#include <endian.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "say.h"

#define MAX_WORDS 4

/* A request cut into words: verb, arguments, and an optional id as the last one. */
struct request {
    char *words[MAX_WORDS];
    unsigned n_words;
    struct sockaddr_in from;
};

static uint64_t load(const uint64_t *p)
{
    return __atomic_load_n(p, __ATOMIC_RELAXED);
}

static void reply(const struct gw_query *query, const struct request *request, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static void reply(const struct gw_query *query, const struct request *request, const char *fmt, ...)
{
    char text[1400];
    va_list args;

    va_start(args, fmt);
    int n = vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    sendto(query->fd, text, n < (int)sizeof(text) ? (size_t)n : sizeof(text) - 1, MSG_DONTWAIT,
           (const struct sockaddr *)&request->from, sizeof(request->from));
}

/* The word at `at` as the request's id, "" when there is none. */
static const char *id_at(const struct request *request, unsigned at)
{
    return request->n_words > at ? request->words[at] : "";
}

static void format_pass_age(char *text, size_t n_text, uint64_t done_ns, uint64_t now_ns)
{
    if (done_ns)
        snprintf(text, n_text, "%llu", (unsigned long long)((now_ns - done_ns) / 1000000));
    else
        snprintf(text, n_text, "null");
}

static void handle_status(struct gw_query *query, const struct request *request)
{
    struct gw_finding kept[GW_N_KEPT];
    uint32_t n_bad = gw_verdict_get(query->verdict, kept);
    uint64_t now_ns = gw_now_ns();
    char age[24];

    format_pass_age(age, sizeof(age), load(&query->scanner->pass_done_ns), now_ns);
    reply(query, request,
          "{\"id\":\"%s\",\"name\":\"%s\",\"verdict\":\"%s\",\"passes\":%llu,\"pages\":%u,"
          "\"zero_pages\":%u,\"bad\":%u,\"writes\":%llu,\"skipped_writes\":%llu,"
          "\"rate_mb_per_s\":%u,\"achieved_mb_per_s\":%.1f,\"udp_sent\":%llu,"
          "\"udp_errors\":%llu,\"ticks_skipped\":%llu,\"max_tick_gap_ms\":%.3f,"
          "\"rx_packets\":%llu,\"rx_missing\":%llu,\"rx_late\":%llu,\"rx_max_gap_ms\":%.3f,"
          "\"mono_ms\":%llu,\"full_pass_since_ms\":%s}\n",
          id_at(request, 1), query->settings->name, n_bad ? "bad" : "good",
          (unsigned long long)load(&query->scanner->n_passes), query->pages->n_pages,
          query->pages->layout.n_zero_pages, n_bad,
          (unsigned long long)load(&query->pages->n_writes),
          (unsigned long long)load(&query->writer->n_skipped_pages),
          __atomic_load_n(&query->writer->rate_mb_per_s, __ATOMIC_RELAXED),
          (double)load(&query->writer->achieved_kb_per_s) / 1000.0,
          (unsigned long long)load(&query->ticker->n_sent),
          (unsigned long long)load(&query->ticker->n_errors),
          (unsigned long long)load(&query->ticker->n_skipped),
          (double)load(&query->ticker->max_gap_ns) / 1e6, (unsigned long long)query->rx.n_packets,
          (unsigned long long)query->rx.n_missing, (unsigned long long)query->rx.n_late,
          (double)query->rx.max_gap_ns / 1e6, (unsigned long long)(now_ns / 1000000), age);
}

static void handle_scan(struct gw_query *query, const struct request *request)
{
    if (request->n_words != 2 || strlen(request->words[1]) >= GW_SCAN_ID_BYTES)
        reply(query, request, "{\"error\":\"SCAN wants an id of at most %u bytes\"}\n",
              GW_SCAN_ID_BYTES - 1);
    else if (gw_scanner_request(query->scanner, request->words[1], &request->from))
        reply(query, request, "{\"id\":\"%s\",\"error\":\"too many scans are waiting\"}\n",
              request->words[1]);
}

/* DISK: what its writers have seen. */
static void handle_disk(struct gw_query *query, const struct request *request)
{
    const struct gw_disk *disk = query->disk;

    if (!disk) {
        reply(query, request, "{\"error\":\"this guest has no disk: see gw.disk\"}\n");
        return;
    }
    reply(query, request,
          "{\"id\":\"%s\",\"blocks\":%u,\"writes\":%llu,\"write_errors\":%llu,"
          "\"max_write_ms\":%.3f,\"max_read_ms\":%.3f}\n",
          id_at(request, 1), disk->n_slots, (unsigned long long)load(&disk->n_acked),
          (unsigned long long)load(&disk->n_errors), (double)load(&disk->max_write_ns) / 1e6,
          (double)load(&disk->max_read_ns) / 1e6);
}

/* VERIFY ID: reads all of the disk back. */
static void handle_verify(struct gw_query *query, const struct request *request)
{
    if (!query->disk || request->n_words != 2 || strlen(request->words[1]) >= GW_DISK_ID_BYTES)
        reply(query, request,
              "{\"error\":\"VERIFY wants a disk, and an id of at most %u bytes\"}\n",
              GW_DISK_ID_BYTES - 1);
    else if (gw_disk_request(query->disk, request->words[1], &request->from))
        reply(query, request, "{\"id\":\"%s\",\"error\":\"another check is under way\"}\n",
              request->words[1]);
}

static void handle_reset(struct gw_query *query, const struct request *request)
{
    if (query->disk) {
        __atomic_store_n(&query->disk->max_write_ns, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&query->disk->max_read_ns, 0, __ATOMIC_RELAXED);
    }
    __atomic_store_n(&query->ticker->max_gap_ns, 0, __ATOMIC_RELAXED);
    query->rx = (struct gw_rx){0};
    reply(query, request, "{\"id\":\"%s\",\"ok\":true}\n", id_at(request, 1));
}

static int number_at(const struct request *request, unsigned at, uint32_t max, uint32_t *np)
{
    char *end;

    if (request->n_words <= at || *request->words[at] < '0' || *request->words[at] > '9')
        return -1;
    unsigned long n = strtoul(request->words[at], &end, 10);
    *np = (uint32_t)n;
    return *end || n > max ? -1 : 0;
}

/* SET rate|scan MB_PER_S */
static void handle_set(struct gw_query *query, const struct request *request)
{
    const char *what = id_at(request, 1);
    uint32_t *target = !strcmp(what, "rate")   ? &query->writer->rate_mb_per_s
                       : !strcmp(what, "scan") ? &query->scanner->rate_mb_per_s
                                               : NULL;
    uint32_t value;

    if (!target || number_at(request, 2, 100000, &value)) {
        reply(query, request, "{\"error\":\"SET wants rate or scan, and MB/s\"}\n");
        return;
    }
    __atomic_store_n(target, value, __ATOMIC_RELAXED);
    reply(query, request, "{\"id\":\"%s\",\"ok\":true}\n", id_at(request, 3));
}

/* SABOTAGE lost|torn|table PAGE */
static void handle_sabotage(struct gw_query *query, const struct request *request)
{
    static const enum gw_bad_kind kinds[] = {GW_BAD_LOST, GW_BAD_TORN, GW_BAD_TABLE};
    uint32_t page;

    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (strcmp(id_at(request, 1), gw_bad_kind_name(kinds[i])) ||
            number_at(request, 2, query->pages->n_pages - 1, &page))
            continue;
        gw_pages_sabotage(query->pages, page, kinds[i]);
        reply(query, request, "{\"id\":\"%s\",\"ok\":true}\n", id_at(request, 3));
        return;
    }
    reply(query, request,
          "{\"error\":\"SABOTAGE wants lost, torn or table, and a page below %u\"}\n",
          query->pages->n_pages);
}

/* SPOIL lost|torn SLOT */
static void handle_spoil(struct gw_query *query, const struct request *request)
{
    const char *what = id_at(request, 1);
    enum gw_disk_kind kind = !strcmp(what, "lost") ? GW_DISK_LOST : GW_DISK_TORN;
    uint32_t slot;

    if (!query->disk || (kind == GW_DISK_TORN && strcmp(what, "torn")) ||
        number_at(request, 2, query->disk->n_slots - 1, &slot))
        reply(query, request, "{\"error\":\"SPOIL wants a disk, lost or torn, and a slot\"}\n");
    else if (gw_disk_spoil(query->disk, slot, kind))
        reply(query, request, "{\"error\":\"the disk refused the write\"}\n");
    else
        reply(query, request, "{\"id\":\"%s\",\"ok\":true}\n", id_at(request, 3));
}

static const struct {
    const char *verb;
    void (*handle)(struct gw_query *query, const struct request *request);
} verbs[] = {
    {"STATUS", handle_status}, {"SCAN", handle_scan},         {"RESET", handle_reset},
    {"SET", handle_set},       {"SABOTAGE", handle_sabotage}, {"DISK", handle_disk},
    {"VERIFY", handle_verify}, {"SPOIL", handle_spoil},
};

/* Ids are echoed into JSON: only these bytes get that far. */
static bool is_plain(const char *text)
{
    return !text[strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                              "-_. \n")];
}

static void handle_text(struct gw_query *query, struct request *request, char *text)
{
    char *word, *rest = text;

    while (request->n_words < MAX_WORDS && (word = strsep(&rest, " \n")))
        if (*word)
            request->words[request->n_words++] = word;
    for (size_t i = 0; request->n_words && i < sizeof(verbs) / sizeof(verbs[0]); i++) {
        if (!strcmp(request->words[0], verbs[i].verb)) {
            verbs[i].handle(query, request);
            return;
        }
    }
    reply(query, request, "{\"error\":\"no such request\"}\n");
}

static void serve_query(struct gw_query *query)
{
    struct request request = {0};
    socklen_t n_from = sizeof(request.from);
    char text[256];
    ssize_t n = recvfrom(query->fd, text, sizeof(text) - 1, MSG_DONTWAIT,
                         (struct sockaddr *)&request.from, &n_from);

    if (n < 0)
        return;
    text[n] = '\0';
    if (is_plain(text))
        handle_text(query, &request, text);
    else
        reply(query, &request, "{\"error\":\"no such request\"}\n");
}

/* Of the last GW_RX_WINDOW numbers it is known which came. */

static bool is_seen(const struct gw_rx *rx, uint64_t number)
{
    return rx->seen[number % GW_RX_WINDOW / 64] >> number % 64 & 1;
}

static void set_seen(struct gw_rx *rx, uint64_t number, bool seen)
{
    uint64_t *word = &rx->seen[number % GW_RX_WINDOW / 64];

    *word = (*word & ~(1ull << number % 64)) | (uint64_t)seen << number % 64;
}

static void note_seen(struct gw_rx *rx, uint64_t number)
{
    uint64_t from = number - rx->next < GW_RX_WINDOW ? rx->next : number - GW_RX_WINDOW + 1;

    for (uint64_t skipped = from; skipped < number; skipped++)
        set_seen(rx, skipped, false);
    set_seen(rx, number, true);
    rx->next = number + 1;
}

static void count_packet(struct gw_rx *rx, uint64_t number, const struct sockaddr_in *from)
{
    uint64_t now_ns = gw_now_ns();
    bool same =
        rx->from.sin_addr.s_addr == from->sin_addr.s_addr && rx->from.sin_port == from->sin_port;

    if (!same || number == 0)
        *rx = (struct gw_rx){.from = *from, .next = number, .last_ns = now_ns};
    rx->n_packets++;
    if (now_ns - rx->last_ns > rx->max_gap_ns)
        rx->max_gap_ns = now_ns - rx->last_ns;
    rx->last_ns = now_ns;
    if (number >= rx->next) {
        rx->n_missing += number - rx->next;
        note_seen(rx, number);
        return;
    }
    rx->n_late++;
    /* It was counted as missing, unless it comes for the second time. */
    if (rx->next - number <= GW_RX_WINDOW && !is_seen(rx, number))
        rx->n_missing -= rx->n_missing > 0;
    set_seen(rx, number, true);
}

static void serve_rx(struct gw_query *query)
{
    struct sockaddr_in from;
    socklen_t n_from = sizeof(from);
    uint64_t packet[2];

    while (recvfrom(query->rx_fd, packet, sizeof(packet), MSG_DONTWAIT, (struct sockaddr *)&from,
                    &n_from) == sizeof(packet))
        count_packet(&query->rx, be64toh(packet[0]), &from);
}

void gw_query_run(struct gw_query *query)
{
    struct pollfd fds[] = {{.fd = query->fd, .events = POLLIN},
                           {.fd = query->rx_fd, .events = POLLIN}};

    for (;;) {
        if (poll(fds, 2, -1) <= 0)
            continue;
        if (fds[0].revents)
            serve_query(query);
        if (fds[1].revents)
            serve_rx(query);
    }
}
