/* SPDX-License-Identifier: Apache-2.0
 *
 * sums: the CRC32Cs of what a staging file holds, as of the moment when the bytes entered it. They
 * are kept for runs: a run lies within one block (SUMS_BLOCK aligned bytes of the staging file) and
 * its bytes follow one another in the staged file too, so that a range of the latter is mostly made
 * of whole runs and its CRC costs no disk. 24 bytes a run.
 *
 * Thread-safe. What touches the disk says so.
 */
#pragma once
#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SUMS_BLOCK (64ULL << 10)
#define SUMS_FILL (1ULL << 20)                 /* the most that one sums_compute() takes */
#define SUMS_RUNS (SUMS_FILL / SUMS_BLOCK + 1) /* and what it makes at most */

struct sum {
    uint64_t off; /* in the staging file */
    uint64_t at;  /* where the first byte lies in the staged file */
    uint32_t crc;
    uint32_t len : 31; /* > 0 */
    uint32_t bad : 1;  /* the bytes were found not to be what was written */
};

struct sums;

/* fd is borrowed: the staging file, for reading. */
struct sums *sums_new(int fd);
void sums_free(struct sums *s); /* NULL is fine */

/* The runs of n bytes at buf (0 < n ≤ SUMS_FILL) that will lie at off; returns how many. Pure. */
unsigned sums_compute(uint64_t off, uint64_t at, const void *buf, size_t n,
                      struct sum runs[static SUMS_RUNS]);
/* The bytes of these runs are there now. */
void sums_enter(struct sums *s, const struct sum *runs, unsigned n);
/* The CRC32C of [off, off+n), all of which was entered and nothing of it cut. A run of which only a
 * part is wanted is read, and must be what it was (disk). -EIO (logged) when it is not. */
int sums_crc(struct sums *s, uint64_t off, uint64_t n, uint32_t *ret);
/* Appends the runs of [off, off+n), cut to it, to `into` (struct sum). Else as sums_crc(). */
int sums_get(struct sums *s, uint64_t off, uint64_t n, GArray *into);
/* Reads (disk) every run of [off, off+n): 0 when all are what they were, else -EIO (logged). */
int sums_verify(struct sums *s, uint64_t off, uint64_t n);
/* [off, off+n) is garbage and may be overwritten from now on. The rest of a run at either end gets
 * a CRC of its own: it is read (disk). */
void sums_cut(struct sums *s, uint64_t off, uint64_t n);
