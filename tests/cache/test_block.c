/* SPDX-License-Identifier: Apache-2.0
 *
 * Tests of the block pool: states, waiters, eviction, spent blocks, versions and renames.
 */
#include <errno.h>
#include <glib.h>

#include "cache/block.h"

/* ---- the pool ---- */

struct pool_fixture {
    struct block_pool *pool;
    struct version *v;
};

static void pool_setup(struct pool_fixture *f, gconstpointer unused)
{
    g_assert_cmpint(block_pool_new(8 << 20, &f->pool), ==, 0);
    f->v = version_get(block_pool_versions(f->pool), "b", "k", "e", UINT64_C(1) << 30);
}

static void pool_teardown(struct pool_fixture *f, gconstpointer unused)
{
    block_pool_check(f->pool);
    version_unref(block_pool_versions(f->pool), f->v);
    block_pool_free(f->pool);
}

static struct block *ready_block(struct pool_fixture *f, uint64_t index)
{
    struct block_wait *woken = NULL;
    struct block *b = block_make(f->pool, f->v, index);
    g_assert_nonnull(b);
    block_claim(f->pool, b, UINT32_MAX);
    block_unpin(f->pool, b);
    block_fill(f->pool, b, UINT32_MAX, &woken);
    g_assert_null(woken);
    return b;
}

static void test_span(void)
{
    const uint64_t b = BLOCK_SIZE;
    g_assert_cmphex(block_span(0, 0, b), ==, UINT32_MAX);
    g_assert_cmphex(block_span(0, 0, 1), ==, 1);
    g_assert_cmphex(block_span(0, 4095, 4097), ==, 3);
    g_assert_cmphex(block_span(0, b - 1, b + 1), ==, 1u << 31);
    g_assert_cmphex(block_span(1, b - 1, b + 1), ==, 1);
    g_assert_cmphex(block_span(1, 0, 4 * b), ==, UINT32_MAX);
    g_assert_cmphex(block_span(2, 0, b), ==, 0);
    g_assert_cmphex(block_span(0, 100, 100), ==, 0);
}

static void test_too_small(void)
{
    struct block_pool *p;
    g_assert_cmpint(block_pool_new((8 << 20) - 1, &p), ==, -EINVAL);
    g_assert_cmpint(block_pool_new(0, &p), ==, -EINVAL);
}

static void test_states(struct pool_fixture *f, gconstpointer unused)
{
    struct block_wait *woken = NULL, a = {.need = 0x0f}, c = {.need = 0xf0};
    unsigned room = block_pool_room(f->pool);
    struct block *b = block_make(f->pool, f->v, 7);
    g_assert_true(block_find(f->pool, f->v, 7) == b);
    g_assert_null(block_find(f->pool, f->v, 8));
    block_claim(f->pool, b, 0xff);
    block_await(f->pool, b, &a);
    block_await(f->pool, b, &c);
    g_assert_true(block_awaited(b, 0x10));
    g_assert_false(block_awaited(b, 0x100));
    block_pool_check(f->pool);

    block_fill(f->pool, b, 0x07, &woken);
    g_assert_null(woken);
    block_fill(f->pool, b, 0x18, &woken);
    g_assert_true(woken == &a && !a.next && !a.block);
    woken = NULL;
    block_drop(f->pool, b, 0xe0, &woken);
    g_assert_true(woken == &c);
    g_assert_cmphex(b->valid, ==, 0x1f);
    g_assert_cmpuint(block_pool_room(f->pool), ==, room - 1); /* pinned */
    block_unpin(f->pool, b);
    g_assert_cmpuint(block_pool_room(f->pool), ==, room);
    g_assert_true(block_find(f->pool, f->v, 7) == b); /* idle, and still there */

    /* One that never got a byte is EMPTY again. */
    b = block_make(f->pool, f->v, 8);
    block_claim(f->pool, b, 1);
    block_unpin(f->pool, b);
    g_assert_nonnull(block_find(f->pool, f->v, 8));
    woken = NULL;
    block_drop(f->pool, b, 1, &woken);
    g_assert_null(block_find(f->pool, f->v, 8));
    g_assert_cmpuint(block_pool_used(f->pool), ==, 1);
}

static void test_eviction(struct pool_fixture *f, gconstpointer unused)
{
    unsigned n = block_pool_capacity(f->pool);
    g_assert_cmpuint(n, ==, 64);
    for (unsigned i = 0; i < n; i++)
        ready_block(f, i);
    struct block *pinned = block_find(f->pool, f->v, 0), *hot = block_find(f->pool, f->v, 1);
    block_pin(f->pool, pinned);
    block_touch(hot, 1);
    block_touch(hot, 1);                          /* read twice: visited */
    block_touch(block_find(f->pool, f->v, 2), 1); /* read once, as a scan does */
    ready_block(f, 1000);
    g_assert_true(block_find(f->pool, f->v, 0) == pinned);
    g_assert_true(block_find(f->pool, f->v, 1) == hot);
    g_assert_null(block_find(f->pool, f->v, 2));

    /* A scan of many times the capacity leaves what is read again and again. */
    for (unsigned i = 0; i < 10 * n; i++) {
        struct block *b = ready_block(f, 2000 + i);
        block_touch(b, UINT32_MAX);
        if (i % 16 == 0)
            block_touch(hot, 1);
    }
    g_assert_true(block_find(f->pool, f->v, 1) == hot);
    g_assert_true(block_find(f->pool, f->v, 0) == pinned);
    block_unpin(f->pool, pinned);
    block_pool_check(f->pool);
}

/* What a stream has read is used again before memory that was never touched. */
static void test_spent(void)
{
    struct block_pool *pool;
    struct block_wait *woken = NULL;
    g_assert_cmpint(block_pool_new(128 << 20, &pool), ==, 0);
    struct version *v = version_get(block_pool_versions(pool), "b", "k", "e", UINT64_C(1) << 30);
    for (unsigned i = 0; i < 1000; i++) {
        struct block *b = block_make(pool, v, i);
        block_expect(b);
        block_claim(pool, b, UINT32_MAX);
        block_fill(pool, b, UINT32_MAX, &woken);
        block_touch(b, 0x0000ffff);
        block_touch(b, 0xffff0000);
        if (i == 7)
            block_touch(b, 1); /* again: worth keeping */
        block_unpin(pool, b);
    }
    g_assert_cmpuint(block_pool_used(pool), <, 150);
    g_assert_nonnull(block_find(pool, v, 7));
    g_assert_null(block_find(pool, v, 8));
    g_assert_nonnull(block_find(pool, v, 999));
    struct block *b = block_find(pool, v, 998);
    block_pin(pool, b); /* in use again: not spent */
    block_pool_check(pool);
    block_unpin(pool, b);
    version_unref(block_pool_versions(pool), v);
    block_pool_free(pool);
}

static void test_exhaustion(struct pool_fixture *f, gconstpointer unused)
{
    unsigned n = block_pool_capacity(f->pool);
    struct block *b[64];
    struct block_wait *woken = NULL;
    for (unsigned i = 0; i < n; i++) {
        b[i] = block_make(f->pool, f->v, i);
        block_claim(f->pool, b[i], 1);
        if (i % 2)
            block_unpin(f->pool, b[i]); /* FETCHING is enough to keep it */
    }
    g_assert_cmpuint(block_pool_room(f->pool), ==, 0);
    g_assert_null(block_make(f->pool, f->v, n));
    for (unsigned i = 0; i < n; i++)
        block_fill(f->pool, b[i], 1, &woken);
    g_assert_cmpuint(block_pool_room(f->pool), ==, n / 2);
    for (unsigned i = 0; i < n; i += 2)
        block_unpin(f->pool, b[i]);
    g_assert_cmpuint(block_pool_room(f->pool), ==, n);
}

static void test_move(struct pool_fixture *f, gconstpointer unused)
{
    struct version_table *t = block_pool_versions(f->pool);
    struct version *to = version_get(t, "b", "k2", "e2", f->v->size);
    struct block *free_one = ready_block(f, 0), *held = ready_block(f, 1);
    block_pin(f->pool, held);
    block_pool_move(f->pool, f->v, to);
    g_assert_true(block_find(f->pool, to, 0) == free_one);
    g_assert_null(block_find(f->pool, f->v, 0));
    g_assert_true(block_find(f->pool, f->v, 1) == held);
    block_unpin(f->pool, held);
    block_pool_check(f->pool);
    version_unref(t, to);
}

static void test_versions(struct pool_fixture *f, gconstpointer unused)
{
    struct version_table *t = block_pool_versions(f->pool);
    struct version *again = version_get(t, "b", "k", "e", f->v->size);
    g_assert_true(again == f->v);
    version_unref(t, again);
    struct version *other = version_get(t, "b", "k", "e", 17); /* same name, another size */
    g_assert_true(other != f->v);
    g_assert_true(version_find(t, "b", "k", "e") == other);
    version_rename(t, other, "b", "k3", "e3");
    g_assert_null(version_find(t, "b", "k", "e"));
    g_assert_true(version_find(t, "b", "k3", "e3") == other);
    version_rename(t, f->v, "b", "k3", "e3"); /* taken: lives on outside of the table */
    g_assert_true(version_find(t, "b", "k3", "e3") == other);
    version_unref(t, other);
    g_assert_null(version_find(t, "b", "k3", "e3"));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
#define POOL(name, fn)                                                                             \
    g_test_add("/block/" name, struct pool_fixture, NULL, pool_setup, fn, pool_teardown)
    g_test_add_func("/block/span", test_span);
    g_test_add_func("/block/too-small", test_too_small);
    POOL("states", test_states);
    POOL("eviction", test_eviction);
    g_test_add_func("/block/spent", test_spent);
    POOL("exhaustion", test_exhaustion);
    POOL("move", test_move);
    POOL("versions", test_versions);
    return g_test_run();
}
