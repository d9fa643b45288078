/* SPDX-License-Identifier: Apache-2.0
 *
 * The whole read path against a model: many threads read objects whose every byte is a function
 * of (content, offset) through an arena that is far too small, while GETs fail, break, lie, are
 * cancelled, and objects change or get new names.
 * MLOPSFS_OPS: how many reads. MLOPSFS_SEED: the seed.
 */
#include <errno.h>
#include <glib.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cancel.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/workq.h"
#include "cache/reader.h"
#include "s3/store.h"
#include "tests/lib/seed.h"

/* ---- the model: objects whose bytes are a function ---- */

#define OBJECTS 6
#define STORE_THREADS 3
#define WORKERS 8

struct model_object {
    char key[16];
    unsigned etag;    /* of the present version */
    unsigned content; /* what its bytes are; a rename in place keeps it */
    uint64_t size;
};

struct model {
    struct store store;
    struct read_cache *rc;
    struct mutex lock;
    struct cond wake;
    struct model_object objects[OBJECTS]; /* lock */
    GQueue queue;                         /* lock: struct store_request* */
    bool stop;                            /* lock */
    unsigned serial;                      /* lock */
    unsigned faults;                      /* constant: in a thousand demand GETs */
    gint ops_left;
    pthread_t threads[STORE_THREADS];
    uint64_t seed;
};

static uint64_t size_of_content(unsigned content)
{
    static const uint64_t sizes[] = {1, 4096, 100000, 131072, 1 << 20, 3000001, 6 << 20};
    return sizes[content % G_N_ELEMENTS(sizes)];
}

static uint64_t word_of(unsigned content, uint64_t index)
{
    uint64_t x = (index + 1) * UINT64_C(0x9e3779b97f4a7c15) ^
                 (uint64_t)content * UINT64_C(0xd6e8feb86659fd93);
    return x ^ x >> 29;
}

static void fill_bytes(unsigned content, uint64_t off, unsigned char *buf, size_t n)
{
    while (n > 0) {
        uint64_t w = word_of(content, off / 8);
        size_t in = off % 8, k = MIN(n, 8 - in);
        memcpy(buf, (unsigned char *)&w + in, k);
        buf += k;
        off += k;
        n -= k;
    }
}

static void check_bytes(unsigned content, uint64_t off, const unsigned char *buf, size_t n)
{
    while (n > 0) {
        uint64_t w = word_of(content, off / 8);
        size_t in = off % 8, k = MIN(n, 8 - in);
        if (memcmp(buf, (unsigned char *)&w + in, k) != 0)
            g_error("wrong byte at %" G_GUINT64_FORMAT " of content %u", off, content);
        buf += k;
        off += k;
        n -= k;
    }
}

/* Its state machine in req->layer: 0, or 1 once cancelled. */
static bool was_cancelled(struct model *m, struct store_request *req)
{
    mutex_lock(&m->lock);
    bool yes = req->layer != NULL;
    mutex_unlock(&m->lock);
    return yes;
}

/* Delivers [range), or as much of it as `limit` allows. 0 or what the sink or a cancellation says.
 */
static int deliver_body(struct model *m, struct store_request *req, unsigned content, uint64_t size,
                        uint64_t limit, uint64_t *rnd)
{
    static _Thread_local unsigned char buf[65536];
    uint64_t at = req->range.off, end = MIN(size, at + MIN(limit, req->range.len));
    while (at < end) {
        size_t n = 1 + test_random(rnd) % sizeof(buf);
        n = MIN(n, end - at);
        if (was_cancelled(m, req))
            return -ECANCELED;
        fill_bytes(content, at, buf, n);
        int r = req->sink.write(req->sink.ctx, at, buf, n);
        if (r < 0)
            return r;
        at += n;
    }
    return 0;
}

static void model_get(struct model *m, struct store_request *req, uint64_t *rnd)
{
    mutex_lock(&m->lock);
    struct model_object o = {0};
    for (unsigned i = 0; i < OBJECTS; i++)
        if (g_str_equal(m->objects[i].key, req->key))
            o = m->objects[i];
    mutex_unlock(&m->lock);
    struct store_result *res = &req->res;
    g_autofree char *etag = g_strdup_printf("%u", o.etag);
    unsigned dice = (unsigned)(test_random(rnd) % 1000);
    uint64_t part = 1 + test_random(rnd) % MAX(1, req->range.len);
    /* GETs that nobody asked for yet fail also where nothing else does. */
    bool ahead = req->prio == STORE_PRIO_AHEAD;
    bool fails = dice < (ahead ? 300 : m->faults);
    if (g_strcmp0(etag, req->if_match) != 0) {
        store_result_fail(res, -ESTALE, STORE_CLASS_CONFLICT, "PreconditionFailed", "changed");
        return;
    }
    if (fails && dice % 5 == 0) {
        store_result_fail(res, -EACCES, STORE_CLASS_AUTH, "AccessDenied", "denied");
        return;
    }
    int r = deliver_body(m, req, o.content, o.size, fails ? part : UINT64_MAX, rnd);
    if (r < 0)
        store_result_fail(res, r, STORE_CLASS_FATAL, NULL, "ended");
    else if (fails && dice % 5 == 1 && !ahead) /* a timeout is passed on: enough time went by */
        store_result_fail(res, -ETIMEDOUT, STORE_CLASS_RETRY, NULL, "stalled");
    else if (fails && dice % 5 < 4)
        store_result_fail(res, -ECONNRESET, STORE_CLASS_RETRY, NULL, "reset");
    /* else: a short body that claims to be whole */
    res->object.size = o.size;
    res->object.etag = g_steal_pointer(&etag);
}

static void *model_thread(void *arg)
{
    struct model *m = arg;
    mutex_lock(&m->lock);
    uint64_t rnd = m->seed ^ (++m->serial * UINT64_C(0x9e3779b97f4a7c15));
    for (;;) {
        while (!m->stop && g_queue_is_empty(&m->queue))
            cond_wait(&m->wake, &m->lock);
        unsigned n = g_queue_get_length(&m->queue);
        if (n == 0)
            break;
        struct store_request *req = g_queue_pop_nth(&m->queue, (guint)(test_random(&rnd) % n));
        mutex_unlock(&m->lock);
        if (was_cancelled(m, req))
            store_result_fail(&req->res, -ECANCELED, STORE_CLASS_FATAL, NULL, "cancelled");
        else
            model_get(m, req, &rnd);
        store_complete(req);
        mutex_lock(&m->lock);
    }
    mutex_unlock(&m->lock);
    return NULL;
}

static void model_submit(struct store *s, struct store_request *req)
{
    struct model *m = (struct model *)s;
    mutex_lock(&m->lock);
    g_queue_push_tail(&m->queue, req);
    cond_signal(&m->wake);
    mutex_unlock(&m->lock);
}

static void model_cancel(struct store *s, struct store_request *req)
{
    struct model *m = (struct model *)s;
    mutex_lock(&m->lock);
    req->layer = m;
    mutex_unlock(&m->lock);
}

static const struct store_ops model_ops = {
    .name = "model", .submit = model_submit, .cancel = model_cancel};

/* A new version: other bytes, or the same under another ETag. */
static void model_change(struct model *m, unsigned i, bool alias)
{
    mutex_lock(&m->lock);
    struct model_object *o = &m->objects[i];
    struct model_object before = *o;
    o->etag = ++m->serial;
    if (!alias) {
        o->content = ++m->serial;
        o->size = size_of_content(o->content);
    }
    g_autofree char *from = g_strdup_printf("%u", before.etag),
                    *to = g_strdup_printf("%u", o->etag);
    mutex_unlock(&m->lock);
    if (alias)
        read_cache_alias(m->rc, "b", before.key, from, "b", before.key, to);
}

/* ---- the model's readers ---- */

struct worker {
    struct model *m;
    uint64_t rnd;
    pthread_t thread;
    struct mutex lock;
    struct cond changed;
    unsigned under_way; /* lock */
};

struct model_op {
    struct reader_op op;
    struct worker *w;
    unsigned content;
    uint64_t size;
    bool cancelled; /* w->lock */
    bool over;      /* w->lock: done has begun */
};

static void check_error(const struct model *m, int err)
{
    bool fault = m->faults > 0 && (err == -EIO || err == -EACCES || err == -ETIMEDOUT);
    if (err != -ESTALE && !fault)
        g_error("unexpected error %d", err);
}

static void model_done(struct reader_op *op, int err, const struct iovec *iov, int n_iov)
{
    struct model_op *o = op->ctx;
    struct worker *w = o->w;
    mutex_lock(&w->lock);
    o->over = true;
    bool cancelled = o->cancelled;
    mutex_unlock(&w->lock);
    uint64_t at = op->off, want = op->off < o->size ? MIN(op->len, o->size - op->off) : 0;
    if (err == 0) {
        for (int i = 0; i < n_iov; i++) {
            check_bytes(o->content, at, iov[i].iov_base, iov[i].iov_len);
            at += iov[i].iov_len;
        }
        g_assert_cmpuint(at - op->off, ==, want);
    } else if (err != -EINTR || !cancelled) {
        check_error(w->m, err);
    }
    mutex_lock(&w->lock);
    w->under_way--;
    cond_signal(&w->changed);
    mutex_unlock(&w->lock);
}

static uint64_t pick_len(uint64_t *rnd)
{
    static const uint64_t max[] = {100, 4096, 16384, 65536, 131072, 131072, 1 << 20, 4 << 20};
    return 1 + test_random(rnd) % max[test_random(rnd) % G_N_ELEMENTS(max)];
}

static void read_sync(struct worker *w, struct reader *r, const struct model_op *like, uint64_t off,
                      size_t len)
{
    g_autofree unsigned char *buf = g_malloc(len);
    struct cancel *c = test_random(&w->rnd) % 8 == 0 ? cancel_new() : NULL;
    if (c)
        cancel_fire(c);
    ssize_t n = reader_pread(r, buf, len, off, c);
    uint64_t want = off < like->size ? MIN(len, like->size - off) : 0;
    if (n >= 0) {
        g_assert_cmpint(n, ==, (ssize_t)want);
        check_bytes(like->content, off, buf, (size_t)n);
    } else if (n != -EINTR || !c) {
        check_error(w->m, (int)n);
    }
    cancel_free(c);
}

static void op_begin(struct worker *w, struct reader *r, struct model_op *o, uint64_t off,
                     size_t len)
{
    o->op = (struct reader_op){.off = off, .len = len, .done = model_done, .ctx = o};
    o->cancelled = o->over = false;
    mutex_lock(&w->lock);
    w->under_way++;
    mutex_unlock(&w->lock);
    reader_read(r, &o->op);
}

static void op_cancel(struct worker *w, struct reader *r, struct model_op *o)
{
    /* The worker's lock keeps done from returning before reader_cancel() has. */
    mutex_lock(&w->lock);
    if (!o->over) {
        o->cancelled = true;
        reader_cancel(r, &o->op);
    }
    mutex_unlock(&w->lock);
}

/* A few reads through one reader: in order, scattered, or backward; several at a time. */
static void read_session(struct worker *w)
{
    struct model *m = w->m;
    mutex_lock(&m->lock);
    struct model_object obj = m->objects[test_random(&w->rnd) % OBJECTS];
    mutex_unlock(&m->lock);
    g_autofree char *etag = g_strdup_printf("%u", obj.etag);
    struct reader *r = reader_new(m->rc, "b", obj.key, etag, obj.size);
    enum { AHEAD, SCATTERED, BACKWARD } way = (int)(test_random(&w->rnd) % 3);
    struct model_op ops[4];
    uint64_t pos = test_random(&w->rnd) % 2 ? 0 : test_random(&w->rnd) % obj.size,
             len = pick_len(&w->rnd);
    for (unsigned round = 1 + (unsigned)(test_random(&w->rnd) % 6); round > 0; round--) {
        unsigned n = 1 + (unsigned)(test_random(&w->rnd) % G_N_ELEMENTS(ops));
        for (unsigned i = 0; i < n; i++) {
            if (way == SCATTERED)
                pos = test_random(&w->rnd) % (obj.size + 1000), len = pick_len(&w->rnd);
            ops[i].w = w;
            ops[i].content = obj.content;
            ops[i].size = obj.size;
            op_begin(w, r, &ops[i], pos, len);
            pos = way == BACKWARD ? pos - MIN(pos, len) : pos + len;
        }
        if (test_random(&w->rnd) % 4 == 0)
            op_cancel(w, r, &ops[test_random(&w->rnd) % n]);
        if (test_random(&w->rnd) % 4 == 0)
            read_sync(w, r, &ops[0], pos, len);
        mutex_lock(&w->lock);
        while (w->under_way > 0)
            cond_wait(&w->changed, &w->lock);
        mutex_unlock(&w->lock);
        g_atomic_int_add(&m->ops_left, -(int)n);
    }
    reader_free(r);
}

static void *worker_thread(void *arg)
{
    struct worker *w = arg;
    while (g_atomic_int_get(&w->m->ops_left) > 0) {
        read_session(w);
        if (test_random(&w->rnd) % 16 == 0)
            model_change(w->m, (unsigned)(test_random(&w->rnd) % OBJECTS),
                         test_random(&w->rnd) % 2);
    }
    return NULL;
}

static void model_start(struct model *m)
{
    m->store.ops = &model_ops;
    m->seed = test_seed();
    m->ops_left = g_getenv("MLOPSFS_OPS") ? atoi(g_getenv("MLOPSFS_OPS")) : 12000;
    mutex_init(&m->lock, RANK_LEAF);
    cond_init(&m->wake);
    g_queue_init(&m->queue);
    for (unsigned i = 0; i < OBJECTS; i++) {
        struct model_object *o = &m->objects[i];
        g_snprintf(o->key, sizeof(o->key), "object-%u", i);
        o->etag = ++m->serial;
        o->content = ++m->serial;
        o->size = size_of_content(o->content);
    }
    for (unsigned i = 0; i < STORE_THREADS; i++)
        g_assert_cmpint(pthread_create(&m->threads[i], NULL, model_thread, m), ==, 0);
}

static void model_stop(struct model *m)
{
    mutex_lock(&m->lock);
    m->stop = true;
    cond_broadcast(&m->wake);
    mutex_unlock(&m->lock);
    for (unsigned i = 0; i < STORE_THREADS; i++)
        pthread_join(m->threads[i], NULL);
    cond_fini(&m->wake);
    mutex_fini(&m->lock);
}

static void test_model(gconstpointer faults)
{
    struct model m = {.faults = GPOINTER_TO_UINT(faults)};
    struct workq *deliver;
    struct worker workers[WORKERS];
    model_start(&m);
    g_assert_cmpint(workq_new("deliver", 3, &deliver), ==, 0);
    g_assert_cmpint(
        read_cache_new(&(struct read_cache_params){.store = &m.store,
                                                   .deliver = deliver,
                                                   .memory = m.faults ? 8 << 20 : 32 << 20},
                       &m.rc),
        ==, 0);
    for (unsigned i = 0; i < WORKERS; i++) {
        struct worker *w = &workers[i];
        *w = (struct worker){.m = &m, .rnd = (m.seed + i + 1) * UINT64_C(0x9e3779b97f4a7c15) | 1};
        mutex_init(&w->lock, RANK_READER); /* held around reader_cancel() */
        cond_init(&w->changed);
        g_assert_cmpint(pthread_create(&w->thread, NULL, worker_thread, w), ==, 0);
    }
    for (unsigned i = 0; i < WORKERS; i++) {
        pthread_join(workers[i].thread, NULL);
        cond_fini(&workers[i].changed);
        mutex_fini(&workers[i].lock);
    }
    struct read_cache_stats st;
    read_cache_get_stats(m.rc, &st);
    g_test_message("%" G_GUINT64_FORMAT " hits, %" G_GUINT64_FORMAT " misses, %" G_GUINT64_FORMAT
                   " GETs, %" G_GUINT64_FORMAT " bytes fetched, %" G_GUINT64_FORMAT " served",
                   st.hits, st.misses, st.gets, st.bytes_fetched, st.bytes_served);
    g_assert_cmpuint(st.blocks, <=, st.blocks_max);
    read_cache_free(m.rc);
    workq_free(deliver);
    model_stop(&m);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    log_set_level(LOG_CRIT);                  /* failures are meant here */
    alarm(g_getenv("MLOPSFS_OPS") ? 0 : 300); /* a lost wake-up ends the test */
    g_test_add_data_func("/read-model/faults", GUINT_TO_POINTER(40), test_model);
    /* No demand GET fails: what becomes of cancelled GETs and GETs ahead is nobody's error. */
    g_test_add_data_func("/read-model/clean", GUINT_TO_POINTER(0), test_model);
    return g_test_run();
}
