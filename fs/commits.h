/* SPDX-License-Identifier: Apache-2.0
 *
 * commits: the commits that nobody waits for: of files that were closed when close does not wait, of
 * what was written through a mapping after the last close, of what an earlier mount left. One that
 * fails is made again, later and later, as long as that may help; then the file stays dirty until it
 * is written, synced or removed.
 */
#pragma once
#include "fs/fs.h"

struct cache_file;
struct commits;
struct inode;

int commits_new(struct fs *fs, struct commits **ret); /* -errno */
/* Ends the waiting for them; what is not committed stays dirty. Nothing is added any more. NULL is fine. */
void commits_free(struct commits *c);
/* For what else a close has to ask of the bucket. */
struct workq *commits_queue(struct commits *c);
/* Commits a file for which the mount has no name, until it is in the bucket or that is refused; else it is the next mount's. Takes over the reference. */
void commits_add_unnamed(struct commits *c, struct cache_file *f);
/* Commits the inode's file soon. The inode's file is in use (ns_file_get()), which is taken over. Does not block. */
void commits_add(struct commits *c, struct inode *i, struct cache_file *f);
