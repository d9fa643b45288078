/* SPDX-License-Identifier: Apache-2.0
 *
 * reader: see reader.h. What a read does first: it tells the read-ahead policy, is served inline
 * when all of it is there, and otherwise becomes an operation (read_op.c).
 *
 * Threads: any. Lock: the block pool's, for everything here, the policy's state included; held for
 * microseconds, never across done() or store_submit(). A reader may be freed as soon as its
 * read's done has begun, so nothing touches it after the unlock that follows a start.
 */
#include "cache/reader.h"

#include <assert.h>
#include <glib.h>
#include <string.h>

#include "base/cancel.h"
#include "base/clock.h"
#include "cache/read_op.h"
#include "cache/readahead.h"

#define CANCEL_LEFT_MIN                                                                            \
    (UINT64_C(512) << 10) /* a GET with less to go is cheaper to end than its connection */

struct read_cache {
    struct read_engine e; /* first: upcalls get it */
    uint64_t memory;      /* constant */
    /* Readers that read sequentially, this second and the one before. Under the pool's lock. */
    uint64_t epoch;
    unsigned streams, streams_before;
};

struct reader {
    struct read_cache *rc;
    struct version *version; /* constant; a reference */
    struct readahead ra;     /* lock */
    uint64_t epoch;          /* lock: when it was last counted as a stream */
};

/* ---- the cache ---- */

static void measured(void *ctx, void *owner, uint64_t bytes, uint64_t first_ns, uint64_t total_ns)
{
    struct reader *r = owner;
    readahead_fetched(&r->ra, bytes, first_ns, total_ns, clock_mono_ns());
}

int read_cache_new(const struct read_cache_params *p, struct read_cache **ret)
{
    g_autofree struct read_cache *rc = g_new0(struct read_cache, 1);
    int r = read_engine_init(&rc->e, &(struct read_engine_params){.store = p->store,
                                                                  .deliver = p->deliver,
                                                                  .memory = p->memory,
                                                                  .measured = measured});
    if (r < 0)
        return r;
    rc->memory = p->memory;
    *ret = g_steal_pointer(&rc);
    return 0;
}

void read_cache_free(struct read_cache *rc)
{
    if (!rc)
        return;
    read_engine_fini(&rc->e);
    g_free(rc);
}

void read_cache_get_stats(struct read_cache *rc, struct read_cache_stats *ret)
{
    struct fetch_stats f;
    block_pool_lock(rc->e.pool);
    fetch_get_stats_locked(rc->e.fetches, &f);
    *ret = (struct read_cache_stats){
        .hits = rc->e.hits,
        .misses = rc->e.misses,
        .bytes_fetched = f.bytes,
        .bytes_served = rc->e.bytes_served,
        .blocks = block_pool_used(rc->e.pool),
        .blocks_max = block_pool_capacity(rc->e.pool),
        .gets = f.gets,
    };
    block_pool_unlock(rc->e.pool);
}

void read_cache_alias(struct read_cache *rc, const char *from_bucket, const char *from_key,
                      const char *from_etag, const char *to_bucket, const char *to_key,
                      const char *to_etag)
{
    struct version_table *t = block_pool_versions(rc->e.pool);
    block_pool_lock(rc->e.pool);
    struct version *from = version_find(t, from_bucket, from_key, from_etag);
    struct version *to = version_find(t, to_bucket, to_key, to_etag);
    if (from && from != to) {
        /* Readers that are open on the old name go on under the new one; if that has a version
         * already, both are served, and those blocks that can move are shared. */
        version_ref(from);
        if (to && to->size == from->size)
            block_pool_move(rc->e.pool, from, to);
        version_rename(t, from, to_bucket, to_key, to_etag);
        version_unref(t, from);
    }
    block_pool_unlock(rc->e.pool);
}

/* ---- readers ---- */

struct reader *reader_new(struct read_cache *rc, const char *bucket, const char *key,
                          const char *etag, uint64_t size)
{
    struct reader *r = g_new0(struct reader, 1);
    r->rc = rc;
    readahead_init(&r->ra, size);
    block_pool_lock(rc->e.pool);
    r->version = version_get(block_pool_versions(rc->e.pool), bucket, key, etag, size);
    block_pool_unlock(rc->e.pool);
    return r;
}

void reader_free(struct reader *r)
{
    if (!r)
        return;
    struct read_cache *rc = r->rc;
    block_pool_lock(rc->e.pool);
    fetch_cancel_idle_locked(rc->e.fetches, r, 0, UINT64_MAX, CANCEL_LEFT_MIN, false);
    fetch_disown_locked(rc->e.fetches, r);
    version_unref(block_pool_versions(rc->e.pool), r->version);
    block_pool_unlock(rc->e.pool);
    g_free(r);
}

/* How much a sequential reader may have ahead: all of them together, half of the arena. */
static uint64_t share_locked(struct reader *r, uint64_t now)
{
    struct read_cache *rc = r->rc;
    uint64_t epoch = now / NSEC_PER_SEC;
    if (epoch != rc->epoch) {
        rc->streams_before = epoch == rc->epoch + 1 ? rc->streams : 0;
        rc->streams = 0;
        rc->epoch = epoch;
    }
    return rc->memory / 2 / MAX(1, MAX(rc->streams, rc->streams_before));
}

static void note_locked(struct reader *r, uint64_t off, uint64_t end, uint64_t now,
                        struct readahead_plan *plan)
{
    struct read_cache *rc = r->rc;
    readahead_note(&r->ra, off, end, now, share_locked(r, now), plan);
    if (plan->sequential && r->epoch != rc->epoch) {
        r->epoch = rc->epoch;
        rc->streams++;
    }
    for (unsigned i = 0; i < plan->n_drop; i++)
        fetch_cancel_idle_locked(rc->e.fetches, r, plan->drop[i].off & ~(BLOCK_PAGE - 1),
                                 plan->drop[i].end, CANCEL_LEFT_MIN, false);
}

/* Starts the GETs of the plan, from its range `first` on. */
static void ahead_locked(struct reader *r, const struct readahead_plan *plan, unsigned first,
                         struct fetch_todo *todo)
{
    struct read_cache *rc = r->rc;
    for (unsigned i = first; i < plan->n_fetch; i++) {
        const struct readahead_range *f = &plan->fetch[i];
        uint64_t reached = f->off;
        if (!rc->e.queue)
            reached =
                fetch_range_locked(rc->e.fetches, r, r->version, f->off, f->end, FETCH_AHEAD, todo);
        if (reached < f->end) {
            readahead_denied(&r->ra, plan->cursor, reached);
            return;
        }
    }
}

/* Sets an operation that ends at `end` going, and read-ahead with it. */
static void start_locked(struct reader *r, struct read_op *st, uint64_t end,
                         const struct readahead_plan *plan, struct fetch_todo *todo)
{
    /* What follows the operation immediately comes with the same GET. */
    bool joins = plan->n_fetch > 0 && plan->fetch[0].off == end;
    uint64_t reached = read_op_start_locked(st, joins ? plan->fetch[0].end : 0, todo);
    if (reached > 0 && reached < plan->fetch[0].end)
        readahead_denied(&r->ra, plan->cursor, reached);
    else
        ahead_locked(r, plan, reached > 0 ? 1 : 0, todo);
}

/* Pins all blocks of [off, end) if all bytes are there: how many, else 0. */
static unsigned hit_locked(struct reader *r, uint64_t off, uint64_t end, struct read_slot *slots)
{
    struct block_pool *pool = r->rc->e.pool;
    uint64_t first = off >> BLOCK_SHIFT;
    unsigned n = (unsigned)(((end - 1) >> BLOCK_SHIFT) - first) + 1;
    for (unsigned i = 0; i < n; i++) {
        struct block *b = block_find(pool, r->version, first + i);
        if (!b || block_span(first + i, off, end) & ~b->valid)
            return 0;
        slots[i].block = b;
    }
    for (unsigned i = 0; i < n; i++) {
        block_pin(pool, slots[i].block);
        block_touch(slots[i].block, block_span(first + i, off, end));
    }
    r->rc->e.hits += n;
    return n;
}

void reader_read(struct reader *r, struct reader_op *op)
{
    assert(op->len <= READ_MAX);
    op->layer = NULL;
    if (op->len == 0 || op->off >= r->version->size) {
        op->done(op, 0, NULL, 0);
        return;
    }
    struct read_cache *rc = r->rc;
    uint64_t off = op->off, end = off + MIN(op->len, r->version->size - off);
    uint64_t now = clock_mono_ns();
    struct readahead_plan plan;
    struct fetch_todo todo;
    struct read_slot slots[READ_SLOTS];
    fetch_todo_init(&todo);

    block_pool_lock(rc->e.pool);
    note_locked(r, off, end, now, &plan);
    unsigned n = hit_locked(r, off, end, slots);
    if (n == 0) {
        struct read_op *st = read_op_new(&rc->e, r, r->version, op, off, end);
        op->layer = st;
        start_locked(r, st, end, &plan, &todo);
        block_pool_unlock(rc->e.pool);
        fetch_todo_run(rc->e.fetches, &todo);
        return;
    }
    rc->e.busy++;
    ahead_locked(r, &plan, 0, &todo);
    block_pool_unlock(rc->e.pool);
    fetch_todo_run(rc->e.fetches, &todo);

    struct iovec iov[READ_SLOTS];
    unsigned n_iov = read_slots_iov(slots, n, off, end, iov);
    op->done(op, 0, iov, (int)n_iov);
    block_pool_lock(rc->e.pool);
    read_slots_release_unlock(&rc->e, slots, n, end - off);
}

void reader_cancel(struct reader *r, struct reader_op *op)
{
    struct read_cache *rc = r->rc;
    struct fetch_todo todo;
    fetch_todo_init(&todo);
    block_pool_lock(rc->e.pool);
    if (op->layer) /* else it completes already */
        read_op_cancel_locked(op->layer, &todo);
    block_pool_unlock(rc->e.pool);
    fetch_todo_run(rc->e.fetches, &todo);
}

/* ---- the synchronous face ---- */

struct pread {
    struct reader *r;
    struct read_op *st;
};

static void pread_fired(void *ctx)
{
    struct pread *p = ctx;
    struct read_engine *e = &p->r->rc->e;
    struct fetch_todo todo;
    fetch_todo_init(&todo);
    block_pool_lock(e->pool);
    read_op_cancel_locked(p->st, &todo);
    block_pool_unlock(e->pool);
    fetch_todo_run(e->fetches, &todo);
}

static int pread_piece(struct reader *r, unsigned char *buf, uint64_t off, uint64_t end,
                       struct cancel *cancel)
{
    struct read_engine *e = &r->rc->e;
    struct readahead_plan plan;
    struct fetch_todo todo;
    fetch_todo_init(&todo);
    uint64_t now = clock_mono_ns();
    struct read_op *st = read_op_new(e, r, r->version, NULL, off, end);
    block_pool_lock(e->pool);
    note_locked(r, off, end, now, &plan);
    start_locked(r, st, end, &plan, &todo);
    block_pool_unlock(e->pool);
    fetch_todo_run(e->fetches, &todo);

    struct pread p = {.r = r, .st = st};
    struct cancel_watch watch = {.fired = pread_fired, .ctx = &p};
    cancel_watch(cancel, &watch);
    int err = read_op_wait(st);
    cancel_unwatch(cancel, &watch);
    if (err == 0) {
        struct iovec iov[READ_SLOTS];
        unsigned n = read_op_iov(st, iov);
        for (unsigned i = 0; i < n; i++) {
            memcpy(buf, iov[i].iov_base, iov[i].iov_len);
            buf += iov[i].iov_len;
        }
    }
    read_op_finish(st);
    return err;
}

ssize_t reader_pread(struct reader *r, void *buf, size_t len, uint64_t off, struct cancel *cancel)
{
    uint64_t size = r->version->size;
    if (len == 0 || off >= size)
        return 0;
    uint64_t end = off + MIN(len, size - off);
    unsigned char *to = buf;
    for (uint64_t at = off; at < end;) {
        uint64_t next = MIN(end, at + READ_MAX);
        int e = pread_piece(r, to, at, next, cancel);
        if (e < 0)
            return e;
        to += next - at;
        at = next;
    }
    return (ssize_t)(end - off);
}
