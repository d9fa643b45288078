/* SPDX-License-Identifier: Apache-2.0
 *
 * ns_change: names made and removed. See namespace.h for what is serialized by the
 * kernel; locks are held for fields only.
 *
 * A directory is a prefix; a marker object "key/" keeps it when nothing else does, and carries its
 * attributes. mkdir makes one; a directory without one gets it just before its last entry goes.
 */
#include <errno.h>
#include <limits.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "cache/cache.h"
#include "catalog/catalog.h"
#include "fs/listing.h"
#include "fs/ns_private.h"
#include "fs/tags.h"

#define PUT_TRIES 3

/* Of something made in dir. A set-group-ID directory hands its group down, and to directories that bit too. */
static void new_attr(struct inode *dir, struct attr *a, mode_t mode, uid_t uid, gid_t gid)
{
    int64_t now = clock_real_ns();
    struct attr parent;

    ns_attr(dir, &parent);
    if (parent.mode & S_ISGID) {
        gid = parent.gid;
        if (S_ISDIR(mode))
            mode |= S_ISGID;
    }
    *a = (struct attr){.mode = mode, .uid = uid, .gid = gid, .mtime_ns = now, .atime_ns = now, .ctime_ns = now};
}

/* A name that may become a key of ours. */
static int check_new(struct inode *dir, const char *name, bool is_dir, char **ret_bucket, char **ret_key)
{
    if (strlen(name) > NAME_MAX)
        return -ENAMETOOLONG;
    return inode_child_key(dir, name, is_dir, ret_bucket, ret_key);
}

void ns_touch_dir(struct inode *dir)
{
    mutex_lock(&dir->lock);
    dir->attr.mtime_ns = dir->attr.ctime_ns = clock_real_ns();
    mutex_unlock(&dir->lock);
}

int ns_create(struct fs *fs, struct inode *dir, const char *name, mode_t mode, uid_t uid, gid_t gid, struct cancel *cancel, struct inode **ret)
{
    g_autofree char *bucket = NULL, *key = NULL;
    struct store_headers h;
    struct inode *i;
    struct attr a;
    int r = check_new(dir, name, false, &bucket, &key);

    if (r < 0)
        return r;
    if (!bucket)
        return -EPERM; /* beside the buckets there are no files */
    i = inode_add(dir, name, false);
    inode_pin(i); /* the file's */
    new_attr(dir, &a, S_IFREG | (mode & 07777), uid, gid);
    mutex_lock(&i->lock);
    i->attr = a;
    i->headers.content_type = g_strdup(attr_content_type(name));
    attr_to_headers(&i->attr, &i->headers);
    i->file = cache_file_new(fs->cache, bucket, key, NULL, i);
    i->users = 1;
    store_headers_copy(&h, &i->headers);
    mutex_unlock(&i->lock);
    cache_file_set_headers(i->file, &h);
    store_headers_clear(&h);
    ns_note(dir, name, i);
    ns_touch_dir(dir);
    *ret = i;
    return 0;
}

/* ---- small objects ---- */

static ssize_t read_body(void *ctx, uint64_t off, void *buf, size_t n)
{
    memcpy(buf, (const char *)ctx + off, n);
    return (ssize_t)n;
}

/* An exclusive PUT came back unsure, or the server knows no conditions: 0 what is there is ours; -EAGAIN there is nothing; -EEXIST. */
static int ask_small(struct fs *fs, const char *bucket, const char *key, const struct store_headers *h, struct cancel *cancel)
{
    _cleanup_request_ struct store_request q = {.verb = STORE_HEAD, .prio = STORE_PRIO_META, .bucket = bucket, .key = key};
    int r = store_run(fs->store, &q, cancel);

    if (r == -ENOENT)
        return -EAGAIN;
    if (r < 0)
        return r;
    /* Nobody else writes the same modes and the same nanosecond. */
    for (const char *const *n = (const char *const[]){"mode", "uid", "gid", "mtime", "ctime", NULL}; *n; n++)
        if (g_strcmp0(store_headers_get_meta(h, *n), store_headers_get_meta(&q.res.object.headers, *n)) != 0)
            return -EEXIST;
    return 0;
}

int ns_put_small(struct fs *fs, const char *bucket, const char *key, const char *body, const struct store_headers *h,
                 const char *storage_class, GHashTable *tags, bool exclusive, struct cancel *cancel, struct store_object *ret)
{
    g_autofree char *copy = g_strdup(body);
    _cleanup_request_ struct store_request q = {
        .verb = STORE_PUT,
        .prio = STORE_PRIO_META,
        .bucket = bucket,
        .key = key,
        .source = {read_body, copy, strlen(body)},
        .headers = h,
        .storage_class = store_class_kept(storage_class),
        .tags = tags,
        .if_none_match = exclusive,
    };
    int r;

    for (int i = 0;; i++) {
        r = store_run(fs->store, &q, cancel);
        bool unsure = r < 0 && q.res.cls == STORE_CLASS_AMBIGUOUS, no_conditions = r == -EOPNOTSUPP && q.if_none_match;
        if (r == 0 || (!unsure && !no_conditions) || i == PUT_TRIES)
            break;
        r = ask_small(fs, bucket, key, h, cancel);
        if (r != -EAGAIN)
            break;
        store_result_clear(&q.res);
        q.if_none_match = exclusive && !no_conditions;
    }
    if (r < 0)
        return r;
    *ret = (struct store_object){.etag = g_strdup(q.res.object.etag), .size = strlen(body), .mtime_ns = clock_real_ns()};
    store_headers_copy(&ret->headers, h);
    if (ret->etag)
        (void)catalog_attrs_put(fs->catalog, bucket, key, ret);
    return 0;
}

static void took(struct inode *i, const struct store_object *o)
{
    mutex_lock(&i->lock);
    g_free(i->etag);
    i->etag = g_strdup(o->etag ? o->etag : ""); /* "": there, in a version that the next look will tell */
    i->fresh_ns = o->etag ? clock_mono_ns() : 0;
    i->changes++;
    if (i->is_dir)
        i->has_marker = true;
    mutex_unlock(&i->lock);
}

int ns_put_marker(struct fs *fs, struct inode *dir, bool exclusive, struct cancel *cancel)
{
    g_autofree char *bucket = NULL, *key = NULL, *class = NULL;
    _cleanup_headers_ struct store_headers h = {0};
    _cleanup_object_ struct store_object o = {0};
    g_autoptr(GHashTable) tags = NULL;
    uint64_t untagged_ns;
    bool there;
    int r = inode_key(dir, &bucket, &key);

    if (r < 0)
        return r;
    if (!bucket || !*key)
        return 0; /* a bucket needs no marker, and has none */
    mutex_lock(&dir->lock);
    ns_headers_of_locked(dir, &h);
    there = dir->has_marker && !exclusive;
    class = g_strdup(dir->storage_class);
    untagged_ns = dir->untagged_ns;
    mutex_unlock(&dir->lock);
    if (!h.content_type) /* a marker that another client made keeps its own */
        h.content_type = g_strdup(ATTR_DIR_TYPE);
    r = there ? tags_kept(fs, bucket, key, untagged_ns, cancel, &tags) : 0;
    if (r == 0)
        r = ns_put_small(fs, bucket, key, "", &h, class, tags, exclusive, cancel, &o);
    if (r == 0)
        took(dir, &o);
    return r;
}

int ns_keep_directory(struct fs *fs, struct inode *dir, const char *losing_key, struct cancel *cancel)
{
    g_autofree char *bucket = NULL, *key = NULL;
    bool last = true, marker;
    int r = inode_key(dir, &bucket, &key);

    mutex_lock(&dir->lock);
    marker = dir->has_marker;
    mutex_unlock(&dir->lock);
    if (r < 0 || marker || !bucket || !*key)
        return r;
    /* Two keys tell: the one that goes (or, of a directory that goes, what begins with it) and perhaps one that stays. */
    _cleanup_request_ struct store_request q = {
        .verb = STORE_LIST, .prio = STORE_PRIO_META, .bucket = bucket, .prefix = key, .delimiter = "/", .max_keys = 2};

    r = store_run(fs->store, &q, cancel);
    if (r < 0)
        return r;
    for (guint n = 0; q.res.entries && n < q.res.entries->len; n++)
        if (strcmp(((struct store_entry *)q.res.entries->pdata[n])->key, losing_key) != 0)
            last = false;
    return last ? ns_put_marker(fs, dir, false, cancel) : 0;
}

int ns_make_special(struct fs *fs, struct inode *dir, const char *name, mode_t mode, const char *target, uid_t uid, gid_t gid,
                    struct cancel *cancel, struct inode **ret)
{
    g_autofree char *bucket = NULL, *key = NULL;
    _cleanup_headers_ struct store_headers h = {0};
    _cleanup_object_ struct store_object o = {0};
    struct attr a;
    struct inode *i;
    int r = check_new(dir, name, false, &bucket, &key);

    if (r < 0)
        return r;
    if (!bucket || (!S_ISLNK(mode) && !S_ISFIFO(mode) && !S_ISSOCK(mode)))
        return -EPERM;
    if (target && strlen(target) > NS_TARGET_MAX)
        return -ENAMETOOLONG;
    new_attr(dir, &a, mode, uid, gid);
    a.size = target ? strlen(target) : 0;
    h.content_type = g_strdup("application/octet-stream");
    attr_to_headers(&a, &h);
    r = ns_put_small(fs, bucket, key, target ? target : "", &h, NULL, NULL, true, cancel, &o);
    if (r < 0)
        return r;
    i = inode_add(dir, name, false);
    mutex_lock(&i->lock);
    i->attr = a;
    store_headers_copy(&i->headers, &h);
    i->target = g_strdup(target);
    mutex_unlock(&i->lock);
    took(i, &o);
    ns_note(dir, name, i);
    ns_touch_dir(dir);
    *ret = i;
    return 0;
}

int ns_mkdir(struct fs *fs, struct inode *dir, const char *name, mode_t mode, uid_t uid, gid_t gid, struct cancel *cancel, struct inode **ret)
{
    g_autofree char *bucket = NULL, *key = NULL;
    struct inode *i;
    struct attr a;
    int r = check_new(dir, name, true, &bucket, &key);

    if (r < 0)
        return r;
    if (!bucket) {
        if (!fs->config->allow_bucket_ops)
            return -EPERM;
        _cleanup_request_ struct store_request q = {.verb = STORE_BUCKET_CREATE, .prio = STORE_PRIO_META, .bucket = name};

        r = store_run(fs->store, &q, cancel);
        if (r < 0)
            return r;
    }
    i = inode_add(dir, name, true);
    new_attr(dir, &a, S_IFDIR | (mode & 07777), uid, gid);
    mutex_lock(&i->lock);
    i->attr = a;
    i->fresh_ns = clock_mono_ns();
    mutex_unlock(&i->lock);
    r = ns_put_marker(fs, i, true, cancel);
    if (r < 0) {
        inode_detach(i);
        inode_put(i);
        return r;
    }
    mutex_lock(&i->lock);
    listing_unref(i->listing);
    i->listing = listing_new_empty();
    mutex_unlock(&i->lock);
    ns_note(dir, name, i);
    ns_touch_dir(dir);
    *ret = i;
    return 0;
}

int ns_readlink(struct fs *fs, struct inode *i, struct cancel *cancel, char **ret)
{
    struct cache_file *f;
    struct cache_handle *h;
    char buf[NS_TARGET_MAX + 1];
    ssize_t n;
    int r;

    mutex_lock(&i->lock);
    *ret = g_strdup(i->target);
    mutex_unlock(&i->lock);
    if (*ret)
        return 0;
    r = ns_file_get(fs, i, &f);
    if (r < 0)
        return r;
    h = cache_handle_new(f);
    n = cache_pread(h, buf, NS_TARGET_MAX, 0, cancel);
    cache_handle_free(h);
    ns_file_put(i);
    if (n < 0)
        return (int)n;
    buf[n] = '\0';
    *ret = g_strdup(buf);
    mutex_lock(&i->lock);
    if (!i->target)
        i->target = g_strdup(buf);
    mutex_unlock(&i->lock);
    return 0;
}

/* ---- removing ---- */

int ns_delete_object(struct fs *fs, const char *bucket, const char *key, struct cancel *cancel)
{
    _cleanup_request_ struct store_request q = {.verb = STORE_DELETE, .prio = STORE_PRIO_META, .bucket = bucket, .key = key};
    int r = store_run(fs->store, &q, cancel);

    return r == -ENOENT ? 0 : r;
}

int ns_delete_known(struct fs *fs, const char *bucket, const char *key, const char *etag, struct cancel *cancel)
{
    _cleanup_request_ struct store_request q = {.verb = STORE_HEAD, .prio = STORE_PRIO_META, .bucket = bucket, .key = key};
    int r = store_run(fs->store, &q, cancel);

    if (r == -ENOENT)
        return 0;
    if (r < 0)
        return r;
    if (g_strcmp0(q.res.object.etag, etag) == 0)
        return ns_delete_object(fs, bucket, key, cancel);
    log_warning("s3://%s/%s was changed by someone else and stays; only what was written here is gone", bucket, key);
    return 0;
}

int ns_orphan(struct inode *i, struct cancel *cancel)
{
    struct cache_file *f = NULL;
    bool used;
    int r;

    mutex_lock(&i->lock);
    if (i->file)
        f = cache_file_ref(i->file);
    used = i->handles > 0;
    mutex_unlock(&i->lock);
    if (!f)
        return 0;
    r = cache_file_orphan(f, used, cancel);
    if (r == -ENOSPC)
        r = cache_file_orphan(f, false, cancel);
    cache_file_unref(f);
    return r;
}

void ns_abandon(struct inode *i)
{
    struct cache_file *f = NULL;

    mutex_lock(&i->lock);
    if (i->file)
        f = cache_file_ref(i->file);
    mutex_unlock(&i->lock);
    if (!f)
        return;
    cache_file_unorphan(f);
    (void)cache_file_seal(f, NULL); /* as it was before */
    ns_commit_abandoned(i, f);
    cache_file_unref(f);
}

void ns_mark_unlinked(struct inode *i)
{
    bool file;

    mutex_lock(&i->lock);
    i->unlinked = true;
    i->attr.ctime_ns = clock_real_ns();
    i->changes++;
    file = i->file != NULL;
    if (file)
        i->users++;
    mutex_unlock(&i->lock);
    inode_detach(i);
    if (file)
        ns_file_put(i);
}

void ns_discard(struct inode *i)
{
    (void)cache_file_orphan(i->file, false, NULL);
    (void)cache_file_bury(i->file);
    ns_mark_unlinked(i);
}

int ns_bury(struct inode *i)
{
    struct cache_file *f = NULL;
    int r;

    mutex_lock(&i->lock);
    if (i->file)
        f = cache_file_ref(i->file);
    mutex_unlock(&i->lock);
    if (!f)
        return 0;
    r = cache_file_bury(f);
    cache_file_unref(f);
    return r;
}

int ns_unlink(struct fs *fs, struct inode *dir, const char *name, struct cancel *cancel)
{
    g_autofree char *bucket = NULL, *key = NULL;
    _cleanup_inode_ struct inode *i = NULL;
    g_autofree char *etag = NULL;
    bool in_bucket, failed;
    int r = ns_lookup(fs, dir, name, cancel, &i);

    if (r < 0)
        return r;
    if (i->is_dir)
        return -EISDIR;
    r = inode_key(i, &bucket, &key);
    if (r < 0)
        return r;
    mutex_lock(&i->lock);
    in_bucket = i->etag || i->file; /* of a file of ours a commit may be under way */
    failed = i->file && cache_file_failed(i->file);
    etag = g_strdup(i->etag);
    mutex_unlock(&i->lock);
    r = ns_orphan(i, cancel);
    if (r < 0) {
        ns_abandon(i); /* who closed meanwhile relies on it */
        return r;
    }
    r = ns_is_named(i, name) ? ns_keep_directory(fs, dir, key, cancel) : -ESTALE; /* the kernel looks the name up again */
    if (r == 0 && in_bucket)
        r = failed ? ns_delete_known(fs, bucket, key, etag, cancel) : ns_delete_object(fs, bucket, key, cancel);
    if (r == 0) /* not before: until then what was closed must not be lost */
        r = ns_bury(i);
    if (r < 0) {
        ns_abandon(i);
        return r;
    }
    ns_mark_unlinked(i);
    ns_note(dir, name, NULL);
    ns_touch_dir(dir);
    if (failed)
        ns_forget_listing(dir); /* the name may be there still, as someone else's */
    (void)catalog_forget(fs->catalog, bucket, key);
    return 0;
}

static bool has_dirty_children(struct inode *dir)
{
    g_autoptr(GPtrArray) children = inode_children(dir, false);
    bool any = false;

    for (guint n = 0; n < children->len && !any; n++) {
        struct inode *c = children->pdata[n];

        mutex_lock(&c->lock);
        any = c->file && !c->unlinked && cache_file_dirty(c->file);
        mutex_unlock(&c->lock);
    }
    return any;
}

int ns_check_empty(struct fs *fs, struct inode *dir, const char *bucket, const char *key, struct cancel *cancel)
{
    int r;

    if (dir && has_dirty_children(dir))
        return -ENOTEMPTY;
    _cleanup_request_ struct store_request q = {
        .verb = STORE_LIST, .prio = STORE_PRIO_META, .bucket = bucket, .prefix = key, .max_keys = 2};

    r = store_run(fs->store, &q, cancel);
    if (r < 0)
        return r;
    for (guint n = 0; q.res.entries && n < q.res.entries->len; n++)
        if (!*key || strcmp(((struct store_entry *)q.res.entries->pdata[n])->key, key) != 0)
            return -ENOTEMPTY;
    return 0;
}

int ns_rmdir(struct fs *fs, struct inode *dir, const char *name, struct cancel *cancel)
{
    g_autofree char *bucket = NULL, *key = NULL;
    _cleanup_inode_ struct inode *i = NULL;
    int r = ns_lookup(fs, dir, name, cancel, &i);

    if (r < 0)
        return r;
    if (!i->is_dir)
        return -ENOTDIR;
    r = inode_key(i, &bucket, &key);
    if (r == 0)
        r = ns_check_empty(fs, i, bucket, key, cancel);
    if (r < 0)
        return r;
    if (*key) {
        r = ns_keep_directory(fs, dir, key, cancel);
        if (r == 0)
            r = ns_delete_object(fs, bucket, key, cancel);
    } else if (fs->config->allow_bucket_ops && inode_is_bucket_root(dir)) {
        _cleanup_request_ struct store_request q = {.verb = STORE_BUCKET_DELETE, .prio = STORE_PRIO_META, .bucket = bucket};

        r = store_run(fs->store, &q, cancel);
    } else {
        r = -EPERM;
    }
    if (r < 0)
        return r;
    ns_mark_unlinked(i);
    ns_note(dir, name, NULL);
    ns_touch_dir(dir);
    (void)catalog_forget(fs->catalog, bucket, key);
    return 0;
}
