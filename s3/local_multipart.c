/* SPDX-License-Identifier: Apache-2.0
 *
 * local_multipart: uploads in parts. Any thread; each function is one transaction.
 *
 * A part has a body of its own, to which only the part refers. COMPLETE moves the bodies' segments
 * into the object's body in one transaction: before it the old object is there, after it the new
 * one, and no byte is copied.
 */
#include "s3/local.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "base/clock.h"

#define UPLOAD_ID_BYTES 16

static GBytes *column_bytes(sqlite3_stmt *st, int col)
{
    return g_bytes_new(sqlite3_column_blob(st, col), (gsize)sqlite3_column_bytes(st, col));
}

/* The upload must be this key's. What it was created with goes to o, unless that is NULL. */
static int find_upload(struct local_txn *t, struct store_request *req, int64_t bucket,
                       struct local_object *o)
{
    sqlite3_stmt *st = local_txn_stmt(t, SQL_UPLOAD_FIND);
    local_bind_text(st, 1, req->upload_id);
    sqlite3_bind_int64(st, 2, bucket);
    local_bind_key(st, 3, req->key);
    int r = db_step(st);
    if (r > 0 && o != NULL) {
        o->headers = column_bytes(st, 0);
        o->tags = column_bytes(st, 1);
        o->storage_class = g_strdup((const char *)sqlite3_column_text(st, 2));
    }
    sqlite3_reset(st);
    if (r == 0) {
        return local_fail(req, LOCAL_NO_SUCH_UPLOAD);
    }
    return r < 0 ? r : 0;
}

/* A transaction on an upload: the bucket's id, and that the upload is there. */
static int begin(struct local_index *ix, struct local_txn *t, struct store_request *req,
                 int64_t *ret_bucket)
{
    int r = local_txn_begin(ix, t);
    if (r == 0) {
        r = local_bucket_find(t, req, req->bucket, ret_bucket);
    }
    if (r == 0) {
        r = find_upload(t, req, *ret_bucket, NULL);
    }
    return r;
}

int local_mpu_create(struct local_index *ix, struct store_request *req, GBytes *headers)
{
    unsigned char id[UPLOAD_ID_BYTES];
    char hex[2 * UPLOAD_ID_BYTES + 1];
    if (getrandom(id, sizeof(id), 0) != sizeof(id)) {
        return -EIO;
    }
    local_hex(id, sizeof(id), hex);
    g_autoptr(GBytes) tags = NULL;
    g_autofree char *class = NULL;
    _cleanup_txn_ struct local_txn t = {0};
    int64_t bucket;
    int r = local_pack_kept(req, &tags, &class);
    if (r == 0) {
        r = local_txn_begin(ix, &t);
    }
    if (r == 0) {
        r = local_bucket_find(&t, req, req->bucket, &bucket);
    }
    if (r < 0) {
        return r;
    }
    sqlite3_stmt *st = local_txn_stmt(&t, SQL_UPLOAD_INSERT);
    local_bind_text(st, 1, hex);
    sqlite3_bind_int64(st, 2, bucket);
    local_bind_key(st, 3, req->key);
    sqlite3_bind_int64(st, 4, clock_real_ns());
    local_bind_bytes_of(st, 5, headers);
    local_bind_bytes_of(st, 6, tags);
    local_bind_text(st, 7, class);
    r = local_txn_do(st);
    if (r == 0) {
        r = local_txn_commit(&t);
    }
    if (r == 0) {
        req->res.upload_id = g_strdup(hex);
    }
    return r;
}

int local_mpu_part_check(struct local_index *ix, struct store_request *req)
{
    _cleanup_txn_ struct local_txn t = {0};
    int64_t bucket;
    return begin(ix, &t, req, &bucket);
}

struct part {
    char *etag;
    uint64_t size;
    int64_t body;
};

static void part_clear(struct part *p)
{
    g_free(p->etag);
}

/* 1, 0 when there is none, -errno. */
static int find_part(struct local_txn *t, const char *upload, unsigned number, struct part *ret)
{
    sqlite3_stmt *st = local_txn_stmt(t, SQL_PART_FIND);
    local_bind_text(st, 1, upload);
    sqlite3_bind_int64(st, 2, number);
    int r = db_step(st);
    if (r > 0) {
        *ret = (struct part){.etag = g_strdup((const char *)sqlite3_column_text(st, 0)),
                             .size = (uint64_t)sqlite3_column_int64(st, 1),
                             .body = sqlite3_column_int64(st, 2)};
    }
    sqlite3_reset(st);
    return r;
}

static int delete_part(struct local_txn *t, const char *upload, unsigned number)
{
    sqlite3_stmt *st = local_txn_stmt(t, SQL_PART_DELETE);
    local_bind_text(st, 1, upload);
    sqlite3_bind_int64(st, 2, number);
    return local_txn_do(st);
}

static int store_part(struct local_txn *t, struct store_request *req, const char *etag,
                      uint64_t size, int64_t body)
{
    __attribute__((cleanup(part_clear))) struct part old = {0};
    int found = find_part(t, req->upload_id, req->part_number, &old);
    if (found < 0) {
        return found;
    }
    sqlite3_stmt *st = local_txn_stmt(t, SQL_PART_STORE);
    local_bind_text(st, 1, req->upload_id);
    sqlite3_bind_int64(st, 2, req->part_number);
    local_bind_text(st, 3, etag);
    sqlite3_bind_int64(st, 4, (int64_t)size);
    sqlite3_bind_int64(st, 5, body);
    int r = local_txn_do(st);
    return r == 0 && found ? local_body_unref(t, old.body) : r;
}

/* The view's bytes as segments of another body: the blobs are shared. */
static int add_view(struct local_txn *t, int64_t body, const struct local_view *v)
{
    for (guint i = 0; i < v->segments->len; i++) {
        const struct local_segment *s = &g_array_index(v->segments, struct local_segment, i);
        uint64_t from = MAX(s->start, v->off), to = MIN(s->start + s->len, v->off + v->len);
        int r = local_body_add(t, body,
                               &(struct local_segment){.start = from - v->off,
                                                       .len = to - from,
                                                       .blob = s->blob,
                                                       .off = s->off + (from - s->start)});
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

int local_mpu_part(struct local_index *ix, struct store_request *req, const char *etag,
                   struct local_blob_writer *w, const struct local_view *view)
{
    _cleanup_txn_ struct local_txn t = {0};
    int64_t bucket, body;
    int r = begin(ix, &t, req, &bucket); /* again: it may have been aborted meanwhile */
    if (r == 0) {
        r = local_body_new(&t, &body);
    }
    if (r < 0) {
        return r;
    }
    uint64_t size = w != NULL ? w->size : view->len;
    if (w == NULL) {
        r = add_view(&t, body, view);
    } else if (size > 0) {
        r = local_body_add(&t, body, &(struct local_segment){.len = size, .blob = w->id});
    }
    if (r == 0) {
        r = store_part(&t, req, etag, size, body);
    }
    if (r == 0) {
        r = local_txn_commit(&t);
    }
    if (r == 0) {
        if (w != NULL) {
            w->kept = true;
        }
        req->res.object.etag = g_strdup(etag);
        req->res.object.size = size;
    }
    return r;
}

static int digest_part(EVP_MD_CTX *md, const char *etag)
{
    unsigned char bin[LOCAL_MD5_LEN];
    for (size_t i = 0; i < LOCAL_MD5_LEN; i++) {
        int hi = g_ascii_xdigit_value(etag[2 * i]);
        int lo = hi < 0 ? -1 : g_ascii_xdigit_value(etag[2 * i + 1]);
        if (lo < 0) {
            return -EUCLEAN;
        }
        bin[i] = (unsigned char)(hi << 4 | lo);
    }
    return EVP_DigestUpdate(md, bin, sizeof(bin)) == 1 ? 0 : -EIO;
}

/* Moves the named parts into the body, in order. */
static int join_parts(struct local_txn *t, struct store_request *req, EVP_MD_CTX *md, int64_t body,
                      uint64_t *ret_size)
{
    uint64_t size = 0;
    bool small = false;
    for (size_t i = 0; i < req->n_parts; i++) {
        const struct store_part *p = &req->parts[i];
        __attribute__((cleanup(part_clear))) struct part have = {0};
        int r = find_part(t, req->upload_id, p->number, &have);
        if (r < 0) {
            return r;
        }
        if (r == 0 || strcmp(p->etag, have.etag) != 0) {
            return local_fail(req, LOCAL_INVALID_PART);
        }
        small = small || (i + 1 < req->n_parts && have.size < STORE_PART_MIN);
        r = digest_part(md, have.etag);
        if (r == 0) {
            r = local_body_move(t, body, size, have.body);
        }
        if (r == 0) {
            r = delete_part(t, req->upload_id, p->number);
        }
        if (r < 0) {
            return r;
        }
        size += have.size;
    }
    if (small) {
        return local_fail(req, LOCAL_PART_TOO_SMALL);
    }
    *ret_size = size;
    return size > STORE_OBJECT_MAX ? local_fail(req, LOCAL_TOO_LARGE) : 0;
}

static int join(struct local_txn *t, struct store_request *req, struct local_object *o)
{
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    unsigned char bin[EVP_MAX_MD_SIZE];
    char hex[2 * LOCAL_MD5_LEN + 1];
    int r = md != NULL && EVP_DigestInit_ex(md, EVP_md5(), NULL) == 1 ? 0 : -ENOMEM;
    if (r == 0) {
        r = local_body_new(t, &o->body);
    }
    if (r == 0) {
        r = join_parts(t, req, md, o->body, &o->size);
    }
    if (r == 0) {
        r = EVP_DigestFinal_ex(md, bin, NULL) == 1 ? 0 : -EIO;
    }
    if (r == 0) {
        local_hex(bin, LOCAL_MD5_LEN, hex);
        o->etag = g_strdup_printf("%s-%zu", hex, req->n_parts);
    }
    EVP_MD_CTX_free(md);
    return r;
}

int local_mpu_complete(struct local_index *ix, struct store_request *req)
{
    _cleanup_local_object_ struct local_object o = {0};
    _cleanup_txn_ struct local_txn t = {0};
    int64_t bucket;
    int r = begin(ix, &t, req, &bucket);
    if (r == 0) {
        r = find_upload(&t, req, bucket, &o);
    }
    if (r == 0) {
        r = local_object_check(&t, req, bucket);
    }
    if (r == 0) {
        r = join(&t, req, &o);
    }
    if (r == 0) {
        r = local_mpu_drop(&t, req->upload_id); /* parts that were uploaded and not named */
    }
    if (r < 0) {
        return r;
    }
    o.mtime_ns = clock_real_ns();
    r = local_object_store(&t, bucket, req->key, &o);
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

int local_mpu_drop(struct local_txn *t, const char *upload_id)
{
    g_autoptr(GArray) bodies = g_array_new(FALSE, FALSE, sizeof(int64_t));
    sqlite3_stmt *st = local_txn_stmt(t, SQL_PART_ALL);
    local_bind_text(st, 1, upload_id);
    int r;
    while ((r = db_step(st)) > 0) {
        int64_t body = sqlite3_column_int64(st, 3);
        g_array_append_val(bodies, body);
    }
    for (guint i = 0; r == 0 && i < bodies->len; i++) {
        r = local_body_unref(t, g_array_index(bodies, int64_t, i));
    }
    static const enum local_sql deletes[] = {SQL_PART_DELETE_ALL, SQL_UPLOAD_DELETE};
    for (size_t i = 0; r == 0 && i < G_N_ELEMENTS(deletes); i++) {
        st = local_txn_stmt(t, deletes[i]);
        local_bind_text(st, 1, upload_id);
        r = local_txn_do(st);
    }
    return r;
}

int local_mpu_drop_all(struct local_txn *t, int64_t bucket)
{
    g_autoptr(GPtrArray) ids = g_ptr_array_new_with_free_func(g_free);
    sqlite3_stmt *st = local_txn_stmt(t, SQL_UPLOAD_OF_BUCKET);
    sqlite3_bind_int64(st, 1, bucket);
    int r;
    while ((r = db_step(st)) > 0) {
        g_ptr_array_add(ids, g_strdup((const char *)sqlite3_column_text(st, 0)));
    }
    for (guint i = 0; r == 0 && i < ids->len; i++) {
        r = local_mpu_drop(t, ids->pdata[i]);
    }
    return r;
}

int local_mpu_abort(struct local_index *ix, struct store_request *req)
{
    _cleanup_txn_ struct local_txn t = {0};
    int64_t bucket;
    int r = begin(ix, &t, req, &bucket);
    if (r == -ENOENT && strcmp(req->res.code, "NoSuchUpload") == 0) {
        store_result_clear(&req->res);
        return 0; /* gone, as asked */
    }
    if (r == 0) {
        r = local_mpu_drop(&t, req->upload_id);
    }
    return r < 0 ? r : local_txn_commit(&t);
}

int local_mpu_list_parts(struct local_index *ix, struct store_request *req)
{
    _cleanup_txn_ struct local_txn t = {0};
    int64_t bucket;
    int r = begin(ix, &t, req, &bucket);
    if (r < 0) {
        return r;
    }
    g_autoptr(GPtrArray) parts = g_ptr_array_new_with_free_func((GDestroyNotify)store_part_free);
    sqlite3_stmt *st = local_txn_stmt(&t, SQL_PART_ALL);
    local_bind_text(st, 1, req->upload_id);
    while ((r = db_step(st)) > 0) {
        g_ptr_array_add(parts, store_part_new((unsigned)sqlite3_column_int64(st, 0),
                                              (uint64_t)sqlite3_column_int64(st, 1),
                                              (const char *)sqlite3_column_text(st, 2)));
    }
    if (r == 0) {
        req->res.parts = g_steal_pointer(&parts);
    }
    return r;
}
