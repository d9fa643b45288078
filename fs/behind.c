/* SPDX-License-Identifier: Apache-2.0
 *
 * behind: see behind.h. A job is shared by its caller and the thread that runs it; the last of the two frees it.
 */
#include "fs/behind.h"

#include <errno.h>
#include <glib.h>

#include "base/cancel.h"
#include "base/mutex.h"
#include "base/workq.h"

struct job {
    int (*fn)(void *arg);
    void (*drop)(void *arg);
    void *arg;
    struct mutex lock;
    struct cond changed;
    bool done, given_up; /* lock */
    int result;          /* lock */
    int refs;            /* lock */
};

static void unref(struct job *j)
{
    bool last;

    mutex_lock(&j->lock);
    last = --j->refs == 0;
    mutex_unlock(&j->lock);
    if (!last)
        return;
    j->drop(j->arg);
    cond_fini(&j->changed);
    mutex_fini(&j->lock);
    g_free(j);
}

static void run(void *arg)
{
    struct job *j = arg;
    int r = j->fn(j->arg);

    mutex_lock(&j->lock);
    j->done = true;
    j->result = r;
    cond_broadcast(&j->changed);
    mutex_unlock(&j->lock);
    unref(j);
}

static void give_up(void *ctx)
{
    struct job *j = ctx;

    mutex_lock(&j->lock);
    j->given_up = true;
    cond_broadcast(&j->changed);
    mutex_unlock(&j->lock);
}

int behind_run(struct workq *q, int (*fn)(void *arg), void (*drop)(void *arg), void *arg, struct cancel *cancel)
{
    struct job *j = g_new0(struct job, 1);
    struct cancel_watch watch = {.fired = give_up, .ctx = j};
    int r;

    *j = (struct job){.fn = fn, .drop = drop, .arg = arg, .refs = 2};
    mutex_init(&j->lock, RANK_LEAF);
    cond_init(&j->changed);
    cancel_watch(cancel, &watch);
    workq_push(q, run, j);
    mutex_lock(&j->lock);
    while (!j->done && !j->given_up)
        cond_wait(&j->changed, &j->lock);
    r = j->done ? j->result : -EINTR;
    mutex_unlock(&j->lock);
    cancel_unwatch(cancel, &watch);
    unref(j);
    return r;
}
