/* SPDX-License-Identifier: Apache-2.0
 *
 * upload: see upload.h. Threads: any. The queue's lock (rank commit) covers the list, the states
 * and the handing over to the store, so that a cancel never meets a request that the store does not
 * know yet or any more. Bodies are read on store threads out of a private slice of the interval
 * map: nobody changes it.
 */
#include "cache/upload.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/log.h"
#include "base/mutex.h"
#include "cache/extents.h"

#define SMALL_MAX (1ULL << 20)
#define SMALL_TIMES 16 /* a small PUT mostly waits for the server: so many for each big one */

struct lane {
    unsigned max;
    unsigned sent;               /* lock */
    struct upload *first, *last; /* lock: queued */
};

struct upload_queue {
    struct store *store;
    struct mutex lock;
    struct lane big, small;
    uint64_t bytes; /* lock */
};

struct upload_queue *upload_queue_new(struct store *store, unsigned max)
{
    struct upload_queue *q = g_new0(struct upload_queue, 1);
    q->store = store;
    q->big.max = MAX(max, 1u);
    q->small.max = q->big.max * SMALL_TIMES;
    mutex_init(&q->lock, RANK_COMMIT);
    return q;
}

void upload_queue_free(struct upload_queue *q)
{
    if (!q)
        return;
    assert(q->big.sent == 0 && !q->big.first && q->small.sent == 0 && !q->small.first);
    mutex_fini(&q->lock);
    g_free(q);
}

uint64_t upload_queue_bytes(struct upload_queue *q)
{
    mutex_lock(&q->lock);
    uint64_t n = q->bytes;
    mutex_unlock(&q->lock);
    return n;
}

static ssize_t body_read(void *ctx, uint64_t off, void *buf, size_t n)
{
    struct upload *u = ctx;
    char *p = buf;
    uint64_t at = u->off + off, end = at + n;
    struct extent x;
    while (at < end && extents_next(u->map, at, &x)) {
        size_t k = (size_t)MIN(x.len, end - at);
        int r = 0;
        if (x.kind == EXTENT_ZERO)
            memset(p, 0, k);
        else if (x.kind == EXTENT_STAGED)
            r = staging_read(u->staged.s, x.src, p, k);
        else if (x.kind == EXTENT_FETCHED)
            r = staging_read(u->fetched.s, x.src, p, k);
        else
            r = -EIO;
        if (r < 0)
            return r;
        p += k;
        at += k;
    }
    return at == end ? (ssize_t)n : -EIO;
}

/* The staging file that holds an extent of the body, NULL for zeros. */
static struct staging *staging_of(const struct upload *u, enum extent_kind kind)
{
    return kind == EXTENT_STAGED ? u->staged.s : kind == EXTENT_FETCHED ? u->fetched.s : NULL;
}

static int body_checksum(void *ctx, uint32_t *ret)
{
    struct upload *u = ctx;
    uint64_t at = u->off, end = at + u->req.source.size;
    uint32_t crc = 0;
    struct extent x;
    while (at < end && extents_next(u->map, at, &x)) {
        uint64_t k = MIN(x.len, end - at);
        struct staging *s = staging_of(u, x.kind);
        uint32_t part;
        if (!s && x.kind != EXTENT_ZERO)
            return -EIO;
        int r = s ? staging_crc(s, x.src, k, &part) : 0;
        if (r < 0)
            return r;
        crc = s ? crc32c_combine(crc, part, k) : crc32c_zeros(crc, k);
        at += k;
    }
    *ret = crc;
    return at == end ? 0 : -EIO;
}

void upload_send_checksum(struct upload *u)
{
    u->req.source.checksum = body_checksum;
}

/* Bytes were changed between staging and the server, or in staging. */
static void tell_damage(const struct upload *u)
{
    uint64_t at = u->off, end = at + u->req.source.size;
    struct extent x;
    int r = 0;
    while (r == 0 && at < end && extents_next(u->map, at, &x)) {
        struct staging *s = staging_of(u, x.kind);
        uint64_t k = MIN(x.len, end - at);
        r = s ? staging_verify(s, x.src, k) : 0;
        at += k;
    }
    if (r == 0)
        log_error("%s/%s: bytes arrive damaged at the store again and again, though staging holds "
                  "what was written; check the network and the server",
                  u->req.bucket, u->req.key);
}

void upload_set_body(struct upload *u, struct extents *map, uint64_t off, uint64_t len,
                     struct staging *staged, struct staging *fetched)
{
    u->map = map;
    u->off = off;
    if (staged)
        staging_pin(staged, &u->staged);
    if (fetched)
        staging_pin(fetched, &u->fetched);
    u->req.source = (struct store_source){.read = body_read, .ctx = u, .size = len};
    u->weight = len;
}

static void upload_done(struct store_request *req);

static struct lane *lane_of(struct upload_queue *q, const struct upload *u)
{
    bool small = u->req.verb == STORE_PUT && u->weight <= SMALL_MAX;
    return small ? &q->small : &q->big;
}

static void send_locked(struct upload_queue *q, struct upload *u)
{
    u->state = UPLOAD_SENT;
    lane_of(q, u)->sent++;
    store_submit(q->store, &u->req);
}

static void unlink_locked(struct upload_queue *q, struct upload *u)
{
    struct lane *l = lane_of(q, u);
    if (u->prev)
        u->prev->next = u->next;
    else
        l->first = u->next;
    if (u->next)
        u->next->prev = u->prev;
    else
        l->last = u->prev;
    u->prev = u->next = NULL;
}

static void upload_done(struct store_request *req)
{
    struct upload *u = req->ctx;
    struct upload_queue *q = u->queue;
    struct lane *l = lane_of(q, u);
    u->damaged = store_refused_digest(&req->res);
    mutex_lock(&q->lock);
    u->state = UPLOAD_IDLE;
    l->sent--;
    q->bytes -= u->weight;
    struct upload *next = l->first;
    if (next && l->sent < l->max) {
        unlink_locked(q, next);
        send_locked(q, next);
    }
    mutex_unlock(&q->lock);
    u->done(u);
}

void upload_submit(struct upload_queue *q, struct upload *u)
{
    u->queue = q;
    u->req.prio = STORE_PRIO_UPLOAD;
    u->req.done = upload_done;
    u->req.ctx = u;
    struct lane *l = lane_of(q, u);
    mutex_lock(&q->lock);
    q->bytes += u->weight;
    if (l->sent < l->max) {
        send_locked(q, u);
    } else {
        u->state = UPLOAD_QUEUED;
        u->prev = l->last;
        u->next = NULL;
        if (l->last)
            l->last->next = u;
        else
            l->first = u;
        l->last = u;
    }
    mutex_unlock(&q->lock);
}

bool upload_cancel(struct upload *u)
{
    struct upload_queue *q = u->queue;
    mutex_lock(&q->lock);
    bool queued = u->state == UPLOAD_QUEUED;
    if (queued) {
        unlink_locked(q, u);
        u->state = UPLOAD_IDLE;
        q->bytes -= u->weight;
    } else if (u->state == UPLOAD_SENT) {
        store_cancel(q->store, &u->req);
    }
    mutex_unlock(&q->lock);
    return queued;
}

struct run {
    struct mutex lock;
    struct cond changed;
    bool done; /* lock */
};

static void run_done(struct upload *u)
{
    struct run *run = u->ctx;
    mutex_lock(&run->lock);
    run->done = true;
    cond_signal(&run->changed);
    mutex_unlock(&run->lock);
}

int upload_run(struct upload_queue *q, struct upload *u)
{
    struct run run = {.done = false};
    mutex_init(&run.lock, RANK_LEAF);
    cond_init(&run.changed);
    u->done = run_done;
    u->ctx = &run;
    upload_submit(q, u);
    mutex_lock(&run.lock);
    while (!run.done)
        cond_wait(&run.changed, &run.lock);
    mutex_unlock(&run.lock);
    cond_fini(&run.changed);
    mutex_fini(&run.lock);
    return u->req.res.err;
}

void upload_clear(struct upload *u)
{
    if (u->damaged && u->map)
        tell_damage(u);
    u->damaged = false;
    extents_free(u->map);
    u->map = NULL;
    staging_unpin(&u->staged);
    staging_unpin(&u->fetched);
    store_request_clear(&u->req);
}
