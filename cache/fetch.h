/* SPDX-License-Identifier: Apache-2.0
 *
 * fetch: the GETs under way that fill blocks. One GET covers a run of blocks and owns the pages
 * that it claimed there; bytes go straight from the store's buffer into the block, and whoever
 * waits for a page is woken when that page is there.
 *
 * Functions named _locked are called under the pool's lock and never block. They leave what must
 * happen without the lock (submitting, completing) in a todo, which the caller runs after unlock.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "cache/block.h"
#include "s3/store.h"

#define FETCH_MAX (UINT64_C(8) << 20) /* bytes of one GET */
#define FETCH_GAP_MAX                                                                              \
    (UINT64_C(1) << 18) /* bytes we have already that a GET fetches again rather than end */

struct fetch;
struct fetch_set;
struct read_op;

struct fetch_todo {
    struct fetch *submit; /* first to submit, and where the next one goes */
    struct fetch **submit_tail;
    struct read_op *ready; /* operations to complete; the owner's business */
};

enum fetch_kind {
    FETCH_DEMAND, /* someone waits */
    FETCH_AHEAD,  /* nobody does yet: its errors are nobody's */
};

struct fetch_params {
    struct store *store;
    struct block_pool *pool;
    void *ctx;
    /* Upcalls, the first three under the lock. */
    /* These waiters, no longer on their blocks, have what they need (err 0), or will not get it
     * from this GET. -EAGAIN: another GET may bring it; ask again. After each call blocks may have
     * become free. */
    void (*woken)(void *ctx, struct block_wait *list, int err, struct fetch_todo *todo);
    /* A GET that `owner` started has brought `bytes`: the first after first_ns, the last after
     * total_ns. */
    void (*measured)(void *ctx, void *owner, uint64_t bytes, uint64_t first_ns, uint64_t total_ns);
    /* Completes todo->ready. No lock held. */
    void (*complete)(void *ctx, struct read_op *ready);
};

struct fetch_set *fetch_set_new(const struct fetch_params *p);
void fetch_set_free(struct fetch_set *s); /* no lock. Cancels what is under way and waits for it;
                                             nobody awaits pages */

/* Makes GETs for the pages of [off, end) that are neither valid nor on their way. Blocks that do
 * not exist are made while read-ahead may have more. Returns `end`, or the offset from where on no
 * block could be had. `owner` is for measured() and cancelling; NULL when it is gone. */
uint64_t fetch_range_locked(struct fetch_set *s, void *owner, struct version *v, uint64_t off,
                            uint64_t end, enum fetch_kind kind, struct fetch_todo *todo);
/* Cancels the GETs of `owner` that lie wholly within [off, end), have more than `left` bytes to go
 * and that nobody waits for. With demand_only: only those that someone has waited for. */
void fetch_cancel_idle_locked(struct fetch_set *s, const void *owner, uint64_t off, uint64_t end,
                              uint64_t left, bool demand_only);
/* The owner goes away; its GETs run on. */
void fetch_disown_locked(struct fetch_set *s, const void *owner);

void fetch_todo_init(struct fetch_todo *todo);
bool fetch_todo_empty(const struct fetch_todo *todo);
/* No lock held. When it returns, the set may be gone, unless the caller has other means to keep it.
 */
void fetch_todo_run(struct fetch_set *s, struct fetch_todo *todo);

struct fetch_stats {
    uint64_t gets, bytes;
};
void fetch_get_stats_locked(const struct fetch_set *s, struct fetch_stats *ret);
