/* SPDX-License-Identifier: Apache-2.0
 *
 * test_writer: what is written, flushed and read through the cache is what the bucket gets: case
 * by case. Conflicts, errors and changes of name are in test_writer_commit.c, random workloads in
 * test_writer_model.c.
 */
#include <errno.h>
#include <sched.h>
#include <string.h>

#include "tests/cache/world.h"
#include "tests/lib/seed.h"

/* Staging is given back soon after a flush has returned. */
static struct cache_stats await_unstaged(struct world *w)
{
    struct cache_stats st;
    do {
        sched_yield();
        cache_get_stats(w->cache, &st);
    } while (st.staged > 0);
    return st;
}

static void test_small(void)
{
    struct world *w = plain();
    struct cache_file *f = cache_file_new(w->cache, "b", "k", NULL, w);
    struct cache_handle *h = cache_handle_new(f);
    char got[16] = "";
    g_assert_true(cache_file_dirty(f));
    g_assert_cmpint(cache_write(h, "world", 5, 6, false, NULL), ==, 0);
    g_assert_cmpint(cache_write(h, "hello ", 6, 0, false, NULL), ==, 0);
    g_assert_cmpint(cache_write(h, "!", 1, 0, true, NULL), ==, 0);
    g_assert_cmpuint(cache_file_size(f), ==, 12);
    g_assert_cmpint(read_at(h, got, 16, 0), ==, 12);
    g_assert_cmpmem(got, 12, "hello world!", 12);
    g_assert_cmpint(flush(h), ==, 0);
    assert_object(w, "k", "hello world!", 12);
    g_assert_false(cache_file_dirty(f));
    g_assert_cmpuint(w->committed, ==, 1);
    g_assert_cmpint(flush(h), ==, 0);
    g_assert_cmpint(cache_file_flush(f, NULL), ==, 0);
    g_assert_cmpuint(count(w, STORE_PUT), ==, 1);

    /* A second version, conditional on the first; the bytes are read from the base. */
    g_assert_cmpint(cache_write(h, "H", 1, 0, false, NULL), ==, 0);
    memset(got, 0, sizeof(got));
    g_assert_cmpint(read_at(h, got, 16, 0), ==, 12);
    g_assert_cmpmem(got, 12, "Hello world!", 12);
    g_assert_cmpint(flush(h), ==, 0);
    assert_object(w, "k", "Hello world!", 12);
    struct cache_stats st = await_unstaged(w);
    g_assert_cmpuint(st.dirty_files, ==, 0);
    g_assert_cmpuint(st.commits, ==, 2);
    cache_handle_free(h);
    cache_file_unref(f);
    world_free(w);
}

static void test_empty_and_sparse(void)
{
    struct world *w = plain();
    struct cache_file *f = cache_file_new(w->cache, "b", "k", NULL, w);
    struct cache_handle *h = cache_handle_new(f);
    g_assert_cmpint(flush(h), ==, 0);
    assert_object(w, "k", "", 0);
    g_assert_cmpint(cache_file_truncate(f, 3, NULL), ==, 0);
    g_assert_cmpint(cache_write(h, "x", 1, 5, false, NULL), ==, 0);
    g_assert_cmpint(flush(h), ==, 0);
    assert_object(w, "k", "\0\0\0\0\0x", 6);
    g_assert_cmpint(cache_file_truncate(f, 4, NULL), ==, 0);
    g_assert_cmpint(cache_file_truncate(f, 6, NULL), ==, 0);
    g_assert_cmpint(flush(h), ==, 0);
    assert_object(w, "k", "\0\0\0\0\0\0", 6);
    g_assert_cmpint(cache_file_truncate(f, STORE_OBJECT_MAX + 1, NULL), ==, -EFBIG);
    g_assert_cmpint(cache_write(h, "x", 1, STORE_OBJECT_MAX, false, NULL), ==, -EFBIG);
    g_assert_cmpint(cache_file_truncate(f, 1ULL << 40, NULL), ==, 0); /* costs nothing here */
    g_assert_cmpint(cache_file_truncate(f, 0, NULL), ==, 0);
    g_assert_cmpint(flush(h), ==, 0);
    assert_object(w, "k", "", 0);
    cache_handle_free(h);
    cache_file_unref(f);
    world_free(w);
}

static void test_stream(void)
{
    struct world *w = plain();
    struct cache_file *f = cache_file_new(w->cache, "b", "k", NULL, w);
    struct cache_handle *h = cache_handle_new(f);
    const size_t n = 4 * PART + 12345;
    g_autofree uint8_t *all = write_in_order(h, n);
    /* A header written at the end makes its part, and no other, go up again. */
    memcpy(all + 100, "moov", 4);
    g_assert_cmpint(cache_write(h, "moov", 4, 100, false, NULL), ==, 0);
    g_assert_cmpint(flush(h), ==, 0);
    assert_object(w, "k", all, n);
    g_assert_cmpuint(count(w, STORE_MPU_CREATE), ==, 1);
    g_assert_cmpuint(count(w, STORE_MPU_PART), ==, 4 + 1 + 1);
    g_assert_cmpuint(count(w, STORE_PUT) + count(w, STORE_COPY), ==, 0);

    /* An append to it copies what is there. */
    g_assert_cmpint(cache_write(h, "tail", 4, 0, true, NULL), ==, 0);
    g_assert_cmpint(flush(h), ==, 0);
    g_autofree uint8_t *more = g_malloc(n + 4);
    memcpy(more, all, n);
    memcpy(more + n, "tail", 4);
    assert_object(w, "k", more, n + 4);
    g_assert_cmpuint(count(w, STORE_MPU_COPY_PART), ==, 1);
    g_assert_cmpuint(count(w, STORE_MPU_PART), ==, 6 + 1);
    cache_handle_free(h);
    cache_file_unref(f);
    world_free(w);
}

static void test_stream_headers(void)
{
    struct world *w = plain();
    struct cache_file *f = cache_file_new(w->cache, "b", "k", NULL, w);
    struct cache_handle *h = cache_handle_new(f);
    g_autofree uint8_t *all = write_in_order(h, 2 * PART + 1);
    _cleanup_headers_ struct store_headers hd = {0};
    store_headers_set_meta(&hd, "mtime", "12.5");
    cache_file_set_headers(f, &hd);
    g_assert_cmpint(flush(h), ==, 0);
    assert_object(w, "k", all, 2 * PART + 1);
    _cleanup_object_ struct store_object o = {0};
    g_bytes_unref(fake_store_get(w->fake, "b", "k", &o));
    g_assert_cmpstr(store_headers_get_meta(&o.headers, "mtime"), ==, "12.5");
    g_assert_nonnull(store_headers_get_meta(&o.headers, "mlopsfs-commit"));
    g_assert_cmpstr(w->etag, ==, o.etag);
    g_assert_cmpuint(count(w, STORE_COPY), ==, 1);
    g_assert_false(cache_file_dirty(f));

    store_headers_set_meta(&hd, "mtime", "13");
    cache_file_set_headers(f, &hd);
    g_assert_true(cache_file_dirty(f));
    g_assert_false(cache_file_data_dirty(f));
    g_assert_cmpint(flush(h), ==, 0);
    g_assert_cmpuint(count(w, STORE_COPY), ==, 2);
    g_assert_cmpuint(count(w, STORE_PUT), ==, 0);
    cache_handle_free(h);
    cache_file_unref(f);
    world_free(w);
}

static void is_meta(struct world *w, const char *color, const char *mode)
{
    _cleanup_object_ struct store_object o = {0};
    g_bytes_unref(fake_store_get(w->fake, "b", "k", &o));
    g_assert_cmpstr(store_headers_get_meta(&o.headers, "color"), ==, color);
    g_assert_cmpstr(store_headers_get_meta(&o.headers, "mode"), ==, mode);
}

/* Somebody else gives the object other headers, and the ETag stays: a commit starts from them. */
static void test_renew_headers(void)
{
    struct world *w = plain();
    g_free(fake_store_put(w->fake, "b", "k", "bytes", 5));
    struct cache_file *f = open_object(w, "k");
    struct cache_handle *h = cache_handle_new(f);
    char got[5];
    g_assert_cmpint(read_at(h, got, 5, 0), ==, 5);
    uint64_t gets = count(w, STORE_GET);
    _cleanup_object_ struct store_object o = {0};
    g_bytes_unref(fake_store_get(w->fake, "b", "k", &o));
    g_assert_false(cache_file_renew_headers(f, &o));
    store_headers_set_meta(&o.headers, "color", "red");
    g_assert_true(cache_file_renew_headers(f, &o));
    g_assert_false(cache_file_renew_headers(f, &o));
    g_assert_false(cache_file_dirty(f));
    g_assert_cmpint(read_at(h, got, 5, 0), ==, 5); /* the same version: nothing is fetched again */
    g_assert_cmpmem(got, 5, "bytes", 5);
    g_assert_cmpuint(count(w, STORE_GET), ==, gets);

    _cleanup_object_ struct store_object other = {.etag = g_strdup("another"), .size = 5};
    g_assert_false(cache_file_renew_headers(f, &other));
    g_assert_cmpint(cache_write(h, "B", 1, 0, false, NULL), ==, 0);
    g_assert_cmpint(flush(h), ==, 0);
    assert_object(w, "k", "Bytes", 5);
    is_meta(w, "red", NULL);

    /* What was set here and is not committed yet stays. */
    _cleanup_object_ struct store_object now = {0};
    g_bytes_unref(fake_store_get(w->fake, "b", "k", &now));
    store_headers_set_meta(&now.headers, "mode", "33152");
    cache_file_set_headers(f, &now.headers);
    store_headers_set_meta(&now.headers, "mode", NULL);
    store_headers_set_meta(&now.headers, "color", "blue");
    g_assert_true(cache_file_renew_headers(f, &now));
    g_assert_true(cache_file_dirty(f));
    g_assert_cmpint(flush(h), ==, 0);
    is_meta(w, "red", "33152");
    cache_handle_free(h);
    cache_file_unref(f);
    world_free(w);
}

/* A file of four times the disk; a read and a write of what is no longer local on the way. */
static void test_larger_than_disk(void)
{
    struct world *w = world_new(test_seed(), &(struct world_params){.uploads = 3});
    struct cache_file *f = cache_file_new(w->cache, "b", "k", NULL, w);
    struct cache_handle *h = cache_handle_new(f);
    const size_t n = 160 * MIB + 77;
    g_autofree uint8_t *all = g_malloc(n);
    fill(all, n, 3);
    struct cache_stats st;
    g_autofree uint8_t *got = g_malloc(MIB);
    for (size_t off = 0; off < n; off += MIB) {
        g_assert_cmpint(cache_write(h, all + off, MIN(n - off, MIB), off, false, NULL), ==, 0);
        cache_get_stats(w->cache, &st);
        g_assert_cmpuint(st.staged, <=, 40 * MIB);
        if (off != 100 * MIB)
            continue;
        g_assert_cmpuint(count(w, STORE_PUT) + count(w, STORE_MPU_COMPLETE), ==, 0);
        g_assert_cmpint(read_at(h, got, MIB, 3 * MIB + 5), ==, (ssize_t)MIB);
        g_assert_cmpmem(got, MIB, all + 3 * MIB + 5, MIB);
        g_assert_cmpuint(count(w, STORE_MPU_COMPLETE), ==, 1); /* it was published for that */
    }
    memset(all + 7, 9, 100);
    g_assert_cmpint(cache_write(h, all + 7, 100, 7, false, NULL), ==, 0);
    g_assert_cmpint(flush(h), ==, 0);
    assert_object(w, "k", all, n);
    await_unstaged(w);
    cache_handle_free(h);
    cache_file_unref(f);
    world_free(w);
}

/* What is no longer local is also published before it is overwritten, cut or renamed. */
static void test_punched_changes(void)
{
    for (int what = 0; what < 3; what++) {
        struct world *w = world_new(test_seed(), &(struct world_params){0});
        struct cache_file *f = cache_file_new(w->cache, "b", "k", NULL, w);
        struct cache_handle *h = cache_handle_new(f);
        size_t n = 60 * MIB;
        g_autofree uint8_t *all = write_in_order(h, n);
        g_assert_cmpuint(count(w, STORE_MPU_COMPLETE), ==, 0);
        if (what == 0) {
            all[1000] ^= 1;
            g_assert_cmpint(cache_write(h, all + 1000, 1, 1000, false, NULL), ==, 0);
        } else if (what == 1) {
            n = PART + 17;
            g_assert_cmpint(cache_file_truncate(f, n, NULL), ==, 0);
        } else {
            g_assert_cmpint(cache_file_retarget(f, "b", "k2", NULL, NULL), ==, 0);
        }
        g_assert_cmpuint(count(w, STORE_MPU_COMPLETE), ==, 1);
        g_assert_cmpint(flush(h), ==, 0);
        assert_object(w, what == 2 ? "k2" : "k", all, n);
        cache_handle_free(h);
        cache_file_unref(f);
        world_free(w);
    }
}

static void test_full_disk(void)
{
    struct world *w = plain();
    g_free(fake_store_put(w->fake, "b", "k", "old", 3));
    struct cache_file *f = open_object(w, "k");
    struct cache_handle *h = cache_handle_new(f);
    g_autofree uint8_t *buf = g_malloc(MIB);
    fill(buf, MIB, 1);
    unsigned n = 0;
    int r = 0;
    for (; r == 0; n++) /* not streamed: it has a base */
        r = cache_write(h, buf, MIB, 1 + n * MIB, false, NULL);
    g_assert_cmpint(r, ==, -ENOSPC);
    g_assert_cmpuint(n, >=, 20);
    g_assert_cmpuint(n, <=, 40);
    g_assert_cmpuint(cache_file_size(f), ==, 1 + (n - 1) * MIB);
    g_assert_cmpint(flush(h), ==, 0);
    g_assert_cmpint(cache_write(h, buf, MIB, 0, true, NULL), ==, 0);
    g_assert_cmpint(flush(h), ==, 0);
    GBytes *b = fake_store_get(w->fake, "b", "k", NULL);
    g_assert_cmpuint(g_bytes_get_size(b), ==, 1 + n * MIB);
    g_bytes_unref(b);

    /* Overwriting the same bytes again and again needs no room. */
    for (unsigned i = 0; i < 100; i++)
        g_assert_cmpint(cache_write(h, buf, MIB, 5, false, NULL), ==, 0);
    cache_handle_free(h);
    cache_file_unref(f);
    world_free(w);
}

static enum fake_action hold_parts(struct world *w, struct store_request *req)
{
    return req->verb == STORE_MPU_PART || req->verb == STORE_PUT ? FAKE_HOLD : FAKE_GO;
}

struct blocked {
    struct world *w;
    struct cancel *cancel;
    unsigned held;
};

static void *fire_when_held(void *arg)
{
    struct blocked *b = arg;
    fake_store_wait_held(b->w->fake, b->held);
    cancel_fire(b->cancel);
    return NULL;
}

/* A writer waits for parts under way, and can be told to stop. */
static void test_interrupted_write(void)
{
    struct world *w = plain();
    struct cache_file *f = cache_file_new(w->cache, "b", "k", NULL, w);
    struct cache_handle *h = cache_handle_new(f);
    world_set_hook(w, hold_parts);
    struct blocked b = {.w = w, .cancel = cancel_new(), .held = 5};
    pthread_t t;
    g_assert_cmpint(pthread_create(&t, NULL, fire_when_held, &b), ==, 0);
    g_autofree uint8_t *buf = g_malloc0(MIB);
    int r = 0;
    uint64_t off = 0;
    for (; r == 0; off += r == 0 ? MIB : 0)
        r = cache_write(h, buf, MIB, off, false, b.cancel);
    g_assert_cmpint(r, ==, -EINTR);
    pthread_join(t, NULL);
    g_assert_cmpuint(cache_file_size(f), ==, off);
    world_set_hook(w, NULL);
    fake_store_release(w->fake);
    cancel_free(b.cancel);
    g_assert_cmpint(cache_write(h, buf, MIB, off, false, NULL), ==, 0);
    g_assert_cmpint(flush(h), ==, 0);
    cache_handle_free(h);
    cache_file_unref(f);
    world_free(w);
}

static void never(struct cache_wait *w, int err)
{
    g_assert_not_reached();
}

static void test_flush_cancel(void)
{
    struct world *w = plain();
    struct cache_file *f = cache_file_new(w->cache, "b", "k", NULL, w);
    struct cache_handle *h = cache_handle_new(f);
    g_assert_cmpint(cache_write(h, "abc", 3, 0, false, NULL), ==, 0);
    world_set_hook(w, hold_parts);
    struct cache_wait wait = {.done = never};
    cache_flush(h, &wait);
    fake_store_wait_held(w->fake, 1);
    g_assert_true(cache_flush_cancel(h, &wait));
    g_assert_false(cache_flush_cancel(h, &wait));

    struct blocked b = {.w = w, .cancel = cancel_new(), .held = 1};
    cancel_fire(b.cancel);
    g_assert_cmpint(cache_file_flush(f, b.cancel), ==, -EINTR);
    g_assert_cmpint(cache_file_retarget(f, "b", "k2", NULL, b.cancel), ==, -EINTR);
    cancel_free(b.cancel);
    /* While it is committed, one may write; and the commit goes on when nobody is left. */
    g_assert_cmpint(cache_write(h, "XYZ", 3, 0, false, NULL), ==, 0);
    cache_handle_free(h);
    cache_file_unref(f);
    world_set_hook(w, NULL);
    fake_store_release(w->fake);
    cache_free(w->cache);
    assert_object(w, "k", "abc", 3);
    g_assert_cmpuint(w->committed, ==, 0); /* its owner is gone */
    store_free(w->store);
    g_assert_cmpint(rmdir(w->dir), ==, 0);
    g_free(w->dir);
    cond_fini(&w->changed);
    mutex_fini(&w->lock);
    g_free(w);
}

static enum fake_action hold_gets(struct world *w, struct store_request *req)
{
    return req->verb == STORE_GET ? FAKE_HOLD : FAKE_GO;
}

static void test_read_cancel(void)
{
    struct world *w = plain();
    g_autofree uint8_t *all = g_malloc0(MIB);
    g_free(fake_store_put(w->fake, "b", "k", all, MIB));
    struct cache_file *f = open_object(w, "k");
    struct cache_handle *h = cache_handle_new(f);
    world_set_hook(w, hold_gets);
    for (int dirty = 0; dirty < 2; dirty++) {
        if (dirty)
            g_assert_cmpint(cache_write(h, "x", 1, MIB / 2, false, NULL), ==, 0);
        struct call c;
        call_init(&c, all);
        struct cache_read r = {.off = 0, .len = MIB, .done = call_read_done, .ctx = &c};
        cache_read(h, &r);
        fake_store_wait_held(w->fake, 1);
        cache_read_cancel(h, &r);
        g_assert_cmpint(call_wait(&c), ==, -EINTR);
    }
    world_set_hook(w, NULL);
    fake_store_release(w->fake);
    g_assert_cmpint(read_at(h, all, MIB, 0), ==, (ssize_t)MIB);
    g_assert_cmpint(all[MIB / 2], ==, 'x');
    cache_handle_free(h);
    cache_file_unref(f);
    world_free(w);
}

static enum fake_action lose_copy_hold_head(struct world *w, struct store_request *req)
{
    if (req->verb == STORE_HEAD)
        return FAKE_HOLD;
    if (req->verb != STORE_COPY)
        return FAKE_GO;
    store_result_fail(&req->res, -EIO, STORE_CLASS_AMBIGUOUS, NULL, "connection reset");
    return FAKE_FAIL_AFTER;
}

/* Our commit has replaced the object, but does not know it yet: a read of the old version waits. */
static void test_read_during_commit(void)
{
    struct world *w = plain();
    g_autofree uint8_t *all = g_malloc(MIB), *got = g_malloc0(MIB);
    fill(all, MIB, 1);
    g_free(fake_store_put(w->fake, "b", "k", all, MIB));
    struct cache_file *f = open_object(w, "k");
    struct cache_handle *h = cache_handle_new(f);
    _cleanup_headers_ struct store_headers hd = {0};
    store_headers_set_meta(&hd, "mtime", "1");
    cache_file_set_headers(f, &hd);
    world_set_hook(w, lose_copy_hold_head);
    struct call c, fl;
    call_init(&fl, NULL);
    struct cache_wait wait = {.done = call_flush_done, .ctx = &fl};
    cache_flush(h, &wait);
    fake_store_wait_held(w->fake, 1);
    call_init(&c, got);
    struct cache_read r = {.off = 0, .len = MIB, .done = call_read_done, .ctx = &c};
    cache_read(h, &r);
    /* Its GET fails: requests run in any order, but it will not be the last of so many. */
    while (count(w, STORE_GET) == 0)
        sched_yield();
    for (int i = 0; i < 50; i++) {
        struct store_request list = {.verb = STORE_LIST, .bucket = "b"};
        g_assert_cmpint(store_run(w->fake, &list, NULL), ==, 0);
        store_request_clear(&list);
    }
    world_set_hook(w, NULL);
    fake_store_release(w->fake);
    g_assert_cmpint(call_wait(&fl), ==, 0);
    g_assert_cmpint(call_wait(&c), ==, 0);
    g_assert_cmpmem(got, MIB, all, MIB);
    cache_handle_free(h);
    cache_file_unref(f);
    world_free(w);
}

static void test_discard(void)
{
    struct world *w = plain();
    struct cache_file *f = cache_file_new(w->cache, "b", "k", NULL, w);
    struct cache_handle *h = cache_handle_new(f);
    world_set_hook(w, hold_parts);
    g_free(write_in_order(h, 4 * PART));
    fake_store_wait_held(w->fake, 4);
    cache_handle_free(h);
    cache_file_unref(f);
    world_set_hook(w, NULL);
    fake_store_release(w->fake);
    world_free(w); /* checks that no upload is left */
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/writer/small", test_small);
    g_test_add_func("/writer/empty-and-sparse", test_empty_and_sparse);
    g_test_add_func("/writer/stream", test_stream);
    g_test_add_func("/writer/stream-headers", test_stream_headers);
    g_test_add_func("/writer/renew-headers", test_renew_headers);
    g_test_add_func("/writer/larger-than-disk", test_larger_than_disk);
    g_test_add_func("/writer/punched-changes", test_punched_changes);
    g_test_add_func("/writer/full-disk", test_full_disk);
    g_test_add_func("/writer/interrupted-write", test_interrupted_write);
    g_test_add_func("/writer/flush-cancel", test_flush_cancel);
    g_test_add_func("/writer/read-cancel", test_read_cancel);
    g_test_add_func("/writer/read-during-commit", test_read_during_commit);
    g_test_add_func("/writer/discard", test_discard);
    return g_test_run();
}
