/* SPDX-License-Identifier: Apache-2.0
 *
 * staging: an append-only file of the bytes written to one cache_file. Space is
 * reserved under a disk budget, then filled; what was filled never changes until it is dropped.
 * Dropped bytes go back to the disk and the budget, in whole pages, once no pin that was there at
 * the time remains: who pins sees vouched bytes, whatever is written or dropped after.
 *
 * The CRC32C of the bytes is taken when they come in, and kept (cache/sums.h).
 *
 * Thread-safe. Nothing here waits for the network; the functions that touch the disk say so.
 */
#pragma once
#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct budget;
struct staging;
struct staging_spares;
struct sum;

struct staging_pin {
    struct staging *s;
    uint64_t ticket;
    struct staging_pin *prev, *next; /* private */
};

/* Makes a file without a name in dir (disk). Refcounted, starts at 1. budget is borrowed. 0 or -errno. */
int staging_new(const char *dir, struct budget *budget, struct staging **ret);
/* The same with a name, which must not be there; a journal's record may refer to it. */
int staging_create(const char *path, struct budget *budget, struct staging **ret);
/* Opens what an earlier process kept. Everything in it counts as live; the budget is charged for it
 * whether it has room or not. -ENOENT, -errno. */
int staging_open(const char *path, struct budget *budget, struct staging **ret);
/* Files with names that nobody uses any more, emptied, for those to come: making and removing one costs more than writing a small
 * file to it. At most max of them. */
struct staging_spares *staging_spares_new(unsigned max);
void staging_spares_free(struct staging_spares *sp); /* removes them (disk); nobody's any more. NULL is fine */
/* One of them and its number, or -ENOENT. */
int staging_spares_take(struct staging_spares *sp, struct budget *budget, struct staging **ret, uint64_t *ret_number);
/* When it ends, unless it is kept, its file becomes a spare of that number. No record may refer to it by then. sp is borrowed. */
void staging_reuse(struct staging *s, struct staging_spares *sp, uint64_t number);
struct staging *staging_ref(struct staging *s);
/* The last one closes and removes the file (disk), unless it is kept or a spare from now on, and gives everything back. NULL is fine. */
void staging_unref(struct staging *s);
/* Whether a file with a name stays on the disk when it is closed. */
void staging_keep(struct staging *s, bool keep);

/* n bytes at the end are now the caller's to fill: 0 and their offset, or -EAGAIN when the budget
 * has no room, -EMSGSIZE when it never will. */
int staging_reserve(struct staging *s, size_t n, uint64_t *ret_off);
/* Fills a reserved range (disk) with bytes that lie at `at` in the staged file. 0 or -errno; on
 * failure the caller drops the range. */
int staging_fill(struct staging *s, uint64_t off, uint64_t at, const void *buf, size_t n);
/* Appends what is kept of the CRCs of [off, off+n), filled, to `into` (struct sum), for
 * staging_restore() in a later process. Reads (disk) what shares a block with either end. 0 or -EIO. */
int staging_sums(struct staging *s, uint64_t off, uint64_t n, GArray *into);
/* Of a file opened again: its bytes, whose CRCs nobody knows yet, are these. */
void staging_restore(struct staging *s, const struct sum *runs, unsigned n);
/* Reads filled bytes (disk). 0 or -errno. */
int staging_read(struct staging *s, uint64_t off, void *buf, size_t n);
/* The CRC32C of filled bytes, as they were when they came. Reads (disk) at most what shares a block
 * with either end, and checks that: -EIO (logged) when the disk does not hold what was filled. */
int staging_crc(struct staging *s, uint64_t off, uint64_t n, uint32_t *ret);
/* Whether the disk holds filled bytes as they came: reads them all (disk). 0, or -EIO (logged). */
int staging_verify(struct staging *s, uint64_t off, uint64_t n);
/* What was filled is on the disk (waits for that), with its name. 0 or -errno. */
int staging_sync(struct staging *s);
/* [off, off+n) is garbage from now on. */
void staging_drop(struct staging *s, uint64_t off, uint64_t n);
/* Where the next reserve begins: whatever lies below was written before now. */
uint64_t staging_end(struct staging *s);

/* Keeps what is there now (also if dropped after now) until staging_unpin(). Holds a reference. */
void staging_pin(struct staging *s, struct staging_pin *pin);
void staging_unpin(struct staging_pin *pin);

/* Whether there is enough garbage that staging_reclaim() is worth it. */
bool staging_wants_reclaim(struct staging *s);
/* Gives garbage back to disk and budget (disk). Returns the bytes given. */
uint64_t staging_reclaim(struct staging *s);

uint64_t staging_live(struct staging *s);      /* bytes reserved and not dropped */
uint64_t staging_charged(struct staging *s);   /* bytes taken from the budget */
/* The file, for tests. */
int staging_fd(const struct staging *s);
