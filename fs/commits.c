/* SPDX-License-Identifier: Apache-2.0
 *
 * commits: see commits.h. Threads: any asks for a commit, the cache's deliver queue says what came of it, a timerq's asks again; those of a
 * workq wait for the bucket where it must be asked something first. Under `lock`: the items that wait for their commit, or for their time.
 */
#include "fs/commits.h"

#include <errno.h>

#include "base/cancel.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/timerq.h"
#include "base/workq.h"
#include "cache/cache.h"
#include "fs/inode.h"
#include "fs/namespace.h"

#define RANK_COMMITS ((enum mutex_rank)(RANK_FILE - 1)) /* a file's lock is taken within it */
#define AT_ONCE 64
#define FIRST_NS NSEC_PER_SEC
#define LAST_NS (60 * NSEC_PER_SEC)

struct commits {
    struct fs *fs;
    struct workq *work, *renewals;
    struct timerq *timers;
    struct mutex lock;
    bool ended;          /* lock: nothing is put off any more */
    struct cond fewer;   /* of them run */
    GHashTable *waiting; /* lock: set of struct item* that a timer will bring back */
    GHashTable *running; /* lock: set of struct item* whose commit is asked for */
    unsigned ending;     /* lock: of whom item_done() has yet to say what came of them */
};

struct item {
    struct timer timer;
    struct cache_wait wait;
    struct commits *commits;
    struct inode *inode; /* pinned, its file in use; NULL: the mount has no name for the file */
    struct cache_file *file; /* without an inode: a reference */
    uint64_t pause_ns; /* before the next try */
};

static void item_end(struct item *it)
{
    if (it->inode) {
        ns_file_put(it->inode);
        inode_put(it->inode);
    } else {
        cache_file_unref(it->file);
    }
    g_free(it);
}

/* Trying again helps where the server was away or failed; not where it, or somebody else, said no. */
static bool may_pass(int r)
{
    switch (r) {
    case -ESTALE:
    case -EACCES:
    case -EPERM:
    case -EFBIG:
    case -EINVAL:
    case -ENAMETOOLONG:
    case -ENOENT:
        return false;
    default:
        return true;
    }
}

static void start(struct item *it);

static void item_due(void *arg)
{
    struct item *it = arg;
    struct commits *c = it->commits;

    mutex_lock(&c->lock);
    g_hash_table_remove(c->waiting, it);
    mutex_unlock(&c->lock);
    start(it);
}

static void try_later(struct item *it)
{
    struct commits *c = it->commits;
    uint64_t due = clock_mono_ns() + it->pause_ns;
    bool ended;

    it->timer = (struct timer){.fn = item_due, .arg = it};
    it->pause_ns = MIN(it->pause_ns * 2, LAST_NS);
    mutex_lock(&c->lock);
    ended = c->ended;
    if (!ended) {
        g_hash_table_add(c->waiting, it);
        timerq_add(c->timers, &it->timer, due);
    }
    mutex_unlock(&c->lock);
    if (ended)
        item_end(it);
}

static char *item_path(const struct item *it)
{
    g_autofree char *bucket = NULL, *key = NULL, *etag = NULL;

    if (it->inode)
        return inode_path(it->inode);
    cache_file_target(it->file, &bucket, &key, &etag);
    return g_strdup_printf("s3://%s/%s", bucket, key);
}

static void item_tried(struct item *it, int r)
{
    bool first = it->pause_ns == FIRST_NS, again = r < 0 && may_pass(r) && !cancel_fired(it->commits->fs->ending);

    if (r == -EBUSY) { /* who has it open comes here when he closes it */
        item_end(it);
        return;
    }
    if (r < 0 && r != -EINTR && first) {
        g_autofree char *path = item_path(it);

        log_error_errno(r, "%s: what was written to it is not in the bucket yet%s", path,
                        again ? "; it is tried again" : ", and stays here: `mlopsfs sync` tries again");
    }
    if (again)
        try_later(it);
    else
        item_end(it);
}

/* On the cache's deliver queue. */
static void item_done(struct cache_wait *w, int err)
{
    struct item *it = w->ctx;
    struct commits *c = it->commits;

    mutex_lock(&c->lock);
    g_hash_table_remove(c->running, it);
    c->ending++;
    mutex_unlock(&c->lock);
    item_tried(it, err);
    mutex_lock(&c->lock);
    c->ending--;
    cond_signal(&c->fewer); /* who ends the queue waits for this, and for the lock */
    mutex_unlock(&c->lock);
}

static void run(struct item *it)
{
    struct commits *c = it->commits;
    bool runs;

    it->wait = (struct cache_wait){.done = item_done, .ctx = it};
    mutex_lock(&c->lock);
    runs = !c->ended && !cancel_fired(c->fs->ending) && cache_file_flush_start(it->file, true, &it->wait);
    if (runs)
        g_hash_table_add(c->running, it);
    mutex_unlock(&c->lock);
    if (!runs)
        item_end(it);
}

static void renew(void *arg)
{
    struct item *it = arg;

    ns_push_attr(it->commits->fs, it->inode, it->file, it->commits->fs->ending);
    run(it);
}

/* Nothing waits in a thread but who has to ask the bucket first. */
static void start(struct item *it)
{
    struct commits *c = it->commits;

    if (!it->inode) {
        run(it);
    } else if (ns_attr_is_old(c->fs, it->inode, it->file)) {
        workq_push(c->work, renew, it);
    } else {
        ns_push_known_attr(it->inode, it->file);
        run(it);
    }
}

int commits_new(struct fs *fs, struct commits **ret)
{
    struct commits *c = g_new0(struct commits, 1);
    int r;

    c->fs = fs;
    mutex_init(&c->lock, RANK_COMMITS);
    cond_init(&c->fewer);
    c->waiting = g_hash_table_new(NULL, NULL);
    c->running = g_hash_table_new(NULL, NULL);
    r = workq_new("commits", AT_ONCE, &c->work);
    if (r == 0)
        r = workq_new("renewals", AT_ONCE, &c->renewals);
    if (r == 0)
        r = timerq_new("retries", &c->timers);
    if (r < 0) {
        commits_free(c);
        return r;
    }
    *ret = c;
    return 0;
}

/* Those that no timer brings back any more, and those whose commit goes on without a waiter. */
static GPtrArray *end_all(struct commits *c)
{
    GPtrArray *items = g_ptr_array_new();
    GHashTableIter it;
    gpointer item;

    mutex_lock(&c->lock);
    c->ended = true;
    g_hash_table_iter_init(&it, c->waiting);
    while (g_hash_table_iter_next(&it, &item, NULL)) {
        if (!timerq_remove(c->timers, &((struct item *)item)->timer))
            continue; /* its time has just come */
        g_hash_table_iter_remove(&it);
        g_ptr_array_add(items, item);
    }
    g_hash_table_iter_init(&it, c->running);
    while (g_hash_table_iter_next(&it, &item, NULL)) {
        if (!cache_file_flush_cancel(((struct item *)item)->file, &((struct item *)item)->wait))
            continue; /* its commit has just ended */
        g_hash_table_iter_remove(&it);
        g_ptr_array_add(items, item);
    }
    while (g_hash_table_size(c->running) > 0 || c->ending > 0)
        cond_wait(&c->fewer, &c->lock);
    mutex_unlock(&c->lock);
    return items;
}

void commits_free(struct commits *c)
{
    g_autoptr(GPtrArray) items = NULL;

    if (!c)
        return;
    items = end_all(c);
    for (guint n = 0; n < items->len; n++)
        item_end(items->pdata[n]);
    if (c->timers)
        timerq_free(c->timers);
    if (c->work)
        workq_free(c->work);
    if (c->renewals)
        workq_free(c->renewals);
    g_hash_table_unref(c->waiting);
    g_hash_table_unref(c->running);
    cond_fini(&c->fewer);
    mutex_fini(&c->lock);
    g_free(c);
}

void commits_add(struct commits *c, struct inode *i, struct cache_file *f)
{
    struct item *it = g_new0(struct item, 1);

    it->commits = c;
    it->inode = inode_pin(i);
    it->file = f;
    it->pause_ns = FIRST_NS;
    start(it);
}

void commits_add_unnamed(struct commits *c, struct cache_file *f)
{
    struct item *it = g_new0(struct item, 1);

    it->commits = c;
    it->file = f;
    it->pause_ns = FIRST_NS;
    run(it);
}

struct workq *commits_queue(struct commits *c)
{
    return c->renewals;
}
