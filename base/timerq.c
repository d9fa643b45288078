/* SPDX-License-Identifier: Apache-2.0
 *
 * timerq: see timerq.h. A binary min-heap of due times under one leaf lock; one thread sleeps until
 * the first is due. Invariant: heap[t->pos - 1] == t for every queued t; an entry's due time is not
 * before its parent's.
 */
#include "base/timerq.h"

#include <assert.h>
#include <glib.h>
#include <pthread.h>

#include "base/clock.h"
#include "base/mutex.h"
#include "base/thread.h"

struct timerq {
    struct mutex lock;
    struct cond wake;
    GPtrArray *heap;   /* lock */
    bool stop;         /* lock */
    uint64_t wakes_at; /* lock: when the sleeping thread looks again by itself; 0 = it is awake */
    pthread_t thread;
};

static struct timer *at(struct timerq *q, size_t pos)
{
    return q->heap->pdata[pos - 1];
}

static void place(struct timerq *q, size_t pos, struct timer *t)
{
    q->heap->pdata[pos - 1] = t;
    t->pos = pos;
}

static void sift_up(struct timerq *q, struct timer *t)
{
    size_t pos = t->pos;
    for (; pos > 1 && at(q, pos / 2)->due_ns > t->due_ns; pos /= 2)
        place(q, pos, at(q, pos / 2));
    place(q, pos, t);
}

static void sift_down(struct timerq *q, struct timer *t)
{
    size_t pos = t->pos, n = q->heap->len;
    for (;;) {
        size_t child = pos * 2;
        if (child > n)
            break;
        if (child < n && at(q, child + 1)->due_ns < at(q, child)->due_ns)
            child++;
        if (at(q, child)->due_ns >= t->due_ns)
            break;
        place(q, pos, at(q, child));
        pos = child;
    }
    place(q, pos, t);
}

static void unlink_locked(struct timerq *q, struct timer *t)
{
    struct timer *last = at(q, q->heap->len);
    g_ptr_array_set_size(q->heap, (int)q->heap->len - 1);
    if (last != t) {
        last->pos = t->pos;
        q->heap->pdata[last->pos - 1] = last;
        sift_up(q, last);
        sift_down(q, last);
    }
    t->pos = 0;
}

static void *timer_thread(void *arg)
{
    struct timerq *q = arg;
    mutex_lock(&q->lock);
    while (!q->stop) {
        struct timer *t = q->heap->len ? at(q, 1) : NULL;
        if (!t || t->due_ns > clock_mono_ns()) {
            q->wakes_at = t ? t->due_ns : UINT64_MAX;
            (void)cond_wait_until(&q->wake, &q->lock, t ? t->due_ns : 0);
            q->wakes_at = 0;
            continue;
        }
        unlink_locked(q, t);
        void (*fn)(void *) = t->fn;
        void *fn_arg = t->arg;
        mutex_unlock(&q->lock);
        fn(fn_arg);
        mutex_lock(&q->lock);
    }
    mutex_unlock(&q->lock);
    return NULL;
}

int timerq_new(const char *name, struct timerq **ret)
{
    struct timerq *q = g_new0(struct timerq, 1);
    q->heap = g_ptr_array_new();
    mutex_init(&q->lock, RANK_LEAF);
    cond_init(&q->wake);
    int r = thread_start(&q->thread, name, timer_thread, q);
    if (r < 0) {
        cond_fini(&q->wake);
        mutex_fini(&q->lock);
        g_ptr_array_unref(q->heap);
        g_free(q);
        return r;
    }
    *ret = q;
    return 0;
}

void timerq_free(struct timerq *q)
{
    if (!q)
        return;
    mutex_lock(&q->lock);
    assert(q->heap->len == 0);
    q->stop = true;
    cond_signal(&q->wake);
    mutex_unlock(&q->lock);
    pthread_join(q->thread, NULL);
    cond_fini(&q->wake);
    mutex_fini(&q->lock);
    g_ptr_array_unref(q->heap);
    g_free(q);
}

void timerq_add(struct timerq *q, struct timer *t, uint64_t due_ns)
{
    mutex_lock(&q->lock);
    assert(t->pos == 0 && !q->stop);
    t->due_ns = due_ns ? due_ns : 1; /* 0 would mean "no deadline" to the wait */
    g_ptr_array_add(q->heap, t);
    t->pos = q->heap->len;
    sift_up(q, t);
    if (t->due_ns < q->wakes_at) {
        q->wakes_at = t->due_ns;
        cond_signal(&q->wake);
    }
    mutex_unlock(&q->lock);
}

bool timerq_remove(struct timerq *q, struct timer *t)
{
    mutex_lock(&q->lock);
    bool queued = t->pos != 0;
    if (queued)
        unlink_locked(q, t);
    mutex_unlock(&q->lock);
    return queued;
}
