/* SPDX-License-Identifier: Apache-2.0
 *
 * local_list: LIST and MPU_LIST. Any thread; each is one transaction, so a page is one moment.
 *
 * A listing is a walk from a lower bound, a byte string: the first key that is not below it counts.
 * What shares a common prefix is stepped over by moving the bound, not by reading it. An entry
 * is returned only when its own text is greater than start_after. A token is the base64 of the
 * bound at which the next page starts.
 */
#include <string.h>

#include "s3/local.h"

/* a − b in byte order. */
static int compare(const void *a, size_t na, const void *b, size_t nb)
{
    int r = memcmp(a, b, MIN(na, nb));
    return r != 0 ? r : (na > nb) - (na < nb);
}

static void bound_set(GByteArray *bound, const void *p, size_t n)
{
    g_byte_array_set_size(bound, 0);
    g_byte_array_append(bound, p, (guint)n);
}

/* The least string above all that begin with p; false when there is none. */
static bool bound_past(GByteArray *bound, const char *p, size_t n)
{
    bound_set(bound, p, n);
    while (bound->len > 0 && bound->data[bound->len - 1] == 0xff) {
        g_byte_array_set_size(bound, bound->len - 1);
    }
    if (bound->len == 0) {
        return false;
    }
    bound->data[bound->len - 1]++;
    return true;
}

/* How long the common prefix is in which key lies, delimiter included; 0 = in none. */
static size_t common_prefix(const char *key, size_t n_prefix, const char *delimiter)
{
    if (delimiter == NULL) {
        return 0;
    }
    const char *d = strstr(key + n_prefix, delimiter);
    return d == NULL ? 0 : (size_t)(d - key) + strlen(delimiter);
}

/* Where the first page begins. False: nothing can follow. */
static bool bound_start(GByteArray *bound, const struct store_request *req, const char *prefix)
{
    const char *after = req->start_after;
    size_t n = strlen(prefix);
    bound_set(bound, prefix, n);
    if (after == NULL || compare(after, strlen(after), prefix, n) < 0) {
        return true;
    }
    if (!g_str_has_prefix(after, prefix)) {
        return false;
    }
    size_t common = common_prefix(after, n, req->delimiter);
    if (common > 0) {
        return bound_past(bound, after, common); /* the entry's text is not greater than after */
    }
    bound_set(bound, after, strlen(after) + 1); /* the NUL: the least string above it */
    return true;
}

static int bound_from_token(GByteArray *bound, struct store_request *req)
{
    g_autofree char *token = g_strdup(req->token);
    gsize n = 0;
    g_autofree guchar *p = NULL;
    if (strspn(token, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=") ==
        strlen(token)) {
        p = g_base64_decode(token, &n);
    }
    if (n == 0 || n > STORE_KEY_MAX + 1) {
        return local_fail(req, LOCAL_INVALID_ARGUMENT);
    }
    bound_set(bound, p, n);
    return 0;
}

static sqlite3_stmt *walk_from(struct local_txn *t, enum local_sql which, int64_t bucket,
                               GByteArray *bound)
{
    sqlite3_stmt *st = local_txn_stmt(t, which);
    sqlite3_bind_int64(st, 1, bucket);
    local_bind_bytes(st, 2, bound->data, bound->len);
    return st;
}

static struct store_entry *entry_from(sqlite3_stmt *st, const char *key)
{
    struct store_entry *e = store_entry_new(key);
    e->etag = g_strdup((const char *)sqlite3_column_text(st, 1));
    e->size = (uint64_t)sqlite3_column_int64(st, 2);
    e->mtime_ns = sqlite3_column_int64(st, 3);
    e->storage_class = g_strdup((const char *)sqlite3_column_text(st, 4));
    return e;
}

/* Fills entries with one page; the token tells where the next one starts. */
static int list_page(struct local_txn *t, struct store_request *req, int64_t bucket,
                     const char *prefix, GByteArray *bound, GPtrArray *entries)
{
    size_t n_prefix = strlen(prefix);
    unsigned max = req->max_keys == 0 ? STORE_LIST_MAX : req->max_keys;
    sqlite3_stmt *st = walk_from(t, SQL_OBJECT_LIST, bucket, bound);
    int r;
    while ((r = db_step(st)) > 0) {
        g_autofree char *key = local_column_key(st, 0);
        if (!g_str_has_prefix(key, prefix)) {
            return 0;
        }
        size_t common = common_prefix(key, n_prefix, req->delimiter);
        if (entries->len == max) {
            req->res.token =
                g_base64_encode((const guchar *)key, common > 0 ? common : strlen(key));
            return 0;
        }
        if (common == 0) {
            g_ptr_array_add(entries, entry_from(st, key));
            continue;
        }
        g_autofree char *text = g_strndup(key, common);
        struct store_entry *e = store_entry_new(text);
        e->is_prefix = true;
        g_ptr_array_add(entries, e);
        if (!bound_past(bound, text, common)) {
            return 0;
        }
        st = walk_from(t, SQL_OBJECT_LIST, bucket, bound);
    }
    return r;
}

int local_list_objects(struct local_index *ix, struct store_request *req)
{
    const char *prefix = req->prefix != NULL ? req->prefix : "";
    g_autoptr(GPtrArray) entries = g_ptr_array_new_with_free_func((GDestroyNotify)store_entry_free);
    g_autoptr(GByteArray) bound = g_byte_array_new();
    _cleanup_txn_ struct local_txn t = {0};
    int64_t bucket;
    int r = local_txn_begin(ix, &t);
    if (r == 0) {
        r = local_bucket_find(&t, req, req->bucket, &bucket);
    }
    bool more = true;
    if (r == 0 && req->token != NULL) {
        r = bound_from_token(bound, req);
    } else if (r == 0) {
        more = bound_start(bound, req, prefix);
    }
    if (r == 0 && more) {
        r = list_page(&t, req, bucket, prefix, bound, entries);
    }
    if (r == 0) {
        req->res.entries = g_steal_pointer(&entries);
    }
    return r;
}

int local_list_uploads(struct local_index *ix, struct store_request *req)
{
    const char *prefix = req->prefix != NULL ? req->prefix : "";
    g_autoptr(GPtrArray) entries = g_ptr_array_new_with_free_func((GDestroyNotify)store_entry_free);
    g_autoptr(GByteArray) bound = g_byte_array_new();
    _cleanup_txn_ struct local_txn t = {0};
    int64_t bucket;
    int r = local_txn_begin(ix, &t);
    if (r == 0) {
        r = local_bucket_find(&t, req, req->bucket, &bucket);
    }
    if (r < 0) {
        return r;
    }
    bound_set(bound, prefix, strlen(prefix));
    sqlite3_stmt *st = walk_from(&t, SQL_UPLOAD_LIST, bucket, bound);
    while ((r = db_step(st)) > 0) {
        g_autofree char *key = local_column_key(st, 0);
        if (!g_str_has_prefix(key, prefix)) {
            break;
        }
        struct store_entry *e = store_entry_new(key);
        e->upload_id = g_strdup((const char *)sqlite3_column_text(st, 1));
        e->mtime_ns = sqlite3_column_int64(st, 2);
        g_ptr_array_add(entries, e);
    }
    if (r < 0) {
        return r;
    }
    req->res.entries = g_steal_pointer(&entries);
    req->res.clock_known = true;
    return 0;
}
