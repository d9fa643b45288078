/* SPDX-License-Identifier: Apache-2.0
 *
 * s3/retry: cancellation in every state, many requests at once, the end of the store.
 */
#include <errno.h>
#include <glib.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>

#include "base/cancel.h"
#include "base/thread.h"
#include "tests/lib/retry_rig.h"
#include "tests/lib/seed.h"

/* Cancel */

static enum fake_action wait_long(struct rig *rig, unsigned n, struct store_request *req,
                                  uint64_t *cut)
{
    rig_fail_503(req);
    req->res.retry_after_ns = HOUR;
    return FAKE_FAIL;
}

static enum fake_action hold(struct rig *rig, unsigned n, struct store_request *req, uint64_t *cut)
{
    return FAKE_HOLD;
}

struct firing {
    struct rig *rig;
    struct cancel *c;
    bool held;
};

static void *fire_thread(void *arg)
{
    struct firing *f = arg;
    if (f->held)
        fake_store_wait_held(f->rig->fake, 1);
    else
        rig_wait_waits(f->rig, 1);
    cancel_fire(f->c);
    return NULL;
}

static void run_cancelled(script_fn script, bool held)
{
    for (int i = 0; i < 100; i++) {
        struct rig rig;
        rig_init_with(&rig, script, 1, (struct store_retry_params){.op_timeout_ns = 10 * HOUR});
        rig.keep_delay = true;
        struct firing f = {.rig = &rig, .c = cancel_new(), .held = held};
        pthread_t t;
        g_assert_cmpint(thread_start(&t, "fire", fire_thread, &f), ==, 0);
        _cleanup_request_ struct store_request req = rig_head_request();
        g_assert_cmpint(store_run(rig.store, &req, f.c), ==, -EINTR);
        g_assert_cmpuint(rig.attempts, ==, 1);
        pthread_join(t, NULL);
        cancel_free(f.c);
        rig_fini(&rig);
    }
}

static void test_cancel_waiting(void)
{
    run_cancelled(wait_long, false);
}

static void test_cancel_running(void)
{
    run_cancelled(hold, true);
}

struct async {
    struct store_request req;
    struct rig *rig;
    pthread_t submitter;
    atomic_int done;
    int err;
    bool inline_done;
};

static void async_done(struct store_request *req)
{
    struct async *a = req->ctx;
    a->err = req->res.err;
    a->inline_done = pthread_equal(pthread_self(), a->submitter);
    store_request_clear(req);
    struct rig *rig = a->rig;
    mutex_lock(&rig->lock);
    atomic_fetch_add(&a->done, 1);
    cond_broadcast(&rig->changed);
    mutex_unlock(&rig->lock);
}

static void async_init(struct async *a, struct rig *rig)
{
    *a = (struct async){.rig = rig, .submitter = pthread_self(), .req = rig_head_request()};
    a->req.done = async_done;
    a->req.ctx = a;
}

static void async_wait(struct async *a)
{
    mutex_lock(&a->rig->lock);
    while (a->done == 0)
        cond_wait(&a->rig->changed, &a->rig->lock);
    mutex_unlock(&a->rig->lock);
}

/* Cancel twice, then look at who ran done. */
static void test_cancel_not_inline(void)
{
    struct rig rig;
    rig_init_with(&rig, wait_long, 1, (struct store_retry_params){.op_timeout_ns = 10 * HOUR});
    rig.keep_delay = true;
    struct async a;
    async_init(&a, &rig);
    store_submit(rig.store, &a.req);
    rig_wait_waits(&rig, 1);
    store_cancel(rig.store, &a.req);
    async_wait(&a);
    g_assert_cmpint(a.err, ==, -ECANCELED);
    g_assert_false(a.inline_done);
    rig_fini(&rig);
}

static void cancel_in_wait(struct rig *rig)
{
    struct async *a = rig->arg;
    store_cancel(rig->store, &a->req);
}

/* The cancel comes after the failure was seen and before its wait has begun. */
static void test_cancel_deciding(void)
{
    struct rig rig;
    rig_init_with(&rig, wait_long, 1, (struct store_retry_params){.op_timeout_ns = 10 * HOUR});
    rig.keep_delay = true;
    rig.on_wait = cancel_in_wait;
    struct async a;
    async_init(&a, &rig);
    rig.arg = &a;
    store_submit(rig.store, &a.req);
    async_wait(&a);
    g_assert_cmpint(a.err, ==, -ECANCELED);
    rig_fini(&rig);
}

/* A layer between retry and the fake that passes requests through, and has the test look on. */
struct lookout {
    struct store store;
    struct store *below;
    void (*before)(struct lookout *g), (*after)(struct lookout *g);
    struct async *a;
    unsigned submits;
    atomic_bool leaving;
};

static void lookout_submit(struct store *s, struct store_request *req)
{
    struct lookout *g = (struct lookout *)s;
    g->submits++;
    if (g->before)
        g->before(g);
    g->below->ops->submit(g->below, req);
    if (g->after)
        g->after(g);
}

static void lookout_cancel(struct store *s, struct store_request *req)
{
    struct lookout *g = (struct lookout *)s;
    g->below->ops->cancel(g->below, req);
}

static void lookout_destroy(struct store *s)
{
    struct lookout *g = (struct lookout *)s;
    store_free(g->below);
    g_free(g);
}

static const struct store_ops lookout_ops = {.name = "lookout",
                                             .submit = lookout_submit,
                                             .cancel = lookout_cancel,
                                             .destroy = lookout_destroy};

static struct lookout *lookout_new(struct store *below)
{
    struct lookout *g = g_new0(struct lookout, 1);
    g->store.ops = &lookout_ops;
    g->below = below;
    return g;
}

static enum fake_action fail_then_hold(struct rig *rig, unsigned n, struct store_request *req,
                                       uint64_t *cut)
{
    return n == 0 ? rig_fail_503(req) : FAKE_HOLD;
}

static void cancel_second(struct lookout *g)
{
    if (g->submits == 2)
        store_cancel(g->a->rig->store, &g->a->req);
}

/* The cancel comes while the second attempt is on its way to the layer below. */
static void test_cancel_starting(void)
{
    struct rig rig;
    struct async a;
    async_init(&a, &rig);
    rig_init_above(&rig, fail_then_hold, 1,
                   (struct store_retry_params){.op_timeout_ns = 10 * HOUR});
    struct lookout *g = lookout_new(rig.stats);
    g->a = &a;
    g->before = cancel_second;
    rig_finish_init(&rig, &g->store);
    store_submit(rig.store, &a.req);
    async_wait(&a);
    g_assert_cmpint(a.err, ==, -ECANCELED);
    g_assert_cmpuint(g->submits, ==, 2);
    rig_fini(&rig);
}

static void linger(struct lookout *g)
{
    async_wait(g->a);
    atomic_store(&g->leaving, true);
    for (int i = 0; i < 1000; i++)
        sched_yield();
}

static void *submit_thread(void *arg)
{
    struct async *a = arg;
    store_submit(a->rig->store, &a->req);
    return NULL;
}

/* The request has ended and the store is freed while its submitter is still inside submit. */
static void test_free_while_leaving(void)
{
    for (int i = 0; i < 30; i++) {
        struct rig rig;
        struct async a;
        async_init(&a, &rig);
        rig_init_above(&rig, NULL, 1, (struct store_retry_params){0});
        struct lookout *g = lookout_new(rig.stats);
        g->a = &a;
        g->after = linger;
        rig_finish_init(&rig, &g->store);
        pthread_t t;
        g_assert_cmpint(thread_start(&t, "submit", submit_thread, &a), ==, 0);
        while (!atomic_load(&g->leaving))
            sched_yield();
        rig_fini(&rig);
        pthread_join(t, NULL);
    }
}

static enum fake_action chaos(struct rig *rig, unsigned n, struct store_request *req, uint64_t *cut)
{
    uint64_t *prng = rig->arg;
    switch (test_random(prng) % 6) {
    case 0:
        return rig_fail_503(req);
    case 1:
        return rig_lose_reply(req);
    case 2:
        req->res.retry_after_ns = test_random(prng) % 100000;
        rig_fail_503(req);
        return FAKE_FAIL;
    default:
        return FAKE_GO;
    }
}

struct canceller {
    struct rig *rig;
    struct cancel **c;
    unsigned n;
    uint64_t seed;
};

static void *cancel_some(void *arg)
{
    struct canceller *k = arg;
    for (unsigned i = 0; i < k->n; i++)
        if (test_random(&k->seed) % 2)
            cancel_fire(k->c[i]);
    return NULL;
}

struct runner {
    struct rig *rig;
    struct cancel **c;
    unsigned n, ok, cancelled;
};

static void *run_some(void *arg)
{
    struct runner *r = arg;
    for (unsigned i = 0; i < r->n; i++) {
        struct store_request *req = g_new(struct store_request, 1);
        *req = rig_head_request();
        int e = store_run(r->rig->store, req, r->c[i]);
        g_assert_true(e == 0 || e == -EINTR);
        r->ok += e == 0;
        r->cancelled += e == -EINTR;
        store_request_clear(req);
        g_free(req);
    }
    return NULL;
}

/* Failures, short waits and cancels at any moment, from several threads: every request ends once.
 */
static void test_chaos(void)
{
    enum { THREADS = 4, EACH = 400 };
    uint64_t seed = test_seed();
    struct rig rig;
    rig_init_with(&rig, chaos, seed,
                  (struct store_retry_params){.base_ns = 20000, .op_timeout_ns = HOUR});
    rig.keep_delay = true;
    uint64_t prng = seed;
    rig.arg = &prng;
    g_free(fake_store_put(rig.fake, "b", "k", "x", 1));
    struct cancel *tokens[THREADS][EACH];
    struct runner r[THREADS];
    struct canceller k[THREADS];
    pthread_t t[2 * THREADS];
    for (unsigned i = 0; i < THREADS; i++) {
        for (unsigned j = 0; j < EACH; j++)
            tokens[i][j] = cancel_new();
        r[i] = (struct runner){.rig = &rig, .c = tokens[i], .n = EACH};
        k[i] = (struct canceller){.rig = &rig, .c = tokens[i], .n = EACH, .seed = seed + i};
        g_assert_cmpint(thread_start(&t[2 * i], "run", run_some, &r[i]), ==, 0);
        g_assert_cmpint(thread_start(&t[2 * i + 1], "cancel", cancel_some, &k[i]), ==, 0);
    }
    for (unsigned i = 0; i < 2 * THREADS; i++)
        pthread_join(t[i], NULL);
    unsigned ok = 0;
    for (unsigned i = 0; i < THREADS; i++) {
        g_assert_cmpuint(r[i].ok + r[i].cancelled, ==, EACH);
        ok += r[i].ok;
        for (unsigned j = 0; j < EACH; j++)
            cancel_free(tokens[i][j]);
    }
    g_assert_cmpuint(ok, >, 0);
    rig_fini(&rig);
}

/* Many at once, then the store goes while threads are still on their way out of it. */
static void test_many(void)
{
    enum { N = 1000 };
    uint64_t seed = test_seed();
    struct rig rig;
    rig_init_with(&rig, chaos, seed,
                  (struct store_retry_params){.base_ns = 100000, .op_timeout_ns = HOUR});
    rig.keep_delay = true;
    uint64_t prng = seed;
    rig.arg = &prng;
    g_free(fake_store_put(rig.fake, "b", "k", "x", 1));
    struct async *a = g_new(struct async, N);
    for (unsigned i = 0; i < N; i++) {
        async_init(&a[i], &rig);
        store_submit(rig.store, &a[i].req);
    }
    for (unsigned i = 0; i < N; i++)
        async_wait(&a[i]);
    rig_fini(&rig);
    for (unsigned i = 0; i < N; i++) {
        g_assert_cmpint(a[i].done, ==, 1);
        g_assert_cmpint(a[i].err, ==, 0);
        g_assert_false(a[i].inline_done);
    }
    g_free(a);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/retry/cancel/waiting", test_cancel_waiting);
    g_test_add_func("/retry/cancel/running", test_cancel_running);
    g_test_add_func("/retry/cancel/not-inline", test_cancel_not_inline);
    g_test_add_func("/retry/cancel/deciding", test_cancel_deciding);
    g_test_add_func("/retry/cancel/starting", test_cancel_starting);
    g_test_add_func("/retry/free-while-leaving", test_free_while_leaving);
    g_test_add_func("/retry/chaos", test_chaos);
    g_test_add_func("/retry/many", test_many);
    return g_test_run();
}
