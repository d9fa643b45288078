/* SPDX-License-Identifier: Apache-2.0
 *
 * recover: see recover.h. Runs on the thread that mounts, before there are others that know inodes.
 */
#include "fs/recover.h"

#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "cache/cache.h"
#include "fs/commits.h"
#include "fs/inode.h"
#include "fs/namespace.h"

/* The components of the object's path below the mount point; NULL when it has none there. */
static char **path_of(const struct config *c, const char *bucket, const char *key)
{
    g_autoptr(GStrvBuilder) b = g_strv_builder_new();
    g_auto(GStrv) parts = NULL;

    if (!c->bucket) {
        g_strv_builder_add(b, bucket);
    } else if (strcmp(c->bucket, bucket) != 0) {
        return NULL;
    } else if (c->prefix) {
        if (!g_str_has_prefix(key, c->prefix))
            return NULL;
        key += strlen(c->prefix); /* ends in "/" */
    }
    parts = g_strsplit(key, "/", -1);
    for (char **p = parts; *p; p++) {
        if (!**p || !strcmp(*p, ".") || !strcmp(*p, ".."))
            return NULL;
        g_strv_builder_add(b, *p);
    }
    return g_strv_builder_end(b);
}

static struct inode *directory(struct fs *fs, struct inode *dir, const char *name)
{
    struct inode *i = inode_child(dir, name);

    if (i && i->is_dir)
        return i;
    inode_put(i);
    i = inode_add(dir, name, true);
    mutex_lock(&i->lock);
    attr_default(&i->attr, true, clock_real_ns(), &fs->defaults);
    mutex_unlock(&i->lock);
    return i;
}

static bool taken(struct inode *dir, const char *name)
{
    _cleanup_inode_ struct inode *i = inode_child(dir, name);

    return i != NULL;
}

/* Takes over the caller's reference on the file, and one pin for it. */
static void attach(struct fs *fs, struct inode *i, struct cache_file *f, const char *etag)
{
    struct store_object o = {.size = cache_file_size(f), .mtime_ns = clock_real_ns()};

    cache_file_headers(f, &o.headers);
    inode_pin(i);
    mutex_lock(&i->lock);
    attr_from_object(&i->attr, &o, false, &fs->defaults);
    i->headers = o.headers; /* moved */
    i->etag = g_strdup(etag);
    i->file = f;
    mutex_unlock(&i->lock);
    cache_file_set_owner(f, i);
}

static bool adopted(void *ctx, struct cache_file *f)
{
    struct fs *fs = ctx;
    g_autofree char *bucket = NULL, *key = NULL, *etag = NULL;
    g_auto(GStrv) names = NULL;
    _cleanup_inode_ struct inode *dir = inode_root(fs->inodes), *i = NULL;
    guint n;

    cache_file_target(f, &bucket, &key, &etag);
    log_notice("%s/%s: an earlier mount ended before it was in the bucket; it is brought there now", bucket, key);
    names = path_of(fs->config, bucket, key);
    n = names ? g_strv_length(names) : 0;
    if (n == 0) {
        commits_add_unnamed(fs->commits, f);
        return true;
    }
    for (guint at = 0; at + 1 < n; at++) {
        struct inode *next = directory(fs, dir, names[at]);

        inode_put(dir);
        dir = next;
    }
    if (taken(dir, names[n - 1])) { /* two mounts had the same file */
        commits_add_unnamed(fs->commits, f);
        return true;
    }
    i = inode_add(dir, names[n - 1], false);
    attach(fs, i, f, etag);
    ns_commit_recovered(fs, i);
    return true;
}

void recover_run(struct fs *fs)
{
    if (!fs->config->read_only)
        (void)cache_adopt(fs->cache, adopted, fs);
}
