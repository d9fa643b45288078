/* SPDX-License-Identifier: Apache-2.0
 *
 * retry: see retry.h. Threads: submit on the caller's, results on those of the store below, waits
 * and deadlines on one timer thread of its own.
 *
 * An op is one request of the caller's through all of its attempts:
 *
 *     STARTING ──submit returned──> RUNNING ──done──> DECIDING ──final──> ENDED
 *        ^   └───────────done──────────────────────────^  └──later──> WAITING ──due──┐
 *        └───────────────────────────────────────────────────────────────────────────┘
 *
 * The thread that brings an op to STARTING or DECIDING owns it until the next state; everything
 * but the fields marked "lock" belongs to that owner. Cancel is passed to the layer below only in
 * RUNNING and under the lock, hence surely between its submit and its done; in other states it
 * leaves a mark that the owner finds. The timer may call for an op that has moved on: it looks at
 * the state and the time, so that a stale call does nothing.
 *
 * An op is referenced by its progress (until ENDED), by a queued timer, and by the thread inside
 * store_submit(). The lock ranks above the layers below and is held across their cancel only.
 */
#include "s3/retry.h"

#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "base/mutex.h"
#include "base/timerq.h"
#include "s3/errors.h"

#define SLOWEST (64ULL << 10)            /* bytes a second: a body is given time for that */
#define SERVER_WORK (600 * NSEC_PER_SEC) /* time for what a server does by itself */
#define FEW_TRIES 4 /* a body that arrives damaged as often is so at its source, and a name that is a directory then is one */

#define RANK_RETRY ((enum mutex_rank)(RANK_ENGINE - 6))

enum op_state { OP_STARTING, OP_RUNNING, OP_DECIDING, OP_WAITING, OP_ENDED };

struct retry {
    struct store store;
    struct store *below;
    struct store_retry_params p; /* constant, defaults filled in */
    struct timerq *timers;
    struct mutex lock;
    struct cond idle; /* live fell to 0 */
    unsigned live;    /* lock: ops that are referenced */
    uint64_t prng;    /* lock */
};

struct op {
    struct retry *r;
    struct store_request *req; /* the caller's */
    struct store_request inner;
    struct timer timer;
    uint64_t deadline;   /* constant */
    uint64_t patience;   /* constant: from `alive` on; 0 = no end but the deadline */
    uint64_t alive;      /* atomic: when a byte last moved, or it began */
    uint64_t attempt_ns; /* when this attempt began */
    unsigned refs;       /* lock */
    enum op_state state; /* lock */
    unsigned attempt;    /* lock: counts submits */
    bool cancelled;      /* lock: the caller wants it to end */
    bool late;           /* lock: the deadline passed while it ran, and the layer below was told */
    uint64_t due;        /* lock: end of WAITING */

    unsigned failures;          /* since the last attempt that made progress */
    unsigned few;               /* attempts that failed so that only a few more are worth it */
    bool unknown;               /* an attempt may have taken effect although it failed */
    bool have_last;             /* last holds the failure of an earlier attempt */
    int sink_err;               /* what the caller's sink said */
    uint64_t delivered;         /* GET: bytes given to the caller's sink, over all attempts */
    uint64_t attempt_start;     /* GET: delivered when this attempt began */
    char *etag;                 /* GET: version that the delivered bytes belong to */
    struct store_object object; /* GET: that version, from the first reply */
    struct store_result last;
};

static void attempt_start(struct op *op);

/* Ops */

static void op_unref_locked(struct op *op)
{
    struct retry *r = op->r;
    mutex_assert_held(&r->lock);
    if (--op->refs > 0)
        return;
    store_request_clear(&op->inner);
    store_result_clear(&op->last);
    store_object_clear(&op->object);
    g_free(op->etag);
    g_free(op);
    if (--r->live == 0)
        cond_broadcast(&r->idle);
}

static void timer_arm_locked(struct op *op, uint64_t when)
{
    op->refs++;
    timerq_add(op->r->timers, &op->timer, when);
}

static void timer_disarm_locked(struct op *op)
{
    if (timerq_remove(op->r->timers, &op->timer))
        op_unref_locked(op); /* the progress's own reference keeps op */
}

/* The op's result is in `res`: hands it up. */
static void op_finish(struct op *op, struct store_result *res)
{
    struct retry *r = op->r;
    struct store_request *req = op->req;
    store_result_move(&req->res, res);
    if (req->verb == STORE_GET)
        req->res.bytes = op->delivered;
    if (req->verb == STORE_MPU_CREATE)
        req->res.doubtful = op->unknown;
    mutex_lock(&r->lock);
    op->state = OP_ENDED;
    req->layer = NULL;
    mutex_unlock(&r->lock);
    store_complete(req);
    mutex_lock(&r->lock);
    op_unref_locked(op);
    mutex_unlock(&r->lock);
}

static void op_finish_cancelled(struct op *op)
{
    struct store_result res = {0};
    store_result_fail(&res, -ECANCELED, STORE_CLASS_FATAL, NULL, "cancelled");
    op_finish(op, &res);
}

/* Time */

/* A server works on it, without a word while it does. */
static bool verb_is_work(enum store_verb v)
{
    return v == STORE_COPY || v == STORE_MPU_COPY_PART || v == STORE_MPU_COMPLETE;
}

static bool verb_sends(enum store_verb v)
{
    return v == STORE_PUT || v == STORE_MPU_PART;
}

/* Bytes that the request may move; a GET's may not be known. */
static uint64_t body_size(const struct store_request *req)
{
    const struct store_range *want = &req->range;
    if (verb_sends(req->verb))
        return req->source.size;
    if (req->verb != STORE_GET)
        return 0;
    uint64_t off = want->set ? want->off : 0;
    uint64_t n = req->expect_size > off ? req->expect_size - off : STORE_PART_MAX;
    return want->set && want->len ? MIN(want->len, STORE_OBJECT_MAX) : n;
}

static void time_init(struct op *op)
{
    const struct store_request *req = op->req;
    uint64_t now = clock_mono_ns(), timeout = op->r->p.op_timeout_ns;
    op->alive = now;
    op->deadline = req->deadline_ns;
    if (op->deadline)
        return;
    op->patience = timeout;
    op->deadline = now + timeout + (verb_is_work(req->verb) ? SERVER_WORK : 0) +
                   body_size(req) * (NSEC_PER_SEC >> 9) / (SLOWEST >> 9);
}

static void note_alive(struct op *op)
{
    __atomic_store_n(&op->alive, clock_mono_ns(), __ATOMIC_RELAXED);
}

/* When it is given up, unless bytes move. */
static uint64_t patience_end(const struct op *op)
{
    uint64_t end = __atomic_load_n(&op->alive, __ATOMIC_RELAXED) + op->patience;
    return op->patience ? MIN(op->deadline, end) : op->deadline;
}

/* The same for an attempt under way. */
static uint64_t attempt_end(const struct op *op)
{
    return verb_is_work(op->req->verb) ? op->deadline : patience_end(op);
}

/* Backoff */

/* xorshift64*: enough for jitter, and repeatable. */
static uint64_t random_below(struct retry *r, uint64_t n)
{
    mutex_lock(&r->lock);
    r->prng ^= r->prng >> 12;
    r->prng ^= r->prng << 25;
    r->prng ^= r->prng >> 27;
    uint64_t x = r->prng * 0x2545F4914F6CDD1DULL;
    mutex_unlock(&r->lock);
    return n ? x % n : 0;
}

static uint64_t backoff(struct op *op, uint64_t retry_after_ns)
{
    struct retry *r = op->r;
    unsigned shift = MIN(op->failures - 1, 30u);
    uint64_t bound = r->p.base_ns > r->p.cap_ns >> shift ? r->p.cap_ns : r->p.base_ns << shift;
    uint64_t delay = random_below(r, bound + 1);
    /* The server has named a time: not before it, and not all clients in the same instant. */
    if (retry_after_ns)
        delay = MIN(retry_after_ns, UINT64_MAX / 4) + random_below(r, r->p.base_ns);
    return delay;
}

/* Repeats the op after a while; false when its deadline leaves no room for that. */
static bool op_wait(struct op *op, uint64_t retry_after_ns)
{
    struct retry *r = op->r;
    uint64_t delay = backoff(op, retry_after_ns), now = clock_mono_ns(), end = patience_end(op);
    if (end <= now || delay >= end - now)
        return false;
    if (r->p.backoff)
        r->p.backoff(r->p.ctx, op->req, &delay);
    mutex_lock(&r->lock);
    op->state = OP_WAITING;
    op->due = now + delay;
    timer_arm_locked(op, op->cancelled ? 0 : op->due);
    mutex_unlock(&r->lock);
    return true;
}

static void timer_fired(void *arg)
{
    struct op *op = arg;
    struct retry *r = op->r;
    uint64_t now = clock_mono_ns();
    bool go = false, cancelled = false;
    mutex_lock(&r->lock);
    if (op->state == OP_WAITING && (op->cancelled || now >= op->due)) {
        go = true;
        cancelled = op->cancelled;
        op->state = OP_DECIDING;
        timer_disarm_locked(op);
    } else if (op->state == OP_RUNNING && !op->late) {
        uint64_t end = attempt_end(op);
        if (now >= end) {
            op->late = true;
            store_cancel(r->below, &op->inner);
        } else if (timerq_remove(r->timers, &op->timer)) { /* armed for the next attempt */
            timerq_add(r->timers, &op->timer, end);
        } else {
            timer_arm_locked(op, end);
        }
    }
    mutex_unlock(&r->lock);
    if (go && cancelled)
        op_finish_cancelled(op);
    else if (go)
        attempt_start(op);
    mutex_lock(&r->lock);
    op_unref_locked(op);
    mutex_unlock(&r->lock);
}

/* GET: where it stands */

static int sink_write(void *ctx, uint64_t off, const void *buf, size_t n)
{
    struct op *op = ctx;
    int e = op->req->sink.write(op->req->sink.ctx, off, buf, n);
    if (e < 0)
        op->sink_err = e;
    else
        op->delivered += n;
    note_alive(op);
    return e;
}

static void get_prepare(struct op *op)
{
    struct store_request *in = &op->inner;
    op->attempt_start = op->delivered;
    in->sink = (struct store_sink){.write = sink_write, .ctx = op};
    if (op->delivered == 0)
        return;
    const struct store_range *want = &op->req->range;
    in->range = (struct store_range){
        .set = true,
        .off = (want->set ? want->off : 0) + op->delivered,
        .len = want->set && want->len ? want->len - op->delivered : 0,
    };
    in->if_match = op->etag;
}

static ssize_t source_read(void *ctx, uint64_t off, void *buf, size_t n)
{
    struct op *op = ctx;
    note_alive(op);
    return op->req->source.read(op->req->source.ctx, off, buf, n);
}

static int source_checksum(void *ctx, uint32_t *ret)
{
    struct op *op = ctx;
    return op->req->source.checksum(op->req->source.ctx, ret);
}

/* After a failed attempt: remembers which version its bytes were of. */
static void get_learn(struct op *op)
{
    struct store_object *o = &op->inner.res.object;
    if (op->delivered == 0 || op->etag)
        return;
    op->etag = g_strdup(o->etag ? o->etag : op->req->if_match);
    op->object = *o;
    memset(o, 0, sizeof(*o));
    if (!op->object.etag)
        op->object.etag = g_strdup(op->etag);
}

/* All that was asked for has been delivered, only the end of the reply is missing. */
static bool get_is_whole(const struct op *op)
{
    const struct store_range *want = &op->req->range;
    uint64_t off = want->set ? want->off : 0;
    if (op->delivered == 0 || !op->etag)
        return false;
    return (want->set && op->delivered == want->len) || off + op->delivered == op->object.size;
}

/* A resumed GET found that the object is not what its first bytes came from. */
static bool get_changed(const struct op *op)
{
    const struct store_result *res = &op->inner.res;
    if (op->attempt_start == 0)
        return false;
    if (res->err == 0) /* a server that ignores If-Match */
        return res->object.etag && op->etag && strcmp(res->object.etag, op->etag) != 0;
    return res->cls == STORE_CLASS_CONFLICT || res->err == -ENOENT || res->err == -ERANGE;
}

/* True when the op has ended or cannot go on as a GET that is resumed. */
static bool get_decide(struct op *op)
{
    struct store_result *res = &op->inner.res;
    if (op->sink_err) {
        if (res->cls == STORE_CLASS_RETRY || res->cls == STORE_CLASS_OK)
            store_result_fail(res, op->sink_err, STORE_CLASS_FATAL, NULL, "reader gave up");
        return true;
    }
    if (get_changed(op)) {
        int status = res->http_status;
        store_result_clear(res);
        res->http_status = status;
        store_result_fail(res, -ESTALE, STORE_CLASS_CONFLICT, "PreconditionFailed",
                          "object changed while it was read");
        return true;
    }
    if (res->cls != STORE_CLASS_RETRY)
        return true;
    if (op->delivered > op->attempt_start)
        op->failures = 0; /* it moves: no reason to wait longer each time */
    get_learn(op);
    if (get_is_whole(op)) {
        store_result_clear(res);
        res->object = op->object;
        memset(&op->object, 0, sizeof(op->object));
        return true;
    }
    /* Bytes of an unknown version have been delivered: no request can continue them. */
    return op->delivered > 0 && !op->etag;
}

/* Attempts */

static bool conditional_write(const struct store_request *req)
{
    return (req->verb == STORE_PUT || req->verb == STORE_MPU_COMPLETE || req->verb == STORE_COPY) &&
           (req->if_match || req->if_none_match);
}

/* Did a failed attempt, of class RETRY, possibly take effect? A conditional write would have been
 * AMBIGUOUS, so the table is asked as if it had been one. */
static bool outcome_unknown(const struct store_request *req, const struct store_result *res)
{
    if (!store_verb_writes(req->verb) || conditional_write(req))
        return false;
    if (res->http_status)
        return store_classify(0, res->http_status, res->code, req->verb, true).cls !=
               STORE_CLASS_RETRY;
    return res->err != -ECONNREFUSED && res->err != -EHOSTUNREACH;
}

/* Verbs that are not quite idempotent: reads the answer to a repetition in the light of an earlier
 * attempt that may have worked. */
static void settle_repeated(struct op *op)
{
    const struct store_request *req = op->req;
    struct store_result *res = &op->inner.res;
    if (!op->unknown)
        return;
    bool done_before = false;
    switch (req->verb) {
    case STORE_MPU_COMPLETE:
        if (res->err == -ENOENT && strcmp(res->code, "NoSuchBucket") != 0)
            store_result_fail(res, -EIO, STORE_CLASS_AMBIGUOUS, res->code,
                              "upload is gone after an attempt with unknown outcome");
        break;
    case STORE_DELETE:
        if (req->if_match && (res->cls == STORE_CLASS_CONFLICT || res->err == -ENOENT))
            store_result_fail(res, -EIO, STORE_CLASS_AMBIGUOUS, res->code,
                              "version is gone after an attempt with unknown outcome");
        break;
    case STORE_BUCKET_CREATE:
        done_before = strcmp(res->code, "BucketAlreadyOwnedByYou") == 0;
        break;
    case STORE_BUCKET_DELETE:
        done_before = res->err == -ENOENT;
        break;
    default:
        break;
    }
    if (done_before)
        store_result_clear(res);
}

/* The time is over: the last failure tells more than that it is. */
static void op_finish_late(struct op *op)
{
    struct store_result *res = &op->inner.res;
    if (res->err == -ECANCELED) {
        op->unknown = op->unknown || store_verb_writes(op->req->verb);
        if (op->have_last && !conditional_write(op->req))
            store_result_move(res, &op->last);
        else
            store_result_fail(res, -ETIMEDOUT, STORE_CLASS_RETRY, NULL, "no reply in time");
    }
    /* Whoever repeats it as a new request could not tell its own success from a stranger's. */
    if (op->unknown && (conditional_write(op->req) || op->req->verb == STORE_MPU_COMPLETE))
        res->cls = STORE_CLASS_AMBIGUOUS;
    op_finish(op, res);
}

static void attempt_done(struct store_request *inner)
{
    struct op *op = inner->ctx;
    struct retry *r = op->r;
    struct store_result *res = &inner->res;
    mutex_lock(&r->lock);
    op->state = OP_DECIDING;
    timer_disarm_locked(op);
    bool cancelled = op->cancelled, late = op->late;
    mutex_unlock(&r->lock);

    bool final = res->cls != STORE_CLASS_RETRY;
    if (op->req->verb == STORE_GET)
        final = get_decide(op);
    else if ((store_refused_digest(res) || res->err == -EISDIR) && ++op->few >= FEW_TRIES)
        final = true;
    if (late && !cancelled && res->err == -ECANCELED) {
        op_finish_late(op);
        return;
    }
    if (final) {
        settle_repeated(op);
        if (res->err == -EISDIR)
            res->cls = STORE_CLASS_FATAL;
        op_finish(op, res);
        return;
    }
    op->unknown = op->unknown || outcome_unknown(op->req, res);
    if (verb_is_work(op->req->verb)) /* what an attempt takes is no waiting */
        __atomic_add_fetch(&op->alive, clock_mono_ns() - op->attempt_ns, __ATOMIC_RELAXED);
    if (cancelled) {
        op_finish_cancelled(op);
        return;
    }
    op->failures++;
    uint64_t retry_after = res->retry_after_ns;
    store_result_move(&op->last, res);
    op->have_last = true;
    if (!op_wait(op, retry_after)) {
        store_result_move(res, &op->last);
        op_finish_late(op);
    }
}

/* The caller owns op. */
static void attempt_start(struct op *op)
{
    struct retry *r = op->r;
    struct store_request *in = &op->inner;
    store_request_clear(in);
    *in = *op->req;
    memset(&in->res, 0, sizeof(in->res));
    in->layer = NULL;
    in->state = 0;
    in->done = attempt_done;
    in->ctx = op;
    in->deadline_ns = op->deadline;
    if (in->verb == STORE_GET)
        get_prepare(op);
    else if (verb_sends(in->verb) && in->source.read)
        in->source = (struct store_source){.read = source_read,
                                           .checksum = in->source.checksum ? source_checksum : NULL,
                                           .ctx = op,
                                           .size = in->source.size};
    op->attempt_ns = clock_mono_ns();

    mutex_lock(&r->lock);
    op->state = OP_STARTING;
    unsigned attempt = ++op->attempt;
    op->refs++;
    mutex_unlock(&r->lock);
    store_submit(r->below, in);
    mutex_lock(&r->lock);
    if (op->attempt == attempt && op->state == OP_STARTING) {
        op->state = OP_RUNNING;
        timer_arm_locked(op, attempt_end(op));
        if (op->cancelled)
            store_cancel(r->below, in);
    }
    op_unref_locked(op);
    mutex_unlock(&r->lock);
}

/* The layer */

static void retry_submit(struct store *s, struct store_request *req)
{
    struct retry *r = (struct retry *)s;
    struct op *op = g_new0(struct op, 1);
    op->r = r;
    op->req = req;
    op->refs = 1;
    op->timer = (struct timer){.fn = timer_fired, .arg = op};
    time_init(op);
    mutex_lock(&r->lock);
    r->live++;
    req->layer = op;
    mutex_unlock(&r->lock);
    attempt_start(op);
}

static void retry_cancel(struct store *s, struct store_request *req)
{
    struct retry *r = (struct retry *)s;
    mutex_lock(&r->lock);
    struct op *op = req->layer;
    if (op && !op->cancelled) {
        op->cancelled = true;
        if (op->state == OP_RUNNING) {
            store_cancel(r->below, &op->inner);
        } else if (op->state == OP_WAITING && timerq_remove(r->timers, &op->timer)) {
            /* Not inline: the timer thread ends it, at once. */
            timerq_add(r->timers, &op->timer, 0);
        }
    }
    mutex_unlock(&r->lock);
}

static void retry_caps(struct store *s, const char *bucket, struct store_caps *ret)
{
    store_get_caps(((struct retry *)s)->below, bucket, ret);
}

static void retry_destroy(struct store *s)
{
    struct retry *r = (struct retry *)s;
    /* Threads that brought the last results may still be on their way out. */
    mutex_lock(&r->lock);
    while (r->live)
        cond_wait(&r->idle, &r->lock);
    mutex_unlock(&r->lock);
    timerq_free(r->timers);
    store_free(r->below);
    cond_fini(&r->idle);
    mutex_fini(&r->lock);
    g_free(r);
}

static const struct store_ops retry_ops = {
    .name = "retry",
    .submit = retry_submit,
    .cancel = retry_cancel,
    .caps = retry_caps,
    .destroy = retry_destroy,
};

int store_retry_new(struct store *below, const struct store_retry_params *p, struct store **ret)
{
    struct timerq *timers;
    int e = timerq_new("retry", &timers);
    if (e < 0)
        return e;
    struct retry *r = g_new0(struct retry, 1);
    r->store.ops = &retry_ops;
    r->below = below;
    r->timers = timers;
    r->p = *p;
    if (!r->p.op_timeout_ns)
        r->p.op_timeout_ns = 120 * NSEC_PER_SEC;
    if (!r->p.base_ns)
        r->p.base_ns = 50 * NSEC_PER_MSEC;
    if (!r->p.cap_ns)
        r->p.cap_ns = 5 * NSEC_PER_SEC;
    r->prng = r->p.seed ? r->p.seed : ((uint64_t)g_random_int() << 32 | g_random_int()) | 1;
    mutex_init(&r->lock, RANK_RETRY);
    cond_init(&r->idle);
    *ret = &r->store;
    return 0;
}
