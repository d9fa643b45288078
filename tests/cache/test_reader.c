/* SPDX-License-Identifier: Apache-2.0
 *
 * Tests of the reader's contract on a fake store: what is read, what it costs in GETs and bytes,
 * and what becomes of errors, changes, cancellation and want of memory.
 */
#include <errno.h>
#include <glib.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>

#include "base/cancel.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/workq.h"
#include "cache/reader.h"
#include "tests/lib/fake_store.h"
#include "tests/lib/seed.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)

struct fixture {
    struct store *store;
    struct workq *deliver;
    struct read_cache *rc;
    /* What the hook does. Atomics: the test's thread sets, the store's reads. */
    gint hold;       /* GETs, of any priority */
    gint hold_ahead; /* GETs that nobody waits for */
    gint fail_ahead;
    gint fail_errno; /* positive; demand GETs */
    gint cut;        /* bytes after which a GET breaks; 0: none */
    struct mutex lock;
    struct cond changed;
    unsigned done; /* lock: operations over */
};

static enum fake_action hook(void *ctx, struct store_request *req, uint64_t *cut)
{
    struct fixture *f = ctx;
    bool ahead = req->prio == STORE_PRIO_AHEAD;
    g_assert_cmpint(req->verb, ==, STORE_GET);
    g_assert_nonnull(req->if_match);
    g_assert_true(req->range.set);
    if (g_atomic_int_get(&f->hold) || (ahead && g_atomic_int_get(&f->hold_ahead)))
        return FAKE_HOLD;
    int err = g_atomic_int_get(&f->fail_errno);
    if (ahead && g_atomic_int_get(&f->fail_ahead))
        err = ETIMEDOUT + 1;
    if (err) {
        store_result_fail(&req->res, -err, STORE_CLASS_FATAL, "Test", "as asked");
        return FAKE_FAIL;
    }
    if (g_atomic_int_get(&f->cut))
        *cut = (uint64_t)g_atomic_int_get(&f->cut);
    return FAKE_GO;
}

static void setup_memory(struct fixture *f, uint64_t memory)
{
    *f = (struct fixture){0};
    mutex_init(&f->lock, RANK_LEAF);
    cond_init(&f->changed);
    f->store = fake_store_new(&(struct fake_params){.seed = 1, .hook = hook, .ctx = f});
    g_assert_cmpint(workq_new("deliver", 2, &f->deliver), ==, 0);
    struct read_cache_params p = {.store = f->store, .deliver = f->deliver, .memory = memory};
    g_assert_cmpint(read_cache_new(&p, &f->rc), ==, 0);
}

static void setup(struct fixture *f, gconstpointer memory)
{
    setup_memory(f, GPOINTER_TO_SIZE(memory));
}

static void teardown(struct fixture *f, gconstpointer unused)
{
    read_cache_free(f->rc);
    workq_free(f->deliver);
    store_free(f->store);
    cond_fini(&f->changed);
    mutex_fini(&f->lock);
}

/* ---- objects ---- */

static uint64_t word_at(unsigned salt, uint64_t off)
{
    return (off / 8 + 1) * UINT64_C(0x9e3779b97f4a7c15) + salt;
}

static char *put(struct fixture *f, const char *key, size_t size, unsigned salt)
{
    g_autofree uint64_t *buf = g_new(uint64_t, size / 8 + 1);
    for (size_t i = 0; i <= size / 8; i++)
        buf[i] = word_at(salt, i * 8);
    return fake_store_put(f->store, "b", key, buf, size);
}

static void check(const void *buf, unsigned salt, uint64_t off, size_t n)
{
    const unsigned char *p = buf;
    while (n > 0) {
        uint64_t w = word_at(salt, off);
        size_t in = off % 8, k = MIN(n, 8 - in);
        if (memcmp(p, (const unsigned char *)&w + in, k) != 0)
            g_error("wrong byte at %" G_GUINT64_FORMAT, off);
        p += k;
        off += k;
        n -= k;
    }
}

static void pread_ok(struct reader *r, unsigned salt, uint64_t off, size_t len, size_t want)
{
    g_autofree unsigned char *buf = g_malloc(len + 1);
    g_assert_cmpint(reader_pread(r, buf, len, off, NULL), ==, (ssize_t)want);
    check(buf, salt, off, want);
}

static int pread_err(struct reader *r, uint64_t off, size_t len)
{
    g_autofree unsigned char *buf = g_malloc(len + 1);
    ssize_t n = reader_pread(r, buf, len, off, NULL);
    g_assert_cmpint(n, <, 0);
    return (int)n;
}

static uint64_t gets(struct fixture *f)
{
    return fake_store_count(f->store, STORE_GET);
}

static struct read_cache_stats stats(struct fixture *f)
{
    struct read_cache_stats st;
    read_cache_get_stats(f->rc, &st);
    return st;
}

/* ---- asynchronous reads ---- */

struct tracked {
    struct reader_op op;
    struct fixture *f;
    unsigned salt;
    pthread_t by;
    bool over; /* f->lock, as below */
    int err;
    size_t n;
};

static void tracked_done(struct reader_op *op, int err, const struct iovec *iov, int n_iov)
{
    struct tracked *t = op->ctx;
    size_t n = 0;
    for (int i = 0; i < n_iov; i++) {
        check(iov[i].iov_base, t->salt, op->off + n, iov[i].iov_len);
        n += iov[i].iov_len;
    }
    mutex_lock(&t->f->lock);
    t->over = true;
    t->by = pthread_self();
    t->err = err;
    t->n = n;
    t->f->done++;
    cond_broadcast(&t->f->changed);
    mutex_unlock(&t->f->lock);
}

static void start(struct fixture *f, struct reader *r, struct tracked *t, unsigned salt,
                  uint64_t off, size_t len)
{
    *t = (struct tracked){.f = f, .salt = salt};
    t->op = (struct reader_op){.off = off, .len = len, .done = tracked_done, .ctx = t};
    reader_read(r, &t->op);
}

static void await(struct tracked *t)
{
    mutex_lock(&t->f->lock);
    while (!t->over)
        cond_wait(&t->f->changed, &t->f->lock);
    mutex_unlock(&t->f->lock);
}

static bool is_over(struct tracked *t)
{
    mutex_lock(&t->f->lock);
    bool over = t->over;
    mutex_unlock(&t->f->lock);
    return over;
}

/* ---- what is read ---- */

static void test_ends(struct fixture *f, gconstpointer unused)
{
    size_t size = 3 * MIB + 777;
    g_autofree char *etag = put(f, "k", size, 1), *none = put(f, "empty", 0, 1);
    struct reader *r = reader_new(f->rc, "b", "k", etag, size);
    pread_ok(r, 1, 0, size, size);
    pread_ok(r, 1, size - 10, 4096, 10);
    pread_ok(r, 1, size, 4096, 0);
    pread_ok(r, 1, size + MIB, 4096, 0);
    pread_ok(r, 1, 100, 0, 0);
    pread_ok(r, 1, 4095, 2, 2);
    pread_ok(r, 1, 131071, 2, 2);
    pread_ok(r, 1, 0, size + 10 * MIB, size);
    struct tracked t;
    start(f, r, &t, 1, size, 100);
    g_assert_true(t.over && t.err == 0 && t.n == 0);
    start(f, r, &t, 1, UINT64_MAX - 5, 4 * MIB);
    g_assert_true(t.over && t.err == 0 && t.n == 0);
    start(f, r, &t, 1, size - 1, 4 * MIB);
    await(&t);
    g_assert_true(t.err == 0 && t.n == 1);
    reader_free(r);
    uint64_t before = gets(f);
    r = reader_new(f->rc, "b", "empty", none, 0);
    pread_ok(r, 1, 0, 100, 0);
    g_assert_cmpuint(gets(f), ==, before);
    reader_free(r);
}

static void test_inline(struct fixture *f, gconstpointer unused)
{
    g_autofree char *etag = put(f, "k", 4 * MIB, 2);
    struct reader *r = reader_new(f->rc, "b", "k", etag, 4 * MIB);
    pread_ok(r, 2, 0, 4 * MIB, 4 * MIB);
    uint64_t before = gets(f);
    struct tracked t;
    start(f, r, &t, 2, 1000, 2 * MIB);
    g_assert_true(t.over); /* by this thread, before reader_read() returned */
    g_assert_true(pthread_equal(t.by, pthread_self()));
    g_assert_cmpuint(t.n, ==, 2 * MIB);
    reader_free(r);
    /* Whoever opens the same version finds the blocks. */
    r = reader_new(f->rc, "b", "k", etag, 4 * MIB);
    start(f, r, &t, 2, 0, 4 * MIB);
    g_assert_true(t.over && t.n == 4 * MIB);
    g_assert_cmpuint(gets(f), ==, before);
    reader_free(r);
}

/* ---- what it costs ---- */

static void test_sequential(struct fixture *f, gconstpointer data)
{
    size_t size = 40 * MIB + 5000, len = 128 * KIB;
    g_autofree char *etag = put(f, "k", size, 3);
    struct reader *r = reader_new(f->rc, "b", "k", etag, size);
    for (size_t off = 0; off < size; off += len)
        pread_ok(r, 3, off, len, MIN(len, size - off));
    struct read_cache_stats st = stats(f);
    g_assert_cmpuint(st.bytes_fetched, ==, size); /* each byte once */
    g_assert_cmpuint(st.bytes_served, ==, size);
    g_assert_cmpuint(st.gets, ==, gets(f));
    g_assert_cmpuint(gets(f), <, 40);
    reader_free(r);
}

static void test_random_cost(struct fixture *f, gconstpointer data)
{
    size_t size = 64 * MIB, len = 16 * KIB;
    uint64_t rnd = test_seed(), asked = 0;
    g_autofree char *etag = put(f, "k", size, 4);
    struct reader *r = reader_new(f->rc, "b", "k", etag, size);
    for (unsigned i = 0; i < 500; i++) {
        pread_ok(r, 4, MIB + test_random(&rnd) % (size - 2 * MIB), len, len);
        asked += len;
    }
    g_assert_cmpuint(stats(f).bytes_fetched, <=, 2 * asked);
    reader_free(r);
}

static void test_probe_cost(struct fixture *f, gconstpointer unused)
{
    size_t size = 50 * MIB;
    g_autofree char *etag = put(f, "k", size, 5);
    struct reader *r = reader_new(f->rc, "b", "k", etag, size);
    pread_ok(r, 5, 0, 128 * KIB, 128 * KIB);
    pread_ok(r, 5, size - 300 * KIB, 128 * KIB, 128 * KIB);
    pread_ok(r, 5, 40, 4 * KIB, 4 * KIB);
    pread_ok(r, 5, size - 50 * KIB, 50 * KIB, 50 * KIB);
    g_assert_cmpuint(gets(f), <=, 4);
    g_assert_cmpuint(stats(f).bytes_fetched, <=, MIB);
    reader_free(r);
}

static void test_small_file(struct fixture *f, gconstpointer unused)
{
    g_autofree char *etag = put(f, "k", 300 * KIB, 6);
    struct reader *r = reader_new(f->rc, "b", "k", etag, 300 * KIB);
    for (size_t off = 0; off < 300 * KIB; off += 64 * KIB)
        pread_ok(r, 6, off, 64 * KIB, MIN(64 * KIB, 300 * KIB - off));
    g_assert_cmpuint(gets(f), ==, 1);
    reader_free(r);
}

/* Two readers of the same bytes wait for the same GET; each page is fetched by one GET only. */
static void test_coalesce(struct fixture *f, gconstpointer unused)
{
    g_autofree char *etag = put(f, "k", 8 * MIB, 7);
    struct reader *a = reader_new(f->rc, "b", "k", etag, 8 * MIB);
    struct reader *b = reader_new(f->rc, "b", "k", etag, 8 * MIB);
    struct reader *c = reader_new(f->rc, "b", "k", etag, 8 * MIB);
    struct tracked ta, tb, tc;
    g_atomic_int_set(&f->hold, 1);
    start(f, a, &ta, 7, 5 * MIB, 128 * KIB);
    start(f, b, &tb, 7, 5 * MIB + 4096, 64 * KIB);
    fake_store_wait_held(f->store, 1);
    g_assert_cmpuint(gets(f), ==, 1);
    start(f, c, &tc, 7, 5 * MIB + 64 * KIB, 128 * KIB); /* half of it is new */
    fake_store_wait_held(f->store, 2);
    g_assert_false(is_over(&ta) || is_over(&tb) || is_over(&tc));
    g_atomic_int_set(&f->hold, 0);
    fake_store_release(f->store);
    await(&ta);
    await(&tb);
    await(&tc);
    g_assert_true(ta.err == 0 && tb.err == 0 && tc.err == 0);
    g_assert_cmpuint(stats(f).bytes_fetched, ==, 192 * KIB);
    g_assert_false(pthread_equal(ta.by, pthread_self()));
    reader_free(a);
    reader_free(b);
    reader_free(c);
}

/* ---- errors and changes ---- */

static void test_errors(struct fixture *f, gconstpointer unused)
{
    static const struct {
        int store, reader;
    } cases[] = {{EACCES, -EACCES},    {ETIMEDOUT, -ETIMEDOUT}, {EIO, -EIO},
                 {ECONNREFUSED, -EIO}, {ENOENT, -ESTALE},       {EPROTO, -EIO}};
    g_autofree char *etag = put(f, "k", 8 * MIB, 8);
    struct reader *r = reader_new(f->rc, "b", "k", etag, 8 * MIB);
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_atomic_int_set(&f->fail_errno, cases[i].store);
        g_assert_cmpint(pread_err(r, MIB * i, 64 * KIB), ==, cases[i].reader);
        g_atomic_int_set(&f->fail_errno, 0);
        pread_ok(r, 8, MIB * i, 64 * KIB, 64 * KIB); /* nothing sticks */
    }
    g_atomic_int_set(&f->cut, 20 * 1024);
    g_assert_cmpint(pread_err(r, 7 * MIB, 64 * KIB), ==, -EIO);
    uint64_t before = gets(f);
    pread_ok(r, 8, 7 * MIB, 16 * KIB, 16 * KIB); /* what came before the cut counts */
    g_assert_cmpuint(gets(f), ==, before);
    reader_free(r);
}

/* A failed read-ahead is nobody's error. */
static void test_ahead_errors(struct fixture *f, gconstpointer unused)
{
    size_t size = 20 * MIB;
    g_autofree char *etag = put(f, "k", size, 9);
    struct reader *r = reader_new(f->rc, "b", "k", etag, size);
    g_atomic_int_set(&f->fail_ahead, 1);
    for (size_t off = 0; off < size; off += 128 * KIB)
        pread_ok(r, 9, off, 128 * KIB, 128 * KIB);
    reader_free(r);
}

static void test_short_object(struct fixture *f, gconstpointer unused)
{
    g_autofree char *etag = put(f, "k", MIB, 10);
    struct reader *r = reader_new(f->rc, "b", "k", etag, 2 * MIB); /* we were told of more */
    g_assert_cmpint(pread_err(r, MIB - 64 * KIB, 128 * KIB), ==, -EIO);
    reader_free(r);
}

static void test_changed(struct fixture *f, gconstpointer unused)
{
    g_autofree char *etag = put(f, "k", 8 * MIB, 11);
    struct reader *r = reader_new(f->rc, "b", "k", etag, 8 * MIB);
    pread_ok(r, 11, MIB, 64 * KIB, 64 * KIB);
    g_autofree char *etag2 = put(f, "k", 8 * MIB, 12);
    struct reader *r2 = reader_new(f->rc, "b", "k", etag2, 8 * MIB);
    g_assert_cmpint(pread_err(r, 4 * MIB, 64 * KIB), ==, -ESTALE);
    g_assert_cmpint(pread_err(r, MIB, 128 * KIB), ==, -ESTALE);
    pread_ok(r, 11, MIB, 64 * KIB, 64 * KIB); /* what is cached is of the old version */
    pread_ok(r2, 12, MIB, 64 * KIB, 64 * KIB);
    fake_store_delete(f->store, "b", "k");
    g_assert_cmpint(pread_err(r2, 5 * MIB, 64 * KIB), ==, -ESTALE);
    reader_free(r);
    reader_free(r2);
}

static void test_alias(struct fixture *f, gconstpointer unused)
{
    g_autofree char *etag = put(f, "k", 4 * MIB, 13);
    struct reader *r = reader_new(f->rc, "b", "k", etag, 4 * MIB);
    pread_ok(r, 13, 0, 512 * KIB, 512 * KIB);
    struct tracked t;
    g_atomic_int_set(&f->hold, 1);
    start(f, r, &t, 13, 2 * MIB, 64 * KIB);
    fake_store_wait_held(f->store, 1);
    /* The same bytes at another key; then the old object goes. */
    g_autofree char *etag2 = put(f, "k2", 4 * MIB, 13);
    read_cache_alias(f->rc, "b", "k", etag, "b", "k2", etag2);
    fake_store_delete(f->store, "b", "k");
    g_atomic_int_set(&f->hold, 0);
    fake_store_release(f->store);
    await(&t);
    g_assert_cmpint(t.err, ==, 0); /* its GET failed on the old name and was made again */
    uint64_t before = gets(f);
    struct reader *r2 = reader_new(f->rc, "b", "k2", etag2, 4 * MIB);
    pread_ok(r2, 13, 0, 512 * KIB, 512 * KIB);
    g_assert_cmpuint(gets(f), ==, before);
    pread_ok(r, 13, 3 * MIB, 64 * KIB, 64 * KIB); /* the old reader goes on */

    /* Onto a version that somebody has open already. */
    g_autofree char *etag3 = put(f, "k3", 4 * MIB, 13);
    struct reader *r3 = reader_new(f->rc, "b", "k3", etag3, 4 * MIB);
    read_cache_alias(f->rc, "b", "k2", etag2, "b", "k3", etag3);
    fake_store_delete(f->store, "b", "k2");
    before = gets(f);
    pread_ok(r3, 13, 0, 512 * KIB, 512 * KIB);
    g_assert_cmpuint(gets(f), ==, before);
    pread_ok(r2, 13, MIB + 512 * KIB, 64 * KIB, 64 * KIB);
    read_cache_alias(f->rc, "b", "nothing", "x", "b", "k3", etag3); /* unknown: no effect */
    reader_free(r);
    reader_free(r2);
    reader_free(r3);
}

/* ---- cancelling ---- */

static void test_cancel(struct fixture *f, gconstpointer unused)
{
    g_autofree char *etag = put(f, "k", 8 * MIB, 14);
    struct reader *r = reader_new(f->rc, "b", "k", etag, 8 * MIB);
    struct reader *r2 = reader_new(f->rc, "b", "k", etag, 8 * MIB);
    struct tracked t, other;
    g_atomic_int_set(&f->hold, 1); /* the server hangs */
    start(f, r, &t, 14, 4 * MIB, MIB);
    start(f, r2, &other, 14, 4 * MIB + 64 * KIB, 4096);
    fake_store_wait_held(f->store, 1);
    reader_cancel(r, &t.op);
    await(&t);
    g_assert_cmpint(t.err, ==, -EINTR);
    g_assert_false(is_over(&other)); /* the GET goes on for the other one */
    start(f, r, &t, 14, 6 * MIB, MIB);
    reader_cancel(r, &t.op);
    await(&t);
    g_assert_cmpint(t.err, ==, -EINTR);
    g_atomic_int_set(&f->hold, 0);
    fake_store_release(f->store);
    await(&other);
    g_assert_cmpint(other.err, ==, 0);
    pread_ok(r, 14, 6 * MIB, MIB, MIB); /* although that GET was cancelled */
    reader_free(r);
    reader_free(r2);
}

static void *fire(void *arg)
{
    struct fixture *f = ((void **)arg)[0];
    fake_store_wait_held(f->store, 1);
    cancel_fire(((void **)arg)[1]);
    return NULL;
}

static void test_pread_cancel(struct fixture *f, gconstpointer unused)
{
    g_autofree char *etag = put(f, "k", 8 * MIB, 15);
    struct reader *r = reader_new(f->rc, "b", "k", etag, 8 * MIB);
    struct cancel *c = cancel_new();
    void *args[] = {f, c};
    char buf[4096];
    pthread_t thread;
    g_atomic_int_set(&f->hold, 1);
    g_assert_cmpint(pthread_create(&thread, NULL, fire, args), ==, 0);
    g_assert_cmpint(reader_pread(r, buf, sizeof(buf), MIB, c), ==, -EINTR);
    pthread_join(thread, NULL);
    g_assert_cmpint(reader_pread(r, buf, sizeof(buf), 2 * MIB, c), ==, -EINTR); /* fired before */
    cancel_free(c);
    g_atomic_int_set(&f->hold, 0);
    fake_store_release(f->store);
    reader_free(r);
}

/* The GETs ahead of a place that was left are cancelled, those of a closed reader too. */
static void test_seek_cancels(struct fixture *f, gconstpointer unused)
{
    size_t size = 48 * MIB;
    g_autofree char *etag = put(f, "k", size, 16);
    struct reader *r = reader_new(f->rc, "b", "k", etag, size);
    for (size_t off = 0; off < 4 * MIB; off += 128 * KIB)
        pread_ok(r, 16, off, 128 * KIB, 128 * KIB);
    fake_store_wait_idle(f->store); /* what was sent before is not to be held */
    g_atomic_int_set(&f->hold_ahead, 1);
    size_t off = 4 * MIB, held = 0;
    for (uint64_t before = gets(f); held < 2; off += 128 * KIB) {
        struct tracked t;
        start(f, r, &t, 16, off, 128 * KIB);
        await(&t);
        g_assert_cmpint(t.err, ==, 0);
        held = gets(f) - before;
    }
    fake_store_wait_held(f->store, 2);
    unsigned blocks = (unsigned)stats(f).blocks;
    for (unsigned i = 0; i < 4; i++)
        pread_ok(r, 16, 40 * MIB + i * 128 * KIB, 128 * KIB, 128 * KIB);
    while (stats(f).blocks >= blocks) /* blocks that no byte came for are free again */
        sched_yield();
    g_atomic_int_set(&f->hold_ahead, 0);
    fake_store_release(f->store);
    for (; off < 20 * MIB; off += 128 * KIB)
        pread_ok(r, 16, off, 128 * KIB, 128 * KIB);
    fake_store_wait_idle(f->store);
    g_atomic_int_set(&f->hold_ahead, 1);
    for (uint64_t before = gets(f); gets(f) == before && off < 30 * MIB; off += 128 * KIB)
        pread_ok(r, 16, off, 128 * KIB, 128 * KIB);
    reader_free(r); /* and teardown would not return if a held GET were waited for */
}

/* ---- want of memory ---- */

/* 64 readers of 1 MiB each, of 64 objects, in 8 MiB. */
static void test_crowd(struct fixture *f, gconstpointer unused)
{
    enum { N = 64 };
    struct reader *r[N];
    struct tracked t[N];
    g_atomic_int_set(&f->hold, 1);
    for (unsigned i = 0; i < N; i++) {
        g_autofree char *key = g_strdup_printf("k%u", i);
        g_autofree char *etag = put(f, key, 2 * MIB, i);
        r[i] = reader_new(f->rc, "b", key, etag, 2 * MIB);
        start(f, r[i], &t[i], i, i % 2 ? 12345 : 0, MIB);
    }
    g_assert_cmpuint(gets(f), <, N);       /* the others have no blocks yet */
    reader_cancel(r[N - 1], &t[N - 1].op); /* one that is queued */
    await(&t[N - 1]);
    g_assert_cmpint(t[N - 1].err, ==, -EINTR);
    reader_cancel(r[0], &t[0].op); /* one that has blocks */
    await(&t[0]);
    g_atomic_int_set(&f->hold, 0);
    fake_store_release(f->store);
    for (unsigned i = 1; i < N - 1; i++) {
        await(&t[i]);
        g_assert_cmpint(t[i].err, ==, 0);
        g_assert_cmpuint(t[i].n, ==, MIB);
    }
    struct read_cache_stats st = stats(f);
    g_assert_cmpuint(st.blocks_max, ==, 64);
    g_assert_cmpuint(st.blocks, <=, 64);
    for (unsigned i = 0; i < N; i++)
        reader_free(r[i]);
}

/* The largest reads, several at a time, in the smallest arena. */
static void test_large_reads(struct fixture *f, gconstpointer unused)
{
    size_t size = 40 * MIB;
    g_autofree char *etag = put(f, "k", size, 17);
    struct reader *r = reader_new(f->rc, "b", "k", etag, size);
    struct tracked t[8];
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 0; i < G_N_ELEMENTS(t); i++)
            start(f, r, &t[i], 17, i * 4 * MIB + 1000, 4 * MIB);
        for (unsigned i = 0; i < G_N_ELEMENTS(t); i++) {
            await(&t[i]);
            g_assert_true(t[i].err == 0 && t[i].n == 4 * MIB);
        }
    }
    pread_ok(r, 17, 0, size, size);
    reader_free(r);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    log_set_level(LOG_CRIT); /* failures are meant here */
    alarm(300);              /* a lost wake-up ends the test */
#define ADD(name, fn, memory)                                                                      \
    g_test_add("/reader/" name, struct fixture, GSIZE_TO_POINTER(memory), setup, fn, teardown)
    ADD("ends", test_ends, 64 * MIB);
    ADD("inline", test_inline, 64 * MIB);
    ADD("sequential", test_sequential, 128 * MIB);
    ADD("random-cost", test_random_cost, 64 * MIB);
    ADD("probe-cost", test_probe_cost, 64 * MIB);
    ADD("small-file", test_small_file, 64 * MIB);
    ADD("coalesce", test_coalesce, 64 * MIB);
    ADD("errors", test_errors, 64 * MIB);
    ADD("ahead-errors", test_ahead_errors, 64 * MIB);
    ADD("short-object", test_short_object, 64 * MIB);
    ADD("changed", test_changed, 64 * MIB);
    ADD("alias", test_alias, 64 * MIB);
    ADD("cancel", test_cancel, 64 * MIB);
    ADD("pread-cancel", test_pread_cancel, 64 * MIB);
    ADD("seek-cancels", test_seek_cancels, 64 * MIB);
    ADD("crowd", test_crowd, 8 * MIB);
    ADD("large-reads", test_large_reads, 8 * MIB);
    return g_test_run();
}
