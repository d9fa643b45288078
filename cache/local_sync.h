/* SPDX-License-Identifier: Apache-2.0
 *
 * local_sync: what was sealed reaches the disk, so that a power cut loses at most what was sealed
 * in the last moments. A thread of its own does that from time to time for every file whose seal
 * is written and not yet synced: first the staged bytes, then the mark in the journal that says so,
 * then the journal. A seal that is marked stays until a newer one is, or until its content is in
 * the bucket (cache/journal.h).
 *
 * Thread-safe. Blocks on the disk where said, never on the network.
 */
#pragma once
#include <stdint.h>

struct cache;
struct cache_file;
struct local_sync;

/* period_ns: how long a seal may remain unsynced; 0: 5 s. 0 or -errno. */
int local_sync_new(struct cache *c, uint64_t period_ns, struct local_sync **ret);
/* Syncs what there is once more, and ends; calls come to nothing after that. NULL is fine. */
void local_sync_stop(struct local_sync *ls);
void local_sync_free(struct local_sync *ls); /* stopped */

/* A seal of f was written. The file's lock is held. Does not block. */
void local_sync_add_locked(struct local_sync *ls, struct cache_file *f);
/* It has none any more, or is freed. Does not block. */
void local_sync_remove(struct local_sync *ls, struct cache_file *f);
/* Syncs all files (disk). 0 or the first -errno (logged): what could not be synced is tried again. */
int local_sync_run(struct local_sync *ls);
/* Syncs the seal that f has, if it has one (disk). 0 or -errno (logged). */
int local_sync_file(struct local_sync *ls, struct cache_file *f);
/* Files whose seal is not synced. */
unsigned local_sync_count(struct local_sync *ls);
