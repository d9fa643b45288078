/* SPDX-License-Identifier: Apache-2.0
 *
 * cancel: see cancel.h. Threads: any. The lock is a leaf and is not held while a callback runs, so
 * that callbacks may take locks of any rank; `running` marks the one under way, and
 * cancel_unwatch() waits for it.
 */
#include "base/cancel.h"

#include <assert.h>
#include <glib.h>
#include <stdatomic.h>

#include "base/mutex.h"

struct cancel {
    atomic_bool fired; /* set once, under lock; read anywhere */
    struct mutex lock;
    struct cond idle;             /* lock: running changed to NULL */
    struct cancel_watch *watches; /* lock */
    struct cancel_watch *running; /* lock: its callback runs now, on the firing thread */
    bool firing;                  /* lock: a thread is in cancel_fire() */
};

struct cancel *cancel_new(void)
{
    struct cancel *c = g_new0(struct cancel, 1);
    mutex_init(&c->lock, RANK_LEAF);
    cond_init(&c->idle);
    return c;
}

void cancel_free(struct cancel *c)
{
    if (!c)
        return;
    mutex_lock(&c->lock);
    assert(!c->watches);
    while (c->firing)
        cond_wait(&c->idle, &c->lock);
    mutex_unlock(&c->lock);
    cond_fini(&c->idle);
    mutex_fini(&c->lock);
    g_free(c);
}

void cancel_fire(struct cancel *c)
{
    mutex_lock(&c->lock);
    if (atomic_load(&c->fired)) {
        mutex_unlock(&c->lock);
        return;
    }
    atomic_store(&c->fired, true);
    c->firing = true;
    while (c->watches) {
        struct cancel_watch *w = c->watches;
        c->watches = w->next;
        c->running = w;
        mutex_unlock(&c->lock);
        w->fired(w->ctx);
        mutex_lock(&c->lock);
        c->running = NULL;
        cond_broadcast(&c->idle);
    }
    c->firing = false;
    cond_broadcast(&c->idle);
    mutex_unlock(&c->lock);
}

bool cancel_fired(const struct cancel *c)
{
    return c && atomic_load(&c->fired);
}

void cancel_watch(struct cancel *c, struct cancel_watch *w)
{
    if (!c)
        return;
    mutex_lock(&c->lock);
    bool fired = atomic_load(&c->fired);
    if (!fired) {
        w->next = c->watches;
        c->watches = w;
    }
    mutex_unlock(&c->lock);
    if (fired)
        w->fired(w->ctx);
}

void cancel_unwatch(struct cancel *c, struct cancel_watch *w)
{
    if (!c)
        return;
    mutex_lock(&c->lock);
    for (struct cancel_watch **p = &c->watches; *p; p = &(*p)->next) {
        if (*p == w) {
            *p = w->next;
            break;
        }
    }
    while (c->running == w)
        cond_wait(&c->idle, &c->lock);
    mutex_unlock(&c->lock);
}
