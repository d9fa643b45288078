/* SPDX-License-Identifier: Apache-2.0
 *
 * inode: the table of files and directories that the kernel knows, or that we hold state of. An
 * inode is one version chain of one object (or a directory): a foreign version of the object gets an
 * inode, and so a nodeid, of its own, because the kernel's page cache is per nodeid.
 *
 * Lives while the kernel has looked it up, while someone here pins it, or while it has children.
 * A child pins its parent. An inode with a cache_file is pinned by it.
 */
#pragma once
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/mutex.h"
#include "fs/attr.h"

struct cache_file;
struct fs;
struct listing;
struct inode_table;

#define INODE_ROOT 1

struct inode {
    uint64_t nodeid, ino;      /* immutable; ino: what stat shows, unique among living inodes */
    bool is_dir;               /* immutable */
    struct inode_table *table; /* immutable */

    /* table lock */
    struct inode *parent; /* NULL: the root. Kept (pinned) after detach, for its key's sake */
    char *name;
    GHashTable *children; /* name → inode of attached children; NULL when none (directories) */
    uint64_t nlookup;
    unsigned pins;
    bool attached; /* reachable as its parent's child `name`; false: unlinked or an old version */

    struct mutex lock; /* rank inode; the rest: */
    struct attr attr;  /* of a file with a cache_file, size is the cache's */
    char *etag;        /* committed version as we know it; NULL: never committed, or a directory without marker */
    char *storage_class;
    uint64_t untagged_ns; /* as in struct store_object */
    struct store_headers headers; /* all headers of that version; attr's metadata among them are refreshed on use */
    uint64_t fresh_ns;            /* mono: attributes were true then; 0 = must be asked for */
    bool unlinked;                /* its name was removed by us */
    bool discarded;               /* and what it had was thrown away: only handles are left of it */
    bool moving;                  /* is being renamed: what the bucket says of either name is no news until that is over */
    bool has_marker;              /* directories: the object "key/" is known to exist */
    unsigned own;                 /* files, ATTR_*: set here and not committed yet; a new look at the bucket leaves them alone */
    bool times_set;               /* mtime was set explicitly since the last commit: not the time of the last write */
    char *target;                 /* symlinks, once read; set once */
    struct cache_file *file;      /* NULL: nothing open, nothing dirty; holds a pin */
    unsigned users;               /* open handles and operations that use the file; it stays while there are some */
    unsigned handles;             /* open handles among the users */
    unsigned writers;             /* those that may write */
    uint64_t changes;             /* counts our own changes: a reply asked for before one of them is not news */
    uint64_t moves;               /* directories: counts what changed the keys below */
    struct listing *listing;      /* directories: last listing; NULL = none */
    GSList *loading;              /* directories: listings being loaded, referenced by their loaders; changes of ours are noted in them */
    unsigned pages;               /* directories: that its last listing had, or more */
    unsigned misses;              /* directories: names asked for that were not there, since misses_ns */
    uint64_t misses_ns;           /* mono: then the last listing was begun, or the first of these misses was */
};

/* Where the root lies: bucket NULL = every bucket is a directory of the root; prefix "" or "a/b/". Copied. fs is kept for inode_fs(). */
struct inode_table *inode_table_new(struct fs *fs, const char *bucket, const char *prefix);
struct fs *inode_fs(const struct inode *i);
void inode_table_free(struct inode_table *t); /* whatever the kernel has not forgotten goes too */

/* All return pinned inodes (inode_put) or NULL. */
struct inode *inode_root(struct inode_table *t);
struct inode *inode_get(struct inode_table *t, uint64_t nodeid);
struct inode *inode_child(struct inode *parent, const char *name);
struct inode *inode_pin(struct inode *i);
/* A new attached child; an attached child of that name is detached first. Its attributes are zero. */
struct inode *inode_add(struct inode *parent, const char *name, bool is_dir);
void inode_put(struct inode *i); /* NULL is fine */

void inode_detach(struct inode *i);                                            /* no longer its parent's child */
void inode_move(struct inode *i, struct inode *parent, const char *name);      /* a child there is detached first */
void inode_looked_up(struct inode *i);                                         /* one more lookup by the kernel */
void inode_forget(struct inode_table *t, uint64_t nodeid, uint64_t n);
uint64_t inode_count(struct inode_table *t);
/* Pinned copies of all attached children, or of all living descendants (depth first, parents first). Frees by inode_put. */
GPtrArray *inode_children(struct inode *dir, bool deep);
GPtrArray *inode_all(struct inode_table *t);

/* The object this inode stands for: a file's key, a directory's key with its "/" ("" for a bucket's root). 0; -ENAMETOOLONG past
 * STORE_KEY_MAX; for the root of all buckets *ret_bucket is NULL. Both owned by the caller. */
int inode_key(struct inode *i, char **ret_bucket, char **ret_key);
/* The same for a child of dir that need not exist; bucket NULL = the child is a bucket (its name in *ret_key). */
int inode_child_key(struct inode *dir, const char *name, bool is_dir, char **ret_bucket, char **ret_key);
/* d_ino of a name that has no inode (yet): what it would most likely get. */
uint64_t inode_ino_for(const char *bucket, const char *key);
/* Path below the mount point, for messages; caller frees. */
char *inode_path(struct inode *i);
char *inode_name(struct inode *i); /* last component; caller frees */
bool inode_attached(struct inode *i);
/* The directory of which i is a child, pinned, and its name there (caller frees); false when detached or the root. */
bool inode_parent(struct inode *i, struct inode **ret, char **ret_name);
bool inode_is_bucket_root(struct inode *i); /* a directory whose children are buckets */

static inline void inode_putp(struct inode **i)
{
    inode_put(*i);
}
#define _cleanup_inode_ __attribute__((cleanup(inode_putp)))
