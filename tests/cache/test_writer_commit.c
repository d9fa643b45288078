/* SPDX-License-Identifier: Apache-2.0
 *
 * test_writer_commit: what a commit does when the bucket is not as expected, when requests fail or
 * their outcome is unknown, and when the file changes its name or loses it.
 */
#include <errno.h>
#include <string.h>

#include "tests/cache/world.h"
#include "tests/lib/seed.h"

static void test_conflict(void)
{
    struct world *w = plain();
    /* A new file, where meanwhile something else was put. */
    struct cache_file *f = cache_file_new(w->cache, "b", "new", NULL, w);
    struct cache_handle *h = cache_handle_new(f);
    g_assert_cmpint(cache_write(h, "ours", 4, 0, false, NULL), ==, 0);
    g_free(fake_store_put(w->fake, "b", "new", "theirs", 6));
    g_assert_cmpint(flush(h), ==, -ESTALE);
    assert_object(w, "new", "theirs", 6);
    g_assert_true(cache_file_dirty(f));
    cache_handle_free(h);
    cache_file_unref(f);

    /* An old one that changed; by PUT, and by parts. */
    for (int big = 0; big < 2; big++) {
        size_t n = big ? 3 * PART : 10;
        g_autofree uint8_t *all = g_malloc0(n);
        g_free(fake_store_put(w->fake, "b", "old", all, n));
        f = open_object(w, "old");
        h = cache_handle_new(f);
        g_assert_cmpint(cache_write(h, "ours", 4, n, false, NULL), ==, 0);
        g_free(fake_store_put(w->fake, "b", "old", "theirs", 6));
        g_assert_cmpint(flush(h), ==, -ESTALE);
        assert_object(w, "old", "theirs", 6);
        uint8_t byte;
        g_assert_cmpint(read_at(h, &byte, 1, 5), ==, -ESTALE); /* never bytes of the other one */
        g_assert_cmpint(read_at(h, &byte, 1, n), ==, 1);
        cache_handle_free(h);
        cache_file_unref(f);
    }

    /* A streamed one. */
    f = cache_file_new(w->cache, "b", "stream", NULL, w);
    h = cache_handle_new(f);
    g_free(write_in_order(h, 2 * PART));
    g_free(fake_store_put(w->fake, "b", "stream", "theirs", 6));
    g_assert_cmpint(flush(h), ==, -ESTALE);
    assert_object(w, "stream", "theirs", 6);
    cache_handle_free(h);
    cache_file_unref(f);
    world_free(w);
}

static void test_no_conditions(void)
{
    struct store_caps caps = {0};
    struct world *w = world_new(test_seed(), &(struct world_params){.caps = &caps});
    g_free(fake_store_put(w->fake, "b", "k", "12345", 5));
    struct cache_file *f = open_object(w, "k");
    struct cache_handle *h = cache_handle_new(f);
    g_assert_cmpint(cache_write(h, "X", 1, 0, false, NULL), ==, 0);
    g_assert_cmpint(flush(h), ==, 0);
    assert_object(w, "k", "X2345", 5);
    g_assert_cmpint(cache_write(h, "Y", 1, 0, false, NULL), ==, 0);
    g_free(fake_store_put(w->fake, "b", "k", "theirs", 6));
    g_assert_cmpint(flush(h), ==, -ESTALE);
    assert_object(w, "k", "theirs", 6);
    cache_handle_free(h);
    cache_file_unref(f);
    world_free(w);
}

static enum fake_action deny_puts(struct world *w, struct store_request *req)
{
    if (req->verb != STORE_PUT)
        return FAKE_GO;
    store_result_fail(&req->res, -EACCES, STORE_CLASS_AUTH, "AccessDenied", "no");
    return FAKE_FAIL;
}

static void test_error_sticks(void)
{
    struct world *w = plain();
    struct cache_file *f = cache_file_new(w->cache, "b", "k", NULL, w);
    struct cache_handle *h = cache_handle_new(f), *other = cache_handle_new(f);
    world_set_hook(w, deny_puts);
    g_assert_cmpint(cache_write(h, "data", 4, 0, false, NULL), ==, 0);
    g_assert_cmpint(flush(h), ==, -EACCES);
    g_assert_cmpint(flush(h), ==, -EACCES); /* tried again */
    g_assert_cmpuint(count(w, STORE_PUT), ==, 2);
    g_assert_true(cache_file_data_dirty(f));
    world_set_hook(w, NULL);
    g_assert_cmpint(flush(h), ==, 0);
    assert_object(w, "k", "data", 4);
    g_assert_cmpint(flush(other), ==, -EACCES); /* once to each handle */
    g_assert_cmpint(flush(other), ==, 0);
    struct cache_handle *late = cache_handle_new(f);
    g_assert_cmpint(flush(late), ==, 0);
    cache_handle_free(late);
    cache_handle_free(other);
    cache_handle_free(h);
    cache_file_unref(f);
    world_free(w);
}

static enum fake_action lose_reply(struct world *w, struct store_request *req)
{
    if ((req->verb != STORE_PUT && req->verb != STORE_MPU_COMPLETE) || w->hits++ > 0)
        return FAKE_GO;
    store_result_fail(&req->res, -EIO, STORE_CLASS_AMBIGUOUS, NULL, "connection reset");
    return FAKE_FAIL_AFTER;
}

static enum fake_action lose_request(struct world *w, struct store_request *req)
{
    enum fake_action a = lose_reply(w, req);
    return a == FAKE_GO ? a : FAKE_FAIL;
}

static void test_ambiguous(void)
{
    struct world *w = plain();
    for (int big = 0; big < 2; big++) {
        size_t n = big ? 2 * PART + 1 : 100;
        enum store_verb verb = big ? STORE_MPU_COMPLETE : STORE_PUT;
        for (int lost = 0; lost < 2; lost++) {
            g_autofree char *key = g_strdup_printf("k%d%d", big, lost);
            struct cache_file *f = cache_file_new(w->cache, "b", key, NULL, w);
            struct cache_handle *h = cache_handle_new(f);
            g_autofree uint8_t *all = write_in_order(h, n);
            uint64_t before = count(w, verb);
            world_set_hook(w, lost ? lose_request : lose_reply);
            g_assert_cmpint(flush(h), ==, 0);
            g_assert_cmpuint(count(w, verb), ==, before + (lost ? 2 : 1));
            assert_object(w, key, all, n);
            g_assert_cmpint(cache_write(h, "z", 1, 0, false, NULL), ==, 0);
            all[0] = 'z';
            g_assert_cmpint(flush(h), ==, 0); /* the ETag that HEAD told is the base now */
            assert_object(w, key, all, n);
            cache_handle_free(h);
            cache_file_unref(f);
        }
    }
    world_free(w);
}

static enum fake_action forget_upload(struct world *w, struct store_request *req)
{
    if (req->verb != STORE_MPU_COMPLETE || w->hits++ > 0)
        return FAKE_GO;
    store_result_fail(&req->res, -ENOENT, STORE_CLASS_FATAL, "NoSuchUpload", "gone");
    return FAKE_FAIL;
}

static void test_lost_upload(void)
{
    struct world *w = plain();
    struct cache_file *f = cache_file_new(w->cache, "b", "k", NULL, w);
    struct cache_handle *h = cache_handle_new(f);
    g_autofree uint8_t *all = write_in_order(h, 2 * PART);
    world_set_hook(w, forget_upload);
    g_assert_cmpint(flush(h), ==, 0); /* from staging, by another upload */
    assert_object(w, "k", all, 2 * PART);
    g_assert_cmpuint(count(w, STORE_MPU_CREATE), ==, 2);
    cache_handle_free(h);
    cache_file_unref(f);
    world_free(w);
}

static void test_retarget(void)
{
    for (int caps_less = 0; caps_less < 2; caps_less++) {
        struct store_caps none = {0};
        struct world *w = world_new(
            test_seed(), &(struct world_params){.caps = caps_less ? &none : NULL});
        const size_t sizes[] = {0, 100, 2 * PART + 3};
        for (unsigned i = 0; i < G_N_ELEMENTS(sizes); i++) {
            size_t n = sizes[i];
            g_autofree uint8_t *all = g_malloc(n + 1);
            fill(all, n + 1, i);
            for (int dirty = 0; dirty < 2; dirty++) {
                g_free(fake_store_put(w->fake, "b", "from", all, n));
                struct cache_file *f = open_object(w, "from");
                struct cache_handle *h = cache_handle_new(f);
                if (dirty)
                    g_assert_cmpint(cache_write(h, all + n, 1, n, false, NULL), ==, 0);
                fake_store_delete(w->fake, "b", "to");
                g_assert_cmpint(cache_file_retarget(f, "b", "to", NULL, NULL), ==, 0);
                g_assert_true(cache_file_dirty(f));
                g_assert_cmpint(flush(h), ==, 0);
                assert_object(w, "to", all, n + (size_t)dirty);
                assert_object(w, "from", all, n); /* the caller's to delete */
                fake_store_delete(w->fake, "b", "from");
                g_autofree uint8_t *got = g_malloc(n + 1);
                g_assert_cmpint(read_at(h, got, n + 1, 0), ==, (ssize_t)n + dirty);
                g_assert_cmpmem(got, n, all, n);

                /* Onto something that is there: only if it is what was said. */
                g_free(fake_store_put(w->fake, "b", "to2", "x", 1));
                g_assert_cmpint(cache_file_retarget(f, "b", "to2", NULL, NULL), ==, 0);
                g_assert_cmpint(flush(h), ==, -ESTALE);
                assert_object(w, "to2", "x", 1);
                g_assert_cmpint(cache_file_retarget(f, "b", "to2", "*", NULL), ==, 0);
                g_assert_cmpint(flush(h), ==, 0);
                assert_object(w, "to2", all, n + (size_t)dirty);
                cache_handle_free(h);
                cache_file_unref(f);
                fake_store_delete(w->fake, "b", "to2");
            }
        }
        world_free(w);
    }
}

static void test_retarget_stream(void)
{
    struct world *w = plain();
    struct cache_file *f = cache_file_new(w->cache, "b", "k", NULL, w);
    struct cache_handle *h = cache_handle_new(f);
    g_autofree uint8_t *all = write_in_order(h, 3 * PART);
    g_assert_cmpint(cache_file_retarget(f, "b", "k2", NULL, NULL), ==, 0);
    g_assert_cmpint(flush(h), ==, 0);
    assert_object(w, "k2", all, 3 * PART);
    g_assert_null(fake_store_get(w->fake, "b", "k", NULL));
    _cleanup_object_ struct store_object o = {0};
    g_bytes_unref(fake_store_get(w->fake, "b", "k2", &o));
    g_free(fake_store_put(w->fake, "b", "k3", all, 3 * PART));
    _cleanup_object_ struct store_object moved = {0};
    g_bytes_unref(fake_store_get(w->fake, "b", "k3", &moved));
    _cleanup_object_ struct store_object from = {0};
    g_bytes_unref(fake_store_get(w->fake, "b", "k2", &from));
    g_assert_cmpint(cache_file_rebase(f, "other", "b", "k3", &moved), ==, -EAGAIN);
    g_assert_cmpint(cache_file_rebase(f, from.etag, "b", "k3", &moved), ==, 0);
    fake_store_delete(w->fake, "b", "k2");
    g_assert_false(cache_file_dirty(f));
    uint8_t got[10];
    g_assert_cmpint(read_at(h, got, 10, 10), ==, 10);
    g_assert_cmpmem(got, 10, all + 10, 10);
    g_assert_cmpint(cache_write(h, "!", 1, 0, false, NULL), ==, 0);
    g_assert_cmpint(flush(h), ==, 0);
    all[0] = '!';
    assert_object(w, "k3", all, 3 * PART);
    cache_handle_free(h);
    cache_file_unref(f);
    world_free(w);
}

static void test_orphan(void)
{
    struct world *w = plain();
    g_free(fake_store_put(w->fake, "b", "k", "0123456789", 10));
    struct cache_file *f = open_object(w, "k");
    struct cache_handle *h = cache_handle_new(f);
    g_assert_cmpint(cache_write(h, "ab", 2, 4, false, NULL), ==, 0);
    g_assert_cmpint(cache_file_orphan(f, true, NULL), ==, 0);
    g_assert_cmpint(cache_file_bury(f), ==, 0);
    fake_store_delete(w->fake, "b", "k");
    g_assert_false(cache_file_dirty(f));
    char got[20];
    g_assert_cmpint(read_at(h, got, 20, 0), ==, 10);
    g_assert_cmpmem(got, 10, "0123ab6789", 10);
    g_assert_cmpint(cache_write(h, "c", 1, 0, true, NULL), ==, 0);
    g_assert_cmpint(flush(h), ==, 0);
    g_assert_cmpint(read_at(h, got, 20, 0), ==, 11);
    g_assert_null(fake_store_get(w->fake, "b", "k", NULL));
    cache_handle_free(h);
    cache_file_unref(f);

    /* One that is being streamed: nothing of it remains. */
    f = cache_file_new(w->cache, "b", "s", NULL, w);
    h = cache_handle_new(f);
    g_free(write_in_order(h, 3 * PART));
    g_assert_cmpint(cache_file_orphan(f, true, NULL), ==, 0);
    g_assert_cmpint(cache_file_bury(f), ==, 0);
    g_assert_cmpint(flush(h), ==, 0);
    g_assert_null(fake_store_get(w->fake, "b", "s", NULL));
    cache_handle_free(h);
    cache_file_unref(f);
    g_assert_cmpuint(count(w, STORE_PUT) + count(w, STORE_MPU_COMPLETE), ==, 0);
    world_free(w);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/writer-commit/conflict", test_conflict);
    g_test_add_func("/writer-commit/no-conditions", test_no_conditions);
    g_test_add_func("/writer-commit/error-sticks", test_error_sticks);
    g_test_add_func("/writer-commit/ambiguous", test_ambiguous);
    g_test_add_func("/writer-commit/lost-upload", test_lost_upload);
    g_test_add_func("/writer-commit/retarget", test_retarget);
    g_test_add_func("/writer-commit/retarget-stream", test_retarget_stream);
    g_test_add_func("/writer-commit/orphan", test_orphan);
    return g_test_run();
}
