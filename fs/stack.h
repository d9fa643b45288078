/* SPDX-License-Identifier: Apache-2.0
 *
 * stack: builds what a mounted file system consists of, from the store up, and takes it down.
 */
#pragma once
#include "fs/fs.h"

/* Builds store, catalog, cache and inode table as the configuration says, and makes sure that the bucket can be used. Logs one
 * clear sentence on failure and returns an exit code of fs/mount.h; 0 on success. Starts threads; blocks on the server. */
int stack_open(struct fs *fs, const struct config *config);
#define STACK_CATALOG "catalog.db"

/* CACHE_DIR/ID, where ID stands for the server: the catalog's and the journals' place. The caller frees. */
char *stack_dir(const struct config *config);
/* Where, within it, the cache has its journals. g_free. */
char *stack_journals(const struct config *config);
/* Only store and cache: for work without a mount. Nothing is adopted, nobody has committed() called. */
int stack_open_cache(struct fs *fs, const struct config *config);
/* Says so in the log, if cache_dir is on a file system that does not last (stack_open() does it, too). */
void stack_warn_volatile(const struct config *config);
/* Brings what is uncommitted into the bucket if it can, then frees all. The session is gone. Also after a failed stack_open(). */
void stack_close(struct fs *fs);
