/* SPDX-License-Identifier: Apache-2.0
 *
 * xattr: a file's extended attributes, by namespace of their name:
 *   user.video.*   facts of the video: computed; probed when got (see fs/video.h)
 *   user.s3.*      etag, key, bucket, storage_class, content_type, state: computed
 *   user.s3.tag.*  the object's tags: in the bucket
 *   other user.*   the user's own: in the catalog
 * Setting a computed one is accepted and ignored, so that cp -a and rsync -X work. Nothing else is
 * supported (-EOPNOTSUPP); security.* and system.* read as absent.
 */
#pragma once
#include <glib.h>

struct cancel;
struct fs;
struct inode;

/* Return 0 or -errno as the system calls do; may block on the store. */
int xattr_get(struct fs *fs, struct inode *i, const char *name, struct cancel *cancel, GBytes **ret);
int xattr_set(struct fs *fs, struct inode *i, const char *name, const void *value, size_t n, int flags, struct cancel *cancel);
int xattr_remove(struct fs *fs, struct inode *i, const char *name, struct cancel *cancel);
/* Names, each ended by NUL. Asks the bucket for nothing: tags are got by name, and facts not known yet are listed for what looks like media. */
int xattr_list(struct fs *fs, struct inode *i, GString **ret);
