/* SPDX-License-Identifier: Apache-2.0
 *
 * namespace: names looked up, attributes kept fresh. Changes of names are in ns_change.c and
 * ns_rename.c, attributes in ns_attr.c, an inode's file in ns_file.c.
 *
 * What is true of a name, in this order: an inode with uncommitted changes of ours; an inode whose
 * attributes are younger than attr_ttl; the directory's listing while younger than dir_ttl, with the
 * catalog's attributes of the state (ETag and date) it names; the bucket. A reply of the bucket that
 * was asked for before a change of ours (inode.changes) is not news and is dropped.
 *
 * Other bytes are another version, and another inode. Other headers on the same bytes (the ETag stays)
 * are new attributes of the same inode, and the kernel keeps its pages.
 */
#include <errno.h>
#include <limits.h>
#include <string.h>

#include "base/clock.h"
#include "cache/cache.h"
#include "catalog/catalog.h"
#include "fs/batch.h"
#include "fs/listing.h"
#include "fs/ns_private.h"

#define LOOKUPS 3
#define MISSES_A_PAGE 4 /* so many names that are not there, in about dir_ttl, are worth a page of a listing */

/* What the bucket says of a name. */
struct found {
    bool is_dir;
    bool has_object;           /* object tells of the file, or of the directory's marker */
    struct store_object object;
    uint64_t time_ns;          /* mono: when it was asked for */
};

static bool fresh(uint64_t time_ns, uint64_t ttl_ns)
{
    return time_ns && clock_mono_ns() - time_ns < ttl_ns;
}

/* Our own uncommitted changes are the truth about this inode. */
static bool is_local_locked(struct inode *i)
{
    return i->moving || (i->file && (cache_file_dirty(i->file) || !i->etag));
}

/* ---- asking the bucket ---- */

int ns_head(struct fs *fs, const char *bucket, const char *key, struct cancel *cancel, struct store_object *ret)
{
    _cleanup_request_ struct store_request q = {.verb = STORE_HEAD, .prio = STORE_PRIO_META, .bucket = bucket, .key = key};
    int r = store_run(fs->store, &q, cancel);

    if (r < 0)
        return r;
    *ret = q.res.object;
    q.res.object = (struct store_object){0};
    (void)catalog_attrs_put(fs->catalog, bucket, key, ret);
    return 0;
}

static int find_bucket(struct fs *fs, struct inode *root, const char *name, struct cancel *cancel)
{
    struct listing *l = NULL;
    struct listing_entry *e;
    int r = ns_listing(fs, root, cancel, &l);

    if (r == 0) {
        e = listing_find(l, name);
        r = e ? 0 : -ENOENT;
        listing_entry_free(e);
        listing_unref(l);
        return r;
    }
    if (r != -EACCES)
        return r;
    /* Who may not list buckets may still use one by name. */
    _cleanup_request_ struct store_request q = {
        .verb = STORE_LIST, .prio = STORE_PRIO_META, .bucket = name, .prefix = "", .max_keys = 1};

    return store_run(fs->store, &q, cancel);
}

/* A name of which a fresh listing tells; -EAGAIN where it does not tell enough. A directory is asked for: servers that keep objects as
 * files list one for a moment while an object of that name is replaced or deleted. */
static int find_listed(struct fs *fs, struct listing *l, const char *name, const char *bucket, const char *key, struct cancel *cancel,
                       struct found *f)
{
    struct listing_entry *e = listing_find(l, name);
    int r = 0;

    if (!e)
        return -ENOENT;
    if (e->is_dir || !e->etag) { /* without ETag: was ours and uncommitted */
        r = -EAGAIN;
    } else if (catalog_attrs_get(fs->catalog, bucket, key, e->etag, e->mtime_ns, &f->object) == 0) {
        f->has_object = true;
    } else {
        f->time_ns = clock_mono_ns();
        r = ns_head(fs, bucket, key, cancel, &f->object);
        f->has_object = r == 0;
    }
    listing_entry_free(e);
    return r;
}

/* HEAD key and LIST "key/" side by side: the first key below a directory with a marker is the marker. */
static int find_asked(struct fs *fs, const char *bucket, const char *key, const char *dir_key, struct cancel *cancel, struct found *f)
{
    struct store_request q[2] = {
        {.verb = STORE_HEAD, .prio = STORE_PRIO_META, .bucket = bucket, .key = key},
        {.verb = STORE_LIST, .prio = STORE_PRIO_META, .bucket = bucket, .prefix = dir_key, .max_keys = 1},
    };
    int r = batch_run(fs->store, q, 2, 2, false, cancel);

    if (r == -EINTR)
        goto out;
    r = q[1].res.err;
    if (r == 0 && q[1].res.entries && q[1].res.entries->len) {
        const struct store_entry *e = q[1].res.entries->pdata[0];

        f->is_dir = true;
        if (!strcmp(e->key, dir_key)) {
            if (catalog_attrs_get(fs->catalog, bucket, dir_key, e->etag ? e->etag : "", e->mtime_ns, &f->object) < 0)
                r = ns_head(fs, bucket, dir_key, cancel, &f->object);
            f->has_object = r == 0;
            if (r == -ENOENT)
                r = 0;
        }
        goto out;
    }
    if (r == 0 || r == -EACCES || r == -ENOENT) /* without the right to list, files can still be had by name */
        r = q[0].res.err;
    if (r == 0) {
        f->has_object = true;
        f->object = q[0].res.object;
        q[0].res.object = (struct store_object){0};
        (void)catalog_attrs_put(fs->catalog, bucket, key, &f->object);
    }
out:
    store_request_clear(&q[0]);
    store_request_clear(&q[1]);
    return r;
}

static struct listing *fresh_listing(struct fs *fs, struct inode *dir)
{
    struct listing *l = NULL;

    mutex_lock(&dir->lock);
    if (dir->listing && fresh(listing_time_ns(dir->listing), fs->config->dir_ttl_ns))
        l = listing_ref(dir->listing);
    mutex_unlock(&dir->lock);
    return l;
}

/* Kept, unless ns_forget_listing_locked() came in between; then it is good for one look. */
static void keep_listing_locked(struct inode *dir, struct listing *l)
{
    GSList *at = g_slist_find(dir->loading, l);

    if (!at)
        return;
    dir->loading = g_slist_delete_link(dir->loading, at);
    listing_unref(dir->listing);
    dir->listing = listing_ref(l);
}

static int load_listing(struct fs *fs, struct inode *dir, unsigned max_pages, struct cancel *cancel, struct listing **ret)
{
    g_autofree char *bucket = NULL, *key = NULL;
    struct listing *l;
    bool marker;
    int r;

    l = listing_new();
    mutex_lock(&dir->lock);
    dir->loading = g_slist_prepend(dir->loading, l);
    mutex_unlock(&dir->lock);
    r = inode_key(dir, &bucket, &key);
    if (r == 0)
        r = listing_load(l, fs->store, bucket, bucket ? key : "", max_pages, cancel, &marker);
    mutex_lock(&dir->lock);
    if (r == 0 && marker)
        dir->has_marker = true;
    if (r == 0)
        keep_listing_locked(dir, l);
    else
        dir->loading = g_slist_remove(dir->loading, l);
    if (r == 0 || r == -E2BIG)
        dir->pages = r == 0 ? listing_pages(l) : max_pages + 1;
    mutex_unlock(&dir->lock);
    if (r < 0)
        listing_unref(l);
    else
        *ret = l;
    return r;
}

/* ---- names that are not there ---- */

/* Each costs two requests, and who makes many files in a directory asks for each of them before. */
static void note_miss(struct fs *fs, struct inode *dir)
{
    mutex_lock(&dir->lock);
    if (!fresh(dir->misses_ns, 2 * fs->config->dir_ttl_ns)) {
        dir->misses_ns = clock_mono_ns();
        dir->misses = 0;
    }
    dir->misses++;
    mutex_unlock(&dir->lock);
}

/* Lists a directory again in which many names were not found lately. *ret is NULL where that is not worth it. 0, -EINTR. */
static int listing_if_worth(struct fs *fs, struct inode *dir, struct cancel *cancel, struct listing **ret)
{
    unsigned pages;
    int r;

    mutex_lock(&dir->lock);
    pages = fresh(dir->misses_ns, 2 * fs->config->dir_ttl_ns) ? dir->misses / MISSES_A_PAGE : 0;
    if (pages < dir->pages)
        pages = 0;
    if (pages) { /* others ask by name meanwhile */
        dir->misses = 0;
        dir->misses_ns = clock_mono_ns();
    }
    mutex_unlock(&dir->lock);
    r = pages ? load_listing(fs, dir, pages, cancel, ret) : -EAGAIN;
    return r == -EINTR ? r : 0;
}

static int find(struct fs *fs, struct inode *dir, const char *name, struct cancel *cancel, struct found *f)
{
    g_autofree char *bucket = NULL, *key = NULL, *bucket2 = NULL, *dir_key = NULL;
    struct listing *l;
    int r;

    f->time_ns = clock_mono_ns();
    if (inode_is_bucket_root(dir)) {
        f->is_dir = true;
        return find_bucket(fs, dir, name, cancel);
    }
    r = inode_child_key(dir, name, true, &bucket2, &dir_key);
    if (r == -ENAMETOOLONG) { /* at the limit, a file's key may fit where a directory's does not */
        r = inode_child_key(dir, name, false, &bucket, &key);
        return r < 0 ? r : ns_head(fs, bucket, key, cancel, &f->object) < 0 ? -ENOENT : (f->has_object = true, 0);
    }
    if (r < 0)
        return r;
    r = inode_child_key(dir, name, false, &bucket, &key);
    if (r < 0)
        return r;
    l = fresh_listing(fs, dir);
    if (!l && (r = listing_if_worth(fs, dir, cancel, &l)) < 0)
        return r;
    r = -EAGAIN;
    if (l) {
        f->time_ns = listing_time_ns(l);
        r = find_listed(fs, l, name, bucket, key, cancel, f);
        listing_unref(l);
    }
    if (r == -EAGAIN) {
        f->time_ns = clock_mono_ns();
        r = find_asked(fs, bucket, key, dir_key, cancel, f);
    }
    if (r == -ENOENT)
        note_miss(fs, dir);
    return r;
}

/* ---- inodes from what was found ---- */

static struct inode *adopt_dir(struct fs *fs, struct inode *dir, const char *name, struct inode *child, uint64_t changes,
                               const struct found *f)
{
    struct inode *i = child && child->is_dir ? inode_pin(child) : inode_add(dir, name, true);

    mutex_lock(&i->lock);
    if (i == child && i->changes != changes) {
        mutex_unlock(&i->lock);
        return i;
    }
    if (f->has_object)
        (void)ns_take_object_locked(fs, i, &f->object, f->time_ns);
    else if (!i->attr.mode)
        attr_default(&i->attr, true, clock_real_ns(), &fs->defaults);
    i->fresh_ns = f->time_ns;
    mutex_unlock(&i->lock);
    return i;
}

static struct inode *adopt_file(struct fs *fs, struct inode *dir, const char *name, struct inode *child, uint64_t changes,
                                const struct found *f)
{
    struct inode *i;

    if (child && !child->is_dir) {
        mutex_lock(&child->lock);
        if (is_local_locked(child) || child->changes != changes ||
            ns_same_version_locked(fs, child, &f->object)) {
            if (!is_local_locked(child) && child->changes == changes)
                (void)ns_take_object_locked(fs, child, &f->object, f->time_ns);
            mutex_unlock(&child->lock);
            return inode_pin(child);
        }
        mutex_unlock(&child->lock);
    }
    i = inode_add(dir, name, false); /* a foreign version: a new nodeid; the old one is detached */
    mutex_lock(&i->lock);
    (void)ns_take_object_locked(fs, i, &f->object, f->time_ns);
    mutex_unlock(&i->lock);
    return i;
}

static uint64_t moves_of(struct inode *i)
{
    uint64_t n;

    mutex_lock(&i->lock);
    n = i->moves;
    mutex_unlock(&i->lock);
    return n;
}

static int lookup(struct fs *fs, struct inode *dir, const char *name, struct cancel *cancel, struct inode **ret)
{
    _cleanup_inode_ struct inode *child = NULL;
    struct found f = {0};
    uint64_t changes = 0;
    int r;

    if (strlen(name) > NAME_MAX)
        return -ENAMETOOLONG;
    child = inode_child(dir, name);
    if (child) {
        bool known;

        mutex_lock(&child->lock);
        known = is_local_locked(child) || fresh(child->fresh_ns, fs->config->attr_ttl_ns);
        changes = child->changes;
        mutex_unlock(&child->lock);
        if (known) {
            *ret = g_steal_pointer(&child);
            return 0;
        }
    }
    r = find(fs, dir, name, cancel, &f);
    if (r == 0)
        *ret = f.is_dir ? adopt_dir(fs, dir, name, child, changes, &f) : adopt_file(fs, dir, name, child, changes, &f);
    else if (r == -ENOENT && child) {
        bool local;

        mutex_lock(&child->lock);
        local = is_local_locked(child) || child->changes != changes;
        mutex_unlock(&child->lock);
        if (local) {
            *ret = g_steal_pointer(&child);
            r = 0;
        } else {
            inode_detach(child);
        }
    }
    store_object_clear(&f.object);
    return r;
}

int ns_lookup(struct fs *fs, struct inode *dir, const char *name, struct cancel *cancel, struct inode **ret)
{
    int r = -ENOENT;

    for (int i = 0; i < LOOKUPS && r == -ENOENT; i++) {
        uint64_t before = moves_of(dir);

        r = lookup(fs, dir, name, cancel, ret);
        if (moves_of(dir) == before)
            break; /* else the directory may have got another name, and so its keys, while we asked by the old one */
    }
    return r;
}

int ns_refresh(struct fs *fs, struct inode *i, struct cancel *cancel)
{
    g_autofree char *bucket = NULL, *key = NULL;
    _cleanup_object_ struct store_object o = {0};
    uint64_t changes, now = clock_mono_ns();
    bool known, discarded, attached = inode_attached(i);
    int r;

    mutex_lock(&i->lock);
    known = is_local_locked(i) || fresh(i->fresh_ns, fs->config->attr_ttl_ns) || i->unlinked;
    changes = i->changes;
    discarded = i->discarded;
    mutex_unlock(&i->lock);
    if (discarded)
        return -ESTALE; /* the kernel looks the name up again */
    if (known || !attached)
        return 0; /* what has no name any more stays as it was */
    r = inode_key(i, &bucket, &key);
    if (r < 0)
        return r;
    if (!bucket || !*key)
        return 0; /* a bucket has no attributes of its own */
    r = ns_head(fs, bucket, key, cancel, &o);
    if (r == -ENOENT && i->is_dir)
        r = 0;
    mutex_lock(&i->lock);
    if (i->changes != changes || is_local_locked(i)) {
        r = r == -EINTR ? r : 0;
    } else if (r == 0 && (i->is_dir || ns_same_version_locked(fs, i, &o))) {
        if (o.etag)
            (void)ns_take_object_locked(fs, i, &o, now);
        i->fresh_ns = now;
    } else if (r == 0 || r == -ENOENT) {
        r = -ESTALE; /* another version, or none: this inode's time is over */
    }
    mutex_unlock(&i->lock);
    if (r == -ESTALE)
        inode_detach(i);
    return r;
}

/* ---- listings ---- */

int ns_listing(struct fs *fs, struct inode *dir, struct cancel *cancel, struct listing **ret)
{
    *ret = fresh_listing(fs, dir);
    return *ret ? 0 : load_listing(fs, dir, 0, cancel, ret);
}

void ns_forget_listing_locked(struct inode *dir)
{
    listing_unref(dir->listing);
    dir->listing = NULL;
    g_clear_pointer(&dir->loading, g_slist_free);
}

void ns_drop_stale_listing(struct fs *fs, struct inode *dir)
{
    struct listing *l = NULL;

    mutex_lock(&dir->lock);
    if (dir->listing && !fresh(listing_time_ns(dir->listing), fs->config->dir_ttl_ns))
        l = g_steal_pointer(&dir->listing);
    mutex_unlock(&dir->lock);
    listing_unref(l);
}

int ns_entry(struct fs *fs, struct inode *dir, const struct listing_entry *e, uint64_t time_ns, struct inode **ret)
{
    _cleanup_inode_ struct inode *child = inode_child(dir, e->name);
    g_autofree char *bucket = NULL, *key = NULL;
    struct found f = {.is_dir = e->is_dir, .has_object = true, .time_ns = time_ns};
    uint64_t changes = 0;
    bool known = false;

    if (child) {
        mutex_lock(&child->lock);
        known = is_local_locked(child) || fresh(child->fresh_ns, fs->config->attr_ttl_ns);
        changes = child->changes;
        mutex_unlock(&child->lock);
    }
    if (known) {
        *ret = g_steal_pointer(&child);
        return 0;
    }
    if (e->is_dir || !e->etag || !fresh(time_ns, fs->config->dir_ttl_ns) || inode_child_key(dir, e->name, false, &bucket, &key) < 0 ||
        catalog_attrs_get(fs->catalog, bucket, key, e->etag, e->mtime_ns, &f.object) < 0)
        return -ENOENT;
    *ret = adopt_file(fs, dir, e->name, child, changes, &f);
    store_object_clear(&f.object);
    return 0;
}

void ns_note(struct inode *dir, const char *name, struct inode *child)
{
    g_autoptr(GPtrArray) listings = g_ptr_array_new();
    g_autofree char *etag = NULL;
    struct attr a = {0};
    bool is_dir = child && child->is_dir;

    if (child) {
        mutex_lock(&child->lock);
        a = child->attr;
        etag = is_dir ? NULL : g_strdup(child->etag);
        mutex_unlock(&child->lock);
    }
    mutex_lock(&dir->lock);
    dir->changes++;
    if (dir->listing)
        g_ptr_array_add(listings, listing_ref(dir->listing));
    for (GSList *at = dir->loading; at; at = at->next)
        g_ptr_array_add(listings, listing_ref(at->data));
    mutex_unlock(&dir->lock);
    for (guint n = 0; n < listings->len; n++) {
        if (child)
            listing_put(listings->pdata[n], name, is_dir, etag, a.size, 0);
        else
            listing_remove(listings->pdata[n], name);
        listing_unref(listings->pdata[n]);
    }
}
