/* SPDX-License-Identifier: Apache-2.0
 *
 * base: locks and their ranks, cancellation, budgets, job and timer queues, clock, log.
 */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "base/budget.h"
#include "base/cancel.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/thread.h"
#include "base/timerq.h"
#include "base/workq.h"
#include "tests/lib/seed.h"

/* A flag that threads wait for. */
struct gate {
    struct mutex lock;
    struct cond changed;
    unsigned n; /* lock */
};

static void gate_init(struct gate *g)
{
    mutex_init(&g->lock, RANK_LEAF);
    cond_init(&g->changed);
    g->n = 0;
}

static void gate_fini(struct gate *g)
{
    cond_fini(&g->changed);
    mutex_fini(&g->lock);
}

static void gate_add(struct gate *g)
{
    mutex_lock(&g->lock);
    g->n++;
    cond_broadcast(&g->changed);
    mutex_unlock(&g->lock);
}

static void gate_wait(struct gate *g, unsigned n)
{
    mutex_lock(&g->lock);
    while (g->n < n)
        cond_wait(&g->changed, &g->lock);
    mutex_unlock(&g->lock);
}

/* clock */

static void test_clock(void)
{
    uint64_t a = clock_mono_ns(), b = clock_mono_ns();
    g_assert_cmpuint(b, >=, a);
    static const int64_t times[] = {0, 1, -1, 999999999, -999999999, 1000000000, -1000000001,
                                    1700000000123456789};
    for (size_t i = 0; i < G_N_ELEMENTS(times); i++) {
        struct timespec ts = clock_timespec(times[i]);
        g_assert_cmpint(ts.tv_nsec, >=, 0);
        g_assert_cmpint(ts.tv_nsec, <, 1000000000);
        g_assert_cmpint(clock_from_timespec(ts), ==, times[i]);
    }
    g_assert_cmpint(clock_timespec(-1).tv_sec, ==, -1);
    g_assert_cmpint(clock_from_timespec((struct timespec){.tv_sec = INT64_MAX}), ==, INT64_MAX);
    g_assert_cmpint(clock_from_timespec((struct timespec){.tv_sec = INT64_MIN}), ==, INT64_MIN);
}

/* mutex */

static void test_mutex_order(void)
{
    struct mutex outer, middle, inner;
    mutex_init(&outer, RANK_INODE);
    mutex_init(&middle, RANK_BLOCK);
    mutex_init(&inner, RANK_LEAF);
    for (int i = 0; i < 100; i++) {
        mutex_lock(&outer);
        mutex_lock(&middle);
        mutex_lock(&inner);
        mutex_assert_held(&outer);
        mutex_unlock(&outer); /* any order of unlocking is fine */
        mutex_unlock(&inner);
        mutex_unlock(&middle);
    }
    mutex_fini(&outer);
    mutex_fini(&middle);
    mutex_fini(&inner);
}

#ifndef NDEBUG
static void inversion(void)
{
    struct mutex a, b;
    mutex_init(&a, RANK_LEAF);
    mutex_init(&b, RANK_INODE);
    mutex_lock(&a);
    mutex_lock(&b);
}

static void same_rank(void)
{
    struct mutex a, b;
    mutex_init(&a, RANK_BLOCK);
    mutex_init(&b, RANK_BLOCK);
    mutex_lock(&a);
    mutex_lock(&b);
}

static void not_held(void)
{
    struct mutex a;
    mutex_init(&a, RANK_BLOCK);
    mutex_assert_held(&a);
}

static void stranger(void)
{
    struct mutex a;
    mutex_init(&a, RANK_CATALOG);
    mutex_unlock(&a);
}

static void dies(void (*fn)(void), const char *pattern)
{
    if (g_test_subprocess()) {
        fn();
        return;
    }
    g_test_trap_subprocess(NULL, 0, 0);
    g_test_trap_assert_failed();
    g_test_trap_assert_stderr(pattern);
}

static void test_mutex_inversion(void)
{
    dies(inversion, "*rank inode (20) taken while holding rank leaf (80)*");
}

static void test_mutex_same_rank(void)
{
    dies(same_rank, "*rank block (40) taken while holding rank block (40)*");
}

static void test_mutex_not_held(void)
{
    dies(not_held, "*rank block (40) is not held here*");
}

static void test_mutex_stranger(void)
{
    dies(stranger, "*rank catalog (60) unlocked by a thread that does not hold it*");
}
#endif

static void test_cond_deadline(void)
{
    struct mutex m;
    struct cond c;
    mutex_init(&m, RANK_LEAF);
    cond_init(&c);
    mutex_lock(&m);
    uint64_t deadline = clock_mono_ns() + NSEC_PER_MSEC;
    while (cond_wait_until(&c, &m, deadline))
        ;
    g_assert_cmpuint(clock_mono_ns(), >=, deadline);
    g_assert_false(cond_wait_until(&c, &m, 1)); /* long past */
    mutex_unlock(&m);
    cond_fini(&c);
    mutex_fini(&m);
}

/* cancel */

static void count_fired(void *ctx)
{
    atomic_fetch_add((atomic_int *)ctx, 1);
}

static void test_cancel(void)
{
    struct cancel *c = cancel_new();
    atomic_int a = 0, b = 0, late = 0;
    struct cancel_watch wa = {.fired = count_fired, .ctx = &a};
    struct cancel_watch wb = {.fired = count_fired, .ctx = &b};
    struct cancel_watch wl = {.fired = count_fired, .ctx = &late};
    g_assert_false(cancel_fired(NULL));
    g_assert_false(cancel_fired(c));
    cancel_watch(c, &wa);
    cancel_watch(c, &wb);
    cancel_unwatch(c, &wa);
    cancel_fire(c);
    cancel_fire(c);
    g_assert_true(cancel_fired(c));
    g_assert_cmpint(a, ==, 0);
    g_assert_cmpint(b, ==, 1);
    cancel_watch(c, &wl); /* fired already: at once */
    g_assert_cmpint(late, ==, 1);
    cancel_unwatch(c, &wl);
    cancel_unwatch(c, &wb);
    cancel_watch(NULL, &wa);
    cancel_unwatch(NULL, &wa);
    cancel_free(c);
    cancel_free(NULL);
}

struct cancel_race {
    struct cancel *c;
    struct gate *start;
};

static void *fire_thread(void *arg)
{
    struct cancel_race *race = arg;
    gate_wait(race->start, 1);
    cancel_fire(race->c);
    return NULL;
}

/* Whatever the order: after unwatch the callback does not run, so its context may die. */
static void test_cancel_race(void)
{
    for (int i = 0; i < 300; i++) {
        struct gate start;
        gate_init(&start);
        struct cancel_race race = {.c = cancel_new(), .start = &start};
        pthread_t t;
        g_assert_cmpint(thread_start(&t, "fire", fire_thread, &race), ==, 0);
        atomic_int *n = g_new0(atomic_int, 1);
        struct cancel_watch w = {.fired = count_fired, .ctx = n};
        gate_add(&start);
        cancel_watch(race.c, &w);
        cancel_unwatch(race.c, &w);
        g_assert_cmpint(atomic_load(n), <=, 1);
        g_free(n);
        pthread_join(t, NULL);
        cancel_free(race.c);
        gate_fini(&start);
    }
}

/* budget */

static void test_budget(void)
{
    struct budget *b = budget_new(100);
    g_assert_cmpuint(budget_limit(b), ==, 100);
    g_assert_true(budget_try(b, 60));
    g_assert_false(budget_try(b, 41));
    g_assert_false(budget_try(b, UINT64_MAX)); /* must not wrap */
    g_assert_true(budget_try(b, 40));
    g_assert_cmpuint(budget_used(b), ==, 100);
    g_assert_cmpint(budget_take(b, 101, NULL, 0), ==, -EMSGSIZE);
    g_assert_cmpint(budget_take(b, 1, NULL, clock_mono_ns() + 1), ==, -ETIMEDOUT);
    struct cancel *c = cancel_new();
    cancel_fire(c);
    g_assert_cmpint(budget_take(b, 1, c, 0), ==, -EINTR);
    budget_give(b, 100);
    g_assert_cmpint(budget_take(b, 100, c, 0), ==, 0); /* it fits: no wait to interrupt */
    budget_give(b, 100);
    cancel_free(c);
    budget_free(b);
}

struct taker {
    struct budget *b;
    struct cancel *c;
    struct gate *started;
    uint64_t n;
    int r;
};

static void *take_thread(void *arg)
{
    struct taker *t = arg;
    gate_add(t->started);
    t->r = budget_take(t->b, t->n, t->c, 0);
    return NULL;
}

static void test_budget_wakes(void)
{
    struct budget *b = budget_new(100);
    struct gate started;
    gate_init(&started);
    g_assert_true(budget_try(b, 100));
    struct taker big = {.b = b, .started = &started, .n = 80};
    struct taker interrupted = {.b = b, .c = cancel_new(), .started = &started, .n = 100};
    pthread_t t1, t2;
    g_assert_cmpint(thread_start(&t1, "take", take_thread, &big), ==, 0);
    g_assert_cmpint(thread_start(&t2, "take", take_thread, &interrupted), ==, 0);
    gate_wait(&started, 2);
    cancel_fire(interrupted.c);
    pthread_join(t2, NULL);
    g_assert_cmpint(interrupted.r, ==, -EINTR);
    for (int i = 0; i < 8; i++)
        budget_give(b, 10);
    pthread_join(t1, NULL);
    g_assert_cmpint(big.r, ==, 0);
    g_assert_cmpuint(budget_used(b), ==, 100);
    budget_give(b, 100);
    cancel_free(interrupted.c);
    gate_fini(&started);
    budget_free(b);
}

struct drawer {
    struct budget *b;
    uint64_t seed;
    atomic_ullong *held;
};

static void *draw_thread(void *arg)
{
    struct drawer *d = arg;
    for (int i = 0; i < 2000; i++) {
        uint64_t n = 1 + test_random(&d->seed) % 60;
        g_assert_cmpint(budget_take(d->b, n, NULL, 0), ==, 0);
        g_assert_cmpuint(atomic_fetch_add(d->held, n) + n, <=, 100);
        atomic_fetch_sub(d->held, n);
        budget_give(d->b, n);
    }
    return NULL;
}

static void test_budget_ceiling(void)
{
    struct budget *b = budget_new(100);
    atomic_ullong held = 0;
    uint64_t seed = test_seed();
    struct drawer d[4];
    pthread_t t[4];
    for (unsigned i = 0; i < 4; i++) {
        d[i] = (struct drawer){.b = b, .seed = seed + i, .held = &held};
        g_assert_cmpint(thread_start(&t[i], "draw", draw_thread, &d[i]), ==, 0);
    }
    for (unsigned i = 0; i < 4; i++)
        pthread_join(t[i], NULL);
    g_assert_cmpuint(budget_used(b), ==, 0);
    budget_free(b);
}

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
    for (unsigned i = 0; i < m.parties; i++)
        workq_push(q, meet_job, &m);
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
        ticks[i] = (struct tick){.gate = &gate, .order = order, .due = now - test_random(&seed) % now};
        ticks[i].timer = (struct timer){.fn = tick, .arg = &ticks[i]};
        timerq_add(q, &ticks[i].timer, ticks[i].due);
    }
    gate_add(&both.arrived);
    gate_wait(&gate, N);
    timerq_free(q);
    for (unsigned i = 1; i < N; i++)
        g_assert_cmpuint(g_array_index(order, uint64_t, i - 1), <=, g_array_index(order, uint64_t, i));
    g_free(ticks);
    gate_fini(&gate);
    gate_fini(&both.arrived);
}

/* log */

static void log_child(void)
{
    g_assert_cmpint(log_error_errno(-ENOENT, "cannot open %s", "a\nb\033[31m\177\xc2\x9b."), ==, -ENOENT);
    log_debug("unseen");
}

static void test_log_stderr(void)
{
    if (g_test_subprocess()) {
        log_child();
        return;
    }
    g_test_trap_subprocess(NULL, 0, 0);
    g_test_trap_assert_passed();
    g_test_trap_assert_stderr("*mlopsfs: cannot open a?b?[31m???.: No such file or directory\n*");
    g_test_trap_assert_stderr_unmatched("*unseen*");
}

static void log_job(void *arg)
{
    for (int i = 0; i < 50; i++)
        log_info("message %d of one line", i);
}

static void test_log_file(void)
{
    g_autofree char *dir = g_dir_make_tmp("mlopsfs-log-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(dir, "log", NULL);
    g_autofree char *missing = g_build_filename(dir, "none", "log", NULL);
    if (g_test_subprocess()) {
        g_assert_cmpint(log_to_file(missing), ==, -ENOENT);
        g_assert_cmpint(log_to_file(path), ==, 0);
        struct workq *q;
        g_assert_cmpint(workq_new("log", 4, &q), ==, 0);
        for (int i = 0; i < 8; i++)
            workq_push(q, log_job, NULL);
        workq_free(q);
        g_autofree char *longest = g_strnfill(20000, 'x');
        log_warning("%s", longest);
        g_autofree char *text = NULL;
        g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
        g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
        g_assert_cmpuint(g_strv_length(lines), ==, 8 * 50 + 2);
        g_assert_cmpuint(strlen(lines[8 * 50]), >, 4096); /* cut, but still one line */
        for (int i = 0; i < 8 * 50; i++)
            g_assert_true(g_regex_match_simple(
                "^\\d{4}-\\d\\d-\\d\\dT[0-9:]{8}\\.\\d{3}Z mlopsfs\\[\\d+\\] info: message \\d+ of one "
                "line$",
                lines[i], 0, 0));
    } else {
        g_test_trap_subprocess(NULL, 0, 0);
        g_test_trap_assert_passed();
    }
    unlink(path);
    rmdir(dir);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/base/clock", test_clock);
    g_test_add_func("/base/mutex/order", test_mutex_order);
#ifndef NDEBUG
    g_test_add_func("/base/mutex/inversion", test_mutex_inversion);
    g_test_add_func("/base/mutex/same-rank", test_mutex_same_rank);
    g_test_add_func("/base/mutex/not-held", test_mutex_not_held);
    g_test_add_func("/base/mutex/stranger", test_mutex_stranger);
#endif
    g_test_add_func("/base/cond/deadline", test_cond_deadline);
    g_test_add_func("/base/cancel/basics", test_cancel);
    g_test_add_func("/base/cancel/race", test_cancel_race);
    g_test_add_func("/base/budget/basics", test_budget);
    g_test_add_func("/base/budget/wakes", test_budget_wakes);
    g_test_add_func("/base/budget/ceiling", test_budget_ceiling);
    g_test_add_func("/base/workq/drain", test_workq_drain);
    g_test_add_func("/base/workq/parallel", test_workq_parallel);
    g_test_add_func("/base/workq/fifo", test_workq_fifo);
    g_test_add_func("/base/workq/signals", test_workq_signals);
    g_test_add_func("/base/timerq/move", test_timerq);
    g_test_add_func("/base/timerq/order", test_timerq_order);
    g_test_add_func("/base/log/stderr", test_log_stderr);
    g_test_add_func("/base/log/file", test_log_file);
    return g_test_run();
}
