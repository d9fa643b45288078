/* SPDX-License-Identifier: Apache-2.0
 *
 * conformance_delete: DELETE and DELETE_MANY, tags, buckets.
 */
#include "tests/lib/conformance.h"

static void simple(struct conf *c, const void *arg)
{
    g_autofree char *key = conf_key(c, "o");
    TRY(conf_put_text(c, key, "x"));
    TRY(conf_delete(c, key));
    TRY(conf_absent(c, key));
    TRY(conf_delete(c, key)); /* what is absent can be deleted */
}

static void no_bucket(struct conf *c, const void *arg)
{
    REQUEST(r, .verb = STORE_DELETE, .bucket = "conf-no-such-bucket", .key = "k");
    TRY(conf_expect_code(c, &r, -ENOENT, STORE_CLASS_FATAL, "NoSuchBucket"));
}

static void many(struct conf *c, const void *arg)
{
    g_autofree char *a = conf_key(c, "a"), *b = conf_key(c, "b & <b>"),
                    *absent = conf_key(c, "absent"), *stays = conf_key(c, "stays");
    TRY(conf_put_text(c, a, "a"));
    TRY(conf_put_text(c, b, "b"));
    TRY(conf_put_text(c, stays, "stays"));
    const char *keys[] = {a, absent, b};
    REQUEST(r, .verb = STORE_DELETE_MANY, .keys = keys, .n_keys = 3);
    TRY(conf_ok(c, &r));
    EXPECT(c, r.res.failed == NULL || r.res.failed->len == 0, "some could not be deleted");
    TRY(conf_absent(c, a));
    TRY(conf_absent(c, b));
    TRY(conf_is_text(c, stays, "stays"));
}

static void many_1000(struct conf *c, const void *arg)
{
    g_autofree char *base = conf_key(c, "");
    g_autoptr(GPtrArray) keys = g_ptr_array_new_with_free_func(g_free);
    struct conf_batch *b = conf_batch_new(c, STORE_LIST_MAX / 4);
    for (unsigned i = 0; i < STORE_LIST_MAX; i++) {
        g_ptr_array_add(keys, g_strdup_printf("%s%u", base, i));
        if (i % 4 == 0) {
            *conf_batch_get(b, i / 4) =
                (struct store_request){.verb = STORE_PUT, .key = keys->pdata[i]};
        }
    }
    conf_batch_run(b, 16);
    conf_batch_free(b);
    REQUEST(r, .verb = STORE_DELETE_MANY, .keys = (const char *const *)keys->pdata,
            .n_keys = keys->len);
    TRY(conf_ok(c, &r));
    TRY(conf_list_is(c, &(struct store_request){.prefix = base}, base, ""));
}

static void many_no_bucket(struct conf *c, const void *arg)
{
    const char *keys[] = {"k"};
    REQUEST(r, .verb = STORE_DELETE_MANY, .bucket = "conf-no-such-bucket", .keys = keys,
            .n_keys = 1);
    TRY(conf_expect_code(c, &r, -ENOENT, STORE_CLASS_FATAL, "NoSuchBucket"));
}

/* ---- tags ---- */

static bool tags_put(struct conf *c, const char *key, const char *const *pairs)
{
    g_autoptr(GHashTable) tags = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    for (size_t i = 0; pairs[i] != NULL; i += 2) {
        g_hash_table_insert(tags, g_strdup(pairs[i]), g_strdup(pairs[i + 1]));
    }
    REQUEST(r, .verb = STORE_TAGS_PUT, .key = key, .tags = tags);
    return conf_ok(c, &r);
}

static bool tags_are(struct conf *c, const char *key, const char *const *pairs)
{
    REQUEST(r, .verb = STORE_TAGS_GET, .key = key);
    if (!conf_ok(c, &r)) {
        return false;
    }
    size_t n = 0;
    for (; pairs[2 * n] != NULL; n++) {
        const char *got = r.res.tags != NULL ? g_hash_table_lookup(r.res.tags, pairs[2 * n]) : NULL;
        if (g_strcmp0(got, pairs[2 * n + 1]) != 0) {
            return conf_fail(c, "tag %s is %s, not %s", pairs[2 * n], got, pairs[2 * n + 1]);
        }
    }
    size_t have = r.res.tags != NULL ? g_hash_table_size(r.res.tags) : 0;
    return have == n || conf_fail(c, "%zu tags, not %zu", have, n);
}

static const char *const no_tags[] = {NULL};
static const char *const two_tags[] = {"colour", "blue green", "k", "v", NULL};

static void tags_round_trip(struct conf *c, const void *arg)
{
    static const char *const other[] = {"one", "", NULL};
    g_autofree char *key = conf_key(c, "o"), *before = NULL, *after = NULL;
    TRY(conf_put(c, key, "x", 1, &before));
    TRY(tags_are(c, key, no_tags));
    TRY(tags_put(c, key, two_tags));
    TRY(tags_are(c, key, two_tags));
    TRY(tags_put(c, key, other));
    TRY(tags_are(c, key, other));
    TRY(tags_put(c, key, no_tags));
    TRY(tags_are(c, key, no_tags));
    TRY(conf_etag(c, key, &after));
    EXPECT(c, strcmp(before, after) == 0, "tags changed the ETag");
}

static void tags_odd(struct conf *c, const void *arg)
{
    static const char *const odd[] = {"a b+c-d=e.f_g:h/i@j", "1 +-=._:/@", NULL};
    g_autofree char *key = conf_key(c, "o");
    TRY(conf_put_text(c, key, "x"));
    TRY(tags_put(c, key, odd));
    TRY(tags_are(c, key, odd));
}

static void tags_unicode(struct conf *c, const void *arg)
{
    static const char *const odd[] = {"\xc3\xbc", "\xe6\x97\xa5\xe6\x9c\xac", NULL};
    g_autofree char *key = conf_key(c, "o");
    TRY(conf_put_text(c, key, "x"));
    TRY(tags_put(c, key, odd));
    TRY(tags_are(c, key, odd));
}

static void tags_ten(struct conf *c, const void *arg)
{
    static const char *const ten[] = {"a", "1", "b", "2", "c", "3", "d", "4", "e",  "5", "f",
                                      "6", "g", "7", "h", "8", "i", "9", "j", "10", NULL};
    g_autofree char *key = conf_key(c, "o");
    TRY(conf_put_text(c, key, "x"));
    TRY(tags_put(c, key, ten));
    TRY(tags_are(c, key, ten));
}

static void tags_eleven(struct conf *c, const void *arg)
{
    g_autofree char *key = conf_key(c, "o");
    g_autoptr(GHashTable) tags = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    for (unsigned i = 0; i < 11; i++) {
        g_hash_table_insert(tags, g_strdup_printf("k%u", i), g_strdup("v"));
    }
    TRY(conf_put_text(c, key, "x"));
    REQUEST(r, .verb = STORE_TAGS_PUT, .key = key, .tags = tags);
    TRY(conf_expect(c, &r, -EINVAL, STORE_CLASS_FATAL));
    TRY(tags_are(c, key, no_tags));
}

static void tags_go_with_overwrite(struct conf *c, const void *arg)
{
    g_autofree char *key = conf_key(c, "o");
    TRY(conf_put_text(c, key, "x"));
    TRY(tags_put(c, key, two_tags));
    TRY(conf_put_text(c, key, "y"));
    TRY(tags_are(c, key, no_tags));
}

static void tags_copied(struct conf *c, const void *arg)
{
    g_autofree char *key = conf_key(c, "o"), *to = conf_key(c, "to");
    TRY(conf_put_text(c, key, "x"));
    TRY(tags_put(c, key, two_tags));
    REQUEST(r, .verb = STORE_COPY, .key = to, .from_bucket = c->bucket, .from_key = key);
    TRY(conf_ok(c, &r));
    TRY(tags_are(c, to, two_tags));
}

static void tags_absent(struct conf *c, const void *arg)
{
    g_autofree char *key = conf_key(c, "o");
    g_autoptr(GHashTable) tags = g_hash_table_new(g_str_hash, g_str_equal);
    static char name[] = "k", value[] = "v";
    g_hash_table_insert(tags, name, value);
    REQUEST(g, .verb = STORE_TAGS_GET, .key = key);
    TRY(conf_expect_code(c, &g, -ENOENT, STORE_CLASS_FATAL, "NoSuchKey"));
    REQUEST(p, .verb = STORE_TAGS_PUT, .key = key, .tags = tags);
    TRY(conf_expect_code(c, &p, -ENOENT, STORE_CLASS_FATAL, "NoSuchKey"));
}

/* ---- buckets ---- */

static bool bucket_listed(struct conf *c, const char *name, bool *ret)
{
    REQUEST(r, .verb = STORE_BUCKETS);
    if (!conf_ok(c, &r)) {
        return false;
    }
    *ret = false;
    for (guint i = 0; i < r.res.entries->len; i++) {
        const struct store_entry *e = r.res.entries->pdata[i];
        if (i > 0 &&
            strcmp(((struct store_entry *)r.res.entries->pdata[i - 1])->key, e->key) >= 0) {
            return conf_fail(c, "buckets out of order at %s", e->key);
        }
        if (strcmp(e->key, name) == 0) {
            *ret = true;
            if (e->mtime_ns <= 0) {
                return conf_fail(c, "the bucket has no time");
            }
        }
    }
    return true;
}

static void bucket_life(struct conf *c, const void *arg)
{
    bool there;
    g_autofree char *bucket = conf_bucket_new(c);
    TRY(bucket != NULL);
    TRY(bucket_listed(c, bucket, &there));
    EXPECT(c, there, "a new bucket is not listed");
    REQUEST(d, .verb = STORE_BUCKET_DELETE, .bucket = bucket);
    TRY(conf_ok(c, &d));
    TRY(bucket_listed(c, bucket, &there));
    EXPECT(c, !there, "a deleted bucket is listed");
    store_request_clear(&d);
    TRY(conf_expect_code(c, &d, -ENOENT, STORE_CLASS_FATAL, "NoSuchBucket"));
}

static void bucket_not_empty(struct conf *c, const void *arg)
{
    g_autofree char *bucket = conf_bucket_new(c);
    TRY(bucket != NULL);
    REQUEST(p, .verb = STORE_PUT, .bucket = bucket, .key = "k");
    REQUEST(d, .verb = STORE_BUCKET_DELETE, .bucket = bucket);
    REQUEST(h, .verb = STORE_HEAD, .bucket = bucket, .key = "k");
    if (conf_ok(c, &p) &&
        conf_expect_code(c, &d, -ENOTEMPTY, STORE_CLASS_FATAL, "BucketNotEmpty")) {
        conf_ok(c, &h);
    }
    conf_bucket_remove(c, bucket);
}

static void bucket_exists(struct conf *c, const void *arg)
{
    REQUEST(r, .verb = STORE_BUCKET_CREATE, .bucket = c->bucket);
    TRY(conf_expect(c, &r, -EEXIST, STORE_CLASS_FATAL));
}

static void bucket_name(struct conf *c, const void *arg)
{
    const char *name = arg;
    REQUEST(r, .verb = STORE_BUCKET_CREATE, .bucket = name);
    bool ok = conf_expect(c, &r, -EINVAL, STORE_CLASS_FATAL);
    if (!ok) {
        REQUEST(d, .verb = STORE_BUCKET_DELETE, .bucket = name);
        conf_run(c, &d);
    }
}

static void bucket_separate(struct conf *c, const void *arg)
{
    g_autofree char *bucket = conf_bucket_new(c), *key = conf_key(c, "o");
    TRY(bucket != NULL);
    REQUEST(p, .verb = STORE_PUT, .bucket = bucket, .key = key);
    conf_ok(c, &p);
    conf_absent(c, key);
    conf_bucket_remove(c, bucket);
}

void conf_delete_cases(GArray *cases)
{
    conf_add(cases, "delete/simple", simple, NULL);
    conf_add(cases, "delete/no-bucket", no_bucket, NULL);
    conf_add(cases, "delete/many", many, NULL);
    conf_add(cases, "delete/many-1000", many_1000, NULL);
    conf_add(cases, "delete/many-no-bucket", many_no_bucket, NULL);
    conf_add(cases, "tags/round-trip", tags_round_trip, NULL);
    conf_add(cases, "tags/odd", tags_odd, NULL);
    conf_add(cases, "tags/unicode", tags_unicode, NULL);
    conf_add(cases, "tags/ten", tags_ten, NULL);
    conf_add(cases, "tags/eleven", tags_eleven, NULL);
    conf_add(cases, "tags/go-with-overwrite", tags_go_with_overwrite, NULL);
    conf_add(cases, "tags/copied", tags_copied, NULL);
    conf_add(cases, "tags/absent", tags_absent, NULL);
    conf_add(cases, "bucket/life", bucket_life, NULL);
    conf_add(cases, "bucket/not-empty", bucket_not_empty, NULL);
    conf_add(cases, "bucket/exists", bucket_exists, NULL);
    static const char *const names[][2] = {
        {"bucket/name-short", "ab"},
        {"bucket/name-upper", "Upper-case"},
        {"bucket/name-underscore", "under_score"},
        {"bucket/name-dash-first", "-first"},
        {"bucket/name-dash-last", "last-"},
        {"bucket/name-ip", "192.168.5.4"},
        {"bucket/name-two-dots", "two..dots"},
        {"bucket/name-long", "a2345678901234567890123456789012345678901234567890123456789012345"},
    };
    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        conf_add(cases, names[i][0], bucket_name, names[i][1]);
    }
    conf_add(cases, "bucket/separate", bucket_separate, NULL);
}
