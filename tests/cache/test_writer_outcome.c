/* SPDX-License-Identifier: Apache-2.0
 *
 * test_writer_outcome: commits whose outcome stays unknown for a while, because the reply was lost
 * and the store could not be asked. What they did is recognised as our own later.
 */
#include <errno.h>
#include <string.h>

#include "cache/plan.h"
#include "tests/cache/world.h"
#include "tests/lib/seed.h"

static bool appears(const struct store_request *req)
{
    return req->verb == STORE_PUT || req->verb == STORE_COPY || req->verb == STORE_MPU_COMPLETE;
}

/* The first request that makes the object appear works; its reply, and all HEADs after, are lost. */
static enum fake_action outage(struct world *w, struct store_request *req)
{
    if (appears(req) && w->hits++ == 0) {
        bool conditional = req->if_match || req->if_none_match;
        store_result_fail(&req->res, -ETIMEDOUT,
                          conditional ? STORE_CLASS_AMBIGUOUS : STORE_CLASS_RETRY, NULL, "lost");
        return FAKE_FAIL_AFTER;
    }
    if (w->hits == 0)
        return FAKE_GO;
    store_result_fail(&req->res, -ETIMEDOUT, STORE_CLASS_RETRY, NULL, "down");
    return FAKE_FAIL;
}

/* The same, but the request has no effect. */
static enum fake_action early_outage(struct world *w, struct store_request *req)
{
    enum fake_action a = outage(w, req);
    return a == FAKE_FAIL_AFTER ? FAKE_FAIL : a;
}

static void assert_readable(struct cache_handle *h, const uint8_t *all, size_t n)
{
    g_autofree uint8_t *got = g_malloc(n + 1);
    g_assert_cmpint(read_at(h, got, n + 1, 0), ==, (ssize_t)n);
    g_assert_true(memcmp(got, all, n) == 0);
}

enum change { SAME, TRUNCATE, EMPTY, OVERWRITE, APPEND, CHANGES };

static size_t change(struct cache_handle *h, struct cache_file *f, enum change how, uint8_t *all,
                     size_t n, size_t cut)
{
    switch (how) {
    case TRUNCATE:
        g_assert_cmpint(cache_file_truncate(f, cut, NULL), ==, 0);
        return cut;
    case EMPTY:
        g_assert_cmpint(cache_file_truncate(f, 0, NULL), ==, 0);
        g_assert_cmpint(cache_write(h, "new", 3, 0, false, NULL), ==, 0);
        memcpy(all, "new", 3);
        return 3;
    case OVERWRITE:
        g_assert_cmpint(cache_write(h, "new", 3, 1, false, NULL), ==, 0);
        memcpy(all + 1, "new", 3);
        return n;
    case APPEND:
        g_assert_cmpint(cache_write(h, "new", 3, n, false, NULL), ==, 0);
        memcpy(all + n, "new", 3);
        return n + 3;
    default:
        return n;
    }
}

struct unknown_case {
    bool streamed, old, caps_less, applied;
    enum change how;
};

static void run_unknown(const struct unknown_case *k)
{
    struct store_caps none = {0};
    struct world *w =
        world_new(test_seed(), &(struct world_params){.caps = k->caps_less ? &none : NULL});
    g_test_message("streamed %d old %d caps-less %d applied %d change %d", k->streamed, k->old,
                   k->caps_less, k->applied, k->how);
    size_t n = k->streamed ? 2 * PART + 1000 : 100, cut = k->streamed ? 2 * PART : 50;
    if (k->old)
        g_free(fake_store_put(w->fake, "b", "k", "", 0));
    struct cache_file *f = k->old ? open_object(w, "k") : cache_file_new(w->cache, "b", "k", NULL, w);
    struct cache_handle *h = cache_handle_new(f);
    uint8_t *all = g_realloc(write_in_order(h, n), n + 3);
    world_set_hook(w, k->applied ? outage : early_outage);
    g_assert_cmpint(flush(h), ==, -ETIMEDOUT);
    g_assert_cmpint(flush(h), ==, -ETIMEDOUT); /* still down */
    world_set_hook(w, NULL);
    n = change(h, f, k->how, all, n, cut);
    g_assert_cmpint(flush(h), ==, 0);
    assert_object(w, "k", all, n);
    g_assert_false(cache_file_dirty(f));
    assert_readable(h, all, n);
    /* It goes on from there. */
    g_assert_cmpint(cache_write(h, "z", 1, 0, false, NULL), ==, 0);
    all[0] = 'z';
    g_assert_cmpint(flush(h), ==, 0);
    assert_object(w, "k", all, n);
    /* And what is someone else's is still seen as that. */
    g_free(fake_store_put(w->fake, "b", "k", "theirs", 6));
    g_assert_cmpint(cache_write(h, "y", 1, 0, false, NULL), ==, 0);
    g_assert_cmpint(flush(h), ==, -ESTALE);
    assert_object(w, "k", "theirs", 6);
    g_free(all);
    cache_handle_free(h);
    cache_file_unref(f);
    world_free(w);
}

static void test_unknown(void)
{
    for (unsigned bits = 0; bits < 16; bits++)
        for (enum change how = SAME; how < CHANGES; how++)
            run_unknown(&(struct unknown_case){.streamed = bits & 1,
                                               .old = bits & 2,
                                               .caps_less = bits & 4,
                                               .applied = bits & 8,
                                               .how = how});
}

/* An object that we made first, and someone else replaced before we could ask. */
static void test_unknown_then_theirs(void)
{
    for (int big = 0; big < 2; big++) {
        struct world *w = plain();
        struct cache_file *f = cache_file_new(w->cache, "b", "k", NULL, w);
        struct cache_handle *h = cache_handle_new(f);
        g_free(write_in_order(h, big ? 2 * PART + 1 : 100));
        world_set_hook(w, outage);
        g_assert_cmpint(flush(h), ==, -ETIMEDOUT);
        world_set_hook(w, NULL);
        g_free(fake_store_put(w->fake, "b", "k", "theirs", 6));
        g_assert_cmpint(flush(h), ==, -ESTALE);
        assert_object(w, "k", "theirs", 6);
        cache_handle_free(h);
        cache_file_unref(f);
        world_free(w);
    }
}

static enum fake_action lose_copy(struct world *w, struct store_request *req)
{
    if (req->verb != STORE_COPY || w->hits++ > 0)
        return FAKE_GO;
    store_result_fail(&req->res, -ETIMEDOUT, STORE_CLASS_RETRY, NULL, "lost");
    return FAKE_FAIL_AFTER;
}

static void set_type(struct cache_file *f, const char *type)
{
    _cleanup_headers_ struct store_headers headers = {.content_type = g_strdup(type)};
    cache_file_set_headers(f, &headers);
}

static void test_unknown_copy(void)
{
    for (int down = 0; down < 2; down++) {
        for (int more = 0; more < 3; more++) {
            struct world *w = plain();
            g_free(fake_store_put(w->fake, "b", "k", "0123456789", 10));
            struct cache_file *f = open_object(w, "k");
            struct cache_handle *h = cache_handle_new(f);
            uint8_t all[] = "0123456789";
            set_type(f, "a/b");
            world_set_hook(w, down ? outage : lose_copy);
            g_assert_cmpint(flush(h), ==, down ? -ETIMEDOUT : 0);
            world_set_hook(w, NULL);
            if (more == 1)
                set_type(f, "c/d");
            if (more == 2)
                change(h, f, OVERWRITE, all, 10, 0);
            g_assert_cmpint(flush(h), ==, 0);
            assert_object(w, "k", all, 10);
            assert_readable(h, all, 10);
            _cleanup_object_ struct store_object o = {0};
            g_bytes_unref(fake_store_get(w->fake, "b", "k", &o));
            g_assert_cmpstr(o.headers.content_type, ==, more == 1 ? "c/d" : "a/b");
            g_assert_false(cache_file_dirty(f));
            cache_handle_free(h);
            cache_file_unref(f);
            world_free(w);
        }
    }
}

/* More than staging holds: much of it is in the upload only. */
#define LARGE (40 * PART + 1000)

static void test_unknown_punched(void)
{
    const enum change hows[] = {SAME, APPEND, EMPTY, TRUNCATE};
    for (int applied = 0; applied < 2; applied++) {
        for (unsigned i = 0; i < G_N_ELEMENTS(hows); i++) {
            struct world *w = plain();
            struct cache_file *f = cache_file_new(w->cache, "b", "k", NULL, w);
            struct cache_handle *h = cache_handle_new(f);
            uint8_t *all = g_realloc(write_in_order(h, LARGE), LARGE + 3);
            world_set_hook(w, applied ? outage : early_outage);
            g_assert_cmpint(flush(h), ==, -ETIMEDOUT);
            world_set_hook(w, NULL);
            size_t n = change(h, f, hows[i], all, LARGE, 40 * PART);
            g_assert_cmpint(flush(h), ==, 0);
            assert_object(w, "k", all, n);
            assert_readable(h, all, n);
            g_free(all);
            cache_handle_free(h);
            cache_file_unref(f);
            world_free(w);
        }
    }
}

/* While a COMPLETE may have worked, no part may follow it. */
static void test_unknown_then_full(void)
{
    struct world *w = plain();
    struct cache_file *f = cache_file_new(w->cache, "b", "k", NULL, w);
    struct cache_handle *h = cache_handle_new(f);
    const size_t first = 2 * PART + 1000;
    g_autofree uint8_t *all = g_malloc(LARGE);
    fill(all, LARGE, 1);
    for (size_t off = 0; off < LARGE;) {
        size_t n = MIN((off < first ? first : LARGE) - off, 256 << 10);
        g_assert_cmpint(cache_write(h, all + off, n, off, false, NULL), ==, 0);
        off += n;
        if (off == first) {
            world_set_hook(w, outage);
            g_assert_cmpint(flush(h), ==, -ETIMEDOUT);
            world_set_hook(w, NULL);
        }
    }
    g_assert_cmpint(flush(h), ==, 0);
    assert_object(w, "k", all, LARGE);
    cache_handle_free(h);
    cache_file_unref(f);
    world_free(w);
}

static enum fake_action spoil_part(struct world *w, struct store_request *req)
{
    if (req->verb != STORE_MPU_COMPLETE || w->hits++ > 0)
        return FAKE_GO;
    store_result_fail(&req->res, -EINVAL, STORE_CLASS_FATAL, "InvalidPart", "no such part");
    return FAKE_FAIL;
}

static void test_invalid_part(void)
{
    for (int large = 0; large < 2; large++) {
        size_t n = large ? LARGE : 2 * PART + 1;
        struct world *w = plain();
        struct cache_file *f = cache_file_new(w->cache, "b", "k", NULL, w);
        struct cache_handle *h = cache_handle_new(f);
        g_autofree uint8_t *all = write_in_order(h, n);
        world_set_hook(w, spoil_part);
        g_assert_cmpint(flush(h), ==, 0);
        assert_object(w, "k", all, n);
        g_assert_cmpuint(count(w, STORE_MPU_CREATE), ==, large ? 1 : 2);
        cache_handle_free(h);
        cache_file_unref(f);
        world_free(w);
    }
}

static enum fake_action spoil_all(struct world *w, struct store_request *req)
{
    if (req->verb != STORE_MPU_COMPLETE)
        return FAKE_GO;
    store_result_fail(&req->res, -EINVAL, STORE_CLASS_FATAL, "InvalidPart", "no such part");
    return FAKE_FAIL;
}

static void test_invalid_part_always(void)
{
    for (int large = 0; large < 2; large++) {
        struct world *w = plain();
        struct cache_file *f = cache_file_new(w->cache, "b", "k", NULL, w);
        struct cache_handle *h = cache_handle_new(f);
        g_free(write_in_order(h, large ? LARGE : 2 * PART + 1));
        world_set_hook(w, spoil_all);
        g_assert_cmpint(flush(h), ==, -EINVAL);
        g_assert_cmpuint(count(w, STORE_MPU_COMPLETE), ==, 2);
        g_assert_true(cache_file_data_dirty(f));
        cache_handle_free(h);
        cache_file_unref(f);
        world_free(w);
    }
}

/* Counts requests that carry a condition. */
static enum fake_action watch_conditions(struct world *w, struct store_request *req)
{
    if ((req->verb == STORE_PUT || req->verb == STORE_MPU_COMPLETE) &&
        (req->if_match || req->if_none_match))
        w->hits++;
    return FAKE_GO;
}

static enum fake_action refuse_conditions(struct world *w, struct store_request *req)
{
    if (watch_conditions(w, req), !appears(req) || (!req->if_match && !req->if_none_match))
        return FAKE_GO;
    store_result_fail(&req->res, -EOPNOTSUPP, STORE_CLASS_FATAL, "NotImplemented", "no");
    return FAKE_FAIL;
}

static void test_conditions_unproven(void)
{
    for (int bits = 0; bits < 8; bits++) {
        struct store_caps none = {0};
        struct world *w =
            world_new(test_seed(), &(struct world_params){.caps = bits & 1 ? &none : NULL});
        struct cache_file *f = cache_file_new(w->cache, "b", "k", NULL, w);
        struct cache_handle *h = cache_handle_new(f);
        world_set_hook(w, bits & 2 ? refuse_conditions : watch_conditions);
        size_t n = bits & 4 ? 2 * PART + 1 : 10;
        g_autofree uint8_t *all = write_in_order(h, n);
        g_assert_cmpint(flush(h), ==, 0);
        g_assert_cmpint(cache_write(h, "x", 1, 0, false, NULL), ==, 0);
        all[0] = 'x';
        g_assert_cmpint(flush(h), ==, 0);
        assert_object(w, "k", all, n);
        mutex_lock(&w->lock);
        g_assert_cmpuint(w->hits, ==, 2);
        mutex_unlock(&w->lock);
        /* Without conditions there is still the look before. */
        g_free(fake_store_put(w->fake, "b", "k", "theirs", 6));
        g_assert_cmpint(cache_write(h, "y", 1, 0, false, NULL), ==, 0);
        g_assert_cmpint(flush(h), ==, -ESTALE);
        assert_object(w, "k", "theirs", 6);
        cache_handle_free(h);
        cache_file_unref(f);
        world_free(w);
    }
}

/* What the parts' schedule cannot hold is refused when it is written, not when it is committed. */
static void test_too_large(void)
{
    struct world *w = plain();
    struct cache_file *f = cache_file_new(w->cache, "b", "k", NULL, w);
    struct cache_handle *h = cache_handle_new(f);
    struct plan_limits l;
    plan_limits_init(&l, PART, 0);
    g_assert_cmpuint(l.size_max, <, STORE_OBJECT_MAX);
    g_assert_cmpint(cache_file_truncate(f, l.size_max + 1, NULL), ==, -EFBIG);
    g_assert_cmpint(cache_write(h, "xy", 2, l.size_max - 1, false, NULL), ==, -EFBIG);
    g_assert_cmpuint(cache_file_size(f), ==, 0);
    g_assert_cmpint(cache_file_truncate(f, l.size_max, NULL), ==, 0);
    g_assert_cmpint(cache_file_truncate(f, 0, NULL), ==, 0);
    cache_handle_free(h);
    cache_file_unref(f);
    world_free(w);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/writer-outcome/unknown", test_unknown);
    g_test_add_func("/writer-outcome/unknown-then-theirs", test_unknown_then_theirs);
    g_test_add_func("/writer-outcome/unknown-copy", test_unknown_copy);
    g_test_add_func("/writer-outcome/unknown-punched", test_unknown_punched);
    g_test_add_func("/writer-outcome/unknown-then-full", test_unknown_then_full);
    g_test_add_func("/writer-outcome/invalid-part", test_invalid_part);
    g_test_add_func("/writer-outcome/invalid-part-always", test_invalid_part_always);
    g_test_add_func("/writer-outcome/conditions-unproven", test_conditions_unproven);
    g_test_add_func("/writer-outcome/too-large", test_too_large);
    return g_test_run();
}
