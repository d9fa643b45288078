/* SPDX-License-Identifier: Apache-2.0
 *
 * s3_caps: what the server at hand honours, found out by trying. Servers take conditions that they
 * do not honour without a word, so each is sent where it must fail. All under a random key prefix
 * that is removed again.
 *
 * Threads: the first caller of s3_caps_get() that names a bucket probes there, others wait for it;
 * caps_lock is not held meanwhile. An answer is kept for good, for all buckets: they are one
 * server's. Where probing is not permitted, or no object can be put, that counts for the bucket
 * alone. A probe that failed for a passing reason (a timeout, 503) assumes nothing and is run again
 * at the next call.
 *
 * A process that is killed while it probes leaves its object and perhaps uploads of the same key. Each
 * probe looks for what others have left OLD_NS ago; whoever still probes is younger than that.
 */
#include <errno.h>
#include <string.h>
#include <uuid/uuid.h>

#include "base/clock.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "s3/s3_op.h"

#define PROBE_NAME ".mlopsfs-probe-"
#define PROBE_NAME_MAX (sizeof PROBE_NAME + 36)

struct probe {
    struct store *store;
    const char *bucket;
    char *a;      /* the key */
    char *etag;   /* of its object, once there is one */
    bool passing; /* something failed that may work later */
    char refusal[48]; /* what the first request that is not permitted was answered; "" = none */
};

static ssize_t read_byte(void *ctx, uint64_t off, void *buf, size_t n)
{
    memset(buf, 'x', n);
    return (ssize_t)n;
}

#define BODY_MAX 2
#define OLD_NS (15 * 60 * (int64_t)NSEC_PER_SEC)

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

static struct store_request request(const struct probe *p, enum store_verb verb, const char *key)
{
    return (struct store_request){
        .verb = verb,
        .prio = STORE_PRIO_META,
        .bucket = p->bucket,
        .key = key,
        .source = {.read = read_byte, .size = 1},
    };
}

/* Once something fails that may pass, the answer cannot be kept: the rest is not tried. */
static int run(struct probe *p, struct store_request *req)
{
    if (p->passing) {
        return -EAGAIN;
    }
    int r = store_run(p->store, req, NULL);
    if (r < 0 && (req->res.cls == STORE_CLASS_RETRY || req->res.cls == STORE_CLASS_AMBIGUOUS)) {
        p->passing = true;
        log_debug("probing capabilities, for now: %s", req->res.detail);
    }
    if (r < 0 && req->res.cls == STORE_CLASS_AUTH && p->refusal[0] == '\0') {
        const char *code = req->res.code;
        g_strlcpy(p->refusal, *code ? code : g_strerror(-r), sizeof p->refusal);
    }
    return r;
}

/* True when the request, whose condition does not hold, was refused for that reason. */
static bool refused(struct probe *p, struct store_request *req)
{
    int r = run(p, req);
    bool yes = r < 0 && req->res.cls == STORE_CLASS_CONFLICT;
    store_request_clear(req);
    return yes;
}

static bool probe_put(struct probe *p)
{
    struct store_request first = request(p, STORE_PUT, p->a);
    first.if_none_match = true;
    int r = run(p, &first);
    if (r == 0) {
        p->etag = g_strdup(first.res.object.etag);
    }
    store_request_clear(&first);
    if (r < 0) {
        return false;
    }
    struct store_request again = request(p, STORE_PUT, p->a);
    again.if_none_match = true;
    if (!refused(p, &again)) {
        return false;
    }
    struct store_request other = request(p, STORE_PUT, p->a);
    other.if_match = "00000000000000000000000000000000";
    return refused(p, &other);
}

/* With an object of its own where the server knows no conditions on PUT. */
static bool ensure_object(struct probe *p)
{
    if (p->etag) {
        return true;
    }
    struct store_request put = request(p, STORE_PUT, p->a);
    int r = run(p, &put);
    if (r == 0) {
        p->etag = g_strdup(put.res.object.etag);
    }
    store_request_clear(&put);
    return r == 0;
}

static bool probe_copy(struct probe *p)
{
    struct store_request copy = request(p, STORE_COPY, p->a);
    copy.from_bucket = p->bucket;
    copy.from_key = p->a;
    copy.replace_headers = true; /* else a copy onto itself is refused for that */
    copy.if_none_match = true;
    return refused(p, &copy);
}

static bool probe_delete(struct probe *p)
{
    struct store_request del = request(p, STORE_DELETE, p->a);
    del.if_match = "00000000000000000000000000000000";
    return refused(p, &del);
}

/* True when the body is refused with the CRC32C of another one, and taken with its own. The request
 * then holds the result; it is left to the caller. */
static bool looks_at_checksum(struct probe *p, struct store_request *req)
{
    if (p->passing) {
        return false;
    }
    req->source.ctx = &req->source.size;
    req->source.checksum = wrong_checksum;
    int r = store_run(p->store, req, NULL);
    if (!store_refused_digest(&req->res)) {
        p->passing = r < 0 && req->res.cls == STORE_CLASS_RETRY;
        return false;
    }
    req->source.checksum = right_checksum;
    return run(p, req) == 0;
}

static bool probe_checksum(struct probe *p)
{
    struct store_request put = request(p, STORE_PUT, p->a);
    put.source.size = BODY_MAX; /* more than probe_copied() copies of it */
    bool yes = looks_at_checksum(p, &put);
    store_request_clear(&put);
    return yes;
}

/* Part 1 as it came into being: does it make an object? */
static bool completes(struct probe *p, const char *upload_id, const struct store_result *part)
{
    const struct store_part parts[] = {
        {.number = 1, .size = 1, .etag = part->object.etag, .checksum = part->checksum}};
    struct store_request complete = request(p, STORE_MPU_COMPLETE, p->a);
    complete.upload_id = upload_id;
    complete.parts = parts;
    complete.n_parts = 1;
    bool yes = part->object.etag && run(p, &complete) == 0;
    store_request_clear(&complete);
    return yes;
}

/* The copy's reply must tell the checksum of what was copied, if any: versitygw tells the source's
 * also when a range was copied. S3 copies ranges of large objects only. */
static bool probe_copied(struct probe *p, struct store_request *part)
{
    part->verb = STORE_MPU_COPY_PART;
    part->from_bucket = p->bucket;
    part->from_key = p->a;
    part->range = (struct store_range){.off = 0, .len = 1, .set = true};
    uint64_t size = 1;
    if (run(p, part) < 0) {
        part->range.set = false;
        size = BODY_MAX;
        if (run(p, part) < 0) {
            return false;
        }
    }
    return !part->res.checksum.set || part->res.checksum.crc32c == body_crc(size);
}

/* An upload created with checksums, of one part: the probe's byte, or a copy. */
static bool probe_checksum_mpu(struct probe *p, bool copy)
{
    struct store_request create = request(p, STORE_MPU_CREATE, p->a);
    create.with_checksums = true;
    if (run(p, &create) < 0) {
        store_request_clear(&create);
        return false;
    }
    struct store_request part = request(p, STORE_MPU_PART, p->a);
    part.upload_id = create.res.upload_id;
    part.part_number = 1;
    bool yes = copy ? probe_copied(p, &part) : looks_at_checksum(p, &part);
    yes = yes && completes(p, create.res.upload_id, &part.res);
    store_request_clear(&part);
    if (!yes) {
        struct store_request abort = request(p, STORE_MPU_ABORT, p->a);
        abort.upload_id = create.res.upload_id;
        store_run(p->store, &abort, NULL);
        store_request_clear(&abort);
    }
    store_request_clear(&create);
    return yes;
}

static bool probe_upload(struct probe *p, const char *upload_id, struct store_caps *ret)
{
    struct store_request copy = request(p, STORE_MPU_COPY_PART, p->a);
    copy.upload_id = upload_id;
    copy.part_number = 2;
    copy.from_bucket = p->bucket;
    copy.from_key = p->a;
    ret->copy_part = run(p, &copy) == 0 && copy.res.object.etag;
    store_request_clear(&copy);

    struct store_request checked = request(p, STORE_MPU_PART, p->a);
    checked.upload_id = upload_id;
    checked.part_number = 3;
    ret->checksum_part = looks_at_checksum(p, &checked);
    store_request_clear(&checked);

    struct store_request part = request(p, STORE_MPU_PART, p->a);
    part.upload_id = upload_id;
    part.part_number = 1;
    bool yes = false;
    if (run(p, &part) == 0) {
        const struct store_part parts[] = {{.number = 1, .size = 1, .etag = part.res.object.etag}};
        struct store_request complete = request(p, STORE_MPU_COMPLETE, p->a);
        complete.upload_id = upload_id;
        complete.parts = parts;
        complete.n_parts = 1;
        complete.if_none_match = true;
        yes = refused(p, &complete);
    }
    store_request_clear(&part);
    return yes;
}

static bool probe_complete(struct probe *p, struct store_caps *ret)
{
    struct store_request create = request(p, STORE_MPU_CREATE, p->a);
    if (run(p, &create) < 0) {
        store_request_clear(&create);
        return false;
    }
    bool yes = probe_upload(p, create.res.upload_id, ret);
    struct store_request abort = request(p, STORE_MPU_ABORT, p->a);
    abort.upload_id = create.res.upload_id;
    store_run(p->store, &abort, NULL);
    store_request_clear(&abort);
    store_request_clear(&create);
    return yes;
}

static void clean_up(struct probe *p)
{
    struct store_request del = request(p, STORE_DELETE, p->a);
    if (store_run(p->store, &del, NULL) < 0 && p->etag) {
        log_warning("cannot remove the probe object s3://%s/%s (%s)", p->bucket, p->a,
                    del.res.detail);
    }
    store_request_clear(&del);
}

static void end_uploads(struct probe *p, const char *key)
{
    struct store_request list = request(p, STORE_MPU_LIST, NULL);
    list.prefix = key;
    store_run(p->store, &list, NULL);
    for (guint i = 0; list.res.entries && i < list.res.entries->len; i++) {
        const struct store_entry *e = list.res.entries->pdata[i];
        if (strcmp(e->key, key) != 0 || !e->upload_id) {
            continue;
        }
        struct store_request abort = request(p, STORE_MPU_ABORT, key);
        abort.upload_id = e->upload_id;
        store_run(p->store, &abort, NULL);
        store_request_clear(&abort);
    }
    store_request_clear(&list);
}

/* What other probes have left. */
static void remove_leftovers(struct probe *p, const char *prefix)
{
    g_autofree char *names = g_strconcat(prefix, PROBE_NAME, NULL);
    struct store_request list = request(p, STORE_LIST, NULL);
    list.prefix = names;
    store_run(p->store, &list, NULL);
    for (guint i = 0; list.res.entries && i < list.res.entries->len; i++) {
        const struct store_entry *e = list.res.entries->pdata[i];
        if (!g_str_has_prefix(e->key, names) || e->mtime_ns == 0 || clock_real_ns() - e->mtime_ns < OLD_NS) {
            continue;
        }
        end_uploads(p, e->key); /* first: the object is how they are found */
        struct store_request del = request(p, STORE_DELETE, e->key);
        store_run(p->store, &del, NULL);
        store_request_clear(&del);
    }
    store_request_clear(&list);
}

/* Tags are not permitted to everyone who may write; that is no refusal of the probe. */
static bool probe_head_tags(struct probe *p)
{
    char name[] = "mlopsfs", value[] = "probe", refusal[sizeof p->refusal];
    memcpy(refusal, p->refusal, sizeof refusal);
    g_autoptr(GHashTable) tags = g_hash_table_new(g_str_hash, g_str_equal);
    g_hash_table_insert(tags, name, value);
    struct store_request put = request(p, STORE_TAGS_PUT, p->a);
    put.tags = tags;
    struct store_request head = request(p, STORE_HEAD, p->a);
    bool yes = run(p, &put) == 0 && run(p, &head) == 0 && head.res.object.untagged_ns == 0;
    store_request_clear(&put);
    store_request_clear(&head);
    memcpy(p->refusal, refusal, sizeof refusal);
    return yes;
}

static void warn_refused(const struct s3 *s3, const char *bucket, const char *refusal)
{
    log_warning("not permitted to try out what the server can do (%s): what could not be tried of "
                "conditional writes, copying by parts and checksums counts as missing; to change "
                "that, permit putting, copying and deleting s3://%s/%s" PROBE_NAME "*",
                refusal, bucket, s3->probe_prefix);
}

enum probed { PROBED, PROBED_BUCKET, PROBED_NOTHING }; /* for whom the answer may be kept */

static enum probed probe(struct s3 *s3, const char *bucket, struct store_caps *ret)
{
    *ret = (struct store_caps){0};
    if (strlen(s3->probe_prefix) + PROBE_NAME_MAX > STORE_KEY_MAX) {
        log_debug("no room for the name of a probe: no capabilities");
        return PROBED;
    }
    char id[37];
    uuid_t uuid;
    uuid_generate_random(uuid);
    uuid_unparse_lower(uuid, id);
    struct probe p = {
        .store = &s3->store,
        .bucket = bucket,
        .a = g_strconcat(s3->probe_prefix, PROBE_NAME, id, NULL),
    };
    ret->put_if = probe_put(&p);
    bool tried = ensure_object(&p);
    if (tried) {
        ret->head_tags = probe_head_tags(&p);
        ret->copy_if = probe_copy(&p);
        ret->complete_if = probe_complete(&p, ret);
        ret->checksum = probe_checksum(&p);
        /* The copy first: of an object that was put with a checksum. */
        bool copied = ret->copy_part && probe_checksum_mpu(&p, true);
        ret->checksum_mpu = probe_checksum_mpu(&p, false);
        ret->copy_into_checksum_mpu = copied && ret->checksum_mpu;
        ret->delete_if = probe_delete(&p); /* last: where it is not honoured, the object is gone */
    }
    clean_up(&p);
    if (p.passing) {
        *ret = (struct store_caps){0};
    } else if (p.refusal[0]) {
        warn_refused(s3, bucket, p.refusal);
    } else if (tried) {
        remove_leftovers(&p, s3->probe_prefix);
    }
    g_autofree char *names = store_caps_print(ret);
    log_debug("capabilities in %s:%s%s", bucket, names, p.passing ? " (not sure)" : "");
    g_free(p.a);
    g_free(p.etag);
    return p.passing ? PROBED_NOTHING : tried && p.refusal[0] == '\0' ? PROBED : PROBED_BUCKET;
}

void s3_caps_get(struct store *s, const char *bucket, struct store_caps *ret)
{
    struct s3 *s3 = (struct s3 *)s;
    mutex_lock(&s3->caps_lock);
    while (s3->caps_probing && bucket) {
        cond_wait(&s3->caps_changed, &s3->caps_lock);
    }
    const struct store_caps *limited = bucket ? g_hash_table_lookup(s3->caps_limited, bucket) : NULL;
    if (s3->caps_known || limited || !bucket) {
        *ret = limited && !s3->caps_known ? *limited : s3->caps;
        mutex_unlock(&s3->caps_lock);
        return;
    }
    s3->caps_probing = true;
    mutex_unlock(&s3->caps_lock);

    enum probed probed = probe(s3, bucket, ret);

    mutex_lock(&s3->caps_lock);
    if (probed == PROBED) {
        s3->caps = *ret;
        s3->caps_known = true;
    } else if (probed == PROBED_BUCKET) {
        g_hash_table_replace(s3->caps_limited, g_strdup(bucket), g_memdup2(ret, sizeof *ret));
    }
    s3->caps_probing = false;
    cond_broadcast(&s3->caps_changed);
    mutex_unlock(&s3->caps_lock);
}
