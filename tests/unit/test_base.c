/* SPDX-License-Identifier: Apache-2.0
 *
 * base: locks and their ranks, cancellation, budgets, clock, log.
 */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "base/budget.h"
#include "base/cancel.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/thread.h"
#include "base/workq.h"
#include "tests/lib/gate.h"
#include "tests/lib/seed.h"

/* clock */

static void test_clock(void)
{
    uint64_t a = clock_mono_ns(), b = clock_mono_ns();
    g_assert_cmpuint(b, >=, a);
    static const int64_t times[] = {0,          1,          -1,          999999999,
                                    -999999999, 1000000000, -1000000001, 1700000000123456789};
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

struct slow {
    struct gate *entered;
    atomic_bool left;
};

static void slow_fired(void *ctx)
{
    struct slow *s = ctx;
    gate_add(s->entered);
    for (int i = 0; i < 2000; i++)
        sched_yield();
    atomic_store(&s->left, true);
}

/* A callback under way is waited for. */
static void test_cancel_unwatch_waits(void)
{
    struct gate start, entered;
    gate_init(&start);
    gate_init(&entered);
    struct cancel_race race = {.c = cancel_new(), .start = &start};
    struct slow slow = {.entered = &entered};
    struct cancel_watch w = {.fired = slow_fired, .ctx = &slow};
    pthread_t t;
    cancel_watch(race.c, &w);
    g_assert_cmpint(thread_start(&t, "fire", fire_thread, &race), ==, 0);
    gate_add(&start);
    gate_wait(&entered, 1);
    cancel_unwatch(race.c, &w);
    g_assert_true(atomic_load(&slow.left));
    cancel_free(race.c); /* waits for the firing thread to be done with it */
    pthread_join(t, NULL);
    gate_fini(&start);
    gate_fini(&entered);
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

/* log */

static void log_child(void)
{
    g_assert_cmpint(log_error_errno(-ENOENT, "cannot open %s", "a\nb\033[31m\177\xc2\x9b."), ==,
                    -ENOENT);
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
            g_assert_true(g_regex_match_simple("^\\d{4}-\\d\\d-\\d\\dT[0-9:]{8}\\.\\d{3}Z "
                                               "mlopsfs\\[\\d+\\] info: message \\d+ of one "
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
    g_test_add_func("/base/cancel/unwatch-waits", test_cancel_unwatch_waits);
    g_test_add_func("/base/budget/basics", test_budget);
    g_test_add_func("/base/budget/wakes", test_budget_wakes);
    g_test_add_func("/base/budget/ceiling", test_budget_ceiling);
    g_test_add_func("/base/log/stderr", test_log_stderr);
    g_test_add_func("/base/log/file", test_log_file);
    return g_test_run();
}
