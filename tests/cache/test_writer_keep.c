/* SPDX-License-Identifier: Apache-2.0
 *
 * test_writer_keep: a commit keeps its base's tags and storage class, whichever way it goes, and
 * asks for tags only where it must.
 */
#include <errno.h>
#include <string.h>

#include "tests/cache/world.h"
#include "tests/lib/seed.h"

static void set_tag(struct world *w, const char *key, const char *value)
{
    g_autoptr(GHashTable) tags = g_hash_table_new(g_str_hash, g_str_equal);
    static char name[] = "team";
    g_autofree char *copy = g_strdup(value);
    if (value)
        g_hash_table_insert(tags, name, copy);
    _cleanup_request_ struct store_request req = {
        .verb = STORE_TAGS_PUT, .bucket = "b", .key = key, .tags = tags};
    g_assert_cmpint(store_run(w->fake, &req, NULL), ==, 0);
}

/* The fake's own way to put bytes knows no class: they are copied under it. */
static void put_old(struct world *w, const char *key, size_t n, const char *class)
{
    g_autofree uint8_t *all = g_malloc0(n);
    g_free(fake_store_put(w->fake, "b", "bytes", all, n));
    _cleanup_request_ struct store_request copy = {.verb = STORE_COPY,
                                                   .bucket = "b",
                                                   .key = key,
                                                   .from_bucket = "b",
                                                   .from_key = "bytes",
                                                   .storage_class = class};
    g_assert_cmpint(store_run(w->fake, &copy, NULL), ==, 0);
}

static void assert_kept(struct world *w, const char *key, const char *tag, const char *class)
{
    _cleanup_request_ struct store_request tags = {
        .verb = STORE_TAGS_GET, .bucket = "b", .key = key};
    g_assert_cmpint(store_run(w->fake, &tags, NULL), ==, 0);
    g_assert_cmpstr(g_hash_table_lookup(tags.res.tags, "team"), ==, tag);
    struct store_object o = {0};
    g_bytes_unref(fake_store_get(w->fake, "b", key, &o));
    g_assert_cmpstr(o.storage_class, ==, class);
    store_object_clear(&o);
}

static void touch(struct cache_file *f, const char *when)
{
    struct store_headers h = {0};
    store_headers_set_meta(&h, "mtime", when);
    cache_file_set_headers(f, &h);
    store_headers_clear(&h);
}

enum plan { BY_PUT, BY_PARTS, BY_STREAM, BY_COPY, BY_MOVE, BY_MOVE_PARTS };
static const enum plan plans[] = {BY_PUT, BY_PARTS, BY_STREAM, BY_COPY, BY_MOVE, BY_MOVE_PARTS};

static const char *change(enum plan how, struct cache_file *f, struct cache_handle *h)
{
    switch (how) {
    case BY_PUT:
    case BY_PARTS: /* the object is large */
        g_assert_cmpint(cache_write(h, "new", 3, 0, false, NULL), ==, 0);
        return "k";
    case BY_STREAM:
        g_assert_cmpint(cache_file_truncate(f, 0, NULL), ==, 0);
        g_free(write_in_order(h, 3 * PART + 5));
        return "k";
    case BY_COPY:
        touch(f, "1");
        return "k";
    default:
        g_assert_cmpint(cache_file_retarget(f, "b", "moved", NULL, NULL), ==, 0);
        return "moved";
    }
}

static void test_plans(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(plans); i++) {
        struct store_caps caps = {.put_if = true, .complete_if = true, .copy_part = true};
        caps.copy_if = plans[i] != BY_MOVE_PARTS;
        struct world *w = world_new(test_seed(), &(struct world_params){.caps = &caps});
        put_old(w, "k", plans[i] == BY_PARTS ? 3 * PART : 1000, "COLD");
        set_tag(w, "k", "video");
        struct cache_file *f = open_object(w, "k");
        struct cache_handle *h = cache_handle_new(f);
        const char *key = change(plans[i], f, h);
        g_assert_cmpint(flush(h), ==, 0);
        assert_kept(w, key, "video", "COLD");
        uint64_t creates = plans[i] == BY_PARTS || plans[i] == BY_STREAM || plans[i] == BY_MOVE_PARTS;
        g_assert_cmpuint(count(w, STORE_MPU_CREATE), ==, creates);
        /* And the version after that. */
        touch(f, "2");
        g_assert_cmpint(flush(h), ==, 0);
        g_assert_cmpint(cache_write(h, "newer", 5, 0, false, NULL), ==, 0);
        g_assert_cmpint(flush(h), ==, 0);
        assert_kept(w, key, "video", "COLD");
        cache_handle_free(h);
        cache_file_unref(f);
        world_free(w);
    }
}

/* What was in an archive is written anew where it can be read. */
static void test_archived(void)
{
    static const char *const rows[][2] = {{"GLACIER", NULL},
                                          {"DEEP_ARCHIVE", NULL},
                                          {"STANDARD", NULL},
                                          {"GLACIER_IR", "GLACIER_IR"},
                                          {"INTELLIGENT_TIERING", "INTELLIGENT_TIERING"}};
    struct world *w = plain();
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        put_old(w, "k", 10, rows[i][0]);
        struct cache_file *f = open_object(w, "k");
        struct cache_handle *h = cache_handle_new(f);
        touch(f, rows[i][0]);
        g_assert_cmpint(flush(h), ==, 0);
        assert_kept(w, "k", NULL, rows[i][1]);
        cache_handle_free(h);
        cache_file_unref(f);
    }
    world_free(w);
}

static uint64_t asked(struct world *w, struct cache_handle *h)
{
    uint64_t before = count(w, STORE_TAGS_GET);
    g_assert_cmpint(cache_write(h, "x", 1, 0, true, NULL), ==, 0);
    g_assert_cmpint(flush(h), ==, 0);
    return count(w, STORE_TAGS_GET) - before;
}

static void test_asked(void)
{
    static const uint64_t hour = 3600000000000ULL;
    for (int head_tags = 0; head_tags < 2; head_tags++) {
        struct store_caps caps = {.put_if = true, .head_tags = head_tags};
        struct world *w =
            world_new(test_seed(), &(struct world_params){.caps = &caps, .untagged_ttl_ns = hour});
        put_old(w, "k", 10, NULL);
        _cleanup_request_ struct store_request head = {
            .verb = STORE_HEAD, .bucket = "b", .key = "k"};
        g_assert_cmpint(store_run(w->fake, &head, NULL), ==, 0);
        struct cache_file *f = cache_file_new(w->cache, "b", "k", &head.res.object, w);
        struct cache_handle *h = cache_handle_new(f);
        uint64_t each = head_tags ? 0 : 1, begun;
        g_assert_cmpuint(asked(w, h), ==, each); /* HEAD has told */
        g_assert_cmpuint(asked(w, h), ==, each); /* and our own commit */
        g_assert_cmpint(cache_file_tags_begin(f, NULL, &begun), ==, 0);
        set_tag(w, "k", "mine");
        g_assert_true(cache_file_tags_end(f, begun));
        g_assert_cmpuint(asked(w, h), ==, 1);
        g_assert_cmpuint(asked(w, h), ==, 1); /* it has some */
        assert_kept(w, "k", "mine", NULL);
        g_assert_cmpint(cache_file_tags_begin(f, NULL, &begun), ==, 0);
        g_assert_cmpuint(asked(w, h), ==, 1);
        g_assert_false(cache_file_tags_end(f, begun)); /* a commit came in between */
        cache_handle_free(h);
        cache_file_unref(f);

        f = cache_file_new(w->cache, "b", "new", NULL, w);
        h = cache_handle_new(f);
        g_assert_cmpuint(asked(w, h), ==, 0); /* nothing is replaced */
        cache_handle_free(h);
        cache_file_unref(f);
        world_free(w);
    }
}

/* Tags that others set since are kept once what is known is old. */
static void test_old_knowledge(void)
{
    struct world *w = world_new(test_seed(), &(struct world_params){.untagged_ttl_ns = 1});
    struct cache_file *f = cache_file_new(w->cache, "b", "k", NULL, w);
    struct cache_handle *h = cache_handle_new(f);
    g_assert_cmpint(flush(h), ==, 0);
    set_tag(w, "k", "theirs");
    g_assert_cmpuint(asked(w, h), ==, 1);
    assert_kept(w, "k", "theirs", NULL);
    cache_handle_free(h);
    cache_file_unref(f);
    world_free(w);
}

/* An upload has the tags of its beginning: what is changed of them until its end comes after it. */
static void test_stream(void)
{
    static const char *const rows[][2] = {
        {"old", "new"}, {NULL, "new"}, {"old", NULL}, {"same", "same"}};
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        struct world *w = plain();
        put_old(w, "k", 1000, "COLD");
        set_tag(w, "k", rows[i][0]);
        struct cache_file *f = open_object(w, "k");
        struct cache_handle *h = cache_handle_new(f);
        g_assert_cmpint(cache_file_truncate(f, 0, NULL), ==, 0);
        g_free(write_in_order(h, 3 * PART));
        while (count(w, STORE_MPU_PART) == 0)
            g_thread_yield();
        uint64_t before = count(w, STORE_TAGS_PUT) + 1;
        set_tag(w, "k", rows[i][1]);
        g_assert_cmpint(flush(h), ==, 0);
        assert_kept(w, "k", rows[i][1], "COLD");
        g_assert_cmpuint(count(w, STORE_TAGS_PUT) - before, ==,
                         g_strcmp0(rows[i][0], rows[i][1]) == 0 ? 0 : 1);
        cache_handle_free(h);
        cache_file_unref(f);
        world_free(w);
    }
}

static enum fake_action refuse_tags(struct world *w, struct store_request *req)
{
    if (req->verb != STORE_TAGS_GET)
        return FAKE_GO;
    w->hits++;
    store_result_fail(&req->res, -EACCES, STORE_CLASS_AUTH, "AccessDenied", "not permitted");
    return FAKE_FAIL;
}

static enum fake_action break_tags(struct world *w, struct store_request *req)
{
    if (req->verb != STORE_TAGS_GET)
        return FAKE_GO;
    store_result_fail(&req->res, -EBADMSG, STORE_CLASS_FATAL, NULL, "nonsense");
    return FAKE_FAIL;
}

/* Who may not see tags can still write; but they are not lost because of a bad moment. */
static void test_cannot_ask(void)
{
    for (int streamed = 0; streamed < 2; streamed++) {
        struct world *w = plain();
        put_old(w, "k", 1000, NULL);
        set_tag(w, "k", "video");
        struct cache_file *f = open_object(w, "k");
        struct cache_handle *h = cache_handle_new(f);
        world_set_hook(w, break_tags);
        if (streamed)
            g_assert_cmpint(cache_file_truncate(f, 0, NULL), ==, 0);
        if (streamed)
            g_free(write_in_order(h, 3 * PART));
        else
            g_assert_cmpint(cache_write(h, "x", 1, 0, false, NULL), ==, 0);
        g_assert_cmpint(flush(h), ==, -EBADMSG);
        world_set_hook(w, NULL);
        assert_kept(w, "k", "video", NULL);
        g_assert_cmpint(flush(h), ==, 0);
        assert_kept(w, "k", "video", NULL);

        world_set_hook(w, refuse_tags);
        for (int n = 0; n < 3; n++) {
            g_assert_cmpint(cache_write(h, "y", 1, 0, true, NULL), ==, 0);
            g_assert_cmpint(flush(h), ==, 0);
        }
        g_assert_cmpuint(w->hits, ==, 1); /* it is not asked again */
        world_set_hook(w, NULL);
        assert_kept(w, "k", NULL, NULL);
        cache_handle_free(h);
        cache_file_unref(f);
        world_free(w);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/writer-keep/plans", test_plans);
    g_test_add_func("/writer-keep/archived", test_archived);
    g_test_add_func("/writer-keep/asked", test_asked);
    g_test_add_func("/writer-keep/old-knowledge", test_old_knowledge);
    g_test_add_func("/writer-keep/stream", test_stream);
    g_test_add_func("/writer-keep/cannot-ask", test_cannot_ask);
    return g_test_run();
}
