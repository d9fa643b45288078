/* SPDX-License-Identifier: Apache-2.0
 *
 * conformance_objects: PUT, GET and HEAD: sizes, headers, ranges, what is not there.
 */
#include "base/clock.h"
#include "tests/lib/conformance.h"

static void size_case(struct conf *c, const void *arg)
{
    size_t n = GPOINTER_TO_SIZE(arg);
    g_autoptr(GBytes) b = conf_pattern(n + 1, n);
    g_autofree char *key = conf_key(c, "o"), *etag = NULL, *md5 = conf_md5(b);
    gsize got;
    TRY(conf_put(c, key, g_bytes_get_data(b, &got), n, &etag));
    EXPECT(c, strcmp(etag, md5) == 0, "ETag %s is not the MD5 %s", etag, md5);
    REQUEST(h, .verb = STORE_HEAD, .key = key);
    TRY(conf_ok(c, &h));
    EXPECT(c, h.res.object.size == n, "HEAD: size %" G_GUINT64_FORMAT, h.res.object.size);
    EXPECT(c, g_strcmp0(h.res.object.etag, md5) == 0, "HEAD: ETag %s", h.res.object.etag);
    TRY(conf_is_bytes(c, key, b));
}

static void bytes_counted(struct conf *c, const void *arg)
{
    g_autofree char *key = conf_key(c, "o");
    struct conf_memory m;
    REQUEST(r, .verb = STORE_PUT, .key = key, .source = conf_source(&m, "0123456789", 10));
    TRY(conf_ok(c, &r));
    EXPECT(c, r.res.bytes == 10, "PUT counted %" G_GUINT64_FORMAT " bytes", r.res.bytes);
    _cleanup_sink_ struct conf_sink sink;
    REQUEST(g, .verb = STORE_GET, .key = key, .sink = conf_sink(&sink, 2),
            .range = {.off = 2, .len = 5, .set = true});
    TRY(conf_ok(c, &g));
    EXPECT(c, g.res.bytes == 5, "GET counted %" G_GUINT64_FORMAT " bytes", g.res.bytes);
}

static void overwrite(struct conf *c, const void *arg)
{
    g_autofree char *key = conf_key(c, "o");
    TRY(conf_put_text(c, key, "the first, which is longer"));
    TRY(conf_put_text(c, key, "the second"));
    TRY(conf_is_text(c, key, "the second"));
    TRY(conf_put_text(c, key, ""));
    TRY(conf_is_text(c, key, ""));
}

static void mtime(struct conf *c, const void *arg)
{
    g_autofree char *key = conf_key(c, "o");
    int64_t before = clock_real_ns();
    TRY(conf_put_text(c, key, "x"));
    REQUEST(h, .verb = STORE_HEAD, .key = key);
    TRY(conf_ok(c, &h));
    int64_t after = clock_real_ns(), slack = 2 * (int64_t)NSEC_PER_SEC; /* HTTP has whole seconds */
    EXPECT(c, h.res.object.mtime_ns > before - slack && h.res.object.mtime_ns < after + slack,
           "mtime %" G_GINT64_FORMAT " is not now", h.res.object.mtime_ns);
    REQUEST(l, .verb = STORE_LIST, .prefix = key);
    TRY(conf_ok(c, &l));
    const struct store_entry *e = l.res.entries->pdata[0];
    EXPECT(c, ABS(e->mtime_ns - h.res.object.mtime_ns) < slack, "LIST's mtime differs from HEAD's");
}

static ssize_t failing_read(void *ctx, uint64_t off, void *buf, size_t n)
{
    memset(buf, 'x', n);
    return off >= 256 << 10 ? -EDOM : (ssize_t)n;
}

static void source_error(struct conf *c, const void *arg)
{
    g_autofree char *key = conf_key(c, "o");
    TRY(conf_put_text(c, key, "old"));
    REQUEST(r, .verb = STORE_PUT, .key = key, .source = {.read = failing_read, .size = 3 * MIB});
    TRY(conf_expect(c, &r, -EDOM, STORE_CLASS_FATAL));
    TRY(conf_is_text(c, key, "old"));
}

static int failing_write(void *ctx, uint64_t off, const void *buf, size_t n)
{
    return -EDOM;
}

static void sink_error(struct conf *c, const void *arg)
{
    g_autofree char *key = conf_key(c, "o");
    TRY(conf_put_text(c, key, "bytes"));
    REQUEST(r, .verb = STORE_GET, .key = key, .sink = {.write = failing_write});
    TRY(conf_expect(c, &r, -EDOM, STORE_CLASS_FATAL));
    TRY(conf_is_text(c, key, "bytes"));
}

static void put_no_bucket(struct conf *c, const void *arg)
{
    struct conf_memory m;
    REQUEST(r, .verb = STORE_PUT, .bucket = "conf-no-such-bucket", .key = "k",
            .source = conf_source(&m, "x", 1));
    TRY(conf_expect_code(c, &r, -ENOENT, STORE_CLASS_FATAL, "NoSuchBucket"));
}

static void get_absent(struct conf *c, const void *arg)
{
    _cleanup_sink_ struct conf_sink sink;
    REQUEST(r, .verb = STORE_GET, .key = "get/absent/no-such-key", .sink = conf_sink(&sink, 0));
    TRY(conf_expect_code(c, &r, -ENOENT, STORE_CLASS_FATAL, "NoSuchKey"));
    EXPECT(c, sink.bytes->len == 0, "the error's text came as the object's bytes");
}

static void get_no_bucket(struct conf *c, const void *arg)
{
    _cleanup_sink_ struct conf_sink sink;
    REQUEST(r, .verb = STORE_GET, .bucket = "conf-no-such-bucket", .key = "k",
            .sink = conf_sink(&sink, 0));
    TRY(conf_expect_code(c, &r, -ENOENT, STORE_CLASS_FATAL, "NoSuchBucket"));
}

static void head_absent(struct conf *c, const void *arg)
{
    TRY(conf_absent(c, "head/absent/no-such-key"));
    REQUEST(r, .verb = STORE_HEAD, .bucket = "conf-no-such-bucket", .key = "k");
    TRY(conf_expect(c, &r, -ENOENT, STORE_CLASS_FATAL));
}

/* ---- headers ---- */

static void header_case(struct conf *c, const void *arg)
{
    g_autofree char *key = conf_key(c, "o");
    static const struct store_headers none;
    struct store_headers h = none;
    size_t which = GPOINTER_TO_SIZE(arg);
    char *all[] = {(char[]){"video/mp4; codecs=\"avc1\""},
                   (char[]){"no-cache, max-age=60"},
                   (char[]){"attachment; filename=\"a b.mp4\""},
                   (char[]){"x-own"},
                   (char[]){"de, en"},
                   (char[]){"Wed, 21 Oct 2065 07:28:00 GMT"}};
    char **slots[] = {&h.content_type,     &h.cache_control,    &h.content_disposition,
                      &h.content_encoding, &h.content_language, &h.expires};
    for (size_t i = 0; i < G_N_ELEMENTS(slots); i++) {
        if (which == i || which == G_N_ELEMENTS(slots)) {
            *slots[i] = all[i];
        }
    }
    struct conf_memory m;
    REQUEST(p, .verb = STORE_PUT, .key = key, .headers = &h, .source = conf_source(&m, "x", 1));
    TRY(conf_ok(c, &p));
    _cleanup_sink_ struct conf_sink sink;
    REQUEST(hd, .verb = STORE_HEAD, .key = key);
    REQUEST(gt, .verb = STORE_GET, .key = key, .sink = conf_sink(&sink, 0));
    TRY(conf_ok(c, &hd));
    TRY(conf_ok(c, &gt));
    for (int get = 0; get < 2; get++) {
        const struct store_headers *got = get ? &gt.res.object.headers : &hd.res.object.headers;
        const char *values[] = {got->content_type,        got->cache_control,
                                got->content_disposition, got->content_encoding,
                                got->content_language,    got->expires};
        for (size_t i = 0; i < G_N_ELEMENTS(slots); i++) {
            bool set = *slots[i] != NULL || i == 0; /* a content type there always is */
            EXPECT(c, set == (values[i] != NULL), "%s: header %zu is %s", get ? "GET" : "HEAD", i,
                   values[i]);
            EXPECT(c, *slots[i] == NULL || strcmp(values[i], *slots[i]) == 0,
                   "%s: header %zu is %s", get ? "GET" : "HEAD", i, values[i]);
        }
        EXPECT(c, got->meta == NULL || g_hash_table_size(got->meta) == 0,
               "metadata came from nowhere");
    }
}

struct meta_row {
    const char *name, *key, *value;
};

static const struct meta_row meta_rows[] = {
    {"headers/meta-simple", "mode", "33188"},
    {"headers/meta-dashes", "mlopsfs-commit-x", "6f2f9f7e-58a3-4c5e-8ad1-2f8a0a3f7f11"},
    {"headers/meta-digits", "a0-1-b2", "0"},
    {"headers/meta-spaces-inside", "t", "a  b c"},
    {"headers/meta-punctuation", "p", "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"},
    {"headers/meta-long", "long", NULL},
};

static void meta_case(struct conf *c, const void *arg)
{
    const struct meta_row *row = arg;
    g_autofree char *key = conf_key(c, "o");
    g_autofree char *big = g_strnfill(1900, 'v');
    const char *value = row->value != NULL ? row->value : big;
    _cleanup_headers_ struct store_headers h = {0};
    store_headers_set_meta(&h, row->key, value);
    struct conf_memory m;
    REQUEST(p, .verb = STORE_PUT, .key = key, .headers = &h, .source = conf_source(&m, "x", 1));
    TRY(conf_ok(c, &p));
    REQUEST(r, .verb = STORE_HEAD, .key = key);
    TRY(conf_ok(c, &r));
    const char *got = store_headers_get_meta(&r.res.object.headers, row->key);
    EXPECT(c, g_strcmp0(got, value) == 0, "metadata %s: expected %s, got %s", row->key, value, got);
    EXPECT(c, g_hash_table_size(r.res.object.headers.meta) == 1, "more metadata than was put");
}

static void meta_many(struct conf *c, const void *arg)
{
    g_autofree char *key = conf_key(c, "o");
    _cleanup_headers_ struct store_headers h = {0};
    for (unsigned i = 0; i < 40; i++) {
        g_autofree char *name = g_strdup_printf("name-%u", i),
                        *value = g_strdup_printf("value %u", i * i);
        store_headers_set_meta(&h, name, value);
    }
    struct conf_memory m;
    REQUEST(p, .verb = STORE_PUT, .key = key, .headers = &h, .source = conf_source(&m, "x", 1));
    TRY(conf_ok(c, &p));
    REQUEST(r, .verb = STORE_HEAD, .key = key);
    TRY(conf_ok(c, &r));
    GHashTable *got = r.res.object.headers.meta;
    EXPECT(c, got != NULL && g_hash_table_size(got) == 40, "not 40 pairs");
    for (unsigned i = 0; i < 40; i++) {
        g_autofree char *name = g_strdup_printf("name-%u", i),
                        *value = g_strdup_printf("value %u", i * i);
        EXPECT(c, g_strcmp0(g_hash_table_lookup(got, name), value) == 0, "%s is not %s", name,
               value);
    }
}

static void meta_too_large(struct conf *c, const void *arg)
{
    g_autofree char *key = conf_key(c, "o"), *big = g_strnfill(2100, 'v');
    _cleanup_headers_ struct store_headers h = {0};
    store_headers_set_meta(&h, "big", big);
    struct conf_memory m;
    REQUEST(p, .verb = STORE_PUT, .key = key, .headers = &h, .source = conf_source(&m, "x", 1));
    TRY(conf_expect_code(c, &p, -E2BIG, STORE_CLASS_FATAL, "MetadataTooLarge"));
    TRY(conf_absent(c, key));
}

static void headers_replaced(struct conf *c, const void *arg)
{
    g_autofree char *key = conf_key(c, "o");
    _cleanup_headers_ struct store_headers h = {.cache_control = g_strdup("no-cache")};
    store_headers_set_meta(&h, "old", "1");
    struct conf_memory m;
    REQUEST(p, .verb = STORE_PUT, .key = key, .headers = &h, .source = conf_source(&m, "x", 1));
    TRY(conf_ok(c, &p));
    TRY(conf_put_text(c, key, "y"));
    REQUEST(r, .verb = STORE_HEAD, .key = key);
    TRY(conf_ok(c, &r));
    EXPECT(c, r.res.object.headers.cache_control == NULL, "Cache-Control outlived its object");
    EXPECT(c, store_headers_get_meta(&r.res.object.headers, "old") == NULL,
           "metadata outlived its object");
}

/* ---- ranges of an object of 1,000 bytes ---- */

struct range_row {
    const char *name;
    uint64_t off, len, expected; /* bytes; 0 = -ERANGE */
};

static const struct range_row ranges[] = {
    {"range/first-byte", 0, 1, 1},
    {"range/last-byte", 999, 1, 1},
    {"range/whole", 0, 1000, 1000},
    {"range/open-from-0", 0, 0, 1000},
    {"range/open-from-500", 500, 0, 500},
    {"range/open-from-last", 999, 0, 1},
    {"range/inner", 1, 998, 998},
    {"range/over-the-end", 990, 100, 10},
    {"range/over-the-end-by-1", 0, 1001, 1000},
    {"range/huge", 10, 1ULL << 40, 990},
    {"range/at-the-end", 1000, 1, 0},
    {"range/open-at-the-end", 1000, 0, 0},
    {"range/past-the-end", 5000, 10, 0},
    {"range/far-past-the-end", 1ULL << 40, 10, 0},
};

static void range_case(struct conf *c, const void *arg)
{
    const struct range_row *row = arg;
    g_autofree char *key = conf_key(c, "o");
    guint8 data[1000];
    conf_pattern_fill(77, 0, data, sizeof(data));
    TRY(conf_put(c, key, data, sizeof(data), NULL));
    _cleanup_sink_ struct conf_sink sink;
    REQUEST(r, .verb = STORE_GET, .key = key, .sink = conf_sink(&sink, row->off),
            .range = {.off = row->off, .len = row->len, .set = true});
    if (row->expected == 0) {
        TRY(conf_expect_code(c, &r, -ERANGE, STORE_CLASS_FATAL, "InvalidRange"));
        EXPECT(c, sink.bytes->len == 0, "bytes came with the error");
        return;
    }
    TRY(conf_ok(c, &r));
    EXPECT(c, !sink.disorder, "bytes came out of order");
    EXPECT(c, sink.bytes->len == row->expected, "%u bytes came", sink.bytes->len);
    EXPECT(c, memcmp(sink.bytes->data, data + row->off, sink.bytes->len) == 0, "other bytes");
    EXPECT(c, r.res.object.size == 1000, "size %" G_GUINT64_FORMAT " is not the whole object's",
           r.res.object.size);
    EXPECT(c, r.res.object.etag != NULL, "no ETag");
}

static void range_empty(struct conf *c, const void *arg)
{
    g_autofree char *key = conf_key(c, "o");
    TRY(conf_put_text(c, key, ""));
    for (uint64_t len = 0; len < 2; len++) {
        _cleanup_sink_ struct conf_sink sink;
        REQUEST(r, .verb = STORE_GET, .key = key, .sink = conf_sink(&sink, 0),
                .range = {.len = len, .set = true});
        TRY(conf_expect(c, &r, -ERANGE, STORE_CLASS_FATAL));
    }
}

static void range_many(struct conf *c, const void *arg)
{
    g_autofree char *key = conf_key(c, "o");
    g_autoptr(GBytes) b = conf_pattern(5, 3 * MIB + 17);
    gsize n;
    const guint8 *p = g_bytes_get_data(b, &n);
    TRY(conf_put(c, key, p, n, NULL));
    for (unsigned i = 0; i < 40; i++) {
        uint64_t off = (i * 7919 * 1031) % n, len = 1 + (i * 104729 * 13) % (n - off);
        _cleanup_sink_ struct conf_sink sink;
        REQUEST(r, .verb = STORE_GET, .key = key, .sink = conf_sink(&sink, off),
                .range = {.off = off, .len = len, .set = true});
        TRY(conf_ok(c, &r));
        EXPECT(c,
               !sink.disorder && sink.bytes->len == len &&
                   memcmp(sink.bytes->data, p + off, len) == 0,
               "range %" G_GUINT64_FORMAT "+%" G_GUINT64_FORMAT ": other bytes", off, len);
    }
}

void conf_objects_cases(GArray *cases)
{
    static const struct {
        const char *name;
        size_t n;
    } sizes[] = {
        {"put/size-0", 0},
        {"put/size-1", 1},
        {"put/size-4095", 4095},
        {"put/size-65537", 65537},
        {"put/size-1m-less-1", MIB - 1},
        {"put/size-1m", MIB},
        {"put/size-1m-plus-1", MIB + 1},
        {"put/size-5m-less-1", 5 * MIB - 1},
        {"put/size-5m", 5 * MIB},
        {"put/size-5m-plus-1", 5 * MIB + 1},
    };
    for (size_t i = 0; i < G_N_ELEMENTS(sizes); i++) {
        conf_add(cases, sizes[i].name, size_case, GSIZE_TO_POINTER(sizes[i].n));
    }
    conf_add(cases, "put/bytes-counted", bytes_counted, NULL);
    conf_add(cases, "put/overwrite", overwrite, NULL);
    conf_add(cases, "put/mtime", mtime, NULL);
    conf_add(cases, "put/source-error", source_error, NULL);
    conf_add(cases, "put/no-bucket", put_no_bucket, NULL);
    conf_add(cases, "get/absent", get_absent, NULL);
    conf_add(cases, "get/no-bucket", get_no_bucket, NULL);
    conf_add(cases, "get/sink-error", sink_error, NULL);
    conf_add(cases, "head/absent", head_absent, NULL);
    static const char *const headers[] = {"headers/content-type",
                                          "headers/cache-control",
                                          "headers/content-disposition",
                                          "headers/content-encoding",
                                          "headers/content-language",
                                          "headers/expires",
                                          "headers/all"};
    for (size_t i = 0; i < G_N_ELEMENTS(headers); i++) {
        conf_add(cases, headers[i], header_case, GSIZE_TO_POINTER(i));
    }
    conf_add(cases, "headers/none", header_case, GSIZE_TO_POINTER(G_N_ELEMENTS(headers)));
    for (size_t i = 0; i < G_N_ELEMENTS(meta_rows); i++) {
        conf_add(cases, meta_rows[i].name, meta_case, &meta_rows[i]);
    }
    conf_add(cases, "headers/meta-many", meta_many, NULL);
    conf_add(cases, "headers/meta-too-large", meta_too_large, NULL);
    conf_add(cases, "headers/replaced", headers_replaced, NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(ranges); i++) {
        conf_add(cases, ranges[i].name, range_case, &ranges[i]);
    }
    conf_add(cases, "range/empty-object", range_empty, NULL);
    conf_add(cases, "range/many", range_many, NULL);
}
