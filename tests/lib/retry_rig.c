/* SPDX-License-Identifier: Apache-2.0
 *
 * retry_rig: see retry_rig.h. Threads: the hook runs on the fake's, the waits are seen on the
 * fake's or the timer's.
 */
#include "tests/lib/retry_rig.h"

#include <errno.h>

static enum fake_action rig_hook(void *ctx, struct store_request *req, uint64_t *cut)
{
    struct rig *rig = ctx;
    mutex_lock(&rig->lock);
    unsigned n = rig->attempts++;
    mutex_unlock(&rig->lock);
    return rig->script ? rig->script(rig, n, req, cut) : FAKE_GO;
}

static void rig_backoff(void *ctx, const struct store_request *req, uint64_t *delay_ns)
{
    struct rig *rig = ctx;
    mutex_lock(&rig->lock);
    if (rig->waits < G_N_ELEMENTS(rig->delays))
        rig->delays[rig->waits] = *delay_ns;
    rig->waits++;
    if (!rig->keep_delay)
        *delay_ns = 0;
    cond_broadcast(&rig->changed);
    mutex_unlock(&rig->lock);
    if (rig->on_wait)
        rig->on_wait(rig);
}

void rig_init_above(struct rig *rig, script_fn script, uint64_t seed, struct store_retry_params p)
{
    *rig = (struct rig){.script = script};
    mutex_init(&rig->lock, RANK_LEAF);
    cond_init(&rig->changed);
    rig->fake = fake_store_new(&(struct fake_params){.seed = seed, .hook = rig_hook, .ctx = rig});
    rig->stats = store_stats_new(rig->fake);
    rig->params = p;
    rig->params.seed = seed;
    rig->params.backoff = rig_backoff;
    rig->params.ctx = rig;
}

void rig_finish_init(struct rig *rig, struct store *below)
{
    g_assert_cmpint(store_retry_new(below, &rig->params, &rig->store), ==, 0);
}

void rig_init_with(struct rig *rig, script_fn script, uint64_t seed, struct store_retry_params p)
{
    rig_init_above(rig, script, seed, p);
    rig_finish_init(rig, rig->stats);
}

void rig_init(struct rig *rig, script_fn script)
{
    rig_init_with(rig, script, 1, (struct store_retry_params){0});
}

void rig_fini(struct rig *rig)
{
    struct store_stats n;
    store_stats_get(rig->stats, &n);
    g_assert_cmpuint(n.in_flight, ==, 0);
    store_free(rig->store);
    cond_fini(&rig->changed);
    mutex_fini(&rig->lock);
}

void rig_wait_waits(struct rig *rig, unsigned n)
{
    mutex_lock(&rig->lock);
    while (rig->waits < n)
        cond_wait(&rig->changed, &rig->lock);
    mutex_unlock(&rig->lock);
}

uint64_t rig_requests(struct rig *rig, enum store_verb v)
{
    struct store_stats n;
    store_stats_get(rig->stats, &n);
    return n.requests[v];
}

enum fake_action rig_fail_503(struct store_request *req)
{
    store_result_fail(&req->res, -EAGAIN, STORE_CLASS_RETRY, "SlowDown", "slow down");
    req->res.http_status = 503;
    return FAKE_FAIL;
}

enum fake_action rig_lose_reply(struct store_request *req)
{
    store_result_fail(&req->res, -ECONNRESET, STORE_CLASS_RETRY, NULL, "reply lost");
    return FAKE_FAIL_AFTER;
}

struct store_request rig_head_request(void)
{
    return (struct store_request){.verb = STORE_HEAD, .bucket = "b", .key = "k"};
}
