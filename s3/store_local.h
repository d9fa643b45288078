/* SPDX-License-Identifier: Apache-2.0
 *
 * store_local: an object store in a directory: a SQLite index (index.db) and one blob file per
 * body or part, named by id. The embedded default, with S3's semantics in full, all capabilities
 * present. What was acknowledged survives kill -9 (blobs are written, synced as `durable` says, and
 * only then entered in the index; blobs without an index row are removed at the next open).
 * One process at a time: an flock on the directory.
 */
#pragma once
#include <stdbool.h>
#include "s3/store.h"

struct store_local_params {
    const char *path;   /* created, mode 0700, if absent */
    const char *bucket; /* created if absent; NULL = none */
    bool durable;       /* fdatasync blobs and PRAGMA synchronous=FULL: also survives power cuts */
    unsigned threads;   /* 0 = 8 */
};

/* 0; -EBUSY when another process has it open (logged, with the path); -ENOTDIR, -EACCES, …; logs the reason. Blocks on the disk. */
int store_local_new(const struct store_local_params *p, struct store **ret);
