/* SPDX-License-Identifier: Apache-2.0
 *
 * test_writer_model: random work on a file through two handles, against an array of bytes: every
 * read shows the array, and so does the object after every flush; with servers of various
 * capabilities, with faults, and with threads.
 */
#include <errno.h>
#include <string.h>

#include "tests/cache/world.h"
#include "tests/lib/seed.h"

#define MODEL (17 * MIB)

struct model {
    struct world *w;
    struct cache_file *file;
    struct cache_handle *h[2];
    char *key;
    uint8_t *bytes, *scratch;
    size_t size;
    bool exists; /* the object */
    uint64_t rng;
    unsigned keys, meta;
};

static uint64_t below(struct model *m, uint64_t n)
{
    return (test_random(&m->rng) >> 11) % n;
}

static void open_handles(struct model *m, struct cache_file *f)
{
    m->file = f;
    m->h[0] = cache_handle_new(f);
    m->h[1] = cache_handle_new(f);
}

static void close_handles(struct model *m)
{
    cache_handle_free(m->h[0]);
    cache_handle_free(m->h[1]);
    cache_file_unref(m->file);
}

static void do_write(struct model *m, size_t off, size_t n, bool append)
{
    if (append && m->size == MODEL)
        return; /* full: it would grow past the array */
    if (append)
        off = m->size;
    off = MIN(off, MODEL - 1);
    n = MIN(n, MODEL - off);
    fill(m->scratch, n, test_random(&m->rng));
    int r = cache_write(m->h[below(m, 2)], m->scratch, n, append ? 0 : off, append, NULL);
    g_assert_cmpint(r, ==, 0);
    if (off > m->size)
        memset(m->bytes + m->size, 0, off - m->size);
    memcpy(m->bytes + off, m->scratch, n);
    m->size = MAX(m->size, off + n);
}

static void do_truncate(struct model *m, size_t size)
{
    g_assert_cmpint(cache_file_truncate(m->file, size, NULL), ==, 0);
    if (size > m->size)
        memset(m->bytes + m->size, 0, size - m->size);
    m->size = size;
}

static void do_read(struct model *m)
{
    size_t off = below(m, m->size + 10), n = below(m, 2) ? below(m, 5000) : below(m, 6 * MIB);
    size_t want = off < m->size ? MIN(n, m->size - off) : 0;
    g_assert_cmpuint(cache_file_size(m->file), ==, m->size);
    ssize_t got = read_at(m->h[below(m, 2)], m->scratch, n, off);
    g_assert_cmpint(got, ==, (ssize_t)want);
    g_assert_true(memcmp(m->scratch, m->bytes + off, want) == 0);
}

static void do_flush(struct model *m)
{
    g_assert_cmpint(flush(m->h[below(m, 2)]), ==, 0);
    g_assert_false(cache_file_dirty(m->file));
    assert_object(m->w, m->key, m->bytes, m->size);
    if (m->meta > 0) {
        struct store_object o = {0};
        g_bytes_unref(fake_store_get(m->w->fake, "b", m->key, &o));
        g_autofree char *value = g_strdup_printf("%u", m->meta);
        g_assert_cmpstr(store_headers_get_meta(&o.headers, "n"), ==, value);
        store_object_clear(&o);
    }
    m->exists = true;
}

static void do_headers(struct model *m)
{
    _cleanup_headers_ struct store_headers h = {0};
    g_autofree char *value = g_strdup_printf("%u", ++m->meta);
    store_headers_set_meta(&h, "n", value);
    cache_file_set_headers(m->file, &h);
}

static void do_retarget(struct model *m)
{
    char *key = g_strdup_printf("k%u", ++m->keys);
    g_assert_cmpint(cache_file_retarget(m->file, "b", key, NULL, NULL), ==, 0);
    g_free(m->key);
    m->key = key;
    m->exists = false;
}

static void do_reopen(struct model *m)
{
    do_flush(m);
    close_handles(m);
    open_handles(m, open_object(m->w, m->key));
}

static void step(struct model *m)
{
    switch (below(m, 24)) {
    case 0:
        do_truncate(m, below(m, MODEL / 2));
        break;
    case 1:
        do_truncate(m, below(m, m->size + 1));
        break;
    case 2:
        do_truncate(m, 0);
        for (size_t n = below(m, 14 * MIB); m->size < n;)
            do_write(m, m->size, 700000, false);
        break;
    case 3:
    case 4:
        do_flush(m);
        break;
    case 5:
        do_headers(m);
        break;
    case 6:
        do_retarget(m);
        break;
    case 7:
        do_reopen(m);
        break;
    case 8:
    case 9:
        do_write(m, 0, 1 + below(m, MIB), true);
        break;
    case 10:
    case 11:
        do_write(m, below(m, MODEL), 1 + below(m, 10), false);
        break;
    case 12:
        do_write(m, below(m, MODEL / 2), 1 + below(m, 3 * MIB), false);
        break;
    case 13:
    case 14:
    case 15:
        do_write(m, below(m, m->size + 1), 1 + below(m, 9000), false);
        break;
    default:
        do_read(m);
    }
}

static void run_model(const char *faults, struct store_caps *caps, unsigned steps)
{
    uint64_t seed = test_seed();
    g_autofree char *spec = faults ? g_strdup_printf("%s,seed=%u", faults, (unsigned)seed) : NULL;
    struct model m = {
        .w = world_new(seed, &(struct world_params){.faults = spec, .caps = caps, .disk = 96 * MIB}),
        .rng = seed | 1,
        .key = g_strdup("k"),
        .bytes = g_malloc0(MODEL),
        .scratch = g_malloc(MODEL),
    };
    open_handles(&m, cache_file_new(m.w->cache, "b", "k", NULL, m.w));
    struct cache_stats st;
    for (unsigned i = 0; i < steps; i++) {
        step(&m);
        cache_get_stats(m.w->cache, &st);
        g_assert_cmpuint(st.staged, <=, 96 * MIB);
    }
    do_flush(&m);
    close_handles(&m);
    world_free(m.w);
    g_free(m.key);
    g_free(m.bytes);
    g_free(m.scratch);
}

#define ALL_CAPS                                                                                   \
    {                                                                                              \
        .put_if = true, .complete_if = true, .copy_if = true, .delete_if = true,                   \
        .copy_part = true, .checksum = true, .checksum_part = true, .checksum_mpu = true,          \
        .copy_into_checksum_mpu = true                                                             \
    }

static void test_model(void)
{
    run_model(NULL, NULL, 400);
}

static void test_model_caps(void)
{
    struct store_caps variants[] = {{0}, ALL_CAPS, ALL_CAPS, ALL_CAPS, ALL_CAPS, ALL_CAPS};
    variants[1].copy_part = false;
    variants[2].copy_if = false;
    variants[3].complete_if = false;
    variants[4].copy_into_checksum_mpu = false;
    variants[5].checksum_mpu = variants[5].copy_into_checksum_mpu = false;
    for (unsigned i = 0; i < G_N_ELEMENTS(variants); i++)
        run_model(NULL, &variants[i], 100);
}

/* Not of MPU_CREATE: when its reply is lost, nobody knows the upload that it made. */
#define VERBS                                                                                      \
    "verbs=HEAD+GET+PUT+COPY+MPU_PART+MPU_COPY_PART+MPU_COMPLETE+MPU_ABORT"

static void test_model_faults(void)
{
    struct store_caps no_copy = ALL_CAPS;
    no_copy.copy_if = false;
    run_model("rate=0.05," VERBS, NULL, 250);
    run_model("rate=0.2," VERBS, &no_copy, 100);
    run_model("rate=0.03,kinds=flip+reset," VERBS, NULL, 100);
}

/* ---- threads ---- */

#define RECORD 4096
#define RECORDS 3000

struct shared {
    struct world *w;
    struct cache_file *file;
    atomic_bool stop;
};

static void record(uint8_t *buf, uint64_t i)
{
    fill(buf, RECORD, i + 1);
}

static void *flusher(void *arg)
{
    struct shared *s = arg;
    struct cache_handle *h = cache_handle_new(s->file);
    while (!atomic_load(&s->stop)) {
        uint64_t before = cache_file_size(s->file);
        g_assert_cmpint(flush(h), ==, 0);
        GBytes *b = fake_store_get(s->w->fake, "b", "k", NULL);
        g_assert_nonnull(b);
        size_t n = g_bytes_get_size(b);
        g_assert_cmpuint(n, >=, before); /* what was there when flush was called */
        g_assert_cmpuint(n % RECORD, ==, 0); /* and never half a write */
        g_bytes_unref(b);
    }
    cache_handle_free(h);
    return NULL;
}

static void *checker(void *arg)
{
    struct shared *s = arg;
    struct cache_handle *h = cache_handle_new(s->file);
    uint8_t want[RECORD], got[RECORD];
    uint64_t rng = 77;
    while (!atomic_load(&s->stop)) {
        uint64_t n = cache_file_size(s->file) / RECORD;
        if (n == 0)
            continue;
        uint64_t i = (test_random(&rng) >> 11) % n;
        g_assert_cmpint(read_at(h, got, RECORD, i * RECORD), ==, RECORD);
        record(want, i);
        g_assert_cmpmem(got, RECORD, want, RECORD);
    }
    cache_handle_free(h);
    return NULL;
}

static void test_threads(void)
{
    struct shared s = {.w = world_new(test_seed(), &(struct world_params){0})};
    s.file = cache_file_new(s.w->cache, "b", "k", NULL, s.w);
    struct cache_handle *h = cache_handle_new(s.file);
    uint8_t buf[RECORD];
    pthread_t t[3];
    g_assert_cmpint(pthread_create(&t[0], NULL, flusher, &s), ==, 0);
    g_assert_cmpint(pthread_create(&t[1], NULL, flusher, &s), ==, 0);
    g_assert_cmpint(pthread_create(&t[2], NULL, checker, &s), ==, 0);
    for (uint64_t i = 0; i < RECORDS; i++) {
        record(buf, i);
        g_assert_cmpint(cache_write(h, buf, RECORD, 0, true, NULL), ==, 0);
    }
    g_assert_cmpint(flush(h), ==, 0);
    atomic_store(&s.stop, true);
    for (unsigned i = 0; i < G_N_ELEMENTS(t); i++)
        pthread_join(t[i], NULL);
    GBytes *b = fake_store_get(s.w->fake, "b", "k", NULL);
    g_assert_cmpuint(g_bytes_get_size(b), ==, RECORD * RECORDS);
    for (uint64_t i = 0; i < RECORDS; i++) {
        record(buf, i);
        const uint8_t *all = g_bytes_get_data(b, NULL);
        g_assert_cmpmem(all + i * RECORD, RECORD, buf, RECORD);
    }
    g_bytes_unref(b);
    cache_handle_free(h);
    cache_file_unref(s.file);
    world_free(s.w);
}

/* Several files, each larger than the disk alone, share it. */
struct filler {
    struct world *w;
    unsigned id;
    pthread_t thread;
};

static void *fill_file(void *arg)
{
    struct filler *x = arg;
    g_autofree char *key = g_strdup_printf("f%u", x->id);
    struct cache_file *f = cache_file_new(x->w->cache, "b", key, NULL, x->w);
    struct cache_handle *h = cache_handle_new(f);
    const size_t n = 45 * MIB + x->id;
    uint8_t *all = g_malloc(n);
    fill(all, n, x->id);
    for (size_t off = 0; off < n; off += 512 << 10)
        g_assert_cmpint(cache_write(h, all + off, MIN(n - off, 512 << 10), off, false, NULL), ==,
                        0);
    g_assert_cmpint(flush(h), ==, 0);
    assert_object(x->w, key, all, n);
    g_free(all);
    cache_handle_free(h);
    cache_file_unref(f);
    return NULL;
}

static void test_shared_disk(void)
{
    struct world *w = world_new(test_seed(), &(struct world_params){.uploads = 4});
    struct filler x[4];
    for (unsigned i = 0; i < G_N_ELEMENTS(x); i++) {
        x[i] = (struct filler){.w = w, .id = i};
        g_assert_cmpint(pthread_create(&x[i].thread, NULL, fill_file, &x[i]), ==, 0);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(x); i++)
        pthread_join(x[i].thread, NULL);
    world_free(w);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/writer-model/plain", test_model);
    g_test_add_func("/writer-model/caps", test_model_caps);
    g_test_add_func("/writer-model/faults", test_model_faults);
    g_test_add_func("/writer-model/threads", test_threads);
    g_test_add_func("/writer-model/shared-disk", test_shared_disk);
    return g_test_run();
}
