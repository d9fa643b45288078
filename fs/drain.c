/* SPDX-License-Identifier: Apache-2.0
 *
 * drain: see drain.h. All commits are asked for at once, and end on the cache's deliver queue while the caller's thread writes progress; a
 * workq's threads ask the bucket first where that must be.
 */
#include "fs/drain.h"

#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/workq.h"
#include "cache/cache.h"
#include "fs/advice.h"
#include "fs/inode.h"
#include "fs/namespace.h"

#define AT_ONCE 16
#define PROGRESS_NS (200 * NSEC_PER_MSEC)

struct drain {
    const char *mountpoint;
    struct mutex lock;
    struct cond changed;
    unsigned left; /* lock */
    GString *failed; /* lock: lines */
    int err;       /* lock: the first */
};

struct item {
    struct cache_wait wait;
    struct drain *drain;
    struct inode *inode; /* pinned, its file in use */
    struct cache_file *file;
};

static void note_failure(struct drain *d, struct inode *i, int r)
{
    g_autofree char *path = inode_path(i);

    g_strdelimit(path, "\n", '?'); /* one line each */
    mutex_lock(&d->lock);
    g_string_append_printf(d->failed, DRAIN_FAILED "%s/%s: %s (%s)\n", d->mountpoint, path, advice_for(r), g_strerror(-r));
    if (!d->err)
        d->err = r;
    mutex_unlock(&d->lock);
}

static void item_end(struct item *it, int r)
{
    struct drain *d = it->drain;

    if (r < 0)
        note_failure(d, it->inode, r);
    ns_file_put(it->inode);
    inode_put(it->inode);
    g_free(it);
    mutex_lock(&d->lock);
    d->left--;
    cond_signal(&d->changed);
    mutex_unlock(&d->lock);
}

static void item_done(struct cache_wait *w, int err)
{
    item_end(w->ctx, err);
}

static void commit(struct item *it)
{
    it->wait = (struct cache_wait){.done = item_done, .ctx = it};
    if (!cache_file_flush_start(it->file, false, &it->wait))
        item_end(it, 0);
}

static void renew(void *arg)
{
    struct item *it = arg;

    ns_push_attr(inode_fs(it->inode), it->inode, it->file, NULL);
    commit(it);
}

/* Pins the inode and uses its file when there is something to commit. */
static struct cache_file *take(struct inode *i, bool closed_only)
{
    struct cache_file *f = NULL;

    mutex_lock(&i->lock);
    if (i->file && !i->unlinked && !(closed_only && i->handles) && cache_file_dirty(i->file)) {
        f = i->file;
        i->users++;
    }
    mutex_unlock(&i->lock);
    return f;
}

static bool is_below(struct inode *i, const char *below)
{
    g_autofree char *path = inode_path(i);
    size_t n = strlen(below);

    return !n || (!strncmp(path, below, n) && (path[n] == '/' || !path[n]));
}

static void start(struct fs *fs, struct drain *d, struct workq *q, const char *below, bool closed_only)
{
    g_autoptr(GPtrArray) all = inode_all(fs->inodes);

    for (guint n = 0; n < all->len; n++) {
        struct inode *i = all->pdata[n];
        struct cache_file *f = is_below(i, below) ? take(i, closed_only) : NULL;
        struct item *it;

        if (!f)
            continue;
        it = g_new(struct item, 1);
        *it = (struct item){.drain = d, .inode = inode_pin(i), .file = f};
        mutex_lock(&d->lock);
        d->left++;
        mutex_unlock(&d->lock);
        if (ns_attr_is_old(fs, i, f)) {
            workq_push(q, renew, it);
        } else {
            ns_push_known_attr(i, f);
            commit(it);
        }
    }
}

static void progress(struct fs *fs, struct drain *d, FILE *out)
{
    unsigned shown = 0;

    mutex_lock(&d->lock);
    while (d->left) {
        struct cache_stats st;
        unsigned left = d->left;

        mutex_unlock(&d->lock);
        cache_get_stats(fs->cache, &st);
        if (out && !ferror(out)) {
            fprintf(out, "%u file%s", left, left == 1 ? "" : "s");
            if (st.uploading) /* else it waits for an answer, or for another try */
                fprintf(out, ", %.1f MiB", (double)st.uploading / (1 << 20));
            fprintf(out, " to go\n");
            shown++;
        }
        mutex_lock(&d->lock);
        if (d->left)
            (void)cond_wait_until(&d->changed, &d->lock, clock_mono_ns() + PROGRESS_NS);
    }
    bool all = d->failed->len == 0;
    mutex_unlock(&d->lock);
    if (shown && all)
        fprintf(out, "0 files to go\n");
}

int drain_run(struct fs *fs, const char *below, bool closed_only, FILE *out)
{
    struct drain d = {.mountpoint = fs->config->mountpoint, .failed = g_string_new(NULL)};
    struct workq *q;
    int r = workq_new("drain", AT_ONCE, &q);

    if (r == 0) {
        mutex_init(&d.lock, RANK_LEAF);
        cond_init(&d.changed);
        start(fs, &d, q, below, closed_only);
        progress(fs, &d, out);
        workq_free(q);
        if (out)
            fputs(d.failed->str, out);
        r = d.err;
        cond_fini(&d.changed);
        mutex_fini(&d.lock);
    }
    g_string_free(d.failed, TRUE);
    return r;
}

static void keep(struct inode *i, struct cache_file *f, const char *where)
{
    g_autofree char *path = NULL;
    int r;

    if (!cache_file_dirty(f))
        return;
    path = inode_path(i);
    r = cache_file_keep(f);
    if (r < 0)
        log_error_errno(r, "%s: its last changes could not be brought into the bucket, nor be kept, and are lost", path);
    else
        log_warning("%s: its last changes are not in the bucket; they are kept in %s for the next mount of this bucket", path, where);
}

void drain_last(struct fs *fs)
{
    g_autoptr(GPtrArray) all = inode_all(fs->inodes), files = g_ptr_array_new();

    for (guint n = 0; n < all->len; n++) {
        struct inode *i = all->pdata[n];

        if (!i->file) /* nobody else is there any more */
            continue;
        keep(i, i->file, fs->config->cache_dir);
        g_ptr_array_add(files, i);
    }
    (void)cache_sync_local(fs->cache, NULL);
    for (guint n = 0; n < files->len; n++) {
        struct inode *i = files->pdata[n];
        struct cache_file *f;

        mutex_lock(&i->lock);
        f = g_steal_pointer(&i->file);
        mutex_unlock(&i->lock);
        cache_file_unref(f);
        inode_put(i);
    }
}
