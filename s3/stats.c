/* SPDX-License-Identifier: Apache-2.0
 *
 * stats: see stats.h. Threads: any. Its lock ranks between retry's and those of the layers below,
 * since a cancel goes through under it (so that the inner request cannot end meanwhile).
 */
#include "s3/stats.h"

#include <string.h>

#include <errno.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mutex.h"

#define RANK_STATS ((enum mutex_rank)(RANK_ENGINE - 4))
#define LATENCY_WEIGHT 16 /* a new sample's share of the mean is one in so many */

struct stats {
    struct store store;
    struct store *below;
    struct mutex lock;
    struct store_stats n; /* lock */
    bool quiet;           /* lock */
};

struct op {
    struct stats *st;
    struct store_request *req; /* req->layer points here between submit and done; st->lock */
    struct store_request inner;
    uint64_t start_ns;
};

static void count_locked(struct stats *st, const struct op *op, uint64_t now)
{
    const struct store_result *res = &op->inner.res;
    enum store_verb v = op->inner.verb;
    st->n.in_flight--;
    if (res->err < 0)
        st->n.errors[v]++;
    if (v == STORE_GET)
        st->n.bytes_in += res->bytes;
    else if (v == STORE_PUT || v == STORE_MPU_PART)
        st->n.bytes_out += res->bytes;
    uint64_t took = now - op->start_ns;
    if (st->n.latency_ns == 0)
        st->n.latency_ns = took;
    else if (took >= st->n.latency_ns)
        st->n.latency_ns += (took - st->n.latency_ns) / LATENCY_WEIGHT;
    else
        st->n.latency_ns -= (st->n.latency_ns - took) / LATENCY_WEIGHT;
}

static void inner_done(struct store_request *inner)
{
    struct op *op = inner->ctx;
    struct stats *st = op->st;
    struct store_request *req = op->req;
    uint64_t now = clock_mono_ns();
    mutex_lock(&st->lock);
    count_locked(st, op, now);
    bool quiet = st->quiet;
    req->layer = NULL;
    mutex_unlock(&st->lock);
    store_result_move(&req->res, &inner->res);
    /* What the caller sees is a bare errno; the server's own words are here alone. */
    int e = -req->res.err;
    if (!quiet && req->res.cls == STORE_CLASS_FATAL && (e == EINVAL || e == EBADMSG || e == ENOSPC || e == EDQUOT))
        log_warning("%s", req->res.detail);
    if (log_get_level() >= LOG_DEBUG)
        log_debug_errno(req->res.err, "%s %s/%s: %d %s", store_verb_name(req->verb),
                        req->bucket ? req->bucket : "", req->key ? req->key : req->prefix ? req->prefix : "",
                        req->res.http_status, req->res.object.etag ? req->res.object.etag : "");
    g_free(op);
    store_complete(req); /* st may be gone after this */
}

static void stats_submit(struct store *s, struct store_request *req)
{
    struct stats *st = (struct stats *)s;
    struct op *op = g_new(struct op, 1);
    op->st = st;
    op->req = req;
    op->inner = *req;
    memset(&op->inner.res, 0, sizeof(op->inner.res));
    op->inner.state = 0;
    op->inner.layer = NULL;
    op->inner.done = inner_done;
    op->inner.ctx = op;
    op->start_ns = clock_mono_ns();
    mutex_lock(&st->lock);
    st->n.requests[req->verb]++;
    st->n.in_flight++;
    req->layer = op;
    mutex_unlock(&st->lock);
    store_submit(st->below, &op->inner);
}

static void stats_cancel(struct store *s, struct store_request *req)
{
    struct stats *st = (struct stats *)s;
    mutex_lock(&st->lock);
    struct op *op = req->layer;
    if (op)
        store_cancel(st->below, &op->inner);
    mutex_unlock(&st->lock);
}

static void stats_caps(struct store *s, const char *bucket, struct store_caps *ret)
{
    store_get_caps(((struct stats *)s)->below, bucket, ret);
}

static void stats_destroy(struct store *s)
{
    struct stats *st = (struct stats *)s;
    store_free(st->below);
    mutex_fini(&st->lock);
    g_free(st);
}

static const struct store_ops stats_ops = {
    .name = "stats",
    .submit = stats_submit,
    .cancel = stats_cancel,
    .caps = stats_caps,
    .destroy = stats_destroy,
};

struct store *store_stats_new(struct store *below)
{
    struct stats *st = g_new0(struct stats, 1);
    st->store.ops = &stats_ops;
    st->below = below;
    mutex_init(&st->lock, RANK_STATS);
    return &st->store;
}

void store_stats_get(struct store *s, struct store_stats *ret)
{
    struct stats *st = (struct stats *)s;
    mutex_lock(&st->lock);
    *ret = st->n;
    mutex_unlock(&st->lock);
}

void store_stats_set_quiet(struct store *s, bool quiet)
{
    struct stats *st = (struct stats *)s;
    mutex_lock(&st->lock);
    st->quiet = quiet;
    mutex_unlock(&st->lock);
}
