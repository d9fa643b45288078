/* SPDX-License-Identifier: Apache-2.0
 *
 * reply: see reply.h. No locks of its own. Interrupts: libfuse runs the interrupt callback under the
 * request's lock, and clearing the callback takes that lock, so after call_end() the token is ours alone.
 */
#include "fs/reply.h"

#include <errno.h>

#include "base/cancel.h"
#include "base/clock.h"
#include "fs/inode.h"
#include "fs/namespace.h"

static void give_up(void *ctx)
{
    cancel_fire(ctx);
}

static void interrupted(fuse_req_t req, void *data)
{
    struct call *c = data;

    (void)req;
    interrupt_came(c->fs->interrupts, &c->interrupt);
}

void call_begin(struct call *c, fuse_req_t req)
{
    c->fs = fuse_req_userdata(req);
    c->req = req;
    c->cancel = cancel_new();
    c->interrupt = (struct interrupt){.req = req, .give_up = give_up, .ctx = c->cancel};
    fuse_req_interrupt_func(req, interrupted, c);
}

void call_end(struct call *c)
{
    fuse_req_interrupt_func(c->req, NULL, NULL);
    interrupt_forget(c->fs->interrupts, &c->interrupt);
    cancel_free(c->cancel);
    c->cancel = NULL;
}

int reply_errno(int r)
{
    switch (-r) {
    case 0:
    case EACCES: case EBUSY: case EDQUOT: case EEXIST: case EFBIG: case EINTR: case EINVAL: case EIO:
    case EISDIR: case ELOOP: case ENAMETOOLONG: case ENODATA: case ENOENT: case ENOMEM: case ENOSPC:
    case ENOSYS: case ENOTDIR: case ENOTEMPTY: case EOPNOTSUPP: case EPERM: case ERANGE: case EROFS:
    case ESTALE: case ETIMEDOUT: case EXDEV:
        return -r;
    case ECANCELED:
        return EINTR;
    default: /* of the network and of our own; whoever calls read(2) knows EIO */
        return EIO;
    }
}

void reply_err(struct call *c, int r)
{
    call_end(c);
    fuse_reply_err(c->req, reply_errno(r));
}

static double seconds(uint64_t ns)
{
    return (double)ns / (double)NSEC_PER_SEC;
}

void reply_fill_entry(struct fs *fs, struct inode *i, struct fuse_entry_param *ret)
{
    struct attr a;

    ns_attr(i, &a);
    *ret = (struct fuse_entry_param){
        .ino = i->nodeid,
        .attr_timeout = seconds(fs->config->attr_ttl_ns),
        .entry_timeout = seconds(fs->config->dir_ttl_ns),
    };
    attr_to_stat(&a, i->ino, &ret->attr);
}

void reply_entry(struct call *c, struct inode *i)
{
    struct fuse_entry_param e;

    reply_fill_entry(c->fs, i, &e);
    inode_looked_up(i);
    call_end(c);
    if (fuse_reply_entry(c->req, &e) < 0)
        inode_forget(c->fs->inodes, e.ino, 1);
}

void reply_no_entry(struct call *c)
{
    struct fuse_entry_param e = {.entry_timeout = seconds(c->fs->config->dir_ttl_ns)};

    call_end(c);
    fuse_reply_entry(c->req, &e);
}

bool reply_create(struct call *c, struct inode *i, const struct fuse_file_info *fi)
{
    struct fuse_entry_param e;

    reply_fill_entry(c->fs, i, &e);
    inode_looked_up(i);
    call_end(c);
    if (fuse_reply_create(c->req, &e, fi) < 0) {
        inode_forget(c->fs->inodes, e.ino, 1);
        return false;
    }
    return true;
}

bool reply_open(struct call *c, const struct fuse_file_info *fi)
{
    call_end(c);
    return fuse_reply_open(c->req, fi) >= 0;
}

void reply_attr(struct call *c, struct inode *i)
{
    struct attr a;
    struct stat st;

    ns_attr(i, &a);
    attr_to_stat(&a, i->ino, &st);
    mutex_lock(&i->lock);
    if (i->unlinked)
        st.st_nlink = 0;
    mutex_unlock(&i->lock);
    call_end(c);
    fuse_reply_attr(c->req, &st, seconds(c->fs->config->attr_ttl_ns));
}

void reply_buf(struct call *c, const void *buf, size_t n)
{
    call_end(c);
    fuse_reply_buf(c->req, buf, n);
}

void reply_write(struct call *c, size_t n)
{
    call_end(c);
    fuse_reply_write(c->req, n);
}

void reply_readlink(struct call *c, const char *target)
{
    call_end(c);
    fuse_reply_readlink(c->req, target);
}

void reply_statfs(struct call *c, const struct statvfs *st)
{
    call_end(c);
    fuse_reply_statfs(c->req, st);
}

void reply_xattr(struct call *c, const void *value, size_t n, size_t size)
{
    call_end(c);
    if (!size)
        fuse_reply_xattr(c->req, n);
    else if (n > size)
        fuse_reply_err(c->req, ERANGE);
    else
        fuse_reply_buf(c->req, value, n);
}

void reply_parked_err(fuse_req_t req, int r)
{
    fuse_reply_err(req, reply_errno(r));
}

void reply_none(fuse_req_t req)
{
    fuse_reply_none(req);
}

void reply_parked_iov(fuse_req_t req, const struct iovec *iov, int n)
{
    fuse_reply_iov(req, iov, n);
}
