/* SPDX-License-Identifier: Apache-2.0
 *
 * s3/retry above stats above the fake store: what is repeated and how often, waits, deadlines,
 * resumed GETs, cancellation in every state. No test waits for a backoff: the hook of the retry
 * layer sees each wait and makes it nothing.
 */
#include <errno.h>
#include <glib.h>
#include <stdatomic.h>
#include <string.h>

#include "base/cancel.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "base/thread.h"
#include "s3/retry.h"
#include "s3/stats.h"
#include "tests/lib/fake_store.h"
#include "tests/lib/seed.h"

#define HOUR (3600 * NSEC_PER_SEC)

struct rig;

/* What the fake does with attempt number n (from 0) of the test's request. */
typedef enum fake_action (*script_fn)(struct rig *rig, unsigned n, struct store_request *req,
                                      uint64_t *cut);

struct rig {
    struct store *fake, *stats, *store;
    script_fn script;
    void *arg;
    bool keep_delay; /* the hook leaves waits as they are */

    struct mutex lock;
    struct cond changed;
    unsigned attempts, waits; /* lock */
    uint64_t delays[64];      /* lock: of the first waits */
};

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
}

static void rig_init_with(struct rig *rig, script_fn script, uint64_t seed,
                          struct store_retry_params p)
{
    *rig = (struct rig){.script = script};
    mutex_init(&rig->lock, RANK_LEAF);
    cond_init(&rig->changed);
    rig->fake = fake_store_new(&(struct fake_params){.seed = seed, .hook = rig_hook, .ctx = rig});
    rig->stats = store_stats_new(rig->fake);
    p.seed = seed;
    p.backoff = rig_backoff;
    p.ctx = rig;
    g_assert_cmpint(store_retry_new(rig->stats, &p, &rig->store), ==, 0);
}

static void rig_init(struct rig *rig, script_fn script)
{
    rig_init_with(rig, script, 1, (struct store_retry_params){0});
}

static void rig_fini(struct rig *rig)
{
    struct store_stats n;
    store_stats_get(rig->stats, &n);
    g_assert_cmpuint(n.in_flight, ==, 0);
    store_free(rig->store);
    cond_fini(&rig->changed);
    mutex_fini(&rig->lock);
}

static void rig_wait_waits(struct rig *rig, unsigned n)
{
    mutex_lock(&rig->lock);
    while (rig->waits < n)
        cond_wait(&rig->changed, &rig->lock);
    mutex_unlock(&rig->lock);
}

static uint64_t requests(struct rig *rig, enum store_verb v)
{
    struct store_stats n;
    store_stats_get(rig->stats, &n);
    return n.requests[v];
}

static enum fake_action fail_503(struct store_request *req)
{
    store_result_fail(&req->res, -EAGAIN, STORE_CLASS_RETRY, "SlowDown", "slow down");
    req->res.http_status = 503;
    return FAKE_FAIL;
}

static enum fake_action lose_reply(struct store_request *req)
{
    store_result_fail(&req->res, -ECONNRESET, STORE_CLASS_RETRY, NULL, "reply lost");
    return FAKE_FAIL_AFTER;
}

static struct store_request head_request(void)
{
    return (struct store_request){.verb = STORE_HEAD, .bucket = "b", .key = "k"};
}

/* Attempts */

static enum fake_action four_failures(struct rig *rig, unsigned n, struct store_request *req,
                                      uint64_t *cut)
{
    return n < 4 ? fail_503(req) : FAKE_GO;
}

static void test_attempts(void)
{
    struct rig rig;
    rig_init(&rig, four_failures);
    g_autofree char *etag = fake_store_put(rig.fake, "b", "k", "x", 1);
    _cleanup_request_ struct store_request req = head_request();
    g_assert_cmpint(store_run(rig.store, &req, NULL), ==, 0);
    g_assert_cmpint(req.res.cls, ==, STORE_CLASS_OK);
    g_assert_cmpstr(req.res.code, ==, "");
    g_assert_cmpstr(req.res.object.etag, ==, etag);
    g_assert_cmpuint(requests(&rig, STORE_HEAD), ==, 5);
    g_assert_cmpuint(rig.waits, ==, 4);
    struct store_stats n;
    store_stats_get(rig.stats, &n);
    g_assert_cmpuint(n.errors[STORE_HEAD], ==, 4);
    struct store_caps caps;
    store_get_caps(rig.store, &caps);
    g_assert_true(caps.put_if);
    rig_fini(&rig);
}

static enum fake_action other_classes(struct rig *rig, unsigned n, struct store_request *req,
                                      uint64_t *cut)
{
    store_result_fail(&req->res, -EPERM, *(enum store_class *)rig->arg, "Code", "detail");
    req->res.http_status = 418;
    return FAKE_FAIL;
}

static void test_other_classes(void)
{
    static const enum store_class classes[] = {STORE_CLASS_AUTH, STORE_CLASS_CONFLICT,
                                               STORE_CLASS_AMBIGUOUS, STORE_CLASS_FATAL};
    struct rig rig;
    rig_init(&rig, other_classes);
    for (size_t i = 0; i < G_N_ELEMENTS(classes); i++) {
        enum store_class cls = classes[i];
        rig.arg = &cls;
        _cleanup_request_ struct store_request req = head_request();
        g_assert_cmpint(store_run(rig.store, &req, NULL), ==, -EPERM);
        g_assert_cmpint(req.res.cls, ==, cls);
        g_assert_cmpstr(req.res.code, ==, "Code");
        g_assert_cmpstr(req.res.detail, ==, "detail");
        g_assert_cmpint(req.res.http_status, ==, 418);
        g_assert_cmpuint(requests(&rig, STORE_HEAD), ==, i + 1);
    }
    rig_fini(&rig);
}

/* Waits */

static enum fake_action many_failures(struct rig *rig, unsigned n, struct store_request *req,
                                      uint64_t *cut)
{
    return n < 60 ? fail_503(req) : FAKE_GO;
}

static void run_sixty(uint64_t seed, uint64_t *delays)
{
    struct rig rig;
    rig_init_with(&rig, many_failures, seed,
                  (struct store_retry_params){.base_ns = 1000, .cap_ns = 100000, .op_timeout_ns = HOUR});
    g_free(fake_store_put(rig.fake, "b", "k", "x", 1));
    _cleanup_request_ struct store_request req = head_request();
    g_assert_cmpint(store_run(rig.store, &req, NULL), ==, 0);
    g_assert_cmpuint(rig.waits, ==, 60);
    memcpy(delays, rig.delays, 60 * sizeof(*delays));
    rig_fini(&rig);
}

static void test_backoff(void)
{
    uint64_t seed = test_seed(), a[60], b[60], largest = 0;
    run_sixty(seed, a);
    run_sixty(seed, b);
    g_assert_cmpmem(a, sizeof(a), b, sizeof(b)); /* as the seed says */
    for (unsigned i = 0; i < 60; i++) {
        uint64_t bound = i < 7 ? MIN(1000ULL << i, 100000) : 100000;
        g_assert_cmpuint(a[i], <=, bound);
        largest = MAX(largest, a[i]);
    }
    g_assert_cmpuint(largest, >, 50000); /* full jitter, but it grew */
}

static enum fake_action retry_after(struct rig *rig, unsigned n, struct store_request *req,
                                    uint64_t *cut)
{
    if (n > 0)
        return FAKE_GO;
    fail_503(req);
    req->res.retry_after_ns = 77 * NSEC_PER_SEC;
    return FAKE_FAIL;
}

static void test_retry_after(void)
{
    struct rig rig;
    rig_init(&rig, retry_after);
    g_free(fake_store_put(rig.fake, "b", "k", "x", 1));
    _cleanup_request_ struct store_request req = head_request();
    g_assert_cmpint(store_run(rig.store, &req, NULL), ==, 0);
    g_assert_cmpuint(rig.waits, ==, 1);
    g_assert_cmpuint(rig.delays[0], >=, 77 * NSEC_PER_SEC);
    g_assert_cmpuint(rig.delays[0], <, 78 * NSEC_PER_SEC);
    g_assert_cmpuint(req.res.retry_after_ns, ==, 0);
    rig_fini(&rig);

    /* Beyond the deadline: the error now, not a wait for nothing. */
    rig_init(&rig, retry_after);
    req.deadline_ns = clock_mono_ns() + 60 * NSEC_PER_SEC;
    g_assert_cmpint(store_run(rig.store, &req, NULL), ==, -EAGAIN);
    g_assert_cmpint(req.res.cls, ==, STORE_CLASS_RETRY);
    g_assert_cmpstr(req.res.code, ==, "SlowDown");
    g_assert_cmpuint(requests(&rig, STORE_HEAD), ==, 1);
    g_assert_cmpuint(rig.waits, ==, 0);
    rig_fini(&rig);
}

/* Deadlines */

static enum fake_action check_deadline(struct rig *rig, unsigned n, struct store_request *req,
                                       uint64_t *cut)
{
    uint64_t now = clock_mono_ns();
    if (*(uint64_t *)rig->arg)
        g_assert_cmpuint(req->deadline_ns, ==, *(uint64_t *)rig->arg);
    else
        g_assert_true(req->deadline_ns > now && req->deadline_ns <= now + HOUR);
    return FAKE_GO;
}

static void test_deadline_passed_down(void)
{
    struct rig rig;
    uint64_t deadline = 0;
    rig_init_with(&rig, check_deadline, 1, (struct store_retry_params){.op_timeout_ns = HOUR});
    g_free(fake_store_put(rig.fake, "b", "k", "x", 1));
    rig.arg = &deadline;
    _cleanup_request_ struct store_request req = head_request();
    g_assert_cmpint(store_run(rig.store, &req, NULL), ==, 0);
    req.deadline_ns = deadline = clock_mono_ns() + HOUR / 2;
    g_assert_cmpint(store_run(rig.store, &req, NULL), ==, 0);
    rig_fini(&rig);
}

static enum fake_action always_503(struct rig *rig, unsigned n, struct store_request *req,
                                   uint64_t *cut)
{
    return fail_503(req);
}

static void test_deadline_while_failing(void)
{
    struct rig rig;
    rig_init_with(&rig, always_503, 1,
                  (struct store_retry_params){.op_timeout_ns = 20 * NSEC_PER_MSEC, .base_ns = 1000});
    _cleanup_request_ struct store_request req = head_request();
    int r = store_run(rig.store, &req, NULL);
    g_assert_cmpint(req.res.cls, ==, STORE_CLASS_RETRY);
    if (rig.waits > 0) /* surely so, but on a machine that stops for 20 ms */
        g_assert_cmpint(r, ==, -EAGAIN);
    else
        g_assert_true(r == -EAGAIN || r == -ETIMEDOUT);
    rig_fini(&rig);
}

static enum fake_action hang(struct rig *rig, unsigned n, struct store_request *req, uint64_t *cut)
{
    unsigned failures = rig->arg ? *(unsigned *)rig->arg : 0;
    return n < failures ? fail_503(req) : FAKE_HOLD;
}

/* The layer below does not end in time by itself. */
static void test_deadline_while_running(void)
{
    static const struct store_retry_params p = {.op_timeout_ns = 5 * NSEC_PER_MSEC, .base_ns = 1};
    struct rig rig;
    rig_init_with(&rig, hang, 1, p);
    _cleanup_request_ struct store_request req = head_request();
    g_assert_cmpint(store_run(rig.store, &req, NULL), ==, -ETIMEDOUT);
    g_assert_cmpint(req.res.cls, ==, STORE_CLASS_RETRY);
    /* Conditional: it may or may not have happened. */
    _cleanup_request_ struct store_request put = {
        .verb = STORE_PUT, .bucket = "b", .key = "k", .if_none_match = true};
    g_assert_cmpint(store_run(rig.store, &put, NULL), ==, -ETIMEDOUT);
    g_assert_cmpint(put.res.cls, ==, STORE_CLASS_AMBIGUOUS);
    rig_fini(&rig);
    /* An earlier failure says more. */
    unsigned failures = 1;
    rig_init_with(&rig, hang, 1, (struct store_retry_params){.op_timeout_ns = 200 * NSEC_PER_MSEC, .base_ns = 1});
    rig.arg = &failures;
    int r = store_run(rig.store, &req, NULL);
    g_assert_cmpint(r, ==, rig.waits > 0 ? -EAGAIN : -ETIMEDOUT);
    rig_fini(&rig);
}

/* Writes */

static enum fake_action lose_first(struct rig *rig, unsigned n, struct store_request *req,
                                   uint64_t *cut)
{
    return n == 0 ? lose_reply(req) : FAKE_GO;
}

static ssize_t letters_read(void *ctx, uint64_t off, void *buf, size_t n)
{
    for (size_t i = 0; i < n; i++)
        ((char *)buf)[i] = (char)('a' + (off + i) % 26);
    return (ssize_t)n;
}

static void test_put_repeated(void)
{
    struct rig rig;
    rig_init(&rig, lose_first);
    _cleanup_request_ struct store_request put = {.verb = STORE_PUT, .bucket = "b", .key = "k"};
    put.source = (struct store_source){.read = letters_read, .size = 100000};
    g_assert_cmpint(store_run(rig.store, &put, NULL), ==, 0);
    g_assert_cmpuint(put.res.bytes, ==, 100000);
    g_assert_cmpuint(requests(&rig, STORE_PUT), ==, 2);
    _cleanup_object_ struct store_object o = {0};
    g_autoptr(GBytes) got = fake_store_get(rig.fake, "b", "k", &o);
    g_assert_cmpuint(g_bytes_get_size(got), ==, 100000);
    g_assert_cmpstr(o.etag, ==, put.res.object.etag);
    rig_fini(&rig);
}

static void start_upload(struct rig *rig, struct store_part *part, char **upload_id)
{
    _cleanup_request_ struct store_request create = {.verb = STORE_MPU_CREATE, .bucket = "b", .key = "k"};
    g_assert_cmpint(store_run(rig->fake, &create, NULL), ==, 0);
    *upload_id = g_steal_pointer(&create.res.upload_id);
    _cleanup_request_ struct store_request put = {
        .verb = STORE_MPU_PART, .bucket = "b", .key = "k", .part_number = 1, .upload_id = *upload_id};
    put.source = (struct store_source){.read = letters_read, .size = 10};
    g_assert_cmpint(store_run(rig->fake, &put, NULL), ==, 0);
    *part = (struct store_part){.number = 1, .etag = g_steal_pointer(&put.res.object.etag)};
}

static enum fake_action complete_lost(struct rig *rig, unsigned n, struct store_request *req,
                                      uint64_t *cut)
{
    return n == 2 ? lose_reply(req) : FAKE_GO; /* 0, 1: create and part */
}

static enum fake_action complete_refused(struct rig *rig, unsigned n, struct store_request *req,
                                         uint64_t *cut)
{
    return n == 2 ? fail_503(req) : FAKE_GO;
}

static enum fake_action complete_hangs(struct rig *rig, unsigned n, struct store_request *req,
                                       uint64_t *cut)
{
    return n == 2 ? lose_reply(req) : n > 2 ? FAKE_HOLD : FAKE_GO;
}

static void run_complete(script_fn script, const char *upload_id, int err, enum store_class cls,
                         unsigned attempts)
{
    uint64_t timeout = script == complete_hangs ? 100 * NSEC_PER_MSEC : HOUR;
    struct rig rig;
    rig_init_with(&rig, script, 1,
                  (struct store_retry_params){.op_timeout_ns = timeout, .base_ns = 1});
    struct store_part part;
    g_autofree char *real_id = NULL;
    start_upload(&rig, &part, &real_id);
    _cleanup_request_ struct store_request req = {.verb = STORE_MPU_COMPLETE, .bucket = "b", .key = "k"};
    req.upload_id = upload_id ? upload_id : real_id;
    req.parts = &part;
    req.n_parts = 1;
    int r = store_run(rig.store, &req, NULL);
    g_assert_cmpint(req.res.cls, ==, cls);
    if (timeout == HOUR || rig.waits > 0) { /* else the machine stopped before the first reply */
        g_assert_cmpint(r, ==, err);
        g_assert_cmpuint(requests(&rig, STORE_MPU_COMPLETE), ==, attempts);
    }
    g_free(part.etag);
    rig_fini(&rig);
}

static void test_complete_repeated(void)
{
    /* Done, but the reply was lost: nobody can know from NoSuchUpload. */
    run_complete(complete_lost, NULL, -EIO, STORE_CLASS_AMBIGUOUS, 2);
    /* Refused, then done. */
    run_complete(complete_refused, NULL, 0, STORE_CLASS_OK, 2);
    /* Refused, and really no such upload. */
    run_complete(complete_refused, "other", -ENOENT, STORE_CLASS_FATAL, 2);
    /* Lost, then no answer any more. */
    run_complete(complete_hangs, NULL, -ECONNRESET, STORE_CLASS_AMBIGUOUS, 2);
}

struct pair {
    int err;
    const char *code;
    bool lost;
};

static enum fake_action lost_then(struct rig *rig, unsigned n, struct store_request *req, uint64_t *cut)
{
    const struct pair *p = rig->arg;
    if (n == 0)
        return p->lost ? lose_reply(req) : fail_503(req);
    store_result_fail(&req->res, p->err, STORE_CLASS_FATAL, p->code, "no");
    return FAKE_FAIL;
}

static void test_buckets_repeated(void)
{
    static const struct {
        enum store_verb verb;
        struct pair pair;
        int expect;
    } rows[] = {
        {STORE_BUCKET_CREATE, {-EEXIST, "BucketAlreadyOwnedByYou", true}, 0},
        {STORE_BUCKET_CREATE, {-EEXIST, "BucketAlreadyOwnedByYou", false}, -EEXIST},
        {STORE_BUCKET_CREATE, {-EEXIST, "BucketAlreadyExists", true}, -EEXIST},
        {STORE_BUCKET_DELETE, {-ENOENT, "NoSuchBucket", true}, 0},
        {STORE_BUCKET_DELETE, {-ENOENT, "NoSuchBucket", false}, -ENOENT},
    };
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        struct rig rig;
        struct pair pair = rows[i].pair;
        rig_init(&rig, lost_then);
        rig.arg = &pair;
        _cleanup_request_ struct store_request req = {.verb = rows[i].verb, .bucket = "b"};
        g_assert_cmpint(store_run(rig.store, &req, NULL), ==, rows[i].expect);
        g_assert_cmpuint(rig.attempts, ==, 2);
        rig_fini(&rig);
    }
}

/* GET */

struct body {
    char *data;     /* as delivered */
    uint64_t from;  /* of the object */
    uint64_t n, max;
    int fail_at;    /* this many writes, then -ENOMEM; 0 = never */
};

static int body_write(void *ctx, uint64_t off, const void *buf, size_t n)
{
    struct body *b = ctx;
    if (b->fail_at && --b->fail_at == 0)
        return -ENOMEM;
    g_assert_cmpuint(off, ==, b->from + b->n); /* no gap, no overlap */
    g_assert_cmpuint(b->n + n, <=, b->max);
    memcpy(b->data + b->n, buf, n);
    b->n += n;
    return 0;
}

struct cuts {
    uint64_t prng;
    const struct store_request *outer;
    const struct body *body;
    const char *etag;
    unsigned cuts;
};

/* Cuts three of four attempts somewhere; sees that each one asks for just what is missing. */
static enum fake_action random_cuts(struct rig *rig, unsigned n, struct store_request *req,
                                    uint64_t *cut)
{
    struct cuts *c = rig->arg;
    if (c->body->n > 0) {
        g_assert_true(req->range.set);
        g_assert_cmpuint(req->range.off, ==, c->body->from + c->body->n);
        g_assert_cmpstr(req->if_match, ==, c->etag);
        if (c->outer->range.set && c->outer->range.len)
            g_assert_cmpuint(req->range.off + req->range.len, ==,
                             c->outer->range.off + c->outer->range.len);
    } else {
        g_assert_cmpstr(req->if_match, ==, c->outer->if_match);
    }
    if (test_random(&c->prng) % 4 == 0)
        return FAKE_GO;
    c->cuts++;
    if (test_random(&c->prng) % 8 == 0)
        return fail_503(req);
    *cut = test_random(&c->prng) % 60000;
    return FAKE_GO;
}

static void one_cut_get(struct rig *rig, struct cuts *c, const char *data, uint64_t size)
{
    _cleanup_request_ struct store_request get = {.verb = STORE_GET, .bucket = "b", .key = "k"};
    uint64_t *x = &c->prng;
    get.range.set = test_random(x) % 4;
    get.range.off = get.range.set ? test_random(x) % size : 0;
    get.range.len = get.range.set && test_random(x) % 3 ? 1 + test_random(x) % size : 0;
    get.if_match = test_random(x) % 2 ? c->etag : NULL;
    uint64_t end = get.range.len ? MIN(size, get.range.off + get.range.len) : size;
    g_autofree char *got = g_malloc(size);
    struct body body = {.data = got, .from = get.range.off, .max = size};
    get.sink = (struct store_sink){.write = body_write, .ctx = &body};
    c->outer = &get;
    c->body = &body;
    rig->arg = c;
    g_assert_cmpint(store_run(rig->store, &get, NULL), ==, 0);
    g_assert_cmpmem(got, body.n, data + get.range.off, end - get.range.off);
    g_assert_cmpuint(get.res.bytes, ==, body.n);
    g_assert_cmpuint(get.res.object.size, ==, size);
    g_assert_cmpstr(get.res.object.etag, ==, c->etag);
}

static void test_get_resumed(void)
{
    uint64_t seed = test_seed();
    struct cuts c = {.prng = seed};
    for (int i = 0; i < 300; i++) {
        struct rig rig;
        rig_init_with(&rig, random_cuts, test_random(&c.prng), (struct store_retry_params){.op_timeout_ns = HOUR});
        uint64_t size = 1 + test_random(&c.prng) % 300000;
        g_autofree char *data = g_malloc(size);
        for (uint64_t j = 0; j < size; j++)
            data[j] = (char)test_random(&c.prng);
        g_autofree char *etag = fake_store_put(rig.fake, "b", "k", data, size);
        c.etag = etag;
        for (int k = 0; k < 4; k++)
            one_cut_get(&rig, &c, data, size);
        rig_fini(&rig);
    }
    g_assert_cmpuint(c.cuts, >, 1000);
}

enum change { CHANGE_BYTES, CHANGE_SHORTER, CHANGE_DELETED, CHANGE_UNSEEN };

static enum fake_action change_after_cut(struct rig *rig, unsigned n, struct store_request *req,
                                         uint64_t *cut)
{
    static const char other[] = "OTHEROTHER";
    if (n == 0) {
        *cut = 4;
        return FAKE_GO;
    }
    switch (*(enum change *)rig->arg) {
    case CHANGE_BYTES:
        g_free(fake_store_put(rig->fake, "b", "k", other, 10));
        break;
    case CHANGE_SHORTER:
        g_free(fake_store_put(rig->fake, "b", "k", other, 2));
        break;
    case CHANGE_DELETED:
        fake_store_delete(rig->fake, "b", "k");
        break;
    case CHANGE_UNSEEN: /* by a server that does not know If-Match */
        g_free(fake_store_put(rig->fake, "b", "k", other, 10));
        req->if_match = NULL;
        break;
    }
    return FAKE_GO;
}

static void test_get_changed(void)
{
    for (enum change change = CHANGE_BYTES; change <= CHANGE_UNSEEN; change++) {
        struct rig rig;
        rig_init(&rig, change_after_cut);
        rig.arg = &change;
        g_free(fake_store_put(rig.fake, "b", "k", "0123456789", 10));
        char got[16];
        struct body body = {.data = got, .max = sizeof(got)};
        _cleanup_request_ struct store_request get = {.verb = STORE_GET, .bucket = "b", .key = "k"};
        get.sink = (struct store_sink){.write = body_write, .ctx = &body};
        g_assert_cmpint(store_run(rig.store, &get, NULL), ==, -ESTALE);
        g_assert_cmpint(get.res.cls, ==, STORE_CLASS_CONFLICT);
        g_assert_cmpuint(rig.attempts, ==, 2);
        g_assert_cmpmem(got, 4, "0123", 4);
        if (change != CHANGE_UNSEEN)
            g_assert_cmpuint(body.n, ==, 4);
        rig_fini(&rig);
    }
}

static enum fake_action cut_at_end(struct rig *rig, unsigned n, struct store_request *req,
                                   uint64_t *cut)
{
    *cut = *(uint64_t *)rig->arg;
    return FAKE_GO;
}

/* All bytes came, only the end of the reply did not: no further request. */
static void test_get_whole(void)
{
    static const struct store_range ranges[] = {
        {0}, {.set = true, .off = 3, .len = 4}, {.set = true, .off = 3}, {.set = true, .off = 3, .len = 50}};
    static const uint64_t lengths[] = {10, 4, 7, 7};
    for (size_t i = 0; i < G_N_ELEMENTS(ranges); i++) {
        struct rig rig;
        rig_init(&rig, cut_at_end);
        uint64_t cut = lengths[i];
        rig.arg = &cut;
        g_autofree char *etag = fake_store_put(rig.fake, "b", "k", "0123456789", 10);
        char got[16];
        struct body body = {.data = got, .from = ranges[i].off, .max = sizeof(got)};
        _cleanup_request_ struct store_request get = {.verb = STORE_GET, .bucket = "b", .key = "k"};
        get.range = ranges[i];
        get.sink = (struct store_sink){.write = body_write, .ctx = &body};
        g_assert_cmpint(store_run(rig.store, &get, NULL), ==, 0);
        g_assert_cmpuint(get.res.bytes, ==, lengths[i]);
        g_assert_cmpstr(get.res.object.etag, ==, etag);
        g_assert_cmpuint(get.res.object.size, ==, 10);
        g_assert_cmpuint(rig.attempts, ==, 1);
        rig_fini(&rig);
    }
}

static enum fake_action lose_all(struct rig *rig, unsigned n, struct store_request *req, uint64_t *cut)
{
    return lose_reply(req);
}

/* The reader's refusal ends it; so does a broken body of which no version is known. */
static void test_get_given_up(void)
{
    struct rig rig;
    rig_init(&rig, NULL);
    g_free(fake_store_put(rig.fake, "b", "k", "0123456789", 10));
    char got[16];
    struct body body = {.data = got, .max = sizeof(got), .fail_at = 1};
    _cleanup_request_ struct store_request get = {.verb = STORE_GET, .bucket = "b", .key = "k"};
    get.sink = (struct store_sink){.write = body_write, .ctx = &body};
    g_assert_cmpint(store_run(rig.store, &get, NULL), ==, -ENOMEM);
    g_assert_cmpuint(rig.attempts, ==, 1);
    /* Also when the layer below takes it for a broken connection. */
    rig.script = lose_all;
    body.fail_at = 1;
    g_assert_cmpint(store_run(rig.store, &get, NULL), ==, -ENOMEM);
    g_assert_cmpint(get.res.cls, ==, STORE_CLASS_FATAL);
    g_assert_cmpuint(rig.attempts, ==, 2);
    body.fail_at = 0;
    g_assert_cmpint(store_run(rig.store, &get, NULL), ==, -ECONNRESET);
    g_assert_cmpuint(get.res.bytes, ==, 10);
    g_assert_cmpuint(rig.attempts, ==, 3);
    rig_fini(&rig);
}

/* Cancel */

static enum fake_action wait_long(struct rig *rig, unsigned n, struct store_request *req, uint64_t *cut)
{
    fail_503(req);
    req->res.retry_after_ns = HOUR;
    return FAKE_FAIL;
}

struct firing {
    struct rig *rig;
    struct cancel *c;
    bool held;
};

static void *fire_thread(void *arg)
{
    struct firing *f = arg;
    if (f->held)
        fake_store_wait_held(f->rig->fake, 1);
    else
        rig_wait_waits(f->rig, 1);
    cancel_fire(f->c);
    return NULL;
}

static void run_cancelled(script_fn script, bool held)
{
    for (int i = 0; i < 100; i++) {
        struct rig rig;
        rig_init_with(&rig, script, 1, (struct store_retry_params){.op_timeout_ns = 10 * HOUR});
        rig.keep_delay = true;
        struct firing f = {.rig = &rig, .c = cancel_new(), .held = held};
        pthread_t t;
        g_assert_cmpint(thread_start(&t, "fire", fire_thread, &f), ==, 0);
        _cleanup_request_ struct store_request req = head_request();
        g_assert_cmpint(store_run(rig.store, &req, f.c), ==, -EINTR);
        g_assert_cmpuint(rig.attempts, ==, 1);
        pthread_join(t, NULL);
        cancel_free(f.c);
        rig_fini(&rig);
    }
}

static void test_cancel_waiting(void)
{
    run_cancelled(wait_long, false);
}

static void test_cancel_running(void)
{
    run_cancelled(hang, true);
}

struct async {
    struct store_request req;
    struct rig *rig;
    pthread_t submitter;
    atomic_int done;
    int err;
    bool inline_done;
};

static void async_done(struct store_request *req)
{
    struct async *a = req->ctx;
    a->err = req->res.err;
    a->inline_done = pthread_equal(pthread_self(), a->submitter);
    store_request_clear(req);
    struct rig *rig = a->rig;
    mutex_lock(&rig->lock);
    atomic_fetch_add(&a->done, 1);
    cond_broadcast(&rig->changed);
    mutex_unlock(&rig->lock);
}

static void async_init(struct async *a, struct rig *rig)
{
    *a = (struct async){.rig = rig, .submitter = pthread_self(), .req = head_request()};
    a->req.done = async_done;
    a->req.ctx = a;
}

static void async_wait(struct async *a)
{
    mutex_lock(&a->rig->lock);
    while (a->done == 0)
        cond_wait(&a->rig->changed, &a->rig->lock);
    mutex_unlock(&a->rig->lock);
}

/* Cancel twice, then look at who ran done. */
static void test_cancel_not_inline(void)
{
    struct rig rig;
    rig_init_with(&rig, wait_long, 1, (struct store_retry_params){.op_timeout_ns = 10 * HOUR});
    rig.keep_delay = true;
    struct async a;
    async_init(&a, &rig);
    store_submit(rig.store, &a.req);
    rig_wait_waits(&rig, 1);
    store_cancel(rig.store, &a.req);
    async_wait(&a);
    g_assert_cmpint(a.err, ==, -ECANCELED);
    g_assert_false(a.inline_done);
    rig_fini(&rig);
}

static enum fake_action chaos(struct rig *rig, unsigned n, struct store_request *req, uint64_t *cut)
{
    struct cuts *c = rig->arg;
    switch (test_random(&c->prng) % 6) {
    case 0:
        return fail_503(req);
    case 1:
        return lose_reply(req);
    case 2:
        req->res.retry_after_ns = test_random(&c->prng) % 100000;
        fail_503(req);
        return FAKE_FAIL;
    default:
        return FAKE_GO;
    }
}

struct canceller {
    struct rig *rig;
    struct cancel **c;
    unsigned n;
    uint64_t seed;
};

static void *cancel_some(void *arg)
{
    struct canceller *k = arg;
    for (unsigned i = 0; i < k->n; i++)
        if (test_random(&k->seed) % 2)
            cancel_fire(k->c[i]);
    return NULL;
}

struct runner {
    struct rig *rig;
    struct cancel **c;
    unsigned n, ok, cancelled;
};

static void *run_some(void *arg)
{
    struct runner *r = arg;
    for (unsigned i = 0; i < r->n; i++) {
        struct store_request *req = g_new(struct store_request, 1);
        *req = head_request();
        int e = store_run(r->rig->store, req, r->c[i]);
        g_assert_true(e == 0 || e == -EINTR);
        r->ok += e == 0;
        r->cancelled += e == -EINTR;
        store_request_clear(req);
        g_free(req);
    }
    return NULL;
}

/* Failures, short waits and cancels at any moment, from several threads: every request ends once. */
static void test_chaos(void)
{
    enum { THREADS = 4, EACH = 400 };
    uint64_t seed = test_seed();
    struct rig rig;
    rig_init_with(&rig, chaos, seed, (struct store_retry_params){.base_ns = 20000, .op_timeout_ns = HOUR});
    rig.keep_delay = true;
    struct cuts c = {.prng = seed};
    rig.arg = &c;
    g_free(fake_store_put(rig.fake, "b", "k", "x", 1));
    struct cancel *tokens[THREADS][EACH];
    struct runner r[THREADS];
    struct canceller k[THREADS];
    pthread_t t[2 * THREADS];
    for (unsigned i = 0; i < THREADS; i++) {
        for (unsigned j = 0; j < EACH; j++)
            tokens[i][j] = cancel_new();
        r[i] = (struct runner){.rig = &rig, .c = tokens[i], .n = EACH};
        k[i] = (struct canceller){.rig = &rig, .c = tokens[i], .n = EACH, .seed = seed + i};
        g_assert_cmpint(thread_start(&t[2 * i], "run", run_some, &r[i]), ==, 0);
        g_assert_cmpint(thread_start(&t[2 * i + 1], "cancel", cancel_some, &k[i]), ==, 0);
    }
    for (unsigned i = 0; i < 2 * THREADS; i++)
        pthread_join(t[i], NULL);
    unsigned ok = 0;
    for (unsigned i = 0; i < THREADS; i++) {
        g_assert_cmpuint(r[i].ok + r[i].cancelled, ==, EACH);
        ok += r[i].ok;
        for (unsigned j = 0; j < EACH; j++)
            cancel_free(tokens[i][j]);
    }
    g_assert_cmpuint(ok, >, 0);
    rig_fini(&rig);
}

/* Many at once, then the store goes while threads are still on their way out of it. */
static void test_many(void)
{
    enum { N = 1000 };
    uint64_t seed = test_seed();
    struct rig rig;
    rig_init_with(&rig, chaos, seed, (struct store_retry_params){.base_ns = 100000, .op_timeout_ns = HOUR});
    rig.keep_delay = true;
    struct cuts c = {.prng = seed};
    rig.arg = &c;
    g_free(fake_store_put(rig.fake, "b", "k", "x", 1));
    struct async *a = g_new(struct async, N);
    for (unsigned i = 0; i < N; i++) {
        async_init(&a[i], &rig);
        store_submit(rig.store, &a[i].req);
    }
    for (unsigned i = 0; i < N; i++)
        async_wait(&a[i]);
    rig_fini(&rig);
    for (unsigned i = 0; i < N; i++) {
        g_assert_cmpint(a[i].done, ==, 1);
        g_assert_cmpint(a[i].err, ==, 0);
        g_assert_false(a[i].inline_done);
    }
    g_free(a);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/retry/attempts", test_attempts);
    g_test_add_func("/retry/other-classes", test_other_classes);
    g_test_add_func("/retry/backoff", test_backoff);
    g_test_add_func("/retry/retry-after", test_retry_after);
    g_test_add_func("/retry/deadline/passed-down", test_deadline_passed_down);
    g_test_add_func("/retry/deadline/failing", test_deadline_while_failing);
    g_test_add_func("/retry/deadline/running", test_deadline_while_running);
    g_test_add_func("/retry/put", test_put_repeated);
    g_test_add_func("/retry/complete", test_complete_repeated);
    g_test_add_func("/retry/buckets", test_buckets_repeated);
    g_test_add_func("/retry/get/resumed", test_get_resumed);
    g_test_add_func("/retry/get/changed", test_get_changed);
    g_test_add_func("/retry/get/whole", test_get_whole);
    g_test_add_func("/retry/get/given-up", test_get_given_up);
    g_test_add_func("/retry/cancel/waiting", test_cancel_waiting);
    g_test_add_func("/retry/cancel/running", test_cancel_running);
    g_test_add_func("/retry/cancel/not-inline", test_cancel_not_inline);
    g_test_add_func("/retry/chaos", test_chaos);
    g_test_add_func("/retry/many", test_many);
    return g_test_run();
}
