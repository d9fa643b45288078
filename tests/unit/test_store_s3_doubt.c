/* SPDX-License-Identifier: Apache-2.0
 *
 * store_s3 in doubt: writes that may have happened, objects of another size than expected, and
 * capabilities that cannot be tried out. The server is the lying one of tests/lib.
 */
#include <glib/gstdio.h>
#include <unistd.h>

#include "base/log.h"
#include "tests/lib/store_s3_fixture.h"

/* A write whose reply says that it worked and is of no use otherwise. */
static void test_useless_reply(struct fixture *f, gconstpointer data)
{
    static const struct {
        enum store_verb verb;
        const char *headers, *body;
        enum store_class cls;
    } rows[] = {
        {STORE_PUT, "", "", STORE_CLASS_AMBIGUOUS},
        {STORE_COPY, "", "<html>", STORE_CLASS_AMBIGUOUS},
        {STORE_MPU_COMPLETE, "", "", STORE_CLASS_AMBIGUOUS},
        {STORE_MPU_PART, "", "", STORE_CLASS_FATAL}, /* made no object */
        {STORE_MPU_COPY_PART, "", "<html>", STORE_CLASS_FATAL},
    };
    const struct store_part parts[] = {{.number = 1, .size = 1, .etag = (char[]){"e"}}};
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        liar_say(f->liar, 200, rows[i].headers, rows[i].body);
        expect(RUN(.verb = rows[i].verb, .key = "k", .upload_id = "u", .part_number = 1,
                   .from_bucket = "b", .from_key = "f", .parts = parts, .n_parts = 1),
               -EBADMSG, rows[i].cls);
    }
}

/* The server takes a request on a connection that it knows, hangs up, and is gone. */
static void test_gone_after_request(struct fixture *f, gconstpointer data)
{
    static const struct {
        uint64_t size;
        bool conditional;
        enum store_class cls;
    } rows[] = {{0, true, STORE_CLASS_AMBIGUOUS},
                {1000, true, STORE_CLASS_AMBIGUOUS},
                {1000, false, STORE_CLASS_RETRY}};
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        struct fixture g = {0};
        setup(&g, NULL);
        liar_say(g.liar, 200, ETAG, "");
        expect(run(&g, (struct store_request){.verb = STORE_HEAD, .key = "k"}), 0, STORE_CLASS_OK);
        liar_add(g.liar, (struct liar_step){.deaf = true, .close = true});
        const struct store_result *r = run(&g, (struct store_request){
                                                   .verb = STORE_PUT,
                                                   .key = "k",
                                                   .source.size = rows[i].size,
                                                   .if_none_match = rows[i].conditional,
                                               });
        expect(r, -ECONNRESET, rows[i].cls);
        g_assert_cmpuint(liar_requests(g.liar), ==, 2);
        teardown(&g, NULL);
    }
}

static void test_size(struct fixture *f, gconstpointer data)
{
    static const char part[] = ETAG "Content-Range: bytes 5-14/30\r\n";
    struct store_request get = {.verb = STORE_GET,
                                .key = "k",
                                .range = {.off = 5, .len = 10, .set = true},
                                .expect_size = 20};
    liar_say(f->liar, 206, part, "0123456789");
    expect(run(f, get), -ESTALE, STORE_CLASS_CONFLICT);
    g_assert_cmpuint(f->sunk.got->len, ==, 0);
    get.expect_size = 30;
    liar_say(f->liar, 206, part, "0123456789");
    expect(run(f, get), 0, STORE_CLASS_OK);
    g_assert_cmpstr(f->sunk.got->str, ==, "0123456789");
    get.range = (struct store_range){0};
    get.expect_size = 11;
    liar_say(f->liar, 200, ETAG, "0123456789");
    expect(run(f, get), -ESTALE, STORE_CLASS_CONFLICT);
    g_assert_cmpuint(f->sunk.got->len, ==, 0);
    get.expect_size = 10;
    liar_say(f->liar, 200, ETAG, "0123456789");
    expect(run(f, get), 0, STORE_CLASS_OK);
}

/* Capabilities */

enum { TRIALS = 10 }; /* each on a key of its own: .mlopsfs-probe-N-UUID */

static struct store *open_probing(struct fixture *f, const char *prefix)
{
    char access[] = "AKID", secret[] = SECRET;
    const struct s3_credentials c = {.access_key = access, .secret_key = secret};
    const struct store_s3_params p = {.endpoint = liar_url(f->liar),
                                      .credentials = &c,
                                      .probe_prefix = prefix,
                                      .connections = 1};
    struct store *s;
    g_assert_cmpint(store_s3_new(&p, &s), ==, 0);
    return s;
}

static void expect_none_in(struct store *s, const char *bucket)
{
    struct store_caps c;
    store_get_caps(s, bucket, &c);
    g_assert_false(c.put_if || c.complete_if || c.copy_if || c.delete_if || c.copy_part);
}

static void expect_none(struct store *s)
{
    expect_none_in(s, "b");
}

static unsigned logged(const char *path, const char *what)
{
    g_autofree char *text = NULL;
    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    unsigned n = 0;
    for (const char *at = text; (at = strstr(at, what)); at++) {
        n++;
    }
    return n;
}

/* What is tried; what is removed after it takes its time. */
static unsigned count_puts(struct fixture *f)
{
    unsigned n = 0;
    for (unsigned i = 0; i < liar_requests(f->liar); i++) {
        g_autofree char *q = liar_request(f->liar, i);
        n += g_str_has_prefix(q, "PUT ");
    }
    return n;
}

static void test_probe_refused(struct fixture *f, gconstpointer log)
{
    struct store *s = open_probing(f, "dir/");
    liar_add(f->liar, (struct liar_step){
                          .stay = true,
                          .reply = liar_reply(403, "", "<Error><Code>AccessDenied</Code></Error>"),
                      });
    expect_none(s);
    unsigned n = count_puts(f);
    expect_none(s);
    g_assert_cmpuint(count_puts(f), ==, n); /* known for good */
    for (unsigned i = 0; i < liar_requests(f->liar); i++) {
        g_autofree char *q = liar_request(f->liar, i);
        g_assert_nonnull(strstr(q, " /b/dir/.mlopsfs-probe-"));
    }
    g_assert_cmpuint(logged(log, "not permitted to try out"), ==, 1);
    g_assert_cmpuint(logged(log, "s3://b/dir/.mlopsfs-probe-*"), ==, 1);
    store_free(s);
}

static void test_probe_fails(struct fixture *f, gconstpointer log)
{
    struct store *s = open_probing(f, NULL);
    liar_add(f->liar, (struct liar_step){
                          .stay = true,
                          .reply = liar_reply(503, "", "<Error><Code>SlowDown</Code></Error>"),
                      });
    unsigned warnings = logged(log, "not permitted");
    expect_none(s);
    unsigned n = count_puts(f);
    g_assert_cmpuint(n, >, 0);
    g_assert_cmpuint(logged(log, "503 SlowDown"), >, 0);
    g_assert_cmpuint(logged(log, "not permitted"), ==, warnings);
    expect_none(s);
    g_assert_cmpuint(count_puts(f), >, n); /* asked anew */
    store_free(s);
}

static void always(struct fixture *f, const char *match, int status, const char *code)
{
    g_autofree char *body = g_strdup_printf("<Error><Code>%s</Code></Error>", code);
    liar_add(f->liar, (struct liar_step){
                          .match = match, .stay = true, .reply = liar_reply(status, "", body)});
}

/* The first PUT of each trial but `without` (TRIALS: of all) is taken; of trial 0 the next two are refused for their conditions. */
static void take_puts(struct fixture *f, const char *bucket, unsigned without)
{
    for (unsigned i = 0; i < TRIALS; i++) {
        g_autofree char *key = g_strdup_printf("PUT /%s/.mlopsfs-probe-%u-", bucket, i);
        const char *match = g_intern_string(key);
        if (i != without)
            liar_add(f->liar, (struct liar_step){.match = match, .reply = liar_reply(200, ETAG, "")});
        for (unsigned k = 0; i == 0 && k < 2; k++)
            liar_add(f->liar, (struct liar_step){
                                  .match = match, .reply = liar_reply(412, "", "<Error><Code>PreconditionFailed</Code></Error>")});
    }
}

/* What one bucket refuses, another may permit, and then it is known of the server; nothing is asked
 * of none. */
static void test_probe_buckets(struct fixture *f, gconstpointer log)
{
    struct store *s = open_probing(f, NULL);
    always(f, "PUT /closed/", 403, "AccessDenied");
    always(f, "DELETE /closed/", 403, "AccessDenied");
    always(f, "PUT /absent/", 404, "NoSuchBucket");
    always(f, "DELETE /absent/", 404, "NoSuchBucket");
    take_puts(f, "open", TRIALS);
    always(f, NULL, 501, "NotImplemented");
    expect_none_in(s, NULL);
    g_assert_cmpuint(liar_requests(f->liar), ==, 0);
    expect_none_in(s, "closed");
    expect_none_in(s, "absent");
    unsigned n = count_puts(f);
    expect_none_in(s, "closed");
    expect_none_in(s, "absent");
    g_assert_cmpuint(count_puts(f), ==, n); /* these two are known */
    struct store_caps c;
    store_get_caps(s, "open", &c);
    g_assert_true(c.put_if && !c.copy_if && !c.copy_part && !c.head_tags);
    n = count_puts(f);
    static const char *const all[] = {"closed", "absent", "another", NULL};
    for (size_t i = 0; i < G_N_ELEMENTS(all); i++) {
        store_get_caps(s, all[i], &c);
        g_assert_true(c.put_if && !c.copy_if);
    }
    g_assert_cmpuint(count_puts(f), ==, n);
    store_free(s);
}

#define LEFT "<Contents><Key>.mlopsfs-probe-%s</Key><LastModified>%s</LastModified><ETag>e</ETag><Size>1</Size></Contents>"

static bool requested(struct fixture *f, const char *what)
{
    for (unsigned i = 0; i < liar_requests(f->liar); i++) {
        g_autofree char *q = liar_request(f->liar, i);
        if (g_str_has_prefix(q, what)) {
            return true;
        }
    }
    return false;
}

/* What somebody who was killed while probing has left; not what somebody is at. */
static void test_probe_leftovers(struct fixture *f, gconstpointer log)
{
    struct store *s = open_probing(f, NULL);
    g_autofree char *listed = g_strdup_printf("<ListBucketResult>" LEFT LEFT "</ListBucketResult>", "left",
                                              "2020-01-01T00:00:00.000Z", "new", "2100-01-01T00:00:00.000Z");
    liar_add(f->liar, (struct liar_step){.match = "GET /b?encoding-type=url&list-type", .reply = liar_reply(200, "", listed)});
    liar_add(f->liar,
             (struct liar_step){
                 .match = "GET /b?",
                 .reply = liar_reply(200, "", "<ListMultipartUploadsResult><Upload><Key>.mlopsfs-probe-left</Key><UploadId>U1</UploadId>"
                                              "</Upload><Upload><Key>.mlopsfs-probe-left2</Key><UploadId>U2</UploadId></Upload>"
                                              "</ListMultipartUploadsResult>")});
    liar_add(f->liar, (struct liar_step){.match = "DELETE /b/.mlopsfs-probe-left?uploadId=U1", .reply = liar_reply(204, "", "")});
    take_puts(f, "b", TRIALS);
    always(f, NULL, 501, "NotImplemented");
    struct store_caps c;
    store_get_caps(s, "b", &c);
    store_free(s); /* waits for it */
    g_assert_true(requested(f, "DELETE /b/.mlopsfs-probe-left?uploadId=U1"));
    g_assert_true(requested(f, "DELETE /b/.mlopsfs-probe-left HTTP"));
    g_assert_false(requested(f, "DELETE /b/.mlopsfs-probe-left2"));
    g_assert_false(requested(f, "DELETE /b/.mlopsfs-probe-new"));
}

/* One trial had no object to try on: what it did not find may be there, in another bucket. */
static void test_probe_incomplete(struct fixture *f, gconstpointer log)
{
    struct store *s = open_probing(f, NULL);
    struct store_caps c;
    take_puts(f, "b", 4);
    take_puts(f, "other", TRIALS);
    always(f, NULL, 501, "NotImplemented");
    store_get_caps(s, "b", &c);
    g_assert_true(c.put_if);
    store_get_caps(s, "other", &c);
    g_assert_true(c.put_if);
    g_assert_true(requested(f, "PUT /other/.mlopsfs-probe-4-"));
    store_get_caps(s, "third", &c);
    g_assert_true(c.put_if);
    g_assert_false(requested(f, "PUT /third/"));
    store_free(s);
}

/* An upload cannot be ended: its object stays, by which it is found later. */
static void test_probe_upload_left(struct fixture *f, gconstpointer log)
{
    struct store *s = open_probing(f, NULL);
    struct store_caps c;
    take_puts(f, "b", TRIALS);
    liar_add(f->liar, (struct liar_step){
                          .match = "POST /b/.mlopsfs-probe-2-",
                          .reply = liar_reply(200, "",
                                              "<InitiateMultipartUploadResult><UploadId>U</UploadId>"
                                              "</InitiateMultipartUploadResult>")});
    always(f, NULL, 501, "NotImplemented");
    store_get_caps(s, "b", &c);
    store_free(s);
    unsigned ended = 0, removed = 0, others = 0;
    for (unsigned i = 0; i < liar_requests(f->liar); i++) {
        g_autofree char *q = liar_request(f->liar, i);
        bool of_upload = g_str_has_prefix(q, "DELETE /b/.mlopsfs-probe-2-");
        const char *end = strstr(q, " HTTP/");
        bool names = g_strstr_len(q, end - q, "uploadId=U") != NULL;
        ended += of_upload && names;
        removed += of_upload && !names;
        others += g_str_has_prefix(q, "DELETE /b/.mlopsfs-probe-0-");
    }
    g_assert_cmpuint(ended, ==, 1);
    g_assert_cmpuint(removed, ==, 0);
    g_assert_cmpuint(others, ==, 1);
}

/* No key is left for a probe. */
static void test_probe_long(struct fixture *f, gconstpointer log)
{
    g_autofree char *prefix = g_strnfill(STORE_KEY_MAX - 20, 'p');
    struct store *s = open_probing(f, prefix);
    expect_none(s);
    g_assert_cmpuint(liar_requests(f->liar), ==, 0);
    store_free(s);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_autofree char *dir = g_dir_make_tmp("mlopsfs-doubt-XXXXXX", NULL);
    g_autofree char *log = g_build_filename(dir, "log", NULL);
    g_assert_cmpint(log_to_file(log), ==, 0);
    log_set_level(LOG_DEBUG);
#define CASE(name, fn) g_test_add("/store-s3-doubt/" name, struct fixture, log, setup, fn, teardown)
    CASE("useless-reply", test_useless_reply);
    CASE("gone-after-request", test_gone_after_request);
    CASE("size", test_size);
    CASE("probe-refused", test_probe_refused);
    CASE("probe-fails", test_probe_fails);
    CASE("probe-buckets", test_probe_buckets);
    CASE("probe-leftovers", test_probe_leftovers);
    CASE("probe-incomplete", test_probe_incomplete);
    CASE("probe-upload-left", test_probe_upload_left);
    CASE("probe-long", test_probe_long);
    int r = g_test_run();
    g_unlink(log);
    g_rmdir(dir);
    return r;
}
