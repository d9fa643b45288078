/* SPDX-License-Identifier: Apache-2.0
 *
 * conformance_checksums: a CRC32C sent along is looked at: what arrives otherwise is refused, and
 * nothing has changed.
 */
#include "base/crc32c.h"
#include "tests/lib/conformance.h"

/* A body whose checksum is its own, or is off by some bits. */
struct body {
    GBytes *bytes;
    uint32_t off_by;
};

static ssize_t body_read(void *ctx, uint64_t off, void *buf, size_t n)
{
    const struct body *b = ctx;
    memcpy(buf, (const char *)g_bytes_get_data(b->bytes, NULL) + off, n);
    return (ssize_t)n;
}

static uint32_t crc_of(GBytes *b)
{
    gsize n;
    const void *p = g_bytes_get_data(b, &n);
    return crc32c(0, p, n);
}

static int body_checksum(void *ctx, uint32_t *ret)
{
    const struct body *b = ctx;
    *ret = crc_of(b->bytes) ^ b->off_by;
    return 0;
}

static struct store_source source(struct body *b)
{
    return (struct store_source){
        .read = body_read, .checksum = body_checksum, .ctx = b, .size = g_bytes_get_size(b->bytes)};
}

static bool refused(struct conf *c, struct store_request *r)
{
    if (!conf_expect(c, r, -EIO, STORE_CLASS_RETRY)) {
        return false;
    }
    return store_refused_digest(&r->res) || conf_fail(c, "the code is %s", r->res.code);
}

static bool sent(struct conf *c, const struct store_request *r, GBytes *bytes)
{
    return (r->res.checksum.set && r->res.checksum.crc32c == crc_of(bytes)) ||
           conf_fail(c, "the result does not say what was sent");
}

static void put(struct conf *c, const void *arg)
{
    g_autofree char *key = conf_key(c, "o");
    g_autoptr(GBytes) bytes = conf_pattern(1, *(const size_t *)arg);
    struct body good = {bytes}, bad = {bytes, 0x80000000};
    REQUEST(w, .verb = STORE_PUT, .key = key, .source = source(&bad));
    TRY(refused(c, &w));
    TRY(conf_absent(c, key));
    REQUEST(r, .verb = STORE_PUT, .key = key, .source = source(&good));
    TRY(conf_ok(c, &r));
    TRY(sent(c, &r, bytes));
    TRY(conf_is_bytes(c, key, bytes));
}

/* Refused before anything else: not AMBIGUOUS, so that it may simply be sent again. */
static void put_if(struct conf *c, const void *arg)
{
    g_autofree char *key = conf_key(c, "o");
    g_autoptr(GBytes) bytes = conf_pattern(2, 1000);
    struct body good = {bytes}, bad = {bytes, 1};
    REQUEST(w, .verb = STORE_PUT, .key = key, .source = source(&bad), .if_none_match = true);
    TRY(refused(c, &w));
    REQUEST(r, .verb = STORE_PUT, .key = key, .source = source(&good), .if_none_match = true);
    TRY(conf_ok(c, &r));
    REQUEST(again, .verb = STORE_PUT, .key = key, .source = source(&bad),
            .if_match = r.res.object.etag);
    TRY(refused(c, &again));
    TRY(conf_is_bytes(c, key, bytes));
}

/* ---- parts ---- */

struct upload {
    struct conf *c;
    char *key, *id;
};

static void upload_clear(struct upload *u)
{
    if (u->id != NULL) {
        conf_mpu_abort(u->c, u->key, u->id); /* also what a failed case left */
    }
    g_free(u->id);
    g_free(u->key);
}
#define _cleanup_upload_ __attribute__((cleanup(upload_clear)))

static bool upload_start(struct upload *u, struct conf *c, bool with_checksums)
{
    *u = (struct upload){.c = c, .key = conf_key(c, "o")};
    REQUEST(r, .verb = STORE_MPU_CREATE, .key = u->key, .with_checksums = with_checksums);
    if (!conf_ok(c, &r)) {
        return false;
    }
    u->id = g_steal_pointer(&r.res.upload_id);
    return true;
}

/* First with a wrong checksum, then with the right one. */
static bool part(struct upload *u, GBytes *bytes, struct store_part *ret)
{
    struct body good = {bytes}, bad = {bytes, 0x100};
    REQUEST(w, .verb = STORE_MPU_PART, .key = u->key, .upload_id = u->id,
            .part_number = ret->number, .source = source(&bad));
    REQUEST(r, .verb = STORE_MPU_PART, .key = u->key, .upload_id = u->id,
            .part_number = ret->number, .source = source(&good));
    if (!refused(u->c, &w) || !conf_ok(u->c, &r) || !sent(u->c, &r, bytes)) {
        return false;
    }
    ret->etag = g_steal_pointer(&r.res.object.etag);
    ret->checksum = r.res.checksum;
    return true;
}

static bool copy(struct upload *u, const char *from, struct store_part *ret)
{
    REQUEST(r, .verb = STORE_MPU_COPY_PART, .key = u->key, .upload_id = u->id,
            .part_number = ret->number, .from_bucket = u->c->bucket, .from_key = from);
    if (!conf_ok(u->c, &r)) {
        return false;
    }
    ret->etag = g_steal_pointer(&r.res.object.etag);
    ret->checksum = r.res.checksum;
    return true;
}

static bool complete(struct upload *u, struct store_part *parts, size_t n, GBytes *first,
                     GBytes *second)
{
    if (!conf_mpu_complete(u->c, u->key, u->id, parts, n, NULL)) {
        return false;
    }
    g_clear_pointer(&u->id, g_free);
    g_autoptr(GByteArray) all = g_byte_array_new();
    GBytes *const pieces[] = {first, second};
    for (size_t i = 0; i < n; i++) {
        gsize k;
        const guint8 *p = g_bytes_get_data(pieces[i], &k);
        g_byte_array_append(all, p, (guint)k);
    }
    return conf_is(u->c, u->key, all->data, all->len);
}

static void parts_case(struct conf *c, bool with_checksums)
{
    struct store_part parts[] = {{.number = 1}, {.number = 2}};
    g_autoptr(GBytes) a = conf_pattern(3, 5 * MIB), b = conf_pattern(4, 17);
    _cleanup_upload_ struct upload u;
    TRY(upload_start(&u, c, with_checksums));
    bool ok = part(&u, a, &parts[0]) && part(&u, b, &parts[1]);
    if (!with_checksums) {
        parts[0].checksum.set = parts[1].checksum.set = false;
    }
    ok = ok && complete(&u, parts, 2, a, b);
    g_free(parts[0].etag);
    g_free(parts[1].etag);
}

static void part_plain(struct conf *c, const void *arg)
{
    parts_case(c, false);
}

static void part_declared(struct conf *c, const void *arg)
{
    parts_case(c, true);
}

/* What was refused leaves the part that was there before. */
static void part_again(struct conf *c, const void *arg)
{
    struct store_part one = {.number = 1};
    g_autoptr(GBytes) a = conf_pattern(5, 1000), b = conf_pattern(6, 1000);
    struct body bad = {b, 1};
    _cleanup_upload_ struct upload u;
    TRY(upload_start(&u, c, true));
    if (part(&u, a, &one)) {
        REQUEST(w, .verb = STORE_MPU_PART, .key = u.key, .upload_id = u.id, .part_number = 1,
                .source = source(&bad));
        if (refused(c, &w)) {
            complete(&u, &one, 1, a, NULL);
        }
    }
    g_free(one.etag);
}

static void copied_case(struct conf *c, bool with_checksums)
{
    struct store_part parts[] = {{.number = 1}, {.number = 2}};
    g_autoptr(GBytes) a = conf_pattern(7, 5 * MIB), b = conf_pattern(8, 99);
    g_autofree char *from = conf_key(c, "from");
    gsize n;
    const void *p = g_bytes_get_data(a, &n);
    TRY(conf_put(c, from, p, n, NULL));
    _cleanup_upload_ struct upload u;
    TRY(upload_start(&u, c, with_checksums));
    bool ok = copy(&u, from, &parts[0]) && part(&u, b, &parts[1]);
    if (!with_checksums) {
        parts[0].checksum.set = parts[1].checksum.set = false;
    }
    ok = ok && complete(&u, parts, 2, a, b);
    g_free(parts[0].etag);
    g_free(parts[1].etag);
}

static void copied_plain(struct conf *c, const void *arg)
{
    copied_case(c, false);
}

static void copied_declared(struct conf *c, const void *arg)
{
    copied_case(c, true);
}

/* A reply that tells the checksum of a copied range tells that of the range. */
static void copied_range(struct conf *c, const void *arg)
{
    g_autoptr(GBytes) a = conf_pattern(10, 5 * MIB + 1000);
    g_autoptr(GBytes) range = g_bytes_new_from_bytes(a, 0, 5 * MIB);
    g_autofree char *from = conf_key(c, "from");
    struct body body = {a};
    REQUEST(w, .verb = STORE_PUT, .key = from, .source = source(&body));
    TRY(conf_ok(c, &w));
    _cleanup_upload_ struct upload u;
    TRY(upload_start(&u, c, true));
    REQUEST(r, .verb = STORE_MPU_COPY_PART, .key = u.key, .upload_id = u.id, .part_number = 1,
            .from_bucket = c->bucket, .from_key = from,
            .range = {.off = 0, .len = 5 * MIB, .set = true});
    TRY(conf_ok(c, &r));
    EXPECT(c, !r.res.checksum.set || r.res.checksum.crc32c == crc_of(range),
           "the reply tells another checksum");
    struct store_part one = {.number = 1, .etag = r.res.object.etag, .checksum = r.res.checksum};
    TRY(complete(&u, &one, 1, range, NULL));
}

static int no_checksum(void *ctx, uint32_t *ret)
{
    return -EIO;
}

/* The source does not vouch for its bytes: nothing is stored. */
static void source_fails(struct conf *c, const void *arg)
{
    g_autofree char *key = conf_key(c, "o");
    g_autoptr(GBytes) bytes = conf_pattern(9, 100);
    struct body body = {bytes};
    REQUEST(r, .verb = STORE_PUT, .key = key, .source = source(&body));
    r.source.checksum = no_checksum;
    TRY(conf_expect(c, &r, -EIO, STORE_CLASS_FATAL));
    TRY(conf_absent(c, key));
}

void conf_checksums_cases(GArray *cases)
{
    static const size_t sizes[] = {0, 1, 3 * MIB + 5};
    conf_add(cases, "checksum/put-empty", put, &sizes[0]);
    conf_add(cases, "checksum/put-byte", put, &sizes[1]);
    conf_add(cases, "checksum/put", put, &sizes[2]);
    conf_add(cases, "checksum/put-if", put_if, NULL);
    conf_add(cases, "checksum/part", part_declared, NULL);
    conf_add(cases, "checksum/part-again", part_again, NULL);
    conf_add(cases, "checksum/part-plain", part_plain, NULL);
    conf_add(cases, "checksum/copied", copied_declared, NULL);
    conf_add(cases, "checksum/copied-range", copied_range, NULL);
    conf_add(cases, "checksum/copied-plain", copied_plain, NULL);
    conf_add(cases, "checksum/source-fails", source_fails, NULL);
}
