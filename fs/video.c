/* SPDX-License-Identifier: Apache-2.0
 *
 * video: see video.h. The prober reads the object through a handle of its own and so through the
 * block cache: what an ffprobe would fetch next is then here. Background probes run on fs->probes.
 */
#include "fs/video.h"

#include <errno.h>

#include "base/cancel.h"
#include "base/log.h"
#include "base/workq.h"
#include "cache/cache.h"
#include "catalog/probe.h"
#include "fs/namespace.h"

bool video_likely(struct inode *i)
{
    g_autofree char *name = inode_name(i);
    bool likely;

    if (i->is_dir)
        return false;
    mutex_lock(&i->lock);
    likely = S_ISREG(i->attr.mode) && i->etag && i->attr.size && video_name_is_media(name, i->headers.content_type);
    mutex_unlock(&i->lock);
    return likely;
}

struct source {
    struct cache_handle *handle;
    struct cancel *cancel;
};

static ssize_t read_object(void *ctx, void *buf, size_t n, uint64_t off)
{
    struct source *s = ctx;

    return cache_pread(s->handle, buf, n, off, s->cancel);
}

static int probe(struct fs *fs, struct inode *i, struct cancel *cancel, struct video *ret)
{
    g_autofree char *name = inode_name(i);
    struct probe_params params = {.helper = fs->probe_helper, .timeout_ns = fs->config->probe_timeout_ns};
    struct probe_source src = {.read = read_object, .name = name};
    struct source s = {.cancel = cancel};
    struct cache_file *f;
    int r = ns_file_get(fs, i, &f);

    if (r < 0)
        return r;
    s.handle = cache_handle_new(f);
    src.ctx = &s;
    src.size = cache_file_size(f);
    r = probe_run(&params, &src, ret);
    cache_handle_free(s.handle);
    ns_file_put(i);
    if (r < 0 && !cancel_fired(cancel))
        log_warning_errno(r, "%s: its video facts could not be read", name);
    return r;
}

int video_facts(struct fs *fs, struct inode *i, struct cancel *cancel, struct video *ret)
{
    g_autofree char *bucket = NULL, *key = NULL, *etag = NULL;
    uint64_t size;
    int r;

    if (!fs->probe_helper || !video_likely(i))
        return -ENODATA;
    r = inode_key(i, &bucket, &key);
    if (r < 0)
        return r;
    mutex_lock(&i->lock);
    etag = g_strdup(i->etag);
    size = i->attr.size;
    mutex_unlock(&i->lock);
    r = catalog_video_get(fs->catalog, bucket, key, etag, ret);
    if (r == -ENOENT) {
        r = probe(fs, i, cancel, ret);
        if (r == 0)
            r = catalog_video_put(fs->catalog, bucket, key, etag, size, ret);
    }
    return r < 0 ? r : ret->is_media ? 0 : -ENODATA;
}

struct job {
    struct fs *fs;
    struct inode *inode;
};

static void probe_job(void *arg)
{
    struct job *j = arg;
    struct video v;

    if (!cancel_fired(j->fs->ending))
        (void)video_facts(j->fs, j->inode, j->fs->ending, &v); /* what went wrong is logged; the next getxattr asks again */
    inode_put(j->inode);
    g_free(j);
}

void video_written(struct fs *fs, struct inode *i)
{
    struct job *j;

    if (!fs->probes || cancel_fired(fs->ending) || !video_likely(i))
        return;
    j = g_new(struct job, 1);
    j->fs = fs;
    j->inode = inode_pin(i);
    workq_push(fs->probes, probe_job, j);
}
