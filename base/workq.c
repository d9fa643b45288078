/* SPDX-License-Identifier: Apache-2.0
 *
 * workq: see workq.h. Threads: its own run the jobs with no lock held. One leaf lock. Invariants:
 * a queued job implies a thread that is awake or woken; at the end threads leave only when nothing
 * is queued and nothing runs, since what runs may push.
 */
#include "base/workq.h"

#include <assert.h>
#include <glib.h>
#include <pthread.h>

#include "base/mutex.h"
#include "base/thread.h"

struct job {
    void (*fn)(void *arg);
    void *arg;
    struct job *next;
};

struct workq {
    char name[16];
    unsigned max_threads; /* constant */
    struct mutex lock;
    struct cond wake;
    struct job *head, **tail; /* lock */
    unsigned queued;          /* lock */
    unsigned idle, busy;      /* lock: threads that wait; threads that run a job */
    bool stop;                /* lock */
    pthread_t *threads;       /* lock */
    unsigned n_threads;       /* lock */
};

static void *worker(void *arg)
{
    struct workq *q = arg;
    mutex_lock(&q->lock);
    for (;;) {
        struct job *j = q->head;
        if (j) {
            q->head = j->next;
            if (!q->head)
                q->tail = &q->head;
            q->queued--;
            q->busy++;
            mutex_unlock(&q->lock);
            j->fn(j->arg);
            g_free(j);
            mutex_lock(&q->lock);
            q->busy--;
            continue;
        }
        if (q->stop && q->busy == 0) {
            cond_broadcast(&q->wake);
            break;
        }
        q->idle++;
        cond_wait(&q->wake, &q->lock);
        q->idle--;
    }
    mutex_unlock(&q->lock);
    return NULL;
}

/* Fails when the system has no more threads. */
static int add_thread_locked(struct workq *q)
{
    int r = thread_start(&q->threads[q->n_threads], q->name, worker, q);
    if (r == 0)
        q->n_threads++;
    return r;
}

int workq_new(const char *name, unsigned max_threads, struct workq **ret)
{
    assert(max_threads > 0);
    struct workq *q = g_new0(struct workq, 1);
    g_strlcpy(q->name, name, sizeof(q->name));
    q->max_threads = max_threads;
    q->tail = &q->head;
    q->threads = g_new0(pthread_t, max_threads);
    mutex_init(&q->lock, RANK_LEAF);
    cond_init(&q->wake);
    /* The first one now: with it, workq_push() cannot fail. */
    mutex_lock(&q->lock);
    int r = add_thread_locked(q);
    mutex_unlock(&q->lock);
    if (r < 0) {
        workq_free(q);
        return r;
    }
    *ret = q;
    return 0;
}

void workq_free(struct workq *q)
{
    if (!q)
        return;
    mutex_lock(&q->lock);
    q->stop = true;
    cond_broadcast(&q->wake);
    mutex_unlock(&q->lock);
    /* Jobs that still run may push and so add threads: n_threads is read under the lock. */
    for (unsigned i = 0;; i++) {
        mutex_lock(&q->lock);
        bool more = i < q->n_threads;
        pthread_t t = more ? q->threads[i] : pthread_self();
        mutex_unlock(&q->lock);
        if (!more)
            break;
        pthread_join(t, NULL);
    }
    assert(!q->head);
    cond_fini(&q->wake);
    mutex_fini(&q->lock);
    g_free(q->threads);
    g_free(q);
}

void workq_push(struct workq *q, void (*fn)(void *arg), void *arg)
{
    struct job *j = g_new(struct job, 1);
    *j = (struct job){.fn = fn, .arg = arg};
    mutex_lock(&q->lock);
    *q->tail = j;
    q->tail = &j->next;
    q->queued++;
    /* Idle threads that are woken already count as idle until they run: compare with the queue. */
    if (q->queued > q->idle && q->n_threads < q->max_threads)
        (void)add_thread_locked(q);
    cond_signal(&q->wake);
    mutex_unlock(&q->lock);
}
