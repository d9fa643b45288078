/* SPDX-License-Identifier: Apache-2.0
 *
 * reply: a FUSE request under way, and its answer. This module alone calls fuse_reply_*. Every reply
 * function ends the call: exactly one of them is called per request, with no lock held.
 */
#pragma once
#include "fs/fs.h"
#include "fs/interrupt.h"
#include <fuse_lowlevel.h>

struct cancel;
struct inode;

/* One synchronous request: a token that the kernel's INTERRUPT fires. */
struct call {
    struct fs *fs;
    fuse_req_t req;
    struct cancel *cancel;
    struct interrupt interrupt;
};

void call_begin(struct call *c, fuse_req_t req);
void call_end(struct call *c); /* without a reply: someone else will give it */

/* What the caller sees of an internal -errno: 0, or a positive errno that system calls return. */
int reply_errno(int r);

void reply_err(struct call *c, int r); /* r: 0 or -errno */
/* Entry for a pinned inode (stays the caller's); counts the lookup, and takes it back when the kernel did not get the reply. */
void reply_entry(struct call *c, struct inode *i);
void reply_no_entry(struct call *c); /* a negative entry, cached for dir_ttl */
/* false: the kernel did not take it; the open file is the caller's to close. */
bool reply_create(struct call *c, struct inode *i, const struct fuse_file_info *fi);
bool reply_open(struct call *c, const struct fuse_file_info *fi);
void reply_attr(struct call *c, struct inode *i);
void reply_buf(struct call *c, const void *buf, size_t n);
void reply_write(struct call *c, size_t n);
void reply_readlink(struct call *c, const char *target);
void reply_statfs(struct call *c, const struct statvfs *st);
/* getxattr/listxattr: size 0 asks for the length; -ERANGE when it does not fit. */
void reply_xattr(struct call *c, const void *value, size_t n, size_t size);
/* For parked requests, which have no call any more. */
void reply_parked_err(fuse_req_t req, int r);
void reply_none(fuse_req_t req); /* FORGET has no answer */
void reply_parked_iov(fuse_req_t req, const struct iovec *iov, int n);

/* An entry as reply_entry makes it, for readdirplus; does not count the lookup. */
void reply_fill_entry(struct fs *fs, struct inode *i, struct fuse_entry_param *ret);
