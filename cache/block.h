/* SPDX-License-Identifier: Apache-2.0
 *
 * block: the pool of 128 KiB blocks that hold parts of object versions, in one arena of fixed size.
 * A block knows which of its pages (4 KiB) are valid and which a GET under way will bring. See
 * block.c for the states.
 *
 * One lock serves the pool, its version table, and the readers and GETs built on it. Everything
 * below is called under it, unless it says otherwise, and nothing below blocks.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/mutex.h"
#include "cache/version.h"

#define BLOCK_SHIFT 17
#define BLOCK_SIZE (UINT64_C(1) << BLOCK_SHIFT)
#define BLOCK_PAGE_SHIFT 12
#define BLOCK_PAGE (UINT64_C(1) << BLOCK_PAGE_SHIFT)
#define BLOCKS_MIN 64 /* the smallest arena: 8 MiB */

typedef uint32_t block_pages; /* bit i: page i of a block */

struct block;

/* Someone who waits for pages of a block; he holds a pin on it. */
struct block_wait {
    struct block_wait *next, **prev;
    struct block *block; /* NULL when not waiting */
    block_pages need;
    void *owner;
};

struct block {
    struct version *version; /* NULL: EMPTY */
    uint64_t index;          /* block number in the object */
    unsigned char *data;     /* constant; BLOCK_SIZE bytes */
    block_pages valid;       /* readable; such bytes never change while the block has this key */
    block_pages fetching;    /* each bit is owned by one GET, which alone writes that page */
    block_pages served;      /* were read at least once */
    unsigned pins;
    bool visited; /* SIEVE's bit */
    bool ahead;   /* made before anyone read it */
    bool spent;   /* in the list of spent blocks */
    bool touched; /* its memory was written once: it is real */
    struct block_wait *waiters;
    struct block *chain;         /* hash chain */
    struct block *older, *newer; /* spent: the list */
    struct block *prev, *next;   /* keyed: SIEVE's queue, newest first; EMPTY: free list by next */
};

struct block_pool;

int block_pool_new(
    uint64_t memory,
    struct block_pool **ret); /* no lock. 0, -ENOMEM, -EINVAL below BLOCKS_MIN blocks */
void block_pool_free(struct block_pool *p); /* no lock; nothing is pinned or fetching; no version is
                                               referenced but by blocks */
void block_pool_lock(struct block_pool *p);
void block_pool_unlock(struct block_pool *p);
void block_pool_wait(struct block_pool *p, struct cond *c); /* cond_wait() on the pool's lock */
struct version_table *block_pool_versions(struct block_pool *p);
unsigned block_pool_capacity(const struct block_pool *p); /* blocks; needs no lock */
unsigned block_pool_used(const struct block_pool *p);     /* blocks that hold or fetch something */
unsigned block_pool_room(const struct block_pool *p);     /* blocks that block_make() can give */
/* Moves the blocks of `from` that nobody uses at this moment to `to`, where it has none. Slow. */
void block_pool_move(struct block_pool *p, struct version *from, struct version *to);
/* Aborts unless all invariants hold (nothing under NDEBUG). Takes time in proportion to the
 * capacity. */
void block_pool_check(struct block_pool *p);

/* The pages of a block that bytes [off, end) of the object touch. */
block_pages block_span(uint64_t index, uint64_t off, uint64_t end);

struct block *block_find(struct block_pool *p, const struct version *v, uint64_t index);
/* A block for a key that has none, pinned once; evicts another one if need be. NULL: no room. */
struct block *block_make(struct block_pool *p, struct version *v, uint64_t index);
void block_pin(struct block_pool *p, struct block *b);
void block_unpin(struct block_pool *p, struct block *b);
/* Tells the eviction policy that pages are being read. */
void block_touch(struct block *b, block_pages pages);
/* Marks a block that was made ahead of its readers: it outlives one sweep without having been read.
 */
void block_expect(struct block *b);

/* A GET will bring these pages, none of which is valid or claimed. The block stays until filled or
 * dropped. */
void block_claim(struct block_pool *p, struct block *b, block_pages pages);
/* The claimed pages are there. Waiters that now have all they need are moved to the list woken.
 * The block may be evicted at once if nobody holds a pin. */
void block_fill(struct block_pool *p, struct block *b, block_pages pages,
                struct block_wait **woken);
/* The claimed pages will not come. Waiters that need one of them are moved to the list woken. */
void block_drop(struct block_pool *p, struct block *b, block_pages pages,
                struct block_wait **woken);
void block_await(struct block_pool *p, struct block *b,
                 struct block_wait *w);   /* w->need and owner are set */
void block_unawait(struct block_wait *w); /* no-op when not waiting */
bool block_awaited(const struct block *b, block_pages pages);
