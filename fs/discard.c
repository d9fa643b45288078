/* SPDX-License-Identifier: Apache-2.0
 *
 * discard: see discard.h. Runs on a thread of control's. What is uncommitted has an inode, so nothing is asked of the bucket.
 */
#include "fs/discard.h"

#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "cache/cache.h"
#include "fs/drain.h"
#include "fs/inode.h"
#include "fs/namespace.h"

/* NULL: nothing is known of that path, so nothing of it is uncommitted. */
static struct inode *find(struct fs *fs, const char *path)
{
    struct inode *i = inode_root(fs->inodes);
    g_auto(GStrv) names = g_strsplit(path, "/", -1);

    for (char **n = names; *n && i; n++) {
        struct inode *next = **n ? inode_child(i, *n) : inode_pin(i);

        inode_put(i);
        i = next;
    }
    return i;
}

/* A use of its file; NULL when it has none. */
static int take(struct inode *i, struct cache_file **ret)
{
    int r = 0;

    *ret = NULL;
    mutex_lock(&i->lock);
    if (i->is_dir) {
        r = -EISDIR;
    } else if (i->moving) {
        r = -EBUSY;
    } else if (i->file && !i->unlinked) {
        *ret = i->file;
        i->users++;
    }
    mutex_unlock(&i->lock);
    return r;
}

static int discard(struct fs *fs, struct inode *i)
{
    struct cache_file *f;
    int r = take(i, &f);

    if (r < 0 || !f)
        return r < 0 ? r : -ENODATA;
    r = cache_file_discard(f, fs->ending);
    if (r == 0)
        ns_discarded(i);
    ns_file_put(i);
    return r;
}

static const char *reason(int r)
{
    switch (r) {
    case -EISDIR:
        return "it is a directory; say which files";
    case -EBUSY:
        return "it is being renamed; try again";
    default:
        return g_strerror(-r);
    }
}

int discard_run(struct fs *fs, const char *path, FILE *out)
{
    _cleanup_inode_ struct inode *i = find(fs, path);
    g_autofree char *name = g_strdup_printf("%s/%s", fs->config->mountpoint, path);
    int r = i ? discard(fs, i) : -ENODATA;

    g_strdelimit(name, "\n", '?'); /* one line */
    if (r == -ENODATA) {
        fprintf(out, "%s: nothing to discard: all that was written is in the bucket\n", name);
        return 0;
    }
    if (r < 0) {
        fprintf(out, DRAIN_FAILED "%s: nothing was discarded: %s\n", name, reason(r));
        return r;
    }
    log_notice("%s: what was written to it and not in the bucket was discarded, as told", path);
    fprintf(out, "%s: discarded what was not in the bucket; the file is what the bucket has, if anything\n", name);
    return 0;
}
