/* SPDX-License-Identifier: Apache-2.0
 *
 * outcome: see outcome.h. Threads: a committer's, which waits. A file's list of attempts is changed
 * by its one running commit alone, under the file's lock.
 *
 * Why an attempt may be installed later than it was made: since then the file's base is the same,
 * so what is BASE in its map now was so in the attempt; what was staged after it lies behind its
 * end of staging; and what is PUNCHED was in it, if it was an attempt with this very stream, which
 * takes no part while its outcome is open. An attempt with anything else only tells whose the
 * object is while bytes are PUNCHED.
 */
#include "cache/outcome.h"

#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "cache/journal.h"
#include "cache/keep.h"
#include "cache/stream.h"

#define ATTEMPTS_KEPT 16
#define WAIT_NS (50 * NSEC_PER_MSEC)

struct attempt {
    char *bucket, *key;
    char uuid[37];
    uint64_t gen, staged_end, size; /* as in the commit */
    bool data_dirty;
    bool unknown; /* it may have had an effect */
    struct store_headers headers;
};

enum whose { NOT_OURS, OURS, OURS_BEFORE };

static void attempt_free(void *p)
{
    struct attempt *a = p;
    store_headers_clear(&a->headers);
    g_free(a->bucket);
    g_free(a->key);
    g_free(a);
}

static struct attempt *nth(const struct cache_file *f, unsigned i)
{
    return f->attempts && i < f->attempts->len ? f->attempts->pdata[i] : NULL;
}

static bool is_here(const struct commit *c, const struct attempt *a)
{
    return strcmp(a->key, c->key) == 0 && strcmp(a->bucket, c->bucket) == 0;
}

bool outcome_open_locked(const struct cache_file *f, const char *uuid)
{
    struct attempt *a;
    for (unsigned i = 0; (a = nth(f, i)); i++)
        if (strcmp(a->uuid, uuid) == 0)
            return true;
    return false;
}

void outcome_forget_locked(struct cache_file *f)
{
    if (f->attempts)
        g_ptr_array_set_size(f->attempts, 0);
}

static bool with_stream(const struct commit *c, const struct attempt *a)
{
    return c->stream && strcmp(a->uuid, stream_uuid(c->stream)) == 0;
}

static bool punched(const struct commit *c)
{
    return extents_has(c->map, 0, UINT64_MAX, EXTENT_PUNCHED);
}

/* ---- an object that is there ---- */

static int look(struct commit *c, struct store_request *head)
{
    *head = (struct store_request){
        .verb = STORE_HEAD, .prio = STORE_PRIO_META, .bucket = c->bucket, .key = c->key};
    return store_run(c->cache->store, head, NULL);
}

/* The commit becomes that of the attempt. A server may add headers of its own: ours are what we
 * sent. */
static void adopt(struct commit *c, const struct attempt *a, const struct store_object *o)
{
    c->late = a != c->attempt;
    c->gen = a->gen;
    c->staged_end = a->staged_end;
    c->data_dirty = a->data_dirty;
    c->stream_completed = with_stream(c, a);
    store_object_clear(&c->now);
    store_object_copy(&c->now, o);
    c->now.size = a->size;
    c->now.settled = false; /* it was made just now, or is not known to be as it was made */
    if (c->now.mtime_ns == 0)
        c->now.mtime_ns = clock_real_ns();
    store_headers_clear(&c->now.headers);
    store_headers_copy(&c->now.headers, &a->headers);
    keep_result(c);
}

static void expect_now(struct commit *c, const char *etag)
{
    struct cache_file *f = c->file;
    g_free(c->expect);
    c->expect = g_strdup(etag);
    mutex_lock(&f->lock);
    g_free(f->expect);
    f->expect = g_strdup(etag);
    mutex_unlock(&f->lock);
}

/* Of attempts that look alike the first one: what came after it is still staged. */
static enum whose whose(struct commit *c, const struct store_object *o)
{
    const char *uuid = store_headers_get_meta(&o->headers, COMMIT_META);
    struct attempt *a;
    for (unsigned i = 0; (a = nth(c->file, i)); i++)
        if (is_here(c, a) && a->size == o->size && g_strcmp0(uuid, a->uuid) == 0)
            break;
    if (!a)
        return NOT_OURS;
    if (punched(c) && !with_stream(c, a)) {
        if (g_strcmp0(c->expect, "*") == 0 || g_strcmp0(c->expect, o->etag) == 0)
            return NOT_OURS;
        expect_now(c, o->etag);
        return OURS_BEFORE;
    }
    adopt(c, a, o);
    return OURS;
}

/* The stream's upload may become the object as a content that is not the sealed one any more. */
static bool stream_doubtful(const struct commit *c)
{
    struct attempt *a;
    for (unsigned i = 0; (a = nth(c->file, i)); i++)
        if (with_stream(c, a) && a->gen != c->gen)
            return true;
    return false;
}

int outcome_settle_earlier(struct commit *c)
{
    bool any = false;
    struct attempt *a;
    for (unsigned i = 0; (a = nth(c->file, i)); i++)
        any = any || is_here(c, a);
    if (!any)
        return 0;
    _cleanup_request_ struct store_request head;
    int r = look(c, &head);
    if (r < 0 && r != -ENOENT)
        return r;
    if (r == 0 && whose(c, &head.res.object) == OURS)
        return 1;
    if (!stream_doubtful(c) || punched(c))
        return 0;
    c->stream_lost = true;
    return -EIO;
}

/* ---- requests ---- */

int outcome_ready(struct commit *c, unsigned i, bool server_looks)
{
    if (i > 0)
        clock_sleep(WAIT_NS << (i - 1));
    if ((server_looks && !c->unconditional) || g_strcmp0(c->expect, "*") == 0)
        return 0;
    _cleanup_request_ struct store_request head;
    int r = look(c, &head);
    if (r == -ENOENT)
        return c->expect ? -ESTALE : 0;
    if (r < 0)
        return r;
    if (g_strcmp0(head.res.object.etag, c->expect) == 0)
        return 0;
    switch (whose(c, &head.res.object)) {
    case OURS:
        return 1;
    case OURS_BEFORE:
        return 0;
    case NOT_OURS:
        break;
    }
    return -ESTALE;
}

void outcome_restore_locked(struct cache_file *f, const struct journal_attempt *from)
{
    struct attempt *a = g_new0(struct attempt, 1);
    a->bucket = g_strdup(from->bucket);
    a->key = g_strdup(from->key);
    g_strlcpy(a->uuid, from->uuid, sizeof(a->uuid));
    a->gen = from->gen;
    a->staged_end = from->staged_end;
    a->size = from->size;
    a->data_dirty = from->data_dirty;
    a->unknown = true;
    store_headers_copy(&a->headers, &from->headers);
    if (!f->attempts)
        f->attempts = g_ptr_array_new_with_free_func(attempt_free);
    g_ptr_array_add(f->attempts, a);
}

GPtrArray *outcome_attempts_locked(const struct cache_file *f)
{
    GPtrArray *all = journal_attempts_new();
    struct attempt *from;
    for (unsigned i = 0; (from = nth(f, i)); i++) {
        struct journal_attempt *a = g_new0(struct journal_attempt, 1);
        a->file = f->number;
        a->gen = from->gen;
        a->staged_end = from->staged_end;
        a->size = from->size;
        a->data_dirty = from->data_dirty;
        a->bucket = g_strdup(from->bucket);
        a->key = g_strdup(from->key);
        g_strlcpy(a->uuid, from->uuid, sizeof(a->uuid));
        store_headers_copy(&a->headers, &from->headers);
        g_ptr_array_add(all, a);
    }
    return all;
}

static void add_locked(struct cache_file *f, struct attempt *a)
{
    if (!f->attempts)
        f->attempts = g_ptr_array_new_with_free_func(attempt_free);
    if (f->attempts->len >= ATTEMPTS_KEPT)
        g_ptr_array_remove_index(f->attempts, 0);
    g_ptr_array_add(f->attempts, a);
}

void outcome_begin(struct commit *c, const char *uuid, const struct store_headers *headers)
{
    struct cache_file *f = c->file;
    struct attempt *a;
    for (unsigned i = 0; (a = nth(f, i)); i++)
        if (is_here(c, a) && a->gen == c->gen && strcmp(a->uuid, uuid) == 0)
            break;
    if (!a) {
        a = g_new0(struct attempt, 1);
        a->bucket = g_strdup(c->bucket);
        a->key = g_strdup(c->key);
        g_strlcpy(a->uuid, uuid, sizeof(a->uuid));
        a->gen = c->gen;
        a->staged_end = c->staged_end;
        a->size = extents_size(c->map);
        a->data_dirty = c->data_dirty;
        store_headers_copy(&a->headers, headers);
        mutex_lock(&f->lock);
        add_locked(f, a);
        mutex_unlock(&f->lock);
    }
    c->attempt = a;
}

/* A refusal tells that there was no effect; anything else does not. */
static bool may_have_effect(const struct store_result *res)
{
    switch (res->cls) {
    case STORE_CLASS_OK:
    case STORE_CLASS_AUTH:
    case STORE_CLASS_CONFLICT:
        return false;
    case STORE_CLASS_RETRY:
    case STORE_CLASS_AMBIGUOUS:
        return true;
    case STORE_CLASS_FATAL:
        break;
    }
    return res->err == -EBADMSG || res->err == -EPROTO || res->err == -EIO ||
           res->err == -ETIMEDOUT || res->err == -ECANCELED || res->err == -EINTR;
}

/* The object is not there, and res says why. */
static int verdict(struct commit *c, const struct store_request *req)
{
    const struct store_result *res = &req->res;
    if (res->cls == STORE_CLASS_AMBIGUOUS)
        return -EAGAIN;
    if (res->cls == STORE_CLASS_CONFLICT)
        return -ESTALE;
    if (req->verb == STORE_MPU_COMPLETE && res->err == -ENOENT) {
        c->stream_lost = true;
        return -EIO;
    }
    if (req->verb == STORE_MPU_COMPLETE && res->err == -EINVAL)
        c->parts_invalid = true;
    return res->err;
}

int outcome_end(struct commit *c, const struct store_request *req)
{
    const struct store_result *res = &req->res;
    if (res->err == 0) {
        adopt(c, c->attempt, &res->object);
        return 0;
    }
    log_debug("commit of %s/%s: %s", c->bucket, c->key, res->detail);
    if (res->err == -EOPNOTSUPP && req->verb != STORE_COPY && !c->unconditional &&
        (req->if_match || req->if_none_match)) {
        c->unconditional = true;
        return -EAGAIN;
    }
    bool unknown = may_have_effect(res);
    if (unknown)
        c->attempt->unknown = true;
    bool gone = req->verb == STORE_MPU_COMPLETE && (res->err == -ENOENT || res->err == -EINVAL);
    if (!unknown && !gone && res->cls != STORE_CLASS_CONFLICT)
        return res->err;
    _cleanup_request_ struct store_request head;
    int r = look(c, &head);
    if (r < 0 && r != -ENOENT) {
        c->attempt->unknown = true;
        return r == -EAGAIN ? -EIO : r;
    }
    enum whose w = r == 0 ? whose(c, &head.res.object) : NOT_OURS;
    if (w == OURS)
        return 0;
    return w == OURS_BEFORE ? -EAGAIN : verdict(c, req);
}

void outcome_close(struct commit *c, int r)
{
    struct cache_file *f = c->file;
    if (r >= 0 || !c->attempt || c->attempt->unknown)
        return;
    mutex_lock(&f->lock);
    g_ptr_array_remove(f->attempts, c->attempt);
    c->attempt = NULL;
    mutex_unlock(&f->lock);
}
