/* SPDX-License-Identifier: Apache-2.0
 *
 * budget: see budget.h. Threads: any; one leaf lock. Invariant: used ≤ limit, but for what was
 * forced. Waiters are not
 * served in order of arrival: whoever fits goes first, so that a big request that waits for
 * work in flight cannot block the small one which that work needs.
 */
#include "base/budget.h"

#include <assert.h>
#include <errno.h>
#include <glib.h>

#include "base/cancel.h"
#include "base/mutex.h"

struct budget {
    uint64_t limit; /* constant */
    struct mutex lock;
    struct cond changed;
    uint64_t used;    /* lock */
    unsigned waiting; /* lock */
};

struct budget *budget_new(uint64_t limit)
{
    struct budget *b = g_new0(struct budget, 1);
    b->limit = limit;
    mutex_init(&b->lock, RANK_LEAF);
    cond_init(&b->changed);
    return b;
}

void budget_free(struct budget *b)
{
    if (!b)
        return;
    assert(b->used == 0 && b->waiting == 0);
    cond_fini(&b->changed);
    mutex_fini(&b->lock);
    g_free(b);
}

static bool take_locked(struct budget *b, uint64_t n)
{
    if (b->used > b->limit || n > b->limit - b->used)
        return false;
    b->used += n;
    return true;
}

bool budget_try(struct budget *b, uint64_t n)
{
    mutex_lock(&b->lock);
    bool ok = take_locked(b, n);
    mutex_unlock(&b->lock);
    return ok;
}

void budget_force(struct budget *b, uint64_t n)
{
    mutex_lock(&b->lock);
    b->used += n;
    mutex_unlock(&b->lock);
}

static void wake(void *ctx)
{
    struct budget *b = ctx;
    mutex_lock(&b->lock);
    cond_broadcast(&b->changed);
    mutex_unlock(&b->lock);
}

int budget_take(struct budget *b, uint64_t n, struct cancel *cancel, uint64_t mono_deadline_ns)
{
    if (n > b->limit)
        return -EMSGSIZE;
    if (budget_try(b, n))
        return 0;

    struct cancel_watch watch = {.fired = wake, .ctx = b};
    cancel_watch(cancel, &watch);
    int r = 0;
    mutex_lock(&b->lock);
    b->waiting++;
    for (;;) {
        if (take_locked(b, n))
            break;
        if (cancel_fired(cancel)) {
            r = -EINTR;
            break;
        }
        if (!cond_wait_until(&b->changed, &b->lock, mono_deadline_ns)) {
            r = take_locked(b, n) ? 0 : -ETIMEDOUT;
            break;
        }
    }
    b->waiting--;
    mutex_unlock(&b->lock);
    cancel_unwatch(cancel, &watch);
    return r;
}

void budget_give(struct budget *b, uint64_t n)
{
    mutex_lock(&b->lock);
    assert(n <= b->used);
    b->used -= n;
    if (b->waiting)
        cond_broadcast(&b->changed);
    mutex_unlock(&b->lock);
}

uint64_t budget_used(struct budget *b)
{
    mutex_lock(&b->lock);
    uint64_t n = b->used;
    mutex_unlock(&b->lock);
    return n;
}

uint64_t budget_limit(const struct budget *b)
{
    return b->limit;
}
