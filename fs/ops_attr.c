/* SPDX-License-Identifier: Apache-2.0
 *
 * ops_attr: getattr, setattr, statfs.
 */
#include <errno.h>
#include <sys/statvfs.h>

#include "base/clock.h"
#include "fs/namespace.h"
#include "fs/ops.h"

/* An inode that is open shows what its handles read, whatever the bucket has by now. */
static bool in_use(struct inode *i)
{
    bool used;

    mutex_lock(&i->lock);
    used = i->users > 0 && !i->discarded;
    mutex_unlock(&i->lock);
    return used;
}

void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct call c;
    _cleanup_inode_ struct inode *i = op_begin(&c, req, ino);
    int r;

    if (!i)
        return;
    r = ns_refresh(c.fs, i, c.cancel);
    if (r == -ESTALE && (fi || in_use(i)))
        r = 0;
    if (r < 0)
        reply_err(&c, r);
    else
        reply_attr(&c, i);
}

static unsigned wanted(const struct stat *st, int to_set, struct attr *a)
{
    int64_t now = clock_real_ns();
    unsigned mask = 0;

    if (to_set & FUSE_SET_ATTR_MODE)
        mask |= ATTR_MODE;
    if (to_set & FUSE_SET_ATTR_UID)
        mask |= ATTR_UID;
    if (to_set & FUSE_SET_ATTR_GID)
        mask |= ATTR_GID;
    if (to_set & FUSE_SET_ATTR_SIZE)
        mask |= ATTR_SIZE;
    if (to_set & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_ATIME_NOW))
        mask |= ATTR_ATIME;
    if (to_set & (FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW))
        mask |= ATTR_MTIME;
    *a = (struct attr){
        .mode = st->st_mode,
        .uid = st->st_uid,
        .gid = st->st_gid,
        .size = (uint64_t)st->st_size,
        .atime_ns = to_set & FUSE_SET_ATTR_ATIME_NOW ? now : clock_from_timespec(st->st_atim),
        .mtime_ns = to_set & FUSE_SET_ATTR_MTIME_NOW ? now : clock_from_timespec(st->st_mtim),
    };
    return mask;
}

void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *st, int to_set, struct fuse_file_info *fi)
{
    struct call c;
    _cleanup_inode_ struct inode *i = op_begin(&c, req, ino);
    struct attr a;
    unsigned mask;
    int r = 0;

    if (!i)
        return;
    mask = wanted(st, to_set, &a);
    if (!fi || !(mask & ATTR_SIZE)) /* what is set goes on top of what the bucket has */
        r = ns_refresh(c.fs, i, c.cancel);
    if (r == -ESTALE && fi)
        r = 0;
    if (r == 0 && mask)
        r = ns_set_attr(c.fs, i, &a, mask, fi != NULL, c.cancel);
    if (r < 0)
        reply_err(&c, r);
    else
        reply_attr(&c, i);
}

void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
    /* A bucket has no size and no limit; programs that look for room must find some. */
    struct statvfs st = {
        .f_bsize = 128 << 10,
        .f_frsize = 4096,
        .f_blocks = 1ULL << 42,
        .f_bfree = 1ULL << 42,
        .f_bavail = 1ULL << 42,
        .f_files = 1ULL << 40,
        .f_ffree = 1ULL << 40,
        .f_favail = 1ULL << 40,
        .f_namemax = 255,
    };
    struct call c;

    call_begin(&c, req);
    reply_statfs(&c, &st);
}
