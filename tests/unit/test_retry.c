/* SPDX-License-Identifier: Apache-2.0
 *
 * s3/retry: what is repeated and how often, waits, deadlines, writes whose outcome is unknown. No
 * test waits for a backoff: the rig sees each wait and makes it nothing.
 */
#include <errno.h>
#include <glib.h>
#include <string.h>

#include "base/crc32c.h"
#include "tests/lib/retry_rig.h"
#include "tests/lib/seed.h"

/* Attempts */

static enum fake_action four_failures(struct rig *rig, unsigned n, struct store_request *req,
                                      uint64_t *cut)
{
    return n < 4 ? rig_fail_503(req) : FAKE_GO;
}

static void test_attempts(void)
{
    struct rig rig;
    rig_init(&rig, four_failures);
    g_autofree char *etag = fake_store_put(rig.fake, "b", "k", "x", 1);
    _cleanup_request_ struct store_request req = rig_head_request();
    g_assert_cmpint(store_run(rig.store, &req, NULL), ==, 0);
    g_assert_cmpint(req.res.cls, ==, STORE_CLASS_OK);
    g_assert_cmpstr(req.res.code, ==, "");
    g_assert_cmpstr(req.res.object.etag, ==, etag);
    g_assert_cmpuint(rig_requests(&rig, STORE_HEAD), ==, 5);
    g_assert_cmpuint(rig.waits, ==, 4);
    struct store_stats n;
    store_stats_get(rig.stats, &n);
    g_assert_cmpuint(n.errors[STORE_HEAD], ==, 4);
    struct store_caps caps;
    store_get_caps(rig.store, "b", &caps);
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
        _cleanup_request_ struct store_request req = rig_head_request();
        g_assert_cmpint(store_run(rig.store, &req, NULL), ==, -EPERM);
        g_assert_cmpint(req.res.cls, ==, cls);
        g_assert_cmpstr(req.res.code, ==, "Code");
        g_assert_cmpstr(req.res.detail, ==, "detail");
        g_assert_cmpint(req.res.http_status, ==, 418);
        g_assert_cmpuint(rig_requests(&rig, STORE_HEAD), ==, i + 1);
    }
    rig_fini(&rig);
}

/* Waits */

static enum fake_action many_failures(struct rig *rig, unsigned n, struct store_request *req,
                                      uint64_t *cut)
{
    return n < 60 ? rig_fail_503(req) : FAKE_GO;
}

static void run_sixty(uint64_t seed, uint64_t *delays)
{
    struct rig rig;
    rig_init_with(
        &rig, many_failures, seed,
        (struct store_retry_params){.base_ns = 1000, .cap_ns = 100000, .op_timeout_ns = HOUR});
    g_free(fake_store_put(rig.fake, "b", "k", "x", 1));
    _cleanup_request_ struct store_request req = rig_head_request();
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
    rig_fail_503(req);
    req->res.retry_after_ns = 77 * NSEC_PER_SEC;
    return FAKE_FAIL;
}

static void test_retry_after(void)
{
    struct rig rig;
    rig_init(&rig, retry_after);
    g_free(fake_store_put(rig.fake, "b", "k", "x", 1));
    _cleanup_request_ struct store_request req = rig_head_request();
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
    g_assert_cmpuint(rig_requests(&rig, STORE_HEAD), ==, 1);
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
    _cleanup_request_ struct store_request req = rig_head_request();
    g_assert_cmpint(store_run(rig.store, &req, NULL), ==, 0);
    req.deadline_ns = deadline = clock_mono_ns() + HOUR / 2;
    g_assert_cmpint(store_run(rig.store, &req, NULL), ==, 0);
    rig_fini(&rig);
}

/* What a request without a deadline gets: time for its body, or for the server's own work. */
struct allowance {
    enum store_verb verb;
    uint64_t size, expect_size;
    struct store_range range;
    uint64_t extra_s;
    uint64_t before; /* the clock at the submission */
};

static enum fake_action check_allowance(struct rig *rig, unsigned n, struct store_request *req,
                                        uint64_t *cut)
{
    const struct allowance *a = rig->arg;
    uint64_t all = 120 * NSEC_PER_SEC + a->extra_s * NSEC_PER_SEC;
    g_assert_cmpuint(req->deadline_ns, >=, a->before + all);
    g_assert_cmpuint(req->deadline_ns, <=, clock_mono_ns() + all);
    store_result_fail(&req->res, -EPERM, STORE_CLASS_FATAL, NULL, "seen");
    return FAKE_FAIL;
}

static ssize_t no_read(void *ctx, uint64_t off, void *buf, size_t n)
{
    return -EIO;
}

static int no_write(void *ctx, uint64_t off, const void *buf, size_t n)
{
    return -EIO;
}

static struct store_request any_request(enum store_verb verb, uint64_t size)
{
    static char etag[] = "e";
    static const struct store_part part = {.number = 1, .size = 1, .etag = etag};
    return (struct store_request){
        .verb = verb,
        .bucket = "b",
        .key = "k",
        .from_bucket = "b",
        .from_key = "f",
        .upload_id = "u",
        .part_number = 1,
        .parts = &part,
        .n_parts = 1,
        .source = {.read = no_read, .size = size},
        .sink = {.write = no_write},
    };
}

static void test_deadline_by_size(void)
{
    struct allowance rows[] = {
        {STORE_HEAD},
        {STORE_PUT, .size = 64 << 10, .extra_s = 1},
        {STORE_MPU_PART, .size = 256 << 20, .extra_s = 4096},
        {STORE_MPU_PART, .size = STORE_PART_MAX, .extra_s = 81920},
        {STORE_GET, .range = {.off = 1 << 20, .len = 1 << 20, .set = true}, .extra_s = 16},
        {STORE_GET, .range = {.off = 1 << 20, .set = true}, .expect_size = 3 << 20, .extra_s = 32},
        {STORE_GET, .expect_size = 1 << 20, .extra_s = 16},
        {STORE_GET, .extra_s = 81920},
        {STORE_COPY, .extra_s = 600},
        {STORE_MPU_COPY_PART, .extra_s = 600},
        {STORE_MPU_COMPLETE, .extra_s = 600},
    };
    struct rig rig;
    rig_init(&rig, check_allowance);
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        _cleanup_request_ struct store_request req = any_request(rows[i].verb, rows[i].size);
        req.range = rows[i].range;
        req.expect_size = rows[i].expect_size;
        rig.arg = &rows[i];
        rows[i].before = clock_mono_ns();
        g_assert_cmpint(store_run(rig.store, &req, NULL), ==, -EPERM);
    }
    rig_fini(&rig);
}

static enum fake_action hold(struct rig *rig, unsigned n, struct store_request *req, uint64_t *cut)
{
    return FAKE_HOLD;
}

/* Time for a body is there for bytes that move: with none, it ends after op_timeout. */
static void test_deadline_nothing_moves(void)
{
    static const enum store_verb verbs[] = {STORE_PUT, STORE_MPU_PART, STORE_GET};
    static const struct store_retry_params p = {.op_timeout_ns = 5 * NSEC_PER_MSEC};
    for (size_t i = 0; i < G_N_ELEMENTS(verbs); i++) {
        struct rig rig;
        rig_init_with(&rig, hold, 1, p);
        _cleanup_request_ struct store_request req = any_request(verbs[i], STORE_PART_MAX);
        g_assert_cmpint(store_run(rig.store, &req, NULL), ==, -ETIMEDOUT);
        g_assert_cmpint(req.res.cls, ==, STORE_CLASS_RETRY);
        rig_fini(&rig);
    }
}

/* A server that refuses a copy at once is not asked for ten minutes. */
static enum fake_action refuse_long(struct rig *rig, unsigned n, struct store_request *req,
                                    uint64_t *cut)
{
    rig_fail_503(req);
    req->res.retry_after_ns = 130 * NSEC_PER_SEC;
    return FAKE_FAIL;
}

static void test_deadline_work_refused(void)
{
    struct rig rig;
    rig_init(&rig, refuse_long);
    _cleanup_request_ struct store_request req = any_request(STORE_COPY, 0);
    g_assert_cmpint(store_run(rig.store, &req, NULL), ==, -EAGAIN);
    g_assert_cmpuint(rig.waits, ==, 0);
    rig_fini(&rig);
}

static enum fake_action always_503(struct rig *rig, unsigned n, struct store_request *req,
                                   uint64_t *cut)
{
    return rig_fail_503(req);
}

static void test_deadline_while_failing(void)
{
    struct rig rig;
    rig_init_with(
        &rig, always_503, 1,
        (struct store_retry_params){.op_timeout_ns = 20 * NSEC_PER_MSEC, .base_ns = 1000});
    _cleanup_request_ struct store_request req = rig_head_request();
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
    return n < failures ? rig_fail_503(req) : FAKE_HOLD;
}

/* The layer below does not end in time by itself. */
static void test_deadline_while_running(void)
{
    static const struct store_retry_params p = {.op_timeout_ns = 5 * NSEC_PER_MSEC, .base_ns = 1};
    struct rig rig;
    rig_init_with(&rig, hang, 1, p);
    _cleanup_request_ struct store_request req = rig_head_request();
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
    rig_init_with(&rig, hang, 1,
                  (struct store_retry_params){.op_timeout_ns = 200 * NSEC_PER_MSEC, .base_ns = 1});
    rig.arg = &failures;
    int r = store_run(rig.store, &req, NULL);
    g_assert_cmpint(r, ==, rig.waits > 0 ? -EAGAIN : -ETIMEDOUT);
    rig_fini(&rig);
}

/* Writes */

static enum fake_action lose_first(struct rig *rig, unsigned n, struct store_request *req,
                                   uint64_t *cut)
{
    return n == 0 ? rig_lose_reply(req) : FAKE_GO;
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
    g_assert_cmpuint(rig_requests(&rig, STORE_PUT), ==, 2);
    _cleanup_object_ struct store_object o = {0};
    g_autoptr(GBytes) got = fake_store_get(rig.fake, "b", "k", &o);
    g_assert_cmpuint(g_bytes_get_size(got), ==, 100000);
    g_assert_cmpstr(o.etag, ==, put.res.object.etag);
    rig_fini(&rig);
}

static enum fake_action refuse_first(struct rig *rig, unsigned n, struct store_request *req,
                                     uint64_t *cut)
{
    return n == 0 ? rig_fail_503(req) : FAKE_GO;
}

static enum fake_action lose_all(struct rig *rig, unsigned n, struct store_request *req,
                                 uint64_t *cut)
{
    return n < 3 ? rig_lose_reply(req) : rig_fail_503(req);
}

/* A creation that may have made an upload of which only the repetition does not know. */
static void test_create_doubtful(void)
{
    static const struct {
        script_fn script;
        bool doubtful, fails;
    } rows[] = {{refuse_first, false, false}, {lose_first, true, false}, {lose_all, true, true}};
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        struct rig rig;
        rig_init(&rig, rows[i].script);
        _cleanup_request_ struct store_request req = {
            .verb = STORE_MPU_CREATE, .bucket = "b", .key = "k"};
        if (rows[i].fails)
            req.deadline_ns = clock_mono_ns() + NSEC_PER_SEC / 10;
        g_assert_true((store_run(rig.store, &req, NULL) < 0) == rows[i].fails);
        g_assert_true(req.res.doubtful == rows[i].doubtful);
        rig_fini(&rig);
    }
}

static void start_upload(struct rig *rig, struct store_part *part, char **upload_id)
{
    _cleanup_request_ struct store_request create = {
        .verb = STORE_MPU_CREATE, .bucket = "b", .key = "k"};
    g_assert_cmpint(store_run(rig->fake, &create, NULL), ==, 0);
    *upload_id = g_steal_pointer(&create.res.upload_id);
    _cleanup_request_ struct store_request put = {.verb = STORE_MPU_PART,
                                                  .bucket = "b",
                                                  .key = "k",
                                                  .part_number = 1,
                                                  .upload_id = *upload_id};
    put.source = (struct store_source){.read = letters_read, .size = 10};
    g_assert_cmpint(store_run(rig->fake, &put, NULL), ==, 0);
    *part = (struct store_part){.number = 1, .etag = g_steal_pointer(&put.res.object.etag)};
}

static enum fake_action complete_lost(struct rig *rig, unsigned n, struct store_request *req,
                                      uint64_t *cut)
{
    return n == 2 ? rig_lose_reply(req) : FAKE_GO; /* 0, 1: create and part */
}

static enum fake_action complete_refused(struct rig *rig, unsigned n, struct store_request *req,
                                         uint64_t *cut)
{
    return n == 2 ? rig_fail_503(req) : FAKE_GO;
}

static enum fake_action complete_hangs(struct rig *rig, unsigned n, struct store_request *req,
                                       uint64_t *cut)
{
    return n == 2 ? rig_lose_reply(req) : n > 2 ? FAKE_HOLD : FAKE_GO;
}

static void run_complete(script_fn script, const char *upload_id, int err, enum store_class cls,
                         unsigned attempts)
{
    bool hangs = script == complete_hangs;
    struct rig rig;
    rig_init_with(&rig, script, 1,
                  (struct store_retry_params){.op_timeout_ns = HOUR, .base_ns = 1});
    struct store_part part;
    g_autofree char *real_id = NULL;
    start_upload(&rig, &part, &real_id);
    _cleanup_request_ struct store_request req = {
        .verb = STORE_MPU_COMPLETE, .bucket = "b", .key = "k"};
    req.upload_id = upload_id ? upload_id : real_id;
    req.parts = &part;
    req.n_parts = 1;
    if (hangs)
        req.deadline_ns = clock_mono_ns() + 100 * NSEC_PER_MSEC;
    int r = store_run(rig.store, &req, NULL);
    g_assert_cmpint(req.res.cls, ==, cls);
    if (!hangs || rig.waits > 0) { /* else the machine stopped before the first reply */
        g_assert_cmpint(r, ==, err);
        g_assert_cmpuint(rig_requests(&rig, STORE_MPU_COMPLETE), ==, attempts);
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

/* A version that is deleted, by us or by a stranger: nobody can know after a lost reply. */
static void test_delete_repeated(void)
{
    struct rig rig;
    rig_init(&rig, lose_first);
    g_autofree char *etag = fake_store_put(rig.fake, "b", "k", "x", 1);
    _cleanup_request_ struct store_request del = {.verb = STORE_DELETE, .bucket = "b", .key = "k"};
    del.if_match = etag;
    g_assert_cmpint(store_run(rig.store, &del, NULL), ==, -EIO);
    g_assert_cmpint(del.res.cls, ==, STORE_CLASS_AMBIGUOUS);
    g_assert_cmpint(store_run(rig.store, &del, NULL), ==, -ESTALE); /* no attempt was lost */
    g_assert_cmpint(del.res.cls, ==, STORE_CLASS_CONFLICT);
    rig_fini(&rig);
    rig_init(&rig, lose_first);
    del.if_match = NULL;
    g_assert_cmpint(store_run(rig.store, &del, NULL), ==, 0);
    g_assert_cmpuint(rig.attempts, ==, 2);
    rig_fini(&rig);
}

struct pair {
    int err;
    const char *code;
    bool lost;
};

static enum fake_action lost_then(struct rig *rig, unsigned n, struct store_request *req,
                                  uint64_t *cut)
{
    const struct pair *p = rig->arg;
    if (n == 0)
        return p->lost ? rig_lose_reply(req) : rig_fail_503(req);
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

static enum fake_action damaged(struct rig *rig, unsigned n, struct store_request *req,
                                uint64_t *cut)
{
    if (n >= *(unsigned *)rig->arg)
        return FAKE_GO;
    store_result_fail(&req->res, -EIO, STORE_CLASS_RETRY, "BadDigest", "other bytes arrived");
    req->res.http_status = 400;
    return FAKE_FAIL;
}

static int letters_checksum(void *ctx, uint32_t *ret)
{
    char buf[100];
    letters_read(ctx, 0, buf, sizeof(buf));
    *ret = crc32c(0, buf, sizeof(buf));
    return 0;
}

/* A body that arrives damaged is sent again, with its checksum, and not for ever. */
static void test_damaged(void)
{
    for (unsigned times = 0; times < 6; times++) {
        struct rig rig;
        rig_init(&rig, damaged);
        rig.arg = &times;
        _cleanup_request_ struct store_request req = {
            .verb = STORE_PUT,
            .bucket = "b",
            .key = "k",
            .if_none_match = times % 2,
            .source = {.read = letters_read, .checksum = letters_checksum, .size = 100}};
        g_assert_cmpint(store_run(rig.store, &req, NULL), ==, times < 4 ? 0 : -EIO);
        g_assert_cmpuint(rig_requests(&rig, STORE_PUT), ==, MIN(times + 1, 4));
        g_assert_true(req.res.checksum.set == (times < 4));
        g_assert_true(store_refused_digest(&req.res) == (times >= 4));
        rig_fini(&rig);
    }
}

static enum fake_action a_directory(struct rig *rig, unsigned n, struct store_request *req, uint64_t *cut)
{
    (void)cut;
    if (n >= *(unsigned *)rig->arg)
        return FAKE_GO;
    store_result_fail(&req->res, -EISDIR, STORE_CLASS_RETRY, "ExistingObjectIsDirectory", "it is a directory");
    req->res.http_status = 409;
    return FAKE_FAIL;
}

/* A name that is a directory for a moment, and one that is. */
static void test_directory(void)
{
    for (unsigned times = 0; times < 6; times++) {
        struct rig rig;
        rig_init(&rig, a_directory);
        rig.arg = &times;
        _cleanup_request_ struct store_request req = {
            .verb = STORE_PUT, .bucket = "b", .key = "k", .source = {.read = letters_read, .size = 100}};
        g_assert_cmpint(store_run(rig.store, &req, NULL), ==, times < 4 ? 0 : -EISDIR);
        g_assert_cmpuint(rig_requests(&rig, STORE_PUT), ==, MIN(times + 1, 4));
        g_assert_cmpint(req.res.cls, ==, times < 4 ? STORE_CLASS_OK : STORE_CLASS_FATAL);
        rig_fini(&rig);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/retry/attempts", test_attempts);
    g_test_add_func("/retry/other-classes", test_other_classes);
    g_test_add_func("/retry/backoff", test_backoff);
    g_test_add_func("/retry/retry-after", test_retry_after);
    g_test_add_func("/retry/deadline/passed-down", test_deadline_passed_down);
    g_test_add_func("/retry/deadline/by-size", test_deadline_by_size);
    g_test_add_func("/retry/deadline/nothing-moves", test_deadline_nothing_moves);
    g_test_add_func("/retry/deadline/work-refused", test_deadline_work_refused);
    g_test_add_func("/retry/deadline/failing", test_deadline_while_failing);
    g_test_add_func("/retry/deadline/running", test_deadline_while_running);
    g_test_add_func("/retry/put", test_put_repeated);
    g_test_add_func("/retry/create-doubtful", test_create_doubtful);
    g_test_add_func("/retry/damaged", test_damaged);
    g_test_add_func("/retry/directory", test_directory);
    g_test_add_func("/retry/complete", test_complete_repeated);
    g_test_add_func("/retry/delete", test_delete_repeated);
    g_test_add_func("/retry/buckets", test_buckets_repeated);
    return g_test_run();
}
