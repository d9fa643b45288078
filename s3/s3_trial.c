/* SPDX-License-Identifier: Apache-2.0
 *
 * s3_trial: what a probe tries: each condition where it must fail, each checksum with bytes that do
 * not have it. Threads: a trial is its job's alone; what trials share is under the probe's lock.
 */
#include <errno.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/log.h"
#include "s3/s3_probe.h"

#define BODY_MAX 2
#define WRONG_ETAG "00000000000000000000000000000000"

/* ---- requests ---- */

static ssize_t read_byte(void *ctx, uint64_t off, void *buf, size_t n)
{
    memset(buf, 'x', n);
    return (ssize_t)n;
}

static uint32_t body_crc(uint64_t n)
{
    char body[BODY_MAX];
    memset(body, 'x', sizeof body);
    return crc32c(0, body, n);
}

/* ctx: the body's size. */
static int right_checksum(void *ctx, uint32_t *ret)
{
    *ret = body_crc(*(const uint64_t *)ctx);
    return 0;
}

static int wrong_checksum(void *ctx, uint32_t *ret)
{
    *ret = ~body_crc(*(const uint64_t *)ctx);
    return 0;
}

struct store_request s3_probe_request(const struct probe *p, enum store_verb verb, const char *key)
{
    return (struct store_request){
        .verb = verb,
        .prio = STORE_PRIO_META,
        .bucket = p->bucket,
        .key = key,
        .source = {.read = read_byte, .size = 1},
    };
}

static struct store_request request(const struct trial *t, enum store_verb verb)
{
    return s3_probe_request(t->probe, verb, t->key);
}

static bool is_passing(struct probe *p)
{
    mutex_lock(&p->lock);
    bool yes = p->passing;
    mutex_unlock(&p->lock);
    return yes;
}

/* Once something fails that may pass, the answer cannot be kept: the rest is not tried. A body refused for its checksum is an
 * answer, in whatever class. */
static int note(struct trial *t, const struct store_request *req)
{
    struct probe *p = t->probe;
    const struct store_result *res = &req->res;
    int r = res->err;
    bool passing = r < 0 && (res->cls == STORE_CLASS_RETRY || res->cls == STORE_CLASS_AMBIGUOUS) &&
                   !(req->source.checksum == wrong_checksum && store_refused_digest(res));
    mutex_lock(&p->lock);
    if (passing && !p->passing) {
        log_debug("probing capabilities, for now: %s", res->detail);
    }
    p->passing = p->passing || passing;
    bool about_tags = req->verb == STORE_TAGS_PUT || req->verb == STORE_HEAD;
    if (r < 0 && res->cls == STORE_CLASS_AUTH && p->refusal[0] == '\0' && !about_tags) {
        g_strlcpy(p->refusal, *res->code ? res->code : g_strerror(-r), sizeof p->refusal);
    }
    mutex_unlock(&p->lock);
    return r;
}

static int run(struct trial *t, struct store_request *req)
{
    if (is_passing(t->probe)) {
        return -EAGAIN;
    }
    t->tried = true;
    store_run(t->probe->store, req, NULL);
    return note(t, req);
}

/* True when the request, whose condition does not hold, was refused for that reason. */
static bool refused(struct trial *t, struct store_request *req)
{
    int r = run(t, req);
    bool yes = r < 0 && req->res.cls == STORE_CLASS_CONFLICT;
    store_request_clear(req);
    return yes;
}

static bool put(struct trial *t, struct store_request *req)
{
    bool yes = run(t, req) == 0;
    t->there = t->there || yes;
    store_request_clear(req);
    return yes;
}

/* An object under the key. Where none can be put, nothing was found out about the server. */
static bool ensure_object(struct trial *t)
{
    if (t->there) {
        return true;
    }
    struct store_request req = request(t, STORE_PUT);
    if (put(t, &req)) {
        return true;
    }
    mutex_lock(&t->probe->lock);
    t->probe->incomplete = true;
    mutex_unlock(&t->probe->lock);
    return false;
}

static bool is_unanswered(const struct store_result *res)
{
    return res->cls == STORE_CLASS_RETRY || res->cls == STORE_CLASS_AMBIGUOUS || res->doubtful || res->err == -EBADMSG ||
           res->err == -EPROTO || res->err == -EIO || res->err == -ETIMEDOUT;
}

struct pending {
    struct mutex lock;
    struct cond changed;
    bool done; /* lock */
};

static void pending_done(struct store_request *req)
{
    struct pending *w = req->ctx;
    mutex_lock(&w->lock);
    w->done = true;
    cond_signal(&w->changed);
    mutex_unlock(&w->lock);
}

/* The second one is sent while the first one is on its way. */
static void run_both(struct trial *t, struct store_request *first, struct store_request *second)
{
    struct pending w = {.done = false};
    mutex_init(&w.lock, RANK_LEAF);
    cond_init(&w.changed);
    first->done = pending_done;
    first->ctx = &w;
    store_submit(t->probe->store, first);
    store_run(t->probe->store, second, NULL);
    mutex_lock(&w.lock);
    while (!w.done) {
        cond_wait(&w.changed, &w.lock);
    }
    mutex_unlock(&w.lock);
    cond_fini(&w.changed);
    mutex_fini(&w.lock);
}

/* An object by `put`, and an upload of the same key. */
static bool prepare_with(struct trial *t, struct store_request *put, bool with_checksums)
{
    if (is_passing(t->probe)) {
        return false;
    }
    struct store_request create = request(t, STORE_MPU_CREATE);
    create.with_checksums = with_checksums;
    t->tried = true;
    run_both(t, put, &create);
    t->there = note(t, put) == 0;
    if (note(t, &create) == 0) {
        t->upload_id = g_strdup(create.res.upload_id);
    } else {
        t->upload_doubtful = is_unanswered(&create.res);
    }
    store_request_clear(put);
    store_request_clear(&create);
    return t->there && t->upload_id;
}

static bool prepare(struct trial *t, bool with_checksums)
{
    struct store_request put = request(t, STORE_PUT);
    bool yes = prepare_with(t, &put, with_checksums);
    return ensure_object(t) && yes;
}

static struct store_request part_request(const struct trial *t, enum store_verb verb)
{
    struct store_request req = request(t, verb);
    req.upload_id = t->upload_id;
    req.part_number = 1;
    return req;
}

/* Does the part, as it came into being, make an object? */
static bool completes(struct trial *t, const struct store_result *part)
{
    const struct store_part parts[] = {
        {.number = 1, .size = 1, .etag = part->object.etag, .checksum = part->checksum}};
    struct store_request req = request(t, STORE_MPU_COMPLETE);
    req.upload_id = t->upload_id;
    req.parts = parts;
    req.n_parts = 1;
    bool yes = part->object.etag && run(t, &req) == 0;
    if (yes) {
        g_clear_pointer(&t->upload_id, g_free);
    }
    store_request_clear(&req);
    return yes;
}

/* True when the body is refused with the CRC32C of another one, and taken with its own. The request
 * then holds the result; it is left to the caller. */
static bool looks_at_checksum(struct trial *t, struct store_request *req)
{
    req->source.ctx = &req->source.size;
    req->source.checksum = wrong_checksum;
    (void)run(t, req);
    if (!store_refused_digest(&req->res)) {
        return false;
    }
    req->source.checksum = right_checksum;
    return run(t, req) == 0;
}

/* ---- trials ---- */

static void try_put(struct trial *t)
{
    struct store_request first = request(t, STORE_PUT), again = request(t, STORE_PUT);
    first.if_none_match = again.if_none_match = true;
    if (!put(t, &first)) {
        (void)ensure_object(t);
        return;
    }
    if (!refused(t, &again)) {
        return;
    }
    struct store_request other = request(t, STORE_PUT);
    other.if_match = WRONG_ETAG;
    t->caps.put_if = refused(t, &other);
}

static void try_copy_and_delete(struct trial *t)
{
    if (!ensure_object(t)) {
        return;
    }
    struct store_request copy = request(t, STORE_COPY);
    copy.from_bucket = t->probe->bucket;
    copy.from_key = t->key;
    copy.replace_headers = true; /* else a copy onto itself is refused for that */
    copy.if_none_match = true;
    t->caps.copy_if = refused(t, &copy);
    /* Last: where it is not honoured, the object is gone. */
    struct store_request del = request(t, STORE_DELETE);
    del.if_match = WRONG_ETAG;
    t->caps.delete_if = refused(t, &del);
}

static void try_complete(struct trial *t)
{
    if (!prepare(t, false)) {
        return;
    }
    struct store_request part = part_request(t, STORE_MPU_PART);
    if (run(t, &part) == 0) {
        const struct store_part parts[] = {{.number = 1, .size = 1, .etag = part.res.object.etag}};
        struct store_request complete = request(t, STORE_MPU_COMPLETE);
        complete.upload_id = t->upload_id;
        complete.parts = parts;
        complete.n_parts = 1;
        complete.if_none_match = true;
        t->caps.complete_if = refused(t, &complete);
    }
    store_request_clear(&part);
}

static void try_copy_part(struct trial *t)
{
    if (!prepare(t, false)) {
        return;
    }
    struct store_request copy = part_request(t, STORE_MPU_COPY_PART);
    copy.from_bucket = t->probe->bucket;
    copy.from_key = t->key;
    t->caps.copy_part = run(t, &copy) == 0 && copy.res.object.etag;
    store_request_clear(&copy);
}

static void try_checksum(struct trial *t)
{
    if (!ensure_object(t)) {
        return;
    }
    struct store_request req = request(t, STORE_PUT);
    t->caps.checksum = looks_at_checksum(t, &req);
    store_request_clear(&req);
}

static void try_checksum_part(struct trial *t)
{
    if (!prepare(t, false)) {
        return;
    }
    struct store_request req = part_request(t, STORE_MPU_PART);
    t->caps.checksum_part = looks_at_checksum(t, &req);
    store_request_clear(&req);
}

static void try_checksum_mpu(struct trial *t)
{
    if (!prepare(t, true)) {
        return;
    }
    struct store_request part = part_request(t, STORE_MPU_PART);
    part.source.ctx = &part.source.size;
    part.source.checksum = right_checksum;
    t->caps.checksum_mpu = run(t, &part) == 0 && completes(t, &part.res);
    store_request_clear(&part);
}

static void try_checksum_mpu_wrong(struct trial *t)
{
    if (!prepare(t, true)) {
        return;
    }
    struct store_request part = part_request(t, STORE_MPU_PART);
    part.source.ctx = &part.source.size;
    part.source.checksum = wrong_checksum;
    (void)run(t, &part);
    t->refuses = store_refused_digest(&part.res);
    store_request_clear(&part);
}

/* The copy's reply must tell the checksum of what was copied, if any: versitygw tells the source's
 * also when a range was copied. S3 copies ranges of large objects only. */
static bool is_copied(struct trial *t, struct store_request *part)
{
    part->from_bucket = t->probe->bucket;
    part->from_key = t->key;
    part->range = (struct store_range){.off = 0, .len = 1, .set = true};
    uint64_t size = 1;
    if (run(t, part) < 0) {
        part->range.set = false;
        size = BODY_MAX;
        if (run(t, part) < 0) {
            return false;
        }
    }
    return !part->res.checksum.set || part->res.checksum.crc32c == body_crc(size);
}

/* Of an object that was put with a checksum, and is longer than the range that is copied of it. */
static void try_copy_into_checksum_mpu(struct trial *t)
{
    struct store_request req = request(t, STORE_PUT);
    req.source = (struct store_source){.read = read_byte, .ctx = &req.source.size, .size = BODY_MAX, .checksum = right_checksum};
    if (!prepare_with(t, &req, true)) {
        (void)ensure_object(t); /* only to learn whether that was for the checksum */
        return;
    }
    struct store_request part = part_request(t, STORE_MPU_COPY_PART);
    t->caps.copy_into_checksum_mpu = is_copied(t, &part) && completes(t, &part.res);
    store_request_clear(&part);
}

/* Tags are not permitted to everyone who may write; that is no refusal of the probe: see run(). */
static void try_head_tags(struct trial *t)
{
    if (!ensure_object(t)) {
        return;
    }
    char name[] = "mlopsfs", value[] = "probe";
    g_autoptr(GHashTable) tags = g_hash_table_new(g_str_hash, g_str_equal);
    g_hash_table_insert(tags, name, value);
    struct store_request req = request(t, STORE_TAGS_PUT), head = request(t, STORE_HEAD);
    req.tags = tags;
    t->caps.head_tags = run(t, &req) == 0 && run(t, &head) == 0 && head.res.object.untagged_ns == 0;
    store_request_clear(&req);
    store_request_clear(&head);
}

void (*const s3_tries[TRIALS])(struct trial *t) = {
    try_put,           try_copy_and_delete, try_complete,           try_copy_part,              try_checksum,
    try_checksum_part, try_checksum_mpu,    try_checksum_mpu_wrong, try_copy_into_checksum_mpu, try_head_tags,
};
