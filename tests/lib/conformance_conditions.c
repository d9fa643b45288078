/* SPDX-License-Identifier: Apache-2.0
 *
 * conformance_conditions: If-Match and If-None-Match on every verb that takes them. A condition
 * that fails leaves everything as it was.
 */
#include "tests/lib/conformance.h"

#define OTHER_ETAG "00000000000000000000000000000000"

static void get_match(struct conf *c, const void *arg)
{
    g_autofree char *key = conf_key(c, "o"), *etag = NULL;
    TRY(conf_put(c, key, "one", 3, &etag));
    _cleanup_sink_ struct conf_sink sink;
    REQUEST(r, .verb = STORE_GET, .key = key, .if_match = etag, .sink = conf_sink(&sink, 1),
            .range = {.off = 1, .len = 1, .set = true});
    TRY(conf_ok(c, &r));
    EXPECT(c, sink.bytes->len == 1 && sink.bytes->data[0] == 'n', "other bytes");
}

static void get_mismatch(struct conf *c, const void *arg)
{
    g_autofree char *key = conf_key(c, "o"), *etag = NULL;
    TRY(conf_put(c, key, "one", 3, &etag));
    TRY(conf_put_text(c, key, "two"));
    _cleanup_sink_ struct conf_sink sink;
    REQUEST(r, .verb = STORE_GET, .key = key, .if_match = etag, .sink = conf_sink(&sink, 0));
    TRY(conf_expect_code(c, &r, -ESTALE, STORE_CLASS_CONFLICT, "PreconditionFailed"));
    EXPECT(c, sink.bytes->len == 0, "bytes came with the error");
}

static void get_mismatch_range(struct conf *c, const void *arg)
{
    g_autofree char *key = conf_key(c, "o");
    TRY(conf_put_text(c, key, "x"));
    _cleanup_sink_ struct conf_sink sink;
    REQUEST(r, .verb = STORE_GET, .key = key, .if_match = OTHER_ETAG, .sink = conf_sink(&sink, 100),
            .range = {.off = 100, .len = 1, .set = true});
    TRY(conf_expect(c, &r, -ESTALE,
                    STORE_CLASS_CONFLICT)); /* the condition comes before the range */
}

static void get_match_absent(struct conf *c, const void *arg)
{
    _cleanup_sink_ struct conf_sink sink;
    REQUEST(r, .verb = STORE_GET, .key = "if/get-match-absent", .if_match = OTHER_ETAG,
            .sink = conf_sink(&sink, 0));
    TRY(conf_expect(c, &r, -ENOENT, STORE_CLASS_FATAL));
}

static void head_match(struct conf *c, const void *arg)
{
    g_autofree char *key = conf_key(c, "o"), *etag = NULL;
    TRY(conf_put(c, key, "one", 3, &etag));
    REQUEST(r, .verb = STORE_HEAD, .key = key, .if_match = etag);
    TRY(conf_ok(c, &r));
}

static void head_mismatch(struct conf *c, const void *arg)
{
    g_autofree char *key = conf_key(c, "o");
    TRY(conf_put_text(c, key, "one"));
    REQUEST(r, .verb = STORE_HEAD, .key = key, .if_match = OTHER_ETAG);
    TRY(conf_expect(c, &r, -ESTALE, STORE_CLASS_CONFLICT));
}

/* The same rules for a PUT and for a COMPLETE. */
struct write_row {
    const char *name;
    bool complete;
    const char *before; /* what is there first; NULL = nothing */
    bool none_match, match, mismatch;
    int err;
};

static const struct write_row writes[] = {
    {"if/put-none-match-absent", false, NULL, true, false, false, 0},
    {"if/put-none-match-existing", false, "old", true, false, false, -EEXIST},
    {"if/put-none-match-empty", false, "", true, false, false, -EEXIST},
    {"if/put-match", false, "old", false, true, false, 0},
    {"if/put-mismatch", false, "old", false, false, true, -ESTALE},
    {"if/put-match-absent", false, NULL, false, false, true, -ESTALE},
    {"if/complete-none-match-absent", true, NULL, true, false, false, 0},
    {"if/complete-none-match-existing", true, "old", true, false, false, -EEXIST},
    {"if/complete-match", true, "old", false, true, false, 0},
    {"if/complete-mismatch", true, "old", false, false, true, -ESTALE},
    {"if/complete-match-absent", true, NULL, false, false, true, -ESTALE},
};

static bool write_complete(struct conf *c, const struct write_row *row, const char *key,
                           struct store_request *r, GBytes *b)
{
    g_autofree char *id = NULL;
    struct store_part part = {0};
    if (!conf_mpu_create(c, key, &id) || !conf_mpu_part(c, key, id, 1, b, &part)) {
        return false;
    }
    r->verb = STORE_MPU_COMPLETE;
    r->upload_id = id;
    r->parts = &part;
    r->n_parts = 1;
    bool ok = conf_expect(c, r, row->err, row->err == 0 ? STORE_CLASS_OK : STORE_CLASS_CONFLICT);
    if (ok && row->err != 0) {
        ok = conf_mpu_abort(c, key, id);
    }
    g_free(part.etag);
    r->upload_id = NULL;
    return ok;
}

static void write_case(struct conf *c, const void *arg)
{
    const struct write_row *row = arg;
    g_autofree char *key = conf_key(c, "o"), *etag = NULL;
    g_autoptr(GBytes) b = g_bytes_new_static("new bytes", 9);
    if (row->before != NULL) {
        TRY(conf_put(c, key, row->before, strlen(row->before), &etag));
    }
    struct conf_memory m;
    REQUEST(r, .verb = STORE_PUT, .key = key, .if_none_match = row->none_match,
            .if_match = row->match      ? etag
                        : row->mismatch ? OTHER_ETAG
                                        : NULL);
    if (row->complete) {
        TRY(write_complete(c, row, key, &r, b));
    } else {
        r.source = conf_source(&m, "new bytes", 9);
        TRY(conf_expect(c, &r, row->err, row->err == 0 ? STORE_CLASS_OK : STORE_CLASS_CONFLICT));
    }
    if (row->err == 0) {
        TRY(conf_is_text(c, key, "new bytes"));
    } else if (row->before != NULL) {
        TRY(conf_is_text(c, key, row->before));
    } else {
        TRY(conf_absent(c, key));
    }
}

/* A multipart ETag ("…-N") is a condition like any other. */
static void put_match_multipart(struct conf *c, const void *arg)
{
    g_autofree char *key = conf_key(c, "o"), *id = NULL, *etag = NULL;
    g_autoptr(GBytes) b = conf_pattern(1, 100);
    struct store_part part = {0};
    TRY(conf_mpu_create(c, key, &id));
    bool ok =
        conf_mpu_part(c, key, id, 1, b, &part) && conf_mpu_complete(c, key, id, &part, 1, &etag);
    g_free(part.etag);
    TRY(ok);
    struct conf_memory m;
    REQUEST(r, .verb = STORE_PUT, .key = key, .if_match = etag, .source = conf_source(&m, "x", 1));
    TRY(conf_ok(c, &r));
    TRY(conf_is_text(c, key, "x"));
}

static void put_after_delete(struct conf *c, const void *arg)
{
    g_autofree char *key = conf_key(c, "o");
    TRY(conf_put_text(c, key, "x"));
    TRY(conf_delete(c, key));
    struct conf_memory m;
    REQUEST(r, .verb = STORE_PUT, .key = key, .if_none_match = true,
            .source = conf_source(&m, "y", 1));
    TRY(conf_ok(c, &r));
}

/* One creator wins, the others learn of it. */
static void put_race(struct conf *c, const void *arg)
{
    g_autofree char *key = conf_key(c, "o");
    enum { N = 16 };
    struct conf_memory m[N];
    char bytes[N];
    struct conf_batch *b = conf_batch_new(c, N);
    for (size_t i = 0; i < N; i++) {
        bytes[i] = (char)('a' + i);
        struct store_request *r = conf_batch_get(b, i);
        *r = (struct store_request){.verb = STORE_PUT, .key = key, .if_none_match = true};
        r->source = conf_source(&m[i], &bytes[i], 1);
    }
    conf_batch_run(b, N);
    size_t won = 0;
    char winner = 0;
    for (size_t i = 0; i < N; i++) {
        const struct store_request *r = conf_batch_get(b, i);
        if (r->res.err == 0) {
            won++;
            winner = bytes[i];
        } else if (r->res.cls != STORE_CLASS_CONFLICT && r->res.cls != STORE_CLASS_RETRY) {
            conf_fail(c, "a loser got %s %s", strerrorname_np(-r->res.err), r->res.code);
        }
    }
    conf_batch_free(b);
    TRY(c->failure == NULL);
    EXPECT(c, won == 1, "%zu creators succeeded", won);
    TRY(conf_is(c, key, &winner, 1));
}

/* One writer of each generation wins. */
static void match_race(struct conf *c, const void *arg)
{
    g_autofree char *key = conf_key(c, "o"), *etag = NULL;
    enum { N = 8 };
    TRY(conf_put(c, key, "-", 1, &etag));
    struct conf_memory m[N];
    char bytes[N];
    struct conf_batch *b = conf_batch_new(c, N);
    for (size_t i = 0; i < N; i++) {
        bytes[i] = (char)('a' + i);
        struct store_request *r = conf_batch_get(b, i);
        *r = (struct store_request){.verb = STORE_PUT, .key = key, .if_match = etag};
        r->source = conf_source(&m[i], &bytes[i], 1);
    }
    conf_batch_run(b, N);
    size_t won = 0;
    for (size_t i = 0; i < N; i++) {
        won += conf_batch_get(b, i)->res.err == 0;
    }
    conf_batch_free(b);
    EXPECT(c, won == 1, "%zu writers replaced the same version", won);
}

static void delete_match(struct conf *c, const void *arg)
{
    g_autofree char *key = conf_key(c, "o"), *etag = NULL;
    TRY(conf_put(c, key, "x", 1, &etag));
    REQUEST(r, .verb = STORE_DELETE, .key = key, .if_match = etag);
    TRY(conf_ok(c, &r));
    TRY(conf_absent(c, key));
}

static void delete_mismatch(struct conf *c, const void *arg)
{
    g_autofree char *key = conf_key(c, "o");
    TRY(conf_put_text(c, key, "x"));
    REQUEST(r, .verb = STORE_DELETE, .key = key, .if_match = OTHER_ETAG);
    TRY(conf_expect(c, &r, -ESTALE, STORE_CLASS_CONFLICT));
    TRY(conf_is_text(c, key, "x"));
}

static void copy_source_match(struct conf *c, const void *arg)
{
    g_autofree char *from = conf_key(c, "from"), *to = conf_key(c, "to"), *etag = NULL;
    TRY(conf_put(c, from, "x", 1, &etag));
    REQUEST(r, .verb = STORE_COPY, .key = to, .from_bucket = c->bucket, .from_key = from,
            .from_if_match = etag);
    TRY(conf_ok(c, &r));
    TRY(conf_is_text(c, to, "x"));
}

static void copy_source_mismatch(struct conf *c, const void *arg)
{
    g_autofree char *from = conf_key(c, "from"), *to = conf_key(c, "to");
    TRY(conf_put_text(c, from, "x"));
    REQUEST(r, .verb = STORE_COPY, .key = to, .from_bucket = c->bucket, .from_key = from,
            .from_if_match = OTHER_ETAG);
    TRY(conf_expect_code(c, &r, -ESTALE, STORE_CLASS_CONFLICT, "PreconditionFailed"));
    TRY(conf_absent(c, to));
}

static void copy_none_match(struct conf *c, const void *arg)
{
    g_autofree char *from = conf_key(c, "from"), *to = conf_key(c, "to");
    TRY(conf_put_text(c, from, "new"));
    TRY(conf_put_text(c, to, "old"));
    REQUEST(r, .verb = STORE_COPY, .key = to, .from_bucket = c->bucket, .from_key = from,
            .if_none_match = true);
    TRY(conf_expect(c, &r, -EEXIST, STORE_CLASS_CONFLICT));
    TRY(conf_is_text(c, to, "old"));
}

static void copy_mismatch(struct conf *c, const void *arg)
{
    g_autofree char *from = conf_key(c, "from"), *to = conf_key(c, "to");
    TRY(conf_put_text(c, from, "new"));
    TRY(conf_put_text(c, to, "old"));
    REQUEST(r, .verb = STORE_COPY, .key = to, .from_bucket = c->bucket, .from_key = from,
            .if_match = OTHER_ETAG);
    TRY(conf_expect(c, &r, -ESTALE, STORE_CLASS_CONFLICT));
    TRY(conf_is_text(c, to, "old"));
}

static void copy_part_source_mismatch(struct conf *c, const void *arg)
{
    g_autofree char *from = conf_key(c, "from"), *to = conf_key(c, "to"), *id = NULL;
    TRY(conf_put_text(c, from, "x"));
    TRY(conf_mpu_create(c, to, &id));
    REQUEST(r, .verb = STORE_MPU_COPY_PART, .key = to, .upload_id = id, .part_number = 1,
            .from_bucket = c->bucket, .from_key = from, .from_if_match = OTHER_ETAG);
    TRY(conf_expect_code(c, &r, -ESTALE, STORE_CLASS_CONFLICT, "PreconditionFailed"));
    TRY(conf_mpu_abort(c, to, id));
}

void conf_conditions_cases(GArray *cases)
{
    conf_add(cases, "if/get-match", get_match, NULL);
    conf_add(cases, "if/get-mismatch", get_mismatch, NULL);
    conf_add(cases, "if/get-mismatch-range", get_mismatch_range, NULL);
    conf_add(cases, "if/get-match-absent", get_match_absent, NULL);
    conf_add(cases, "if/head-match", head_match, NULL);
    conf_add(cases, "if/head-mismatch", head_mismatch, NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(writes); i++) {
        conf_add(cases, writes[i].name, write_case, &writes[i]);
    }
    conf_add(cases, "if/put-match-multipart", put_match_multipart, NULL);
    conf_add(cases, "if/put-after-delete", put_after_delete, NULL);
    conf_add(cases, "if/put-none-match-race", put_race, NULL);
    conf_add(cases, "if/put-match-race", match_race, NULL);
    conf_add(cases, "if/delete-match", delete_match, NULL);
    conf_add(cases, "if/delete-mismatch", delete_mismatch, NULL);
    conf_add(cases, "if/copy-source-match", copy_source_match, NULL);
    conf_add(cases, "if/copy-source-mismatch", copy_source_mismatch, NULL);
    conf_add(cases, "if/copy-none-match", copy_none_match, NULL);
    conf_add(cases, "if/copy-mismatch", copy_mismatch, NULL);
    conf_add(cases, "if/copy-part-source-mismatch", copy_part_source_mismatch, NULL);
}
