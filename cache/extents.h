/* SPDX-License-Identifier: Apache-2.0
 *
 * extents: the interval map of a file's content. It says of every byte of [0, size) where it is:
 * in staging, in the base object (at the same offset), nowhere because it is zero, or only in the
 * bucket's unfinished multipart upload. Pure: no I/O, no lock; the owner serializes.
 *
 * Neighbours that continue each other are one extent: a file of any size that is written in order
 * is a single one. All operations are O(log n + extents touched).
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum extent_kind {
    EXTENT_ZERO,    /* a hole */
    EXTENT_BASE,    /* the base object's bytes at the same offset */
    EXTENT_STAGED,  /* src: offset in the file's staging */
    EXTENT_FETCHED, /* src: offset in a commit's scratch; never in a file's own map */
    EXTENT_PUNCHED, /* in an uploaded part, no longer in staging */
};

struct extent {
    uint64_t off, len;
    enum extent_kind kind;
    uint64_t src; /* STAGED, FETCHED; else 0 */
};

struct extents;

/* Told of every STAGED range that a change displaces: n bytes of staging at src are garbage now. */
typedef void extents_dropped(void *ctx, uint64_t src, uint64_t n);

struct extents *extents_new(void);
void extents_free(struct extents *e); /* NULL is fine; tells nobody */
uint64_t extents_size(const struct extents *e);
size_t extents_count(const struct extents *e);
/* dropped may be NULL. */
void extents_on_dropped(struct extents *e, extents_dropped *dropped, void *ctx);

/* [off, off+len) is now kind; a gap between the old end and off becomes ZERO; the size grows as
 * needed. len > 0. */
void extents_set(struct extents *e, uint64_t off, uint64_t len, enum extent_kind kind,
                 uint64_t src);
/* Cuts, or grows with ZERO. */
void extents_truncate(struct extents *e, uint64_t size);
/* The part of the first extent that ends after off, clipped to start at off or later. False at the
 * end. Iteration: for (off = a; extents_next(e, off, &x) && x.off < b; off = x.off + x.len). */
bool extents_next(const struct extents *e, uint64_t off, struct extent *ret);
/* Whether any byte of [off, off+len) is of this kind. */
bool extents_has(const struct extents *e, uint64_t off, uint64_t len, enum extent_kind kind);
/* How many bytes of [off, off+len) are. */
uint64_t extents_bytes(const struct extents *e, uint64_t off, uint64_t len, enum extent_kind kind);
/* A map of its own with the extents of [off, off+len) at the same offsets (ZERO before them), and
 * no dropped(). The whole file: off 0, len UINT64_MAX. */
struct extents *extents_slice(const struct extents *e, uint64_t off, uint64_t len);
/* Aborts unless the extents cover [0, size) without gap, overlap or unmerged neighbours. */
void extents_check(const struct extents *e);

static inline void extents_freep(struct extents **e)
{
    extents_free(*e);
}
#define _cleanup_extents_ __attribute__((cleanup(extents_freep)))
