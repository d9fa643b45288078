/* SPDX-License-Identifier: Apache-2.0
 *
 * s3_probe: finds out by trying what the server at hand honours. Servers take conditions that they
 * do not honour without a word, so each is sent where it must fail.
 *
 * A probe is a number of trials, each on a key of its own and a job of its own, since what counts
 * is the round trips until the last one has its answer. They clean up after that, while who asked
 * goes on; the last one to end also removes what killed processes have left, and frees the probe.
 * Threads: a trial is its job's alone; what they share is under the probe's lock.
 *
 * An object is put under a trial's key before an upload of that key is created: a process that is
 * killed leaves both, and the object is how the next probe finds them. Each looks for what others
 * have left OLD_NS ago; whoever still probes is younger than that.
 */
#include <errno.h>
#include <string.h>
#include <uuid/uuid.h>

#include "base/clock.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "base/workq.h"
#include "s3/s3_op.h"

#define PROBE_NAME ".mlopsfs-probe-"
#define PROBE_NAME_MAX (sizeof PROBE_NAME + 2 + 36)
#define BODY_MAX 2
#define OLD_NS (15 * 60 * (int64_t)NSEC_PER_SEC)
#define WRONG_ETAG "00000000000000000000000000000000"

struct trial {
    struct probe *probe;
    void (*try)(struct trial *t);
    char *key;
    bool tried;             /* a request was made */
    bool there;             /* so is an object of ours */
    char *upload_id;        /* of an upload that was neither completed nor aborted; NULL */
    bool upload_doubtful;   /* there may be another one */
    struct store_caps caps; /* what it has found; the others stay false */
};

#define TRIALS_MAX 9

struct probe {
    struct store *store;
    char *bucket, *prefix;
    struct mutex lock;
    struct cond changed;  /* trying */
    unsigned trying;      /* lock: trials without an answer */
    unsigned refs;        /* lock: trials that have not ended, and who asked */
    bool passing;         /* lock: something failed that may work later: nothing more is tried */
    bool incomplete;      /* lock: an object that a trial needs cannot be put into this bucket */
    char refusal[48];     /* lock: the answer to what is not permitted first; "" = none */
    unsigned left;        /* lock: objects that could not be removed */
    unsigned n_trials;
    struct trial trials[TRIALS_MAX];
};

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

static struct store_request request_for(const struct probe *p, enum store_verb verb, const char *key)
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
    return request_for(t->probe, verb, t->key);
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
static int run(struct trial *t, struct store_request *req)
{
    struct probe *p = t->probe;
    if (is_passing(p)) {
        return -EAGAIN;
    }
    t->tried = true;
    int r = store_run(p->store, req, NULL);
    const struct store_result *res = &req->res;
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

/* An upload of the key, which has an object. */
static bool create(struct trial *t, bool with_checksums)
{
    struct store_request req = request(t, STORE_MPU_CREATE);
    req.with_checksums = with_checksums;
    int r = run(t, &req);
    if (r == 0) {
        t->upload_id = g_strdup(req.res.upload_id);
    } else {
        t->upload_doubtful = is_unanswered(&req.res);
    }
    store_request_clear(&req);
    return r == 0;
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
    if (!ensure_object(t) || !create(t, false)) {
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
    if (!ensure_object(t) || !create(t, false)) {
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
    if (!ensure_object(t) || !create(t, false)) {
        return;
    }
    struct store_request req = part_request(t, STORE_MPU_PART);
    t->caps.checksum_part = looks_at_checksum(t, &req);
    store_request_clear(&req);
}

static void try_checksum_mpu(struct trial *t)
{
    if (!ensure_object(t) || !create(t, true)) {
        return;
    }
    struct store_request part = part_request(t, STORE_MPU_PART);
    t->caps.checksum_mpu = looks_at_checksum(t, &part) && completes(t, &part.res);
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
    if (!put(t, &req)) {
        (void)ensure_object(t); /* only to learn whether that was for the checksum */
        return;
    }
    if (!create(t, true)) {
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

/* ---- cleaning up ---- */

/* 0 or -errno: some may be left. */
static int abort_upload(struct probe *p, const char *key, const char *upload_id)
{
    struct store_request req = request_for(p, STORE_MPU_ABORT, key);
    req.upload_id = upload_id;
    int r = store_run(p->store, &req, NULL);
    store_request_clear(&req);
    return r == -ENOENT ? 0 : r;
}

static int end_uploads(struct probe *p, const char *key)
{
    struct store_request list = request_for(p, STORE_MPU_LIST, NULL);
    list.prefix = key;
    int r = store_run(p->store, &list, NULL);
    for (guint i = 0; list.res.entries && i < list.res.entries->len; i++) {
        const struct store_entry *e = list.res.entries->pdata[i];
        if (strcmp(e->key, key) == 0 && e->upload_id) {
            int one = abort_upload(p, key, e->upload_id);
            r = r < 0 ? r : one;
        }
    }
    store_request_clear(&list);
    return r;
}

static int remove_object(struct probe *p, const char *key)
{
    struct store_request req = request_for(p, STORE_DELETE, key);
    int r = store_run(p->store, &req, NULL);
    store_request_clear(&req);
    return r;
}

/* The object goes last, and stays where an upload may be left that is found by it. */
static void clean_up(struct trial *t)
{
    struct probe *p = t->probe;
    if (!t->tried) {
        return;
    }
    if (t->upload_id) {
        t->upload_doubtful = abort_upload(p, t->key, t->upload_id) < 0 || t->upload_doubtful;
    }
    bool stays = t->upload_doubtful && end_uploads(p, t->key) < 0;
    if (stays) {
        log_debug("an upload of the probe's may be left of s3://%s/%s: a later probe ends it", p->bucket, t->key);
    } else if (remove_object(p, t->key) < 0 && t->there) {
        mutex_lock(&p->lock);
        p->left++;
        mutex_unlock(&p->lock);
    }
}

/* What other probes have left. */
static void remove_leftovers(struct probe *p)
{
    g_autofree char *names = g_strconcat(p->prefix, PROBE_NAME, NULL);
    struct store_request list = request_for(p, STORE_LIST, NULL);
    list.prefix = names;
    store_run(p->store, &list, NULL);
    for (guint i = 0; list.res.entries && i < list.res.entries->len; i++) {
        const struct store_entry *e = list.res.entries->pdata[i];
        if (!g_str_has_prefix(e->key, names) || e->mtime_ns == 0 || clock_real_ns() - e->mtime_ns < OLD_NS) {
            continue;
        }
        if (end_uploads(p, e->key) == 0) { /* first: the object is how they are found */
            (void)remove_object(p, e->key);
        }
    }
    store_request_clear(&list);
}

/* ---- the probe ---- */

static void probe_unref(struct probe *p)
{
    mutex_lock(&p->lock);
    bool last = --p->refs == 0;
    mutex_unlock(&p->lock);
    if (!last) {
        return;
    }
    if (p->left > 0) {
        log_warning("cannot remove %u objects s3://%s/%s" PROBE_NAME "* of trying out what the server can do", p->left,
                    p->bucket, p->prefix);
    }
    if (!p->passing && !p->incomplete && !p->refusal[0]) {
        remove_leftovers(p);
    }
    for (unsigned i = 0; i < p->n_trials; i++) {
        g_free(p->trials[i].key);
        g_free(p->trials[i].upload_id);
    }
    cond_fini(&p->changed);
    mutex_fini(&p->lock);
    g_free(p->bucket);
    g_free(p->prefix);
    g_free(p);
}

static void trial_job(void *arg)
{
    struct trial *t = arg;
    struct probe *p = t->probe;
    t->try(t);
    mutex_lock(&p->lock);
    p->trying--;
    cond_signal(&p->changed);
    mutex_unlock(&p->lock);
    clean_up(t);
    probe_unref(p);
}

static struct probe *probe_new(struct s3 *s3, const char *bucket)
{
    static void (*const tries[])(struct trial *t) = {
        try_put, try_copy_and_delete, try_complete, try_copy_part, try_checksum, try_checksum_part, try_checksum_mpu,
        try_copy_into_checksum_mpu, try_head_tags};
    G_STATIC_ASSERT(G_N_ELEMENTS(tries) == TRIALS_MAX && TRIALS_MAX < 10);
    struct probe *p = g_new0(struct probe, 1);
    char id[37];
    uuid_t uuid;
    uuid_generate_random(uuid);
    uuid_unparse_lower(uuid, id);
    p->store = &s3->store;
    p->bucket = g_strdup(bucket);
    p->prefix = g_strdup(s3->probe_prefix);
    mutex_init(&p->lock, RANK_LEAF);
    cond_init(&p->changed);
    p->n_trials = p->trying = TRIALS_MAX;
    p->refs = TRIALS_MAX + 1;
    for (unsigned i = 0; i < p->n_trials; i++) {
        p->trials[i].probe = p;
        p->trials[i].try = tries[i];
        p->trials[i].key = g_strdup_printf("%s" PROBE_NAME "%u-%s", p->prefix, i, id);
    }
    return p;
}

static void merge(const struct probe *p, struct store_caps *ret)
{
    for (unsigned i = 0; i < p->n_trials; i++) {
        const struct store_caps *c = &p->trials[i].caps;
        ret->put_if |= c->put_if;
        ret->copy_if |= c->copy_if;
        ret->delete_if |= c->delete_if;
        ret->complete_if |= c->complete_if;
        ret->copy_part |= c->copy_part;
        ret->checksum |= c->checksum;
        ret->checksum_part |= c->checksum_part;
        ret->checksum_mpu |= c->checksum_mpu;
        ret->copy_into_checksum_mpu |= c->copy_into_checksum_mpu;
        ret->head_tags |= c->head_tags;
    }
    ret->copy_into_checksum_mpu &= ret->copy_part && ret->checksum_mpu;
}

static void warn_refused(const struct probe *p)
{
    log_warning("not permitted to try out what the server can do (%s): what could not be tried of "
                "conditional writes, copying by parts and checksums counts as missing; to change "
                "that, permit putting, copying and deleting s3://%s/%s" PROBE_NAME "*",
                p->refusal, p->bucket, p->prefix);
}

enum s3_probed s3_probe(struct s3 *s3, struct workq *jobs, const char *bucket, struct store_caps *ret)
{
    *ret = (struct store_caps){0};
    if (strlen(s3->probe_prefix) + PROBE_NAME_MAX > STORE_KEY_MAX) {
        log_debug("no room for the name of a probe: no capabilities");
        return S3_PROBED;
    }
    struct probe *p = probe_new(s3, bucket);
    for (unsigned i = 0; i < p->n_trials; i++) {
        workq_push(jobs, trial_job, &p->trials[i]);
    }
    mutex_lock(&p->lock);
    while (p->trying > 0) {
        cond_wait(&p->changed, &p->lock);
    }
    bool passing = p->passing, limited = p->incomplete || p->refusal[0];
    mutex_unlock(&p->lock);
    if (!passing) {
        merge(p, ret);
        if (p->refusal[0]) {
            warn_refused(p);
        }
    }
    g_autofree char *names = store_caps_print(ret);
    log_debug("capabilities in %s:%s%s", bucket, names, passing ? " (not sure)" : "");
    probe_unref(p);
    return passing ? S3_PROBED_NOTHING : limited ? S3_PROBED_BUCKET : S3_PROBED;
}
