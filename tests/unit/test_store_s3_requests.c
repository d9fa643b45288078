/* SPDX-License-Identifier: Apache-2.0
 *
 * store_s3's requests: where they go, what they carry, and what a server's reply makes of the next one.
 */
#include "tests/lib/store_s3_fixture.h"

static void test_region(struct fixture *f, gconstpointer data)
{
    liar_say(f->liar, 301, "x-amz-bucket-region: eu-west-7\r\n",
             "<Error><Code>PermanentRedirect</Code></Error>");
    liar_say(f->liar, 200, ETAG, "");
    expect(RUN(.verb = STORE_PUT, .key = "k", .source = {.size = 1000}), 0, STORE_CLASS_OK);
    liar_say(f->liar, 200, ETAG, "");
    expect(RUN(.verb = STORE_HEAD, .key = "k"), 0, STORE_CLASS_OK);
    liar_say(f->liar, 400, "",
             "<Error><Code>AuthorizationHeaderMalformed</Code><Region>ap-east-9</Region></Error>");
    liar_say(f->liar, 200, ETAG, "");
    expect(RUN(.verb = STORE_PUT, .bucket = "other", .key = "k"), 0, STORE_CLASS_OK);
    static const char *const regions[] = {"us-east-1", "eu-west-7", "eu-west-7", "us-east-1",
                                          "ap-east-9"};
    for (guint i = 0; i < G_N_ELEMENTS(regions); i++) {
        g_autofree char *q = liar_request(f->liar, i);
        g_autofree char *scope = g_strdup_printf("/%s/s3/aws4_request", regions[i]);
        g_assert_nonnull(strstr(q, scope));
    }
    /* One that always knows better is asked twice, not for ever. */
    liar_say(f->liar, 301, "x-amz-bucket-region: r-1\r\n", "");
    liar_say(f->liar, 301, "x-amz-bucket-region: r-2\r\n", "");
    expect(RUN(.verb = STORE_HEAD, .key = "k"), -EREMCHG, STORE_CLASS_FATAL);
    liar_say(f->liar, 301, "x-amz-bucket-region: ../evil\r\n", "");
    expect(RUN(.verb = STORE_HEAD, .key = "k"), -EREMCHG, STORE_CLASS_FATAL);
    liar_say(f->liar, 301, "Location: http://example.invalid/\r\n", "");
    expect(RUN(.verb = STORE_HEAD, .key = "k"), -EREMCHG, STORE_CLASS_FATAL);
}

static void test_clock(struct fixture *f, gconstpointer data)
{
    liar_say(f->liar, 403, "Date: Tue, 01 Jan 2047 12:00:00 GMT\r\n",
             "<Error><Code>RequestTimeTooSkewed</Code></Error>");
    liar_say(f->liar, 200, ETAG, "");
    expect(RUN(.verb = STORE_HEAD, .key = "k"), 0, STORE_CLASS_OK);
    g_autofree char *q = liar_request(f->liar, 1);
    g_assert_nonnull(strstr(q, "\r\nx-amz-date: 20470101T12"));
    /* The same again, with the clock set: it is about something else. */
    liar_say(f->liar, 403, "Date: Tue, 01 Jan 2047 12:00:00 GMT\r\n",
             "<Error><Code>RequestTimeTooSkewed</Code></Error>");
    expect(RUN(.verb = STORE_GET, .key = "k"), -EACCES, STORE_CLASS_AUTH);
    g_assert_cmpuint(liar_requests(f->liar), ==, 3);
}

/* What is sent and said */

static void test_path(struct fixture *f, gconstpointer data)
{
    static const struct {
        const char *key, *line;
    } rows[] = {
        {"a/../b/./c", "PUT /b/a/../b/./c HTTP/1.1"},
        {"/lead//double/", "PUT /b//lead//double/ HTTP/1.1"},
        {"sp ace+%41?#&=", "PUT /b/sp%20ace%2B%2541%3F%23%26%3D HTTP/1.1"},
        {"\x01\x7f\xff\xc3\xa9", "PUT /b/%01%7F%FF%C3%A9 HTTP/1.1"},
    };
    for (guint i = 0; i < G_N_ELEMENTS(rows); i++) {
        liar_say(f->liar, 200, ETAG, "");
        expect(RUN(.verb = STORE_PUT, .key = rows[i].key), 0, STORE_CLASS_OK);
        g_autofree char *q = liar_request(f->liar, i);
        g_autofree char *line = g_strndup(q, strcspn(q, "\r"));
        g_assert_cmpstr(line, ==, rows[i].line);
        g_assert_nonnull(strstr(q, "Content-Length: 0\r\n"));
        g_assert_null(strstr(q, "Expect:"));
    }
}

static void test_body(struct fixture *f, gconstpointer data)
{
    liar_say(f->liar, 200, ETAG "x-amz-version-id: v\r\n", "");
    struct store_headers h = {.content_type = (char[]){"text/x"},
                              .cache_control = (char[]){"no-store"}};
    store_headers_set_meta(&h, "Name", "v\xc3\xa4lue  x");
    store_headers_set_meta(&h, "empty", "");
    struct store_result *r =
        RUN(.verb = STORE_PUT, .key = "k", .source = {.size = 300000}, .headers = &h);
    expect(r, 0, STORE_CLASS_OK);
    g_assert_cmpuint(r->bytes, ==, 300000);
    g_assert_cmpstr(r->object.version_id, ==, "v");
    g_autofree char *q = liar_request(f->liar, 0);
    g_assert_nonnull(strstr(q, "\r\nx-amz-meta-name: v\xc3\xa4lue  x\r\n"));
    g_assert_nonnull(strstr(q, "\r\nx-amz-meta-empty:\r\n"));
    g_assert_nonnull(strstr(q, "\r\ncontent-type: text/x\r\n"));
    g_assert_nonnull(strstr(q, "\r\ncache-control: no-store\r\n"));
    g_assert_nonnull(strstr(q, "\r\nx-amz-content-sha256: UNSIGNED-PAYLOAD\r\n"));
    g_assert_cmpuint(strlen(strstr(q, "\r\n\r\n") + 4), ==, 300000);
    g_hash_table_unref(h.meta);
}

static int crc_rfc(void *ctx, uint32_t *ret)
{
    *ret = 0x8a9136aa;
    return ctx ? -EIO : 0;
}

/* The checksum goes along, signed; an upload says that its parts will have one; COMPLETE has those
 * that are known. A reply's that is not four bytes in base64 is none. */
static void test_checksum(struct fixture *f, gconstpointer data)
{
    const struct store_part parts[] = {
        {.number = 1, .etag = (char[]){"e1"}, .checksum = {.set = true, .crc32c = 1}},
        {.number = 2, .etag = (char[]){"e2"}}};
    liar_say(f->liar, 200, ETAG, "");
    struct store_result *r =
        RUN(.verb = STORE_PUT, .key = "k", .source = {.size = 32, .checksum = crc_rfc});
    expect(r, 0, STORE_CLASS_OK);
    g_assert_true(r->checksum.set && r->checksum.crc32c == 0x8a9136aa);
    g_autofree char *put = liar_request(f->liar, 0);
    g_assert_nonnull(strstr(put, "\r\nx-amz-checksum-crc32c: ipE2qg==\r\n"));
    g_assert_nonnull(strstr(put, "SignedHeaders=host;x-amz-checksum-crc32c;"));

    liar_say(f->liar, 200, "", "<InitiateMultipartUploadResult><UploadId>u</UploadId>"
                               "</InitiateMultipartUploadResult>");
    expect(RUN(.verb = STORE_MPU_CREATE, .key = "k", .with_checksums = true), 0, STORE_CLASS_OK);
    g_autofree char *create = liar_request(f->liar, 1);
    g_assert_nonnull(strstr(create, "\r\nx-amz-checksum-algorithm: CRC32C\r\n"));

    liar_say(f->liar, 200, "", "<CompleteMultipartUploadResult><ETag>e</ETag>"
                               "</CompleteMultipartUploadResult>");
    expect(RUN(.verb = STORE_MPU_COMPLETE, .key = "k", .upload_id = "u", .parts = parts,
               .n_parts = 2),
           0, STORE_CLASS_OK);
    g_autofree char *complete = liar_request(f->liar, 2);
    g_assert_nonnull(strstr(complete, "<ETag>&quot;e1&quot;</ETag>"
                                      "<ChecksumCRC32C>AAAAAQ==</ChecksumCRC32C></Part>") ?:
                     strstr(complete, "\"e1\"</ETag><ChecksumCRC32C>AAAAAQ==</ChecksumCRC32C>"
                                      "</Part>"));
    g_assert_nonnull(strstr(complete, "</ETag></Part>"));

    static const char *const replies[] = {"AAAAAQ==", "AAAAAQ==-2", "", "!", "AAAAAAAAAAA="};
    for (size_t i = 0; i < G_N_ELEMENTS(replies); i++) {
        g_autofree char *body =
            g_strdup_printf("<CopyPartResult><ETag>e</ETag><ChecksumCRC32C>%s</ChecksumCRC32C>"
                            "</CopyPartResult>",
                            replies[i]);
        liar_say(f->liar, 200, "", body);
        r = RUN(.verb = STORE_MPU_COPY_PART, .key = "k", .upload_id = "u", .part_number = 1,
                .from_bucket = "b", .from_key = "f");
        expect(r, 0, STORE_CLASS_OK);
        g_assert_true(r->checksum.set == (i == 0) && r->checksum.crc32c == (i == 0));
    }
    unsigned before = liar_requests(f->liar);
    struct store_source damaged = {.size = 32, .checksum = crc_rfc, .ctx = f};
    expect(RUN(.verb = STORE_PUT, .key = "k", .if_none_match = true, .source = damaged), -EIO,
           STORE_CLASS_FATAL);
    g_assert_cmpuint(liar_requests(f->liar), ==, before);
}

static void test_header_injection(struct fixture *f, gconstpointer data)
{
    static const char *const values[] = {"a\r\nX-Evil: 1", "a\nb", "\r"};
    for (size_t i = 0; i < G_N_ELEMENTS(values); i++) {
        struct store_headers h = {0};
        store_headers_set_meta(&h, "m", values[i]);
        expect(RUN(.verb = STORE_PUT, .key = "k", .headers = &h), -EINVAL, STORE_CLASS_FATAL);
        store_headers_clear(&h);
        store_headers_set_meta(&h, "bad name:", "v");
        expect(RUN(.verb = STORE_PUT, .key = "k", .headers = &h), -EINVAL, STORE_CLASS_FATAL);
        store_headers_clear(&h);
    }
    g_assert_cmpuint(liar_requests(f->liar), ==, 0);
}

static void test_detail(struct fixture *f, gconstpointer data)
{
    liar_say(f->liar, 403, "",
             "<Error><Code>AccessDenied</Code><Message>Access\nDenied.</Message></Error>");
    struct store_result *r = RUN(.verb = STORE_GET, .key = "k\n\x1b[31m\xff");
    g_assert_cmpstr(r->detail, ==,
                    "GET s3://b/k\\x0a\\x1b[31m\\xff: 403 AccessDenied: Access\\x0aDenied.");
    g_assert_cmpstr(r->code, ==, "AccessDenied");
    liar_say(f->liar, 403, "",
             "<Error><Code>AccessDenied</Code><Message>You sent " SECRET "</Message></Error>");
    r = RUN(.verb = STORE_GET, .key = "k");
    g_assert_nonnull(strstr(r->detail, "withheld"));
    liar_say(f->liar, 404, "", "");
    r = RUN(.verb = STORE_HEAD, .key = "k");
    expect(r, -ENOENT, STORE_CLASS_FATAL);
    g_assert_cmpstr(r->code, ==, "");
    liar_say(f->liar, 403, "",
             "<Error><Code>InvalidObjectState</Code><Message>x</Message></Error>");
    r = RUN(.verb = STORE_GET, .key = "k");
    expect(r, -ENODATA, STORE_CLASS_FATAL);
    g_assert_nonnull(strstr(r->detail, "archived"));
}

static void test_anonymous(struct fixture *f, gconstpointer data)
{
    struct store *store;
    const struct s3_credentials c = {.anonymous = true};
    const struct store_s3_params p = {.endpoint = liar_url(f->liar), .credentials = &c};
    g_assert_cmpint(store_s3_new(&p, &store), ==, 0);
    liar_say(f->liar, 200, ETAG, "");
    struct store_request req = {.verb = STORE_HEAD, .bucket = "b", .key = "k"};
    g_assert_cmpint(store_run(store, &req, NULL), ==, 0);
    store_request_clear(&req);
    store_free(store);
    g_autofree char *q = liar_request(f->liar, 0);
    g_autofree char *lower = g_ascii_strdown(q, -1);
    g_assert_null(strstr(lower, "authorization"));
}

/* A bucket that is a DNS label is part of the host, any other of the path; both are signed as they are sent. */
static void test_virtual_host(struct fixture *f, gconstpointer data)
{
    char access[] = "AKID", secret[] = SECRET;
    const struct s3_credentials c = {.access_key = access, .secret_key = secret};
    const char *port = strrchr(liar_url(f->liar), ':');
    /* *.localhost is loopback, without asking a name server */
    g_autofree char *endpoint = g_strconcat("http://localhost", port, NULL);
    const struct store_s3_params p = {.endpoint = endpoint,
                                      .credentials = &c,
                                      .addressing = S3_ADDRESSING_VIRTUAL,
                                      .connections = 1};
    static const struct {
        enum store_verb verb;
        const char *bucket, *key, *line, *host;
    } rows[] = {
        {STORE_HEAD, "bucket", "dir/k", "HEAD /dir/k HTTP/1.1", "bucket.localhost"},
        {STORE_PUT, "buck-3t", "a b", "PUT /a%20b HTTP/1.1", "buck-3t.localhost"},
        {STORE_BUCKET_CREATE, "bucket", NULL, "PUT / HTTP/1.1", "bucket.localhost"},
        {STORE_HEAD, "bucket", "bucket", "HEAD /bucket HTTP/1.1", "bucket.localhost"},
        {STORE_HEAD, "with.dot", "k", "HEAD /with.dot/k HTTP/1.1", "localhost"},
        {STORE_HEAD, "UPPER", "k", "HEAD /UPPER/k HTTP/1.1", "localhost"},
    };
    struct store *store;
    g_assert_cmpint(store_s3_new(&p, &store), ==, 0);
    for (guint i = 0; i < G_N_ELEMENTS(rows); i++) {
        struct store_request req = {
            .verb = rows[i].verb, .bucket = rows[i].bucket, .key = rows[i].key};
        liar_say(f->liar, 200, ETAG, "");
        g_assert_cmpint(store_run(store, &req, NULL), ==, 0);
        store_request_clear(&req);
        g_autofree char *q = liar_request(f->liar, i);
        g_autofree char *line = g_strndup(q, strcspn(q, "\r"));
        g_assert_cmpstr(line, ==, rows[i].line);
        g_autofree char *host = g_strdup_printf("\r\nHost: %s%s\r\n", rows[i].host, port);
        g_assert_nonnull(strstr(q, host));
        g_assert_nonnull(strstr(q, "SignedHeaders=host;"));
    }
    store_free(store);
}

static void test_params(struct fixture *f, gconstpointer data)
{
    static const char *const endpoints[] = {
        "ftp://host", "host",       "http://",        "http://h/path", "http://user:pw@h",
        "http://h?q", "http://h#f", "http://h:99999", "http://a b",
    };
    struct store *store;
    for (size_t i = 0; i < G_N_ELEMENTS(endpoints); i++) {
        const struct store_s3_params p = {.endpoint = endpoints[i]};
        g_assert_cmpint(store_s3_new(&p, &store), ==, -EINVAL);
    }
    const struct store_s3_params region = {.endpoint = "http://h", .region = "a b"};
    g_assert_cmpint(store_s3_new(&region, &store), ==, -EINVAL);
    const struct store_s3_params absent = {.endpoint = "https://h",
                                           .ca_file = "/nonexistent/ca.pem"};
    g_assert_cmpint(store_s3_new(&absent, &store), ==, -ENOENT);
    const struct store_s3_params not_pem = {.endpoint = "https://h",
                                            .ca_file = "/proc/self/cmdline"};
    g_assert_cmpint(store_s3_new(&not_pem, &store), ==, -EINVAL);
    static const char *const good[] = {"http://[::1]:9000", "https://s3.eu-central-1.amazonaws.com",
                                       "http://h/"};
    for (size_t i = 0; i < G_N_ELEMENTS(good); i++) {
        const struct store_s3_params p = {.endpoint = good[i]};
        g_assert_cmpint(store_s3_new(&p, &store), ==, 0);
        store_free(store);
    }
}

static void test_kept(struct fixture *f, gconstpointer data)
{
    static const char refused[] = "<Error><Code>InvalidStorageClass</Code></Error>";
    g_autoptr(GHashTable) tags = g_hash_table_new(g_str_hash, g_str_equal);
    g_hash_table_insert(tags, (char[]){"a b"}, (char[]){"1+1=2&\xc3\xa4"});
    g_hash_table_insert(tags, (char[]){"k"}, (char[]){""});
    struct store_request put = {.verb = STORE_PUT,
                                .key = "k",
                                .if_match = "e0",
                                .tags = tags,
                                .storage_class = "TIER-7",
                                .source = {.size = 9}};
    liar_say(f->liar, 400, "", refused);
    liar_say(f->liar, 200, ETAG, "");
    expect(run(f, put), 0, STORE_CLASS_OK);
    for (guint i = 0; i < 2; i++) { /* all as before, but for the class */
        g_autofree char *q = liar_request(f->liar, i);
        g_assert_nonnull(strstr(q, "\r\nx-amz-tagging: a%20b=1%2B1%3D2%26%C3%A4&k=\r\n"));
        g_assert_nonnull(strstr(q, ";x-amz-tagging,")); /* signed */
        g_assert_nonnull(strstr(q, "\r\nif-match: \"e0\"\r\n"));
        bool classed = strstr(q, "\r\nx-amz-storage-class: TIER-7\r\n");
        g_assert_true(classed == (i == 0));
        g_assert_nonnull(strstr(q, "\r\n\r\nabcdefghi"));
    }
    liar_say(f->liar, 400, "", refused); /* without a class, it is about something else */
    put.storage_class = NULL;
    expect(run(f, put), -EINVAL, STORE_CLASS_FATAL);
    liar_say(f->liar, 200, "", "<CopyObjectResult><ETag>e</ETag></CopyObjectResult>");
    expect(RUN(.verb = STORE_COPY, .key = "k", .from_bucket = "b", .from_key = "o", .tags = tags,
               .storage_class = "STANDARD_IA"),
           0, STORE_CLASS_OK);
    g_autofree char *q = liar_request(f->liar, 3);
    g_assert_nonnull(strstr(q, "\r\nx-amz-storage-class: STANDARD_IA\r\n"));
    g_assert_null(strstr(q, "x-amz-tagging"));
}

static void test_caps_given(struct fixture *f, gconstpointer data)
{
    struct store *store;
    const struct store_caps given = {.put_if = true, .delete_if = true};
    const struct store_s3_params p = {
        .endpoint = liar_url(f->liar), .caps = &given};
    g_assert_cmpint(store_s3_new(&p, &store), ==, 0);
    struct store_caps caps;
    store_get_caps(store, "b", &caps);
    g_assert_true(caps.put_if && caps.delete_if && !caps.complete_if && !caps.copy_if);
    store_free(store);
    store_get_caps(f->store, NULL, &caps); /* no bucket to probe in: nothing is assumed */
    g_assert_false(caps.put_if || caps.complete_if || caps.copy_if || caps.delete_if ||
                   caps.copy_part);
    g_assert_cmpuint(liar_requests(f->liar), ==, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
#define CASE(name, fn) g_test_add("/store-s3/" name, struct fixture, NULL, setup, fn, teardown)
    CASE("region", test_region);
    CASE("clock", test_clock);
    CASE("path", test_path);
    CASE("body", test_body);
    CASE("checksum", test_checksum);
    CASE("header-injection", test_header_injection);
    CASE("detail", test_detail);
    CASE("anonymous", test_anonymous);
    CASE("virtual-host", test_virtual_host);
    CASE("params", test_params);
    CASE("kept", test_kept);
    CASE("caps-given", test_caps_given);
    return g_test_run();
}
