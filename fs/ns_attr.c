/* SPDX-License-Identifier: Apache-2.0
 *
 * ns_attr: an inode's attributes: taken from what the bucket says, and set here.
 *
 * They are headers of the object, and an ETag is of the bytes: they change without it, and no condition
 * that S3 has can see that. So what is written starts from headers that are younger than attr_ttl, with
 * what was set here (inode.own) on top. What another client changes after that look is overwritten.
 */
#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "cache/cache.h"
#include "fs/ns_private.h"

void ns_attr(struct inode *i, struct attr *ret)
{
    mutex_lock(&i->lock);
    *ret = i->attr;
    if (i->file)
        ret->size = cache_file_size(i->file);
    mutex_unlock(&i->lock);
}

/* ---- taken ---- */

bool ns_same_version_locked(struct fs *fs, struct inode *i, const struct store_object *o)
{
    struct attr a;

    if (!i->etag || !o->etag || strcmp(i->etag, o->etag) != 0)
        return false;
    attr_from_object(&a, o, i->is_dir, &fs->defaults);
    return ((a.mode ^ i->attr.mode) & S_IFMT) == 0; /* the kernel lets no inode become of another type */
}

static void keep_own(struct attr *a, const struct attr *was, unsigned own)
{
    if (own & ATTR_MODE)
        a->mode = (a->mode & S_IFMT) | (was->mode & 07777);
    if (own & ATTR_UID)
        a->uid = was->uid;
    if (own & ATTR_GID)
        a->gid = was->gid;
    if (own & ATTR_MTIME)
        a->mtime_ns = was->mtime_ns;
    if (own & ATTR_ATIME)
        a->atime_ns = was->atime_ns;
    if (own)
        a->ctime_ns = was->ctime_ns;
}

/* A directory's entries changed since its marker was written: only we know. Unless its time was set by someone else since. */
static void keep_dir_times(struct attr *a, const struct attr *was, const struct store_headers *had, const struct store_headers *h)
{
    if (was->mtime_ns <= a->mtime_ns || g_strcmp0(store_headers_get_meta(had, "mtime"), store_headers_get_meta(h, "mtime")) != 0)
        return;
    a->mtime_ns = was->mtime_ns;
    a->ctime_ns = was->ctime_ns;
}

bool ns_take_object_locked(struct fs *fs, struct inode *i, const struct store_object *o, uint64_t time_ns)
{
    struct attr was = i->attr;

    attr_from_object(&i->attr, o, i->is_dir, &fs->defaults);
    if (!i->is_dir)
        keep_own(&i->attr, &was, i->own);
    else if (!g_strcmp0(i->etag, o->etag))
        keep_dir_times(&i->attr, &was, &i->headers, &o->headers);
    g_free(i->etag);
    i->etag = g_strdup(o->etag);
    g_free(i->storage_class);
    i->storage_class = g_strdup(o->storage_class);
    i->untagged_ns = o->untagged_ns;
    store_headers_clear(&i->headers);
    store_headers_copy(&i->headers, &o->headers);
    i->fresh_ns = time_ns;
    if (i->is_dir)
        i->has_marker = true;
    return i->file && cache_file_renew_headers(i->file, o);
}

/* ---- set ---- */

void ns_headers_of_locked(struct inode *i, struct store_headers *ret)
{
    attr_to_headers(&i->attr, &i->headers);
    store_headers_copy(ret, &i->headers);
}

static void apply(struct inode *i, const struct attr *a, unsigned mask)
{
    if (mask & ATTR_MODE)
        i->attr.mode = (i->attr.mode & S_IFMT) | (a->mode & 07777);
    if (mask & ATTR_UID)
        i->attr.uid = a->uid;
    if (mask & ATTR_GID)
        i->attr.gid = a->gid;
    if (mask & ATTR_ATIME)
        i->attr.atime_ns = a->atime_ns;
    if (mask & ATTR_MTIME) {
        i->attr.mtime_ns = a->mtime_ns;
        i->times_set = true;
    } else if (mask & ATTR_SIZE) {
        i->attr.mtime_ns = clock_real_ns();
    }
    if (!i->is_dir)
        i->own |= mask | (mask & ATTR_SIZE ? ATTR_MTIME : 0);
    i->attr.ctime_ns = clock_real_ns();
    i->changes++;
}

static int set_file_attr(struct fs *fs, struct inode *i, const struct attr *a, unsigned mask, bool through_handle, struct cancel *cancel)
{
    _cleanup_headers_ struct store_headers h = {0};
    struct attr old;
    unsigned old_own;
    struct cache_file *f;
    bool pending;
    int r = ns_file_get(fs, i, &f);

    if (r < 0)
        return r;
    pending = cache_file_data_dirty(f); /* a commit of data is to come: it carries the attributes too */
    if (mask & ATTR_SIZE)
        r = cache_file_truncate(f, a->size, cancel);
    if (r == 0) {
        mutex_lock(&i->lock);
        old = i->attr;
        old_own = i->own;
        apply(i, a, mask);
        ns_headers_of_locked(i, &h);
        mutex_unlock(&i->lock);
        cache_file_set_headers(f, &h);
        if (!(through_handle && (mask & ATTR_SIZE)) && !pending)
            r = cache_file_flush(f, cancel);
        if (r < 0 && r != -EINTR && !(mask & ATTR_SIZE)) { /* not done: do not show it, and do not carry it along */
            mutex_lock(&i->lock);
            apply(i, &old, mask);
            i->attr.ctime_ns = old.ctime_ns;
            i->own = old_own;
            store_headers_clear(&h);
            ns_headers_of_locked(i, &h);
            mutex_unlock(&i->lock);
            cache_file_set_headers(f, &h);
        }
        if (r == 0 && pending)
            ns_commit_abandoned(i, f); /* a commit under way does not have it, and perhaps nobody else comes */
    }
    ns_file_put(i);
    return r;
}

int ns_set_attr(struct fs *fs, struct inode *i, const struct attr *a, unsigned mask, bool through_handle, struct cancel *cancel)
{
    struct attr old;
    bool gone;
    int r;

    mutex_lock(&i->lock);
    gone = i->unlinked;
    mutex_unlock(&i->lock);
    if (!i->is_dir && !(gone && !(mask & ATTR_SIZE)))
        return set_file_attr(fs, i, a, mask, through_handle, cancel);
    mutex_lock(&i->lock);
    old = i->attr;
    apply(i, a, mask);
    mutex_unlock(&i->lock);
    if (gone || !i->is_dir)
        return 0;
    r = ns_put_marker(fs, i, false, cancel);
    if (r < 0) {
        mutex_lock(&i->lock);
        i->attr = old;
        mutex_unlock(&i->lock);
    }
    return r;
}
