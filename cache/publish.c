/* SPDX-License-Identifier: Apache-2.0
 *
 * publish: carries a plan out. Threads: a committer's, which waits; parts end on store threads.
 * What is sealed in the commit is constant; what parts come to is under the file's lock.
 *
 * The object appears by one conditional request (PUT, COPY or COMPLETE): if the key is as we know
 * it. What that came to is outcome.c's.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "base/workq.h"
#include "cache/commit.h"
#include "cache/journal.h"
#include "cache/keep.h"
#include "cache/outcome.h"
#include "cache/reader.h"
#include "cache/seal.h"
#include "cache/stream.h"
#include "cache/upload.h"

#define FETCH_CHUNK (1U << 20)

static int run(struct commit *c, struct store_request *req)
{
    req->prio = req->verb == STORE_HEAD ? STORE_PRIO_META : STORE_PRIO_UPLOAD;
    return store_run(c->cache->store, req, NULL);
}

static bool guarded(const struct commit *c)
{
    return g_strcmp0(c->expect, "*") != 0;
}

/* Sent even where the server is not known to look: it does no harm there. */
static void set_condition(const struct commit *c, struct store_request *req)
{
    if (c->unconditional || !guarded(c))
        return;
    if (c->expect)
        req->if_match = c->expect;
    else
        req->if_none_match = true;
}

/* ---- bytes ---- */

/* Waits until a scratch file of n bytes fits into the commits' reserve. */
static int scratch_new(struct commit *c, uint64_t n, struct staging **ret, uint64_t *ret_src)
{
    struct staging *s = NULL;
    int r = staging_new(journal_dir(c->cache->journal), c->cache->reserve, &s);
    if (r < 0)
        return r;
    for (;;) {
        uint64_t seen = cache_events(c->cache, NULL);
        r = staging_reserve(s, n, ret_src);
        if (r != -EAGAIN)
            break;
        cache_wait_event(c->cache, seen, NULL);
    }
    if (r < 0) {
        staging_unref(s);
        return r == -EMSGSIZE ? -EFBIG : r;
    }
    *ret = s;
    return 0;
}

static int fetch_extent(struct commit *c, struct staging *s, uint64_t off, uint64_t len,
                        uint64_t src, char *buf)
{
    for (uint64_t at = 0; at < len;) {
        size_t n = (size_t)MIN(len - at, FETCH_CHUNK);
        ssize_t got = reader_pread(c->reader, buf, n, off + at, NULL);
        if (got < 0)
            return (int)got;
        if ((size_t)got != n)
            return -EIO;
        int r = staging_fill(s, src + at, off + at, buf, n);
        if (r < 0)
            return r;
        at += n;
    }
    return 0;
}

/* Replaces BASE in the map of a part by FETCHED. *ret is NULL where there is none. */
static int fetch_base(struct commit *c, struct extents *map, uint64_t off, uint64_t len,
                      struct staging **ret)
{
    *ret = NULL;
    uint64_t n = extents_bytes(map, off, len, EXTENT_BASE), src;
    if (n == 0)
        return 0;
    const struct file_base *b = c->base;
    if (!c->reader)
        c->reader = reader_new(c->cache->readers, b->bucket, b->key, b->object.etag, b->object.size);
    int r = scratch_new(c, n, ret, &src);
    if (r < 0)
        return r;
    g_autofree char *buf = g_malloc(FETCH_CHUNK);
    struct extent x;
    for (uint64_t at = off; r == 0 && extents_next(map, at, &x); at = x.off + x.len) {
        if (x.kind != EXTENT_BASE)
            continue;
        r = fetch_extent(c, *ret, x.off, x.len, src, buf);
        if (r == 0)
            extents_set(map, x.off, x.len, EXTENT_FETCHED, src);
        src += x.len;
    }
    if (r < 0) {
        staging_unref(*ret);
        *ret = NULL;
        cache_event(c->cache);
    }
    return r;
}

/* The bytes of [off, off+len) as u's body. */
static int set_body(struct commit *c, struct upload *u, uint64_t off, uint64_t len)
{
    struct extents *map = extents_slice(c->map, off, len);
    struct staging *scratch = NULL;
    int r = fetch_base(c, map, off, len, &scratch);
    if (r == 0 && extents_has(map, off, len, EXTENT_PUNCHED))
        r = log_error_errno(-EIO, "%s/%s: bytes of an upload that cannot go on are lost", c->bucket,
                            c->key);
    if (r < 0) {
        extents_free(map);
        staging_unref(scratch);
        return r;
    }
    upload_set_body(u, map, off, len, c->staging, scratch);
    staging_unref(scratch); /* the pin keeps it */
    return 0;
}

static void upload_end(struct commit *c, struct upload *u)
{
    bool fetched = u->fetched.s != NULL;
    upload_clear(u);
    if (fetched)
        cache_event(c->cache); /* the reserve has room again */
}

/* ---- PUT and COPY ---- */

static int put_once(struct commit *c)
{
    struct upload u = {
        .req = {.verb = STORE_PUT, .bucket = c->bucket, .key = c->key, .headers = &c->headers}};
    keep_in(c, &u.req);
    set_condition(c, &u.req);
    int r = set_body(c, &u, 0, extents_size(c->map));
    if (r < 0)
        return r == -EAGAIN ? -EIO : r;
    if (c->caps.checksum)
        upload_send_checksum(&u);
    outcome_begin(c, c->uuid, &c->headers);
    upload_run(c->cache->uploads, &u);
    r = outcome_end(c, &u.req);
    upload_end(c, &u);
    return r;
}

static int copy_once(struct commit *c)
{
    struct upload u = {.req = {.verb = STORE_COPY,
                               .bucket = c->bucket,
                               .key = c->key,
                               .headers = &c->headers,
                               .replace_headers = true,
                               .from_bucket = c->base->bucket,
                               .from_key = c->base->key,
                               .from_if_match = c->base->object.etag}};
    keep_in(c, &u.req);
    if (c->moved && c->caps.copy_if)
        set_condition(c, &u.req);
    outcome_begin(c, c->uuid, &c->headers);
    int r = upload_run(c->cache->uploads, &u);
    if (r == -ENOENT && u.req.res.cls != STORE_CLASS_CONFLICT)
        r = -ESTALE; /* the base is gone */
    else
        r = outcome_end(c, &u.req);
    upload_clear(&u);
    return r;
}

/* Makes the request `once` until its outcome is known. */
static int insist(struct commit *c, bool server_looks, int (*once)(struct commit *c))
{
    int r = -EAGAIN;
    for (unsigned i = 0; r == -EAGAIN && i < OUTCOME_ATTEMPTS; i++) {
        int ready = outcome_ready(c, i, server_looks);
        if (ready != 0)
            return MIN(ready, 0);
        r = once(c);
    }
    return r == -EAGAIN ? -EIO : r;
}

/* ---- multipart ---- */

struct piece {
    struct upload up;
    struct multi *multi;
    uint64_t off;
    struct store_part part; /* etag and checksum once it is there */
};

struct multi {
    struct commit *commit;
    bool recorded; /* the journal knows its parts */
    const char *upload_id, *uuid;
    bool with_checksums; /* the upload was created so */
    const struct store_headers *headers;
    struct store_request create; /* holds the id of an upload of our own */
    struct piece *pieces;
    unsigned n;
};

/* After a crash the next mount goes on with the upload, unless parts of it come from a base: those
 * are cheap to copy again. */
static void record_plan(struct multi *m)
{
    struct commit *c = m->commit;
    if (extents_has(c->map, 0, UINT64_MAX, EXTENT_BASE))
        return;
    g_autofree struct journal_part *parts = g_new0(struct journal_part, m->n);
    for (unsigned i = 0; i < m->n; i++) {
        const struct plan_part *how = &g_array_index(c->plan.parts, struct plan_part, i);
        const char *etag = how->how == PLAN_KEEP ? stream_part_etag(c->stream, how->number) : NULL;
        parts[i] = (struct journal_part){
            .number = how->number, .off = how->off, .len = how->len, .etag = etag};
        if (etag)
            parts[i].checksum = stream_part_checksum(c->stream, how->number);
    }
    m->recorded = seal_upload_parts(c->file, m->upload_id, parts, m->n) == 0;
}

static void record_piece(struct piece *p, const char *etag, struct store_checksum checksum)
{
    struct multi *m = p->multi;
    struct journal_part part = {.number = p->part.number,
                                .off = p->off,
                                .len = p->part.size,
                                .etag = etag,
                                .checksum = checksum};
    if (m->recorded)
        (void)seal_upload_parts(m->commit->file, m->upload_id, &part, 1);
}

/* On the janitor: closing scratch files is disk work, and so is the journal. */
static void piece_finish(void *arg)
{
    struct upload *u = arg;
    struct piece *p = u->ctx;
    struct commit *c = p->multi->commit;
    struct cache_file *f = c->file;
    int err = u->req.res.err;
    if (err == -ENOENT && u->req.verb == STORE_MPU_COPY_PART &&
        strcmp(u->req.res.code, "NoSuchUpload") != 0)
        err = -ESTALE; /* what was to be copied is gone */
    enum store_class cls = u->req.res.cls;
    if (err < 0)
        log_debug("commit of %s/%s: %s", c->bucket, c->key, u->req.res.detail);
    char *etag = g_strdup(u->req.res.object.etag);
    struct store_checksum checksum = u->req.res.checksum;
    upload_end(c, u);
    if (err == 0)
        record_piece(p, etag, checksum);
    mutex_lock(&f->lock);
    p->part.etag = etag;
    p->part.checksum = checksum;
    f->sent += err == 0 ? p->part.size : 0;
    if (err < 0 && c->err == 0) {
        c->err = err;
        c->cls = cls;
    }
    c->under_way--; /* the commit may be gone after the unlock */
    cond_broadcast(&f->changed);
    mutex_unlock(&f->lock);
}

static void piece_done(struct upload *u)
{
    struct piece *p = u->ctx;
    workq_push(p->multi->commit->cache->janitor, piece_finish, u);
}

static void piece_submit(struct multi *m, struct piece *p)
{
    struct commit *c = m->commit;
    mutex_lock(&c->file->lock);
    c->under_way++;
    mutex_unlock(&c->file->lock);
    p->up.done = piece_done;
    p->up.ctx = p;
    upload_submit(c->cache->uploads, &p->up);
}

static int piece_start(struct multi *m, struct piece *p, const struct plan_part *how)
{
    struct commit *c = m->commit;
    p->multi = m;
    p->off = how->off;
    p->part.number = how->number;
    p->part.size = how->len;
    if (how->how == PLAN_KEEP) {
        p->part.etag = g_strdup(stream_part_etag(c->stream, how->number));
        p->part.checksum = stream_part_checksum(c->stream, how->number);
        mutex_lock(&c->file->lock);
        c->file->sent += how->len;
        mutex_unlock(&c->file->lock);
        return 0;
    }
    struct store_request *req = &p->up.req;
    *req = (struct store_request){.bucket = c->bucket,
                                  .key = c->key,
                                  .upload_id = m->upload_id,
                                  .part_number = how->number};
    if (how->how == PLAN_UPLOAD) {
        req->verb = STORE_MPU_PART;
        int r = set_body(c, &p->up, how->off, how->len);
        if (r < 0)
            return r;
        if (m->with_checksums || c->caps.checksum_part)
            upload_send_checksum(&p->up);
    } else {
        req->verb = STORE_MPU_COPY_PART;
        req->from_bucket = c->base->bucket;
        req->from_key = c->base->key;
        req->from_if_match = c->base->object.etag;
        bool whole = how->off == 0 && how->len == c->base->object.size;
        req->range = (struct store_range){.off = how->off, .len = how->len, .set = !whole};
    }
    piece_submit(m, p);
    return 0;
}

static bool failed(struct commit *c)
{
    mutex_lock(&c->file->lock);
    bool yes = c->err < 0;
    mutex_unlock(&c->file->lock);
    return yes;
}

/* An error of a part, as one of the commit. */
static int part_error(struct commit *c)
{
    if (c->cls == STORE_CLASS_CONFLICT)
        return -ESTALE; /* the base was changed */
    if (c->err == -ENOENT)
        c->stream_lost = true; /* or our own upload: nothing to keep either */
    return c->err;
}

static int pieces_run(struct multi *m)
{
    struct commit *c = m->commit;
    struct cache_file *f = c->file;
    int r = 0;
    for (unsigned i = 0; i < m->n && r == 0 && !failed(c); i++)
        r = piece_start(m, &m->pieces[i], &g_array_index(c->plan.parts, struct plan_part, i));
    mutex_lock(&f->lock);
    while (c->under_way > 0)
        cond_wait(&f->changed, &f->lock);
    mutex_unlock(&f->lock);
    return r < 0 ? r : c->err < 0 ? part_error(c) : 0;
}

static int complete_once(struct commit *c)
{
    struct multi *m = c->multi;
    g_autofree struct store_part *parts = g_new0(struct store_part, m->n);
    for (unsigned i = 0; i < m->n; i++) {
        parts[i] = m->pieces[i].part; /* ETags stay the pieces' */
        parts[i].checksum.set &= m->with_checksums;
    }
    _cleanup_request_ struct store_request req = {.verb = STORE_MPU_COMPLETE,
                                                  .bucket = c->bucket,
                                                  .key = c->key,
                                                  .upload_id = m->upload_id,
                                                  .parts = parts,
                                                  .n_parts = m->n};
    set_condition(c, &req);
    outcome_begin(c, m->uuid, m->headers);
    run(c, &req);
    return outcome_end(c, &req);
}

static bool plan_copies(const struct plan *p)
{
    for (unsigned i = 0; i < p->parts->len; i++)
        if (g_array_index(p->parts, struct plan_part, i).how == PLAN_COPY_PART)
            return true;
    return false;
}

static int create_recorded(struct multi *m)
{
    struct commit *c = m->commit;
    struct journal_upload u = {
        .bucket = c->bucket, .key = c->key, .with_checksums = m->with_checksums, .headers = c->headers};
    g_strlcpy(u.uuid, c->uuid, sizeof(u.uuid));
    int r = seal_upload_intended(c->file, c->bucket, c->key, c->uuid);
    if (r < 0)
        return r;
    run(c, &m->create);
    return seal_upload_created(c->file, &u, &m->create.res);
}

static int create(struct multi *m)
{
    struct commit *c = m->commit;
    m->with_checksums =
        c->caps.checksum_mpu && (c->caps.copy_into_checksum_mpu || !plan_copies(&c->plan));
    m->create = (struct store_request){.verb = STORE_MPU_CREATE,
                                       .bucket = c->bucket,
                                       .key = c->key,
                                       .headers = &c->headers,
                                       .with_checksums = m->with_checksums};
    keep_in(c, &m->create);
    int r = create_recorded(m);
    m->upload_id = m->create.res.upload_id;
    m->uuid = c->uuid;
    m->headers = &c->headers;
    return r;
}

static void end_own(struct multi *m, bool completed)
{
    struct commit *c = m->commit;
    _cleanup_request_ struct store_request req = {
        .verb = STORE_MPU_ABORT, .bucket = c->bucket, .key = c->key, .upload_id = m->upload_id};
    int r = completed ? 0 : run(c, &req);
    if (r < 0)
        log_warning_errno(r, "cannot abort the upload of %s/%s; the next mount will try again",
                          c->bucket, c->key);
    else
        seal_upload_ended(c->file, m->upload_id);
}

static int publish_multipart(struct commit *c)
{
    struct multi m = {.commit = c, .n = c->plan.parts->len};
    bool own = c->n_done == 0;
    int r = 0;
    if (own) {
        r = create(&m);
    } else {
        m.upload_id = stream_upload_id(c->stream);
        m.uuid = stream_uuid(c->stream);
        m.headers = stream_headers(c->stream);
        m.with_checksums = stream_with_checksums(c->stream);
    }
    if (r == 0) {
        m.pieces = g_new0(struct piece, m.n);
        record_plan(&m);
        r = pieces_run(&m);
        c->multi = &m;
        if (r == 0)
            r = insist(c, c->caps.complete_if, complete_once);
        c->multi = NULL;
        if (own)
            end_own(&m, r == 0 && !c->late);
        for (unsigned i = 0; i < m.n; i++)
            g_free(m.pieces[i].part.etag);
        g_free(m.pieces);
    }
    if (own)
        c->stream_lost = c->parts_invalid = false; /* it was about our own upload */
    store_request_clear(&m.create);
    return r;
}

/* ---- the plan ---- */

/* Parts may be copied into the upload that the commit will complete. */
static bool may_copy_parts(const struct commit *c)
{
    bool streamed = c->n_done > 0 && stream_with_checksums(c->stream);
    return c->caps.copy_part && !c->base_gone && (!streamed || c->caps.copy_into_checksum_mpu);
}

static void tell_size(const struct commit *c)
{
    g_autofree char *size = g_format_size_full(extents_size(c->map), G_FORMAT_SIZE_IEC_UNITS);
    g_autofree char *holes = g_format_size_full(extents_bytes(c->map, 0, UINT64_MAX, EXTENT_ZERO), G_FORMAT_SIZE_IEC_UNITS);
    log_error("%s/%s: it has %s, of which nobody wrote %s: an object has no holes, and these would all be sent. That is more than holes_max, or "
              "than an object can be: truncate the file, or raise holes_max", c->bucket, c->key, size, holes);
}

static int publish_planned(struct commit *c)
{
    struct plan_input in = {
        .map = c->map,
        .has_base = c->base != NULL,
        .base_size = c->base ? c->base->object.size : 0,
        .data_dirty = c->data_dirty,
        .headers_dirty = c->headers_dirty,
        .moved = c->moved,
        .guarded = guarded(c) && !c->caps.copy_if && c->caps.complete_if,
        .copy_part = may_copy_parts(c),
        .done = c->done,
        .n_done = c->n_done,
    };
    int r = plan_make(&in, &c->cache->limits, &c->plan);
    if (r == -EFBIG)
        tell_size(c);
    if (r == 0)
        r = keep_find(c);
    if (r < 0)
        return r;
    switch (c->plan.kind) {
    case PLAN_NOTHING:
        c->nothing = true;
        return 0;
    case PLAN_COPY:
        return insist(c, !c->moved || c->caps.copy_if, copy_once);
    case PLAN_PUT:
        return insist(c, c->caps.put_if, put_once);
    case PLAN_MULTIPART:
        return publish_multipart(c);
    }
    return -EINVAL;
}

int publish(struct commit *c)
{
    int r = outcome_settle_earlier(c);
    if (r != 0)
        return MIN(r, 0);
    store_get_caps(c->cache->store, c->bucket, &c->caps);
    store_headers_set_meta(&c->headers, COMMIT_META, c->uuid);
    r = publish_planned(c);
    outcome_close(c, r);
    if (r == 0)
        keep_late(c);
    return r;
}
