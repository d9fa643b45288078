/* SPDX-License-Identifier: Apache-2.0
 *
 * draft: see draft.h. Threads: the drafter's own, which works on the disk; files are queued by any.
 * `lock` is a leaf. A queued file is alive: its last user takes it out again; while the thread works
 * on one it holds it.
 */
#include "cache/draft.h"

#include "base/clock.h"
#include "base/thread.h"
#include "cache/file.h"
#include "cache/seal.h"

#define PAUSE_NS NSEC_PER_SEC
#define SHARE 20 /* of the thread's time, one in so many */

struct drafter {
    pthread_t thread;
    uint64_t pause_ns;
    struct mutex lock;
    struct cond changed;
    bool ending;  /* lock */
    GQueue files; /* lock: of draft_link */
};

/* Waits until some file is due. False at the end. */
static bool wait_locked(struct drafter *d, uint64_t pause_ns)
{
    while (!d->ending && g_queue_is_empty(&d->files))
        cond_wait(&d->changed, &d->lock);
    for (uint64_t due = clock_mono_ns() + pause_ns; !d->ending && clock_mono_ns() < due;)
        (void)cond_wait_until(&d->changed, &d->lock, due);
    return !d->ending;
}

static struct cache_file *pop(struct drafter *d)
{
    mutex_lock(&d->lock);
    GList *l = g_queue_pop_head_link(&d->files);
    struct cache_file *f = l ? file_hold(l->data) : NULL;
    mutex_unlock(&d->lock);
    return f;
}

static void *drafter_main(void *arg)
{
    struct drafter *d = arg;
    uint64_t pause_ns = d->pause_ns;
    mutex_lock(&d->lock);
    while (wait_locked(d, pause_ns)) {
        guint n = d->files.length; /* who is written to meanwhile waits for the next round */
        mutex_unlock(&d->lock);
        uint64_t begin = clock_mono_ns();
        struct cache_file *f;
        while (n-- > 0 && (f = pop(d))) {
            seal_draft(f);
            file_release(f);
        }
        pause_ns = MAX(d->pause_ns, SHARE * (clock_mono_ns() - begin));
        mutex_lock(&d->lock);
    }
    mutex_unlock(&d->lock);
    return NULL;
}

int drafter_new(uint64_t pause_ns, struct drafter **ret)
{
    struct drafter *d = g_new0(struct drafter, 1);
    d->pause_ns = pause_ns ? pause_ns : PAUSE_NS;
    mutex_init(&d->lock, RANK_LEAF);
    cond_init(&d->changed);
    g_queue_init(&d->files);
    int r = thread_start(&d->thread, "drafts", drafter_main, d);
    if (r < 0) {
        cond_fini(&d->changed);
        mutex_fini(&d->lock);
        g_free(d);
        return r;
    }
    *ret = d;
    return 0;
}

void drafter_free(struct drafter *d)
{
    if (!d)
        return;
    mutex_lock(&d->lock);
    d->ending = true;
    cond_broadcast(&d->changed);
    mutex_unlock(&d->lock);
    pthread_join(d->thread, NULL);
    cond_fini(&d->changed);
    mutex_fini(&d->lock);
    g_free(d);
}

void draft_want_locked(struct cache_file *f)
{
    struct drafter *d = f->cache->drafter;
    if (!d || f->draft_wanted || f->dead || f->orphan || !f->data_dirty)
        return;
    f->draft_wanted = true;
    mutex_lock(&d->lock);
    g_queue_push_tail_link(&d->files, &f->draft_link);
    cond_signal(&d->changed);
    mutex_unlock(&d->lock);
}

void draft_cancel_locked(struct cache_file *f)
{
    struct drafter *d = f->cache->drafter;
    if (!d || !f->draft_wanted)
        return;
    mutex_lock(&d->lock);
    /* The thread may have it already, and not said so yet. */
    if (d->files.head == &f->draft_link || f->draft_link.prev || f->draft_link.next)
        g_queue_unlink(&d->files, &f->draft_link);
    mutex_unlock(&d->lock);
}
