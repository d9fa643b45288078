/* SPDX-License-Identifier: Apache-2.0
 *
 * block: see block.h. Threads: any. One lock of RANK_BLOCK, held for a microsecond or so at a time.
 *
 *   state      version  fetching  pins   list           leaves by
 *   EMPTY      NULL     0         0      free list      block_make → pinned, no page valid yet
 *   FETCHING   set      != 0      any    SIEVE's queue  block_fill or block_drop of the last page
 *   READY      set      0         any    SIEVE's queue  block_claim → FETCHING
 *     pinned                      > 0                   block_unpin → idle; EMPTY if no page is
 * valid idle                        0                     block_pin; eviction → EMPTY
 *
 * A set of pages per block, not one range: a read in the middle of a block fetches its own pages
 * only, several GETs may fill one block side by side, and a page has one writer in its life. So
 * bytes that an iovec of a pinned block points to never change, and no byte needs a lock.
 *
 * Invariants (block_pool_check):
 *  1. Every block is in the free list (EMPTY) or in SIEVE's queue and in the hash under its key.
 *  2. valid, fetching: disjoint, within the object; served within valid and fetching.
 *  3. A waiter holds a pin; what it needs is valid or fetching, and not all valid.
 *  4. An idle block has a valid page. n_free and n_idle count the free and the idle blocks.
 * Eviction takes idle blocks only: never pinned, never FETCHING.
 *
 * Eviction is SIEVE (Zhang et al., "SIEVE is Simpler than LRU", NSDI '24): new blocks enter at the
 * head; the hand goes from tail to head, spares a visited block once and takes the first other one.
 * A block is visited when a page is read a second time, for a first read of every page is what a
 * scan does; and when it was made ahead of its readers, until they come.
 *
 * Spent blocks are idle ones that a stream has read once from end to end; the kernel has those
 * bytes in its own cache. Beyond a few they are used again before memory that was never touched:
 * a page fault costs more than a copy, and what is small stays in the processor's cache.
 */
#include "cache/block.h"

#include <assert.h>
#include <errno.h>
#include <glib.h>
#include <sys/mman.h>

#define SPENT_KEEP 128u /* blocks: 16 MiB */

struct block_pool {
    struct mutex lock;
    unsigned n_blocks;    /* constant */
    unsigned char *arena; /* constant */
    size_t arena_size;    /* constant */
    struct block *blocks; /* lock, as all below */
    struct block **hash;
    unsigned hash_mask; /* constant */
    struct block *free;
    struct block *head, *tail, *hand; /* SIEVE's queue */
    struct block *spent_oldest, *spent_newest;
    unsigned n_free, n_idle, n_spent;
    struct version_table *versions;
    unsigned unchecked; /* debug builds: unlocks since the last check */
};

int block_pool_new(uint64_t memory, struct block_pool **ret)
{
    uint64_t n = memory >> BLOCK_SHIFT;
    if (n < BLOCKS_MIN || n > UINT32_MAX / 4)
        return -EINVAL;
    /* Pages of the arena become real when they are first written. */
    size_t size = (size_t)(n << BLOCK_SHIFT);
    void *arena = mmap(NULL, size, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (arena == MAP_FAILED)
        return -errno;

    struct block_pool *p = g_new0(struct block_pool, 1);
    mutex_init(&p->lock, RANK_BLOCK);
    p->n_blocks = p->n_free = (unsigned)n;
    p->arena = arena;
    p->arena_size = size;
    p->blocks = g_new0(struct block, n);
    unsigned buckets = 1;
    while (buckets < n)
        buckets *= 2;
    p->hash = g_new0(struct block *, buckets);
    p->hash_mask = buckets - 1;
    p->versions = version_table_new();
    for (unsigned i = p->n_blocks; i-- > 0;) {
        p->blocks[i].data = p->arena + ((size_t)i << BLOCK_SHIFT);
        p->blocks[i].next = p->free;
        p->free = &p->blocks[i];
    }
    *ret = p;
    return 0;
}

void block_pool_lock(struct block_pool *p)
{
    mutex_lock(&p->lock);
}

void block_pool_unlock(struct block_pool *p)
{
#ifndef NDEBUG
    /* A check takes time in proportion to the capacity: spread it over as many unlocks. */
    if (++p->unchecked * 8 >= p->n_blocks)
        block_pool_check(p);
#endif
    mutex_unlock(&p->lock);
}

void block_pool_wait(struct block_pool *p, struct cond *c)
{
    cond_wait(c, &p->lock);
}

struct version_table *block_pool_versions(struct block_pool *p)
{
    return p->versions;
}

unsigned block_pool_capacity(const struct block_pool *p)
{
    return p->n_blocks;
}

unsigned block_pool_used(const struct block_pool *p)
{
    return p->n_blocks - p->n_free;
}

unsigned block_pool_room(const struct block_pool *p)
{
    return p->n_free + p->n_idle;
}

block_pages block_span(uint64_t index, uint64_t off, uint64_t end)
{
    uint64_t lo = index << BLOCK_SHIFT, hi = lo + BLOCK_SIZE;
    if (off < lo)
        off = lo;
    if (end > hi)
        end = hi;
    if (off >= end)
        return 0;
    unsigned first = (unsigned)((off - lo) >> BLOCK_PAGE_SHIFT);
    unsigned last = (unsigned)((end - 1 - lo) >> BLOCK_PAGE_SHIFT);
    return (UINT32_MAX >> (31 - last)) & (UINT32_MAX << first);
}

static inline bool is_idle(const struct block *b)
{
    return b->pins == 0 && b->fetching == 0;
}

/* ---- hash ---- */

static struct block **bucket_of(struct block_pool *p, const struct version *v, uint64_t index)
{
    uint64_t h = ((uint64_t)(uintptr_t)v >> 4) * UINT64_C(0x9e3779b97f4a7c15);
    h = (h ^ index) * UINT64_C(0x9e3779b97f4a7c15);
    return &p->hash[(h >> 32) & p->hash_mask];
}

struct block *block_find(struct block_pool *p, const struct version *v, uint64_t index)
{
    struct block *b = *bucket_of(p, v, index);
    while (b && (b->index != index || b->version != v))
        b = b->chain;
    return b;
}

static void hash_add(struct block_pool *p, struct block *b)
{
    struct block **at = bucket_of(p, b->version, b->index);
    b->chain = *at;
    *at = b;
}

static void hash_remove(struct block_pool *p, struct block *b)
{
    struct block **at = bucket_of(p, b->version, b->index);
    while (*at != b)
        at = &(*at)->chain;
    *at = b->chain;
}

/* ---- SIEVE's queue ---- */

static void queue_add(struct block_pool *p, struct block *b)
{
    b->prev = NULL;
    b->next = p->head;
    if (p->head)
        p->head->prev = b;
    else
        p->tail = b;
    p->head = b;
}

static void queue_remove(struct block_pool *p, struct block *b)
{
    if (p->hand == b)
        p->hand = b->prev;
    if (b->prev)
        b->prev->next = b->next;
    else
        p->head = b->next;
    if (b->next)
        b->next->prev = b->prev;
    else
        p->tail = b->prev;
}

/* ---- spent blocks ---- */

static void spent_add(struct block_pool *p, struct block *b)
{
    b->spent = true;
    b->newer = NULL;
    b->older = p->spent_newest;
    if (b->older)
        b->older->newer = b;
    else
        p->spent_oldest = b;
    p->spent_newest = b;
    p->n_spent++;
}

static void spent_remove(struct block_pool *p, struct block *b)
{
    if (!b->spent)
        return;
    b->spent = false;
    if (b->older)
        b->older->newer = b->newer;
    else
        p->spent_oldest = b->newer;
    if (b->newer)
        b->newer->older = b->older;
    else
        p->spent_newest = b->older;
    p->n_spent--;
}

/* ---- eviction ---- */

/* From a key to EMPTY. The block is not counted as idle. */
static void block_clear(struct block_pool *p, struct block *b)
{
    assert(is_idle(b) && !b->waiters);
    spent_remove(p, b);
    hash_remove(p, b);
    queue_remove(p, b);
    version_unref(p->versions, b->version);
    b->version = NULL;
    b->valid = b->served = 0;
    b->visited = b->ahead = false;
    b->next = p->free;
    p->free = b;
    p->n_free++;
}

static void evict(struct block_pool *p, struct block *b)
{
    p->n_idle--;
    block_clear(p, b);
}

/* SIEVE's choice. Only when a block is idle, or this would not end. */
static struct block *victim(struct block_pool *p)
{
    assert(p->n_idle > 0);
    for (;;) {
        struct block *b = p->hand ? p->hand : p->tail;
        p->hand = b->prev;
        if (!is_idle(b))
            continue;
        if (b->visited) {
            b->visited = false;
            continue;
        }
        return b;
    }
}

/* ---- states ---- */

static block_pages all_pages(const struct block *b)
{
    return block_span(b->index, b->index << BLOCK_SHIFT, b->version->size);
}

/* After a pin or a claim went: the block may be idle now, or of no use. */
static void block_settle(struct block_pool *p, struct block *b)
{
    if (!is_idle(b))
        return;
    if (!b->valid) {
        block_clear(p, b);
        return;
    }
    p->n_idle++;
    if (b->ahead && !b->visited && b->served == all_pages(b))
        spent_add(p, b);
}

/* Before an idle block gets a pin or a claim. */
static void block_unsettle(struct block_pool *p, struct block *b)
{
    if (!is_idle(b))
        return;
    p->n_idle--;
    spent_remove(p, b);
}

struct block *block_make(struct block_pool *p, struct version *v, uint64_t index)
{
    assert(index << BLOCK_SHIFT < v->size);
    if (!p->free && p->n_idle == 0)
        return NULL;
    if (!p->free || !p->free->touched) {
        if (p->n_spent > SPENT_KEEP)
            evict(p, p->spent_oldest);
        else if (!p->free)
            evict(p, victim(p));
    }
    struct block *b = p->free; /* the last one to become EMPTY comes first */
    p->free = b->next;
    p->n_free--;
    b->version = version_ref(v);
    b->index = index;
    b->pins = 1;
    b->touched = true;
    hash_add(p, b);
    queue_add(p, b);
    return b;
}

void block_pin(struct block_pool *p, struct block *b)
{
    assert(b->version);
    block_unsettle(p, b);
    b->pins++;
}

void block_unpin(struct block_pool *p, struct block *b)
{
    assert(b->pins > 0);
    b->pins--;
    block_settle(p, b);
}

void block_touch(struct block *b, block_pages pages)
{
    if (b->served & pages)
        b->visited = true;
    else if (!b->served)
        b->visited = false; /* it was made ahead of this reader, and has served */
    b->served |= pages;
}

void block_expect(struct block *b)
{
    b->ahead = b->visited = true;
}

void block_claim(struct block_pool *p, struct block *b, block_pages pages)
{
    assert(pages && !(pages & (b->valid | b->fetching)));
    block_unsettle(p, b);
    b->fetching |= pages;
}

static void waiter_take(struct block_wait *w, struct block_wait **list)
{
    block_unawait(w);
    w->next = *list;
    *list = w;
}

void block_fill(struct block_pool *p, struct block *b, block_pages pages, struct block_wait **woken)
{
    assert(pages && (b->fetching & pages) == pages);
    b->fetching &= ~pages;
    b->valid |= pages;
    for (struct block_wait *w = b->waiters, *next; w; w = next) {
        next = w->next;
        if ((w->need & ~b->valid) == 0)
            waiter_take(w, woken);
    }
    block_settle(p, b);
}

void block_drop(struct block_pool *p, struct block *b, block_pages pages, struct block_wait **woken)
{
    assert(pages && (b->fetching & pages) == pages);
    b->fetching &= ~pages;
    b->served &= ~pages;
    for (struct block_wait *w = b->waiters, *next; w; w = next) {
        next = w->next;
        if (w->need & pages)
            waiter_take(w, woken);
    }
    block_settle(p, b);
}

void block_await(struct block_pool *p, struct block *b, struct block_wait *w)
{
    assert(b->pins > 0 && !w->block && (w->need & ~b->valid));
    w->block = b;
    w->next = b->waiters;
    w->prev = &b->waiters;
    if (w->next)
        w->next->prev = &w->next;
    b->waiters = w;
}

void block_unawait(struct block_wait *w)
{
    if (!w->block)
        return;
    *w->prev = w->next;
    if (w->next)
        w->next->prev = w->prev;
    w->block = NULL;
    w->next = NULL;
}

bool block_awaited(const struct block *b, block_pages pages)
{
    for (const struct block_wait *w = b->waiters; w; w = w->next)
        if (w->need & pages)
            return true;
    return false;
}

/* ---- the whole pool ---- */

void block_pool_move(struct block_pool *p, struct version *from, struct version *to)
{
    assert(from->size == to->size);
    for (unsigned i = 0; i < p->n_blocks; i++) {
        struct block *b = &p->blocks[i];
        if (b->version != from || !is_idle(b) || block_find(p, to, b->index))
            continue;
        hash_remove(p, b);
        b->version = version_ref(to);
        hash_add(p, b);
        version_unref(p->versions, from); /* the caller holds another one */
    }
}

void block_pool_free(struct block_pool *p)
{
    if (!p)
        return;
    block_pool_check(p);
    for (unsigned i = 0; i < p->n_blocks; i++)
        if (p->blocks[i].version)
            version_unref(p->versions, p->blocks[i].version);
    version_table_free(p->versions);
    mutex_fini(&p->lock);
    munmap(p->arena, p->arena_size);
    g_free(p->hash);
    g_free(p->blocks);
    g_free(p);
}

#ifndef NDEBUG
static void block_check(struct block_pool *p, const struct block *b)
{
    uint64_t start = b->index << BLOCK_SHIFT;
    assert(b->version && b->version->refs > 0 && start < b->version->size);
    assert(block_find(p, b->version, b->index) == b);
    assert(!(b->valid & b->fetching));
    assert(!((b->valid | b->fetching | b->served) & ~all_pages(b)));
    assert(!is_idle(b) || b->valid);
    assert(!b->spent || (is_idle(b) && !b->visited));
    for (const struct block_wait *w = b->waiters; w; w = w->next) {
        assert(w->block == b && *w->prev == w);
        assert(b->pins > 0);
        assert(!(w->need & ~(b->valid | b->fetching)) && (w->need & ~b->valid));
    }
}

void block_pool_check(struct block_pool *p)
{
    p->unchecked = 0;
    unsigned n_free = 0, n_idle = 0, n_keyed = 0, n_spent = 0;
    for (const struct block *b = p->free; b; b = b->next, n_free++)
        assert(!b->version && !b->valid && !b->fetching && !b->served && !b->pins && !b->waiters &&
               !b->spent);
    bool hand_seen = !p->hand;
    for (const struct block *b = p->head; b; b = b->next, n_keyed++) {
        assert(b->next ? b->next->prev == b : p->tail == b);
        hand_seen |= p->hand == b;
        n_idle += is_idle(b);
        n_spent += b->spent;
        block_check(p, b);
    }
    assert(hand_seen);
    assert(n_spent == p->n_spent && n_free == p->n_free && n_idle == p->n_idle &&
           n_free + n_keyed == p->n_blocks);
}
#else
void block_pool_check(struct block_pool *p)
{
}
#endif
