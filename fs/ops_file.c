/* SPDX-License-Identifier: Apache-2.0
 *
 * ops_file: open files. READ, FLUSH and FSYNC are parked: the handler starts them and returns, their
 * completion replies. An INTERRUPT cancels them.
 *
 * A parked request is owned by its completion. Its lock covers the moment between starting and
 * registering for interrupts, so that a completion that comes first is seen.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>

#include "base/cancel.h"
#include "base/mutex.h"
#include "base/workq.h"
#include "cache/cache.h"
#include "fs/commits.h"
#include "fs/namespace.h"
#include "fs/opened.h"
#include "fs/ops.h"

struct handle {
    struct opened opened; /* first: see handle_end */
    struct fs *fs;
    struct inode *inode; /* pinned, and used (ns_file_put) */
    struct cache_file *file;
    struct cache_handle *data;
    bool writable;
};

static struct handle *handle_of(const struct fuse_file_info *fi)
{
    return (struct handle *)(uintptr_t)fi->fh;
}

/* Also when the mount ends with the file open. */
static void handle_end(struct opened *o)
{
    struct handle *h = (struct handle *)o;

    mutex_lock(&h->inode->lock);
    h->inode->handles--;
    if (h->writable)
        h->inode->writers--;
    mutex_unlock(&h->inode->lock);
    if (h->writable)
        cache_file_writer(h->file, false);
    if (h->writable)
        ns_commit_later(h->fs, h->inode, h->file); /* also what came after the last FLUSH: a shared mapping's pages */
    cache_handle_free(h->data);
    ns_file_put(h->inode);
    inode_put(h->inode);
    g_free(h);
}

static void handle_free(struct handle *h)
{
    opened_remove(h->fs->handles, &h->opened);
    handle_end(&h->opened);
}

/* Takes over the caller's pin and use. */
static void handle_new(struct fs *fs, struct inode *i, struct cache_file *f, struct fuse_file_info *fi)
{
    struct handle *h = g_new0(struct handle, 1);

    h->opened.end = handle_end;
    h->fs = fs;
    h->inode = i;
    h->file = f;
    h->data = cache_handle_new(f);
    h->writable = (fi->flags & O_ACCMODE) != O_RDONLY || (fi->flags & O_TRUNC);
    if (h->writable)
        cache_file_writer(f, true);
    fi->fh = (uint64_t)(uintptr_t)h;
    fi->keep_cache = 1;
    fi->noflush = !h->writable;
    mutex_lock(&i->lock);
    i->handles++;
    if (h->writable)
        i->writers++;
    mutex_unlock(&i->lock);
    opened_add(fs->handles, &h->opened);
}

void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
    struct call c;
    _cleanup_inode_ struct inode *dir = op_begin(&c, req, parent);
    const struct fuse_ctx *ctx = fuse_req_ctx(req);
    struct inode *i;
    int r;

    if (!dir)
        return;
    r = ns_create(c.fs, dir, name, mode, ctx->uid, ctx->gid, c.cancel, &i);
    if (r < 0) {
        reply_err(&c, r);
        return;
    }
    handle_new(c.fs, i, i->file, fi);
    if (!reply_create(&c, i, fi))
        handle_free(handle_of(fi));
}

/* Whoever replaces all of a file that could not be committed, because of someone else's version, means that one too. */
static int truncate_all(struct call *c, struct inode *i, struct cache_file *f)
{
    int r = cache_file_conflicts(f) ? cache_file_replace(f, c->cancel) : cache_file_truncate(f, 0, c->cancel);

    ns_written(i);
    return r;
}

void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct call c;
    struct inode *i = op_begin(&c, req, ino);
    struct cache_file *f;
    int r;

    if (!i)
        return;
    r = ns_refresh(c.fs, i, c.cancel);
    if (r == -ENOENT)
        r = -ESTALE; /* the kernel looks the name up again, and finds what there is */
    if (r == 0)
        r = ns_file_get(c.fs, i, &f);
    if (r < 0) {
        inode_put(i);
        reply_err(&c, r);
        return;
    }
    if (fi->flags & O_TRUNC)
        r = truncate_all(&c, i, f);
    handle_new(c.fs, i, f, fi); /* now: a commit of what was there before may just have failed, and that is not its error */
    if (r < 0)
        reply_err(&c, r);
    if (r < 0 || !reply_open(&c, fi))
        handle_free(handle_of(fi));
}

void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct handle *h = handle_of(fi);

    (void)ino;
    handle_free(h);
    reply_parked_err(req, 0);
}

void op_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t n, off_t off, struct fuse_file_info *fi)
{
    struct handle *h = handle_of(fi);
    bool append = (fi->flags & O_APPEND) && !fi->writepage;
    struct call c;
    int r;

    (void)ino;
    call_begin(&c, req);
    r = cache_write(h->data, buf, n, (uint64_t)off, append, c.cancel);
    if (r < 0) {
        reply_err(&c, r);
        return;
    }
    ns_written(h->inode);
    reply_write(&c, n);
}

/* ---- parked requests ---- */

struct parked {
    struct opened opened; /* first */
    struct interrupt interrupt;
    struct fs *fs;
    fuse_req_t req;
    struct handle *handle;
    union {
        struct cache_read read;
        struct cache_wait wait;
    };
    struct cancel *renewing; /* constant: of what a flush does before it waits; NULL: nothing */
    atomic_bool claimed;     /* renewing: by the job that does it, or by who gave up before */
    struct mutex lock; /* taken first of all: libfuse's request lock, and what cancelling takes, come below it */
    bool done;         /* lock */
    int refs;          /* lock: the handler's and the completion's */
};

static struct parked *parked_new(fuse_req_t req, struct handle *h)
{
    struct fs *fs = fuse_req_userdata(req);
    struct parked *p = g_new0(struct parked, 1);

    p->fs = fs;
    p->req = req;
    p->handle = h;
    p->refs = 2;
    mutex_init(&p->lock, RANK_NAMESPACE);
    return p;
}

static void parked_unref(struct parked *p)
{
    bool last;

    mutex_lock(&p->lock);
    last = --p->refs == 0;
    mutex_unlock(&p->lock);
    if (last) {
        mutex_fini(&p->lock);
        if (p->renewing)
            cancel_free(p->renewing);
        g_free(p);
    }
}

static void parked_interrupted(fuse_req_t req, void *data)
{
    struct parked *p = data;

    (void)req;
    interrupt_came(p->fs->interrupts, &p->interrupt);
}

/* The handler's last act: from now on an INTERRUPT reaches the request, unless it is done already. */
static void parked_arm(struct parked *p)
{
    mutex_lock(&p->lock);
    if (!p->done)
        fuse_req_interrupt_func(p->req, parked_interrupted, p);
    mutex_unlock(&p->lock);
    parked_unref(p);
}

/* The completion's first act: no interrupt runs any more when it returns. */
static void parked_disarm(struct parked *p)
{
    mutex_lock(&p->lock);
    p->done = true;
    mutex_unlock(&p->lock);
    fuse_req_interrupt_func(p->req, NULL, NULL);
    interrupt_forget(p->fs->interrupts, &p->interrupt);
}

/* Its last: until here the end of the mount waits, because the reply needs the session. */
static void parked_end(struct parked *p)
{
    opened_remove(p->fs->parked, &p->opened);
    parked_unref(p);
}

static void read_done(struct cache_read *r, int err, const struct iovec *iov, int n_iov)
{
    struct parked *p = r->ctx;

    parked_disarm(p);
    if (err < 0)
        reply_parked_err(p->req, err);
    else
        reply_parked_iov(p->req, iov, n_iov);
    parked_end(p);
}

static void read_give_up(void *ctx)
{
    struct parked *p = ctx;

    cache_read_cancel(p->handle->data, &p->read);
}

static void read_end(struct opened *o)
{
    read_give_up(o);
}

void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
    struct handle *h = handle_of(fi);
    struct parked *p = parked_new(req, h);

    (void)ino;
    p->opened.end = read_end;
    p->interrupt = (struct interrupt){.req = req, .give_up = read_give_up, .ctx = p};
    p->read = (struct cache_read){.off = (uint64_t)off, .len = size, .done = read_done, .ctx = p};
    opened_add(p->fs->parked, &p->opened);
    cache_read(h->data, &p->read);
    parked_arm(p);
}

static void flush_done(struct cache_wait *w, int err)
{
    struct parked *p = w->ctx;

    parked_disarm(p);
    reply_parked_err(p->req, err);
    parked_end(p);
}

static void flush_given_up(void *arg)
{
    struct parked *p = arg;

    flush_done(&p->wait, -EINTR);
}

/* The reply is not sent from here, under others' locks. The commit goes on without its waiter. */
static void flush_give_up(void *ctx)
{
    struct parked *p = ctx;

    if (p->renewing) {
        cancel_fire(p->renewing);
        if (!atomic_exchange(&p->claimed, true)) {
            workq_push(cache_deliver(p->fs->cache), flush_given_up, p);
            return;
        }
    }
    if (cache_flush_cancel(p->handle->data, &p->wait))
        workq_push(cache_deliver(p->fs->cache), flush_given_up, p);
}

static void flush_end(struct opened *o)
{
    flush_give_up(o);
}

/* On the queue of what asks the bucket before it waits. */
static void flush_renewed(void *arg)
{
    struct parked *p = arg;
    bool mine = false;

    if (atomic_exchange(&p->claimed, true)) {
        parked_unref(p);
        return;
    }
    ns_push_known_attr(p->handle->inode, p->handle->file);
    (void)cache_file_seal(p->handle->file, p->renewing); /* before the bucket is asked anything */
    ns_push_attr(p->fs, p->handle->inode, p->handle->file, p->renewing);
    cache_flush(p->handle->data, &p->wait);
    /* Who gave up before there was a waiter has left it to us. */
    mutex_lock(&p->lock);
    if (!p->done && cancel_fired(p->renewing)) /* not done: the handle is still there */
        mine = cache_flush_cancel(p->handle->data, &p->wait);
    mutex_unlock(&p->lock);
    if (mine)
        flush_done(&p->wait, -EINTR);
    parked_unref(p);
}

static void flush(fuse_req_t req, struct handle *h)
{
    struct parked *p = parked_new(req, h);
    struct fs *fs = p->fs;

    p->opened.end = flush_end;
    p->interrupt = (struct interrupt){.req = req, .give_up = flush_give_up, .ctx = p};
    p->wait = (struct cache_wait){.done = flush_done, .ctx = p};
    if (ns_attr_is_old(fs, h->inode, h->file)) {
        p->renewing = cancel_new();
        atomic_init(&p->claimed, false);
        p->refs++;
        opened_add(fs->parked, &p->opened);
        workq_push(commits_queue(fs->commits), flush_renewed, p);
    } else {
        ns_push_known_attr(h->inode, h->file);
        opened_add(fs->parked, &p->opened);
        cache_flush(h->data, &p->wait);
    }
    parked_arm(p);
}

static void seal(fuse_req_t req, struct handle *h, int (*how)(struct cache_handle *h, struct cancel *cancel))
{
    struct call c;

    call_begin(&c, req);
    ns_push_known_attr(h->inode, h->file);
    reply_err(&c, how(h->data, c.cancel));
}

void op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct handle *h = handle_of(fi);

    (void)ino;
    if (!h->writable)
        reply_parked_err(req, 0); /* what others wrote is theirs to publish */
    else if (h->fs->config->commit == CONFIG_COMMIT_BACKGROUND)
        seal(req, h, cache_seal);
    else
        flush(req, h);
}

void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
    struct handle *h = handle_of(fi);

    (void)ino, (void)datasync;
    if (h->fs->config->fsync == CONFIG_FSYNC_LOCAL)
        seal(req, h, cache_seal_synced);
    else
        flush(req, h);
}
