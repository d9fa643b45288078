/* SPDX-License-Identifier: Apache-2.0
 *
 * batch: see batch.h. One lock guards the counts; requests are submitted by the caller's thread
 * only, so that done, on the store's threads, just counts and signals.
 */
#include "fs/batch.h"

#include <errno.h>

#include "base/cancel.h"
#include "base/mutex.h"

enum item_state { ITEM_IDLE, ITEM_RUNNING, ITEM_DONE };

struct batch {
    struct store *store;
    struct store_request *reqs;
    size_t n;
    struct mutex lock;
    struct cond changed;
    enum item_state *state; /* lock */
    size_t running;         /* lock */
    int err;                /* lock: the first */
    bool cancelled;         /* lock */
};

static void one_done(struct store_request *q)
{
    struct batch *b = q->ctx;

    mutex_lock(&b->lock);
    b->state[q - b->reqs] = ITEM_DONE;
    b->running--;
    if (q->res.err < 0 && !b->err)
        b->err = q->res.err;
    cond_broadcast(&b->changed);
    mutex_unlock(&b->lock);
}

static void fired(void *ctx)
{
    struct batch *b = ctx;

    mutex_lock(&b->lock);
    b->cancelled = true;
    cond_broadcast(&b->changed);
    mutex_unlock(&b->lock);
}

/* The requests under way are ours until one_done has run, which needs the lock for ITEM_DONE: so a request that is
 * RUNNING under the lock may be cancelled. */
static void cancel_running_locked(struct batch *b)
{
    for (size_t i = 0; i < b->n; i++)
        if (b->state[i] == ITEM_RUNNING)
            store_cancel(b->store, &b->reqs[i]);
}

static void run(struct batch *b, unsigned parallel, bool stop_on_error)
{
    bool told = false;
    size_t next = 0;

    mutex_lock(&b->lock);
    for (;;) {
        bool stop = b->cancelled || (stop_on_error && b->err);

        if (b->cancelled && !told) {
            told = true;
            cancel_running_locked(b);
        }
        if (next < b->n && !stop && b->running < parallel) {
            struct store_request *q = &b->reqs[next];

            b->state[next++] = ITEM_RUNNING;
            b->running++;
            mutex_unlock(&b->lock);
            store_submit(b->store, q);
            mutex_lock(&b->lock);
            continue;
        }
        if (!b->running && (next == b->n || stop))
            break;
        cond_wait(&b->changed, &b->lock);
    }
    mutex_unlock(&b->lock);
    for (; next < b->n; next++)
        b->reqs[next].res.err = -ECANCELED;
}

int batch_run(struct store *s, struct store_request *reqs, size_t n, unsigned parallel, bool stop_on_error, struct cancel *cancel)
{
    struct batch b = {.store = s, .reqs = reqs, .n = n};
    struct cancel_watch watch = {.fired = fired, .ctx = &b};
    int r;

    b.state = g_new0(enum item_state, n ? n : 1);
    mutex_init(&b.lock, RANK_COMMIT);
    cond_init(&b.changed);
    for (size_t i = 0; i < n; i++) {
        reqs[i].done = one_done;
        reqs[i].ctx = &b;
    }
    cancel_watch(cancel, &watch);
    run(&b, parallel, stop_on_error);
    cancel_unwatch(cancel, &watch);
    r = b.cancelled ? -EINTR : b.err;
    cond_fini(&b.changed);
    mutex_fini(&b.lock);
    g_free(b.state);
    return r;
}
