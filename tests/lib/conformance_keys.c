/* SPDX-License-Identifier: Apache-2.0
 *
 * conformance_keys: any bytes are a key. Each of them is put, read, listed and deleted.
 */
#include "tests/lib/conformance.h"

struct key_row {
    const char *name, *key;
};

static const struct key_row rows[] = {
    {"key/space", "key a b"},
    {"key/space-alone", " "},
    {"key/space-first", " key"},
    {"key/space-last", "key last "},
    {"key/plus", "key+plus"},
    {"key/plus-and-space", "key +a + b"},
    {"key/percent", "key%"},
    {"key/percent-20", "key%20x"},
    {"key/percent-2f", "key%2Fx"},
    {"key/percent-00", "key%00x"},
    {"key/question", "key?versionId=1&x"},
    {"key/hash", "key#fragment"},
    {"key/punctuation", "key!\"$'()*,-.:;=@[\\]^_`{|}~"},
    {"key/unicode", "key-\xc3\xbc\xe6\x97\xa5\xe6\x9c\xac\xf0\x9f\x8e\xac"},
    {"key/unicode-decomposed", "key-e\xcc\x81"},
    {"key/unicode-composed", "key-\xc3\xa9"},
    {"key/invalid-utf8", "key-\xff\xfe"},
    {"key/truncated-utf8", "key-\xc3("},
    {"key/xml", "key<&>\"'"},
    {"key/xml-entity", "key&amp;&#x41;"},
    {"key/xml-cdata-end", "key]]>x"},
    {"key/control-01", "key\x01x"},
    {"key/control-1f", "key\x1f"},
    {"key/control-7f", "key\x7fx"},
    {"key/tab", "key\tx"},
    {"key/newline", "key\nx"},
    {"key/carriage-return", "key\rx"},
    {"key/double-slash", "key//b"},
    {"key/leading-slash", "/key-leading"},
    {"key/leading-slashes", "//key-leading"},
    {"key/slash-alone", "/"},
    {"key/trailing-slash", "key-dir/"},
    {"key/trailing-slashes", "key-dirs//"},
    {"key/dot", "."},
    {"key/dot-dot", ".."},
    {"key/dot-inside", "key-dots/./b"},
    {"key/dot-dot-inside", "key-dots/../b"},
    {"key/dot-dot-first", "../key-up"},
    {"key/dot-last", "key-dot."},
    {"key/backslash", "key\\x\\y"},
    {"key/aws-names", "key/?list-type=2&prefix=a"},
};

static void try_key(struct conf *c, const char *key)
{
    g_autofree char *text =
        g_str_has_suffix(key, "/") ? g_strdup("") : conf_show(key); /* markers are empty */
    TRY(conf_put_text(c, key, text));
    TRY(conf_is_text(c, key, text));
    REQUEST(h, .verb = STORE_HEAD, .key = key);
    TRY(conf_ok(c, &h));
    EXPECT(c, h.res.object.size == strlen(text), "HEAD: another size");
    REQUEST(l, .verb = STORE_LIST, .prefix = key);
    TRY(conf_ok(c, &l));
    bool found = false;
    for (guint i = 0; i < l.res.entries->len; i++) {
        const struct store_entry *e = l.res.entries->pdata[i];
        found = found || strcmp(e->key, key) == 0;
        EXPECT(c, g_str_has_prefix(e->key, key), "LIST gave a key without the prefix");
    }
    EXPECT(c, found, "LIST does not have the key");
    const char *keys[] = {key};
    REQUEST(d, .verb = STORE_DELETE_MANY, .keys = keys, .n_keys = 1);
    TRY(conf_ok(c, &d));
    TRY(conf_absent(c, key));
    TRY(conf_put_text(c, key, text));
    TRY(conf_delete(c, key));
    TRY(conf_absent(c, key));
}

static void key_case(struct conf *c, const void *arg)
{
    const struct key_row *row = arg;
    try_key(c, row->key);
    REQUEST(d, .verb = STORE_DELETE, .key = row->key);
    conf_run(c, &d); /* what a failed case left */
}

static void key_1024(struct conf *c, const void *arg)
{
    g_autofree char *key = g_strnfill(STORE_KEY_MAX, 'k');
    struct key_row row = {.key = key};
    key_case(c, &row);
}

static void key_1024_segments(struct conf *c, const void *arg)
{
    g_autofree char *key = g_strnfill(STORE_KEY_MAX, 'k');
    for (size_t i = 100; i < STORE_KEY_MAX; i += 100) {
        key[i] = '/';
    }
    struct key_row row = {.key = key};
    key_case(c, &row);
}

/* 300 bytes between two slashes: no name of a file can be so long. */
static void key_300_segment(struct conf *c, const void *arg)
{
    g_autofree char *long_name = g_strnfill(300, 'n'),
                    *key = g_strdup_printf("key-300/%s/x", long_name);
    struct key_row row = {.key = key};
    key_case(c, &row);
    TRY(conf_put_text(c, "key-300/y",
                      "")); /* a server may leave a folder behind a PUT that failed */
    TRY(conf_delete(c, "key-300/y"));
}

static void key_1024_escaped(struct conf *c, const void *arg)
{
    g_autoptr(GString) key = g_string_new("");
    while (key->len + 4 <= STORE_KEY_MAX) {
        g_string_append(key, key->len % 100 == 96 ? "%ab/" : "\xe6\x97\xa5+");
    }
    struct key_row row = {.key = key->str};
    key_case(c, &row);
}

/* An object beside objects "below" it. */
static void beside_children(struct conf *c, const void *arg)
{
    g_autofree char *a = conf_key(c, "a"), *ab = conf_key(c, "a/b"), *abc = conf_key(c, "a/b/c");
    TRY(conf_put_text(c, a, "a"));
    TRY(conf_put_text(c, ab, "a/b"));
    TRY(conf_put_text(c, abc, "a/b/c"));
    TRY(conf_is_text(c, a, "a"));
    TRY(conf_is_text(c, ab, "a/b"));
    TRY(conf_is_text(c, abc, "a/b/c"));
    TRY(conf_delete(c, a));
    TRY(conf_absent(c, a));
    TRY(conf_is_text(c, ab, "a/b"));
}

static void beside_marker(struct conf *c, const void *arg)
{
    g_autofree char *a = conf_key(c, "d"), *slash = conf_key(c, "d/"), *child = conf_key(c, "d/f");
    TRY(conf_put_text(c, child, "f"));
    TRY(conf_absent(c, a));
    TRY(conf_absent(c, slash));
    TRY(conf_put_text(c, slash, ""));
    TRY(conf_is_text(c, slash, ""));
    TRY(conf_absent(c, a));
    TRY(conf_delete(c, slash));
    TRY(conf_absent(c, slash));
    TRY(conf_is_text(c, child, "f"));
}

static void marker_with_bytes(struct conf *c, const void *arg)
{
    g_autofree char *slash = conf_key(c, "d/");
    TRY(conf_put_text(c, slash, "bytes of a marker"));
    TRY(conf_is_text(c, slash, "bytes of a marker"));
}

static const char *const distinct_names[] = {
    "name",     "Name",         "NAME",    "name ", "name.",       "n\xc3\xa4me",
    "na\x01me", "na\xcc\x88me", "name%20", "name+", "nam\xc3\xa9", "name/",
};

static void put_distinct(struct conf *c)
{
    for (size_t i = 0; i < G_N_ELEMENTS(distinct_names); i++) {
        g_autofree char *key = conf_key(c, distinct_names[i]), *text = g_strdup_printf("%zu", i);
        TRY(conf_put_text(c, key, g_str_has_suffix(key, "/") ? "" : text));
    }
    for (size_t i = 0; i < G_N_ELEMENTS(distinct_names); i++) {
        g_autofree char *key = conf_key(c, distinct_names[i]), *text = g_strdup_printf("%zu", i);
        TRY(conf_is_text(c, key, g_str_has_suffix(key, "/") ? "" : text));
    }
}

static void distinct(struct conf *c, const void *arg)
{
    put_distinct(c);
    for (size_t i = 0; i < G_N_ELEMENTS(distinct_names); i++) {
        g_autofree char *key = conf_key(c, distinct_names[i]);
        REQUEST(d, .verb = STORE_DELETE, .key = key);
        conf_run(c, &d); /* by name: a server may list another one */
    }
}

/* What is odd in a path is odd in x-amz-copy-source too. */
static void copy_odd(struct conf *c, const void *arg)
{
    static const char *const names[] = {"a b", "a+b", "a%20b", "a?b", "a&b=c", "a#b", "\xc3\xbc"};
    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        g_autofree char *from = conf_key(c, names[i]), *to = g_strdup_printf("%s-copy", from);
        TRY(conf_put_text(c, from, names[i]));
        REQUEST(r, .verb = STORE_COPY, .key = to, .from_bucket = c->bucket, .from_key = from);
        TRY(conf_ok(c, &r));
        TRY(conf_is_text(c, to, names[i]));
    }
}

static void multipart_odd(struct conf *c, const void *arg)
{
    g_autofree char *key = conf_key(c, "a +b%2F&<\xc3\xbc>?#"), *id = NULL;
    g_autoptr(GBytes) b = conf_pattern(3, 1000);
    struct store_part part = {0};
    TRY(conf_mpu_create(c, key, &id));
    bool ok =
        conf_mpu_part(c, key, id, 1, b, &part) && conf_mpu_complete(c, key, id, &part, 1, NULL);
    g_free(part.etag);
    TRY(ok);
    TRY(conf_is_bytes(c, key, b));
}

void conf_keys_cases(GArray *cases)
{
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        conf_add(cases, rows[i].name, key_case, &rows[i]);
    }
    conf_add(cases, "key/1024-bytes", key_1024, NULL);
    conf_add(cases, "key/1024-bytes-segments", key_1024_segments, NULL);
    conf_add(cases, "key/1024-bytes-escaped", key_1024_escaped, NULL);
    conf_add(cases, "key/300-bytes-segment", key_300_segment, NULL);
    conf_add(cases, "key/beside-children", beside_children, NULL);
    conf_add(cases, "key/beside-marker", beside_marker, NULL);
    conf_add(cases, "key/marker-with-bytes", marker_with_bytes, NULL);
    conf_add(cases, "key/distinct", distinct, NULL);
    conf_add(cases, "key/odd-copy", copy_odd, NULL);
    conf_add(cases, "key/odd-multipart", multipart_odd, NULL);
}
