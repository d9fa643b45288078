/* SPDX-License-Identifier: Apache-2.0
 *
 * conformance_kept: what an object has beside its headers, given when it is made: tags and storage
 * class, by PUT, an upload and COPY.
 */
#include "tests/lib/conformance.h"

#define CLASS "REDUCED_REDUNDANCY" /* the one besides STANDARD that MinIO has, too */

/* Characters that AWS allows in tags, and that mean something in a query string. */
static GHashTable *some_tags(void)
{
    static char names[][12] = {"team", "to do", "a+b=c", "x/y:z@w"};
    static char values[][12] = {"video", "", "1+1 = 2", "-._/:@"};
    GHashTable *tags = g_hash_table_new(g_str_hash, g_str_equal);
    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        g_hash_table_insert(tags, names[i], values[i]);
    }
    return tags;
}

static bool tags_are(struct conf *c, const char *key, GHashTable *want)
{
    REQUEST(r, .verb = STORE_TAGS_GET, .key = key);
    if (!conf_ok(c, &r)) {
        return false;
    }
    if (store_tags_equal(r.res.tags, want)) {
        return true;
    }
    return conf_fail(c, "there are %u tags, and not those that were given",
                     r.res.tags != NULL ? g_hash_table_size(r.res.tags) : 0);
}

static bool class_is(struct conf *c, const char *key, const char *want)
{
    REQUEST(h, .verb = STORE_HEAD, .key = key);
    REQUEST(l, .verb = STORE_LIST, .prefix = key);
    if (!conf_ok(c, &h) || !conf_ok(c, &l)) {
        return false;
    }
    const struct store_entry *e = l.res.entries->len > 0 ? l.res.entries->pdata[0] : NULL;
    const char *head = h.res.object.storage_class, *list = e != NULL ? e->storage_class : "?";
    if (g_strcmp0(head, want) != 0 || g_strcmp0(list, want) != 0) {
        return conf_fail(c, "the class is %s, in a listing %s", head != NULL ? head : "STANDARD",
                         list != NULL ? list : "STANDARD");
    }
    return true;
}

static bool put(struct conf *c, const char *key, GHashTable *tags, const char *class)
{
    struct conf_memory m;
    REQUEST(r, .verb = STORE_PUT, .key = key, .tags = tags, .storage_class = class,
            .source = conf_source(&m, "bytes", 5));
    return conf_ok(c, &r);
}

static bool upload(struct conf *c, const char *key, GHashTable *tags, const char *class)
{
    g_autoptr(GBytes) b = g_bytes_new_static("bytes", 5);
    struct store_part part = {0};
    REQUEST(r, .verb = STORE_MPU_CREATE, .key = key, .tags = tags, .storage_class = class);
    bool ok = conf_ok(c, &r) && conf_mpu_part(c, key, r.res.upload_id, 1, b, &part) &&
              conf_mpu_complete(c, key, r.res.upload_id, &part, 1, NULL);
    g_free(part.etag);
    return ok;
}

static void put_tags(struct conf *c, const void *arg)
{
    g_autofree char *key = conf_key(c, "o");
    g_autoptr(GHashTable) tags = some_tags();
    TRY(put(c, key, tags, NULL));
    TRY(tags_are(c, key, tags));
    TRY(conf_is_text(c, key, "bytes"));
}

static void put_class(struct conf *c, const void *arg)
{
    g_autofree char *key = conf_key(c, "o");
    TRY(put(c, key, NULL, CLASS));
    TRY(class_is(c, key, CLASS));
    TRY(conf_is_text(c, key, "bytes"));
}

static void put_without(struct conf *c, const void *arg)
{
    g_autofree char *key = conf_key(c, "o");
    g_autoptr(GHashTable) tags = some_tags();
    TRY(put(c, key, tags, CLASS));
    TRY(put(c, key, NULL, NULL));
    TRY(tags_are(c, key, NULL));
    TRY(class_is(c, key, NULL));
}

static void upload_tags(struct conf *c, const void *arg)
{
    g_autofree char *key = conf_key(c, "o");
    g_autoptr(GHashTable) tags = some_tags();
    TRY(upload(c, key, tags, NULL));
    TRY(tags_are(c, key, tags));
    TRY(conf_is_text(c, key, "bytes"));
}

static void upload_class(struct conf *c, const void *arg)
{
    g_autofree char *key = conf_key(c, "o");
    TRY(upload(c, key, NULL, CLASS));
    TRY(class_is(c, key, CLASS));
}

/* The tags that the key has, when the upload is completed, are not those of the new object. */
static void upload_over(struct conf *c, const void *arg)
{
    g_autofree char *key = conf_key(c, "o");
    g_autoptr(GHashTable) tags = some_tags();
    TRY(put(c, key, tags, CLASS));
    TRY(upload(c, key, NULL, NULL));
    TRY(tags_are(c, key, NULL));
    TRY(class_is(c, key, NULL));
}

static bool copy(struct conf *c, const char *from, const char *to, bool replace, const char *class)
{
    _cleanup_headers_ struct store_headers h = {.content_type = g_strdup("text/x-new")};
    REQUEST(r, .verb = STORE_COPY, .key = to, .from_bucket = c->bucket, .from_key = from,
            .replace_headers = replace, .headers = &h, .storage_class = class);
    return conf_ok(c, &r);
}

static void copy_replace(struct conf *c, const void *arg)
{
    g_autofree char *key = conf_key(c, "o"), *to = conf_key(c, "to");
    g_autoptr(GHashTable) tags = some_tags();
    TRY(put(c, key, tags, CLASS));
    TRY(copy(c, key, to, true, NULL));
    TRY(tags_are(c, to, tags));
    TRY(class_is(c, to, NULL));
    TRY(copy(c, key, key, true, CLASS));
    TRY(tags_are(c, key, tags));
}

static void copy_class(struct conf *c, const void *arg)
{
    g_autofree char *key = conf_key(c, "o"), *to = conf_key(c, "to");
    TRY(put(c, key, NULL, CLASS));
    TRY(copy(c, key, to, false, CLASS));
    TRY(class_is(c, to, CLASS));
    TRY(copy(c, key, key, true, CLASS));
    TRY(class_is(c, key, CLASS));
    TRY(conf_is_text(c, key, "bytes"));
}

static void copy_default(struct conf *c, const void *arg)
{
    g_autofree char *key = conf_key(c, "o"), *to = conf_key(c, "to");
    TRY(put(c, key, NULL, CLASS));
    TRY(copy(c, key, to, false, NULL));
    TRY(class_is(c, to, NULL));
}

/* The object is worth more than its class. */
static void odd_class(struct conf *c, const void *arg)
{
    g_autofree char *key = conf_key(c, "o"), *to = conf_key(c, "to"), *up = conf_key(c, "up");
    TRY(put(c, key, NULL, "NO_SUCH_CLASS"));
    TRY(conf_is_text(c, key, "bytes"));
    TRY(copy(c, key, to, false, "NO_SUCH_CLASS"));
    TRY(conf_is_text(c, to, "bytes"));
    TRY(upload(c, up, NULL, "NO_SUCH_CLASS"));
    TRY(conf_is_text(c, up, "bytes"));
}

static void head_counts(struct conf *c, const void *arg)
{
    g_autofree char *key = conf_key(c, "o"), *bare = conf_key(c, "bare");
    g_autoptr(GHashTable) tags = some_tags();
    TRY(put(c, key, tags, NULL));
    TRY(put(c, bare, NULL, NULL));
    REQUEST(h, .verb = STORE_HEAD, .key = key);
    REQUEST(b, .verb = STORE_HEAD, .key = bare);
    TRY(conf_ok(c, &h));
    TRY(conf_ok(c, &b));
    EXPECT(c, h.res.object.untagged_ns == 0, "HEAD counts no tags where there are some");
    EXPECT(c, b.res.object.untagged_ns > 0, "HEAD counts tags where there are none");
}

static void eleven(struct conf *c, const void *arg)
{
    g_autofree char *key = conf_key(c, "o");
    g_autoptr(GHashTable) tags = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    for (unsigned i = 0; i < 11; i++) {
        g_hash_table_insert(tags, g_strdup_printf("k%u", i), g_strdup("v"));
    }
    struct conf_memory m;
    REQUEST(r, .verb = STORE_PUT, .key = key, .tags = tags,
            .source = conf_source(&m, "bytes", 5));
    TRY(conf_expect(c, &r, -EINVAL, STORE_CLASS_FATAL));
    TRY(conf_absent(c, key));
}

void conf_kept_cases(GArray *cases)
{
    conf_add(cases, "kept/put-tags", put_tags, NULL);
    conf_add(cases, "kept/put-class", put_class, NULL);
    conf_add(cases, "kept/put-without", put_without, NULL);
    conf_add(cases, "kept/upload-tags", upload_tags, NULL);
    conf_add(cases, "kept/upload-class", upload_class, NULL);
    conf_add(cases, "kept/upload-over", upload_over, NULL);
    conf_add(cases, "kept/copy-replace", copy_replace, NULL);
    conf_add(cases, "kept/copy-class", copy_class, NULL);
    conf_add(cases, "kept/copy-default", copy_default, NULL);
    conf_add(cases, "kept/odd-class", odd_class, NULL);
    conf_add(cases, "kept/head-counts", head_counts, NULL);
    conf_add(cases, "kept/eleven", eleven, NULL);
}
