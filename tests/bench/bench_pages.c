/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What pages cost that are sent once and then, changed, again: bytes and CPU.
 *
 *     bench_pages                  made-up page sets
 *     bench_pages OLD NEW          two dumps of the same memory, one taken after the other
 *     bench_pages --pages N …      so many pages of each set (default 8192)
 *
 * Bytes are relative to the whole pages in one zstd stream of level 1, flushed every 128 pages,
 * which is what QEMU's multifd sends (100). Of dumps, the pages that differ are those sent again;
 * those that the dirty log names although they did not change cannot be seen in a dump. MB/s are
 * page bytes per second of one core's CPU time. All that is encoded is decoded and compared.
 *
 * The made-up sets are made up: they show how the pipeline behaves, not what a guest is like. Where
 * real figures matter, take dumps (dump_pair.py).
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <zstd.h>

#include "flow/batch.h"
#include "util/cleanup.h"

enum { NAME_WIDTH = 16 };

static uint64_t dice = 1;

static uint32_t roll(uint32_t below)
{
    dice = dice * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((dice >> 32) % below);
}

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static double cpu_s(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ---- page sets ---- */

struct set {
    const char *name, *what;
    /* Fills a page, and changes it. */
    void (*fill)(unsigned char *page);
    void (*change)(unsigned char *page);
};

static void put_words(unsigned char *to, size_t n)
{
    static const char *const words[] = {
        "SELECT ", "balance", " = ",     "account_",  "migration", ", ",   "guest ", "round\n",
        "the ",    "2026-11", "-24T16:", "{\"id\": ", "\"name\"",  ": \"", "\"}, ",  "return ",
        "static ", "const ",  "struct ", "page->",    "offset",    ";\n",  "    ",   "if (",
    };

    while (n > 0) {
        char number[12];
        const char *word = words[roll(GW_ARRAY_SIZE(words))];
        size_t len;

        if (roll(4) == 0) {
            snprintf(number, sizeof number, "%u", roll(1000000));
            word = number;
        }
        len = strlen(word) < n ? strlen(word) : n;
        memcpy(to, word, len);
        to += len;
        n -= len;
    }
}

static void put_noise(unsigned char *to, size_t n)
{
    for (size_t i = 0; i < n; i++)
        to[i] = (unsigned char)roll(256);
}

/* An object as interpreters have them: count, type, a hash, two pointers, a short string. */
static void put_object(unsigned char *to)
{
    uint64_t words[5] = {1 + roll(4), 0x55d0c0de0000 + roll(30) * 416,
                         (uint64_t)roll(UINT32_MAX) << 32 | roll(UINT32_MAX),
                         0x7f2a40000000 + roll(1 << 22) * UINT64_C(16),
                         0x7f2a40000000 + roll(1 << 22) * UINT64_C(16)};

    memcpy(to, words, sizeof words);
    put_words(to + sizeof words, 64 - sizeof words);
}

static void fill_half(unsigned char *page)
{
    memset(page, 0, GW_PAGE_BYTES);
    put_noise(page, GW_PAGE_BYTES / 2);
}

static void change_word(unsigned char *page)
{
    put_noise(page + roll(GW_PAGE_BYTES / 8) * 8, 8);
}

static void fill_objects(unsigned char *page)
{
    for (unsigned i = 0; i < GW_PAGE_BYTES; i += 64)
        put_object(page + i);
}

/* A few counts change, and some objects have gone and others come, neighbours for the most part. */
static void change_objects(unsigned char *page)
{
    for (unsigned n = roll(4); n; n--)
        page[roll(64) * 64] ^= (unsigned char)(1 + roll(3));
    for (unsigned n = 1 + roll(3); n; n--)
        for (unsigned at = roll(62), end = at + 1 + roll(4); at < end && at < 64; at++)
            put_object(page + at * 64);
}

static void fill_values(unsigned char *page)
{
    put_words(page, GW_PAGE_BYTES);
}

/* One value of some hundred bytes is written anew, and a header elsewhere. */
static void change_value(unsigned char *page)
{
    put_words(page + roll(GW_PAGE_BYTES - 200), 20 + roll(180));
    change_word(page);
}

/* Rows are appended to a page, and one is marked as old; often most of the page is rewritten. */
static void change_rows(unsigned char *page)
{
    unsigned n = roll(3) ? 300 + roll(900) : 2048;

    put_words(page + roll(GW_PAGE_BYTES - n), n);
    change_word(page);
    change_word(page);
}

static void change_all(unsigned char *page)
{
    if (roll(3))
        put_words(page, GW_PAGE_BYTES);
    else
        put_words(page + roll(2048), 2048);
}

static void fill_noise(unsigned char *page)
{
    put_noise(page, GW_PAGE_BYTES);
}

static const struct set sets[] = {
    {"8 bytes a page", "half noise, half zeros; one word changes", fill_half, change_word},
    {"cache", "text; a value of 20 to 200 bytes and a word change", fill_values, change_value},
    {"object churn", "objects of 64 bytes; some counts, some objects", fill_objects,
     change_objects},
    {"database", "text; 300 to 2048 bytes and two words change", fill_values, change_rows},
    {"compiler", "text; all of it, or half, is new", fill_values, change_all},
    {"noise", "incompressible; all of it is new", fill_noise, fill_noise},
};

/* ---- measuring ---- */

static struct {
    size_t n_pages;
    const unsigned char *old, *new;
    unsigned char *ram; /* the destination's */
    unsigned char *wire;
    size_t *lengths; /* of the batches in wire */
    struct gw_batch_encoder *encoder;
    struct gw_batch_decoder *decoder;
    struct gw_ram sink; /* of this process */
} b;

/* Bytes of the pages in QEMU's way. Zero pages are an offset each. */
static double qemu_bytes(const unsigned char *pages, double *secondsp)
{
    ZSTD_CCtx *stream = ZSTD_createCCtx();
    size_t total = 0, room = GW_BATCH_BOUND(GW_BATCH_MAX_PAGES);
    double begin = cpu_s();

    ZSTD_CCtx_setParameter(stream, ZSTD_c_compressionLevel, 1);
    for (size_t i = 0; i < b.n_pages; i += GW_BATCH_MAX_PAGES) {
        ZSTD_outBuffer out = {b.wire, room, 0};

        for (size_t k = i; k < i + GW_BATCH_MAX_PAGES; k++) {
            bool last = k + 1 == i + GW_BATCH_MAX_PAGES || k + 1 >= b.n_pages;
            const unsigned char *page = k < b.n_pages ? pages + k * GW_PAGE_BYTES : NULL;
            ZSTD_inBuffer in = {page, page && !gw_page_is_zero(page) ? GW_PAGE_BYTES : 0, 0};

            if (ZSTD_isError(
                    ZSTD_compressStream2(stream, &out, &in, last ? ZSTD_e_flush : ZSTD_e_continue)))
                abort();
            if (last)
                break;
        }
        total += out.pos;
    }
    if (secondsp)
        *secondsp = cpu_s() - begin;
    ZSTD_freeCCtx(stream);
    return (double)total;
}

static struct gw_history *new_history(double share)
{
    struct gw_history_options options = {.n_pages = b.n_pages};
    struct gw_history *history = NULL;

    options.limit_bytes = (uint64_t)((double)(b.n_pages * GW_PAGE_BYTES) * share);
    if (getrandom(options.secret, sizeof options.secret, 0) != sizeof options.secret ||
        gw_history_new(&options, &history) < 0)
        die("history");
    return history;
}

/* Encodes all pages into wire; gives the CPU time and the sum of the figures. */
static double encode_all(const unsigned char *from, struct gw_history *history,
                         const struct gw_batch_setting *setting, struct gw_batch_figures *sum)
{
    struct gw_batch_page pages[GW_BATCH_MAX_PAGES];
    struct gw_batch_pages in = {"pc.ram", pages, 0, history};
    struct gw_batch_figures one;
    unsigned char *to = b.wire;
    double begin = cpu_s();

    *sum = (struct gw_batch_figures){0};
    for (size_t i = 0; i < b.n_pages; i += in.n_pages) {
        in.n_pages =
            (unsigned)(b.n_pages - i < GW_BATCH_MAX_PAGES ? b.n_pages - i : GW_BATCH_MAX_PAGES);
        for (unsigned k = 0; k < in.n_pages; k++)
            pages[k] =
                (struct gw_batch_page){(i + k) * GW_PAGE_BYTES, from + (i + k) * GW_PAGE_BYTES};
        if (gw_batch_encode(b.encoder, &in, setting, to, &one) < 0)
            die("encode");
        b.lengths[i / GW_BATCH_MAX_PAGES] = one.wire_bytes;
        to += one.wire_bytes;
        sum->n_whole += one.n_whole;
        sum->n_pieces += one.n_pieces;
        sum->n_zero += one.n_zero;
        sum->n_same += one.n_same;
        sum->literal_bytes += one.literal_bytes;
        sum->wire_bytes += one.wire_bytes;
    }
    return cpu_s() - begin;
}

/* Decodes what was encoded last; gives the CPU time. The destination must then have these pages. */
static double decode_all(const unsigned char *expected)
{
    const unsigned char *from = b.wire;
    double begin = cpu_s(), took;
    struct gw_error error;

    for (size_t i = 0; i < (b.n_pages + GW_BATCH_MAX_PAGES - 1) / GW_BATCH_MAX_PAGES; i++) {
        if (gw_batch_decode(b.decoder, from, b.lengths[i], &b.sink, NULL, &error) < 0) {
            fprintf(stderr, "bench_pages: %s\n", error.msg);
            exit(1);
        }
        from += b.lengths[i];
    }
    took = cpu_s() - begin;
    if (memcmp(b.ram, expected, b.n_pages * GW_PAGE_BYTES) != 0) {
        fprintf(stderr, "bench_pages: the destination has other pages than the source\n");
        exit(1);
    }
    return took;
}

static double mb_per_s(double seconds)
{
    return (double)b.n_pages * GW_PAGE_BYTES / 1e6 / seconds;
}

/* First round and second round with a history of this size; gives the second's bytes. */
static double sent_again(double share, struct gw_batch_figures *figures)
{
    static const struct gw_batch_setting zstd1 = {1, 1, true};
    struct gw_history *history = new_history(share);

    encode_all(b.old, history, &zstd1, figures);
    decode_all(b.old);
    encode_all(b.new, history, &zstd1, figures);
    decode_all(b.new);
    gw_history_free(history);
    return (double)figures->wire_bytes;
}

static void print_bytes(const char *name)
{
    static const struct gw_batch_setting zstd1 = {1, 1, true};
    static const double shares[] = {0.13, 0.08, 0.04, 0.02}; /* pieces of 64 to 512 bytes */
    double first = qemu_bytes(b.old, NULL), again = qemu_bytes(b.new, NULL);
    double raw = (double)b.n_pages * GW_PAGE_BYTES;
    struct gw_batch_figures figures[GW_ARRAY_SIZE(shares)], once;
    struct gw_history *history = new_history(0.08);

    encode_all(b.old, history, &zstd1, &once);
    gw_history_free(history);
    printf("%-*s %7zu %7.1f |", NAME_WIDTH, name, b.n_pages, 100 * (double)once.wire_bytes / first);
    for (size_t i = 0; i < GW_ARRAY_SIZE(shares); i++)
        printf(" %5.1f", 100 * sent_again(shares[i], &figures[i]) / again);
    printf(" | %5.1f %8.1f %12.1f\n", 100 * again / raw,
           100 * (double)figures[1].literal_bytes / raw,
           100.0 * figures[1].n_whole / (double)b.n_pages);
}

static void print_rates(const char *name)
{
    static const struct gw_batch_setting settings[] = {
        {0, 0, false}, {0, 0, true}, {1, -5, true}, {1, 1, true}, {1, 3, true}};
    struct gw_history *history = new_history(0.08);
    struct gw_batch_figures figures;
    uint64_t changed;
    __attribute__((unused)) volatile uint64_t n =
        0; /* keeps what is measured from being left out */
    double begin = cpu_s(), seconds;

    for (size_t i = 0; i < b.n_pages; i++)
        n += gw_page_is_zero(b.old + i * GW_PAGE_BYTES);
    printf("%-*s %6.0f", NAME_WIDTH, name, mb_per_s(cpu_s() - begin));
    for (unsigned round = 0; round < 2; round++) {
        begin = cpu_s();
        for (size_t i = 0; i < b.n_pages; i++)
            n += gw_history_compare(history, i, (round ? b.new : b.old) + i * GW_PAGE_BYTES,
                                    &changed);
        seconds = cpu_s() - begin;
    }
    gw_history_free(history);
    printf(" %6.0f |", mb_per_s(seconds));
    for (size_t i = 0; i < GW_ARRAY_SIZE(settings); i++) {
        history = new_history(0.08);
        printf(" %6.0f", mb_per_s(encode_all(b.old, history, &settings[i], &figures)));
        printf("/%-5.0f", mb_per_s(decode_all(b.old)));
        if (settings[i].delta) {
            printf(" %6.0f", mb_per_s(encode_all(b.new, history, &settings[i], &figures)));
            printf("/%-5.0f", mb_per_s(decode_all(b.new)));
        }
        printf(i + 1 < GW_ARRAY_SIZE(settings) ? " |" : "");
        gw_history_free(history);
    }
    qemu_bytes(b.old, &seconds);
    printf(" | %6.0f\n", mb_per_s(seconds));
}

/* ---- sets and dumps ---- */

static unsigned char *room_for(size_t bytes)
{
    unsigned char *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

    if (p == MAP_FAILED)
        die("mmap");
    return p;
}

static void prepare(size_t n_pages)
{
    size_t n_batches = n_pages / GW_BATCH_MAX_PAGES + 1;
    char line[128];

    b.n_pages = n_pages;
    b.ram = room_for(n_pages * GW_PAGE_BYTES);
    b.wire = room_for(n_batches * GW_BATCH_BOUND(GW_BATCH_MAX_PAGES));
    b.lengths = calloc(n_batches, sizeof *b.lengths);
    snprintf(line, sizeof line, "pc.ram 4 KiB 0x0 0x%zx 0x%zx 0x%lx rw", n_pages * GW_PAGE_BYTES,
             n_pages * GW_PAGE_BYTES, (unsigned long)b.ram);
    if (gw_ram_open(&b.sink, getpid(), line, NULL) < 0)
        die("ram");
    if (!b.lengths || gw_batch_encoder_new(&b.encoder) < 0 || gw_batch_decoder_new(&b.decoder) < 0)
        die("memory");
}

static void finish(void)
{
    gw_ram_close(&b.sink);
    munmap(b.ram, b.n_pages * GW_PAGE_BYTES);
    munmap(b.wire, (b.n_pages / GW_BATCH_MAX_PAGES + 1) * GW_BATCH_BOUND(GW_BATCH_MAX_PAGES));
    free(b.lengths);
    gw_batch_encoder_free(b.encoder);
    gw_batch_decoder_free(b.decoder);
}

static void make_set(const struct set *set, unsigned char *old, unsigned char *new, size_t n_pages)
{
    for (size_t i = 0; i < n_pages; i++) {
        set->fill(old + i * GW_PAGE_BYTES);
        memcpy(new + i *GW_PAGE_BYTES, old + i * GW_PAGE_BYTES, GW_PAGE_BYTES);
        set->change(new + i *GW_PAGE_BYTES);
    }
    b.old = old;
    b.new = new;
}

static const unsigned char *map_dump(const char *path, size_t *bytesp)
{
    gw_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    void *p;

    if (fd < 0 || fstat(fd, &st) < 0)
        die(path);
    *bytesp = (size_t)st.st_size;
    p = mmap(NULL, *bytesp, PROT_READ, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED)
        die(path);
    return p;
}

/* Of two dumps, the pages that differ and were not zero before. */
static size_t make_pair(const char *old_path, const char *new_path, unsigned char **oldp,
                        unsigned char **newp)
{
    size_t n_old, n_new, n = 0;
    const unsigned char *old = map_dump(old_path, &n_old), *new = map_dump(new_path, &n_new);
    size_t n_pages = (n_old < n_new ? n_old : n_new) / GW_PAGE_BYTES;

    for (size_t i = 0; i < n_pages; i++)
        n += memcmp(old + i * GW_PAGE_BYTES, new + i *GW_PAGE_BYTES, GW_PAGE_BYTES) != 0;
    if (n == 0) {
        fprintf(stderr, "bench_pages: no page differs between %s and %s\n", old_path, new_path);
        exit(1);
    }
    *oldp = room_for(n * GW_PAGE_BYTES);
    *newp = room_for(n * GW_PAGE_BYTES);
    n = 0;
    for (size_t i = 0; i < n_pages; i++)
        if (memcmp(old + i * GW_PAGE_BYTES, new + i *GW_PAGE_BYTES, GW_PAGE_BYTES) != 0) {
            memcpy(*oldp + n * GW_PAGE_BYTES, old + i * GW_PAGE_BYTES, GW_PAGE_BYTES);
            memcpy(*newp + n++ * GW_PAGE_BYTES, new + i *GW_PAGE_BYTES, GW_PAGE_BYTES);
        }
    b.old = *oldp;
    b.new = *newp;
    printf("%zu of %zu pages differ\n", n, n_pages);
    return n;
}

static void print_heads(bool rates)
{
    if (!rates)
        printf(
            "bytes; QEMU's zstd 1 = 100   sent first | sent again, pieces of       | of the raw "
            "pages sent again (%%)\n"
            "%-*s   pages     128 |    64   128   256   512 |  QEMU  literal (128)  whole (128)\n",
            NAME_WIDTH, "");
    else
        printf("\nMB/s of CPU time, pieces of 128; encode/decode, sent first then sent again\n"
               "%-*s   zero   hash | none, no delta | none                      | zstd -5          "
               "         | zstd 1                    | zstd 3                    | QEMU's zstd 1\n",
               NAME_WIDTH, "");
}

int main(int argc, char **argv)
{
    size_t n_pages = 8192;
    unsigned char *old, *new;
    bool pair;

    if (argc > 2 && strcmp(argv[1], "--pages") == 0) {
        n_pages = strtoul(argv[2], NULL, 10);
        argc -= 2;
        argv += 2;
    }
    pair = argc == 3;
    if ((argc != 1 && !pair) || n_pages == 0) {
        fprintf(stderr, "usage: bench_pages [--pages N] [OLD NEW]\n");
        return 2;
    }
    if (pair) {
        n_pages = make_pair(argv[1], argv[2], &old, &new);
    } else {
        old = room_for(n_pages * GW_PAGE_BYTES);
        new = room_for(n_pages * GW_PAGE_BYTES);
        printf("made-up pages:\n");
        for (size_t i = 0; i < GW_ARRAY_SIZE(sets); i++)
            printf("  %-*s %s\n", NAME_WIDTH, sets[i].name, sets[i].what);
    }
    prepare(n_pages);
    for (unsigned rates = 0; rates < 2; rates++) {
        print_heads(rates);
        for (size_t i = 0; i < (pair ? 1 : GW_ARRAY_SIZE(sets)); i++) {
            if (!pair)
                make_set(&sets[i], old, new, n_pages);
            (rates ? print_rates : print_bytes)(pair ? "dumps" : sets[i].name);
        }
    }
    finish();
    munmap(old, n_pages * GW_PAGE_BYTES);
    munmap(new, n_pages * GW_PAGE_BYTES);
    return 0;
}
