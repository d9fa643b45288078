/* SPDX-License-Identifier: Apache-2.0
 *
 * ns_rename: names changed. A file moves by giving its cache_file another key and committing it there
 * (a clean one is a server-side copy), then deleting the old key: at every moment the content is
 * whole under one of the names. A directory moves by copying every key below it, then deleting the
 * old ones; a failure before that deletes the copies instead.
 *
 * Once begun, a rename runs to its end, on the `behind` queue: a caller that is interrupted only stops
 * waiting. The kernel holds both parents' locks while it waits; files below a moving directory may be
 * written meanwhile, so each is brought over one by one after the copies.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "cache/cache.h"
#include "catalog/catalog.h"
#include "fs/batch.h"
#include "fs/behind.h"
#include "fs/listing.h"
#include "fs/ns_private.h"

#define COPIES_AT_ONCE 16

/* ---- one file ---- */

/* Deletes the old name of what now has a new one. */
static int drop_old(struct fs *fs, struct inode *dir, const char *bucket, const char *key)
{
    int r = ns_keep_directory(fs, dir, key, NULL);

    if (r == 0)
        r = ns_delete_object(fs, bucket, key, NULL);
    if (r < 0)
        log_error_errno(r, "rename: s3://%s/%s has its new name, but the old one could not be deleted", bucket, key);
    return r;
}

static int move_file(struct fs *fs, struct inode *i, struct cache_file *f, struct inode *dir, const char *bucket,
                     const char *key, const char *to_bucket, const char *to_key, const char *expect)
{
    g_autofree char *old_etag = NULL;
    int r;

    if (!cache_file_is_at(f, bucket, key)) /* never delete a name on the word of a file that is of another */
        return log_error_errno(-ESTALE, "rename: s3://%s/%s is not where it was", bucket, key);
    mutex_lock(&i->lock);
    old_etag = g_strdup(i->etag);
    mutex_unlock(&i->lock);
    ns_push_attr(i, f);
    r = cache_file_retarget(f, to_bucket, to_key, expect, NULL);
    if (r == 0) {
        r = cache_file_flush(f, NULL);
        if (r < 0)
            (void)cache_file_retarget(f, bucket, key, old_etag, NULL);
    }
    if (r == 0 && old_etag)
        r = drop_old(fs, dir, bucket, key);
    return r;
}

static int rename_file(struct fs *fs, struct inode *i, struct cache_file *f, struct inode *dir, struct inode *to_dir,
                       const char *to_name, struct inode *over)
{
    g_autofree char *bucket = NULL, *key = NULL, *to_bucket = NULL, *to_key = NULL, *expect = NULL;
    int r = inode_key(i, &bucket, &key);

    if (r == 0)
        r = inode_child_key(to_dir, to_name, false, &to_bucket, &to_key);
    if (r == 0 && over) {
        r = ns_orphan(over, NULL);
        mutex_lock(&over->lock);
        expect = g_strdup(over->etag);
        mutex_unlock(&over->lock);
    }
    if (r == 0)
        r = move_file(fs, i, f, dir, bucket, key, to_bucket, to_key, expect);
    if (r < 0 && over)
        ns_abandon(over);
    if (r < 0)
        return r;
    if (over)
        ns_mark_unlinked(over);
    inode_move(i, to_dir, to_name);
    return catalog_rename(fs->catalog, bucket, key, to_bucket, to_key, false);
}

/* ---- a directory ---- */

struct moved {
    char *from, *to, *etag, *new_etag;
    uint64_t size;
};

static void moved_free(gpointer p)
{
    struct moved *m = p;

    g_free(m->from);
    g_free(m->to);
    g_free(m->etag);
    g_free(m->new_etag);
    g_free(m);
}

/* Everything in bucket below prefix, as moves to to_prefix. -EXDEV past the limit: mv(1) then copies file by file. */
static int list_moves(struct fs *fs, const char *bucket, const char *prefix, const char *to_prefix, GPtrArray *to)
{
    g_autofree char *token = NULL;

    do {
        _cleanup_request_ struct store_request q = {
            .verb = STORE_LIST, .prio = STORE_PRIO_META, .bucket = bucket, .prefix = prefix, .token = token};
        int r = store_run(fs->store, &q, NULL);

        if (r < 0)
            return r;
        for (guint n = 0; q.res.entries && n < q.res.entries->len; n++) {
            const struct store_entry *e = q.res.entries->pdata[n];
            struct moved *m = g_new0(struct moved, 1);

            m->from = g_strdup(e->key);
            m->to = g_strconcat(to_prefix, e->key + strlen(prefix), NULL);
            m->etag = g_strdup(e->etag);
            m->size = e->size;
            g_ptr_array_add(to, m);
            if (strlen(m->to) > STORE_KEY_MAX)
                return -ENAMETOOLONG;
        }
        if (to->len > fs->config->rename_max) {
            log_warning("rename: s3://%s/%s has more than rename_max = %llu objects: not renamed (mv copies instead)", bucket,
                        prefix, (unsigned long long)fs->config->rename_max);
            return -EXDEV;
        }
        g_free(token);
        token = g_steal_pointer(&q.res.token);
    } while (token);
    return 0;
}

/* Past what one COPY takes: the committer knows how to copy in parts. */
static int copy_big(struct fs *fs, const char *bucket, const char *to_bucket, struct moved *m)
{
    _cleanup_request_ struct store_request q = {.verb = STORE_HEAD, .prio = STORE_PRIO_META, .bucket = bucket, .key = m->from};
    struct cache_file *f;
    int r = store_run(fs->store, &q, NULL);

    if (r < 0)
        return r;
    f = cache_file_new(fs->cache, bucket, m->from, &q.res.object, NULL);
    r = cache_file_retarget(f, to_bucket, m->to, NULL, NULL);
    if (r == 0)
        r = cache_file_flush(f, NULL);
    cache_file_unref(f);
    return r;
}

/* A marker is written anew: a server that keeps directories as such (versitygw) refuses to copy one. */
static int copy_marker(struct fs *fs, const char *bucket, const char *to_bucket, struct moved *m)
{
    _cleanup_request_ struct store_request q = {.verb = STORE_HEAD, .prio = STORE_PRIO_META, .bucket = bucket, .key = m->from};
    _cleanup_object_ struct store_object now = {0};
    int r = store_run(fs->store, &q, NULL);

    if (r == 0)
        r = ns_put_small(fs, to_bucket, m->to, "", &q.res.object.headers, false, NULL, &now);
    if (r == 0)
        m->new_etag = g_strdup(now.etag);
    return r;
}

static int copy_all(struct fs *fs, const char *bucket, const char *to_bucket, GPtrArray *moves)
{
    g_autofree struct store_request *q = g_new0(struct store_request, moves->len ? moves->len : 1);
    g_autoptr(GPtrArray) small = g_ptr_array_new();
    int r = 0;

    for (guint n = 0; n < moves->len && r == 0; n++) {
        struct moved *m = moves->pdata[n];

        if (m->size == 0 && g_str_has_suffix(m->from, "/")) {
            r = copy_marker(fs, bucket, to_bucket, m);
            continue;
        }
        if (m->size > STORE_PART_MAX) {
            r = copy_big(fs, bucket, to_bucket, m);
            if (r == 0)
                m->new_etag = g_strdup(""); /* asked for when needed */
            continue;
        }
        q[small->len] = (struct store_request){.verb = STORE_COPY,
                                               .prio = STORE_PRIO_META,
                                               .bucket = to_bucket,
                                               .key = m->to,
                                               .from_bucket = bucket,
                                               .from_key = m->from,
                                               .from_if_match = m->etag};
        g_ptr_array_add(small, m);
    }
    if (r == 0)
        r = batch_run(fs->store, q, small->len, COPIES_AT_ONCE, true, NULL);
    for (guint n = 0; n < small->len; n++) {
        if (q[n].res.err == 0 && q[n].res.object.etag)
            ((struct moved *)small->pdata[n])->new_etag = g_strdup(q[n].res.object.etag);
        store_request_clear(&q[n]);
    }
    return r;
}

/* Deletes one side of the moves: the copies that were made (undo), or all that was copied. */
static int delete_side(struct fs *fs, const char *bucket, GPtrArray *moves, bool copies)
{
    g_autoptr(GPtrArray) keys = g_ptr_array_new();
    int r = 0;

    for (guint n = 0; n < moves->len; n++) {
        struct moved *m = moves->pdata[n];

        if (!copies || m->new_etag)
            g_ptr_array_add(keys, copies ? m->to : m->from);
    }
    for (guint at = 0; at < keys->len; at += STORE_LIST_MAX) {
        _cleanup_request_ struct store_request q = {
            .verb = STORE_DELETE_MANY,
            .prio = STORE_PRIO_META,
            .bucket = bucket,
            .keys = (const char *const *)(keys->pdata + at),
            .n_keys = MIN(keys->len - at, (guint)STORE_LIST_MAX),
        };
        int s = store_run(fs->store, &q, NULL); /* not cancelled: half a deletion helps nobody */

        r = r ? r : s;
    }
    return r;
}

static int flush_below(struct inode *dir)
{
    g_autoptr(GPtrArray) below = inode_children(dir, true);
    int r = 0;

    for (guint n = 0; n < below->len && r == 0; n++) {
        struct inode *i = below->pdata[n];
        struct cache_file *f = NULL;

        mutex_lock(&i->lock);
        if (i->file)
            f = cache_file_ref(i->file);
        mutex_unlock(&i->lock);
        if (f && cache_file_dirty(f)) {
            ns_push_attr(i, f);
            r = cache_file_flush(f, NULL);
        }
        if (f)
            cache_file_unref(f);
    }
    return r;
}

/* After the copies: an inode below the moved directory gets its new version, and its file its new key. */
static int adopt_moved(struct inode *i, GHashTable *by_key)
{
    g_autofree char *bucket = NULL, *key = NULL, *etag = NULL;
    struct cache_file *f = NULL;
    struct store_object now = {0};
    const struct moved *m;
    int r = inode_key(i, &bucket, &key);

    if (r < 0)
        return r;
    m = g_hash_table_lookup(by_key, key);
    mutex_lock(&i->lock);
    listing_unref(i->listing);
    i->listing = NULL;
    i->changes++;
    i->fresh_ns = 0;
    if (m && *m->new_etag) {
        g_free(i->etag);
        i->etag = g_strdup(m->new_etag);
    }
    etag = g_strdup(i->etag);
    now = (struct store_object){.etag = etag, .size = m ? m->size : 0, .mtime_ns = i->attr.mtime_ns, .headers = i->headers};
    if (i->file)
        f = cache_file_ref(i->file);
    mutex_unlock(&i->lock);
    if (!f)
        return 0;
    if (!m || cache_file_dirty(f)) /* written to meanwhile, or new: its next commit goes to the new key */
        r = cache_file_retarget(f, bucket, key, m ? etag : NULL, NULL);
    else
        cache_file_rebase(f, bucket, key, &now);
    cache_file_unref(f);
    return r;
}

static int adopt_all(struct inode *dir, GPtrArray *moves)
{
    g_autoptr(GHashTable) by_key = g_hash_table_new(g_str_hash, g_str_equal);
    g_autoptr(GPtrArray) below = inode_children(dir, true);
    int r;

    for (guint n = 0; n < moves->len; n++)
        g_hash_table_insert(by_key, ((struct moved *)moves->pdata[n])->to, moves->pdata[n]);
    r = adopt_moved(dir, by_key);
    for (guint n = 0; n < below->len; n++) {
        int s = adopt_moved(below->pdata[n], by_key);

        r = r ? r : s;
    }
    return r;
}

static int rename_dir(struct fs *fs, struct inode *i, struct inode *dir, struct inode *to_dir, const char *to_name,
                      struct inode *over)
{
    g_autofree char *bucket = NULL, *key = NULL, *to_bucket = NULL, *to_key = NULL;
    g_autoptr(GPtrArray) moves = g_ptr_array_new_with_free_func(moved_free);
    int r = inode_key(i, &bucket, &key);

    if (r == 0)
        r = inode_child_key(to_dir, to_name, true, &to_bucket, &to_key);
    if (r == 0 && over)
        r = ns_check_empty(fs, over, to_bucket, to_key, NULL);
    if (r == 0)
        r = flush_below(i);
    if (r == 0)
        r = list_moves(fs, bucket, key, to_key, moves);
    if (r < 0)
        return r;
    r = copy_all(fs, bucket, to_bucket, moves);
    if (r < 0) {
        (void)delete_side(fs, to_bucket, moves, true);
        return r;
    }
    if (over) {
        ns_mark_unlinked(over);
        (void)catalog_forget(fs->catalog, to_bucket, to_key);
    }
    inode_move(i, to_dir, to_name);
    r = adopt_all(i, moves);
    if (r == 0)
        r = catalog_rename(fs->catalog, bucket, key, to_bucket, to_key, true);
    if (r == 0)
        r = ns_keep_directory(fs, dir, key, NULL);
    if (r == 0)
        r = delete_side(fs, bucket, moves, false);
    if (r < 0)
        log_error_errno(r, "rename: s3://%s/%s is complete at its new name, but the old one is not all gone", bucket, key);
    return r;
}

/* ---- both ---- */

static int check_target(struct inode *i, struct inode *over, unsigned flags)
{
    if (!over)
        return 0;
    if (flags & RENAME_NOREPLACE)
        return -EEXIST;
    if (i->is_dir && !over->is_dir)
        return -ENOTDIR;
    if (!i->is_dir && over->is_dir)
        return -EISDIR;
    return 0;
}

struct rename {
    struct fs *fs;
    struct inode *dir, *to_dir, *inode, *over; /* pinned */
    char *name, *to_name;
};

static void rename_drop(void *arg)
{
    struct rename *n = arg;

    inode_put(n->dir);
    inode_put(n->to_dir);
    inode_put(n->inode);
    inode_put(n->over);
    g_free(n->name);
    g_free(n->to_name);
    g_free(n);
}

static void set_moving(struct inode *i, bool moving)
{
    mutex_lock(&i->lock);
    i->moving = moving;
    i->changes++;
    mutex_unlock(&i->lock);
}

/* To the end, whoever waits: a name that is half changed helps nobody. */
static int rename_run(void *arg)
{
    struct rename *n = arg;
    struct cache_file *f = NULL;
    int r = n->inode->is_dir ? 0 : ns_file_get(n->fs, n->inode, &f); /* kept till the name is changed: see ns_file_get */

    if (r < 0)
        return r;
    set_moving(n->inode, true);
    r = f ? rename_file(n->fs, n->inode, f, n->dir, n->to_dir, n->to_name, n->over)
          : rename_dir(n->fs, n->inode, n->dir, n->to_dir, n->to_name, n->over);
    set_moving(n->inode, false);
    if (f)
        ns_file_put(n->inode);
    if (r < 0)
        return r;
    ns_note(n->dir, n->name, NULL);
    ns_note(n->to_dir, n->to_name, n->inode);
    ns_touch_dir(n->dir);
    ns_touch_dir(n->to_dir);
    mutex_lock(&n->inode->lock);
    n->inode->attr.ctime_ns = clock_real_ns();
    mutex_unlock(&n->inode->lock);
    return 0;
}

int ns_rename(struct fs *fs, struct inode *dir, const char *name, struct inode *to_dir, const char *to_name, unsigned flags, struct cancel *cancel)
{
    _cleanup_inode_ struct inode *i = NULL, *over = NULL;
    struct rename *n;
    int r;

    if (flags & ~(unsigned)RENAME_NOREPLACE)
        return -EINVAL; /* exchange cannot be had of a store without it */
    if (inode_is_bucket_root(dir) || inode_is_bucket_root(to_dir))
        return -EPERM; /* buckets have no other names */
    r = ns_lookup(fs, dir, name, cancel, &i);
    if (r < 0)
        return r;
    r = ns_lookup(fs, to_dir, to_name, cancel, &over);
    if (r < 0 && r != -ENOENT)
        return r;
    r = check_target(i, over, flags);
    if (r < 0 || i == over)
        return r;
    n = g_new0(struct rename, 1);
    *n = (struct rename){.fs = fs,
                         .dir = inode_pin(dir),
                         .to_dir = inode_pin(to_dir),
                         .inode = g_steal_pointer(&i),
                         .over = g_steal_pointer(&over),
                         .name = g_strdup(name),
                         .to_name = g_strdup(to_name)};
    return behind_run(fs->behind, rename_run, rename_drop, n, cancel);
}
