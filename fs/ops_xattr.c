/* SPDX-License-Identifier: Apache-2.0
 *
 * ops_xattr: extended attributes.
 */
#include <errno.h>

#include "fs/inode.h"
#include "fs/ops.h"
#include "fs/xattr.h"

void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
    struct call c;
    _cleanup_inode_ struct inode *i = op_begin(&c, req, ino);
    g_autoptr(GBytes) value = NULL;
    const void *data;
    gsize n;
    int r;

    if (!i)
        return;
    r = xattr_get(c.fs, i, name, c.cancel, &value);
    if (r < 0) {
        reply_err(&c, r);
        return;
    }
    data = g_bytes_get_data(value, &n);
    reply_xattr(&c, data, n, size);
}

void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t n, int flags)
{
    struct call c;
    _cleanup_inode_ struct inode *i = op_begin(&c, req, ino);

    if (i)
        reply_err(&c, xattr_set(c.fs, i, name, value, n, flags, c.cancel));
}

void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
    struct call c;
    _cleanup_inode_ struct inode *i = op_begin(&c, req, ino);

    if (i)
        reply_err(&c, xattr_remove(c.fs, i, name, c.cancel));
}

void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
    struct call c;
    _cleanup_inode_ struct inode *i = op_begin(&c, req, ino);
    g_autoptr(GString) names = NULL;
    int r;

    if (!i)
        return;
    r = xattr_list(c.fs, i, &names);
    if (r < 0)
        reply_err(&c, r);
    else
        reply_xattr(&c, names->str, names->len, size);
}
