/* SPDX-License-Identifier: Apache-2.0
 *
 * test_extents: the interval map against a model that has an entry per byte.
 */
#include <glib.h>
#include <string.h>

#include "cache/extents.h"
#include "tests/lib/seed.h"

#define MODEL 4096

struct model {
    enum extent_kind kind[MODEL];
    uint64_t src[MODEL];
    uint64_t size;
    uint64_t dropped; /* STAGED bytes displaced, as the map told */
    GHashTable *live; /* staging offsets in use */
};

static void on_dropped(void *ctx, uint64_t src, uint64_t n)
{
    struct model *m = ctx;
    m->dropped += n;
    for (uint64_t i = src; i < src + n; i++)
        g_assert_true(g_hash_table_remove(m->live, GSIZE_TO_POINTER(i + 1)));
}

static void check(const struct extents *e, const struct model *m)
{
    extents_check(e);
    g_assert_cmpuint(extents_size(e), ==, m->size);
    struct extent x;
    uint64_t at = 0;
    for (; extents_next(e, at, &x); at = x.off + x.len) {
        g_assert_cmpuint(x.off, ==, at);
        for (uint64_t i = x.off; i < x.off + x.len; i++) {
            g_assert_cmpint(x.kind, ==, m->kind[i]);
            if (x.kind == EXTENT_STAGED)
                g_assert_cmpuint(x.src + (i - x.off), ==, m->src[i]);
        }
    }
    g_assert_cmpuint(at, ==, m->size);
}

static void model_set(struct model *m, uint64_t off, uint64_t len, enum extent_kind kind,
                      uint64_t src)
{
    for (uint64_t i = m->size; i < off; i++)
        m->kind[i] = EXTENT_ZERO;
    for (uint64_t i = 0; i < len; i++) {
        m->kind[off + i] = kind;
        m->src[off + i] = src + i;
    }
    m->size = MAX(m->size, off + len);
}

static void check_slice(const struct extents *e, const struct model *m, GRand *rand)
{
    uint64_t off = (uint64_t)g_rand_int_range(rand, 0, MODEL);
    uint64_t len = (uint64_t)g_rand_int_range(rand, 1, MODEL);
    _cleanup_extents_ struct extents *s = extents_slice(e, off, len);
    extents_check(s);
    uint64_t end = MIN(off + len, m->size), counts[EXTENT_PUNCHED + 1] = {0};
    g_assert_cmpuint(extents_size(s), ==, off < end ? end : 0);
    struct extent x, y;
    for (uint64_t i = off; i < end; i++) {
        g_assert_true(extents_next(s, i, &x) && extents_next(e, i, &y));
        g_assert_true(x.off == i && x.kind == y.kind && x.src == y.src);
        counts[m->kind[i]]++;
    }
    for (unsigned k = 0; k < G_N_ELEMENTS(counts); k++) {
        g_assert_cmpuint(extents_bytes(e, off, len, (enum extent_kind)k), ==, counts[k]);
        g_assert_cmpint(extents_has(e, off, len, (enum extent_kind)k), ==, counts[k] > 0);
    }
}

static void test_model(void)
{
    GRand *rand = g_rand_new_with_seed((guint32)test_seed());
    for (int round = 0; round < 30; round++) {
        g_autofree struct model *m = g_new0(struct model, 1);
        m->live = g_hash_table_new(NULL, NULL);
        struct extents *e = extents_new();
        extents_on_dropped(e, on_dropped, m);
        uint64_t staged = 0;
        for (int step = 0; step < 400; step++) {
            uint64_t off = (uint64_t)g_rand_int_range(rand, 0, MODEL - 1);
            uint64_t len = (uint64_t)g_rand_int_range(rand, 1, 200);
            len = MIN(len, MODEL - off);
            int op = g_rand_int_range(rand, 0, 12);
            if (op == 0) {
                extents_truncate(e, off);
                for (uint64_t i = m->size; i < off; i++)
                    m->kind[i] = EXTENT_ZERO;
                m->size = off;
            } else {
                enum extent_kind kind = op < 8 ? EXTENT_STAGED
                                        : op < 10 ? EXTENT_BASE
                                                  : EXTENT_PUNCHED;
                if (op == 2) /* in order */
                    off = MIN(m->size, MODEL - len);
                for (uint64_t i = 0; kind == EXTENT_STAGED && i < len; i++)
                    g_hash_table_add(m->live, GSIZE_TO_POINTER(staged + i + 1));
                extents_set(e, off, len, kind, staged);
                model_set(m, off, len, kind, staged);
                if (kind == EXTENT_STAGED)
                    staged += len;
            }
            check(e, m);
        }
        check_slice(e, m, rand);
        g_assert_cmpuint(extents_bytes(e, 0, UINT64_MAX, EXTENT_STAGED) + m->dropped, ==, staged);
        g_hash_table_unref(m->live);
        extents_free(e);
    }
    g_rand_free(rand);
}

static void test_sequential(void)
{
    _cleanup_extents_ struct extents *e = extents_new();
    const uint64_t step = 128 << 10, n = (10ULL << 30) / step;
    for (uint64_t i = 0; i < n; i++)
        extents_set(e, i * step, step, EXTENT_STAGED, i * step);
    g_assert_cmpuint(extents_count(e), ==, 1);
    g_assert_cmpuint(extents_size(e), ==, 10ULL << 30);
    extents_set(e, 4096, 10, EXTENT_STAGED, n * step);
    g_assert_cmpuint(extents_count(e), ==, 3);
    extents_truncate(e, 1ULL << 40);
    g_assert_cmpuint(extents_count(e), ==, 4);
    extents_truncate(e, 0);
    g_assert_cmpuint(extents_count(e), ==, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/extents/model", test_model);
    g_test_add_func("/extents/sequential", test_sequential);
    return g_test_run();
}
