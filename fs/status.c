/* SPDX-License-Identifier: Apache-2.0
 *
 * status: see status.h. Runs on control's threads; takes no lock of its own. Lines are "name value".
 */
#include "fs/status.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "cache/cache.h"
#include "fs/advice.h"
#include "fs/discard.h"
#include "fs/drain.h"
#include "fs/inode.h"
#include "s3/stats.h"

static void print_requests(struct fs *fs, FILE *out)
{
    struct store_stats st;

    store_stats_get(fs->stats, &st);
    for (int v = 0; v < STORE_VERB_COUNT; v++) {
        if (st.requests[v])
            fprintf(out, "requests %s %llu\n", store_verb_name((enum store_verb)v), (unsigned long long)st.requests[v]);
        if (st.errors[v])
            fprintf(out, "errors %s %llu\n", store_verb_name((enum store_verb)v), (unsigned long long)st.errors[v]);
    }
    fprintf(out, "bytes_in %llu\nbytes_out %llu\nlatency_ms %.3f\n", (unsigned long long)st.bytes_in,
            (unsigned long long)st.bytes_out, (double)st.latency_ns / (double)NSEC_PER_MSEC);
}

static void print_cache(struct fs *fs, FILE *out)
{
    struct cache_stats st;

    cache_get_stats(fs->cache, &st);
    fprintf(out, "staged %llu\nuploading %llu\ndirty_files %llu\nsealed_files %llu\nunsynced_files %llu\ndrafted_files %llu\ncommits %llu\ncommit_errors %llu\nconflicts %llu\n",
            (unsigned long long)st.staged, (unsigned long long)st.uploading, (unsigned long long)st.dirty_files,
            (unsigned long long)st.sealed_files, (unsigned long long)st.unsynced_files, (unsigned long long)st.drafted_files,
            (unsigned long long)st.commits, (unsigned long long)st.commit_errors,
            (unsigned long long)st.conflicts);
    fprintf(out, "block_hits %llu\nblock_misses %llu\nbytes_fetched %llu\n", (unsigned long long)st.read_hits,
            (unsigned long long)st.read_misses, (unsigned long long)st.bytes_fetched);
}

static void print_dirty(struct fs *fs, FILE *out)
{
    g_autoptr(GPtrArray) all = inode_all(fs->inodes);

    for (guint n = 0; n < all->len; n++) {
        struct inode *i = all->pdata[n];
        struct cache_file_state st = {.state = CACHE_CLEAN};
        bool open;

        mutex_lock(&i->lock);
        if (i->file && !i->unlinked)
            cache_file_get_state(i->file, &st);
        open = i->handles > 0;
        mutex_unlock(&i->lock);
        if (st.state != CACHE_CLEAN) {
            g_autofree char *path = g_strdelimit(inode_path(i), "\n", '?');

            fprintf(out, "dirty %s %s\n", open ? "open" : "closed", path);
            if (st.state == CACHE_FAILED)
                fprintf(out, "failed %s: %s (%s)\n", path, advice_for(st.err), g_strerror(-st.err));
        }
    }
}

static int print_status(struct fs *fs, FILE *out)
{
    const struct config *c = fs->config;
    struct store_caps caps;

    fprintf(out, "version %s\npid %d\nmountpoint %s\n", MLOPSFS_VERSION, (int)getpid(), c->mountpoint);
    fprintf(out, "store %s\n", c->kind == CONFIG_LOCAL ? c->local_path : c->endpoint ? c->endpoint : "Amazon S3");
    if (c->bucket)
        fprintf(out, "bucket %s\nprefix %s\n", c->bucket, c->prefix ? c->prefix : "");
    fprintf(out, "inodes %llu\n", (unsigned long long)inode_count(fs->inodes));
    print_cache(fs, out);
    print_requests(fs, out);
    if (!c->read_only) {
        g_autofree char *names = NULL;

        store_get_caps(fs->store, NULL, &caps); /* what is known: this never asks the server */
        names = store_caps_print(&caps);
        fprintf(out, "capabilities%s\n", names);
    }
    print_dirty(fs, out);
    return 0;
}

static int print_catalog(struct fs *fs, FILE *out)
{
    const struct config *c = fs->config;

    fprintf(out, "catalog %s\nbucket %s\nprefix %s\n", fs->catalog_path, c->bucket ? c->bucket : "", c->prefix ? c->prefix : "");
    return 0;
}

/* Of each failure the reply has said more than its errno does. */
static int drain(struct fs *fs, const char *below, bool closed_only, FILE *reply)
{
    return drain_run(fs, below, closed_only, reply) < 0 ? -EREMOTEIO : 0;
}

int status_handle(void *ctx, const char *command, const char *arg, FILE *reply)
{
    struct fs *fs = ctx;

    if (!strcmp(command, "status"))
        return print_status(fs, reply);
    if (!strcmp(command, "catalog"))
        return print_catalog(fs, reply);
    if (!strcmp(command, "sync"))
        return drain(fs, arg, false, reply);
    if (!strcmp(command, "discard"))
        return discard_run(fs, arg, reply) < 0 ? -EREMOTEIO : 0;
    if (!strcmp(command, "drain"))
        return drain(fs, "", true, reply);
    return -EINVAL;
}
