/* SPDX-License-Identifier: Apache-2.0
 *
 * read_op: reads that were not served at once: they take blocks, wait for bytes and complete. The
 * engine is what they share. See read_op.c for the states.
 *
 * Functions named _locked are called under the pool's lock; those named _unlock release it.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "cache/block.h"
#include "cache/fetch.h"

#define READ_MAX (UINT64_C(4) << 20) /* bytes of one operation */
#define READ_SLOTS ((unsigned)(READ_MAX >> BLOCK_SHIFT) + 1)

struct reader_op;
struct workq;
struct read_op;

struct read_engine {
    struct workq *deliver; /* constant, as pool and fetches */
    struct block_pool *pool;
    struct fetch_set *fetches;
    struct read_op *queue, **queue_tail; /* lock, as all below */
    bool kicking;                        /* a job that serves the queue is on its way */
    unsigned busy;    /* those who run on behalf of the engine without the lock */
    struct cond idle; /* busy fell to 0 */
    uint64_t hits, misses, bytes_served;
};

struct read_engine_params {
    struct store *store;
    struct workq *deliver;
    uint64_t memory;
    void (*measured)(void *ctx, void *owner, /* as in fetch.h; ctx is the engine */
                     uint64_t bytes, uint64_t first_ns, uint64_t total_ns);
};

int read_engine_init(struct read_engine *e,
                     const struct read_engine_params *p); /* 0, -ENOMEM, -EINVAL */
void read_engine_fini(
    struct read_engine *e); /* waits for what is under way; nobody starts anything new */
/* Ends a busy section; the engine may be gone afterwards. */
void read_engine_leave_unlock(struct read_engine *e);

struct read_slot {
    struct block_wait wait; /* first: a wait is its slot */
    struct block *block;    /* pinned once the operation is admitted */
};

/* A read of [off, end) of v for `owner`, who lives until it is READY. op NULL: read_op_wait().
 * Nothing starts yet. */
struct read_op *read_op_new(struct read_engine *e, void *owner, struct version *v,
                            struct reader_op *op, uint64_t off, uint64_t end);
/* Sets it going; busy is raised for it. GETs that end with the operation go on to `ahead` (0: not):
 * returns how far, or 0 if there was none. Once unlocked, an operation with an op may be over and
 * gone. */
uint64_t read_op_start_locked(struct read_op *st, uint64_t ahead, struct fetch_todo *todo);
/* Makes it READY with -EINTR unless it is. */
void read_op_cancel_locked(struct read_op *st, struct fetch_todo *todo);
/* Blocks until READY; 0 or -errno. */
int read_op_wait(struct read_op *st);
/* The bytes of a READY operation without error: how many iovecs, at most READ_SLOTS. */
unsigned read_op_iov(struct read_op *st, struct iovec *iov);
/* Unpins and frees; ends the busy section. No lock held. */
void read_op_finish(struct read_op *st);

/* The same for slots that someone pinned himself. */
unsigned read_slots_iov(const struct read_slot *slots, unsigned n, uint64_t off, uint64_t end,
                        struct iovec *iov);
void read_slots_release_unlock(struct read_engine *e, const struct read_slot *slots, unsigned n,
                               uint64_t served);
