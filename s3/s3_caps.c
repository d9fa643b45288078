/* SPDX-License-Identifier: Apache-2.0
 *
 * s3_caps: what the server at hand honours, found out by trying. Servers take conditions that they
 * do not honour without a word, so each is sent where it must fail. All under a random key prefix
 * that is removed again.
 *
 * Threads: the first caller of s3_caps_get() probes, others wait for it; caps_lock is not held
 * meanwhile. An answer is kept for good; a probe that failed for a passing reason (a timeout, 503)
 * assumes nothing and is run again at the next call.
 */
#include <errno.h>
#include <string.h>
#include <uuid/uuid.h>

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

static int run(struct probe *p, struct store_request *req)
{
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

static bool probe_upload(struct probe *p, const char *upload_id, bool *ret_copy_part)
{
    struct store_request copy = request(p, STORE_MPU_COPY_PART, p->a);
    copy.upload_id = upload_id;
    copy.part_number = 2;
    copy.from_bucket = p->bucket;
    copy.from_key = p->a;
    *ret_copy_part = run(p, &copy) == 0 && copy.res.object.etag;
    store_request_clear(&copy);

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

static bool probe_complete(struct probe *p, bool *ret_copy_part)
{
    *ret_copy_part = false;
    struct store_request create = request(p, STORE_MPU_CREATE, p->a);
    if (run(p, &create) < 0) {
        store_request_clear(&create);
        return false;
    }
    bool yes = probe_upload(p, create.res.upload_id, ret_copy_part);
    struct store_request abort = request(p, STORE_MPU_ABORT, p->a);
    abort.upload_id = create.res.upload_id;
    run(p, &abort);
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

static void warn_refused(const struct s3 *s3, const char *refusal)
{
    log_warning("not permitted to try out what the server can do (%s): what could not be tried of "
                "conditional writes and copying by parts counts as missing; to change that, permit "
                "putting, copying and deleting s3://%s/%s" PROBE_NAME "*",
                refusal, s3->probe_bucket, s3->probe_prefix);
}

/* True when the answer may be kept. */
static bool probe(struct s3 *s3, struct store_caps *ret)
{
    *ret = (struct store_caps){0};
    if (s3->probe_bucket == NULL) {
        return true;
    }
    if (strlen(s3->probe_prefix) + PROBE_NAME_MAX > STORE_KEY_MAX) {
        log_debug("no room for the name of a probe: no capabilities");
        return true;
    }
    char id[37];
    uuid_t uuid;
    uuid_generate_random(uuid);
    uuid_unparse_lower(uuid, id);
    struct probe p = {
        .store = &s3->store,
        .bucket = s3->probe_bucket,
        .a = g_strconcat(s3->probe_prefix, PROBE_NAME, id, NULL),
    };
    ret->put_if = probe_put(&p);
    if (ensure_object(&p)) {
        ret->copy_if = probe_copy(&p);
        ret->complete_if = probe_complete(&p, &ret->copy_part);
        ret->delete_if = probe_delete(&p); /* last: where it is not honoured, the object is gone */
    }
    clean_up(&p);
    if (p.passing) {
        *ret = (struct store_caps){0};
    } else if (p.refusal[0]) {
        warn_refused(s3, p.refusal);
    }
    log_debug("capabilities: put_if=%d complete_if=%d copy_if=%d delete_if=%d copy_part=%d%s",
              ret->put_if, ret->complete_if, ret->copy_if, ret->delete_if, ret->copy_part,
              p.passing ? " (not sure)" : "");
    g_free(p.a);
    g_free(p.etag);
    return !p.passing;
}

void s3_caps_get(struct store *s, struct store_caps *ret)
{
    struct s3 *s3 = (struct s3 *)s;
    mutex_lock(&s3->caps_lock);
    while (s3->caps_probing) {
        cond_wait(&s3->caps_changed, &s3->caps_lock);
    }
    if (s3->caps_known) {
        *ret = s3->caps;
        mutex_unlock(&s3->caps_lock);
        return;
    }
    s3->caps_probing = true;
    mutex_unlock(&s3->caps_lock);

    bool sure = probe(s3, ret);

    mutex_lock(&s3->caps_lock);
    s3->caps = *ret;
    s3->caps_known = sure;
    s3->caps_probing = false;
    cond_broadcast(&s3->caps_changed);
    mutex_unlock(&s3->caps_lock);
}
