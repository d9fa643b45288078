/* SPDX-License-Identifier: Apache-2.0
 *
 * conformance_copy: COPY, and parts that are copies.
 */
#include "base/clock.h"
#include "tests/lib/conformance.h"

static bool put_with_headers(struct conf *c, const char *key, const char *text)
{
    _cleanup_headers_ struct store_headers h = {.content_type = g_strdup("text/x-first"),
                                                .content_language = g_strdup("fr")};
    store_headers_set_meta(&h, "keep", "1");
    struct conf_memory m;
    REQUEST(r, .verb = STORE_PUT, .key = key, .headers = &h,
            .source = conf_source(&m, text, strlen(text)));
    return conf_ok(c, &r);
}

static bool copy(struct conf *c, const char *from, const char *to, char **ret_etag)
{
    REQUEST(r, .verb = STORE_COPY, .key = to, .from_bucket = c->bucket, .from_key = from);
    if (!conf_ok(c, &r)) {
        return false;
    }
    if (r.res.object.etag == NULL) {
        return conf_fail(c, "COPY gave no ETag");
    }
    if (ret_etag != NULL) {
        *ret_etag = g_steal_pointer(&r.res.object.etag);
    }
    return true;
}

static void simple(struct conf *c, const void *arg)
{
    g_autofree char *from = conf_key(c, "from"), *to = conf_key(c, "to"), *etag = NULL,
                    *head = NULL;
    TRY(conf_put_text(c, from, "bytes"));
    TRY(copy(c, from, to, &etag));
    TRY(conf_is_text(c, to, "bytes"));
    TRY(conf_is_text(c, from, "bytes"));
    TRY(conf_etag(c, to, &head));
    EXPECT(c, strcmp(etag, head) == 0, "COPY told ETag %s, HEAD %s", etag, head);
}

static void size_case(struct conf *c, const void *arg)
{
    size_t n = GPOINTER_TO_SIZE(arg);
    g_autofree char *from = conf_key(c, "from"), *to = conf_key(c, "to");
    g_autoptr(GBytes) b = conf_pattern(n, n);
    TRY(conf_put(c, from, g_bytes_get_data(b, NULL), n, NULL));
    TRY(copy(c, from, to, NULL));
    TRY(conf_is_bytes(c, to, b));
}

static void overwrites(struct conf *c, const void *arg)
{
    g_autofree char *from = conf_key(c, "from"), *to = conf_key(c, "to");
    TRY(conf_put_text(c, from, "new"));
    TRY(conf_put_text(c, to, "old bytes"));
    TRY(copy(c, from, to, NULL));
    TRY(conf_is_text(c, to, "new"));
}

/* The copy lives without its source. */
static void source_goes(struct conf *c, const void *arg)
{
    g_autofree char *from = conf_key(c, "from"), *to = conf_key(c, "to"), *to2 = conf_key(c, "to2");
    TRY(conf_put_text(c, from, "bytes"));
    TRY(copy(c, from, to, NULL));
    TRY(copy(c, to, to2, NULL));
    TRY(conf_delete(c, from));
    TRY(conf_is_text(c, to, "bytes"));
    TRY(conf_delete(c, to));
    TRY(conf_is_text(c, to2, "bytes"));
    TRY(conf_put_text(c, from, "other"));
    TRY(conf_is_text(c, to2, "bytes"));
}

static void carries_headers(struct conf *c, const void *arg)
{
    g_autofree char *from = conf_key(c, "from"), *to = conf_key(c, "to");
    TRY(put_with_headers(c, from, "x"));
    TRY(copy(c, from, to, NULL));
    REQUEST(r, .verb = STORE_HEAD, .key = to);
    TRY(conf_ok(c, &r));
    const struct store_headers *h = &r.res.object.headers;
    EXPECT(c, g_strcmp0(h->content_type, "text/x-first") == 0, "content type %s", h->content_type);
    EXPECT(c, g_strcmp0(h->content_language, "fr") == 0, "content language %s",
           h->content_language);
    EXPECT(c, g_strcmp0(store_headers_get_meta(h, "keep"), "1") == 0, "the metadata is lost");
}

static bool replace(struct conf *c, const char *from, const char *to)
{
    _cleanup_headers_ struct store_headers h = {.content_type = g_strdup("text/x-second")};
    store_headers_set_meta(&h, "new", "2");
    REQUEST(r, .verb = STORE_COPY, .key = to, .from_bucket = c->bucket, .from_key = from,
            .replace_headers = true, .headers = &h);
    return conf_ok(c, &r);
}

static bool replaced(struct conf *c, const char *key)
{
    REQUEST(r, .verb = STORE_HEAD, .key = key);
    if (!conf_ok(c, &r)) {
        return false;
    }
    const struct store_headers *h = &r.res.object.headers;
    if (g_strcmp0(h->content_type, "text/x-second") != 0 || h->content_language != NULL ||
        store_headers_get_meta(h, "keep") != NULL ||
        g_strcmp0(store_headers_get_meta(h, "new"), "2") != 0) {
        return conf_fail(c, "the headers are not the new ones: %s, %s", h->content_type,
                         h->content_language);
    }
    return true;
}

static void replaces_headers(struct conf *c, const void *arg)
{
    g_autofree char *from = conf_key(c, "from"), *to = conf_key(c, "to");
    TRY(put_with_headers(c, from, "x"));
    TRY(replace(c, from, to));
    TRY(replaced(c, to));
    TRY(conf_is_text(c, to, "x"));
}

static void self_replace(struct conf *c, const void *arg)
{
    g_autofree char *key = conf_key(c, "o");
    TRY(put_with_headers(c, key, "the bytes"));
    TRY(replace(c, key, key));
    TRY(replaced(c, key));
    TRY(conf_is_text(c, key, "the bytes"));
    TRY(replace(c, key, key));
    TRY(conf_is_text(c, key, "the bytes"));
}

/* New headers without new bytes keep the ETag; it is the date that must tell. */
static void self_date(struct conf *c, const void *arg)
{
    g_autofree char *key = conf_key(c, "o");
    TRY(put_with_headers(c, key, "the bytes"));
    REQUEST(before, .verb = STORE_HEAD, .key = key);
    TRY(conf_ok(c, &before));
    uint64_t until = clock_mono_ns() + 4 * NSEC_PER_SEC; /* dates have whole seconds */
    bool changed = false, settled = false;
    while (!changed && clock_mono_ns() < until) {
        TRY(replace(c, key, key));
        REQUEST(after, .verb = STORE_HEAD, .key = key);
        TRY(conf_ok(c, &after));
        changed = after.res.object.mtime_ns > before.res.object.mtime_ns;
        settled = after.res.object.settled;
    }
    EXPECT(c, changed || !settled, "a date that does not change is called settled");
    EXPECT(c, changed, "the date stays");
}

static void self_plain(struct conf *c, const void *arg)
{
    g_autofree char *key = conf_key(c, "o");
    TRY(conf_put_text(c, key, "x"));
    REQUEST(r, .verb = STORE_COPY, .key = key, .from_bucket = c->bucket, .from_key = key);
    TRY(conf_expect_code(c, &r, -EINVAL, STORE_CLASS_FATAL, "InvalidRequest"));
    TRY(conf_is_text(c, key, "x"));
}

static void other_bucket(struct conf *c, const void *arg)
{
    g_autofree char *from = conf_key(c, "from"), *bucket = conf_bucket_new(c);
    TRY(bucket != NULL);
    TRY(conf_put_text(c, from, "across"));
    REQUEST(r, .verb = STORE_COPY, .bucket = bucket, .key = "to", .from_bucket = c->bucket,
            .from_key = from);
    _cleanup_sink_ struct conf_sink sink;
    REQUEST(g, .verb = STORE_GET, .bucket = bucket, .key = "to", .sink = conf_sink(&sink, 0));
    if (conf_ok(c, &r) && conf_ok(c, &g) &&
        (sink.bytes->len != 6 || memcmp(sink.bytes->data, "across", 6) != 0)) {
        conf_fail(c, "other bytes");
    }
    conf_bucket_remove(c, bucket);
}

static void no_source(struct conf *c, const void *arg)
{
    g_autofree char *from = conf_key(c, "from"), *to = conf_key(c, "to");
    TRY(conf_put_text(c, to, "old"));
    REQUEST(r, .verb = STORE_COPY, .key = to, .from_bucket = c->bucket, .from_key = from);
    TRY(conf_expect_code(c, &r, -ENOENT, STORE_CLASS_FATAL, "NoSuchKey"));
    TRY(conf_is_text(c, to, "old"));
}

static void no_source_bucket(struct conf *c, const void *arg)
{
    g_autofree char *to = conf_key(c, "to");
    REQUEST(r, .verb = STORE_COPY, .key = to, .from_bucket = "conf-no-such-bucket",
            .from_key = "k");
    TRY(conf_expect_code(c, &r, -ENOENT, STORE_CLASS_FATAL, "NoSuchBucket"));
}

static void no_bucket(struct conf *c, const void *arg)
{
    g_autofree char *from = conf_key(c, "from");
    TRY(conf_put_text(c, from, "x"));
    REQUEST(r, .verb = STORE_COPY, .bucket = "conf-no-such-bucket", .key = "k",
            .from_bucket = c->bucket, .from_key = from);
    TRY(conf_expect_code(c, &r, -ENOENT, STORE_CLASS_FATAL, "NoSuchBucket"));
}

/* An object of 10 MiB + 5, uploaded in three parts: copies of it, and of its ranges. */
static bool put_three_parts(struct conf *c, const char *key, GBytes **ret)
{
    g_autofree char *id = NULL;
    g_autoptr(GBytes) b = conf_pattern(99, 10 * MIB + 5);
    struct store_part parts[3] = {{0}};
    static const size_t starts[] = {0, 5 * MIB, 10 * MIB, 10 * MIB + 5};
    bool ok = conf_mpu_create(c, key, &id);
    for (unsigned i = 0; ok && i < 3; i++) {
        g_autoptr(GBytes) piece = g_bytes_new_from_bytes(b, starts[i], starts[i + 1] - starts[i]);
        ok = conf_mpu_part(c, key, id, i + 1, piece, &parts[i]);
    }
    ok = ok && conf_mpu_complete(c, key, id, parts, 3, NULL);
    for (unsigned i = 0; i < 3; i++) {
        g_free(parts[i].etag);
    }
    *ret = g_steal_pointer(&b);
    return ok;
}

static void of_multipart(struct conf *c, const void *arg)
{
    g_autofree char *from = conf_key(c, "from"), *to = conf_key(c, "to");
    g_autoptr(GBytes) b = NULL;
    TRY(put_three_parts(c, from, &b));
    TRY(copy(c, from, to, NULL));
    TRY(conf_delete(c, from));
    TRY(conf_is_bytes(c, to, b));
}

static bool copy_part(struct conf *c, const char *key, const char *id, unsigned number,
                      const char *from, uint64_t off, uint64_t len, struct store_part *ret)
{
    REQUEST(r, .verb = STORE_MPU_COPY_PART, .key = key, .upload_id = id, .part_number = number,
            .from_bucket = c->bucket, .from_key = from,
            .range = {.off = off, .len = len, .set = len > 0});
    if (!conf_ok(c, &r)) {
        return false;
    }
    if (r.res.object.etag == NULL) {
        return conf_fail(c, "a part's copy has no ETag");
    }
    *ret = (struct store_part){
        .number = number, .size = len, .etag = g_steal_pointer(&r.res.object.etag)};
    return true;
}

struct copy_part_row {
    const char *name;
    uint64_t off, len; /* of the source's 10 MiB + 5; len 0 = all of it */
};

static const struct copy_part_row copy_parts[] = {
    {"copy-part/whole", 0, 0},
    {"copy-part/first-byte", 0, 1},
    {"copy-part/last-byte", 10 * MIB + 4, 1},
    {"copy-part/one-part", 5 * MIB, 5 * MIB},
    {"copy-part/across-parts", 5 * MIB - 7, 20},
    {"copy-part/across-all", 1, 10 * MIB + 3},
};

static void copy_part_case(struct conf *c, const void *arg)
{
    const struct copy_part_row *row = arg;
    g_autofree char *from = conf_key(c, "from"), *to = conf_key(c, "to"), *id = NULL;
    g_autoptr(GBytes) b = NULL;
    struct store_part part = {0};
    TRY(put_three_parts(c, from, &b));
    TRY(conf_mpu_create(c, to, &id));
    bool ok = copy_part(c, to, id, 1, from, row->off, row->len, &part);
    g_autoptr(GBytes) expected = g_bytes_new_from_bytes(
        b, row->off, row->len > 0 ? row->len : g_bytes_get_size(b) - row->off);
    if (ok) {
        g_autofree char *md5 = conf_md5(expected);
        ok = strcmp(md5, part.etag) == 0 ||
             conf_fail(c, "the part's ETag %s is not the MD5 %s", part.etag, md5);
    }
    ok = ok && conf_delete(c, from) && conf_mpu_complete(c, to, id, &part, 1, NULL);
    g_free(part.etag);
    TRY(ok);
    TRY(conf_is_bytes(c, to, expected));
}

/* What the committer does to a changed file: clean ranges copied, a changed one uploaded, onto
 * itself. */
static void copy_part_mixed(struct conf *c, const void *arg)
{
    g_autofree char *key = conf_key(c, "o"), *id = NULL;
    g_autoptr(GBytes) b = NULL;
    g_autoptr(GBytes) fresh = conf_pattern(123, 5 * MIB);
    struct store_part parts[3] = {{0}};
    TRY(put_three_parts(c, key, &b));
    TRY(conf_mpu_create(c, key, &id));
    bool ok = copy_part(c, key, id, 1, key, 0, 5 * MIB, &parts[0]) &&
              conf_mpu_part(c, key, id, 2, fresh, &parts[1]) &&
              copy_part(c, key, id, 3, key, 5 * MIB + 100, 5 * MIB - 95, &parts[2]) &&
              conf_is_bytes(c, key, b) && conf_mpu_complete(c, key, id, parts, 3, NULL);
    for (unsigned i = 0; i < 3; i++) {
        g_free(parts[i].etag);
    }
    TRY(ok);
    g_autoptr(GByteArray) all = g_byte_array_new();
    const guint8 *p = g_bytes_get_data(b, NULL);
    g_byte_array_append(all, p, 5 * MIB);
    g_byte_array_append(all, g_bytes_get_data(fresh, NULL), 5 * MIB);
    g_byte_array_append(all, p + 5 * MIB + 100, 5 * MIB - 95);
    TRY(conf_is(c, key, all->data, all->len));
}

static void copy_part_past_end(struct conf *c, const void *arg)
{
    g_autofree char *from = conf_key(c, "from"), *to = conf_key(c, "to"), *id = NULL;
    TRY(conf_put_text(c, from, "0123456789"));
    TRY(conf_mpu_create(c, to, &id));
    static const uint64_t rows[][2] = {{10, 1}, {100, 5}, {5, 6}};
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        REQUEST(r, .verb = STORE_MPU_COPY_PART, .key = to, .upload_id = id, .part_number = 1,
                .from_bucket = c->bucket, .from_key = from,
                .range = {.off = rows[i][0], .len = rows[i][1], .set = true});
        conf_run(c, &r);
        if ((r.res.err != -ERANGE && r.res.err != -EINVAL) || r.res.cls != STORE_CLASS_FATAL) {
            conf_fail(c, "range %" G_GUINT64_FORMAT "+%" G_GUINT64_FORMAT " of 10 bytes: %s %s",
                      rows[i][0], rows[i][1], r.res.err == 0 ? "0" : strerrorname_np(-r.res.err),
                      r.res.code);
        }
    }
    TRY(conf_mpu_abort(c, to, id));
}

static void copy_part_no_source(struct conf *c, const void *arg)
{
    g_autofree char *from = conf_key(c, "from"), *to = conf_key(c, "to"), *id = NULL;
    TRY(conf_mpu_create(c, to, &id));
    REQUEST(r, .verb = STORE_MPU_COPY_PART, .key = to, .upload_id = id, .part_number = 1,
            .from_bucket = c->bucket, .from_key = from);
    bool ok = conf_expect_code(c, &r, -ENOENT, STORE_CLASS_FATAL, "NoSuchKey");
    conf_mpu_abort(c, to, id);
    TRY(ok);
}

static void copy_part_no_upload(struct conf *c, const void *arg)
{
    g_autofree char *from = conf_key(c, "from"), *to = conf_key(c, "to"), *id = NULL;
    TRY(conf_put_text(c, from, "x"));
    TRY(conf_mpu_create(c, to, &id));
    TRY(conf_mpu_abort(c, to, id));
    REQUEST(r, .verb = STORE_MPU_COPY_PART, .key = to, .upload_id = id, .part_number = 1,
            .from_bucket = c->bucket, .from_key = from);
    TRY(conf_expect_code(c, &r, -ENOENT, STORE_CLASS_FATAL, "NoSuchUpload"));
}

void conf_copy_cases(GArray *cases)
{
    conf_add(cases, "copy/simple", simple, NULL);
    conf_add(cases, "copy/empty", size_case, GSIZE_TO_POINTER(0));
    conf_add(cases, "copy/6m", size_case, GSIZE_TO_POINTER(6 * MIB));
    conf_add(cases, "copy/overwrites", overwrites, NULL);
    conf_add(cases, "copy/source-goes", source_goes, NULL);
    conf_add(cases, "copy/carries-headers", carries_headers, NULL);
    conf_add(cases, "copy/replaces-headers", replaces_headers, NULL);
    conf_add(cases, "copy/self-replace", self_replace, NULL);
    conf_add(cases, "copy/self-date", self_date, NULL);
    conf_add(cases, "copy/self-plain", self_plain, NULL);
    conf_add(cases, "copy/other-bucket", other_bucket, NULL);
    conf_add(cases, "copy/no-source", no_source, NULL);
    conf_add(cases, "copy/no-source-bucket", no_source_bucket, NULL);
    conf_add(cases, "copy/no-bucket", no_bucket, NULL);
    conf_add(cases, "copy/of-multipart", of_multipart, NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(copy_parts); i++) {
        conf_add(cases, copy_parts[i].name, copy_part_case, &copy_parts[i]);
    }
    conf_add(cases, "copy-part/mixed", copy_part_mixed, NULL);
    conf_add(cases, "copy-part/past-the-end", copy_part_past_end, NULL);
    conf_add(cases, "copy-part/no-source", copy_part_no_source, NULL);
    conf_add(cases, "copy-part/no-upload", copy_part_no_upload, NULL);
}
