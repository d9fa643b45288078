/* SPDX-License-Identifier: Apache-2.0
 *
 * s3/fault above the fake store: what it injects, how often, that it reports what the real store
 * would, that its choice follows the seed; and the whole stack retry → stats → fault → fake.
 */
#include <errno.h>
#include <glib.h>
#include <stdatomic.h>
#include <string.h>

#include "base/cancel.h"
#include "base/clock.h"
#include "base/crc32c.h"
#include "base/mutex.h"
#include "base/thread.h"
#include "s3/fault.h"
#include "s3/retry.h"
#include "s3/stats.h"
#include "tests/lib/fake_store.h"
#include "tests/lib/seed.h"

#define HOUR (3600 * NSEC_PER_SEC)

static struct store *fault_new(const char *spec, struct store **fake)
{
    struct store *s;
    *fake = fake_store_new(&(struct fake_params){.seed = 1});
    g_assert_cmpint(store_fault_new(*fake, spec, &s), ==, 0);
    return s;
}

static struct store_request head_request(void)
{
    return (struct store_request){.verb = STORE_HEAD, .bucket = "b", .key = "k"};
}

static ssize_t letters_read(void *ctx, uint64_t off, void *buf, size_t n)
{
    for (size_t i = 0; i < n; i++)
        ((char *)buf)[i] = (char)('a' + (off + i) % 26);
    return (ssize_t)n;
}

struct body {
    uint64_t from, n;
};

static int body_write(void *ctx, uint64_t off, const void *buf, size_t n)
{
    struct body *b = ctx;
    g_assert_cmpuint(off, ==, b->from + b->n);
    for (size_t i = 0; i < n; i++)
        g_assert_cmpint(((const char *)buf)[i], ==, 'a' + (off + i) % 26);
    b->n += n;
    return 0;
}

static char *put_letters(struct store *fake, size_t n)
{
    g_autofree char *data = g_malloc(n);
    letters_read(NULL, 0, data, n);
    return fake_store_put(fake, "b", "k", data, n);
}

static struct store_request put_request(void)
{
    return (struct store_request){.verb = STORE_PUT,
                                  .bucket = "b",
                                  .key = "k",
                                  .source = {.read = letters_read, .size = 1000}};
}

/* The spec */

static void test_spec(void)
{
    static const char *const good[] = {
        "rate=0", "rate=1.0,seed=18446744073709551615",
        "rate=0.05,seed=42,verbs=GET+PUT,kinds=timeout+reset+500+503+cut,delay_ms=30"};
    static const char *const bad[] = {"",
                                      "rate",
                                      "rate=",
                                      "rate=2",
                                      "rate=-1",
                                      "rate=x",
                                      "rate=0.1x",
                                      "seed=-1",
                                      "verbs=",
                                      "verbs=GOT",
                                      "kinds=cut+",
                                      "kinds=everything",
                                      "delay_ms=-5",
                                      "delay_ms=99999999",
                                      "colour=red",
                                      "rate=0.1,,seed=1"};
    struct store *fake, *s;
    for (size_t i = 0; i < G_N_ELEMENTS(good); i++)
        store_free(fault_new(good[i], &fake));
    fake = fake_store_new(&(struct fake_params){.seed = 1});
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++)
        g_assert_cmpint(store_fault_new(fake, bad[i], &s), ==, -EINVAL);
    store_free(fake);
}

/* What is reported: rows of one kind each, at rate 1. */

static void test_reports(void)
{
    static const struct {
        const char *spec;
        bool conditional;
        int err, err2; /* err2: a second possibility */
        enum store_class cls, cls2;
        int status;
    } rows[] = {
        {"rate=1,kinds=timeout", false, -ETIMEDOUT, 0, STORE_CLASS_RETRY, 0, 0},
        {"rate=1,kinds=timeout", true, -ETIMEDOUT, 0, STORE_CLASS_AMBIGUOUS, 0, 0},
        {"rate=1,kinds=reset", false, -ECONNRESET, -ECONNREFUSED, STORE_CLASS_RETRY, 0, 0},
        {"rate=1,kinds=reset", true, -ECONNRESET, -ECONNREFUSED, STORE_CLASS_AMBIGUOUS,
         STORE_CLASS_RETRY, 0},
        {"rate=1,kinds=500", false, -EIO, 0, STORE_CLASS_RETRY, 0, 500},
        {"rate=1,kinds=500", true, -EIO, 0, STORE_CLASS_AMBIGUOUS, 0, 500},
        {"rate=1,kinds=503", false, -EAGAIN, 0, STORE_CLASS_RETRY, 0, 503},
        {"rate=1,kinds=503", true, -EAGAIN, 0, STORE_CLASS_RETRY, 0, 503},
    };
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        struct store *fake, *s = fault_new(rows[i].spec, &fake);
        unsigned acted = 0;
        for (int k = 0; k < 60; k++) {
            _cleanup_request_ struct store_request put = put_request();
            put.if_none_match = rows[i].conditional;
            fake_store_delete(fake, "b", "k");
            int r = store_run(s, &put, NULL);
            g_assert_true(r == rows[i].err || (rows[i].err2 && r == rows[i].err2));
            g_assert_cmpint(put.res.cls, ==,
                            r == rows[i].err2 && rows[i].cls2 ? rows[i].cls2 : rows[i].cls);
            g_assert_cmpint(put.res.http_status, ==, rows[i].status);
            g_assert_cmpint(put.res.retry_after_ns > 0, ==, rows[i].status == 503);
            g_assert_null(put.res.object.etag);
            g_autoptr(GBytes) there = fake_store_get(fake, "b", "k", NULL);
            acted += there != NULL;
            if (r == -ECONNREFUSED) /* it never left */
                g_assert_null(there);
        }
        /* A lost reply is not a lost request, and the other way round. */
        if (rows[i].status == 0)
            g_assert_true(acted > 5 && acted < 55);
        else
            g_assert_cmpuint(acted, ==, 0);
        g_assert_cmpuint(store_fault_count(s), ==, 60);
        store_free(s);
    }
}

static void test_verbs(void)
{
    struct store *fake, *s = fault_new("rate=1,verbs=PUT,kinds=500", &fake);
    g_free(put_letters(fake, 10));
    _cleanup_request_ struct store_request head = head_request(), put = put_request();
    for (int i = 0; i < 20; i++) {
        g_assert_cmpint(store_run(s, &head, NULL), ==, 0);
        g_assert_cmpint(store_run(s, &put, NULL), ==, -EIO);
    }
    g_assert_cmpuint(store_fault_count(s), ==, 20);
    struct store_caps caps;
    store_get_caps(s, "b", &caps);
    g_assert_true(caps.put_if);
    store_free(s);
    /* cut is for bodies of GETs alone */
    s = fault_new("rate=1,kinds=cut", &fake);
    g_free(put_letters(fake, 10));
    g_assert_cmpint(store_run(s, &head, NULL), ==, 0);
    g_assert_cmpuint(store_fault_count(s), ==, 0);
    store_free(s);
}

static int letters_checksum(void *ctx, uint32_t *ret)
{
    char buf[1000];
    letters_read(ctx, 0, buf, sizeof(buf));
    *ret = crc32c(0, buf, sizeof(buf));
    return 0;
}

/* One bit of the body differs: unnoticed, or refused where the checksum came along. */
static void test_flip(void)
{
    struct store *fake, *s = fault_new("rate=1,kinds=flip", &fake);
    char letters[1000];
    letters_read(NULL, 0, letters, sizeof(letters));
    for (int i = 0; i < 20; i++) {
        _cleanup_request_ struct store_request put = put_request();
        g_assert_cmpint(store_run(s, &put, NULL), ==, 0);
        g_autoptr(GBytes) there = fake_store_get(fake, "b", "k", NULL);
        const char *got = g_bytes_get_data(there, NULL);
        unsigned differ = 0;
        for (size_t k = 0; k < sizeof(letters); k++)
            differ += (unsigned)__builtin_popcount((uint8_t)(got[k] ^ letters[k]));
        g_assert_cmpuint(differ, ==, 1);
        fake_store_delete(fake, "b", "k");
        put.source.checksum = letters_checksum;
        g_assert_cmpint(store_run(s, &put, NULL), ==, -EIO);
        g_assert_true(store_refused_digest(&put.res));
        g_assert_null(fake_store_get(fake, "b", "k", NULL));
    }
    _cleanup_request_ struct store_request empty = put_request(), head = head_request();
    empty.source.size = 0;
    g_assert_cmpint(store_run(s, &empty, NULL), ==, 0);
    g_assert_cmpint(store_run(s, &head, NULL), ==, 0);
    g_assert_cmpuint(store_fault_count(s), ==, 40);
    store_free(s);
    /* Only who asks for it gets it. */
    s = fault_new("rate=1", &fake);
    for (int i = 0; i < 100; i++) {
        _cleanup_request_ struct store_request put = put_request();
        g_assert_cmpint(store_run(s, &put, NULL), <, 0);
    }
    store_free(s);
}

static void test_cut(void)
{
    struct store *fake, *s = fault_new("rate=1,kinds=cut", &fake);
    g_autofree char *etag = put_letters(fake, 100000);
    uint64_t least = UINT64_MAX, most = 0;
    for (int i = 0; i < 100; i++) {
        struct body b = {.from = 1000};
        _cleanup_request_ struct store_request get = {.verb = STORE_GET, .bucket = "b", .key = "k"};
        get.range = (struct store_range){.set = true, .off = 1000, .len = 50000};
        get.sink = (struct store_sink){.write = body_write, .ctx = &b};
        g_assert_cmpint(store_run(s, &get, NULL), ==, -ECONNRESET);
        g_assert_cmpint(get.res.cls, ==, STORE_CLASS_RETRY);
        g_assert_cmpuint(get.res.bytes, ==, b.n);
        g_assert_cmpstr(get.res.object.etag, ==, etag);
        least = MIN(least, b.n);
        most = MAX(most, b.n);
    }
    g_assert_cmpuint(least, <, 10000);
    g_assert_cmpuint(most, >, 40000);
    store_free(s);
}

/* The store's own failures pass through it unchanged. */
static void test_real_failures(void)
{
    struct store *fake, *s = fault_new("rate=0", &fake);
    _cleanup_request_ struct store_request head = head_request();
    g_assert_cmpint(store_run(s, &head, NULL), ==, -ENOENT);
    g_assert_cmpstr(head.res.code, ==, "NoSuchKey");
    store_free(s);
    s = fault_new("rate=1,kinds=cut", &fake);
    struct body b = {0};
    _cleanup_request_ struct store_request get = {.verb = STORE_GET, .bucket = "b", .key = "k"};
    get.sink = (struct store_sink){.write = body_write, .ctx = &b};
    g_assert_cmpint(store_run(s, &get, NULL), ==, -ENOENT);
    store_free(s);
}

/* The seed */

static void outcomes(const char *spec, int *ret, unsigned n)
{
    struct store *fake, *s = fault_new(spec, &fake);
    g_free(put_letters(fake, 10));
    for (unsigned i = 0; i < n; i++) {
        _cleanup_request_ struct store_request head = head_request();
        ret[i] = store_run(s, &head, NULL);
    }
    store_free(s);
}

static void test_seed_decides(void)
{
    enum { N = 1000 };
    int a[N], b[N], c[N];
    unsigned failed = 0;
    outcomes("rate=0.2,seed=7", a, N);
    outcomes("rate=0.2,seed=7", b, N);
    outcomes("rate=0.2,seed=8", c, N);
    g_assert_cmpmem(a, sizeof(a), b, sizeof(b));
    g_assert_cmpint(memcmp(a, c, sizeof(a)), !=, 0);
    for (unsigned i = 0; i < N; i++)
        failed += a[i] < 0;
    g_assert_true(failed > 120 && failed < 280);
}

/* Delay and cancel */

struct async {
    struct store_request req;
    struct mutex lock;
    struct cond changed;
    bool done, same_thread; /* lock */
    int err;                /* lock */
    pthread_t submitter;
};

static void async_done(struct store_request *req)
{
    struct async *a = req->ctx;
    mutex_lock(&a->lock);
    a->done = true;
    a->err = req->res.err;
    a->same_thread = pthread_equal(a->submitter, pthread_self());
    cond_broadcast(&a->changed);
    mutex_unlock(&a->lock);
}

static void async_run(struct async *a, struct store *s, bool cancel)
{
    *a = (struct async){.req = head_request(), .submitter = pthread_self()};
    mutex_init(&a->lock, RANK_LEAF);
    cond_init(&a->changed);
    a->req.done = async_done;
    a->req.ctx = a;
    store_submit(s, &a->req);
    if (cancel)
        store_cancel(s, &a->req);
    mutex_lock(&a->lock);
    while (!a->done)
        cond_wait(&a->changed, &a->lock);
    mutex_unlock(&a->lock);
    g_assert_false(a->same_thread);
    cond_fini(&a->changed);
    mutex_fini(&a->lock);
    store_request_clear(&a->req);
}

static void test_delay(void)
{
    struct store *fake, *s = fault_new("rate=0,delay_ms=1", &fake);
    g_free(put_letters(fake, 10));
    struct async a;
    uint64_t before = clock_mono_ns();
    async_run(&a, s, false);
    g_assert_cmpuint(clock_mono_ns() - before, >=, NSEC_PER_MSEC);
    store_free(s);
    /* An hour's delay ends with the cancel. */
    s = fault_new("rate=0.5,delay_ms=3600000", &fake);
    for (int i = 0; i < 50; i++) {
        async_run(&a, s, true);
        g_assert_cmpint(a.err, ==, -ECANCELED);
    }
    g_assert_cmpuint(fake_store_count(fake, STORE_HEAD), ==, 0);
    store_free(s);
}

static void *fire_now(void *arg)
{
    cancel_fire(arg);
    return NULL;
}

static void test_cancel_race(void)
{
    struct store *fake, *s = fault_new("rate=0.3", &fake);
    g_free(put_letters(fake, 10));
    for (int i = 0; i < 400; i++) {
        struct cancel *c = cancel_new();
        pthread_t t;
        g_assert_cmpint(thread_start(&t, "fire", fire_now, c), ==, 0);
        struct store_request *req = g_new(struct store_request, 1);
        *req = head_request();
        int r = store_run(s, req, c);
        g_assert_true(r == 0 || r == -EINTR || req->res.cls == STORE_CLASS_RETRY);
        store_request_clear(req);
        g_free(req);
        pthread_join(t, NULL);
        cancel_free(c);
    }
    store_free(s);
}

/* The stack: whatever the faults, bytes are right and unconditional writes arrive. */

static void no_wait(void *ctx, const struct store_request *req, uint64_t *delay_ns)
{
    *delay_ns = 0;
}

static void stack_get(struct store *s, uint64_t *prng, uint64_t size)
{
    struct body b = {0};
    _cleanup_request_ struct store_request get = {.verb = STORE_GET, .bucket = "b", .key = "k"};
    get.range.set = test_random(prng) % 4;
    b.from = get.range.off = get.range.set ? test_random(prng) % size : 0;
    get.range.len = get.range.set ? test_random(prng) % size : 0;
    get.sink = (struct store_sink){.write = body_write, .ctx = &b};
    g_assert_cmpint(store_run(s, &get, NULL), ==, 0);
    g_assert_cmpuint(b.n, ==, get.range.len ? MIN(get.range.len, size - b.from) : size - b.from);
}

/* A conditional write: AMBIGUOUS is resolved by a look, as its callers do. */
static void stack_create(struct store *s)
{
    _cleanup_request_ struct store_request del = {
        .verb = STORE_DELETE, .bucket = "b", .key = "new"};
    g_assert_cmpint(store_run(s, &del, NULL), ==, 0);
    for (;;) {
        _cleanup_request_ struct store_request put = put_request();
        put.key = "new";
        put.if_none_match = true;
        int r = store_run(s, &put, NULL);
        if (r == 0)
            return;
        g_assert_cmpint(put.res.cls, ==, STORE_CLASS_AMBIGUOUS);
        _cleanup_request_ struct store_request head = head_request();
        head.key = "new";
        r = store_run(s, &head, NULL);
        if (r == 0)
            return;
        g_assert_cmpint(r, ==, -ENOENT);
    }
}

static void test_stack(void)
{
    uint64_t prng = test_seed(), size = 400000;
    struct store *fake, *stats, *s;
    g_autofree char *spec = g_strdup_printf("rate=0.4,seed=%" G_GUINT64_FORMAT, prng);
    struct store *fault = fault_new(spec, &fake);
    stats = store_stats_new(fault);
    struct store_retry_params p = {.op_timeout_ns = HOUR, .backoff = no_wait, .seed = prng};
    g_assert_cmpint(store_retry_new(stats, &p, &s), ==, 0);
    g_free(put_letters(fake, size));
    for (int i = 0; i < 200; i++) {
        stack_get(s, &prng, size);
        stack_create(s);
    }
    struct store_stats n;
    store_stats_get(stats, &n);
    g_assert_cmpuint(n.requests[STORE_GET], >, 250);
    g_assert_cmpuint(n.errors[STORE_GET] + n.errors[STORE_PUT] + n.errors[STORE_HEAD] +
                         n.errors[STORE_DELETE],
                     >=, store_fault_count(fault));
    store_free(s);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/fault/spec", test_spec);
    g_test_add_func("/fault/reports", test_reports);
    g_test_add_func("/fault/verbs", test_verbs);
    g_test_add_func("/fault/cut", test_cut);
    g_test_add_func("/fault/flip", test_flip);
    g_test_add_func("/fault/real-failures", test_real_failures);
    g_test_add_func("/fault/seed", test_seed_decides);
    g_test_add_func("/fault/delay", test_delay);
    g_test_add_func("/fault/cancel-race", test_cancel_race);
    g_test_add_func("/fault/stack", test_stack);
    return g_test_run();
}
