/* SPDX-License-Identifier: Apache-2.0
 *
 * file_headers: the headers of a file's next commit: those that were set, those that it takes where it costs nothing, and those
 * that somebody else gave to the base. Threads: any; under the file's lock.
 */
#include <string.h>

#include "cache/file.h"
#include "cache/stream.h"

static guint meta_count(const struct store_headers *h)
{
    if (!h->meta)
        return 0;
    return g_hash_table_size(h->meta) - (g_hash_table_contains(h->meta, COMMIT_META) ? 1 : 0);
}

static bool meta_equal(const struct store_headers *a, const struct store_headers *b)
{
    if (meta_count(a) != meta_count(b))
        return false;
    if (meta_count(a) == 0)
        return true;
    GHashTableIter it;
    gpointer name, value;
    g_hash_table_iter_init(&it, a->meta);
    while (g_hash_table_iter_next(&it, &name, &value)) {
        if (strcmp(name, COMMIT_META) == 0)
            continue;
        if (g_strcmp0(value, store_headers_get_meta(b, name)) != 0)
            return false;
    }
    return true;
}

bool headers_equal(const struct store_headers *a, const struct store_headers *b)
{
    return g_strcmp0(a->content_type, b->content_type) == 0 &&
           g_strcmp0(a->cache_control, b->cache_control) == 0 &&
           g_strcmp0(a->content_disposition, b->content_disposition) == 0 &&
           g_strcmp0(a->content_encoding, b->content_encoding) == 0 &&
           g_strcmp0(a->content_language, b->content_language) == 0 &&
           g_strcmp0(a->expires, b->expires) == 0 && meta_equal(a, b);
}

void cache_file_set_headers(struct cache_file *f, const struct store_headers *h)
{
    struct store_headers old;
    mutex_lock(&f->lock);
    old = f->headers;
    store_headers_copy(&f->headers, h);
    f->headers_dirty = !f->base || !headers_equal(&f->headers, &f->base->object.headers);
    if (f->recorded && !file_dirty_locked(f)) /* taken back: a crash would bring what is recorded */
        f->headers_dirty = true;
    f->headers_gen = ++f->gen;
    file_count_locked(f);
    mutex_unlock(&f->lock);
    store_headers_clear(&old);
}

bool cache_file_renew_headers(struct cache_file *f, const struct store_object *now)
{
    struct store_headers old = {0};
    struct file_base *old_base = NULL;
    mutex_lock(&f->lock);
    if (f->base && !f->publishing && now->etag && f->base->object.size == now->size &&
        g_strcmp0(f->base->object.etag, now->etag) == 0 &&
        !headers_equal(&f->base->object.headers, &now->headers)) {
        old_base = f->base;
        f->base = file_base_new(old_base->bucket, old_base->key, now);
        g_clear_pointer(&f->recorded_uuid, g_free);
        if (!f->headers_dirty) {
            old = f->headers;
            store_headers_copy(&f->headers, &now->headers);
        }
    }
    mutex_unlock(&f->lock);
    bool others = old_base != NULL;
    file_base_unref(old_base);
    store_headers_clear(&old);
    return others;
}

void cache_file_suggest_headers(struct cache_file *f, const struct store_headers *h)
{
    struct store_headers old = {0};
    mutex_lock(&f->lock);
    /* Different headers mean that a commit will bring new ones in any case. */
    if (!f->stream || !headers_equal(&f->headers, stream_headers(f->stream))) {
        if (!headers_equal(&f->headers, h))
            g_clear_pointer(&f->recorded_uuid, g_free);
        old = f->headers;
        store_headers_copy(&f->headers, h);
    }
    mutex_unlock(&f->lock);
    store_headers_clear(&old);
}

/* ---- where it goes ---- */
