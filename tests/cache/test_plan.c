/* SPDX-License-Identifier: Apache-2.0
 *
 * test_plan: every plan for every small file, and random ones, against the rules that S3 sets.
 */
#include <errno.h>
#include <glib.h>
#include <string.h>

#include "cache/extents.h"
#include "cache/plan.h"
#include "tests/lib/seed.h"

static const struct plan_limits tiny = {.holes_max = UINT64_MAX,
    .part_size = 5,
    .part_min = 3,
    .part_max = 40,
    .copy_max = 9,
    .fetch_max = 6,
    .parts_max = 1000,
};

static void check_part(const struct plan_input *in, const struct plan_limits *l,
                       const struct plan_part *p, bool last)
{
    g_assert_cmpuint(p->len, >, 0);
    if (!last)
        g_assert_cmpuint(p->len, >=, l->part_min);
    uint64_t base = extents_bytes(in->map, p->off, p->len, EXTENT_BASE);
    switch (p->how) {
    case PLAN_KEEP:
        g_assert_cmpuint(p->number, <=, in->n_done);
        g_assert_false(in->done[p->number - 1].stale);
        g_assert_cmpuint(in->done[p->number - 1].off, ==, p->off);
        g_assert_cmpuint(in->done[p->number - 1].len, ==, p->len);
        break;
    case PLAN_UPLOAD:
        g_assert_cmpuint(p->len, <=, l->part_max);
        if (p->number > in->n_done && p->number < l->parts_max)
            g_assert_cmpuint(p->len, <=, MAX(plan_part_size(l, p->number), l->part_min));
        g_assert_cmpuint(base, <=, l->fetch_max);
        break;
    case PLAN_COPY_PART:
        g_assert_true(in->copy_part);
        g_assert_cmpuint(base, ==, p->len);
        g_assert_cmpuint(p->len, <=, l->copy_max);
        break;
    }
}

static void check_parts(const struct plan_input *in, const struct plan_limits *l,
                        const struct plan *plan)
{
    uint64_t at = 0, size = extents_size(in->map);
    g_assert_cmpuint(plan->parts->len, >, 0);
    g_assert_cmpuint(plan->parts->len, <=, l->parts_max);
    for (guint i = 0; i < plan->parts->len; i++) {
        const struct plan_part *p = &g_array_index(plan->parts, struct plan_part, i);
        g_assert_cmpuint(p->number, ==, i + 1);
        g_assert_cmpuint(p->off, ==, at);
        check_part(in, l, p, i + 1 == plan->parts->len);
        at += p->len;
    }
    g_assert_cmpuint(at, ==, size);
}

static enum plan_kind check_plan(const struct plan_input *in, const struct plan_limits *l)
{
    _cleanup_plan_ struct plan plan;
    g_assert_cmpint(plan_make(in, l, &plan), ==, 0);
    uint64_t size = extents_size(in->map);
    if (plan.kind == PLAN_MULTIPART)
        check_parts(in, l, &plan);
    if (plan.kind == PLAN_PUT)
        g_assert_cmpuint(size, <=, l->part_size);
    if (plan.kind == PLAN_NOTHING)
        g_assert_false(in->data_dirty || in->headers_dirty || in->moved || !in->has_base);
    if (plan.kind == PLAN_COPY)
        g_assert_true(!in->data_dirty && in->has_base && in->base_size <= l->copy_max);
    return plan.kind;
}

/* Every file of up to ten bytes of three kinds, with and without copies. */
static void test_every_map(void)
{
    for (unsigned n = 0; n <= 10; n++) {
        unsigned total = 1;
        for (unsigned i = 0; i < n; i++)
            total *= 3;
        for (unsigned code = 0; code < total; code++) {
            _cleanup_extents_ struct extents *map = extents_new();
            const enum extent_kind kinds[] = {EXTENT_STAGED, EXTENT_BASE, EXTENT_ZERO};
            for (unsigned i = 0, rest = code; i < n; i++, rest /= 3)
                extents_set(map, i, 1, kinds[rest % 3], 100 + i);
            struct plan_input in = {
                .map = map, .has_base = true, .base_size = 50, .data_dirty = true};
            for (int copy = 0; copy < 2; copy++) {
                in.copy_part = copy;
                check_plan(&in, &tiny);
            }
        }
    }
}

static struct extents *random_map(GRand *rand, uint64_t size, bool base)
{
    struct extents *map = extents_new();
    if (base)
        extents_set(map, 0, size, EXTENT_BASE, 0);
    else
        extents_set(map, 0, size, EXTENT_STAGED, 1 << 20);
    for (int i = g_rand_int_range(rand, 0, 12); i > 0; i--) {
        uint64_t off = (uint64_t)g_rand_int_range(rand, 0, (gint32)size);
        uint64_t len = (uint64_t)g_rand_int_range(rand, 1, 14);
        bool hole = g_rand_int_range(rand, 0, 4) == 0;
        extents_set(map, off, MIN(len, size - off), hole ? EXTENT_ZERO : EXTENT_STAGED,
                    (uint64_t)g_rand_int_range(rand, 0, 1 << 20));
    }
    return map;
}

static size_t random_done(GRand *rand, const struct plan_limits *l, struct plan_done *done,
                          size_t max)
{
    size_t n = (size_t)g_rand_int_range(rand, 0, (gint32)max + 1);
    uint64_t at = 0;
    for (size_t i = 0; i < n; i++) {
        done[i] = (struct plan_done){
            .off = at,
            .len = (uint64_t)g_rand_int_range(rand, (gint32)l->part_min, (gint32)l->part_size + 1),
            .stale = g_rand_int_range(rand, 0, 3) == 0};
        at += done[i].len;
    }
    return n;
}

static void test_random_maps(void)
{
    GRand *rand = g_rand_new_with_seed((guint32)test_seed());
    for (int round = 0; round < 20000; round++) {
        struct plan_done done[6];
        bool base = g_rand_boolean(rand);
        uint64_t size = (uint64_t)g_rand_int_range(rand, 1, 200);
        _cleanup_extents_ struct extents *map = random_map(rand, size, base);
        struct plan_input in = {
            .map = map,
            .has_base = base,
            .base_size = size,
            .data_dirty = true,
            .copy_part = g_rand_boolean(rand),
            .done = done,
            .n_done = base ? 0 : random_done(rand, &tiny, done, G_N_ELEMENTS(done)),
        };
        check_plan(&in, &tiny);
    }
    g_rand_free(rand);
}

/* Islands of changes melt together rather than exceed the number of parts. */
static void test_few_parts(void)
{
    struct plan_limits l = tiny;
    l.part_size = 30;
    l.fetch_max = 1000;
    l.parts_max = 8;
    _cleanup_extents_ struct extents *map = extents_new();
    extents_set(map, 0, 200, EXTENT_BASE, 0);
    for (uint64_t off = 0; off < 200; off += 10)
        extents_set(map, off, 1, EXTENT_STAGED, off);
    struct plan_input in = {
        .map = map, .has_base = true, .base_size = 200, .data_dirty = true, .copy_part = true};
    g_assert_cmpint(check_plan(&in, &l), ==, PLAN_MULTIPART);
    l.parts_max = 3;
    l.part_max = 40;
    struct plan plan;
    g_assert_cmpint(plan_make(&in, &l, &plan), ==, -EFBIG);
}

static void test_clean(void)
{
    _cleanup_extents_ struct extents *map = extents_new();
    extents_set(map, 0, 8, EXTENT_BASE, 0);
    struct plan_input in = {.map = map, .has_base = true, .base_size = 8, .copy_part = true};
    g_assert_cmpint(check_plan(&in, &tiny), ==, PLAN_NOTHING);
    in.headers_dirty = true;
    g_assert_cmpint(check_plan(&in, &tiny), ==, PLAN_COPY);
    in.headers_dirty = false;
    in.moved = true;
    g_assert_cmpint(check_plan(&in, &tiny), ==, PLAN_COPY);
    in.guarded = true;
    g_assert_cmpint(check_plan(&in, &tiny), ==, PLAN_MULTIPART);
    in.copy_part = false;
    g_assert_cmpint(check_plan(&in, &tiny), ==, PLAN_COPY);

    extents_truncate(map, 0);
    in.base_size = 0;
    in.copy_part = true;
    g_assert_cmpint(check_plan(&in, &tiny), ==, PLAN_PUT);

    extents_set(map, 0, 100, EXTENT_BASE, 0);
    in = (struct plan_input){.map = map, .has_base = true, .base_size = 100, .headers_dirty = true};
    in.copy_part = true;
    g_assert_cmpint(check_plan(&in, &tiny), ==, PLAN_MULTIPART);
    in.copy_part = false;
    g_assert_cmpint(check_plan(&in, &tiny), ==, PLAN_MULTIPART);
}

static void test_schedule(void)
{
    struct plan_limits l;
    plan_limits_init(&l, 0, 0);
    uint64_t total = 0, before = 0;
    for (unsigned n = 1; n <= STORE_PARTS_MAX; n++) {
        uint64_t size = plan_part_size(&l, n);
        g_assert_cmpuint(size, >=, STORE_PART_MIN);
        g_assert_cmpuint(size, <=, STORE_PART_MAX);
        g_assert_cmpuint(size, >=, before);
        before = size;
        total += size;
    }
    g_assert_cmpuint(plan_part_size(&l, 1), ==, 16 << 20);
    g_assert_cmpuint(plan_part_size(&l, 1000), ==, 16 << 20);
    g_assert_cmpuint(plan_part_size(&l, 1001), ==, 32 << 20);
    g_assert_cmpuint(total, >, STORE_OBJECT_MAX);

    _cleanup_extents_ struct extents *map = extents_new();
    extents_set(map, 0, STORE_OBJECT_MAX, EXTENT_STAGED, 0);
    struct plan_input in = {.map = map, .data_dirty = true};
    g_assert_cmpint(check_plan(&in, &l), ==, PLAN_MULTIPART);
}

static void test_holes(void)
{
    struct plan_limits l;
    plan_limits_init(&l, 0, 0);
    _cleanup_extents_ struct extents *map = extents_new();
    extents_set(map, 0, 1ULL << 40, EXTENT_ZERO, 0);
    extents_set(map, 1 << 20, 4096, EXTENT_STAGED, 0);
    struct plan_input in = {.map = map, .data_dirty = true};
    g_assert_cmpint(check_plan(&in, &l), ==, PLAN_MULTIPART);
    l.holes_max = (1ULL << 40) - 4096;
    g_assert_cmpint(check_plan(&in, &l), ==, PLAN_MULTIPART);
    l.holes_max--;
    _cleanup_plan_ struct plan plan;
    g_assert_cmpint(plan_make(&in, &l, &plan), ==, -EFBIG);
    in.has_base = true; /* what has changed is not its content */
    in.data_dirty = false;
    in.headers_dirty = true;
    in.base_size = 1ULL << 40;
    in.copy_part = true;
    g_assert_cmpint(plan_make(&in, &l, &plan), ==, 0);
    plan_clear(&plan);
}

/* Appending to a big object moves little, as does a change in its middle. */
static void test_edit(void)
{
    struct plan_limits l;
    plan_limits_init(&l, 0, 64 << 20);
    const uint64_t size = 12ULL << 30;
    for (int append = 0; append < 2; append++) {
        _cleanup_extents_ struct extents *map = extents_new();
        extents_set(map, 0, size, EXTENT_BASE, 0);
        extents_set(map, append ? size : size / 2, 4096, EXTENT_STAGED, 0);
        struct plan_input in = {
            .map = map, .has_base = true, .base_size = size, .data_dirty = true, .copy_part = true};
        _cleanup_plan_ struct plan plan;
        check_plan(&in, &l);
        g_assert_cmpint(plan_make(&in, &l, &plan), ==, 0);
        uint64_t up = 0;
        for (guint i = 0; i < plan.parts->len; i++) {
            const struct plan_part *p = &g_array_index(plan.parts, struct plan_part, i);
            up += p->how == PLAN_UPLOAD ? p->len : 0;
        }
        g_assert_cmpuint(up, <=, STORE_PART_MIN);
        g_assert_cmpuint(up, >=, 4096);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/plan/every-map", test_every_map);
    g_test_add_func("/plan/holes", test_holes);
    g_test_add_func("/plan/random-maps", test_random_maps);
    g_test_add_func("/plan/few-parts", test_few_parts);
    g_test_add_func("/plan/clean", test_clean);
    g_test_add_func("/plan/schedule", test_schedule);
    g_test_add_func("/plan/edit", test_edit);
    return g_test_run();
}
