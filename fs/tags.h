/* SPDX-License-Identifier: Apache-2.0
 *
 * tags: an object's tags, which are in the bucket and nowhere else. All block on the store.
 */
#pragma once
#include <glib.h>
#include <stdint.h>

struct cancel;
struct fs;
struct inode;

/* The value of one tag (caller frees); -ENODATA when there is none, or no object yet. */
int tags_value(struct fs *fs, const char *bucket, const char *key, const char *tag, struct cancel *cancel, char **ret);
/* Sets one tag of i's object, or with value NULL removes it; flags as of setxattr(2). -EBUSY when commits of the file kept
 * coming in between. */
int tags_set(struct fs *fs, struct inode *i, const char *bucket, const char *key, const char *tag, const char *value, int flags,
             struct cancel *cancel);
/* The tags that an object must get when it is written anew, NULL if none (caller unrefs). untagged_ns: as in struct
 * store_object, of what is there. */
int tags_kept(struct fs *fs, const char *bucket, const char *key, uint64_t untagged_ns, struct cancel *cancel, GHashTable **ret);
