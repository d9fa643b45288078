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
#include "fs/tags.h"

#define COPIES_AT_ONCE 16
#define COPY_PASSES 20

/* What the catalog knows goes along. The names in the bucket are what counts: a catalog that cannot is only told of. */
static void rename_rows(struct fs *fs, const char *bucket, const char *key, const char *to_bucket, const char *to_key, bool tree)
{
    int r = catalog_rename(fs->catalog, bucket, key, to_bucket, to_key, tree);

    if (r < 0)
        log_error_errno(r, "rename: the catalog keeps what it knows of s3://%s/%s under the old name", bucket, key);
}

/* ---- one file ---- */

/* Deletes the old name of what now has a new one; what somebody else has stored under it meanwhile stays. */
static int drop_old(struct fs *fs, struct inode *dir, const char *bucket, const char *key, const char *etag)
{
    int r = ns_keep_directory(fs, dir, key, NULL);

    if (r == 0)
        r = ns_delete_known(fs, bucket, key, etag, NULL);
    if (r < 0)
        log_error_errno(r, "rename: s3://%s/%s has its new name, but the old one could not be deleted", bucket, key);
    return r;
}

static int move_file(struct fs *fs, struct inode *i, struct cache_file *f, struct inode *dir, const char *bucket,
                     const char *key, const char *to_bucket, const char *to_key, const char *expect, struct inode *over)
{
    g_autofree char *old_etag = NULL;
    int r;

    if (!cache_file_is_at(f, bucket, key)) /* never delete a name on the word of a file that is of another */
        return log_error_errno(-ESTALE, "rename: s3://%s/%s is not where it was", bucket, key);
    ns_push_attr(fs, i, f, NULL);
    r = cache_file_retarget(f, to_bucket, to_key, expect, NULL);
    if (r == 0) {
        mutex_lock(&i->lock); /* a commit that retarget has waited for may have made the old name */
        g_free(old_etag);
        old_etag = g_strdup(i->etag);
        mutex_unlock(&i->lock);
        /* From here on a crash brings this under the new name; what had it was closed, too, and is not let go of before. */
        if (over && (r = cache_file_seal(f, NULL)) == 0)
            r = ns_bury(over);
        if (r == 0)
            r = cache_file_flush(f, NULL);
        if (r < 0) {
            (void)cache_file_retarget(f, bucket, key, old_etag, NULL);
            (void)cache_file_seal(f, NULL); /* the journal has the new name of it */
        }
    }
    if (r == 0 && old_etag)
        r = drop_old(fs, dir, bucket, key, old_etag);
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
        r = move_file(fs, i, f, dir, bucket, key, to_bucket, to_key, expect, over);
    if (r < 0 && over)
        ns_abandon(over);
    if (r < 0)
        return r;
    if (over)
        ns_mark_unlinked(over);
    inode_move(i, to_dir, to_name);
    rename_rows(fs, bucket, key, to_bucket, to_key, false);
    return 0;
}

/* ---- a directory ---- */

struct moved {
    char *from, *to, *etag, *new_etag, *storage_class;
    uint64_t size;
    int64_t mtime_ns; /* by LIST: with the ETag, the state that was copied */
};

static void moved_free(gpointer p)
{
    struct moved *m = p;

    g_free(m->from);
    g_free(m->to);
    g_free(m->etag);
    g_free(m->new_etag);
    g_free(m->storage_class);
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
            m->storage_class = g_strdup(e->storage_class);
            m->mtime_ns = e->mtime_ns;
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
    if (r < 0)
        return r;
    _cleanup_request_ struct store_request made = {.verb = STORE_HEAD, .prio = STORE_PRIO_META, .bucket = to_bucket, .key = m->to};

    r = store_run(fs->store, &made, NULL);
    m->new_etag = g_strdup(r == 0 ? made.res.object.etag : ""); /* "": made, but as which version is not known */
    return r;
}

/* A marker is written anew: a server that keeps directories as such (versitygw) refuses to copy one. */
static int copy_marker(struct fs *fs, const char *bucket, const char *to_bucket, struct moved *m)
{
    _cleanup_request_ struct store_request q = {.verb = STORE_HEAD, .prio = STORE_PRIO_META, .bucket = bucket, .key = m->from};
    _cleanup_object_ struct store_object now = {0};
    g_autoptr(GHashTable) tags = NULL;
    int r = store_run(fs->store, &q, NULL);

    if (r == 0)
        r = tags_kept(fs, bucket, m->from, q.res.object.untagged_ns, NULL, &tags);
    if (r == 0)
        r = ns_put_small(fs, to_bucket, m->to, "", &q.res.object.headers, q.res.object.storage_class, tags, false, NULL, &now);
    if (r == 0)
        m->new_etag = g_strdup(now.etag ? now.etag : "");
    return r == -ENOENT ? 0 : r; /* removed meanwhile: the next pass sees it */
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
            continue;
        }
        q[small->len] = (struct store_request){.verb = STORE_COPY,
                                               .prio = STORE_PRIO_META,
                                               .bucket = to_bucket,
                                               .key = m->to,
                                               .from_bucket = bucket,
                                               .from_key = m->from,
                                               .from_if_match = m->etag,
                                               .storage_class = store_class_kept(m->storage_class)};
        g_ptr_array_add(small, m);
    }
    if (r == 0) /* whose error counts is decided below */
        (void)batch_run(fs->store, q, small->len, COPIES_AT_ONCE, true, NULL);
    for (guint n = 0; n < small->len; n++) {
        int err = q[n].res.err;

        if (err == 0)
            ((struct moved *)small->pdata[n])->new_etag = g_strdup(q[n].res.object.etag ? q[n].res.object.etag : "");
        else if (err == -ENOENT || err == -ESTALE || err == -ECANCELED)
            err = 0; /* changed or removed meanwhile, or not begun after another failed: the next pass sees it */
        r = r ? r : err;
        store_request_clear(&q[n]);
    }
    return r;
}

static int delete_keys(struct fs *fs, const char *bucket, GPtrArray *keys)
{
    int r = 0;

    for (guint at = 0; at < keys->len; at += STORE_LIST_MAX) {
        _cleanup_request_ struct store_request q = {
            .verb = STORE_DELETE_MANY,
            .prio = STORE_PRIO_META,
            .bucket = bucket,
            .keys = (const char *const *)(keys->pdata + at),
            .n_keys = MIN(keys->len - at, (guint)STORE_LIST_MAX),
        };
        int s = store_run(fs->store, &q, NULL);

        r = r ? r : s;
    }
    return r;
}

/* Deletes the copies of all that `copied` has and `listed` has not (listed NULL: all of them), and forgets these. keep: a new key that
 * was there before us; NULL = none. */
static int drop_copies(struct fs *fs, const char *to_bucket, GHashTable *copied, GHashTable *listed, const char *keep)
{
    g_autoptr(GPtrArray) keys = g_ptr_array_new_with_free_func(g_free);
    GHashTableIter it;
    gpointer k, p;

    g_hash_table_iter_init(&it, copied);
    while (g_hash_table_iter_next(&it, &k, &p))
        if (!listed || !g_hash_table_contains(listed, k)) {
            if (g_strcmp0(((struct moved *)p)->to, keep) != 0)
                g_ptr_array_add(keys, g_strdup(((struct moved *)p)->to));
            g_hash_table_iter_remove(&it);
        }
    return delete_keys(fs, to_bucket, keys);
}

/* Whether an object is what was copied, headers included. */
static bool same_state(const struct moved *a, const struct moved *b)
{
    return !g_strcmp0(a->etag, b->etag) && a->mtime_ns == b->mtime_ns;
}

/* Deletes the old names of what was copied, as far as they still are what was copied. A marker's date may be that of its entries (versitygw). */
static int delete_copied(struct fs *fs, const char *bucket, const char *prefix, const char *to_prefix, GHashTable *copied)
{
    g_autoptr(GPtrArray) there = g_ptr_array_new_with_free_func(moved_free), keys = g_ptr_array_new();
    bool left = false;
    int r = list_moves(fs, bucket, prefix, to_prefix, there);

    if (r < 0)
        return r;
    for (guint n = 0; n < there->len; n++) {
        struct moved *m = there->pdata[n], *c = g_hash_table_lookup(copied, m->from);

        if (c && (same_state(c, m) || (g_str_has_suffix(m->from, "/") && !g_strcmp0(c->etag, m->etag))))
            g_ptr_array_add(keys, m->from);
        else
            left = true;
    }
    if (left)
        log_warning("rename: something below s3://%s/%s changed meanwhile and stays at its old name", bucket, prefix);
    return delete_keys(fs, bucket, keys);
}

static int flush_below(struct fs *fs, struct inode *dir)
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
            ns_push_attr(fs, i, f, NULL);
            r = cache_file_flush(f, NULL);
        }
        if (f)
            cache_file_unref(f);
    }
    return r;
}

/* After the copies: an inode below the moved directory gets its new version, and its file its new key. A file that was
 * written to since it was copied brings its content along itself, before the old key is deleted. */
static int adopt_moved(struct inode *i, GHashTable *by_key)
{
    g_autofree char *bucket = NULL, *key = NULL, *class = NULL;
    struct cache_file *f = NULL;
    struct store_object now = {0};
    const struct moved *m;
    bool same;
    int r = inode_key(i, &bucket, &key);

    if (r < 0)
        return r;
    m = g_hash_table_lookup(by_key, key);
    mutex_lock(&i->lock);
    ns_forget_listing_locked(i);
    i->changes++;
    i->moves++;
    i->fresh_ns = 0;
    same = m && *m->new_etag && !g_strcmp0(i->etag, m->etag);
    now = (struct store_object){.etag = m ? m->new_etag : NULL, .size = m ? m->size : 0, .mtime_ns = i->attr.mtime_ns};
    now.storage_class = class = g_strdup(i->storage_class);
    store_headers_copy(&now.headers, &i->headers);
    if (i->file)
        f = cache_file_ref(i->file);
    mutex_unlock(&i->lock);
    if (f && (!same || cache_file_rebase(f, m->etag, bucket, key, &now) < 0)) {
        same = false;
        r = cache_file_retarget(f, bucket, key, m && *m->new_etag ? m->new_etag : m ? "*" : NULL, NULL);
        if (r == 0)
            r = cache_file_flush(f, NULL);
    }
    if (same) {
        mutex_lock(&i->lock);
        g_free(i->etag);
        i->etag = g_strdup(m->new_etag);
        mutex_unlock(&i->lock);
    }
    store_headers_clear(&now.headers);
    if (f)
        cache_file_unref(f);
    return r;
}

static int adopt_all(struct inode *dir, GHashTable *copied)
{
    g_autoptr(GHashTable) by_key = g_hash_table_new(g_str_hash, g_str_equal);
    g_autoptr(GPtrArray) below = inode_children(dir, true);
    GHashTableIter it;
    gpointer p;
    int r;

    g_hash_table_iter_init(&it, copied);
    while (g_hash_table_iter_next(&it, NULL, &p))
        g_hash_table_insert(by_key, ((struct moved *)p)->to, p);
    r = adopt_moved(dir, by_key);
    for (guint n = 0; n < below->len; n++) {
        int s = adopt_moved(below->pdata[n], by_key);

        r = r ? r : s;
    }
    return r;
}

/* Copies until a listing shows nothing that was not copied: what is written meanwhile is copied again. `copied`: old key → struct moved. */
static int copy_passes(struct fs *fs, const char *bucket, const char *key, const char *to_bucket, const char *to_key, GHashTable *copied)
{
    for (int pass = 0; pass < COPY_PASSES; pass++) {
        g_autoptr(GPtrArray) there = g_ptr_array_new_with_free_func(moved_free), todo = g_ptr_array_new();
        g_autoptr(GHashTable) listed = g_hash_table_new(g_str_hash, g_str_equal);
        int r = list_moves(fs, bucket, key, to_key, there);

        if (r < 0)
            return r;
        for (guint n = 0; n < there->len; n++) {
            struct moved *m = there->pdata[n], *c = g_hash_table_lookup(copied, m->from);

            g_hash_table_add(listed, m->from);
            if (!c || !same_state(c, m))
                g_ptr_array_add(todo, m);
        }
        r = drop_copies(fs, to_bucket, copied, listed, NULL);
        if (r == 0 && todo->len == 0)
            return 0;
        if (r == 0)
            r = copy_all(fs, bucket, to_bucket, todo);
        g_ptr_array_set_free_func(there, NULL);
        for (guint n = 0; n < there->len; n++) {
            struct moved *m = there->pdata[n];

            if (m->new_etag)
                g_hash_table_replace(copied, m->from, m);
            else
                moved_free(m);
        }
        if (r < 0)
            return r;
    }
    log_warning("rename: s3://%s/%s does not stand still: not renamed", bucket, key);
    return -EBUSY;
}

static int rename_dir(struct fs *fs, struct inode *i, struct inode *dir, struct inode *to_dir, const char *to_name,
                      struct inode *over)
{
    g_autofree char *bucket = NULL, *key = NULL, *to_bucket = NULL, *to_key = NULL;
    g_autoptr(GHashTable) copied = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, moved_free);
    int r = inode_key(i, &bucket, &key);

    if (r == 0)
        r = inode_child_key(to_dir, to_name, true, &to_bucket, &to_key);
    if (r == 0)
        r = ns_check_empty(fs, over, to_bucket, to_key, NULL);
    if (r == 0)
        r = flush_below(fs, i);
    if (r < 0)
        return r;
    r = copy_passes(fs, bucket, key, to_bucket, to_key, copied);
    if (r < 0) {
        (void)drop_copies(fs, to_bucket, copied, NULL, over ? to_key : NULL);
        return r;
    }
    if (over) {
        ns_mark_unlinked(over);
        (void)catalog_forget(fs->catalog, to_bucket, to_key);
    }
    inode_move(i, to_dir, to_name);
    r = adopt_all(i, copied);
    rename_rows(fs, bucket, key, to_bucket, to_key, true);
    if (r == 0)
        r = ns_keep_directory(fs, dir, key, NULL);
    if (r == 0)
        r = delete_copied(fs, bucket, key, to_key, copied);
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

/* -EBUSY while a rename of it, whose caller was interrupted, is still under way. */
static int begin_moving(struct inode *i)
{
    int r;

    mutex_lock(&i->lock);
    r = i->moving ? -EBUSY : 0;
    i->moving = true;
    i->changes++;
    i->moves++;
    mutex_unlock(&i->lock);
    return r;
}

static void end_moving(struct inode *i)
{
    mutex_lock(&i->lock);
    i->moving = false;
    i->changes++;
    i->moves++;
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
    r = begin_moving(n->inode);
    if (r < 0) {
        if (f)
            ns_file_put(n->inode);
        return r;
    }
    if (f)
        cache_file_stay(f, true); /* a commit must not part it from its name meanwhile */
    r = f && !ns_is_named(n->inode, n->name) ? -ESTALE
        : f ? rename_file(n->fs, n->inode, f, n->dir, n->to_dir, n->to_name, n->over)
            : rename_dir(n->fs, n->inode, n->dir, n->to_dir, n->to_name, n->over);
    if (f)
        cache_file_stay(f, false);
    end_moving(n->inode);
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
