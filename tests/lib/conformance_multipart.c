/* SPDX-License-Identifier: Apache-2.0
 *
 * conformance_multipart: uploads in parts: they appear as a whole or not at all.
 */
#include "base/clock.h"
#include "tests/lib/conformance.h"

#define N_MAX 6

/* An upload of one key with parts of pattern bytes. */
struct upload {
    struct conf *c;
    char *key, *id;
    GBytes *bytes[N_MAX];
    struct store_part parts[N_MAX];
};

static void upload_clear(struct upload *u)
{
    for (size_t i = 0; i < N_MAX; i++) {
        g_clear_pointer(&u->bytes[i], g_bytes_unref);
        g_free(u->parts[i].etag);
    }
    if (u->id != NULL) {
        REQUEST(a, .verb = STORE_MPU_ABORT, .key = u->key, .upload_id = u->id);
        conf_run(u->c, &a); /* what a failed case left */
    }
    g_free(u->id);
    g_free(u->key);
}
#define _cleanup_upload_ __attribute__((cleanup(upload_clear)))

static bool upload_start(struct upload *u, struct conf *c)
{
    *u = (struct upload){.c = c, .key = conf_key(c, "o")};
    return conf_mpu_create(c, u->key, &u->id);
}

/* Uploads part number i + 1 with n bytes. */
static bool upload_part(struct upload *u, size_t i, size_t n)
{
    g_clear_pointer(&u->bytes[i], g_bytes_unref);
    u->bytes[i] = conf_pattern(n * 10 + i, n);
    return conf_mpu_part(u->c, u->key, u->id, (unsigned)i + 1, u->bytes[i], &u->parts[i]);
}

/* Completes with the first n parts; the object must be their bytes, and have S3's ETag. */
static bool upload_finish(struct upload *u, size_t n)
{
    g_autofree char *etag = NULL;
    if (!conf_mpu_complete(u->c, u->key, u->id, u->parts, n, &etag)) {
        return false;
    }
    g_autoptr(GByteArray) all = g_byte_array_new();
    g_autoptr(GByteArray) digests = g_byte_array_new();
    for (size_t i = 0; i < n; i++) {
        gsize k;
        const guint8 *p = g_bytes_get_data(u->bytes[i], &k);
        g_byte_array_append(all, p, (guint)k);
        guint8 md[16];
        gsize md_len = sizeof(md);
        g_autoptr(GChecksum) sum = g_checksum_new(G_CHECKSUM_MD5);
        g_checksum_update(sum, p, (gssize)k);
        g_checksum_get_digest(sum, md, &md_len);
        g_byte_array_append(digests, md, (guint)md_len);
    }
    g_autofree char *md5 = g_compute_checksum_for_data(G_CHECKSUM_MD5, digests->data, digests->len);
    g_autofree char *expected = g_strdup_printf("%s-%zu", md5, n);
    if (g_strcmp0(etag, expected) != 0) {
        return conf_fail(u->c, "COMPLETE: ETag %s, expected %s", etag, expected);
    }
    g_autofree char *head = NULL;
    if (!conf_etag(u->c, u->key, &head)) {
        return false;
    }
    if (g_strcmp0(head, expected) != 0) {
        return conf_fail(u->c, "HEAD: ETag %s, expected %s", head, expected);
    }
    return conf_is(u->c, u->key, all->data, all->len);
}

static bool upload_refused(struct upload *u, size_t n, const char *code)
{
    REQUEST(r, .verb = STORE_MPU_COMPLETE, .key = u->key, .upload_id = u->id, .parts = u->parts,
            .n_parts = n);
    return conf_expect_code(u->c, &r, -EINVAL, STORE_CLASS_FATAL, code);
}

struct sizes_row {
    const char *name;
    size_t n, sizes[N_MAX];
};

static const struct sizes_row sizes[] = {
    {"multipart/one-part", 1, {1000}},
    {"multipart/one-byte", 1, {1}},
    {"multipart/one-empty-part", 1, {0}},
    {"multipart/two-parts", 2, {5 * MIB, 17}},
    {"multipart/exactly-5m", 2, {5 * MIB, 5 * MIB}},
    {"multipart/odd-sizes", 3, {5 * MIB + 1, 6 * MIB - 1, 3}},
    {"multipart/four-parts", 4, {5 * MIB, 5 * MIB, 5 * MIB, 1}},
};

static void sizes_case(struct conf *c, const void *arg)
{
    const struct sizes_row *row = arg;
    _cleanup_upload_ struct upload u;
    TRY(upload_start(&u, c));
    for (size_t i = 0; i < row->n; i++) {
        TRY(upload_part(&u, i, row->sizes[i]));
    }
    TRY(upload_finish(&u, row->n));
}

static void out_of_order(struct conf *c, const void *arg)
{
    _cleanup_upload_ struct upload u;
    TRY(upload_start(&u, c));
    TRY(upload_part(&u, 2, 100));
    TRY(upload_part(&u, 0, 5 * MIB));
    TRY(upload_part(&u, 1, 5 * MIB + 3));
    TRY(upload_finish(&u, 3));
}

static void reupload(struct conf *c, const void *arg)
{
    _cleanup_upload_ struct upload u;
    TRY(upload_start(&u, c));
    TRY(upload_part(&u, 0, 5 * MIB));
    TRY(upload_part(&u, 1, 300));
    TRY(upload_part(&u, 0, 5 * MIB + 1));
    TRY(upload_part(&u, 1, 200));
    TRY(upload_finish(&u, 2));
}

/* Numbers may leave gaps: 1, 5, 10000. */
static void sparse_numbers(struct conf *c, const void *arg)
{
    static const unsigned numbers[] = {1, 5, 10000};
    _cleanup_upload_ struct upload u;
    TRY(upload_start(&u, c));
    for (size_t i = 0; i < 3; i++) {
        u.bytes[i] = conf_pattern(i, i < 2 ? 5 * MIB : 9);
        TRY(conf_mpu_part(c, u.key, u.id, numbers[i], u.bytes[i], &u.parts[i]));
    }
    TRY(upload_finish(&u, 3));
}

/* What was uploaded and is not named is not in the object. */
static void unused_parts(struct conf *c, const void *arg)
{
    _cleanup_upload_ struct upload u;
    TRY(upload_start(&u, c));
    TRY(upload_part(&u, 0, 100));
    TRY(upload_part(&u, 1, 200));
    TRY(upload_part(&u, 2, 300));
    TRY(upload_finish(&u, 1));
}

static void wrong_etag(struct conf *c, const void *arg)
{
    _cleanup_upload_ struct upload u;
    TRY(upload_start(&u, c));
    TRY(upload_part(&u, 0, 100));
    g_autofree char *right = u.parts[0].etag;
    u.parts[0].etag = g_strdup("0123456789abcdef0123456789abcdef");
    TRY(upload_refused(&u, 1, "InvalidPart"));
    TRY(conf_absent(c, u.key));
    g_free(u.parts[0].etag);
    u.parts[0].etag = g_steal_pointer(&right);
    TRY(upload_finish(&u, 1)); /* the upload is as it was */
}

static void old_etag(struct conf *c, const void *arg)
{
    _cleanup_upload_ struct upload u;
    TRY(upload_start(&u, c));
    TRY(upload_part(&u, 0, 100));
    g_autofree char *old = g_strdup(u.parts[0].etag);
    TRY(upload_part(&u, 0, 101));
    g_free(u.parts[0].etag);
    u.parts[0].etag = g_steal_pointer(&old);
    TRY(upload_refused(&u, 1, "InvalidPart"));
}

static void missing_part(struct conf *c, const void *arg)
{
    _cleanup_upload_ struct upload u;
    TRY(upload_start(&u, c));
    TRY(upload_part(&u, 0, 5 * MIB));
    u.parts[1] = (struct store_part){.number = 2, .size = 5, .etag = g_strdup(u.parts[0].etag)};
    TRY(upload_refused(&u, 2, "InvalidPart"));
    TRY(conf_absent(c, u.key));
}

static void small_part(struct conf *c, const void *arg)
{
    _cleanup_upload_ struct upload u;
    TRY(upload_start(&u, c));
    TRY(upload_part(&u, 0, 5 * MIB - 1));
    TRY(upload_part(&u, 1, 10));
    TRY(upload_refused(&u, 2, "EntityTooSmall"));
    TRY(conf_absent(c, u.key));
}

/* After a refusal the small part can be sent again. */
static void small_part_mended(struct conf *c, const void *arg)
{
    _cleanup_upload_ struct upload u;
    TRY(upload_start(&u, c));
    TRY(upload_part(&u, 0, 100));
    TRY(upload_part(&u, 1, 10));
    TRY(upload_refused(&u, 2, "EntityTooSmall"));
    TRY(upload_part(&u, 0, 5 * MIB));
    TRY(upload_finish(&u, 2));
}

static void invisible(struct conf *c, const void *arg)
{
    _cleanup_upload_ struct upload u;
    TRY(upload_start(&u, c));
    TRY(upload_part(&u, 0, 100));
    TRY(conf_absent(c, u.key));
    TRY(conf_list_is(c, &(struct store_request){.prefix = u.key}, "", ""));
    TRY(upload_finish(&u, 1));
    TRY(conf_list_is(c, &(struct store_request){.prefix = u.key}, "", u.key));
}

static void old_stays_visible(struct conf *c, const void *arg)
{
    _cleanup_upload_ struct upload u;
    TRY(upload_start(&u, c));
    TRY(conf_put_text(c, u.key, "old"));
    TRY(upload_part(&u, 0, 5 * MIB));
    TRY(conf_is_text(c, u.key, "old"));
    TRY(upload_part(&u, 1, 5));
    TRY(conf_is_text(c, u.key, "old"));
    TRY(upload_finish(&u, 2));
}

static void abort_upload(struct conf *c, const void *arg)
{
    _cleanup_upload_ struct upload u;
    TRY(upload_start(&u, c));
    TRY(upload_part(&u, 0, 100));
    TRY(conf_mpu_abort(c, u.key, u.id));
    TRY(conf_absent(c, u.key));
    REQUEST(l, .verb = STORE_MPU_LIST_PARTS, .key = u.key, .upload_id = u.id);
    TRY(conf_expect_code(c, &l, -ENOENT, STORE_CLASS_FATAL, "NoSuchUpload"));
    REQUEST(r, .verb = STORE_MPU_COMPLETE, .key = u.key, .upload_id = u.id, .parts = u.parts,
            .n_parts = 1);
    TRY(conf_expect_code(c, &r, -ENOENT, STORE_CLASS_FATAL, "NoSuchUpload"));
}

static void abort_keeps_old(struct conf *c, const void *arg)
{
    _cleanup_upload_ struct upload u;
    TRY(upload_start(&u, c));
    TRY(conf_put_text(c, u.key, "old"));
    TRY(upload_part(&u, 0, 100));
    TRY(conf_mpu_abort(c, u.key, u.id));
    TRY(conf_is_text(c, u.key, "old"));
}

static void abort_twice(struct conf *c, const void *arg)
{
    _cleanup_upload_ struct upload u;
    TRY(upload_start(&u, c));
    TRY(conf_mpu_abort(c, u.key, u.id));
    TRY(conf_mpu_abort(c, u.key, u.id));
}

/* S3 may take it as a repetition or as an error; the object must not suffer. */
static void complete_twice(struct conf *c, const void *arg)
{
    _cleanup_upload_ struct upload u;
    TRY(upload_start(&u, c));
    TRY(upload_part(&u, 0, 100));
    TRY(upload_finish(&u, 1));
    REQUEST(r, .verb = STORE_MPU_COMPLETE, .key = u.key, .upload_id = u.id, .parts = u.parts,
            .n_parts = 1);
    conf_run(c, &r);
    EXPECT(c, r.res.err == 0 || r.res.err == -ENOENT, "the second COMPLETE: %s %s",
           strerrorname_np(-r.res.err), r.res.code);
    TRY(conf_is_bytes(c, u.key, u.bytes[0]));
}

static void part_no_upload(struct conf *c, const void *arg)
{
    _cleanup_upload_ struct upload u;
    TRY(upload_start(&u, c));
    TRY(conf_mpu_abort(c, u.key, u.id));
    struct conf_memory m;
    REQUEST(r, .verb = STORE_MPU_PART, .key = u.key, .upload_id = u.id, .part_number = 1,
            .source = conf_source(&m, "x", 1));
    TRY(conf_expect_code(c, &r, -ENOENT, STORE_CLASS_FATAL, "NoSuchUpload"));
}

static void upload_of_other_key(struct conf *c, const void *arg)
{
    _cleanup_upload_ struct upload u;
    TRY(upload_start(&u, c));
    TRY(upload_part(&u, 0, 100));
    g_autofree char *other = conf_key(c, "other");
    REQUEST(r, .verb = STORE_MPU_COMPLETE, .key = other, .upload_id = u.id, .parts = u.parts,
            .n_parts = 1);
    TRY(conf_expect_code(c, &r, -ENOENT, STORE_CLASS_FATAL, "NoSuchUpload"));
    TRY(conf_absent(c, other));
}

static void garbage_upload_id(struct conf *c, const void *arg)
{
    g_autofree char *key = conf_key(c, "o");
    REQUEST(r, .verb = STORE_MPU_LIST_PARTS, .key = key, .upload_id = "../no such & upload");
    TRY(conf_expect_code(c, &r, -ENOENT, STORE_CLASS_FATAL, "NoSuchUpload"));
}

static void create_no_bucket(struct conf *c, const void *arg)
{
    REQUEST(r, .verb = STORE_MPU_CREATE, .bucket = "conf-no-such-bucket", .key = "k");
    TRY(conf_expect_code(c, &r, -ENOENT, STORE_CLASS_FATAL, "NoSuchBucket"));
}

static void two_uploads(struct conf *c, const void *arg)
{
    _cleanup_upload_ struct upload a, b = {.c = c};
    TRY(upload_start(&a, c));
    TRY(upload_start(&b, c));
    EXPECT(c, strcmp(a.id, b.id) != 0, "two uploads have one id");
    TRY(upload_part(&a, 0, 100));
    TRY(upload_part(&b, 0, 200));
    TRY(upload_finish(&a, 1));
    TRY(upload_finish(&b, 1));
}

static void list_parts(struct conf *c, const void *arg)
{
    _cleanup_upload_ struct upload u;
    TRY(upload_start(&u, c));
    REQUEST(empty, .verb = STORE_MPU_LIST_PARTS, .key = u.key, .upload_id = u.id);
    TRY(conf_ok(c, &empty));
    EXPECT(c, empty.res.parts != NULL && empty.res.parts->len == 0, "a new upload has parts");
    for (size_t i = 4; i-- > 0;) {
        TRY(upload_part(&u, i, 100 + i));
    }
    REQUEST(r, .verb = STORE_MPU_LIST_PARTS, .key = u.key, .upload_id = u.id);
    TRY(conf_ok(c, &r));
    EXPECT(c, r.res.parts->len == 4, "%u parts", r.res.parts->len);
    for (size_t i = 0; i < 4; i++) {
        const struct store_part *p = r.res.parts->pdata[i];
        EXPECT(c, p->number == i + 1 && p->size == 100 + i && strcmp(p->etag, u.parts[i].etag) == 0,
               "part %zu is listed as %u, %" G_GUINT64_FORMAT ", %s", i + 1, p->number, p->size,
               p->etag);
    }
}

/* More than one page of a server's. */
static void list_parts_pages(struct conf *c, const void *arg)
{
    enum { N = 1100 };
    _cleanup_upload_ struct upload u;
    TRY(upload_start(&u, c));
    struct conf_memory m;
    struct conf_batch *b = conf_batch_new(c, N);
    for (unsigned i = 0; i < N; i++) {
        struct store_request *r = conf_batch_get(b, i);
        *r = (struct store_request){
            .verb = STORE_MPU_PART, .key = u.key, .upload_id = u.id, .part_number = i + 1};
        r->source = conf_source(&m, "x", 1);
    }
    conf_batch_run(b, 16);
    for (unsigned i = 0; i < N; i++) {
        if (conf_batch_get(b, i)->res.err != 0) {
            conf_fail(c, "part %u: %s", i + 1, conf_batch_get(b, i)->res.detail);
        }
    }
    conf_batch_free(b);
    TRY(c->failure == NULL);
    REQUEST(r, .verb = STORE_MPU_LIST_PARTS, .key = u.key, .upload_id = u.id);
    TRY(conf_ok(c, &r));
    EXPECT(c, r.res.parts->len == N, "%u parts of %u", r.res.parts->len, N);
    for (unsigned i = 0; i < N; i++) {
        const struct store_part *p = r.res.parts->pdata[i];
        EXPECT(c, p->number == i + 1, "part %u stands at %u", p->number, i + 1);
    }
}

/* By the server's own clock, which may be a second behind itself. */
static bool initiated_since(struct conf *c, const struct store_result *res, const struct store_entry *e, int64_t begun)
{
    int64_t slack = 2 * (int64_t)NSEC_PER_SEC, ahead = res->clock_ahead_ns;
    if (e->mtime_ns < begun + ahead - slack || e->mtime_ns > clock_real_ns() + ahead + slack) {
        conf_fail(c, "an upload of now was initiated %" G_GINT64_FORMAT " ms after it began",
                  (e->mtime_ns - begun - ahead) / (int64_t)NSEC_PER_MSEC);
    }
    return c->failure == NULL;
}

/* Of one key, as a sweep for uploads that nobody knows asks. */
static void list_uploads(struct conf *c, const void *arg)
{
    int64_t begun = clock_real_ns();
    g_autofree char *second = NULL;
    _cleanup_upload_ struct upload u;
    TRY(upload_start(&u, c));
    TRY(conf_mpu_create(c, u.key, &second));
    REQUEST(r, .verb = STORE_MPU_LIST, .prefix = u.key);
    TRY(conf_ok(c, &r));
    EXPECT(c, r.res.entries != NULL && r.res.entries->len == 2, "%u uploads", r.res.entries->len);
    EXPECT(c, r.res.clock_known, "the server does not tell its time");
    for (guint i = 0; i < 2; i++) {
        const struct store_entry *e = r.res.entries->pdata[i], *other = r.res.entries->pdata[1 - i];
        const char *id = g_strcmp0(other->upload_id, u.id) == 0 ? second : u.id;
        EXPECT(c, strcmp(e->key, u.key) == 0 && g_strcmp0(e->upload_id, id) == 0,
               "another upload: %s %s", e->key, e->upload_id);
        EXPECT(c, e->mtime_ns > 0, "no time");
        TRY(initiated_since(c, &r.res, e, begun));
    }
    TRY(conf_mpu_abort(c, u.key, second));
    TRY(conf_mpu_abort(c, u.key, u.id));
    REQUEST(after, .verb = STORE_MPU_LIST, .prefix = u.key);
    TRY(conf_ok(c, &after));
    EXPECT(c, after.res.entries->len == 0, "an aborted upload is listed");
}

static void list_uploads_prefix(struct conf *c, const void *arg)
{
    static const char *const names[] = {"a/1", "a/2", "b/1"};
    g_autofree char *keys[3] = {NULL}, *ids[3] = {NULL}, *prefix = conf_key(c, "a/");
    for (size_t i = 0; i < 3; i++) {
        keys[i] = conf_key(c, names[i]);
        if (!conf_mpu_create(c, keys[i], &ids[i])) {
            break;
        }
    }
    REQUEST(r, .verb = STORE_MPU_LIST, .prefix = prefix);
    if (c->failure == NULL && conf_ok(c, &r)) {
        const struct store_entry *e = r.res.entries->len > 0 ? r.res.entries->pdata[0] : NULL;
        if (r.res.entries->len != 2 || strcmp(e->key, keys[0]) != 0) {
            conf_fail(c, "%u uploads below the prefix", r.res.entries->len);
        }
    }
    for (size_t i = 0; i < 3; i++) {
        if (ids[i] != NULL) {
            conf_mpu_abort(c, keys[i], ids[i]);
        }
        g_free(ids[i]);
        g_free(keys[i]);
        ids[i] = keys[i] = NULL;
    }
}

static void headers_carried(struct conf *c, const void *arg)
{
    g_autofree char *key = conf_key(c, "o");
    _cleanup_headers_ struct store_headers h = {.content_type = g_strdup("video/webm"),
                                                .cache_control = g_strdup("no-store")};
    store_headers_set_meta(&h, "mlopsfs-commit", "abc");
    REQUEST(cr, .verb = STORE_MPU_CREATE, .key = key, .headers = &h);
    TRY(conf_ok(c, &cr));
    g_autoptr(GBytes) b = conf_pattern(4, 50);
    struct store_part part = {0};
    bool ok = conf_mpu_part(c, key, cr.res.upload_id, 1, b, &part) &&
              conf_mpu_complete(c, key, cr.res.upload_id, &part, 1, NULL);
    g_free(part.etag);
    TRY(ok);
    REQUEST(r, .verb = STORE_HEAD, .key = key);
    TRY(conf_ok(c, &r));
    const struct store_headers *g = &r.res.object.headers;
    EXPECT(c, g_strcmp0(g->content_type, "video/webm") == 0, "content type %s", g->content_type);
    EXPECT(c, g_strcmp0(g->cache_control, "no-store") == 0, "cache control %s", g->cache_control);
    EXPECT(c, g_strcmp0(store_headers_get_meta(g, "mlopsfs-commit"), "abc") == 0,
           "the metadata is lost");
}

static void ranges_across_parts(struct conf *c, const void *arg)
{
    _cleanup_upload_ struct upload u;
    TRY(upload_start(&u, c));
    TRY(upload_part(&u, 0, 5 * MIB));
    TRY(upload_part(&u, 1, 5 * MIB));
    TRY(upload_part(&u, 2, 1000));
    TRY(conf_mpu_complete(c, u.key, u.id, u.parts, 3, NULL));
    g_autoptr(GByteArray) all = g_byte_array_new();
    for (size_t i = 0; i < 3; i++) {
        gsize n;
        const guint8 *p = g_bytes_get_data(u.bytes[i], &n);
        g_byte_array_append(all, p, (guint)n);
    }
    static const uint64_t rows[][2] = {
        {5 * MIB - 1, 2},     {5 * MIB, 1},        {5 * MIB - 10, 5 * MIB + 20}, {0, 5 * MIB},
        {10 * MIB - 3, 1003}, {10 * MIB + 999, 1}, {1, 10 * MIB + 998},          {10 * MIB - 1, 1}};
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        _cleanup_sink_ struct conf_sink sink;
        REQUEST(r, .verb = STORE_GET, .key = u.key, .sink = conf_sink(&sink, rows[i][0]),
                .range = {.off = rows[i][0], .len = rows[i][1], .set = true});
        TRY(conf_ok(c, &r));
        EXPECT(c,
               !sink.disorder && sink.bytes->len == rows[i][1] &&
                   memcmp(sink.bytes->data, all->data + rows[i][0], rows[i][1]) == 0,
               "row %zu: other bytes", i);
    }
}

void conf_multipart_cases(GArray *cases)
{
    for (size_t i = 0; i < G_N_ELEMENTS(sizes); i++) {
        conf_add(cases, sizes[i].name, sizes_case, &sizes[i]);
    }
    static const struct {
        const char *name;
        void (*run)(struct conf *c, const void *arg);
    } rows[] = {
        {"multipart/out-of-order", out_of_order},
        {"multipart/re-upload", reupload},
        {"multipart/sparse-numbers", sparse_numbers},
        {"multipart/unused-parts", unused_parts},
        {"multipart/wrong-etag", wrong_etag},
        {"multipart/old-etag", old_etag},
        {"multipart/missing-part", missing_part},
        {"multipart/small-part", small_part},
        {"multipart/small-part-mended", small_part_mended},
        {"multipart/invisible", invisible},
        {"multipart/old-stays-visible", old_stays_visible},
        {"multipart/abort", abort_upload},
        {"multipart/abort-keeps-old", abort_keeps_old},
        {"multipart/abort-twice", abort_twice},
        {"multipart/complete-twice", complete_twice},
        {"multipart/part-no-upload", part_no_upload},
        {"multipart/upload-of-other-key", upload_of_other_key},
        {"multipart/garbage-upload-id", garbage_upload_id},
        {"multipart/create-no-bucket", create_no_bucket},
        {"multipart/two-uploads", two_uploads},
        {"multipart/list-parts", list_parts},
        {"multipart/list-parts-pages", list_parts_pages},
        {"multipart/list-uploads", list_uploads},
        {"multipart/list-uploads-prefix", list_uploads_prefix},
        {"multipart/headers", headers_carried},
        {"multipart/ranges-across-parts", ranges_across_parts},
    };
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        conf_add(cases, rows[i].name, rows[i].run, NULL);
    }
}
