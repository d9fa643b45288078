/* SPDX-License-Identifier: Apache-2.0
 *
 * Tests of the read-ahead policy: reads go in with a made-up clock, ranges come out. Each case
 * plays reads and keeps the set of bytes that were fetched for them, by demand or ahead.
 * MLOPSFS_SEED: the seed of random cases.
 */
#include <glib.h>
#include <string.h>

#include "cache/readahead.h"
#include "tests/lib/seed.h"

#define KIB (UINT64_C(1) << 10)
#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)
#define MSEC UINT64_C(1000000)

/* What one reader has seen. */
struct play {
    struct readahead ra;
    struct readahead_plan plan; /* of the last read */
    uint64_t now, cap;
    uint64_t ahead_bytes, gets, dropped;
    uint64_t late; /* bytes read that had not been asked for ahead */
    GArray *asked; /* struct readahead_range, as they came */
};

static struct play *play_new(uint64_t size)
{
    struct play *p = g_new0(struct play, 1);
    readahead_init(&p->ra, size);
    p->now = 5 * MSEC;
    p->cap = GIB;
    p->asked = g_array_new(FALSE, FALSE, sizeof(struct readahead_range));
    return p;
}

static void play_free(struct play *p)
{
    g_array_unref(p->asked);
    g_free(p);
}

static bool was_asked(const struct play *p, uint64_t off, uint64_t end)
{
    for (bool found = true; off < end && found;) {
        found = false;
        for (guint i = 0; i < p->asked->len; i++) {
            const struct readahead_range *r = &g_array_index(p->asked, struct readahead_range, i);
            if (r->off <= off && off < r->end) {
                off = r->end;
                found = true;
            }
        }
    }
    return off >= end;
}

static void check_plan(const struct play *p)
{
    uint64_t last = 0;
    g_assert_cmpuint(p->plan.cursor, <, READAHEAD_CURSORS);
    g_assert_cmpuint(p->plan.n_fetch, <=, READAHEAD_FETCHES);
    g_assert_cmpuint(p->plan.n_drop, <=, READAHEAD_CURSORS);
    for (unsigned i = 0; i < p->plan.n_fetch; i++) {
        const struct readahead_range *r = &p->plan.fetch[i];
        g_assert_cmpuint(r->off, <, r->end);
        g_assert_cmpuint(r->off, >=, last);
        g_assert_cmpuint(r->end, <=, p->ra.size);
        g_assert_cmpuint(r->end - r->off, <=, 8 * MIB + 256 * KIB);
        last = r->end;
    }
}

static void play_read(struct play *p, uint64_t off, uint64_t len)
{
    uint64_t end = MIN(off + len, p->ra.size);
    if (!was_asked(p, off, end))
        p->late += end - off;
    readahead_note(&p->ra, off, end, p->now, p->cap, &p->plan);
    check_plan(p);
    for (unsigned i = 0; i < p->plan.n_fetch; i++) {
        p->ahead_bytes += p->plan.fetch[i].end - p->plan.fetch[i].off;
        p->gets++;
        g_array_append_val(p->asked, p->plan.fetch[i]);
    }
    for (unsigned i = 0; i < p->plan.n_drop; i++)
        p->dropped += p->plan.drop[i].end - p->plan.drop[i].off;
    p->now += MSEC / 10;
}

static uint64_t window(const struct play *p)
{
    return p->ra.cursors[p->plan.cursor].window;
}

/* ---- sequential ---- */

static void test_sequential(gconstpointer data)
{
    uint64_t len = GPOINTER_TO_SIZE(data), size = 100 * MIB + 12345;
    struct play *p = play_new(size);
    for (uint64_t off = 0; off < size; off += len) {
        play_read(p, off, len);
        g_assert_true(p->plan.sequential);
    }
    /* All but the beginning came ahead, once, in few GETs. */
    g_assert_cmpuint(p->late, <=, MAX(2 * len, 128 * KIB));
    g_assert_cmpuint(p->ahead_bytes, <=, size);
    g_assert_cmpuint(p->ahead_bytes + p->late + 256 * KIB, >=, size);
    g_assert_cmpuint(p->gets, <, 40);
    g_assert_cmpuint(p->dropped, ==, 0);
    play_free(p);
}

static void test_middle(void)
{
    struct play *p = play_new(GIB);
    play_read(p, 300 * MIB, 128 * KIB);
    g_assert_cmpuint(p->plan.n_fetch, ==, 0); /* might be anything yet */
    play_read(p, 300 * MIB + 128 * KIB, 128 * KIB);
    g_assert_true(p->plan.sequential);
    g_assert_cmpuint(p->ahead_bytes, >=, 256 * KIB);
    g_assert_cmpuint(p->ahead_bytes, <=, MIB);
    g_assert_cmpuint(p->plan.fetch[0].off, ==, 300 * MIB + 256 * KIB);
    play_free(p);
}

/* The kernel sends the pieces of its own read-ahead by several threads. */
static void test_disorder(gconstpointer data)
{
    uint64_t len = 128 * KIB, size = 256 * MIB;
    unsigned shuffle = GPOINTER_TO_UINT(data);
    uint64_t rnd = test_seed();
    struct play *p = play_new(size);
    for (uint64_t off = 0; off < size; off += shuffle * len) {
        uint64_t order[8];
        for (unsigned i = 0; i < shuffle; i++)
            order[i] = off + i * len;
        for (unsigned i = shuffle - 1; i > 0 && off > 0; i--) {
            unsigned j = (unsigned)(test_random(&rnd) % (i + 1));
            uint64_t t = order[i];
            order[i] = order[j];
            order[j] = t;
        }
        for (unsigned i = 0; i < shuffle; i++)
            play_read(p, order[i], len);
    }
    g_assert_cmpuint(p->late, <=, 2 * MIB);
    g_assert_cmpuint(p->ahead_bytes, <=, size);
    g_assert_cmpuint(p->dropped, ==, 0);
    g_assert_cmpuint(p->gets, <, 100);
    play_free(p);
}

/* Pages that the kernel has already are never asked for. */
static void test_gaps(void)
{
    struct play *p = play_new(256 * MIB);
    uint64_t end = 0;
    for (uint64_t off = 0; off < 200 * MIB; off += 128 * KIB)
        if (off % (8 * MIB) != 4 * MIB || off == 0) {
            play_read(p, off, 128 * KIB);
            end = off + 128 * KIB;
        }
    g_assert_true(p->plan.sequential);
    g_assert_cmpuint(window(p), >=, 8 * MIB);
    g_assert_cmpuint(p->late, <=, 2 * MIB);
    g_assert_cmpuint(p->ahead_bytes, <=, end + 64 * MIB);
    play_free(p);
}

/* ---- several at once ---- */

static void test_cursors(gconstpointer data)
{
    unsigned n = GPOINTER_TO_UINT(data);
    uint64_t part = 40 * MIB, len = 128 * KIB;
    struct play *p = play_new(4 * GIB);
    for (uint64_t off = 0; off < part; off += len)
        for (unsigned i = 0; i < n; i++)
            play_read(p, i * GIB + off, len);
    g_assert_cmpuint(p->late, <=, n * 512 * KIB);
    g_assert_cmpuint(p->dropped, ==, 0);
    g_assert_cmpuint(p->ahead_bytes, <=, n * (part + 64 * MIB));
    for (unsigned i = 0; i < n; i++)
        g_assert_true(was_asked(p, i * GIB + MIB, i * GIB + part));
    play_free(p);
}

static void test_seek(void)
{
    struct play *p = play_new(4 * GIB);
    for (uint64_t off = 0; off < 64 * MIB; off += 128 * KIB)
        play_read(p, off, 128 * KIB);
    g_assert_cmpuint(window(p), ==, READAHEAD_WINDOW_STEADY);
    g_assert_cmpuint(p->dropped, ==, 0);
    uint64_t before = p->ahead_bytes;
    for (unsigned i = 0; i < 8; i++)
        play_read(p, 3 * GIB + i * 128 * KIB, 128 * KIB);
    /* What was on its way to the old place is given up, the new one starts small. */
    g_assert_cmpuint(p->dropped, >, 4 * MIB);
    g_assert_cmpuint(p->dropped, <=, READAHEAD_WINDOW_STEADY);
    g_assert_cmpuint(p->ahead_bytes - before, <=, 8 * MIB);
    g_assert_true(p->plan.sequential);
    /* Back again: the old place is remembered. */
    play_read(p, 64 * MIB, 128 * KIB);
    g_assert_true(p->plan.sequential);
    play_free(p);
}

static void test_skip(void)
{
    struct play *p = play_new(4 * GIB);
    for (uint64_t off = 0; off < 64 * MIB; off += 128 * KIB)
        play_read(p, off, 128 * KIB);
    uint64_t at = 72 * MIB; /* within the window: on its way already */
    for (unsigned i = 0; i < 64; i++)
        play_read(p, at + i * 128 * KIB, 128 * KIB);
    g_assert_cmpuint(p->dropped, ==, 0);
    g_assert_true(p->plan.sequential);
    g_assert_cmpuint(p->late, <=, 256 * KIB);
    play_free(p);
}

/* ---- not sequential ---- */

static void test_random_reads(gconstpointer data)
{
    uint64_t size = GPOINTER_TO_SIZE(data), rnd = test_seed();
    struct play *p = play_new(size);
    uint64_t asked = 0, len = 16 * KIB;
    for (unsigned i = 0; i < 2000; i++) {
        play_read(p, test_random(&rnd) % (size / len) * len, len);
        asked += len;
    }
    g_assert_cmpuint(p->ahead_bytes, <=, asked / 2);
    play_free(p);
}

static void test_backward(gconstpointer data)
{
    uint64_t len = GPOINTER_TO_SIZE(data);
    struct play *p = play_new(GIB);
    for (uint64_t off = GIB; off > GIB - 64 * MIB; off -= len) {
        play_read(p, off - len, len);
        g_assert_false(p->plan.sequential);
    }
    g_assert_cmpuint(p->ahead_bytes, ==, 0);
    play_free(p);
}

/* The head, then the index at the end, then a few frames: what ffprobe does. */
static void test_probe(void)
{
    struct play *p = play_new(500 * MIB);
    play_read(p, 0, 128 * KIB);
    g_assert_cmpuint(p->plan.n_fetch, ==, 1);
    g_assert_cmpuint(p->ahead_bytes, ==, 384 * KIB);
    play_read(p, 499 * MIB, 128 * KIB);
    play_read(p, 499 * MIB + 600 * KIB, 64 * KIB);
    play_read(p, 40, 4 * KIB);
    play_read(p, 200 * MIB, 32 * KIB);
    g_assert_cmpuint(p->gets, ==, 1);
    play_free(p);
}

static void test_first_read(void)
{
    static const struct {
        uint64_t size, len, total;
    } cases[] = {
        {GIB, 4 * KIB, 512 * KIB},
        {GIB, 128 * KIB, 512 * KIB},
        {GIB, 512 * KIB, MIB},
        {GIB, MIB, MIB},
        {GIB, 4 * MIB, 4 * MIB},
        {300 * KIB, 128 * KIB, 300 * KIB},
        {100 * KIB, 100 * KIB, 100 * KIB},
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        struct play *p = play_new(cases[i].size);
        play_read(p, 0, cases[i].len);
        g_assert_cmpuint(MIN(cases[i].len, cases[i].size) + p->ahead_bytes, ==, cases[i].total);
        play_free(p);
    }
}

/* ---- the window ---- */

static void stream(struct play *p, uint64_t from, uint64_t to, uint64_t ns_per_mib)
{
    for (uint64_t off = from; off < to; off += 128 * KIB) {
        play_read(p, off, 128 * KIB);
        p->now += ns_per_mib / 8 - MIN(ns_per_mib / 8, MSEC / 10);
    }
}

static void test_window_grows(void)
{
    struct play *p = play_new(GIB);
    uint64_t last = 0;
    for (uint64_t off = 0; off < 64 * MIB; off += 128 * KIB) {
        play_read(p, off, 128 * KIB);
        g_assert_cmpuint(window(p), <=, MAX(2 * last, MIB));
        g_assert_cmpuint(window(p), >=, last);
        last = window(p);
    }
    g_assert_cmpuint(last, ==, READAHEAD_WINDOW_STEADY); /* nothing was measured */
    play_free(p);
}

static void test_window_measured(void)
{
    /* 30 ms to the first byte, 90 MB/s for each GET, 400 MB/s in all: more must be in flight. */
    struct play *p = play_new(GIB);
    readahead_fetched(&p->ra, 4 * MIB, 30 * MSEC, 30 * MSEC + 46 * MSEC, p->now);
    stream(p, 0, 512 * MIB, MSEC * 1000 / 400);
    g_assert_cmpuint(window(p), ==, READAHEAD_WINDOW_MAX);
    play_free(p);

    /* The same rate from a server next door: no more than the steady window. */
    p = play_new(GIB);
    readahead_fetched(&p->ra, 4 * MIB, MSEC, 5 * MSEC, p->now);
    stream(p, 0, 512 * MIB, MSEC * 1000 / 400);
    g_assert_cmpuint(window(p), ==, READAHEAD_WINDOW_STEADY);
    play_free(p);

    /* A slow reader on the slow link needs little. */
    p = play_new(GIB);
    readahead_fetched(&p->ra, 4 * MIB, 30 * MSEC, 76 * MSEC, p->now);
    stream(p, 0, 128 * MIB, MSEC * 1000 / 10);
    g_assert_cmpuint(window(p), ==, READAHEAD_WINDOW_STEADY);
    play_free(p);
}

static void test_window_capped(void)
{
    struct play *p = play_new(GIB);
    p->cap = 2 * MIB;
    uint64_t most = 0;
    for (uint64_t off = 0; off < 64 * MIB; off += 128 * KIB) {
        play_read(p, off, 128 * KIB);
        const struct readahead_cursor *c = &p->ra.cursors[p->plan.cursor];
        most = MAX(most, c->ahead - c->frontier);
    }
    g_assert_cmpuint(window(p), ==, 2 * MIB);
    g_assert_cmpuint(most, <=, 2 * MIB + 128 * KIB);
    p->cap = 16 * MIB; /* others went away */
    stream(p, 64 * MIB, 128 * MIB, MSEC);
    g_assert_cmpuint(window(p), ==, 16 * MIB);
    p->cap = 4 * MIB;
    stream(p, 128 * MIB, 129 * MIB, MSEC);
    g_assert_cmpuint(window(p), ==, 4 * MIB);
    play_free(p);
}

static void test_denied(void)
{
    struct play *p = play_new(GIB);
    play_read(p, 0, 128 * KIB);
    g_assert_cmpuint(p->plan.n_fetch, ==, 1);
    readahead_denied(&p->ra, p->plan.cursor, 256 * KIB);
    play_read(p, 128 * KIB, 128 * KIB);
    g_assert_cmpuint(p->plan.n_fetch, >, 0);
    g_assert_cmpuint(p->plan.fetch[0].off, ==, 256 * KIB); /* again from there */
    play_free(p);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
#define ADD(name, fn, value) g_test_add_data_func("/readahead/" name, GSIZE_TO_POINTER(value), fn)
    ADD("sequential/4K", test_sequential, 4 * KIB);
    ADD("sequential/128K", test_sequential, 128 * KIB);
    ADD("sequential/1M", test_sequential, MIB);
    ADD("sequential/odd", test_sequential, 100001);
    g_test_add_func("/readahead/middle", test_middle);
    ADD("disorder/2", test_disorder, 2);
    ADD("disorder/4", test_disorder, 4);
    ADD("disorder/8", test_disorder, 8);
    g_test_add_func("/readahead/gaps", test_gaps);
    ADD("cursors/2", test_cursors, 2);
    ADD("cursors/4", test_cursors, 4);
    g_test_add_func("/readahead/seek", test_seek);
    g_test_add_func("/readahead/skip", test_skip);
    ADD("random/1G", test_random_reads, GIB);
    ADD("random/64M", test_random_reads, 64 * MIB);
    ADD("random/8M", test_random_reads, 8 * MIB);
    ADD("backward/16K", test_backward, 16 * KIB);
    ADD("backward/128K", test_backward, 128 * KIB);
    g_test_add_func("/readahead/probe", test_probe);
    g_test_add_func("/readahead/first-read", test_first_read);
    g_test_add_func("/readahead/window/grows", test_window_grows);
    g_test_add_func("/readahead/window/measured", test_window_measured);
    g_test_add_func("/readahead/window/capped", test_window_capped);
    g_test_add_func("/readahead/denied", test_denied);
    return g_test_run();
}
