/* SPDX-License-Identifier: Apache-2.0
 *
 * local_object: the object verbs of store_local as transactions on its index. Any thread; each
 * function is one transaction (local_txn_*) unless it takes one.
 */
#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "s3/local.h"

void local_object_clear(struct local_object *o)
{
    g_free(o->etag);
    g_clear_pointer(&o->headers, g_bytes_unref);
    g_clear_pointer(&o->tags, g_bytes_unref);
    g_clear_pointer(&o->storage_class, g_free);
    o->etag = NULL;
}

static GBytes *column_bytes(sqlite3_stmt *st, int col)
{
    return g_bytes_new(sqlite3_column_blob(st, col), (gsize)sqlite3_column_bytes(st, col));
}

int local_object_find(struct local_txn *t, int64_t bucket, const char *key,
                      struct local_object *ret)
{
    sqlite3_stmt *st = local_txn_stmt(t, SQL_OBJECT_FIND);
    sqlite3_bind_int64(st, 1, bucket);
    local_bind_key(st, 2, key);
    int r = db_step(st);
    if (r > 0) {
        *ret = (struct local_object){.etag = g_strdup((const char *)sqlite3_column_text(st, 0)),
                                     .size = (uint64_t)sqlite3_column_int64(st, 1),
                                     .mtime_ns = sqlite3_column_int64(st, 2),
                                     .body = sqlite3_column_int64(st, 3),
                                     .headers = column_bytes(st, 4),
                                     .tags = column_bytes(st, 5),
                                     .storage_class =
                                         g_strdup((const char *)sqlite3_column_text(st, 6))};
    }
    sqlite3_reset(st);
    return r;
}

/* The bucket and the object in it, or the S3 error entered into req. */
static int find(struct local_txn *t, struct store_request *req, const char *bucket, const char *key,
                struct local_object *ret)
{
    int64_t id;
    int r = local_bucket_find(t, req, bucket, &id);
    if (r < 0) {
        return r;
    }
    r = local_object_find(t, id, key, ret);
    if (r == 0) {
        return local_fail(req, LOCAL_NO_SUCH_KEY);
    }
    return r < 0 ? r : 0;
}

int local_object_check(struct local_txn *t, struct store_request *req, int64_t bucket)
{
    if (req->if_match == NULL && !req->if_none_match) {
        return 0;
    }
    _cleanup_local_object_ struct local_object o = {0};
    int r = local_object_find(t, bucket, req->key, &o);
    if (r < 0) {
        return r;
    }
    if (r > 0 && req->if_none_match) {
        return local_fail(req, LOCAL_EXISTS);
    }
    if (r == 0 && req->if_match != NULL) {
        return local_fail(req, LOCAL_MATCH_NO_KEY);
    }
    if (req->if_match != NULL && strcmp(req->if_match, o.etag) != 0) {
        return local_fail(req, LOCAL_PRECONDITION_FAILED);
    }
    return 0;
}

int local_object_store(struct local_txn *t, int64_t bucket, const char *key,
                       const struct local_object *o)
{
    _cleanup_local_object_ struct local_object old = {0};
    int found = local_object_find(t, bucket, key, &old);
    if (found < 0) {
        return found;
    }
    sqlite3_stmt *st = local_txn_stmt(t, SQL_OBJECT_STORE);
    sqlite3_bind_int64(st, 1, bucket);
    local_bind_key(st, 2, key);
    local_bind_text(st, 3, o->etag);
    sqlite3_bind_int64(st, 4, (int64_t)o->size);
    sqlite3_bind_int64(st, 5, o->mtime_ns);
    sqlite3_bind_int64(st, 6, o->body);
    local_bind_bytes_of(st, 7, o->headers);
    local_bind_bytes_of(st, 8, o->tags);
    local_bind_text(st, 9, o->storage_class);
    int r = local_txn_do(st);
    return r == 0 && found ? local_body_unref(t, old.body) : r;
}

/* The bytes that req's range means in an object of this size. */
static int resolve_range(struct store_request *req, uint64_t size, uint64_t *ret_off,
                         uint64_t *ret_len)
{
    *ret_off = 0;
    *ret_len = size;
    if (!req->range.set) {
        return 0;
    }
    if (req->range.off >= size) {
        return local_fail(req, LOCAL_INVALID_RANGE);
    }
    uint64_t rest = size - req->range.off;
    *ret_off = req->range.off;
    *ret_len = req->range.len == 0 ? rest : MIN(req->range.len, rest);
    return 0;
}

int local_object_get(struct local_index *ix, struct store_request *req, struct local_view *view)
{
    _cleanup_local_object_ struct local_object o = {0};
    _cleanup_txn_ struct local_txn t = {0};
    int r = local_txn_begin(ix, &t);
    if (r < 0) {
        return r;
    }
    r = find(&t, req, req->bucket, req->key, &o);
    if (r < 0) {
        return r;
    }
    if (req->if_match != NULL && strcmp(req->if_match, o.etag) != 0) {
        return local_fail(req, LOCAL_PRECONDITION_FAILED);
    }
    if (view != NULL) {
        uint64_t off = 0, len = 0;
        r = resolve_range(req, o.size, &off, &len);
        if (r == 0) {
            r = local_body_view(&t, o.body, off, len, view);
        }
        if (r < 0) {
            return r;
        }
    }
    gsize n;
    const void *packed = g_bytes_get_data(o.headers, &n);
    struct store_object *res = &req->res.object;
    res->etag = g_steal_pointer(&o.etag);
    res->size = o.size;
    res->mtime_ns = o.mtime_ns;
    res->storage_class = g_steal_pointer(&o.storage_class);
    res->untagged_ns = g_bytes_get_size(o.tags) == 0 ? clock_mono_ns() : 0;
    res->settled = clock_real_ns() > o.mtime_ns; /* nanoseconds, on this machine's clock */
    local_unpack_headers(packed, n, &res->headers);
    return 0;
}

int local_object_put_check(struct local_index *ix, struct store_request *req)
{
    _cleanup_txn_ struct local_txn t = {0};
    int64_t bucket;
    int r = local_txn_begin(ix, &t);
    if (r == 0) {
        r = local_bucket_find(&t, req, req->bucket, &bucket);
    }
    return r < 0 ? r : local_object_check(&t, req, bucket);
}

int local_object_put(struct local_index *ix, struct store_request *req, GBytes *headers,
                     const char *etag, struct local_blob_writer *w)
{
    _cleanup_txn_ struct local_txn t = {0};
    int64_t bucket, body;
    int r = local_txn_begin(ix, &t);
    if (r < 0) {
        return r;
    }
    r = local_bucket_find(&t, req, req->bucket, &bucket);
    if (r == 0) {
        r = local_object_check(&t, req, bucket);
    }
    if (r == 0) {
        r = local_body_new(&t, &body);
    }
    if (r == 0 && w->size > 0) {
        r = local_body_add(&t, body, &(struct local_segment){.len = w->size, .blob = w->id});
    }
    if (r < 0) {
        return r;
    }
    struct local_object o = {.etag = g_strdup(etag),
                             .size = w->size,
                             .mtime_ns = clock_real_ns(),
                             .body = body,
                             .headers = g_bytes_ref(headers)};
    r = local_pack_kept(req, &o.tags, &o.storage_class);
    if (r == 0) {
        r = local_object_store(&t, bucket, req->key, &o);
    }
    if (r == 0) {
        r = local_txn_commit(&t);
    }
    if (r == 0) {
        w->kept = true;
        req->res.object.etag = g_steal_pointer(&o.etag);
        req->res.object.size = o.size;
        req->res.object.mtime_ns = o.mtime_ns;
    }
    local_object_clear(&o);
    return r;
}

/* from_* and from_if_match; the source's row. */
static int find_source(struct local_txn *t, struct store_request *req, struct local_object *ret)
{
    int r = find(t, req, req->from_bucket, req->from_key, ret);
    if (r == 0 && req->from_if_match != NULL && strcmp(req->from_if_match, ret->etag) != 0) {
        return local_fail(req, LOCAL_PRECONDITION_FAILED);
    }
    return r;
}

/* The copy shares the source's body, and so its ETag. */
int local_object_copy(struct local_index *ix, struct store_request *req, GBytes *headers)
{
    if (!req->replace_headers && strcmp(req->bucket, req->from_bucket) == 0 &&
        strcmp(req->key, req->from_key) == 0) {
        return local_fail(req, LOCAL_INVALID_REQUEST);
    }
    _cleanup_local_object_ struct local_object o = {0};
    _cleanup_txn_ struct local_txn t = {0};
    int64_t bucket;
    int r = local_txn_begin(ix, &t);
    if (r < 0) {
        return r;
    }
    r = local_bucket_find(&t, req, req->bucket, &bucket);
    if (r == 0) {
        r = find_source(&t, req, &o);
    }
    if (r == 0) {
        r = local_object_check(&t, req, bucket);
    }
    if (r < 0) {
        return r;
    }
    if (o.size > STORE_PART_MAX) {
        return local_fail(req, LOCAL_INVALID_REQUEST);
    }
    if (req->replace_headers) {
        g_bytes_unref(o.headers);
        o.headers = g_bytes_ref(headers);
    }
    o.mtime_ns = clock_real_ns();
    g_autoptr(GBytes) not_ours = NULL; /* the tags are the source's */
    g_clear_pointer(&o.storage_class, g_free);
    r = local_pack_kept(req, &not_ours, &o.storage_class);
    if (r == 0) {
        r = local_body_ref(&t, o.body);
    }
    if (r == 0) {
        r = local_object_store(&t, bucket, req->key, &o);
    }
    if (r == 0) {
        r = local_txn_commit(&t);
    }
    if (r == 0) {
        req->res.object.etag = g_steal_pointer(&o.etag);
        req->res.object.size = o.size;
        req->res.object.mtime_ns = o.mtime_ns;
    }
    return r;
}

static int delete_row(struct local_txn *t, int64_t bucket, const char *key, int64_t body)
{
    sqlite3_stmt *st = local_txn_stmt(t, SQL_OBJECT_DELETE);
    sqlite3_bind_int64(st, 1, bucket);
    local_bind_key(st, 2, key);
    int r = local_txn_do(st);
    return r < 0 ? r : local_body_unref(t, body);
}

int local_object_delete(struct local_index *ix, struct store_request *req)
{
    _cleanup_local_object_ struct local_object o = {0};
    _cleanup_txn_ struct local_txn t = {0};
    int64_t bucket;
    int r = local_txn_begin(ix, &t);
    if (r < 0) {
        return r;
    }
    r = local_bucket_find(&t, req, req->bucket, &bucket);
    if (r < 0) {
        return r;
    }
    r = local_object_find(&t, bucket, req->key, &o);
    if (r <= 0) {
        return r; /* absent: as asked, with or without If-Match */
    }
    if (req->if_match != NULL && strcmp(req->if_match, o.etag) != 0) {
        return local_fail(req, LOCAL_PRECONDITION_FAILED);
    }
    r = delete_row(&t, bucket, req->key, o.body);
    return r < 0 ? r : local_txn_commit(&t);
}

/* All or none: one transaction. */
int local_object_delete_many(struct local_index *ix, struct store_request *req)
{
    _cleanup_txn_ struct local_txn t = {0};
    int64_t bucket;
    int r = local_txn_begin(ix, &t);
    if (r < 0) {
        return r;
    }
    r = local_bucket_find(&t, req, req->bucket, &bucket);
    for (size_t i = 0; r == 0 && i < req->n_keys; i++) {
        _cleanup_local_object_ struct local_object o = {0};
        r = local_object_find(&t, bucket, req->keys[i], &o);
        if (r > 0) {
            r = delete_row(&t, bucket, req->keys[i], o.body);
        }
    }
    if (r == 0) {
        r = local_txn_commit(&t);
    }
    if (r < 0) {
        req->res.failed = g_ptr_array_new_with_free_func(g_free);
        for (size_t i = 0; i < req->n_keys; i++) {
            g_ptr_array_add(req->res.failed, g_strdup(req->keys[i]));
        }
    }
    return r;
}

int local_object_tags_get(struct local_index *ix, struct store_request *req)
{
    _cleanup_local_object_ struct local_object o = {0};
    _cleanup_txn_ struct local_txn t = {0};
    int r = local_txn_begin(ix, &t);
    if (r == 0) {
        r = find(&t, req, req->bucket, req->key, &o);
    }
    if (r == 0) {
        gsize n;
        const void *packed = g_bytes_get_data(o.tags, &n);
        req->res.tags = local_unpack_tags(packed, n);
    }
    return r;
}

int local_object_tags_put(struct local_index *ix, struct store_request *req)
{
    _cleanup_local_object_ struct local_object o = {0};
    _cleanup_txn_ struct local_txn t = {0};
    int64_t bucket;
    int r = local_check_tags(req, req->tags);
    if (r == 0) {
        r = local_txn_begin(ix, &t);
    }
    if (r == 0) {
        r = find(&t, req, req->bucket, req->key, &o);
    }
    if (r == 0) {
        r = local_bucket_find(&t, req, req->bucket, &bucket);
    }
    if (r < 0) {
        return r;
    }
    g_autoptr(GBytes) packed = local_pack_tags(req->tags);
    sqlite3_stmt *st = local_txn_stmt(&t, SQL_OBJECT_TAGS);
    sqlite3_bind_int64(st, 1, bucket);
    local_bind_key(st, 2, req->key);
    local_bind_bytes_of(st, 3, packed);
    r = local_txn_do(st);
    return r < 0 ? r : local_txn_commit(&t);
}

/* Unlike a GET's, the range of a part's copy lies wholly within the source. */
int local_object_view_source(struct local_index *ix, struct store_request *req,
                             struct local_view *ret)
{
    _cleanup_local_object_ struct local_object o = {0};
    _cleanup_txn_ struct local_txn t = {0};
    uint64_t off = 0, len = 0;
    int r = local_txn_begin(ix, &t);
    if (r < 0) {
        return r;
    }
    r = find_source(&t, req, &o);
    if (r == 0) {
        r = resolve_range(req, o.size, &off, &len);
    }
    if (r < 0) {
        return r;
    }
    if (req->range.set && req->range.len > len) {
        return local_fail(req, LOCAL_INVALID_RANGE);
    }
    if (len > STORE_PART_MAX) {
        return local_fail(req, LOCAL_TOO_LARGE);
    }
    return local_body_view(&t, o.body, off, len, ret);
}
