/* SPDX-License-Identifier: Apache-2.0
 *
 * ns_file: the cache_file of an inode: made when the content is used, dropped when nobody does and
 * nothing in it is uncommitted; what the inode's attributes and a commit tell each other.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "cache/cache.h"
#include "catalog/catalog.h"
#include "fs/commits.h"
#include "fs/listing.h"
#include "fs/ns_private.h"
#include "fs/video.h"

/* The file at the inode's key, made if need be. False: the inode changed its name since `changes`. */
static bool file_at_locked(struct fs *fs, struct inode *i, const char *bucket, const char *key, uint64_t changes)
{
    struct store_object base = {
        .etag = i->etag, .size = i->attr.size, .mtime_ns = i->attr.mtime_ns, .headers = i->headers,
        .storage_class = i->storage_class, .untagged_ns = i->untagged_ns};

    if (i->file)
        return true;
    if (i->changes != changes)
        return false;
    i->file = cache_file_new(fs->cache, bucket, key, &base, i);
    return true;
}

/* A file must be made for the key that the inode has, while others rename: a rename keeps the inode's file in use
 * from before it sets `moving` until after it has counted its change, so a file that is there is right, and one
 * may be made when nothing was counted since the key was asked for. A renamed directory's children are counted,
 * and their files moved, after the directory has its new place. */
int ns_file_get(struct fs *fs, struct inode *i, struct cache_file **ret)
{
    for (;;) {
        g_autofree char *bucket = NULL, *key = NULL;
        bool attached = inode_attached(i), there, done, had;
        uint64_t changes;
        int r;

        mutex_lock(&i->lock);
        changes = i->changes;
        mutex_unlock(&i->lock);
        r = inode_key(i, &bucket, &key);
        if (r < 0)
            return r;
        inode_pin(i); /* for the file, if it comes to be: pins are taken before the inode's lock */
        mutex_lock(&i->lock);
        had = i->file != NULL;
        there = !i->discarded && (had || (attached && i->etag));
        done = there && file_at_locked(fs, i, bucket, key, changes);
        if (done)
            i->users++;
        *ret = i->file;
        mutex_unlock(&i->lock);
        if (had || !done)
            inode_put(i);
        if (done || !there)
            return done ? 0 : -ESTALE;
    }
}

void ns_file_put(struct inode *i)
{
    struct cache_file *f = NULL;

    mutex_lock(&i->lock);
    assert(i->users);
    if (--i->users == 0 && (!cache_file_dirty(i->file) || i->unlinked)) {
        i->attr.size = cache_file_size(i->file);
        f = g_steal_pointer(&i->file);
    }
    mutex_unlock(&i->lock);
    if (f) {
        cache_file_unref(f);
        inode_put(i);
    }
}

void ns_commit_recovered(struct fs *fs, struct inode *i)
{
    struct cache_file *f;

    mutex_lock(&i->lock);
    f = i->file;
    i->users++;
    mutex_unlock(&i->lock);
    commits_add(fs->commits, i, f);
}

void ns_commit_abandoned(struct inode *i, struct cache_file *f)
{
    bool wanted;

    mutex_lock(&i->lock);
    wanted = i->file == f && i->writers == 0 && cache_file_dirty(f) && !cache_file_failed(f);
    if (wanted)
        i->users++;
    mutex_unlock(&i->lock);
    if (wanted)
        commits_add(inode_fs(i)->commits, i, f);
}

void ns_commit_later(struct fs *fs, struct inode *i, struct cache_file *f)
{
    bool wanted;

    mutex_lock(&i->lock);
    wanted = !i->unlinked && i->writers == 0 && cache_file_dirty(f) && !cache_file_failed(f);
    if (wanted)
        i->users++;
    mutex_unlock(&i->lock);
    if (wanted)
        commits_add(fs->commits, i, f);
}

void ns_written(struct inode *i)
{
    mutex_lock(&i->lock);
    i->attr.mtime_ns = i->attr.ctime_ns = clock_real_ns();
    i->times_set = false;
    i->own |= ATTR_MTIME;
    i->changes++;
    mutex_unlock(&i->lock);
}

static bool wants_renewal(struct fs *fs, struct inode *i, uint64_t *ret_seen)
{
    bool wanted;

    mutex_lock(&i->lock);
    *ret_seen = i->fresh_ns;
    wanted = i->etag && *i->etag && !i->unlinked && (!i->fresh_ns || clock_mono_ns() - i->fresh_ns >= fs->config->attr_ttl_ns);
    mutex_unlock(&i->lock);
    return wanted;
}

/* What others made of the object's headers since we looked goes below what was set here. That it cannot be had keeps no data from their
 * commit. True when there was anything. */
static bool renew(struct fs *fs, struct inode *i, struct cancel *cancel)
{
    g_autofree char *bucket = NULL, *key = NULL;
    _cleanup_object_ struct store_object o = {0};
    uint64_t seen, now = clock_mono_ns();
    bool others = false;

    if (!wants_renewal(fs, i, &seen) || inode_key(i, &bucket, &key) < 0 || ns_head(fs, bucket, key, cancel, &o) < 0)
        return false;
    mutex_lock(&i->lock);
    if (i->fresh_ns == seen && ns_same_version_locked(fs, i, &o)) /* else a look or a commit of ours came in between */
        others = ns_take_object_locked(fs, i, &o, now);
    mutex_unlock(&i->lock);
    return others;
}

bool ns_attr_is_old(struct fs *fs, struct inode *i, struct cache_file *f)
{
    uint64_t seen;

    return cache_file_dirty(f) && wants_renewal(fs, i, &seen);
}

static void push(struct inode *i, struct cache_file *f, bool others)
{
    struct store_headers h;
    bool explicit;

    if (!cache_file_data_dirty(f) && !others)
        return;
    mutex_lock(&i->lock);
    ns_headers_of_locked(i, &h);
    explicit = i->times_set || others;
    mutex_unlock(&i->lock);
    if (explicit)
        cache_file_set_headers(f, &h);
    else
        cache_file_suggest_headers(f, &h);
    store_headers_clear(&h);
}

void ns_push_known_attr(struct inode *i, struct cache_file *f)
{
    push(i, f, false);
}

void ns_push_attr(struct fs *fs, struct inode *i, struct cache_file *f, struct cancel *cancel)
{
    push(i, f, cache_file_dirty(f) && renew(fs, i, cancel));
}

void ns_committed(void *owner, const struct store_object *now, bool same_content)
{
    struct inode *i = owner;
    g_autofree char *bucket = NULL, *key = NULL, *name = NULL, *old_etag = NULL;
    _cleanup_inode_ struct inode *parent = NULL;
    struct fs *fs;

    if (!i)
        return; /* a copy that has no inode */
    fs = inode_fs(i);

    mutex_lock(&i->lock);
    old_etag = g_strdup(i->etag);
    if (!i->file || !cache_file_dirty(i->file)) { /* else attributes set since the seal wait for the next commit */
        i->times_set = false;
        i->own = 0;
    }
    (void)ns_take_object_locked(fs, i, now, clock_mono_ns());
    i->changes++;
    mutex_unlock(&i->lock);
    if (inode_key(i, &bucket, &key) == 0 && bucket) {
        if (same_content && old_etag)
            (void)catalog_version_moved(fs->catalog, bucket, key, old_etag, now->etag);
        (void)catalog_attrs_put(fs->catalog, bucket, key, now);
    }
    if (inode_parent(i, &parent, &name))
        ns_note(parent, name, i);
    video_written(fs, i);
}

void ns_forget_listing(struct inode *dir)
{
    struct listing *l;

    mutex_lock(&dir->lock);
    dir->changes++;
    l = g_steal_pointer(&dir->listing);
    mutex_unlock(&dir->lock);
    listing_unref(l);
}

bool ns_is_named(struct inode *i, const char *name)
{
    g_autofree char *now = inode_name(i);

    return !strcmp(now, name);
}

void ns_parted(void *owner, const char *bucket, const char *key)
{
    struct inode *i = owner;
    _cleanup_inode_ struct inode *dir = NULL;
    g_autofree char *old = NULL;
    const char *slash = strrchr(key, '/');

    (void)bucket;
    mutex_lock(&i->lock);
    i->changes++;
    mutex_unlock(&i->lock);
    if (!inode_parent(i, &dir, &old))
        return; /* its name is another's already */
    inode_move(i, dir, slash ? slash + 1 : key);
    ns_forget_listing(dir);
    ns_touch_dir(dir);
}

void ns_discarded(struct inode *i)
{
    _cleanup_inode_ struct inode *dir = NULL;
    g_autofree char *name = NULL;
    bool named = inode_parent(i, &dir, &name);

    mutex_lock(&i->lock);
    i->discarded = true;
    mutex_unlock(&i->lock);
    ns_mark_unlinked(i);
    if (named)
        ns_forget_listing(dir);
}
