/* SPDX-License-Identifier: Apache-2.0
 *
 * ops_name: names looked up, made, removed, changed.
 */
#include <errno.h>

#include "cache/cache.h"
#include "fs/namespace.h"
#include "fs/ops.h"

void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct call c;
    _cleanup_inode_ struct inode *dir = op_begin(&c, req, parent), *i = NULL;
    int r;

    if (!dir)
        return;
    r = ns_lookup(c.fs, dir, name, c.cancel, &i);
    if (r == 0)
        reply_entry(&c, i);
    else if (r == -ENOENT)
        reply_no_entry(&c);
    else
        reply_err(&c, r);
}

void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t n)
{
    struct fs *fs = fuse_req_userdata(req);

    inode_forget(fs->inodes, ino, n);
    reply_none(req);
}

void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
    struct fs *fs = fuse_req_userdata(req);

    for (size_t n = 0; n < count; n++)
        inode_forget(fs->inodes, forgets[n].ino, forgets[n].nlookup);
    reply_none(req);
}

/* i: what the call that returned r has made. */
static void answer_new(struct call *c, int r, struct inode *const *i)
{
    if (r < 0)
        reply_err(c, r);
    else
        reply_entry(c, *i);
}

void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
    struct call c;
    _cleanup_inode_ struct inode *dir = op_begin(&c, req, parent), *i = NULL;
    const struct fuse_ctx *ctx = fuse_req_ctx(req);
    int r;

    (void)rdev;
    if (!dir)
        return;
    if (S_ISREG(mode) || !(mode & S_IFMT)) {
        r = ns_create(c.fs, dir, name, mode, ctx->uid, ctx->gid, c.cancel, &i);
        if (r == 0) {
            r = cache_file_flush(i->file, c.cancel);
            if (r < 0)
                ns_discard(i);
            ns_file_put(i);
        }
    } else {
        r = ns_make_special(c.fs, dir, name, mode, NULL, ctx->uid, ctx->gid, c.cancel, &i);
    }
    answer_new(&c, r, &i);
}

void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
    struct call c;
    _cleanup_inode_ struct inode *dir = op_begin(&c, req, parent), *i = NULL;
    const struct fuse_ctx *ctx = fuse_req_ctx(req);

    if (dir)
        answer_new(&c, ns_mkdir(c.fs, dir, name, mode, ctx->uid, ctx->gid, c.cancel, &i), &i);
}

void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
    struct call c;
    _cleanup_inode_ struct inode *dir = op_begin(&c, req, parent), *i = NULL;
    const struct fuse_ctx *ctx = fuse_req_ctx(req);

    if (dir)
        answer_new(&c, ns_make_special(c.fs, dir, name, S_IFLNK | 0777, target, ctx->uid, ctx->gid, c.cancel, &i), &i);
}

void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
    struct call c;

    (void)ino, (void)parent, (void)name;
    call_begin(&c, req);
    reply_err(&c, -EPERM); /* an object has one key */
}

void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct call c;
    _cleanup_inode_ struct inode *dir = op_begin(&c, req, parent);

    if (dir)
        reply_err(&c, ns_unlink(c.fs, dir, name, c.cancel));
}

void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct call c;
    _cleanup_inode_ struct inode *dir = op_begin(&c, req, parent);

    if (dir)
        reply_err(&c, ns_rmdir(c.fs, dir, name, c.cancel));
}

void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t to_parent, const char *to_name, unsigned flags)
{
    struct call c;
    _cleanup_inode_ struct inode *dir = op_begin(&c, req, parent), *to = NULL;

    if (!dir)
        return;
    to = inode_get(c.fs->inodes, to_parent);
    reply_err(&c, to ? ns_rename(c.fs, dir, name, to, to_name, flags, c.cancel) : -ESTALE);
}

void op_readlink(fuse_req_t req, fuse_ino_t ino)
{
    struct call c;
    _cleanup_inode_ struct inode *i = op_begin(&c, req, ino);
    g_autofree char *target = NULL;
    int r;

    if (!i)
        return;
    r = ns_readlink(c.fs, i, c.cancel, &target);
    if (r < 0)
        reply_err(&c, r);
    else
        reply_readlink(&c, target);
}
