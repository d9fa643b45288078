/* SPDX-License-Identifier: Apache-2.0
 *
 * base/workq and base/timerq: order, parallelism, draining, signals, due times.
 */
#include <glib.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>

#include "base/clock.h"
#include "base/timerq.h"
#include "base/workq.h"
#include "tests/lib/gate.h"
#include "tests/lib/seed.h"

/* workq */

struct tree {
    struct workq *q;
    atomic_int *count;
    int depth;
};

static void tree_job(void *arg)
{
    struct tree *t = arg;
    atomic_fetch_add(t->count, 1);
    for (int i = 0; i < 2 && t->depth > 0; i++) {
        struct tree *child = g_new(struct tree, 1);
        *child = (struct tree){.q = t->q, .count = t->count, .depth = t->depth - 1};
        workq_push(t->q, tree_job, child);
    }
    g_free(t);
}

static void test_workq_drain(void)
{
    for (unsigned threads = 1; threads <= 4; threads++) {
        struct workq *q;
        atomic_int count = 0;
        g_assert_cmpint(workq_new("tree", threads, &q), ==, 0);
        struct tree *root = g_new(struct tree, 1);
        *root = (struct tree){.q = q, .count = &count, .depth = 9};
        workq_push(q, tree_job, root);
        workq_free(q); /* runs what running jobs push, too */
        g_assert_cmpint(count, ==, (1 << 10) - 1);
    }
    workq_free(NULL);
}

struct meet {
    struct gate arrived;
    unsigned parties;
};

static void meet_job(void *arg)
{
    struct meet *m = arg;
    gate_add(&m->arrived);
    gate_wait(&m->arrived, m->parties);
}

/* All threads are used when jobs block: the jobs can end only together. */
static void test_workq_parallel(void)
{
    struct workq *q;
    struct meet m = {.parties = 6};
    gate_init(&m.arrived);
    g_assert_cmpint(workq_new("meet", 6, &q), ==, 0);
    for (unsigned i = 0; i < m.parties; i++) {
        workq_push(q, meet_job, &m);
        gate_wait(&m.arrived, i + 1); /* one at a time: each needs a thread more */
    }
    workq_free(q);
    g_assert_cmpuint(m.arrived.n, ==, 6);
    gate_fini(&m.arrived);
}

static void signal_job(void *arg)
{
    sigset_t set;
    char name[16] = "";
    g_assert_cmpint(pthread_sigmask(SIG_BLOCK, NULL, &set), ==, 0);
    g_assert_cmpint(sigismember(&set, SIGTERM), ==, 1);
    g_assert_cmpint(sigismember(&set, SIGINT), ==, 1);
    g_assert_cmpint(sigismember(&set, SIGHUP), ==, 1);
    gate_add(arg);
    /* The creator names its thread: it may not have come to that yet. */
    while (strcmp(name, "sig") != 0)
        g_assert_cmpint(pthread_getname_np(pthread_self(), name, sizeof(name)), ==, 0);
}

static void test_workq_signals(void)
{
    struct workq *q;
    struct gate ran;
    gate_init(&ran);
    g_assert_cmpint(workq_new("sig", 1, &q), ==, 0);
    workq_push(q, signal_job, &ran);
    workq_free(q);
    g_assert_cmpuint(ran.n, ==, 1);
    sigset_t set;
    g_assert_cmpint(pthread_sigmask(SIG_BLOCK, NULL, &set), ==, 0);
    g_assert_cmpint(sigismember(&set, SIGTERM), ==, 0); /* ours is as before */
    gate_fini(&ran);
}

struct order {
    int next;
    bool ok;
};

struct turn {
    struct order *o;
    int i;
};

static void order_job(void *arg)
{
    struct turn *t = arg;
    t->o->ok = t->o->ok && t->o->next++ == t->i;
    g_free(t);
}

static void test_workq_fifo(void)
{
    struct workq *q;
    struct order o = {.ok = true};
    g_assert_cmpint(workq_new("fifo", 1, &q), ==, 0);
    for (int i = 0; i < 1000; i++) {
        struct turn *t = g_new(struct turn, 1);
        *t = (struct turn){.o = &o, .i = i};
        workq_push(q, order_job, t);
    }
    workq_free(q);
    g_assert_true(o.ok);
    g_assert_cmpint(o.next, ==, 1000);
}

/* timerq */

struct tick {
    struct timer timer;
    struct gate *gate;
    GArray *order; /* of due times; timer thread only */
    uint64_t due;
};

static void tick(void *arg)
{
    struct tick *t = arg;
    g_assert_cmpuint(clock_mono_ns(), >=, t->due);
    g_array_append_val(t->order, t->due);
    gate_add(t->gate);
}

static void test_timerq(void)
{
    enum { N = 300 };
    uint64_t seed = test_seed(), now = clock_mono_ns();
    struct gate gate;
    gate_init(&gate);
    struct timerq *q;
    g_assert_cmpint(timerq_new("tick", &q), ==, 0);
    g_autoptr(GArray) order = g_array_new(false, false, sizeof(uint64_t));
    struct tick *ticks = g_new0(struct tick, N);
    /* All in the future by far, so that all are queued before the first is due: half are removed,
     * the others moved to the next milliseconds. */
    for (unsigned i = 0; i < N; i++) {
        ticks[i] = (struct tick){.gate = &gate, .order = order};
        ticks[i].timer = (struct timer){.fn = tick, .arg = &ticks[i]};
        timerq_add(q, &ticks[i].timer, now + (1000 + test_random(&seed) % 1000) * NSEC_PER_SEC);
    }
    uint64_t base = clock_mono_ns() + 5 * NSEC_PER_MSEC;
    for (unsigned i = 0; i < N; i++) {
        g_assert_true(timerq_remove(q, &ticks[i].timer));
        g_assert_false(timerq_remove(q, &ticks[i].timer));
        ticks[i].due = base + test_random(&seed) % NSEC_PER_MSEC;
        if (i % 2)
            timerq_add(q, &ticks[i].timer, ticks[i].due);
    }
    gate_wait(&gate, N / 2);
    timerq_free(q);
    g_assert_cmpuint(order->len, ==, N / 2);
    g_free(ticks);
    gate_fini(&gate);
}

static void test_timerq_order(void)
{
    enum { N = 200 };
    uint64_t seed = test_seed();
    struct gate gate;
    gate_init(&gate);
    struct timerq *q;
    g_assert_cmpint(timerq_new("tick", &q), ==, 0);
    g_autoptr(GArray) order = g_array_new(false, false, sizeof(uint64_t));
    /* The first tick holds the timer thread until all others are queued. */
    struct tick *ticks = g_new0(struct tick, N);
    struct meet both = {.parties = 2};
    gate_init(&both.arrived);
    struct timer first = {.fn = meet_job, .arg = &both};
    timerq_add(q, &first, 0);
    gate_wait(&both.arrived, 1);
    uint64_t now = clock_mono_ns();
    for (unsigned i = 0; i < N; i++) {
        ticks[i] =
            (struct tick){.gate = &gate, .order = order, .due = now - test_random(&seed) % now};
        ticks[i].timer = (struct timer){.fn = tick, .arg = &ticks[i]};
        timerq_add(q, &ticks[i].timer, ticks[i].due);
    }
    unsigned removed = 0;
    for (unsigned i = 0; i < N; i++)
        if (test_random(&seed) % 3 == 0)
            removed += timerq_remove(q, &ticks[i].timer);
    gate_add(&both.arrived);
    gate_wait(&gate, N - removed);
    timerq_free(q);
    for (unsigned i = 1; i < N - removed; i++)
        g_assert_cmpuint(g_array_index(order, uint64_t, i - 1), <=,
                         g_array_index(order, uint64_t, i));
    g_free(ticks);
    gate_fini(&gate);
    gate_fini(&both.arrived);
}

/* An entry wakes the sleeping thread, whatever that waits for. */
static void test_timerq_wakes(void)
{
    struct gate gate;
    gate_init(&gate);
    struct timerq *q;
    g_assert_cmpint(timerq_new("tick", &q), ==, 0);
    g_autoptr(GArray) order = g_array_new(false, false, sizeof(uint64_t));
    struct tick t = {.gate = &gate, .order = order}, later = {.gate = &gate, .order = order};
    t.timer = (struct timer){.fn = tick, .arg = &t};
    later.timer = (struct timer){.fn = tick, .arg = &later};
    timerq_add(q, &later.timer, clock_mono_ns() + 3600 * NSEC_PER_SEC);
    for (unsigned i = 0; i < 500; i++) {
        timerq_add(q, &t.timer, 0);
        gate_wait(&gate, i + 1);
    }
    g_assert_true(timerq_remove(q, &later.timer));
    timerq_free(q);
    gate_fini(&gate);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/workq/drain", test_workq_drain);
    g_test_add_func("/workq/parallel", test_workq_parallel);
    g_test_add_func("/workq/fifo", test_workq_fifo);
    g_test_add_func("/workq/signals", test_workq_signals);
    g_test_add_func("/timerq/move", test_timerq);
    g_test_add_func("/timerq/order", test_timerq_order);
    g_test_add_func("/timerq/wakes", test_timerq_wakes);
    return g_test_run();
}
