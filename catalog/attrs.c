/* SPDX-License-Identifier: Apache-2.0
 *
 * attrs: what a HEAD told about the newest known state of each object. A cache: writes gather in
 * memory and go to the database a few hundred at a time, or with the next other write, so that a
 * listing of a big directory costs no transaction per object.
 *
 * A state is known by ETag and date: other headers on the same bytes keep the ETag. A row whose date
 * cannot vouch for it (store_object.settled) has date 0 and answers nothing; it still tells a query
 * which version is the newest.
 *
 * Threads: any. Locks: pend_lock (leaf) for the two sets; the flushing set is filled and emptied
 * under writer.lock. Invariant: an entry is in `pending`, then in `flushing`, then in the database,
 * so a reader that asks in this order misses none.
 */
#include "base/clock.h"
#include "catalog/db.h"
#include <assert.h>
#include <errno.h>
#include <string.h>

#define PENDING_MAX 512

struct pending {
    const char *bucket, *key; /* a lookup's own, or owned where made by pending_make() */
    struct store_object object;
};

static guint pending_hash(gconstpointer p)
{
    const struct pending *e = p;
    return g_str_hash(e->bucket) * 31 + g_str_hash(e->key);
}

static gboolean pending_equal(gconstpointer a, gconstpointer b)
{
    const struct pending *x = a, *y = b;
    return strcmp(x->key, y->key) == 0 && strcmp(x->bucket, y->bucket) == 0;
}

static void pending_free(gpointer p)
{
    struct pending *e = p;
    g_free((char *)(uintptr_t)e->bucket);
    g_free((char *)(uintptr_t)e->key);
    store_object_clear(&e->object);
    g_free(e);
}

GHashTable *pending_new(void)
{
    return g_hash_table_new_full(pending_hash, pending_equal, pending_free, NULL);
}

/* HEAD gives whole seconds, LIST may give parts of them. 0 is no date. */
static bool same_date(int64_t a, int64_t b)
{
    const int64_t sec = (int64_t)NSEC_PER_SEC;
    if (a <= 0 || b <= 0)
        return false;
    return a == b || (a / sec == b / sec && (a % sec == 0 || b % sec == 0));
}

static int64_t row_date(const struct store_object *o)
{
    return o->settled ? o->mtime_ns : 0;
}

static bool pending_get(struct catalog *c, const char *bucket, const char *key, const char *etag,
                        int64_t mtime_ns, struct store_object *ret, bool *ret_other)
{
    const struct pending probe = {.bucket = bucket, .key = key};
    mutex_lock(&c->pend_lock);
    const struct pending *e = g_hash_table_lookup(c->pending, &probe);
    if (!e && c->flushing)
        e = g_hash_table_lookup(c->flushing, &probe);
    bool found = e && strcmp(e->object.etag, etag) == 0 && same_date(row_date(&e->object), mtime_ns);
    *ret_other = e && !found;
    if (found)
        store_object_copy(ret, &e->object);
    mutex_unlock(&c->pend_lock);
    return found;
}

/* ---- user metadata as a blob: name NUL value NUL … ---- */

static GByteArray *meta_pack(GHashTable *meta)
{
    GByteArray *out = g_byte_array_new();
    GHashTableIter it;
    gpointer k, v;
    g_hash_table_iter_init(&it, meta);
    while (g_hash_table_iter_next(&it, &k, &v)) {
        g_byte_array_append(out, k, (guint)strlen(k) + 1);
        g_byte_array_append(out, v, (guint)strlen(v) + 1);
    }
    return out;
}

static int meta_unpack(struct store_headers *h, const char *p, size_t n)
{
    const char *end = p + n;
    while (p < end) {
        const char *name = p;
        const char *value = memchr(name, 0, (size_t)(end - name));
        if (!value || ++value >= end)
            return -EUCLEAN;
        const char *stop = memchr(value, 0, (size_t)(end - value));
        if (!stop)
            return -EUCLEAN;
        store_headers_set_meta(h, name, value);
        p = stop + 1;
    }
    return 0;
}

/* ---- rows ---- */

static int attrs_write(struct catalog *c, const struct pending *e)
{
    int64_t file;
    int r = file_make(c, e->bucket, e->key, &file);
    if (r < 0)
        return r;
    sqlite3_stmt *st;
    r = write_stmt(c,
                   "INSERT OR REPLACE INTO attrs VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10,"
                   " ?11, ?12, ?13)",
                   &st);
    if (r < 0)
        return r;
    const struct store_object *o = &e->object;
    const struct store_headers *h = &o->headers;
    sqlite3_bind_int64(st, 1, file);
    bind_text(st, 2, o->etag);
    sqlite3_bind_int64(st, 3, (int64_t)o->size);
    sqlite3_bind_int64(st, 4, row_date(o));
    bind_text(st, 5, o->storage_class);
    bind_text(st, 6, o->version_id);
    bind_text(st, 7, h->content_type);
    bind_text(st, 8, h->cache_control);
    bind_text(st, 9, h->content_disposition);
    bind_text(st, 10, h->content_encoding);
    bind_text(st, 11, h->content_language);
    bind_text(st, 12, h->expires);
    GByteArray *meta = h->meta && g_hash_table_size(h->meta) > 0 ? meta_pack(h->meta) : NULL;
    if (meta)
        sqlite3_bind_blob(st, 13, meta->data, (int)meta->len, SQLITE_STATIC);
    r = write_done(c, st);
    if (meta)
        g_byte_array_unref(meta);
    return r;
}

int pending_write(struct catalog *c)
{
    mutex_assert_held(&c->writer.lock);
    mutex_lock(&c->pend_lock);
    assert(!c->flushing);
    if (g_hash_table_size(c->pending) == 0) {
        mutex_unlock(&c->pend_lock);
        return 0;
    }
    c->flushing = c->pending;
    c->pending = pending_new();
    mutex_unlock(&c->pend_lock);

    /* Only lookups happen to this set until pending_written(). */
    GHashTableIter it;
    gpointer e;
    g_hash_table_iter_init(&it, c->flushing);
    while (g_hash_table_iter_next(&it, &e, NULL)) {
        int r = attrs_write(c, e);
        if (r < 0)
            return r;
    }
    return 0;
}

void pending_written(struct catalog *c)
{
    mutex_assert_held(&c->writer.lock);
    mutex_lock(&c->pend_lock);
    GHashTable *old = g_steal_pointer(&c->flushing);
    mutex_unlock(&c->pend_lock);
    if (old)
        g_hash_table_destroy(old);
}

static char *column_dup(sqlite3_stmt *st, int i)
{
    return g_strdup((const char *)sqlite3_column_text(st, i));
}

static int attrs_from_row(sqlite3_stmt *st, struct store_object *ret)
{
    *ret = (struct store_object){
        .etag = column_dup(st, 0),
        .size = (uint64_t)sqlite3_column_int64(st, 1),
        .mtime_ns = sqlite3_column_int64(st, 2),
        .settled = true,
        .storage_class = column_dup(st, 3),
        .version_id = column_dup(st, 4),
        .headers = {.content_type = column_dup(st, 5),
                    .cache_control = column_dup(st, 6),
                    .content_disposition = column_dup(st, 7),
                    .content_encoding = column_dup(st, 8),
                    .content_language = column_dup(st, 9),
                    .expires = column_dup(st, 10)},
    };
    const char *meta = sqlite3_column_blob(st, 11);
    int r = meta ? meta_unpack(&ret->headers, meta, (size_t)sqlite3_column_bytes(st, 11)) : 0;
    if (r < 0)
        store_object_clear(ret);
    return r;
}

int catalog_attrs_get(struct catalog *c, const char *bucket, const char *key, const char *etag,
                      int64_t mtime_ns, struct store_object *ret)
{
    bool other;
    if (pending_get(c, bucket, key, etag, mtime_ns, ret, &other))
        return 0;
    if (other)
        return -ENOENT;

    sqlite3_stmt *st;
    int r = conn_acquire(c, &c->reader,
                         "SELECT a.etag, a.size, a.mtime_ns, a.storage_class, a.version_id,"
                         " a.content_type, a.cache_control, a.content_disposition,"
                         " a.content_encoding, a.content_language, a.expires, a.meta"
                         " FROM files f JOIN attrs a ON a.file = f.id"
                         " WHERE f.bucket = ?1 AND f.key = ?2 AND a.etag = ?3",
                         &st);
    if (r < 0)
        return r;
    bind_name(st, 1, bucket, key);
    bind_text(st, 3, etag);
    r = db_step(st);
    if (r == 0)
        r = -ENOENT;
    else if (r > 0)
        r = same_date(sqlite3_column_int64(st, 2), mtime_ns) ? attrs_from_row(st, ret) : -ENOENT;
    conn_release(&c->reader, st);
    return catalog_check(c, r);
}

int catalog_attrs_put(struct catalog *c, const char *bucket, const char *key,
                      const struct store_object *o)
{
    if (!o->etag)
        return -EINVAL;
    if (c->read_only)
        return -EROFS;
    struct pending *e = g_new0(struct pending, 1);
    e->bucket = g_strdup(bucket);
    e->key = g_strdup(key);
    store_object_copy(&e->object, o);
    e->object.untagged_ns = 0; /* tags change without a new version */

    mutex_lock(&c->pend_lock);
    g_hash_table_replace(c->pending, e, e);
    bool full = g_hash_table_size(c->pending) >= PENDING_MAX;
    mutex_unlock(&c->pend_lock);
    if (!full)
        return 0;
    int r = write_begin(c, false);
    return r < 0 ? r : write_end(c, 0);
}
