/* SPDX-License-Identifier: Apache-2.0
 *
 * fault: see fault.h. What happens to a request is decided at its submit, from the seed and its
 * number alone. Threads: submit on the caller's, results on those of the store below; what is
 * delayed or fails without reaching that store ends on a timer thread.
 *
 *     DELAYED ──due──> STARTING ──submit returned──> RUNNING ──done──> ENDED
 *        └──due, and it fails before the store acts────────────────────^
 *
 * A cancel goes down in RUNNING and under the lock only, so that the inner request cannot end
 * meanwhile. The lock ranks just above the real stores'.
 */
#include "s3/fault.h"

#include <curl/curl.h>
#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/timerq.h"
#include "s3/errors.h"

#define RANK_FAULT ((enum mutex_rank)(RANK_ENGINE - 2))
#define RETRY_AFTER_NS                                                                             \
    (50 * NSEC_PER_MSEC)   /* servers say whole seconds; tests have no time for that */
#define CUT_MAX (1U << 20) /* where a body of unknown length is cut at the latest */

enum kind {
    KIND_TIMEOUT,
    KIND_RESET,
    KIND_500,
    KIND_503,
    KIND_CUT,
    KIND_FLIP,
    KIND_COUNT,
    KIND_NONE = -1
};

static const char *const kind_names[KIND_COUNT] = {"timeout", "reset", "500", "503", "cut", "flip"};

struct fault {
    struct store store;
    struct store *below;
    double rate; /* constant, as all up to the lock */
    uint64_t seed, delay_ns;
    bool verbs[STORE_VERB_COUNT], kinds[KIND_COUNT];
    struct timerq *timers;
    struct mutex lock;
    struct cond idle;
    uint64_t sequence, injected; /* lock */
    unsigned live;               /* lock: ops that are referenced */
};

enum op_state { OP_DELAYED, OP_STARTING, OP_RUNNING, OP_ENDED };

struct op {
    struct fault *f;
    struct store_request *req;
    struct store_request inner;
    struct timer timer;
    unsigned refs;       /* lock */
    enum op_state state; /* lock */
    bool cancelled;      /* lock */

    enum kind kind;
    bool acts;               /* the store below sees it; its reply is lost */
    bool unsent;             /* reset before the request left */
    uint64_t cut, delivered; /* GET: body bytes let through, and seen; flip: which byte */
    int sink_err;
};

static void op_unref_locked(struct op *op)
{
    struct fault *f = op->f;
    mutex_assert_held(&f->lock);
    if (--op->refs > 0)
        return;
    store_request_clear(&op->inner);
    g_free(op);
    if (--f->live == 0)
        cond_broadcast(&f->idle);
}

/* What store_s3 would make of it, in res. */
static void fail(struct op *op, struct store_result *res)
{
    const struct store_request *req = op->req;
    int curl = 0, status = 0;
    const char *code = NULL;
    switch (op->kind) {
    case KIND_TIMEOUT:
        curl = CURLE_OPERATION_TIMEDOUT;
        break;
    case KIND_RESET:
        curl = op->unsent ? CURLE_COULDNT_CONNECT : CURLE_RECV_ERROR;
        break;
    case KIND_CUT:
        curl = CURLE_PARTIAL_FILE;
        break;
    case KIND_500:
        status = 500;
        code = "InternalError";
        break;
    default:
        status = 503;
        code = "SlowDown";
        break;
    }
    bool conditional =
        (req->verb == STORE_PUT || req->verb == STORE_MPU_COMPLETE || req->verb == STORE_COPY) &&
        (req->if_match || req->if_none_match);
    struct store_verdict v = store_classify(curl, status, code, req->verb, conditional);
    store_result_fail(res, v.err, v.cls, code, "injected fault: %s", kind_names[op->kind]);
    res->http_status = status;
    if (op->kind == KIND_503)
        res->retry_after_ns = RETRY_AFTER_NS;
}

static void op_finish(struct op *op, struct store_result *res)
{
    struct fault *f = op->f;
    struct store_request *req = op->req;
    store_result_move(&req->res, res);
    mutex_lock(&f->lock);
    op->state = OP_ENDED;
    req->layer = NULL;
    mutex_unlock(&f->lock);
    store_complete(req);
    mutex_lock(&f->lock);
    op_unref_locked(op);
    mutex_unlock(&f->lock);
}

static int sink_write(void *ctx, uint64_t off, const void *buf, size_t n)
{
    struct op *op = ctx;
    uint64_t room = op->cut - op->delivered;
    size_t pass = n < room ? n : (size_t)room;
    if (pass > 0) {
        op->sink_err = op->req->sink.write(op->req->sink.ctx, off, buf, pass);
        if (op->sink_err < 0)
            return op->sink_err;
        op->delivered += pass;
    }
    return pass < n ? -ECONNRESET : 0;
}

static ssize_t source_read(void *ctx, uint64_t off, void *buf, size_t n)
{
    struct op *op = ctx;
    const struct store_source *source = &op->req->source;
    ssize_t r = source->read(source->ctx, off, buf, n);
    uint64_t at = op->cut % source->size;
    if (r > 0 && at >= off && at - off < (uint64_t)r)
        ((char *)buf)[at - off] ^= 1;
    return r;
}

static int source_checksum(void *ctx, uint32_t *ret)
{
    struct op *op = ctx;
    return op->req->source.checksum(op->req->source.ctx, ret);
}

static void inner_done(struct store_request *inner)
{
    struct op *op = inner->ctx;
    struct store_result *res = &inner->res;
    /* The caller's own refusal, a cancellation and the store's real failures go up as they are. */
    bool lost = op->acts && op->kind != KIND_FLIP && !op->sink_err &&
                (res->err == 0 || res->err == -ECONNRESET);
    if (lost && op->req->verb == STORE_GET) {
        /* The reply's head has been seen: the object stays. */
        fail(op, res);
        res->bytes = op->delivered;
    } else if (lost) {
        store_result_clear(res);
        fail(op, res);
    }
    op_finish(op, res);
}

static void op_pass(struct op *op)
{
    struct fault *f = op->f;
    struct store_request *in = &op->inner;
    *in = *op->req;
    memset(&in->res, 0, sizeof(in->res));
    in->state = 0;
    in->layer = NULL;
    in->done = inner_done;
    in->ctx = op;
    if (op->acts && in->verb == STORE_GET)
        in->sink = (struct store_sink){.write = sink_write, .ctx = op};
    if (op->kind == KIND_FLIP)
        in->source = (struct store_source){.read = source_read,
                                           .checksum = in->source.checksum ? source_checksum : NULL,
                                           .ctx = op,
                                           .size = in->source.size};
    mutex_lock(&f->lock);
    op->state = OP_STARTING;
    op->refs++;
    mutex_unlock(&f->lock);
    store_submit(f->below, in);
    mutex_lock(&f->lock);
    if (op->state == OP_STARTING) {
        op->state = OP_RUNNING;
        if (op->cancelled)
            store_cancel(f->below, in);
    }
    op_unref_locked(op);
    mutex_unlock(&f->lock);
}

static void timer_fired(void *arg)
{
    struct op *op = arg;
    struct fault *f = op->f;
    struct store_result res = {0};
    mutex_lock(&f->lock);
    bool cancelled = op->cancelled;
    mutex_unlock(&f->lock);
    if (cancelled) {
        store_result_fail(&res, -ECANCELED, STORE_CLASS_FATAL, NULL, "cancelled");
        op_finish(op, &res);
    } else if (op->kind != KIND_NONE && !op->acts) {
        fail(op, &res);
        op_finish(op, &res);
    } else {
        op_pass(op);
    }
}

/* The decision */

/* splitmix64 (Steele, Lea and Flood, 2014). */
static uint64_t mix(uint64_t *state)
{
    uint64_t z = *state += 0x9E3779B97F4A7C15ULL;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
    return z ^ (z >> 31);
}

static bool has_body(const struct store_request *req)
{
    return (req->verb == STORE_PUT || req->verb == STORE_MPU_PART) && req->source.size > 0;
}

static enum kind choose_kind(const struct fault *f, const struct store_request *req, uint64_t x)
{
    enum kind can[KIND_COUNT];
    unsigned n = 0;
    for (int k = 0; k < KIND_COUNT; k++)
        if (f->kinds[k] && (k != KIND_CUT || req->verb == STORE_GET) &&
            (k != KIND_FLIP || has_body(req)))
            can[n++] = (enum kind)k;
    return n ? can[x % n] : KIND_NONE;
}

static void decide(struct op *op, uint64_t number)
{
    const struct fault *f = op->f;
    const struct store_request *req = op->req;
    uint64_t state = f->seed ^ (number * 0xD1342543DE82EF95ULL);
    op->kind = KIND_NONE;
    bool hit = (double)(mix(&state) >> 11) * 0x1p-53 < f->rate;
    if (!hit || !f->verbs[req->verb])
        return;
    op->kind = choose_kind(f, req, mix(&state));
    uint64_t x = mix(&state), y = mix(&state);
    if (req->verb == STORE_GET) {
        op->acts = op->kind == KIND_CUT || (op->kind == KIND_RESET && x % 2);
        /* Somewhere in the body; also before its first byte and after its last one. */
        op->cut = y % ((req->range.set && req->range.len ? req->range.len : CUT_MAX) + 1);
    } else if (op->kind == KIND_FLIP) {
        op->acts = true;
        op->cut = y;
    } else {
        op->acts = store_verb_writes(req->verb) && x % 2 &&
                   (op->kind == KIND_RESET || op->kind == KIND_TIMEOUT);
    }
    op->unsent = op->kind == KIND_RESET && !op->acts && y % 2;
}

static void fault_submit(struct store *s, struct store_request *req)
{
    struct fault *f = (struct fault *)s;
    struct op *op = g_new0(struct op, 1);
    op->f = f;
    op->req = req;
    op->refs = 1;
    op->timer = (struct timer){.fn = timer_fired, .arg = op};
    mutex_lock(&f->lock);
    uint64_t number = f->sequence++;
    f->live++;
    mutex_unlock(&f->lock);
    decide(op, number);
    mutex_lock(&f->lock);
    f->injected += op->kind != KIND_NONE;
    req->layer = op;
    bool timed = f->delay_ns || (op->kind != KIND_NONE && !op->acts);
    if (timed) /* a failure must not end inside submit: also by the timer */
        timerq_add(f->timers, &op->timer, f->delay_ns ? clock_mono_ns() + f->delay_ns : 0);
    mutex_unlock(&f->lock);
    if (!timed)
        op_pass(op);
}

static void fault_cancel(struct store *s, struct store_request *req)
{
    struct fault *f = (struct fault *)s;
    mutex_lock(&f->lock);
    struct op *op = req->layer;
    if (op && !op->cancelled) {
        op->cancelled = true;
        if (op->state == OP_RUNNING)
            store_cancel(f->below, &op->inner);
        else if (op->state == OP_DELAYED && timerq_remove(f->timers, &op->timer))
            timerq_add(f->timers, &op->timer, 0);
    }
    mutex_unlock(&f->lock);
}

static void fault_caps(struct store *s, const char *bucket, struct store_caps *ret)
{
    store_get_caps(((struct fault *)s)->below, bucket, ret);
}

static void fault_destroy(struct store *s)
{
    struct fault *f = (struct fault *)s;
    mutex_lock(&f->lock);
    while (f->live)
        cond_wait(&f->idle, &f->lock);
    mutex_unlock(&f->lock);
    timerq_free(f->timers);
    store_free(f->below);
    cond_fini(&f->idle);
    mutex_fini(&f->lock);
    g_free(f);
}

static const struct store_ops fault_ops = {
    .name = "fault",
    .submit = fault_submit,
    .cancel = fault_cancel,
    .caps = fault_caps,
    .destroy = fault_destroy,
};

/* The spec */

/* Sets set[i] for each of the names joined by '+'. */
static bool parse_set(const char *text, const char *(*name)(unsigned), unsigned n, bool *set)
{
    memset(set, 0, n * sizeof(*set));
    g_auto(GStrv) words = g_strsplit(text, "+", -1);
    for (char **w = words; *w; w++) {
        unsigned i = 0;
        while (i < n && strcmp(*w, name(i)) != 0)
            i++;
        if (i == n)
            return false;
        set[i] = true;
    }
    return words[0] != NULL;
}

static const char *kind_name(unsigned i)
{
    return kind_names[i];
}

static const char *verb_name(unsigned i)
{
    return store_verb_name((enum store_verb)i);
}

static bool parse_word(struct fault *f, const char *name, const char *value)
{
    char *end;
    if (strcmp(name, "rate") == 0) {
        f->rate = g_ascii_strtod(value, &end);
        return *value && !*end && f->rate >= 0 && f->rate <= 1;
    }
    if (strcmp(name, "seed") == 0)
        return g_ascii_string_to_unsigned(value, 10, 0, UINT64_MAX, &f->seed, NULL);
    if (strcmp(name, "verbs") == 0)
        return parse_set(value, verb_name, STORE_VERB_COUNT, f->verbs);
    if (strcmp(name, "kinds") == 0)
        return parse_set(value, kind_name, KIND_COUNT, f->kinds);
    if (strcmp(name, "delay_ms") == 0) {
        bool ok = g_ascii_string_to_unsigned(value, 10, 0, 3600 * 1000, &f->delay_ns, NULL);
        f->delay_ns *= NSEC_PER_MSEC;
        return ok;
    }
    return false;
}

static int parse_spec(struct fault *f, const char *spec)
{
    memset(f->verbs, true, sizeof(f->verbs));
    memset(f->kinds, true, sizeof(f->kinds));
    f->kinds[KIND_FLIP] = false; /* it would go unnoticed where no checksums are sent */
    g_auto(GStrv) words = g_strsplit(spec, ",", -1);
    if (!words[0])
        return log_error_errno(-EINVAL, "fault: says nothing");
    for (char **w = words; *w; w++) {
        char *eq = strchr(*w, '=');
        if (eq)
            *eq = '\0';
        if (!eq || !parse_word(f, *w, eq + 1))
            return log_error_errno(-EINVAL, "fault: cannot use \"%s\" in \"%s\"", *w, spec);
    }
    return 0;
}

int store_fault_new(struct store *below, const char *spec, struct store **ret)
{
    g_autofree struct fault *f = g_new0(struct fault, 1);
    f->store.ops = &fault_ops;
    f->below = below;
    int r = parse_spec(f, spec);
    if (r < 0)
        return r;
    r = timerq_new("fault", &f->timers);
    if (r < 0)
        return r;
    mutex_init(&f->lock, RANK_FAULT);
    cond_init(&f->idle);
    *ret = &g_steal_pointer(&f)->store;
    return 0;
}

uint64_t store_fault_count(struct store *s)
{
    struct fault *f = (struct fault *)s;
    mutex_lock(&f->lock);
    uint64_t n = f->injected;
    mutex_unlock(&f->lock);
    return n;
}
