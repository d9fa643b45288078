/* SPDX-License-Identifier: Apache-2.0
 *
 * namespace: what a path means. Looks names up in what we know and in the bucket, and changes them.
 * The kernel serializes changes within one directory (it holds the directory's lock), so two changes
 * of one name never run at once; lookups of other names and all data traffic do.
 *
 * All functions block on the store, take a cancel (-EINTR), and return 0 or -errno: the store's, or as
 * the system call of the same name says. Inodes come back pinned. No lock is held across requests.
 */
#pragma once
#include "fs/fs.h"
#include "fs/inode.h"

struct cancel;

#define NS_TARGET_MAX 4096 /* bytes of a symlink's target, as PATH_MAX */

/* The child of dir with this name, attributes fresh. -ENOENT. */
int ns_lookup(struct fs *fs, struct inode *dir, const char *name, struct cancel *cancel, struct inode **ret);
/* Brings attributes up to date when they are older than attr_ttl. -ESTALE: the object is another version now. -ENOENT: gone. */
int ns_refresh(struct fs *fs, struct inode *i, struct cancel *cancel);
/* A consistent copy of the attributes as we know them. Does not block. */
void ns_attr(struct inode *i, struct attr *ret);
/* The directory's listing: the last one if fresh, else loaded. */
int ns_listing(struct fs *fs, struct inode *dir, struct cancel *cancel, struct listing **ret);
/* A listing past dir_ttl answers nothing any more: lets go of its memory. */
void ns_drop_stale_listing(struct fs *fs, struct inode *dir);
struct listing_entry;
/* The inode of an entry that was listed at time_ns (mono), if its attributes are known without a request: fresh, or the catalog knows this
 * version and the listing is fresh. Else -ENOENT. */
int ns_entry(struct fs *fs, struct inode *dir, const struct listing_entry *e, uint64_t time_ns, struct inode **ret);
/* Notes a change of ours in dir's listing: name is there (child) or gone (NULL). */
void ns_note(struct inode *dir, const char *name, struct inode *child);

int ns_create(struct fs *fs, struct inode *dir, const char *name, mode_t mode, uid_t uid, gid_t gid, struct cancel *cancel, struct inode **ret);
/* A symlink (target), fifo or socket: small objects, written at once. */
int ns_make_special(struct fs *fs, struct inode *dir, const char *name, mode_t mode, const char *target, uid_t uid, gid_t gid,
                    struct cancel *cancel, struct inode **ret);
int ns_mkdir(struct fs *fs, struct inode *dir, const char *name, mode_t mode, uid_t uid, gid_t gid, struct cancel *cancel, struct inode **ret);
int ns_unlink(struct fs *fs, struct inode *dir, const char *name, struct cancel *cancel);
int ns_rmdir(struct fs *fs, struct inode *dir, const char *name, struct cancel *cancel);
int ns_rename(struct fs *fs, struct inode *dir, const char *name, struct inode *to_dir, const char *to_name, unsigned flags, struct cancel *cancel);
int ns_readlink(struct fs *fs, struct inode *i, struct cancel *cancel, char **ret);

enum attr_set { ATTR_MODE = 1, ATTR_UID = 2, ATTR_GID = 4, ATTR_SIZE = 8, ATTR_MTIME = 16, ATTR_ATIME = 32 };
/* Sets what the mask names. Of a file with uncommitted data it is part of its next commit, else it is in the bucket on return. */
int ns_set_attr(struct fs *fs, struct inode *i, const struct attr *a, unsigned mask, bool through_handle, struct cancel *cancel);

/* The inode's cache_file, made when there is none, for use until ns_file_put(). -ESTALE when the inode is an old version. Does not block. */
int ns_file_get(struct fs *fs, struct inode *i, struct cache_file **ret);
/* Ends one use; the file goes when nobody uses it and nothing in it is uncommitted. */
void ns_file_put(struct inode *i);
/* A file just made that could not be committed: it is not there. */
void ns_discard(struct inode *i);
/* What the file had uncommitted was thrown away: its name is looked up anew. */
void ns_discarded(struct inode *i);
/* Nobody waits: commits what the file has uncommitted, unless it is open for writing. Called while the caller still uses it. */
void ns_commit_later(struct fs *fs, struct inode *i, struct cache_file *f);
/* Nobody knows of the file yet, which an earlier mount left: commits it. */
void ns_commit_recovered(struct fs *fs, struct inode *i);
/* The file's data were written: sets mtime and ctime to now. */
void ns_written(struct inode *i);
/* Before a flush: what the inode's attributes say becomes part of the commit of written data. Asks for the object's headers first where those
 * we know are older than attr_ttl. */
void ns_push_attr(struct fs *fs, struct inode *i, struct cache_file *f, struct cancel *cancel);
/* Whether that will ask. */
bool ns_attr_is_old(struct fs *fs, struct inode *i, struct cache_file *f);
/* The same, from what is known. Does not block. */
void ns_push_known_attr(struct inode *i, struct cache_file *f);
/* A commit of ours made `now` this inode's version: cache_params.committed. owner is the inode. */
void ns_committed(void *owner, const struct store_object *now, bool same_content);
/* A commit met someone else's version and stored the file beside it: cache_params.parted. The inode gets that name; its old one is
 * looked up anew, and gives another inode. */
void ns_parted(void *owner, const char *bucket, const char *key);

/* A directory is about to lose its last known entry: makes its marker if it has none, so that it does not vanish. */
int ns_keep_directory(struct fs *fs, struct inode *dir, const char *losing_key, struct cancel *cancel);
/* Writes a directory's marker object with its attributes. exclusive: -EEXIST if it is there. */
int ns_put_marker(struct fs *fs, struct inode *dir, bool exclusive, struct cancel *cancel);
