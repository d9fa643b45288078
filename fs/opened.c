/* SPDX-License-Identifier: Apache-2.0
 *
 * opened: see opened.h. One lock per list, taken before all others (end() cancels reads and commits).
 */
#include "fs/opened.h"

#include <assert.h>
#include <glib.h>

#include "base/mutex.h"

struct opened_list {
    struct mutex lock;
    struct cond empty;
    struct opened *first; /* lock */
};

struct opened_list *opened_list_new(void)
{
    struct opened_list *l = g_new0(struct opened_list, 1);

    mutex_init(&l->lock, RANK_NAMESPACE);
    cond_init(&l->empty);
    return l;
}

void opened_list_free(struct opened_list *l)
{
    if (!l)
        return;
    assert(!l->first);
    cond_fini(&l->empty);
    mutex_fini(&l->lock);
    g_free(l);
}

void opened_add(struct opened_list *l, struct opened *o)
{
    mutex_lock(&l->lock);
    o->prev = NULL;
    o->next = l->first;
    if (o->next)
        o->next->prev = o;
    l->first = o;
    mutex_unlock(&l->lock);
}

static void unlink_locked(struct opened_list *l, struct opened *o)
{
    if (o->next)
        o->next->prev = o->prev;
    if (o->prev)
        o->prev->next = o->next;
    else
        l->first = o->next;
    if (!l->first)
        cond_broadcast(&l->empty);
}

void opened_remove(struct opened_list *l, struct opened *o)
{
    mutex_lock(&l->lock);
    unlink_locked(l, o);
    mutex_unlock(&l->lock);
}

void opened_cancel_all(struct opened_list *l)
{
    mutex_lock(&l->lock);
    for (struct opened *o = l->first; o; o = o->next)
        o->end(o);
    while (l->first)
        cond_wait(&l->empty, &l->lock);
    mutex_unlock(&l->lock);
}

void opened_close_all(struct opened_list *l)
{
    for (;;) {
        struct opened *o;

        mutex_lock(&l->lock);
        o = l->first;
        if (o)
            unlink_locked(l, o);
        mutex_unlock(&l->lock);
        if (!o)
            return;
        o->end(o);
    }
}
