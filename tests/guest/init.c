/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The test guest: the first and only process of a virtual machine that works like one under
 * load and knows whether its memory is still its own.
 *
 * main() boots, fills memory, starts a writer, a scanner and a ticker, prints
 * "GUEST READY", and then serves queries for ever. Whatever goes wrong before READY powers
 * the machine off with "GUEST ERROR". Nothing is freed: the machine ends with the process.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "boot.h"
#include "query.h"
#include "say.h"
#include "tcpsink.h"

#define MIB            (1ull << 20)
#define DISK           "/dev/vda"
#define FILE_OF_BLOCKS "/blocks" /* instead of the disk, if that has the root */

static struct gw_settings settings;
static struct gw_pages pages;
static struct gw_verdict verdict;
static struct gw_writer writer;
static struct gw_scanner scanner;
static struct gw_ticker ticker;
static struct gw_disk disk;
static struct gw_query query;
static struct gw_tcpsink tcpsink;

static void read_settings(void)
{
    char cmdline[4096], why[200];

    gw_boot_read("/proc/cmdline", cmdline, sizeof(cmdline));
    if (gw_settings_parse(&settings, cmdline, why, sizeof(why)))
        gw_fatal("%s", why);
}

static uint64_t available_bytes(void)
{
    char text[4096];
    unsigned long long kib = 0;

    gw_boot_read("/proc/meminfo", text, sizeof(text));
    const char *line = strstr(text, "MemAvailable:");
    if (!line || sscanf(line, "MemAvailable: %llu", &kib) != 1)
        gw_fatal("/proc/meminfo names no MemAvailable");
    return kib << 10;
}

/* Says what does not fit, instead of dying of the kernel's out-of-memory killer. */
static struct gw_layout choose_layout(void)
{
    uint64_t available = available_bytes();
    uint64_t spare = 8 * MIB;

    if (!settings.fill_bytes)
        settings.fill_bytes = available / 2;
    if (settings.fill_bytes < GW_PAGE_BYTES)
        gw_fatal("gw.fill is less than one page");
    /* The table and its copy take 8 bytes a page. */
    uint64_t wanted = (settings.fill_bytes + settings.zero_bytes) * 513 / 512 + settings.free_bytes;
    if (wanted + spare > available)
        gw_fatal("gw.fill, gw.zero and gw.free want %llu MiB, %llu MiB are free: give the machine "
                 "more memory",
                 (unsigned long long)(wanted / MIB),
                 (unsigned long long)(available > spare ? (available - spare) / MIB : 0));
    return (struct gw_layout){
        .seed = settings.seed,
        .n_fill_pages = (uint32_t)(settings.fill_bytes / GW_PAGE_BYTES),
        .n_zero_pages = (uint32_t)(settings.zero_bytes / GW_PAGE_BYTES),
        .n_write_words = (settings.n_write_bytes + 7) / 8,
        .n_random_words = (GW_PAGE_WORDS - 2) * (100 - settings.compress_percent) / 100,
    };
}

static void fill_memory(void)
{
    struct gw_layout layout = choose_layout();

    if (gw_pages_init(&pages, &layout) || gw_verdict_init(&verdict, pages.n_pages))
        gw_fatal("fill memory: %s", strerror(errno));
}

/* Memory that somebody had and gave back: free, and full of what does not compress. */
static void leave_traces(void)
{
    size_t n_words = settings.free_bytes / sizeof(uint64_t);
    uint64_t word = settings.seed * 2 + 1;

    if (!n_words)
        return;
    uint64_t *memory =
        mmap(NULL, settings.free_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        gw_fatal("take memory to give it back: %s", strerror(errno));
    for (size_t i = 0; i < n_words; i++)
        memory[i] = word = word * 6364136223846793005u + 1442695040888963407u;
    munmap(memory, settings.free_bytes);
}

static int open_port(uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    /* What comes in one burst after a pause must not be lost here. */
    if (fd >= 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &(int){4 << 20}, sizeof(int));
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)))
        gw_fatal("UDP port %u: %s", port, strerror(errno));
    return fd;
}

static int listen_port(uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) || listen(fd, 1))
        gw_fatal("TCP port %u: %s", port, strerror(errno));
    return fd;
}

/* A real-time thread must not wait behind writer and scanner, or the guest
 * would measure its own load. Priority 0: an ordinary thread. */
static void start_thread(void *(*run)(void *), void *arg, int priority)
{
    struct sched_param param = {.sched_priority = priority};
    pthread_attr_t attributes;
    pthread_t thread;

    pthread_attr_init(&attributes);
    pthread_attr_setinheritsched(&attributes, PTHREAD_EXPLICIT_SCHED);
    pthread_attr_setschedpolicy(&attributes, priority ? SCHED_FIFO : SCHED_OTHER);
    pthread_attr_setschedparam(&attributes, &param);
    int error = pthread_create(&thread, &attributes, run, arg);
    pthread_attr_destroy(&attributes);
    if (error)
        gw_fatal("start a thread: %s", strerror(error));
}

static void choose_writer(void)
{
    uint32_t n_wss = (uint32_t)(settings.wss_bytes / GW_PAGE_BYTES);
    uint32_t n_fill = pages.layout.n_fill_pages;

    writer = (struct gw_writer){
        .pages = &pages,
        .verdict = &verdict,
        .n_wss_pages = n_wss && n_wss < n_fill ? n_wss : n_fill,
        .rate_mb_per_s = settings.rate_mb_per_s,
        .random = settings.seed * 2 + 1,
    };
}

static void start_threads(void)
{
    gw_scanner_init(&scanner, &pages, &verdict, settings.scan_mb_per_s);
    choose_writer();
    ticker = (struct gw_ticker){.fd = -1};
    if (settings.ip.s_addr) {
        scanner.fd = open_port(settings.query_port);
        ticker.fd = open_port(0);
        ticker.to = settings.udp;
        tcpsink.fd = listen_port(settings.rx_port);
        start_thread(gw_tcpsink_run, &tcpsink, 10);
    }
    if (settings.disk_bytes) {
        disk.reply_fd = scanner.fd;
        start_thread(gw_disk_check_run, &disk, 0);
        for (unsigned i = 0; i < GW_DISK_LANES; i++)
            start_thread(gw_disk_write_run, &disk, 0);
    }
    start_thread(gw_ticker_run, &ticker, 20);
    start_thread(gw_writer_run, &writer, 0);
    start_thread(gw_scanner_run, &scanner, 0);
}

static void serve(void)
{
    struct sched_param param = {.sched_priority = 10};

    if (!settings.ip.s_addr)
        for (;;)
            pause();
    query = (struct gw_query){
        .settings = &settings,
        .pages = &pages,
        .verdict = &verdict,
        .writer = &writer,
        .scanner = &scanner,
        .ticker = &ticker,
        .disk = settings.disk_bytes ? &disk : NULL,
        .fd = scanner.fd,
        .rx_fd = open_port(settings.rx_port),
    };
    if (sched_setscheduler(0, SCHED_FIFO, &param))
        gw_say("warning: queries have no real-time priority: %s", strerror(errno));
    gw_query_run(&query);
}

static const char *place_of_blocks(void)
{
    return settings.root[0] ? FILE_OF_BLOCKS : DISK;
}

static void announce(void)
{
    if (settings.root[0])
        gw_say("ROOT %s ext4", settings.root);
    if (settings.disk_bytes)
        gw_say("DISK %s blocks=%u writes_per_s=%u", place_of_blocks(), disk.n_slots,
               disk.writes_per_s);
    gw_say("READY name=%s pages=%u zero_pages=%u wss_pages=%u rate_mb_per_s=%u uptime_ms=%llu",
           settings.name, pages.n_pages, pages.layout.n_zero_pages, writer.n_wss_pages,
           settings.rate_mb_per_s, (unsigned long long)(gw_now_ns() / 1000000));
}

int main(void)
{
    gw_boot_mounts();
    read_settings();
    if (!gw_boot_on_disk()) {
        gw_boot_modules(&settings);
        if (settings.root[0])
            gw_boot_from_disk(settings.root);
    }
    gw_boot_network(&settings);
    fill_memory();
    leave_traces();
    if (settings.disk_bytes)
        gw_disk_init(&disk, place_of_blocks(), settings.disk_bytes, settings.seed,
                     settings.disk_writes);
    if (settings.poweroff) {
        gw_scanner_init(&scanner, &pages, &verdict, 0);
        choose_writer();
        announce();
        uint32_t n_bad = gw_scanner_scan_once(&scanner);
        gw_say("VERDICT %s pages=%u bad=%u", n_bad ? "bad" : "good", pages.n_pages, n_bad);
        gw_poweroff();
    }
    start_threads();
    announce();
    serve();
    return 0;
}
