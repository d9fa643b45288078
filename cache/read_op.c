/* SPDX-License-Identifier: Apache-2.0
 *
 * read_op: see read_op.h. An operation goes
 *     QUEUED → WAITING → READY → done
 * QUEUED: there was no room for all of its blocks. It holds none; the queue is served in order
 * whenever blocks become free, all blocks of its head at once. Since an operation needs at most
 * BLOCKS_MIN / 2 + 1 blocks, and those who hold blocks wait for nobody but the store, every one is
 * served in the end. While somebody is queued, nothing is read ahead, and new misses queue too.
 * WAITING: all blocks are pinned, and it awaits `missing` of them.
 * READY: the blocks stay pinned until done has returned.
 *
 * Threads: store threads wake operations, the deliver queue runs done, and the thread that waits
 * in read_op_wait() serves itself. Lock: the block pool's, never held across done().
 * Whoever runs without the lock on behalf of the engine is counted in `busy` (operations, kicks),
 * or is a GET; read_engine_fini() waits for both. The owner may go as soon as done has begun:
 * nothing touches it afterwards.
 */
#include "cache/read_op.h"

#include <assert.h>
#include <errno.h>
#include <glib.h>

#include "base/workq.h"
#include "cache/reader.h"

static_assert(READ_SLOTS <= BLOCKS_MIN / 2 + 1, "the smallest arena serves the largest read");

enum op_state { OP_QUEUED, OP_WAITING, OP_READY };

struct read_op {
    struct read_engine *e;
    void *owner;
    struct version *version; /* the owner's reference */
    struct reader_op *op;    /* NULL: somebody waits for `woken` */
    uint64_t off, end;
    enum op_state state; /* lock */
    int err;             /* lock; constant when READY */
    unsigned missing;    /* lock */
    unsigned wants;      /* lock: QUEUED: room it found too small */
    bool again;          /* lock: within upcall_woken(): in the list of those to plan again */
    struct cond woken;
    struct read_op *next; /* lock: the queue, or a list of READY ones */
    unsigned n;           /* lock; constant when READY: slots in use */
    struct read_slot slots[];
};

/* ---- operations ---- */

struct read_op *read_op_new(struct read_engine *e, void *owner, struct version *v,
                            struct reader_op *op, uint64_t off, uint64_t end)
{
    unsigned n = (unsigned)(((end - 1) >> BLOCK_SHIFT) - (off >> BLOCK_SHIFT)) + 1;
    assert(n <= READ_SLOTS);
    struct read_op *st = g_malloc0(sizeof(*st) + n * sizeof(st->slots[0]));
    st->e = e;
    st->owner = owner;
    st->version = v;
    st->op = op;
    st->off = off;
    st->end = end;
    st->n = n;
    if (!op)
        cond_init(&st->woken);
    return st;
}

static inline uint64_t op_index(const struct read_op *st, unsigned slot)
{
    return (st->off >> BLOCK_SHIFT) + slot;
}

static void op_ready_locked(struct read_op *st, int err, struct fetch_todo *todo)
{
    assert(st->state != OP_READY);
    if (st->state == OP_WAITING)
        for (unsigned i = 0; i < st->n; i++)
            block_unawait(&st->slots[i].wait);
    st->n = st->state == OP_QUEUED ? 0 : st->n; /* what it has pinned */
    st->state = OP_READY;
    st->err = err;
    if (!st->op) {
        cond_signal(&st->woken);
        return;
    }
    st->op->layer = NULL;
    st->next = todo->ready;
    todo->ready = st;
}

/* Takes all blocks that the operation needs, or none; false when there is no room. Then starts
 * GETs for what is missing, on to `ahead` where the last GET would end with the operation;
 * *ret_reached tells how far that went (0: it was not tried). */
static bool op_admit_locked(struct read_op *st, uint64_t ahead, uint64_t *ret_reached,
                            struct fetch_todo *todo)
{
    struct read_engine *e = st->e;
    struct version *v = st->version;
    unsigned absent = 0, idle = 0;
    for (unsigned i = 0; i < st->n; i++) {
        struct block *b = st->slots[i].block = block_find(e->pool, v, op_index(st, i));
        absent += !b;
        idle += b && b->pins == 0 && b->fetching == 0;
    }
    st->wants = absent + idle;
    if (absent > 0 && block_pool_room(e->pool) < st->wants)
        return false;
    for (unsigned i = 0; i < st->n; i++)
        if (st->slots[i].block)
            block_pin(e->pool, st->slots[i].block);
    bool tail_missing = false; /* the last page, and nobody brings it yet */
    for (unsigned i = 0; i < st->n; i++) {
        struct read_slot *s = &st->slots[i];
        if (!s->block)
            s->block = block_make(e->pool, v, op_index(st, i));
        s->wait.need = block_span(op_index(st, i), st->off, st->end);
        s->wait.owner = st;
        block_touch(s->block, s->wait.need);
        block_pages known = s->block->valid | s->block->fetching;
        tail_missing = (s->wait.need & ~known) > (s->wait.need & known);
        if (s->wait.need & ~s->block->valid) {
            block_await(e->pool, s->block, &s->wait);
            st->missing++;
        }
    }
    e->misses += st->missing;
    e->hits += st->n - st->missing;
    st->state = OP_WAITING;
    if (st->missing == 0) {
        op_ready_locked(st, 0, todo);
        return true;
    }
    bool extend = ahead > st->end && tail_missing;
    uint64_t reached = fetch_range_locked(e->fetches, st->owner, v, st->off,
                                          extend ? ahead : st->end, FETCH_DEMAND, todo);
    assert(reached >= st->end);
    if (extend)
        *ret_reached = reached;
    return true;
}

/* ---- the queue ---- */

static void queue_kick(void *arg)
{
    struct read_engine *e = arg;
    struct fetch_todo todo;
    uint64_t reached;
    fetch_todo_init(&todo);
    block_pool_lock(e->pool);
    e->kicking = false;
    while (e->queue) {
        struct read_op *st = e->queue, *next = st->next;
        if (!op_admit_locked(st, 0, &reached, &todo))
            break;
        e->queue = next;
        if (!next)
            e->queue_tail = &e->queue;
    }
    block_pool_unlock(e->pool);
    fetch_todo_run(e->fetches, &todo);
    block_pool_lock(e->pool);
    read_engine_leave_unlock(e);
}

/* After anything that may have made room. */
static void queue_poke_locked(struct read_engine *e)
{
    if (!e->queue || e->kicking || block_pool_room(e->pool) < e->queue->wants)
        return;
    e->kicking = true;
    e->busy++;
    workq_push(e->deliver, queue_kick, e);
}

static void queue_add_locked(struct read_engine *e, struct read_op *st)
{
    st->state = OP_QUEUED;
    st->next = NULL;
    *e->queue_tail = st;
    e->queue_tail = &st->next;
    queue_poke_locked(e);
}

static void queue_remove_locked(struct read_engine *e, struct read_op *st)
{
    struct read_op **at = &e->queue;
    while (*at != st)
        at = &(*at)->next;
    *at = st->next;
    if (!*at)
        e->queue_tail = at;
    queue_poke_locked(e);
}

/* ---- upcalls of the GETs ---- */

static void upcall_woken(void *ctx, struct block_wait *list, int err, struct fetch_todo *todo)
{
    struct read_engine *e = ctx;
    struct read_op *again = NULL;
    for (struct block_wait *w = list, *next; w; w = next) {
        struct read_slot *s = (struct read_slot *)w;
        struct read_op *st = w->owner;
        next = w->next;
        if (st->state != OP_WAITING)
            continue; /* failed by another block of this GET */
        if ((w->need & ~s->block->valid) == 0) {
            if (--st->missing == 0)
                op_ready_locked(st, 0, todo);
        } else if (err == -EAGAIN) {
            block_await(e->pool, s->block, w);
            if (!st->again) {
                st->again = true;
                st->next = again;
                again = st;
            }
        } else {
            op_ready_locked(st, err, todo);
        }
    }
    for (struct read_op *st = again, *next; st; st = next) {
        next = st->next;
        st->again = false;
        fetch_range_locked(e->fetches, st->owner, st->version, st->off, st->end, FETCH_DEMAND,
                           todo);
    }
    queue_poke_locked(e);
}

unsigned read_slots_iov(const struct read_slot *slots, unsigned n, uint64_t off, uint64_t end,
                        struct iovec *iov)
{
    unsigned n_iov = 0;
    for (unsigned i = 0; i < n; i++) {
        uint64_t in = off & (BLOCK_SIZE - 1), k = MIN(end - off, BLOCK_SIZE - in);
        unsigned char *data = slots[i].block->data + in;
        struct iovec *last = n_iov ? &iov[n_iov - 1] : NULL;
        if (last && (unsigned char *)last->iov_base + last->iov_len == data)
            last->iov_len += k; /* neighbours in the arena, too */
        else
            iov[n_iov++] = (struct iovec){.iov_base = data, .iov_len = k};
        off += k;
    }
    return n_iov;
}

unsigned read_op_iov(struct read_op *st, struct iovec *iov)
{
    assert(st->state == OP_READY && st->err == 0);
    return read_slots_iov(st->slots, st->n, st->off, st->end, iov);
}

void read_slots_release_unlock(struct read_engine *e, const struct read_slot *slots, unsigned n,
                               uint64_t served)
{
    for (unsigned i = 0; i < n; i++)
        block_unpin(e->pool, slots[i].block);
    e->bytes_served += served;
    queue_poke_locked(e);
    read_engine_leave_unlock(e);
}

void read_op_finish(struct read_op *st)
{
    struct read_engine *e = st->e;
    block_pool_lock(e->pool);
    read_slots_release_unlock(e, st->slots, st->n, st->err ? 0 : st->end - st->off);
    if (!st->op)
        cond_fini(&st->woken);
    g_free(st);
}

static void deliver(void *arg)
{
    struct read_op *st = arg;
    struct iovec iov[READ_SLOTS];
    unsigned n_iov = st->err ? 0 : read_op_iov(st, iov);
    st->op->done(st->op, st->err, n_iov ? iov : NULL, (int)n_iov);
    read_op_finish(st);
}

static void upcall_complete(void *ctx, struct read_op *ready)
{
    struct read_engine *e = ctx;
    struct workq *q = e->deliver;
    for (struct read_op *st = ready, *next; st; st = next) {
        next = st->next; /* read first: the operation is gone after the push, and the cache may be
                            after the last */
        workq_push(q, deliver, st);
    }
}

/* ---- going, waiting, cancelling ---- */

uint64_t read_op_start_locked(struct read_op *st, uint64_t ahead, struct fetch_todo *todo)
{
    struct read_engine *e = st->e;
    uint64_t reached = 0;
    e->busy++;
    if (e->queue || !op_admit_locked(st, ahead, &reached, todo))
        queue_add_locked(e, st);
    return reached;
}

void read_op_cancel_locked(struct read_op *st, struct fetch_todo *todo)
{
    if (st->state == OP_READY)
        return;
    struct read_engine *e = st->e;
    void *owner = st->owner;
    if (st->state == OP_QUEUED)
        queue_remove_locked(e, st);
    op_ready_locked(st, -EINTR, todo);
    fetch_cancel_idle_locked(e->fetches, owner, 0, UINT64_MAX, 0, true);
}

int read_op_wait(struct read_op *st)
{
    block_pool_lock(st->e->pool);
    while (st->state != OP_READY)
        block_pool_wait(st->e->pool, &st->woken);
    block_pool_unlock(st->e->pool);
    return st->err;
}

/* ---- the engine ---- */

int read_engine_init(struct read_engine *e, const struct read_engine_params *p)
{
    *e = (struct read_engine){.deliver = p->deliver, .queue_tail = &e->queue};
    int r = block_pool_new(p->memory, &e->pool);
    if (r < 0)
        return r;
    cond_init(&e->idle);
    e->fetches = fetch_set_new(&(struct fetch_params){
        .store = p->store,
        .pool = e->pool,
        .ctx = e,
        .woken = upcall_woken,
        .measured = p->measured,
        .complete = upcall_complete,
    });
    return 0;
}

void read_engine_fini(struct read_engine *e)
{
    block_pool_lock(e->pool);
    while (e->busy > 0)
        block_pool_wait(e->pool, &e->idle);
    block_pool_unlock(e->pool);
    fetch_set_free(e->fetches);
    block_pool_free(e->pool);
    cond_fini(&e->idle);
}

void read_engine_leave_unlock(struct read_engine *e)
{
    struct block_pool *pool = e->pool;
    assert(e->busy > 0);
    if (--e->busy == 0)
        cond_broadcast(&e->idle);
    block_pool_unlock(pool);
}
