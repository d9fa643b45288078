/* SPDX-License-Identifier: Apache-2.0
 *
 * test_discard: what is told of a file's way into the bucket, and giving it up.
 */
#include <errno.h>
#include <string.h>

#include "tests/cache/world.h"

static struct cache_file_state state_of(struct cache_file *f)
{
    struct cache_file_state st;
    cache_file_get_state(f, &st);
    return st;
}

static enum fake_action refuse(struct world *w, struct store_request *req)
{
    (void)w;
    if (req->verb != STORE_PUT && req->verb != STORE_MPU_COMPLETE)
        return FAKE_GO;
    store_result_fail(&req->res, -EACCES, STORE_CLASS_AUTH, NULL, "no");
    return FAKE_FAIL;
}

static enum fake_action hold_puts(struct world *w, struct store_request *req)
{
    (void)w;
    return req->verb == STORE_PUT || req->verb == STORE_MPU_COMPLETE ? FAKE_HOLD : FAKE_GO;
}

static void test_state(void)
{
    struct world *w = plain();
    struct cache_file *f = cache_file_new(w->cache, "b", "k", NULL, w);
    struct cache_handle *h = cache_handle_new(f);
    g_assert_cmpint(state_of(f).state, ==, CACHE_DIRTY);
    g_assert_cmpint(cache_write(h, "ours", 4, 0, false, NULL), ==, 0);
    g_assert_cmpint(state_of(f).state, ==, CACHE_DIRTY);
    world_set_hook(w, refuse);
    g_assert_cmpint(flush(h), ==, -EACCES);
    g_assert_cmpint(state_of(f).state, ==, CACHE_FAILED);
    g_assert_cmpint(state_of(f).err, ==, -EACCES);
    g_assert_cmpint(cache_write(h, "more", 4, 4, false, NULL), ==, 0);
    g_assert_cmpint(state_of(f).state, ==, CACHE_DIRTY);
    world_set_hook(w, hold_puts);
    struct call c;
    call_init(&c, NULL);
    struct cache_wait wait = {.done = call_flush_done, .ctx = &c};
    cache_flush(h, &wait);
    fake_store_wait_held(w->fake, 1);
    g_assert_cmpint(state_of(f).state, ==, CACHE_UPLOADING);
    g_assert_cmpuint(state_of(f).done, ==, 0);
    g_assert_cmpuint(state_of(f).total, ==, 8);
    fake_store_release(w->fake);
    g_assert_cmpint(call_wait(&c), ==, 0);
    g_assert_cmpint(state_of(f).state, ==, CACHE_CLEAN);
    world_set_hook(w, NULL);

    /* Parts. */
    g_assert_cmpint(cache_file_truncate(f, 0, NULL), ==, 0);
    size_t n = 3 * PART + PART / 2;
    g_free(write_in_order(h, n));
    world_set_hook(w, hold_puts);
    call_init(&c, NULL);
    cache_flush(h, &wait);
    fake_store_wait_held(w->fake, 1); /* COMPLETE: every part is there */
    g_assert_cmpint(state_of(f).state, ==, CACHE_UPLOADING);
    g_assert_cmpuint(state_of(f).done, ==, n);
    g_assert_cmpuint(state_of(f).total, ==, n);
    fake_store_release(w->fake);
    g_assert_cmpint(call_wait(&c), ==, 0);
    g_assert_cmpint(state_of(f).state, ==, CACHE_CLEAN);
    cache_handle_free(h);
    cache_file_unref(f);
    world_free(w);
}

static void run_discard(size_t n, bool based, bool failed)
{
    struct world *w = plain();
    char byte;
    if (based)
        g_free(fake_store_put(w->fake, "b", "k", "base", 4));
    struct cache_file *f = based ? open_object(w, "k") : cache_file_new(w->cache, "b", "k", NULL, w);
    struct cache_handle *h = cache_handle_new(f), *reader = cache_handle_new(f);
    if (based)
        g_assert_cmpint(cache_file_discard(f, NULL), ==, -ENODATA);
    g_assert_cmpint(cache_file_truncate(f, 0, NULL), ==, 0);
    g_free(write_in_order(h, n));
    g_assert_cmpint(cache_seal(h, NULL), ==, 0);
    if (failed) {
        world_set_hook(w, refuse);
        g_assert_cmpint(flush(h), ==, -EACCES);
        world_set_hook(w, NULL);
    }
    g_assert_cmpint(cache_file_discard(f, NULL), ==, 0);
    struct cache_stats st;
    cache_get_stats(w->cache, &st);
    g_assert_cmpuint(st.dirty_files, ==, 0);
    g_assert_cmpuint(st.sealed_files, ==, 0);
    g_assert_cmpint(state_of(f).state, ==, CACHE_CLEAN);
    g_assert_cmpint(read_at(reader, &byte, 1, 0), ==, -ESTALE);
    g_assert_cmpint(cache_write(h, "x", 1, 0, false, NULL), ==, -ESTALE);
    g_assert_cmpint(cache_file_truncate(f, 0, NULL), ==, -ESTALE);
    g_assert_cmpint(flush(h), ==, -ESTALE);
    g_assert_cmpint(flush(h), ==, 0);
    g_assert_cmpint(cache_seal(reader, NULL), ==, -ESTALE);
    if (based) {
        assert_object(w, "k", "base", 4);
        struct cache_file *again = open_object(w, "k");
        struct cache_handle *now = cache_handle_new(again);
        g_assert_cmpint(read_at(now, &byte, 1, 0), ==, 1);
        g_assert_cmpint(byte, ==, 'b');
        cache_handle_free(now);
        cache_file_unref(again);
    } else {
        GBytes *b = fake_store_get(w->fake, "b", "k", NULL);
        g_assert_null(b);
    }
    g_assert_cmpint(cache_file_discard(f, NULL), ==, -ENODATA);
    cache_handle_free(reader);
    cache_handle_free(h);
    cache_file_unref(f);
    world_free(w); /* no upload, and nothing in the journal or staging */
}

static void test_discard(void)
{
    for (unsigned bits = 0; bits < 8; bits++)
        run_discard(bits & 1 ? 3 * PART + 5 : 100, bits & 2, bits & 4);
}

/* A commit under way goes on, and brings it there. */
static void test_too_late(void)
{
    struct world *w = plain();
    struct cache_file *f = cache_file_new(w->cache, "b", "k", NULL, w);
    struct cache_handle *h = cache_handle_new(f);
    g_assert_cmpint(cache_write(h, "ours", 4, 0, false, NULL), ==, 0);
    world_set_hook(w, hold_puts);
    struct call c;
    call_init(&c, NULL);
    struct cache_wait wait = {.done = call_flush_done, .ctx = &c};
    cache_flush(h, &wait);
    fake_store_wait_held(w->fake, 1);
    struct cancel *fired = cancel_new();
    cancel_fire(fired);
    g_assert_cmpint(cache_file_discard(f, fired), ==, -EINTR);
    cancel_free(fired);
    g_assert_cmpint(state_of(f).state, ==, CACHE_UPLOADING);
    fake_store_release(w->fake);
    g_assert_cmpint(cache_file_discard(f, NULL), ==, -ENODATA);
    g_assert_cmpint(call_wait(&c), ==, 0);
    assert_object(w, "k", "ours", 4);
    cache_handle_free(h);
    cache_file_unref(f);
    world_free(w);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/discard/state", test_state);
    g_test_add_func("/discard/discard", test_discard);
    g_test_add_func("/discard/too-late", test_too_late);
    return g_test_run();
}
