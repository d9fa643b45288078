/* SPDX-License-Identifier: Apache-2.0
 *
 * local_sync: see local_sync.h. Threads: its own, and who asks. `lock` (a leaf's neighbour: files' locks
 * are taken outside of it) covers the list, which holds no references: a file that is being freed
 * leaves it by itself. Nothing is locked while the disk works; a file's `recording` keeps its record
 * as it is while it is marked.
 */
#include "cache/local_sync.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/thread.h"
#include "cache/file.h"
#include "cache/journal.h"
#include "cache/seal.h"

#define PERIOD_NS (5 * NSEC_PER_SEC)
#define RANK_LOCAL_SYNC ((enum mutex_rank)(RANK_LEAF - 6))

struct local_sync {
    struct cache *cache;
    uint64_t period_ns;
    pthread_t thread;
    struct mutex lock;
    struct cond changed;
    bool stop;     /* lock */
    bool running;  /* lock: one run at a time */
    GQueue files;  /* lock: cache_file*, by their sync_link */
    GPtrArray *stuck; /* who runs: struct staging_pin*, of a journal that could not be synced */
};

/* ---- the list ---- */

void local_sync_add_locked(struct local_sync *ls, struct cache_file *f)
{
    mutex_lock(&ls->lock);
    if (!f->sync_listed) {
        f->sync_listed = true;
        f->sync_link.data = f;
        g_queue_push_tail_link(&ls->files, &f->sync_link);
        if (ls->files.length == 1)
            cond_broadcast(&ls->changed);
    }
    mutex_unlock(&ls->lock);
}

static void remove_listed(struct local_sync *ls, struct cache_file *f)
{
    if (f->sync_listed)
        g_queue_unlink(&ls->files, &f->sync_link);
    f->sync_listed = false;
}

void local_sync_remove(struct local_sync *ls, struct cache_file *f)
{
    mutex_lock(&ls->lock);
    remove_listed(ls, f);
    mutex_unlock(&ls->lock);
}

unsigned local_sync_count(struct local_sync *ls)
{
    mutex_lock(&ls->lock);
    unsigned n = ls->files.length;
    mutex_unlock(&ls->lock);
    return n;
}

/* All that are listed, held; the list is empty then. */
static GPtrArray *take_all(struct local_sync *ls)
{
    GPtrArray *files = g_ptr_array_new();
    struct cache_file *f;
    mutex_lock(&ls->lock);
    while ((f = g_queue_peek_head(&ls->files))) {
        remove_listed(ls, f);
        if (file_hold_living(f))
            g_ptr_array_add(files, f);
    }
    mutex_unlock(&ls->lock);
    return files;
}

/* ---- one file ---- */

static int sync_file(struct cache_file *f, GPtrArray *old)
{
    int r = seal_sync(f, old);
    if (r < 0)
        log_error_errno(r, "%s/%s: what was written to it cannot be brought to the disk: it would not survive a power cut",
                        f->bucket, f->key);
    return r;
}

static int sync_journals(struct cache *c)
{
    int r = journal_sync(c->journal);
    for (guint i = 0;; i++) {
        mutex_lock(&c->lock);
        struct journal *j = i < c->adopted->len ? c->adopted->pdata[i] : NULL;
        mutex_unlock(&c->lock);
        if (!j)
            break;
        int r2 = journal_sync(j);
        r = r < 0 ? r : r2;
    }
    if (r < 0)
        log_error_errno(r, "cannot bring the journal in %s to the disk: what it says would not survive a power cut", c->dir);
    return r;
}

static void free_pin(void *p)
{
    file_pin_free(p);
}

/* ---- runs ---- */

static void enter(struct local_sync *ls)
{
    mutex_lock(&ls->lock);
    while (ls->running)
        cond_wait(&ls->changed, &ls->lock);
    ls->running = true;
    mutex_unlock(&ls->lock);
}

static void leave(struct local_sync *ls)
{
    mutex_lock(&ls->lock);
    ls->running = false;
    cond_broadcast(&ls->changed);
    mutex_unlock(&ls->lock);
}

static int run(struct local_sync *ls, GPtrArray *files)
{
    g_autoptr(GPtrArray) old = g_ptr_array_new_with_free_func(free_pin);
    int err = 0;
    for (guint i = 0; i < files->len; i++) {
        struct cache_file *f = files->pdata[i];
        int r = sync_file(f, old);
        if (r < 0) {
            mutex_lock(&f->lock);
            if (f->recorded)
                local_sync_add_locked(ls, f);
            mutex_unlock(&f->lock);
        }
        err = err ? err : r;
    }
    int r = files->len > 0 ? sync_journals(ls->cache) : 0;
    if (r < 0) /* what the disk has of the journal may refer to it for good */
        g_ptr_array_extend_and_steal(ls->stuck, g_steal_pointer(&old));
    return err ? err : r;
}

int local_sync_run(struct local_sync *ls)
{
    enter(ls);
    g_autoptr(GPtrArray) files = take_all(ls);
    int r = run(ls, files);
    leave(ls);
    for (guint i = 0; i < files->len; i++)
        file_release(files->pdata[i]);
    return r;
}

int local_sync_file(struct local_sync *ls, struct cache_file *f)
{
    g_autoptr(GPtrArray) files = g_ptr_array_new();
    g_ptr_array_add(files, f);
    enter(ls);
    local_sync_remove(ls, f);
    int r = run(ls, files);
    leave(ls);
    return r;
}

static void *sync_loop(void *arg)
{
    struct local_sync *ls = arg;
    mutex_lock(&ls->lock);
    while (!ls->stop) {
        if (g_queue_is_empty(&ls->files)) {
            cond_wait(&ls->changed, &ls->lock);
            continue;
        }
        uint64_t due = clock_mono_ns() + ls->period_ns;
        while (!ls->stop && cond_wait_until(&ls->changed, &ls->lock, due))
            ;
        mutex_unlock(&ls->lock);
        (void)local_sync_run(ls);
        mutex_lock(&ls->lock);
    }
    mutex_unlock(&ls->lock);
    return NULL;
}

/* ---- life ---- */

int local_sync_new(struct cache *c, uint64_t period_ns, struct local_sync **ret)
{
    struct local_sync *ls = g_new0(struct local_sync, 1);
    ls->cache = c;
    ls->period_ns = period_ns ? period_ns : PERIOD_NS;
    mutex_init(&ls->lock, RANK_LOCAL_SYNC);
    cond_init(&ls->changed);
    g_queue_init(&ls->files);
    ls->stuck = g_ptr_array_new_with_free_func(free_pin);
    int r = thread_start(&ls->thread, "local-sync", sync_loop, ls);
    if (r < 0) {
        local_sync_free(ls);
        return r;
    }
    *ret = ls;
    return 0;
}

void local_sync_stop(struct local_sync *ls)
{
    if (!ls)
        return;
    mutex_lock(&ls->lock);
    ls->stop = true;
    cond_broadcast(&ls->changed);
    mutex_unlock(&ls->lock);
    pthread_join(ls->thread, NULL);
    (void)local_sync_run(ls);
}

void local_sync_free(struct local_sync *ls)
{
    if (!ls)
        return;
    g_ptr_array_unref(ls->stuck);
    cond_fini(&ls->changed);
    mutex_fini(&ls->lock);
    g_free(ls);
}
