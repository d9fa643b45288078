/* SPDX-License-Identifier: Apache-2.0
 *
 * tags: see tags.h. No state. A commit of the file reads the tags before it replaces the object; one that runs while a
 * tag is set may carry the old ones over it. So a tag is set between commits, and again if one began meanwhile.
 */
#include "fs/tags.h"

#include <errno.h>
#include <string.h>
#include <sys/xattr.h>

#include "base/clock.h"
#include "cache/cache.h"
#include "fs/namespace.h"

#define TRIES 8

/* The object's tags, also when it has none. */
static int get(struct fs *fs, const char *bucket, const char *key, struct cancel *cancel, GHashTable **ret)
{
    _cleanup_request_ struct store_request q = {.verb = STORE_TAGS_GET, .prio = STORE_PRIO_META, .bucket = bucket, .key = key};
    int r = store_run(fs->store, &q, cancel);

    if (r == -ENOENT) /* not committed yet */
        r = -ENODATA;
    if (r < 0)
        return r;
    *ret = g_steal_pointer(&q.res.tags);
    if (!*ret)
        *ret = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    return 0;
}

static int change(struct fs *fs, const char *bucket, const char *key, const char *tag, const char *value, int flags, struct cancel *cancel)
{
    g_autoptr(GHashTable) tags = NULL;
    bool had;
    int r = get(fs, bucket, key, cancel, &tags);

    if (r < 0)
        return r;
    had = g_hash_table_contains(tags, tag);
    if (!had && (!value || (flags & XATTR_REPLACE)))
        return -ENODATA;
    if (had && (flags & XATTR_CREATE))
        return -EEXIST;
    if (value)
        g_hash_table_replace(tags, g_strdup(tag), g_strdup(value));
    else
        g_hash_table_remove(tags, tag);
    _cleanup_request_ struct store_request q = {
        .verb = STORE_TAGS_PUT, .prio = STORE_PRIO_META, .bucket = bucket, .key = key, .tags = tags};

    return store_run(fs->store, &q, cancel);
}

int tags_value(struct fs *fs, const char *bucket, const char *key, const char *tag, struct cancel *cancel, char **ret)
{
    g_autoptr(GHashTable) tags = NULL;
    int r = get(fs, bucket, key, cancel, &tags);

    if (r < 0)
        return r;
    *ret = g_strdup(g_hash_table_lookup(tags, tag));
    return *ret ? 0 : -ENODATA;
}

static void forget_untagged(struct inode *i)
{
    mutex_lock(&i->lock);
    i->untagged_ns = 0;
    i->changes++; /* a reply asked for before tells of no tags */
    mutex_unlock(&i->lock);
}

int tags_set(struct fs *fs, struct inode *i, const char *bucket, const char *key, const char *tag, const char *value, int flags,
             struct cancel *cancel)
{
    struct cache_file *f = NULL;
    bool alone = false;
    int r = 0;

    if (i->is_dir || ns_file_get(fs, i, &f) < 0)
        f = NULL; /* nothing that commits */
    for (int n = 0; r == 0 && !alone; n++) {
        uint64_t begun = 0;

        r = n == TRIES ? -EBUSY : f ? cache_file_tags_begin(f, cancel, &begun) : 0;
        if (r == 0)
            r = change(fs, bucket, key, tag, value, n ? 0 : flags, cancel);
        if (r == -ENODATA && n && !value)
            r = 0; /* it was gone at the first try */
        alone = !f || cache_file_tags_end(f, begun);
        forget_untagged(i);
    }
    if (f)
        ns_file_put(i);
    return r;
}

int tags_kept(struct fs *fs, const char *bucket, const char *key, uint64_t untagged_ns, struct cancel *cancel, GHashTable **ret)
{
    struct store_caps caps;
    int r;

    *ret = NULL;
    store_get_caps(fs->store, NULL, &caps);
    if (caps.head_tags && untagged_ns && clock_mono_ns() - untagged_ns < fs->config->attr_ttl_ns)
        return 0;
    _cleanup_request_ struct store_request q = {.verb = STORE_TAGS_GET, .prio = STORE_PRIO_META, .bucket = bucket, .key = key};

    r = store_run(fs->store, &q, cancel);
    if (r == -ENOENT || r == -EOPNOTSUPP || !strcmp(q.res.code, "AccessDenied"))
        return 0; /* no object, no tags, or none that we may see */
    if (r == 0 && q.res.tags && g_hash_table_size(q.res.tags) > 0)
        *ret = g_steal_pointer(&q.res.tags);
    return r;
}
