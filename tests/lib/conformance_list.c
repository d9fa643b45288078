/* SPDX-License-Identifier: Apache-2.0
 *
 * conformance_list: LIST. Most cases are rows: the same small set of keys, one question, the
 * answer.
 */
#include "tests/lib/conformance.h"

/* Below the case's own prefix; in byte order. Most rows see just these. */
static const char *const plain_keys[] = {
    "a!",  "a-x", "a/1", "a/2",     "a/b/c",    "a/b/d",          "a0",
    "b/1", "b/2", "c",   "e/f/g/h", "\xc3\xa4", "\xe6\x97\xa5/x", "\xf0\x9f\x8e\xac",
    NULL,
};
/* What not every server can keep. */
static const char *const beside_keys[] = {"a", "a-x", "a/1", "a/b", "a/b/c", "a0", NULL};
static const char *const marker_keys[] = {"d-x", "d/", "d/1", "d/e/", "d0", NULL};
static const char *const slashes_keys[] = {"d//x", "d/1", NULL};

static bool put_keys(struct conf *c, const char *prefix, const char *const *keys)
{
    size_t n = g_strv_length((gchar **)(gpointer)(guintptr)keys);
    struct conf_batch *b = conf_batch_new(c, n);
    g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
    for (size_t i = 0; i < n; i++) {
        g_ptr_array_add(names, g_strdup_printf("%s%s", prefix, keys[i]));
        *conf_batch_get(b, i) = (struct store_request){.verb = STORE_PUT, .key = names->pdata[i]};
    }
    conf_batch_run(b, 1);
    for (size_t i = 0; i < n; i++) {
        const struct store_request *r = conf_batch_get(b, i);
        if (r->res.err != 0) {
            conf_fail(c, "PUT %s: %s", keys[i], r->res.code);
        }
    }
    conf_batch_free(b);
    return c->failure == NULL;
}

struct list_row {
    const char *name, *prefix, *delimiter, *after, *expected;
    const char *const *keys; /* NULL = the plain ones */
};

#define TAIL "\n\xc3\xa4\n\xe6\x97\xa5/x\n\xf0\x9f\x8e\xac"
#define TAIL_ROLLED "\n\xc3\xa4\n\xe6\x97\xa5/*\n\xf0\x9f\x8e\xac"
#define ALL "a!\na-x\na/1\na/2\na/b/c\na/b/d\na0\nb/1\nb/2\nc\ne/f/g/h" TAIL
#define ROLLED "a!\na-x\na/*\na0\nb/*\nc\ne/*" TAIL_ROLLED

static const struct list_row rows[] = {
    {"list/all", "", NULL, NULL, ALL},
    {"list/delimiter", "", "/", NULL, ROLLED},
    {"list/prefix", "a/", NULL, NULL, "a/1\na/2\na/b/c\na/b/d"},
    {"list/prefix-delimiter", "a/", "/", NULL, "a/1\na/2\na/b/*"},
    {"list/prefix-no-slash", "a", NULL, NULL, "a!\na-x\na/1\na/2\na/b/c\na/b/d\na0"},
    {"list/prefix-no-slash-delimiter", "a", "/", NULL, "a!\na-x\na/*\na0"},
    {"list/prefix-deeper", "a/b/", "/", NULL, "a/b/c\na/b/d"},
    {"list/prefix-is-key", "c", "/", NULL, "c"},
    {"list/prefix-is-key-no-delimiter", "a/b/c", NULL, NULL, "a/b/c"},
    {"list/prefix-of-a-level", "a/b", "/", NULL, "a/b/*"},
    {"list/prefix-within-a-name", "a/b/", NULL, NULL, "a/b/c\na/b/d"},
    {"list/prefix-none-match", "x", NULL, NULL, ""},
    {"list/prefix-below-a-key", "c/", "/", NULL, ""},
    {"list/prefix-past-all", "\xf4\x8f\xbf\xbf", NULL, NULL, ""},
    {"list/prefix-unicode", "\xe6\x97\xa5/", "/", NULL, "\xe6\x97\xa5/x"},
    {"list/deep-delimiter", "e/", "/", NULL, "e/f/*"},
    {"list/start-after-key", "", NULL, "a/2", "a/b/c\na/b/d\na0\nb/1\nb/2\nc\ne/f/g/h" TAIL},
    {"list/start-after-between", "a/", NULL, "a/11", "a/2\na/b/c\na/b/d"},
    {"list/start-after-before-prefix", "a/", NULL, "A", "a/1\na/2\na/b/c\na/b/d"},
    {"list/start-after-past-prefix", "a/", NULL, "b", ""},
    {"list/start-after-is-prefix", "a/", NULL, "a/", "a/1\na/2\na/b/c\na/b/d"},
    {"list/start-after-last", "", NULL, "\xf0\x9f\x8e\xac", ""},
    {"list/start-after-key-delimiter", "", "/", "a0", "b/*\nc\ne/*" TAIL_ROLLED},
    {"list/start-after-before-common", "", "/", "a-x", "a/*\na0\nb/*\nc\ne/*" TAIL_ROLLED},
    {"list/start-after-common", "", "/", "b/", "c\ne/*" TAIL_ROLLED},
    {"list/start-after-in-common", "", "/", "b/1", "c\ne/*" TAIL_ROLLED},
    {"list/start-after-end-of-common", "", "/", "b/2", "c\ne/*" TAIL_ROLLED},
    {"list/beside", "", NULL, NULL, "a\na-x\na/1\na/b\na/b/c\na0", beside_keys},
    {"list/beside-delimiter", "", "/", NULL, "a\na-x\na/*\na0", beside_keys},
    {"list/beside-prefix", "a/b", "/", NULL, "a/b\na/b/*", beside_keys},
    {"list/marker", "", NULL, NULL, "d-x\nd/\nd/1\nd/e/\nd0", marker_keys},
    {"list/marker-delimiter", "", "/", NULL, "d-x\nd/*\nd0", marker_keys},
    {"list/marker-is-prefix", "d/", "/", NULL, "d/\nd/1\nd/e/*", marker_keys},
    {"list/marker-alone", "d/e/", "/", NULL, "d/e/", marker_keys},
    {"list/double-slash", "d/", "/", NULL, "d//*\nd/1", slashes_keys},
    {"list/double-slash-below", "d//", "/", NULL, "d//x", slashes_keys},
};

/* start_after with the case's prefix before it. */
static void row_case(struct conf *c, const void *arg)
{
    const struct list_row *row = arg;
    g_autofree char *base = conf_key(c, "");
    g_autofree char *prefix = g_strdup_printf("%s%s", base, row->prefix);
    g_autofree char *after = row->after != NULL ? g_strdup_printf("%s%s", base, row->after) : NULL;
    TRY(put_keys(c, base, row->keys != NULL ? row->keys : plain_keys));
    struct store_request like = {
        .prefix = prefix, .delimiter = row->delimiter, .start_after = after};
    TRY(conf_list_is(c, &like, base, row->expected));
    /* The same in pages of one and of three. */
    like.max_keys = 1;
    TRY(conf_list_is(c, &like, base, row->expected));
    like.max_keys = 3;
    TRY(conf_list_is(c, &like, base, row->expected));
}

#define N_PLAIN (G_N_ELEMENTS(plain_keys) - 1)

static void pages(struct conf *c, const void *arg)
{
    g_autofree char *base = conf_key(c, "");
    TRY(put_keys(c, base, plain_keys));
    static const unsigned sizes[] = {2, 5, 7, 9, 13, 14, 15, 1000};
    for (size_t i = 0; i < G_N_ELEMENTS(sizes); i++) {
        TRY(conf_list_is(c, &(struct store_request){.prefix = base, .max_keys = sizes[i]}, base,
                         ALL));
        struct store_request like = {.prefix = base, .delimiter = "/", .max_keys = sizes[i]};
        TRY(conf_list_is(c, &like, base, ROLLED));
    }
}

/* A page that ends with the last entry is the last page. */
static void page_exact(struct conf *c, const void *arg)
{
    g_autofree char *base = conf_key(c, "");
    TRY(put_keys(c, base, plain_keys));
    REQUEST(r, .verb = STORE_LIST, .prefix = base, .max_keys = N_PLAIN);
    TRY(conf_ok(c, &r));
    EXPECT(c, r.res.entries->len == N_PLAIN, "%u entries", r.res.entries->len);
    EXPECT(c, r.res.token == NULL, "a token after the last entry");
    REQUEST(l, .verb = STORE_LIST, .prefix = base, .max_keys = N_PLAIN - 1);
    TRY(conf_ok(c, &l));
    EXPECT(c, l.res.entries->len == N_PLAIN - 1, "%u entries", l.res.entries->len);
    EXPECT(c, l.res.token != NULL, "no token before the last entry");
}

static void token_wins(struct conf *c, const void *arg)
{
    g_autofree char *base = conf_key(c, ""), *after = conf_key(c, "\xf0\x9f\x8e\xac");
    TRY(put_keys(c, base, plain_keys));
    REQUEST(r, .verb = STORE_LIST, .prefix = base, .max_keys = 2);
    TRY(conf_ok(c, &r));
    EXPECT(c, r.res.token != NULL, "no token");
    REQUEST(n, .verb = STORE_LIST, .prefix = base, .max_keys = 1, .token = r.res.token,
            .start_after = after);
    TRY(conf_ok(c, &n));
    EXPECT(c, n.res.entries->len == 1, "%u entries", n.res.entries->len);
    const struct store_entry *e = n.res.entries->pdata[0];
    EXPECT(c, g_str_has_suffix(e->key, "a/1"), "the page after a!, a-x begins with %s", e->key);
}

/* A page is where the listing goes on, whatever has come and gone. */
static void changes_between_pages(struct conf *c, const void *arg)
{
    g_autofree char *base = conf_key(c, ""), *gone = conf_key(c, "a/1"), *fresh = conf_key(c, "bb");
    TRY(put_keys(c, base, plain_keys));
    REQUEST(r, .verb = STORE_LIST, .prefix = base, .max_keys = 2);
    TRY(conf_ok(c, &r));
    TRY(conf_delete(c, gone));
    TRY(conf_put_text(c, fresh, ""));
    REQUEST(n, .verb = STORE_LIST, .prefix = base, .token = r.res.token);
    TRY(conf_ok(c, &n));
    EXPECT(c, n.res.entries->len == N_PLAIN - 2, "%u entries", n.res.entries->len);
    const struct store_entry *e = n.res.entries->pdata[0];
    EXPECT(c, g_str_has_suffix(e->key, "/a/2"), "the page begins with %s", e->key);
}

static void entry_fields(struct conf *c, const void *arg)
{
    g_autofree char *key = conf_key(c, "o"), *etag = NULL;
    TRY(conf_put(c, key, "twelve bytes", 12, &etag));
    REQUEST(r, .verb = STORE_LIST, .prefix = key);
    TRY(conf_ok(c, &r));
    EXPECT(c, r.res.entries->len == 1 && r.res.token == NULL, "%u entries", r.res.entries->len);
    const struct store_entry *e = r.res.entries->pdata[0];
    EXPECT(c, strcmp(e->key, key) == 0, "key %s", e->key);
    EXPECT(c, g_strcmp0(e->etag, etag) == 0, "ETag %s, not %s", e->etag, etag);
    EXPECT(c, e->size == 12 && !e->is_prefix && e->mtime_ns > 0, "other fields");
}

static void empty_bucket(struct conf *c, const void *arg)
{
    g_autofree char *bucket = conf_bucket_new(c);
    TRY(bucket != NULL);
    conf_list_is(c, &(struct store_request){.bucket = bucket}, "", "");
    conf_list_is(c, &(struct store_request){.bucket = bucket, .delimiter = "/"}, "", "");
    conf_list_is(c, &(struct store_request){.bucket = bucket, .start_after = "x"}, "", "");
    conf_bucket_remove(c, bucket);
}

static void no_bucket(struct conf *c, const void *arg)
{
    REQUEST(r, .verb = STORE_LIST, .bucket = "conf-no-such-bucket");
    TRY(conf_expect_code(c, &r, -ENOENT, STORE_CLASS_FATAL, "NoSuchBucket"));
}

static void deleted_is_gone(struct conf *c, const void *arg)
{
    g_autofree char *base = conf_key(c, ""), *a = conf_key(c, "d/1"), *b = conf_key(c, "d/2");
    struct store_request like = {.prefix = base, .delimiter = "/"};
    TRY(conf_put_text(c, a, "1"));
    TRY(conf_put_text(c, b, "2"));
    TRY(conf_list_is(c, &like, base, "d/*"));
    TRY(conf_delete(c, a));
    TRY(conf_list_is(c, &like, base, "d/*"));
    TRY(conf_delete(c, b));
    TRY(conf_list_is(c, &like, base, ""));
}

/* 2,500 keys: three pages of a thousand; and one common prefix that hides 2,000 of them. */
static void many(struct conf *c, const void *arg)
{
    enum { N = 2500 };
    g_autofree char *base = conf_key(c, "");
    g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GString) expected = g_string_new("");
    struct conf_batch *b = conf_batch_new(c, N);
    for (unsigned i = 0; i < N; i++) {
        char *name = g_strdup_printf("%s%s%05u", base, i < 2000 ? "big/" : "", i);
        g_ptr_array_add(names, name);
        g_string_append_printf(expected, "%s%s", i > 0 ? "\n" : "", name + strlen(base));
        *conf_batch_get(b, i) = (struct store_request){.verb = STORE_PUT, .key = name};
    }
    conf_batch_run(b, 24);
    for (unsigned i = 0; i < N; i++) {
        if (conf_batch_get(b, i)->res.err != 0) {
            conf_fail(c, "PUT %u: %s", i, conf_batch_get(b, i)->res.detail);
        }
    }
    conf_batch_free(b);
    TRY(c->failure == NULL);
    g_autoptr(GPtrArray) lines = NULL;
    TRY(conf_list(c, &(struct store_request){.prefix = base}, &lines));
    EXPECT(c, lines->len == N, "%u keys of %u", lines->len, N);
    for (unsigned i = 1; i < N; i++) {
        EXPECT(c, strcmp(lines->pdata[i - 1], lines->pdata[i]) < 0, "%s stands before %s",
               (char *)lines->pdata[i - 1], (char *)lines->pdata[i]);
    }
    g_autoptr(GPtrArray) rolled = NULL;
    TRY(conf_list(c, &(struct store_request){.prefix = base, .delimiter = "/"}, &rolled));
    EXPECT(c, rolled->len == 501, "%u entries, not 501", rolled->len);
    EXPECT(c, g_str_has_suffix(rolled->pdata[500], "big/*"), "the last is %s",
           (char *)rolled->pdata[500]);
}

void conf_list_cases(GArray *cases)
{
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        conf_add(cases, rows[i].name, row_case, &rows[i]);
    }
    conf_add(cases, "list/pages", pages, NULL);
    conf_add(cases, "list/page-exact", page_exact, NULL);
    conf_add(cases, "list/token-wins", token_wins, NULL);
    conf_add(cases, "list/changes-between-pages", changes_between_pages, NULL);
    conf_add(cases, "list/entry-fields", entry_fields, NULL);
    conf_add(cases, "list/empty-bucket", empty_bucket, NULL);
    conf_add(cases, "list/no-bucket", no_bucket, NULL);
    conf_add(cases, "list/deleted-is-gone", deleted_is_gone, NULL);
    conf_add(cases, "list/many", many, NULL);
}
