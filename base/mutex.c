/* SPDX-License-Identifier: Apache-2.0
 *
 * mutex: see mutex.h. In builds without NDEBUG each thread keeps the list of the mutexes it holds,
 * in the order of locking, hence of rising rank. The list is thread-local: nothing to lock.
 */
#include "base/mutex.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"

/* Abort with what failed even under NDEBUG: after a failed lock nothing below is true any more. */
static void check(int r, const char *what)
{
    if (r == 0)
        return;
    fprintf(stderr, "mutex: %s failed: error %d\n", what, r);
    abort();
}

#ifndef NDEBUG
#define HELD_MAX 16

static _Thread_local struct {
    const struct mutex *m[HELD_MAX];
    unsigned n;
} held;

static const char *rank_name(enum mutex_rank rank)
{
    switch (rank) {
    case RANK_NAMESPACE:
        return "namespace";
    case RANK_INODE:
        return "inode";
    case RANK_FILE:
        return "file";
    case RANK_READER:
        return "reader";
    case RANK_BLOCK:
        return "block";
    case RANK_COMMIT:
        return "commit";
    case RANK_CATALOG:
        return "catalog";
    case RANK_ENGINE:
        return "engine";
    case RANK_LEAF:
        return "leaf";
    }
    return "layer"; /* ranks between the named ones */
}

static void held_push(const struct mutex *m)
{
    for (unsigned i = 0; i < held.n; i++) {
        if (held.m[i]->rank < m->rank)
            continue;
        fprintf(stderr, "mutex: rank %s (%d) taken while holding rank %s (%d)\n",
                rank_name(m->rank), (int)m->rank, rank_name(held.m[i]->rank), (int)held.m[i]->rank);
        abort();
    }
    assert(held.n < HELD_MAX);
    held.m[held.n++] = m;
}

static void held_pop(const struct mutex *m)
{
    for (unsigned i = held.n; i-- > 0;) {
        if (held.m[i] != m)
            continue;
        for (; i + 1 < held.n; i++)
            held.m[i] = held.m[i + 1];
        held.n--;
        return;
    }
    fprintf(stderr, "mutex: rank %s (%d) unlocked by a thread that does not hold it\n",
            rank_name(m->rank), (int)m->rank);
    abort();
}

void mutex_assert_held(const struct mutex *m)
{
    for (unsigned i = 0; i < held.n; i++)
        if (held.m[i] == m)
            return;
    fprintf(stderr, "mutex: rank %s (%d) is not held here\n", rank_name(m->rank), (int)m->rank);
    abort();
}
#else
static inline void held_push(const struct mutex *m)
{
}
static inline void held_pop(const struct mutex *m)
{
}
void mutex_assert_held(const struct mutex *m)
{
}
#endif

void mutex_init(struct mutex *m, enum mutex_rank rank)
{
    m->rank = rank;
    check(pthread_mutex_init(&m->m, NULL), "init");
}

void mutex_fini(struct mutex *m)
{
    check(pthread_mutex_destroy(&m->m), "destroy");
}

void mutex_lock(struct mutex *m)
{
    held_push(m); /* before locking: an inversion is reported instead of deadlocking */
    check(pthread_mutex_lock(&m->m), "lock");
}

void mutex_unlock(struct mutex *m)
{
    held_pop(m);
    check(pthread_mutex_unlock(&m->m), "unlock");
}

void cond_init(struct cond *c)
{
    pthread_condattr_t attr;
    check(pthread_condattr_init(&attr), "condattr init");
    check(pthread_condattr_setclock(&attr, CLOCK_MONOTONIC), "condattr clock");
    check(pthread_cond_init(&c->c, &attr), "cond init");
    pthread_condattr_destroy(&attr);
}

void cond_fini(struct cond *c)
{
    check(pthread_cond_destroy(&c->c), "cond destroy");
}

void cond_wait(struct cond *c, struct mutex *m)
{
    mutex_assert_held(m);
    check(pthread_cond_wait(&c->c, &m->m), "cond wait");
}

bool cond_wait_until(struct cond *c, struct mutex *m, uint64_t mono_deadline_ns)
{
    if (mono_deadline_ns == 0) {
        cond_wait(c, m);
        return true;
    }
    mutex_assert_held(m);
    struct timespec ts = {.tv_sec = (time_t)(mono_deadline_ns / NSEC_PER_SEC),
                          .tv_nsec = (long)(mono_deadline_ns % NSEC_PER_SEC)};
    int r = pthread_cond_timedwait(&c->c, &m->m, &ts);
    if (r == ETIMEDOUT)
        return false;
    check(r, "cond timedwait");
    return true;
}

void cond_signal(struct cond *c)
{
    check(pthread_cond_signal(&c->c), "cond signal");
}

void cond_broadcast(struct cond *c)
{
    check(pthread_cond_broadcast(&c->c), "cond broadcast");
}
