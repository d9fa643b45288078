/* SPDX-License-Identifier: Apache-2.0
 *
 * test_conflict: commits that meet someone else's version, in the modes that do not simply fail
 * (which the other tests of the writer have).
 */
#include <errno.h>
#include <string.h>

#include "cache/conflict.h"
#include "tests/cache/world.h"

#define KEEP CACHE_CONFLICT_KEEP_BOTH
#define OVER CACHE_CONFLICT_OVERWRITE

static struct world *world_of(enum cache_conflict mode)
{
    return world_new(test_seed(), &(struct world_params){.on_conflict = mode});
}

static void theirs(struct world *w, const char *key)
{
    g_free(fake_store_put(w->fake, "b", key, "theirs", 6));
}

static uint64_t conflicts(struct world *w)
{
    struct cache_stats st;
    cache_get_stats(w->cache, &st);
    return st.conflicts;
}

static void end(struct world *w, struct cache_file *f, struct cache_handle *h)
{
    cache_handle_free(h);
    cache_file_unref(f);
    world_free(w);
}

static void test_names(void)
{
    static const struct {
        const char *key, *like;
    } rows[] = {
        {"a/clip.mp4", "^a/clip \\(conflict \\d{4}-\\d\\d-\\d\\d \\d\\d-\\d\\d-\\d\\d\\)\\.mp4$"},
        {"plain", "^plain \\(conflict [-\\d ]{19}\\)$"},
        {"d/.hidden", "^d/\\.hidden \\(conflict [-\\d ]{19}\\)$"},
        {"a.b/c", "^a\\.b/c \\(conflict [-\\d ]{19}\\)$"},
        {"x (conflict 2001-01-01 00-00-00).mp4", "^x \\(conflict [-\\d ]{19}\\)\\.mp4$"},
        {"x (conflict 2001-01-01 00-00-00 2).mp4", "^x \\(conflict [-\\d ]{19}\\)\\.mp4$"},
        {" (conflict 1).mp4", "^ \\(conflict 1\\) \\(conflict [-\\d ]{19}\\)\\.mp4$"},
    };
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        g_autofree char *key = conflict_key(rows[i].key, 1000000000ULL * 1700000000, 0);
        g_test_message("%s", key);
        g_assert_true(g_regex_match_simple(rows[i].like, key, 0, 0));
    }
    g_autofree char *second = conflict_key("k.txt", 1000000000ULL * 1700000000, 1);
    g_assert_true(g_str_has_suffix(second, " 2).txt"));
    /* Names stay names, and text stays text. */
    GString *wide = g_string_new("dir/");
    for (unsigned i = 0; i < 84; i++)
        g_string_append(wide, "\xe2\x82\xac");
    g_string_append(wide, ".mp4");
    g_autofree char *cut = conflict_key(wide->str, 0, 0);
    g_assert_cmpuint(strlen(cut), <=, 4 + 255);
    g_assert_true(g_utf8_validate(cut, -1, NULL));
    g_assert_true(g_str_has_suffix(cut, ").mp4"));
    g_string_free(wide, TRUE);
    g_autofree char *full = g_strnfill(STORE_KEY_MAX, 'k');
    g_autofree char *fits = conflict_key(full, 0, 0);
    g_assert_cmpuint(strlen(fits), <=, STORE_KEY_MAX);
}

/* Both made it: ours is stored beside, and is what the handle has from then on. */
static void run_new(size_t n)
{
    struct world *w = world_of(KEEP);
    struct cache_file *f = cache_file_new(w->cache, "b", "d/k.txt", NULL, w);
    struct cache_handle *h = cache_handle_new(f);
    g_autofree uint8_t *all = write_in_order(h, n);
    theirs(w, "d/k.txt");
    g_assert_cmpint(flush(h), ==, 0);
    g_assert_cmpuint(w->parted, ==, 1);
    g_assert_cmpuint(w->committed, ==, 1);
    g_assert_cmpuint(conflicts(w), ==, 1);
    g_assert_true(g_regex_match_simple("^d/k \\(conflict .*\\)\\.txt$", w->beside, 0, 0));
    assert_object(w, "d/k.txt", "theirs", 6);
    assert_object(w, w->beside, all, n);
    g_assert_false(cache_file_dirty(f));
    g_assert_false(cache_file_conflicts(f));
    g_assert_true(cache_file_is_at(f, "b", w->beside));
    all[0] ^= 1;
    g_assert_cmpint(cache_write(h, all, 1, 0, false, NULL), ==, 0);
    g_assert_cmpint(flush(h), ==, 0);
    assert_object(w, w->beside, all, n);
    assert_object(w, "d/k.txt", "theirs", 6);
    g_assert_cmpuint(w->parted, ==, 1);
    end(w, f, h);
}

static void test_new(void)
{
    run_new(1);
    run_new(1000);
    run_new(3 * PART + 5);
}

/* Of an edit, what of the old version is still known here is brought along; else it stays staged, and says so. */
static void run_edit(bool known)
{
    struct world *w = world_of(KEEP);
    enum { N = 2 * PART };
    g_autofree uint8_t *all = g_malloc(N), *got = g_malloc(N);
    fill(all, N, 1);
    g_free(fake_store_put(w->fake, "b", "k", all, N));
    struct cache_file *f = open_object(w, "k");
    struct cache_handle *h = cache_handle_new(f);
    if (known)
        g_assert_cmpint(read_at(h, got, N, 0), ==, N);
    g_assert_cmpint(cache_write(h, "ours", 4, 100, false, NULL), ==, 0);
    memcpy(all + 100, "ours", 4);
    theirs(w, "k");
    g_assert_cmpint(flush(h), ==, known ? 0 : -ESTALE);
    assert_object(w, "k", "theirs", 6);
    if (known) {
        assert_object(w, w->beside, all, N);
    } else {
        g_assert_cmpuint(w->parted, ==, 0);
        g_assert_true(cache_file_conflicts(f));
        g_assert_true(cache_file_failed(f));
        g_assert_true(cache_file_is_at(f, "b", "k"));
        g_assert_cmpint(read_at(h, got, 4, 100), ==, 4);
        g_assert_cmpmem(got, 4, "ours", 4);
        /* Written whole, it can be kept after all. */
        g_assert_cmpint(cache_file_truncate(f, 0, NULL), ==, 0);
        g_assert_cmpint(cache_write(h, "whole", 5, 0, false, NULL), ==, 0);
        g_assert_cmpint(flush(h), ==, 0);
        assert_object(w, "k", "theirs", 6);
        assert_object(w, w->beside, "whole", 5);
    }
    end(w, f, h);
}

static void test_edit(void)
{
    run_edit(false);
    run_edit(true);
}

static struct cache_file *rewritten(struct world *w, size_t n, struct cache_handle **ret_h, uint8_t **ret_all)
{
    g_free(fake_store_put(w->fake, "b", "k", "base", 4));
    struct cache_file *f = open_object(w, "k");
    *ret_h = cache_handle_new(f);
    g_assert_cmpint(cache_file_truncate(f, 0, NULL), ==, 0);
    *ret_all = write_in_order(*ret_h, n);
    return f;
}

static void run_overwrite(size_t n, bool removed)
{
    struct world *w = world_of(OVER);
    struct cache_handle *h;
    uint8_t *all;
    struct cache_file *f = rewritten(w, n, &h, &all);
    if (removed)
        fake_store_delete(w->fake, "b", "k");
    else
        theirs(w, "k");
    g_assert_cmpint(flush(h), ==, 0);
    assert_object(w, "k", all, n);
    g_assert_cmpuint(w->parted, ==, 0);
    if (n > PART) /* only the short last part was sent again */
        g_assert_cmpuint(count(w, STORE_MPU_PART), <=, n / PART + 2);
    g_free(all);
    end(w, f, h);
}

static void test_overwrite(void)
{
    for (int removed = 0; removed < 2; removed++) {
        run_overwrite(1000, removed);
        run_overwrite(3 * PART + 5, removed);
    }
    struct world *w = world_of(OVER);
    g_autofree uint8_t *base = g_malloc0(2 * PART);
    g_free(fake_store_put(w->fake, "b", "k", base, 2 * PART));
    struct cache_file *f = open_object(w, "k");
    struct cache_handle *h = cache_handle_new(f);
    g_assert_cmpint(cache_write(h, "ours", 4, 100, false, NULL), ==, 0);
    theirs(w, "k");
    g_assert_cmpint(flush(h), ==, -ESTALE); /* a mixture is nobody's */
    assert_object(w, "k", "theirs", 6);
    end(w, f, h);
}

/* Where there is nothing any more, there are no two to keep. */
static void test_removed(void)
{
    struct world *w = world_of(KEEP);
    struct cache_handle *h;
    uint8_t *all;
    struct cache_file *f = rewritten(w, 1000, &h, &all);
    fake_store_delete(w->fake, "b", "k");
    g_assert_cmpint(flush(h), ==, 0);
    assert_object(w, "k", all, 1000);
    g_assert_cmpuint(w->parted, ==, 0);
    g_free(all);
    end(w, f, h);
}

static enum fake_action take_the_name(struct world *w, struct store_request *req)
{
    if (req->verb == STORE_PUT && strstr(req->key, "(conflict") && w->hits++ < 2) {
        mutex_unlock(&w->lock); /* the store's is taken before it */
        theirs(w, req->key);
        mutex_lock(&w->lock);
    }
    return FAKE_GO;
}

static void test_name_taken(void)
{
    struct world *w = world_of(KEEP);
    struct cache_handle *h;
    uint8_t *all;
    struct cache_file *f = rewritten(w, 1000, &h, &all);
    theirs(w, "k");
    world_set_hook(w, take_the_name);
    g_assert_cmpint(flush(h), ==, 0);
    assert_object(w, "k", "theirs", 6);
    assert_object(w, w->beside, all, 1000);
    g_assert_true(g_str_has_suffix(w->beside, " 3)"));
    g_free(all);
    end(w, f, h);
}

/* The reply of the PUT beside is lost, and nobody answers for a while. */
static enum fake_action lose_it(struct world *w, struct store_request *req)
{
    if (req->verb == STORE_PUT && strstr(req->key, "(conflict") && w->hits++ == 0) {
        g_free(w->beside);
        w->beside = g_strdup(req->key);
        store_result_fail(&req->res, -ETIMEDOUT, STORE_CLASS_AMBIGUOUS, NULL, "lost");
        return FAKE_FAIL_AFTER;
    }
    if (w->hits == 0)
        return FAKE_GO;
    store_result_fail(&req->res, -ETIMEDOUT, STORE_CLASS_RETRY, NULL, "down");
    return FAKE_FAIL;
}

static void test_lost_reply(void)
{
    struct world *w = world_of(KEEP);
    struct cache_handle *h;
    uint8_t *all;
    struct cache_file *f = rewritten(w, 1000, &h, &all);
    theirs(w, "k");
    world_set_hook(w, lose_it);
    g_assert_cmpint(flush(h), ==, -ETIMEDOUT);
    g_assert_cmpint(flush(h), ==, -ETIMEDOUT);
    g_assert_false(cache_file_conflicts(f));
    world_set_hook(w, NULL);
    g_autofree char *first = g_strdup(w->beside);
    uint64_t puts = count(w, STORE_PUT);
    g_assert_cmpint(flush(h), ==, 0);
    g_assert_cmpstr(w->beside, ==, first); /* it was there already: no second copy */
    g_assert_cmpuint(count(w, STORE_PUT) - puts, ==, 1); /* the one that met theirs */
    assert_object(w, first, all, 1000);
    assert_object(w, "k", "theirs", 6);
    g_free(all);
    end(w, f, h);
}

/* A rename's name, or attributes alone, are not stored beside. */
static void test_stays(void)
{
    struct world *w = world_of(KEEP);
    struct cache_handle *h;
    uint8_t *all;
    struct cache_file *f = rewritten(w, 1000, &h, &all);
    theirs(w, "k");
    cache_file_stay(f, true);
    g_assert_cmpint(flush(h), ==, -ESTALE);
    cache_file_stay(f, false);
    g_assert_cmpuint(w->parted, ==, 0);
    g_assert_cmpint(flush(h), ==, 0);
    g_assert_cmpuint(w->parted, ==, 1);
    cache_handle_free(h);
    cache_file_unref(f);
    g_free(all);

    f = open_object(w, "k");
    h = cache_handle_new(f);
    struct store_headers head = {0};
    store_headers_set_meta(&head, "mode", "33188");
    cache_file_set_headers(f, &head);
    store_headers_clear(&head);
    theirs(w, "k");
    g_assert_cmpint(flush(h), ==, -ESTALE);
    g_assert_cmpuint(w->parted, ==, 1);
    end(w, f, h);
}

static bool take(void *ctx, struct cache_file *f)
{
    *(struct cache_file **)ctx = f;
    return true;
}

static enum fake_action down(struct world *w, struct store_request *req)
{
    (void)w;
    store_result_fail(&req->res, -EIO, STORE_CLASS_FATAL, NULL, "down");
    return FAKE_FAIL;
}

/* What an earlier mount left meets theirs: with `tried`, that mount had stored it beside and not heard of it. */
static void run_replay(bool tried)
{
    struct world *w = world_of(KEEP);
    struct cache_handle *h;
    uint8_t *all;
    struct cache_file *f = rewritten(w, 1000, &h, &all);
    if (tried)
        theirs(w, "k");
    world_set_hook(w, tried ? lose_it : down);
    g_assert_cmpint(flush(h), <, 0);
    cache_handle_free(h);
    g_assert_cmpint(cache_file_keep(f), ==, 0);
    cache_file_unref(f);
    cache_free(w->cache);
    world_set_hook(w, NULL);
    if (!tried)
        theirs(w, "k");
    struct cache_params cp = {.store = w->store, .dir = w->dir, .memory = 32 * MIB, .part_size = PART,
                              .committed = world_committed, .on_conflict = KEEP, .parted = world_parted};
    g_assert_cmpint(cache_new(&cp, &w->cache), ==, 0);
    g_assert_cmpint(cache_adopt(w->cache, take, &f), ==, 0);
    cache_file_set_owner(f, w);
    g_assert_cmpint(cache_file_flush(f, NULL), ==, 0);
    assert_object(w, "k", "theirs", 6);
    assert_object(w, w->beside, all, 1000);
    g_free(all);
    cache_file_unref(f);
    world_free(w);
}

static void test_replay(void)
{
    run_replay(false);
    run_replay(true);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/conflict/names", test_names);
    g_test_add_func("/conflict/new", test_new);
    g_test_add_func("/conflict/edit", test_edit);
    g_test_add_func("/conflict/overwrite", test_overwrite);
    g_test_add_func("/conflict/removed", test_removed);
    g_test_add_func("/conflict/name-taken", test_name_taken);
    g_test_add_func("/conflict/lost-reply", test_lost_reply);
    g_test_add_func("/conflict/stays", test_stays);
    g_test_add_func("/conflict/replay", test_replay);
    return g_test_run();
}
