/* SPDX-License-Identifier: Apache-2.0
 *
 * stream: see stream.h. Threads: the file's users, its committer, and the store's (completions).
 * All fields are under the file's lock, but that until OPEN req, tags, checksums and
 * with_checksums are those of the job that the beginning is at; a stream holds a life reference on its file.
 *
 *   CREATING   MPU_CREATE is under way, or before it the base's tags are asked for; parts that get
 *              complete wait in the list
 *   OPEN       parts go up
 *   BROKEN     MPU_CREATE failed: nothing was uploaded, the committer starts afresh
 *   detached   (any of them) no longer the file's: ends, by MPU_ABORT, with its last request
 *
 * A part is QUEUED → SENT → ACKED or FAILED; beside that it is stale once the content under it has
 * changed since it was cut. Stale and failed parts go up again at commit, alone.
 * Invariants: parts begin at 0, follow one another without gap, and none is below STORE_PART_MIN;
 * bytes are PUNCHED only under ACKED parts that are not stale.
 */
#include "cache/stream.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <uuid/uuid.h>

#include "base/log.h"
#include "base/workq.h"
#include "cache/file.h"
#include "cache/journal.h"
#include "cache/keep.h"
#include "cache/seal.h"
#include "cache/upload.h"

enum part_state { PART_QUEUED, PART_SENT, PART_ACKED, PART_FAILED };

struct part {
    struct upload up;
    struct stream *stream;
    unsigned number;
    uint64_t off, len;
    enum part_state state;
    bool stale, punched;
    bool unsealed; /* was stale when the stream was sealed */
    char *etag;
    struct store_checksum checksum;
};

struct stream {
    struct cache_file *file;
    enum { STREAM_CREATING, STREAM_OPEN, STREAM_BROKEN } state;
    bool sealed, detached, aborted;
    enum stream_end end;            /* once detached */
    bool with_checksums, checksums; /* the upload was created so; its parts carry them */
    struct store_request req;       /* TAGS_GET, CREATE, at the end ABORT */
    struct file_base *base;         /* whose tags and storage class the object keeps; NULL */
    uint64_t untagged_ns;           /* of the base */
    GHashTable *tags;               /* set before CREATE; NULL: none */
    char *bucket, *key, *upload_id;
    char uuid[37];
    struct store_headers headers;
    GPtrArray *parts; /* struct part* */
    uint64_t next;    /* where the next part begins */
    unsigned sent;    /* requests under way but CREATE */
    int err;
};

static void part_free(void *p)
{
    struct part *part = p;
    upload_clear(&part->up);
    g_free(part->etag);
    g_free(part);
}

static void stream_free(void *arg)
{
    struct stream *s = arg;
    struct cache_file *f = s->file;
    if (s->upload_id && s->aborted)
        seal_upload_ended(f, s->upload_id);
    g_ptr_array_unref(s->parts);
    store_request_clear(&s->req);
    store_headers_clear(&s->headers);
    file_base_unref(s->base);
    if (s->tags)
        g_hash_table_unref(s->tags);
    g_free(s->bucket);
    g_free(s->key);
    g_free(s->upload_id);
    g_free(s);
    file_release(f);
}

static void abort_done(struct store_request *req)
{
    struct stream *s = req->ctx;
    if (req->res.err < 0) {
        log_warning_errno(req->res.err, "cannot abort the upload of %s/%s; the next mount will try again",
                          s->bucket, s->key);
    } else {
        s->aborted = true;
    }
    workq_push(s->file->cache->janitor, stream_free, s);
}

static void stream_abort(void *arg)
{
    struct stream *s = arg;
    store_request_clear(&s->req);
    s->req = (struct store_request){
        .verb = STORE_MPU_ABORT,
        .prio = STORE_PRIO_META,
        .bucket = s->bucket,
        .key = s->key,
        .upload_id = s->upload_id,
        .done = abort_done,
        .ctx = s,
    };
    store_submit(s->file->cache->store, &s->req);
}

/* A detached stream ends when its last request has. */
static void end_if_idle_locked(struct stream *s)
{
    if (!s->detached || !stream_idle_locked(s))
        return;
    struct workq *q = s->file->cache->janitor;
    if (s->state == STREAM_OPEN && s->end == STREAM_ABORT)
        workq_push(q, stream_abort, s);
    else
        workq_push(q, stream_free, s);
}

bool stream_idle_locked(const struct stream *s)
{
    return s->state != STREAM_CREATING && s->sent == 0;
}

/* The content of a sealed file is recorded: so is what of it is there. */
static void record_part(struct stream *s, const struct part *part, const struct store_result *res)
{
    struct cache_file *f = s->file;
    mutex_lock(&f->lock);
    bool wanted = res->err == 0 && s->sealed && !part->unsealed && !s->detached;
    mutex_unlock(&f->lock);
    if (!wanted)
        return;
    struct journal_part p = {.number = part->number,
                             .off = part->off,
                             .len = part->len,
                             .etag = res->object.etag,
                             .checksum = res->checksum};
    (void)seal_upload_parts(f, s->upload_id, &p, 1);
}

static void part_clear(void *arg)
{
    struct upload *u = arg;
    struct part *part = u->ctx;
    struct stream *s = part->stream;
    struct cache_file *f = s->file;
    struct cache *c = f->cache;

    struct store_result res = u->req.res;
    u->req.res = (struct store_result){0};
    upload_clear(u); /* unpins: disk */
    record_part(s, part, &res);
    mutex_lock(&f->lock);
    s->sent--;
    if (res.err == 0) {
        part->state = PART_ACKED;
        part->etag = g_strdup(res.object.etag);
        part->checksum = res.checksum;
    } else {
        part->state = PART_FAILED;
        s->err = res.err;
        if (!s->detached)
            log_warning_errno(res.err, "part %u of %s/%s did not go up, the commit will try again",
                              part->number, s->bucket, s->key);
    }
    cond_broadcast(&f->changed);
    end_if_idle_locked(s); /* s and part may be gone after the unlock */
    mutex_unlock(&f->lock);
    store_result_clear(&res);
    cache_work_end(c);
}

/* On a store thread: what follows may touch the disk and drop the last reference. */
static void part_done(struct upload *u)
{
    struct part *part = u->ctx;
    workq_push(part->stream->file->cache->janitor, part_clear, u);
}

static void part_send_locked(struct stream *s, struct part *part)
{
    struct store_request *req = &part->up.req;
    req->verb = STORE_MPU_PART;
    req->bucket = s->bucket;
    req->key = s->key;
    req->upload_id = s->upload_id;
    req->part_number = part->number;
    if (s->checksums)
        upload_send_checksum(&part->up);
    part->up.done = part_done;
    part->up.ctx = part;
    part->state = PART_SENT;
    s->sent++;
    upload_submit(s->file->cache->uploads, &part->up);
}

static void create_failed_locked(struct stream *s, int err)
{
    s->state = STREAM_BROKEN;
    s->err = err;
    unsigned n = s->parts->len;
    for (unsigned i = 0; i < n; i++)
        ((struct part *)s->parts->pdata[i])->state = PART_FAILED;
    for (unsigned i = 0; i < n; i++)
        cache_work_end(s->file->cache);
}

static int record(struct stream *s)
{
    struct journal_upload u = {
        .bucket = s->bucket, .key = s->key, .with_checksums = s->with_checksums, .headers = s->headers};
    g_strlcpy(u.uuid, s->uuid, sizeof(u.uuid));
    return seal_upload_created(s->file, &u, &s->req.res);
}

static void create_finish(void *arg)
{
    struct stream *s = arg;
    struct cache_file *f = s->file;
    int r = record(s);
    mutex_lock(&f->lock);
    if (r < 0) {
        log_warning_errno(r, "cannot start the upload of %s/%s", s->bucket, s->key);
        create_failed_locked(s, r);
    } else {
        s->state = STREAM_OPEN;
        s->upload_id = g_strdup(s->req.res.upload_id);
        for (unsigned i = 0; i < s->parts->len; i++) {
            if (s->detached) {
                ((struct part *)s->parts->pdata[i])->state = PART_FAILED;
                cache_work_end(f->cache);
            } else {
                part_send_locked(s, s->parts->pdata[i]);
            }
        }
    }
    cond_broadcast(&f->changed);
    end_if_idle_locked(s);
    mutex_unlock(&f->lock);
}

static void create_done(struct store_request *req)
{
    struct stream *s = req->ctx;
    workq_push(s->file->cache->janitor, create_finish, s);
}

static void end_creation(struct stream *s, int err)
{
    struct cache_file *f = s->file;
    mutex_lock(&f->lock);
    create_failed_locked(s, err);
    cond_broadcast(&f->changed);
    end_if_idle_locked(s); /* s may be gone after the unlock */
    mutex_unlock(&f->lock);
}

/* No lock held: disk. */
static void stream_create(struct stream *s, const struct store_caps *caps)
{
    int r = seal_upload_intended(s->file, s->bucket, s->key, s->uuid);
    if (r < 0) {
        end_creation(s, r);
        return;
    }
    s->with_checksums = caps->checksum_mpu;
    s->checksums = caps->checksum_mpu || caps->checksum_part;
    s->req = (struct store_request){
        .verb = STORE_MPU_CREATE,
        .prio = STORE_PRIO_META,
        .bucket = s->bucket,
        .key = s->key,
        .headers = &s->headers,
        .tags = s->tags,
        .storage_class = s->base ? store_class_kept(s->base->object.storage_class) : NULL,
        .with_checksums = s->with_checksums,
        .done = create_done,
        .ctx = s,
    };
    store_submit(s->file->cache->store, &s->req);
}

static void tags_finish(void *arg)
{
    struct stream *s = arg;
    struct cache_file *f = s->file;
    struct store_caps caps;
    int r = keep_tags(f->cache, &s->req, &s->tags);
    store_request_clear(&s->req);
    store_get_caps(f->cache->store, s->bucket, &caps);
    mutex_lock(&f->lock);
    bool wanted = !s->detached;
    mutex_unlock(&f->lock);
    if (r < 0)
        log_warning_errno(r, "cannot read the tags of %s/%s, which is to keep them", s->bucket,
                          s->key);
    if (r == 0 && wanted)
        stream_create(s, &caps);
    else
        end_creation(s, r < 0 ? r : -ECANCELED);
}

static void tags_done(struct store_request *req)
{
    struct stream *s = req->ctx;
    workq_push(s->file->cache->janitor, tags_finish, s);
}

/* On a committer: asking what the server can do may take requests. */
static void stream_begin(void *arg)
{
    struct stream *s = arg;
    struct cache *c = s->file->cache;
    struct store_caps caps;
    store_get_caps(c->store, s->bucket, &caps);
    if (!s->base || !keep_asks(c, s->base->bucket, caps.head_tags, s->untagged_ns)) {
        stream_create(s, &caps);
        return;
    }
    s->req = (struct store_request){
        .verb = STORE_TAGS_GET,
        .prio = STORE_PRIO_META,
        .bucket = s->base->bucket,
        .key = s->base->key,
        .done = tags_done,
        .ctx = s,
    };
    store_submit(c->store, &s->req);
}

static struct stream *stream_new_locked(struct cache_file *f)
{
    struct stream *s = g_new0(struct stream, 1);
    s->file = file_hold(f);
    s->bucket = g_strdup(f->bucket);
    s->key = g_strdup(f->key);
    s->parts = g_ptr_array_new_with_free_func(part_free);
    mutex_lock(&f->cache->lock);
    g_queue_push_tail(&f->cache->streams, f);
    mutex_unlock(&f->cache->lock);
    return s;
}

static struct stream *stream_start_locked(struct cache_file *f)
{
    struct cache *c = f->cache;
    struct stream *s = stream_new_locked(f);
    s->state = STREAM_CREATING;
    uuid_t id;
    uuid_generate(id);
    uuid_unparse_lower(id, s->uuid);
    store_headers_copy(&s->headers, &f->headers);
    store_headers_set_meta(&s->headers, COMMIT_META, s->uuid);
    s->base = f->base ? file_base_ref(f->base) : NULL;
    s->untagged_ns = f->untagged_ns;
    workq_push(c->committers, stream_begin, s);
    return s;
}

void stream_restore_locked(struct cache_file *f, const struct journal_upload *u)
{
    struct stream *s = stream_new_locked(f);
    s->state = STREAM_OPEN;
    s->upload_id = g_strdup(u->id);
    s->with_checksums = s->checksums = u->with_checksums;
    g_strlcpy(s->uuid, u->uuid, sizeof(s->uuid));
    store_headers_copy(&s->headers, &u->headers);
    for (guint i = 0; i < u->parts->len; i++) {
        const struct journal_part *from = u->parts->pdata[i];
        if (from->len < f->cache->limits.part_min || from->off + from->len > extents_size(f->map))
            break;
        struct part *part = g_new0(struct part, 1);
        part->stream = s;
        part->number = from->number;
        part->off = from->off;
        part->len = from->len;
        part->etag = g_strdup(from->etag);
        part->checksum = from->checksum;
        part->state = from->etag ? PART_ACKED : PART_FAILED;
        part->stale = !from->etag;
        part->punched = extents_has(f->map, part->off, part->len, EXTENT_PUNCHED);
        g_ptr_array_add(s->parts, part);
        s->next += part->len;
    }
    f->stream = s;
}

static void cut_locked(struct cache_file *f, uint64_t len)
{
    if (!f->stream)
        f->stream = stream_start_locked(f);
    struct stream *s = f->stream;
    struct part *part = g_new0(struct part, 1);
    part->stream = s;
    part->number = s->parts->len + 1;
    part->off = s->next;
    part->len = len;
    upload_set_body(&part->up, extents_slice(f->map, s->next, len), s->next, len, f->staging, NULL);
    g_ptr_array_add(s->parts, part);
    s->next += len;
    cache_work_begin(f->cache);
    if (s->state == STREAM_OPEN)
        part_send_locked(s, part);
}

/* A stream may go on: the last part that S3 allows is left for the rest, at commit. */
static bool may_cut_locked(const struct cache_file *f)
{
    if (!f->fresh || f->orphan || f->dead || f->commit != COMMIT_IDLE || !f->staging)
        return false;
    const struct stream *s = f->stream;
    return !s || (s->state != STREAM_BROKEN && !s->sealed &&
                  s->parts->len + 1 < f->cache->limits.parts_max);
}

void stream_advance_locked(struct cache_file *f)
{
    while (may_cut_locked(f)) {
        uint64_t next = f->stream ? f->stream->next : 0;
        unsigned number = f->stream ? f->stream->parts->len + 1 : 1;
        uint64_t len = plan_part_size(&f->cache->limits, number);
        if (f->cursor < next + len)
            return;
        cut_locked(f, len);
    }
}

bool stream_cut_short_locked(struct cache_file *f)
{
    uint64_t next = f->stream ? f->stream->next : 0;
    if (!may_cut_locked(f) || f->cursor < next + f->cache->limits.part_min)
        return false;
    cut_locked(f, MIN(f->cursor - next, f->cache->limits.part_max));
    return true;
}

static void mark_stale_locked(struct stream *s, uint64_t off, uint64_t end)
{
    /* Writes in order lie behind all parts. */
    for (unsigned i = s->parts->len; i-- > 0;) {
        struct part *part = s->parts->pdata[i];
        if (part->off + part->len <= off)
            return;
        if (part->off < end)
            part->stale = true;
    }
}

void stream_wrote_locked(struct cache_file *f, uint64_t off, uint64_t n)
{
    if (f->stream)
        mark_stale_locked(f->stream, off, off + n);
    if (!f->fresh || off > f->cursor)
        return;
    f->cursor = MAX(f->cursor, off + n);
    struct extent x;
    while (extents_next(f->map, f->cursor, &x) && x.kind == EXTENT_STAGED)
        f->cursor += x.len;
    stream_advance_locked(f);
}

void stream_truncated_locked(struct cache_file *f, uint64_t size)
{
    f->cursor = MIN(f->cursor, size);
    if (f->stream)
        mark_stale_locked(f->stream, size, UINT64_MAX);
}

bool stream_punch_locked(struct cache_file *f)
{
    struct stream *s = f->stream;
    if (!s || s->sealed)
        return false;
    bool any = false;
    for (unsigned i = 0; i < s->parts->len; i++) {
        struct part *part = s->parts->pdata[i];
        uint64_t end = part->off + part->len;
        if (part->state != PART_ACKED || part->stale || part->punched)
            continue;
        if (f->reserved && f->res_off < end && f->res_off + f->res_len > part->off)
            continue; /* is being rewritten */
        extents_set(f->map, part->off, part->len, EXTENT_PUNCHED, 0);
        part->punched = true;
        any = true;
    }
    return any;
}

void stream_detach_locked(struct cache_file *f, enum stream_end how)
{
    struct stream *s = f->stream;
    if (!s)
        return;
    struct cache *c = f->cache;
    f->stream = NULL;
    s->detached = true;
    s->end = how;
    mutex_lock(&c->lock);
    g_queue_remove(&c->streams, f);
    mutex_unlock(&c->lock);
    for (unsigned i = 0; i < s->parts->len; i++) {
        struct part *part = s->parts->pdata[i];
        if (part->state == PART_SENT && upload_cancel(&part->up)) {
            store_result_fail(&part->up.req.res, -ECANCELED, STORE_CLASS_FATAL, NULL, "given up");
            workq_push(c->janitor, part_clear, &part->up);
        }
    }
    end_if_idle_locked(s);
}

void stream_seal_locked(struct cache_file *f)
{
    struct stream *s = f->stream;
    if (!s)
        return;
    s->sealed = true;
    for (guint i = 0; i < s->parts->len; i++) {
        struct part *part = s->parts->pdata[i];
        part->unsealed = part->stale;
    }
}

void stream_unseal_locked(struct cache_file *f)
{
    if (f->stream)
        f->stream->sealed = false;
}

void stream_distrust_locked(struct cache_file *f)
{
    for (unsigned i = 0; f->stream && i < f->stream->parts->len; i++) {
        struct part *part = f->stream->parts->pdata[i];
        part->stale = part->stale || !part->punched;
    }
}

int stream_error(const struct stream *s)
{
    return s ? s->err : 0;
}

const char *stream_upload_id(const struct stream *s)
{
    return s->upload_id;
}

const char *stream_uuid(const struct stream *s)
{
    return s->uuid;
}

const struct store_headers *stream_headers(const struct stream *s)
{
    return &s->headers;
}

GHashTable *stream_tags(const struct stream *s)
{
    return s->tags;
}

uint64_t stream_bytes(const struct stream *s)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < s->parts->len; i++) {
        const struct part *part = s->parts->pdata[i];
        n += part->state == PART_ACKED && !part->stale ? part->len : 0;
    }
    return n;
}

size_t stream_parts(const struct stream *s, struct plan_done **ret_done)
{
    struct plan_done *done = g_new0(struct plan_done, s->parts->len + 1);
    for (unsigned i = 0; i < s->parts->len; i++) {
        const struct part *part = s->parts->pdata[i];
        done[i] = (struct plan_done){.off = part->off, .len = part->len, .stale = part->stale};
    }
    *ret_done = done;
    return s->parts->len;
}

bool stream_with_checksums(const struct stream *s)
{
    return s->with_checksums;
}

struct store_checksum stream_part_checksum(const struct stream *s, unsigned number)
{
    assert(number >= 1 && number <= s->parts->len);
    const struct part *part = s->parts->pdata[number - 1];
    return part->checksum;
}

const char *stream_part_etag(const struct stream *s, unsigned number)
{
    assert(number >= 1 && number <= s->parts->len);
    const struct part *part = s->parts->pdata[number - 1];
    return part->etag;
}
