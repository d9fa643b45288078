/* SPDX-License-Identifier: Apache-2.0
 *
 * test_writer_damage: bytes that change after they were written, in staging or on their way to the
 * store, are found out: sent again where that helps, and else never part of an object.
 */
#include <errno.h>
#include <string.h>

#include "cache/file.h"
#include "cache/staging.h"
#include "tests/cache/world.h"
#include "tests/lib/seed.h"

static void flip(struct cache_file *f, uint64_t off)
{
    uint8_t c;
    int fd = staging_fd(f->staging);
    g_assert_cmpint(pread(fd, &c, 1, (off_t)off), ==, 1);
    c ^= 0x10;
    g_assert_cmpint(pwrite(fd, &c, 1, (off_t)off), ==, 1);
}

static void assert_absent(struct world *w, const char *key)
{
    g_assert_null(fake_store_get(w->fake, "b", key, NULL));
}

/* n bytes are written and the one at `at` is changed on the disk: the commit fails, the object
 * does not appear, and it does once the disk is good again. */
static void damage(struct world *w, const char *key, size_t n, uint64_t at)
{
    struct cache_file *f = cache_file_new(w->cache, "b", key, NULL, w);
    struct cache_handle *h = cache_handle_new(f);
    g_autofree uint8_t *all = write_in_order(h, n);
    flip(f, at);
    g_assert_cmpint(flush(h), ==, -EIO);
    assert_absent(w, key);
    g_assert_true(cache_file_data_dirty(f));
    flip(f, at);
    g_assert_cmpint(flush(h), ==, 0);
    assert_object(w, key, all, n);
    cache_handle_free(h);
    cache_file_unref(f);
}

static void test_put(void)
{
    struct world *w = plain();
    damage(w, "byte", 1, 0);
    damage(w, "put", 300000, 299999);
    damage(w, "put2", 300000, 65536);
    world_free(w);
}

/* The last part goes up at commit, in whatever way the parts before went. */
static void test_parts(void)
{
    struct store_caps caps[] = {{.checksum_mpu = true}, {.checksum_part = true}};
    for (unsigned i = 0; i < G_N_ELEMENTS(caps); i++) {
        struct world *w = world_new(test_seed(), &(struct world_params){.caps = &caps[i]});
        damage(w, "parts", 3 * PART - 1000, 2 * PART + 12345);
        world_free(w);
    }
}

static enum fake_action count_checksums(struct world *w, struct store_request *req)
{
    if (req->verb == STORE_MPU_PART && req->source.checksum)
        w->hits++;
    return FAKE_GO;
}

/* Parts that go up while the file is written carry theirs, and nothing where no server looks. */
static void test_streamed(void)
{
    struct store_caps caps[] = {{.checksum_mpu = true}, {.checksum_part = true}, {0}};
    for (unsigned i = 0; i < G_N_ELEMENTS(caps); i++) {
        struct world *w = world_new(test_seed(), &(struct world_params){.caps = &caps[i]});
        world_set_hook(w, count_checksums);
        struct cache_file *f = cache_file_new(w->cache, "b", "k", NULL, w);
        struct cache_handle *h = cache_handle_new(f);
        g_autofree uint8_t *all = write_in_order(h, 3 * PART + 10);
        g_assert_cmpint(flush(h), ==, 0);
        assert_object(w, "k", all, 3 * PART + 10);
        g_assert_cmpuint(count(w, STORE_MPU_PART), ==, 4); /* each once */
        g_assert_cmpuint(w->hits, ==, i < 2 ? 4 : 0);
        cache_handle_free(h);
        cache_file_unref(f);
        world_free(w);
    }
}

/* Where a run is cut by what was written later, the rest of it is read, and vouched for only if the
 * run is what it was. */
static void test_ragged(void)
{
    struct world *w = plain();
    struct cache_file *f = cache_file_new(w->cache, "b", "k", NULL, w);
    struct cache_handle *h = cache_handle_new(f);
    g_autofree uint8_t *all = write_in_order(h, 200000);
    memset(all + 1000, 'x', 100000);
    g_assert_cmpint(cache_write(h, all + 1000, 100000, 1000, false, NULL), ==, 0);
    flip(f, 500);
    g_assert_cmpint(flush(h), ==, -EIO);
    assert_absent(w, "k");
    flip(f, 500);
    g_assert_cmpint(flush(h), ==, 0);
    assert_object(w, "k", all, 200000);
    cache_handle_free(h);
    cache_file_unref(f);
    world_free(w);
}

/* An edit: what is fetched of the old object, what is copied, what is new, and holes. */
static void test_edit(void)
{
    struct store_caps variants[] = {
        {.copy_part = true, .checksum = true, .checksum_mpu = true},
        {.copy_part = true, .checksum_mpu = true, .checksum_part = true},
        {.copy_part = true, .checksum_mpu = true, .copy_into_checksum_mpu = true},
        {.copy_part = true},
        {.checksum_mpu = true},
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(variants); i++) {
        struct world *w = world_new(test_seed(), &(struct world_params){.caps = &variants[i]});
        size_t n = 4 * PART, hole = 100000;
        g_autofree uint8_t *all = g_malloc0(n + hole + 4);
        fill(all, n, 1);
        g_free(fake_store_put(w->fake, "b", "k", all, n));
        struct cache_file *f = open_object(w, "k");
        struct cache_handle *h = cache_handle_new(f);
        memset(all + 10, 'e', 100);
        g_assert_cmpint(cache_write(h, all + 10, 100, 10, false, NULL), ==, 0);
        memcpy(all + n + hole, "tail", 4);
        g_assert_cmpint(cache_write(h, "tail", 4, n + hole, false, NULL), ==, 0);
        g_assert_cmpint(flush(h), ==, 0);
        assert_object(w, "k", all, n + hole + 4);
        cache_handle_free(h);
        cache_file_unref(f);
        world_free(w);
    }
}

/* Bits flip on the way up now and then: it is sent again, and every object is right. */
static void test_on_the_way(void)
{
    struct world *w = world_new(
        1, &(struct world_params){.faults = "rate=0.1,seed=7,verbs=PUT+MPU_PART,kinds=flip"});
    unsigned n = 0;
    for (; store_fault_count(w->faulty) < 6; n++) {
        g_assert_cmpuint(n, <, 200);
        g_autofree char *key = g_strdup_printf("k%u", n);
        struct cache_file *f = cache_file_new(w->cache, "b", key, NULL, w);
        struct cache_handle *h = cache_handle_new(f);
        size_t size = n % 5 ? 100000 : 2 * PART + 77;
        g_autofree uint8_t *all = write_in_order(h, size);
        g_assert_cmpint(flush(h), ==, 0);
        assert_object(w, key, all, size);
        cache_handle_free(h);
        cache_file_unref(f);
    }
    world_free(w);
}

/* Bits flip each time: after some attempts it is an error, and there is no object. */
static void test_always(void)
{
    struct world *w =
        world_new(1, &(struct world_params){.faults = "rate=1,seed=7,verbs=PUT,kinds=flip"});
    struct cache_file *f = cache_file_new(w->cache, "b", "k", NULL, w);
    struct cache_handle *h = cache_handle_new(f);
    g_assert_cmpint(cache_write(h, "data", 4, 0, false, NULL), ==, 0);
    g_assert_cmpint(flush(h), ==, -EIO);
    assert_absent(w, "k");
    g_assert_cmpuint(count(w, STORE_PUT), ==, 4);
    g_assert_true(cache_file_data_dirty(f));
    cache_handle_free(h);
    cache_file_unref(f);
    world_free(w);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/writer-damage/put", test_put);
    g_test_add_func("/writer-damage/parts", test_parts);
    g_test_add_func("/writer-damage/streamed", test_streamed);
    g_test_add_func("/writer-damage/ragged", test_ragged);
    g_test_add_func("/writer-damage/edit", test_edit);
    g_test_add_func("/writer-damage/on-the-way", test_on_the_way);
    g_test_add_func("/writer-damage/always", test_always);
    return g_test_run();
}
