/* SPDX-License-Identifier: Apache-2.0
 *
 * What namespace.c and the ns_*.c share; nobody else includes it.
 */
#pragma once
#include "fs/namespace.h"

/* Asks for the object, and lets the catalog know. 0 or the store's -errno. */
int ns_head(struct fs *fs, const char *bucket, const char *key, struct cancel *cancel, struct store_object *ret);
/* Whether o is the version that i stands for, whatever became of its headers: the same bytes, of a file of the same type. */
bool ns_same_version_locked(struct fs *fs, struct inode *i, const struct store_object *o);
/* o, as the bucket had it at time_ns (mono), is what i is now; attributes set here and not committed yet stay. True: i has a file, whose
 * object got other headers since we knew it. */
bool ns_take_object_locked(struct fs *fs, struct inode *i, const struct store_object *o, uint64_t time_ns);
/* i's attributes, with what else is known of its headers. Caller clears. */
void ns_headers_of_locked(struct inode *i, struct store_headers *ret);
/* Writes a small object; *ret is what it is now (caller clears). exclusive: -EEXIST when it is there. */
int ns_put_small(struct fs *fs, const char *bucket, const char *key, const char *body, const struct store_headers *h,
                 const char *storage_class, GHashTable *tags, bool exclusive, struct cancel *cancel, struct store_object *ret);
/* Deletes the object; one that is absent is deleted. */
int ns_delete_object(struct fs *fs, const char *bucket, const char *key, struct cancel *cancel);
/* The same for a file of ours that could not be committed, perhaps because of someone else's version, which then stays. etag: the version
 * that we know; NULL = none. */
int ns_delete_known(struct fs *fs, const char *bucket, const char *key, const char *etag, struct cancel *cancel);
/* The inode's name is about to go: nothing uncommitted of it may come back; open handles go on reading,
 * from staging, where that has room for what they need. */
int ns_orphan(struct inode *i, struct cancel *cancel);
/* After ns_orphan(), and once the name is gone from the bucket, or another's. 0, or -errno: a crash may bring it back. */
int ns_bury(struct inode *i);
/* After ns_orphan(), the name stayed after all: what is uncommitted will be committed. */
void ns_abandon(struct inode *i);
/* The same for its file: commits what is uncommitted, unless it is open for writing. */
void ns_commit_abandoned(struct inode *i, struct cache_file *f);
/* The name is gone: detaches, and lets go of a file that only its uncommitted data kept. */
void ns_mark_unlinked(struct inode *i);
/* What was listed of it, or is being listed, tells nothing any more. */
void ns_forget_listing_locked(struct inode *dir);
/* -ENOTEMPTY when the bucket, or we, have anything below dir (NULL: nothing that we know of) but its own marker. */
int ns_check_empty(struct fs *fs, struct inode *dir, const char *bucket, const char *key, struct cancel *cancel);
/* What we know of dir's entries is not what is there. */
void ns_forget_listing(struct inode *dir);
/* i had this name when it was looked up. False: a commit has parted it from its name meanwhile. */
bool ns_is_named(struct inode *i, const char *name);
void ns_touch_dir(struct inode *dir); /* its entries changed just now */
