/* SPDX-License-Identifier: Apache-2.0
 *
 * journal_pack: see journal_pack.h. Strings are byte strings: keys need not be UTF-8. No locks, no
 * threads of its own.
 */
#include "cache/journal_pack.h"

#include <assert.h>
#include <errno.h>

#include "cache/extents.h"
#include "cache/sums.h"

/* content type, cache control, disposition, encoding, language, expires; user metadata */
#define HEADERS "(maymaymaymaymaymaya(ayay))"
#define EXTENT "(ttt)"                /* length, kind, source */
#define MAP "a" EXTENT
#define SUM "(ttuu)"                  /* offset, place, CRC32C, length */
#define BASE "(ayaymaytxmay" HEADERS ")" /* bucket, key, ETag, size, mtime, storage class, headers */

static GBytes *bytes_of(GVariant *v)
{
    g_autoptr(GVariant) owned = g_variant_ref_sink(v);
    return g_variant_get_data_as_bytes(owned);
}

static GVariant *variant_of(const char *type, const void *data, size_t n)
{
    g_autoptr(GBytes) bytes = g_bytes_new(data, n);
    g_autoptr(GVariant) v = g_variant_ref_sink(
        g_variant_new_from_bytes(G_VARIANT_TYPE(type), bytes, FALSE));
    return g_variant_is_normal_form(v) ? g_steal_pointer(&v) : NULL;
}

static GVariant *headers_variant(const struct store_headers *h)
{
    GVariantBuilder meta;
    g_variant_builder_init(&meta, G_VARIANT_TYPE("a(ayay)"));
    if (h->meta) {
        GHashTableIter it;
        gpointer name, value;
        g_hash_table_iter_init(&it, h->meta);
        while (g_hash_table_iter_next(&it, &name, &value))
            g_variant_builder_add(&meta, "(^ay^ay)", name, value);
    }
    return g_variant_new("(m^aym^aym^aym^aym^aym^aya(ayay))", h->content_type, h->cache_control,
                         h->content_disposition, h->content_encoding, h->content_language,
                         h->expires, &meta);
}

static void headers_from(GVariant *v, struct store_headers *ret)
{
    GVariantIter *meta;
    const char *name, *value;
    *ret = (struct store_headers){0};
    g_variant_get(v, "(m^aym^aym^aym^aym^aym^aya(ayay))", &ret->content_type, &ret->cache_control,
                  &ret->content_disposition, &ret->content_encoding, &ret->content_language,
                  &ret->expires, &meta);
    while (g_variant_iter_next(meta, "(^&ay^&ay)", &name, &value))
        store_headers_set_meta(ret, name, value);
    g_variant_iter_free(meta);
}

GBytes *journal_pack_headers(const struct store_headers *h)
{
    return bytes_of(headers_variant(h));
}

int journal_unpack_headers(const void *data, size_t n, struct store_headers *ret)
{
    g_autoptr(GVariant) v = variant_of(HEADERS, data, n);
    *ret = (struct store_headers){0};
    if (!v)
        return -EUCLEAN;
    headers_from(v, ret);
    return 0;
}

struct packed_extent {
    guint64 len, kind, src;
};
static_assert(sizeof(struct packed_extent) == 24, "as the GVariant has it");

GBytes *journal_pack_map(const struct extents *e)
{
    g_autoptr(GArray) packed = g_array_sized_new(FALSE, FALSE, sizeof(struct packed_extent), (guint)extents_count(e));
    struct extent x;
    for (uint64_t off = 0; extents_next(e, off, &x); off = x.off + x.len) {
        struct packed_extent one = {x.len, x.kind, x.src};
        g_array_append_val(packed, one);
    }
    return bytes_of(g_variant_new_fixed_array(G_VARIANT_TYPE(EXTENT), packed->data, packed->len, sizeof(struct packed_extent)));
}

int journal_unpack_map(const void *data, size_t n, struct extents **ret)
{
    g_autoptr(GVariant) v = variant_of(MAP, data, n);
    *ret = NULL;
    if (!v)
        return -EUCLEAN;
    _cleanup_extents_ struct extents *e = extents_new();
    GVariantIter it;
    guint64 len, kind, src, off = 0;
    g_variant_iter_init(&it, v);
    while (g_variant_iter_next(&it, "(ttt)", &len, &kind, &src)) {
        bool known = kind == EXTENT_ZERO || kind == EXTENT_BASE || kind == EXTENT_STAGED ||
                     kind == EXTENT_PUNCHED;
        if (!known || len == 0 || len > STORE_OBJECT_MAX - off || src > INT64_MAX - len)
            return -EUCLEAN;
        extents_set(e, off, len, (enum extent_kind)kind, src);
        off += len;
    }
    *ret = g_steal_pointer(&e);
    return 0;
}

struct packed_sum {
    guint64 off, at;
    guint32 crc, len;
};
static_assert(sizeof(struct packed_sum) == 24, "as the GVariant has it");

GBytes *journal_pack_sums(const GArray *sums)
{
    g_autofree struct packed_sum *packed = g_new0(struct packed_sum, sums->len);
    for (guint i = 0; i < sums->len; i++) {
        const struct sum *x = &g_array_index(sums, struct sum, i);
        packed[i] = (struct packed_sum){x->off, x->at, x->crc, x->len};
    }
    return bytes_of(g_variant_new_fixed_array(G_VARIANT_TYPE(SUM), packed, sums->len,
                                              sizeof(struct packed_sum)));
}

static gint by_offset(gconstpointer a, gconstpointer b)
{
    const struct sum *x = a, *y = b;
    return x->off < y->off ? -1 : x->off > y->off;
}

static bool sums_sane(const GArray *sums)
{
    uint64_t end = 0;
    for (guint i = 0; i < sums->len; i++) {
        const struct sum *x = &g_array_index(sums, struct sum, i);
        if (x->off < end || x->len == 0 || x->off % SUMS_BLOCK + x->len > SUMS_BLOCK)
            return false;
        end = x->off + x->len;
    }
    return true;
}

int journal_unpack_sums(const void *data, size_t n, GArray **ret)
{
    g_autoptr(GVariant) v = variant_of("a" SUM, data, n);
    *ret = NULL;
    if (!v)
        return -EUCLEAN;
    gsize count;
    const struct packed_sum *packed = g_variant_get_fixed_array(v, &count, sizeof(struct packed_sum));
    g_autoptr(GArray) sums = g_array_sized_new(FALSE, FALSE, sizeof(struct sum), (guint)count);
    for (gsize i = 0; i < count; i++) {
        struct sum x = {.off = packed[i].off, .at = packed[i].at, .crc = packed[i].crc};
        x.len = packed[i].len & INT32_MAX;
        if (packed[i].len > SUMS_BLOCK || x.off > INT64_MAX - SUMS_BLOCK)
            return -EUCLEAN;
        g_array_append_val(sums, x);
    }
    g_array_sort(sums, by_offset);
    if (!sums_sane(sums))
        return -EUCLEAN;
    *ret = g_steal_pointer(&sums);
    return 0;
}

GBytes *journal_pack_base(const struct journal_seal *s)
{
    return bytes_of(g_variant_new("(^ay^aym^aytxm^ay@" HEADERS ")", s->base_bucket, s->base_key,
                                  s->base.etag, (guint64)s->base.size, (gint64)s->base.mtime_ns,
                                  s->base.storage_class, headers_variant(&s->base.headers)));
}

int journal_unpack_base(const void *data, size_t n, struct journal_seal *s)
{
    g_autoptr(GVariant) v = variant_of(BASE, data, n);
    if (!v)
        return -EUCLEAN;
    g_autoptr(GVariant) headers = NULL;
    guint64 size;
    gint64 mtime;
    g_variant_get(v, "(^ay^aym^aytxm^ay@" HEADERS ")", &s->base_bucket, &s->base_key, &s->base.etag,
                  &size, &mtime, &s->base.storage_class, &headers);
    s->base.size = size;
    s->base.mtime_ns = mtime;
    headers_from(headers, &s->base.headers);
    s->has_base = true;
    return 0;
}
