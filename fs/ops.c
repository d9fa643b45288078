/* SPDX-License-Identifier: Apache-2.0
 *
 * ops: the table. Handlers are in ops_*.c. What is missing here the kernel does itself (locks, SEEK_DATA,
 * copy_file_range by read and write).
 */
#include "fs/ops.h"

#include <errno.h>

#include "fs/inode.h"

#define WRITE_MAX (1u << 20)

struct inode *op_begin(struct call *c, fuse_req_t req, fuse_ino_t ino)
{
    struct inode *i;

    call_begin(c, req);
    if (!__atomic_load_n(&c->fs->asked, __ATOMIC_RELAXED) && !__atomic_exchange_n(&c->fs->asked, true, __ATOMIC_RELAXED))
        c->fs->first_request(c->fs->serving_ctx);
    i = inode_get(c->fs->inodes, ino);
    if (!i)
        reply_err(c, -ESTALE);
    return i;
}

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
    struct fs *fs = userdata;

    /* A foreign version is a new nodeid, so pages under one never go stale: dropping them by mtime would be waste. */
    conn->want &= ~(unsigned)(FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_WRITEBACK_CACHE | FUSE_CAP_SPLICE_READ |
                              FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE | FUSE_CAP_POSIX_ACL);
    conn->want |= conn->capable & (FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO |
                                   FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_ASYNC_READ | FUSE_CAP_EXPLICIT_INVAL_DATA |
                                   FUSE_CAP_CACHE_SYMLINKS);
    conn->max_write = WRITE_MAX;
    conn->max_background = 128;
    conn->congestion_threshold = 96;
    conn->time_gran = 1;
    fs->serving(fs->serving_ctx);
}

const struct fuse_lowlevel_ops fs_ops = {
    .init = op_init,
    .lookup = op_lookup,
    .forget = op_forget,
    .forget_multi = op_forget_multi,
    .getattr = op_getattr,
    .setattr = op_setattr,
    .statfs = op_statfs,
    .mknod = op_mknod,
    .mkdir = op_mkdir,
    .symlink = op_symlink,
    .link = op_link,
    .unlink = op_unlink,
    .rmdir = op_rmdir,
    .rename = op_rename,
    .readlink = op_readlink,
    .opendir = op_opendir,
    .readdir = op_readdir,
    .readdirplus = op_readdirplus,
    .releasedir = op_releasedir,
    .fsyncdir = op_fsyncdir,
    .create = op_create,
    .open = op_open,
    .read = op_read,
    .write = op_write,
    .flush = op_flush,
    .fsync = op_fsync,
    .release = op_release,
    .getxattr = op_getxattr,
    .setxattr = op_setxattr,
    .removexattr = op_removexattr,
    .listxattr = op_listxattr,
};
