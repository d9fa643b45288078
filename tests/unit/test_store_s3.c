/* SPDX-License-Identifier: Apache-2.0
 *
 * store_s3 against a server that lies: what it says is told for what it is, never passed on as
 * good. Connections, time and TLS are in test_store_s3_net.c; that true servers and the store
 * understand each other is shown by the conformance suite.
 */
#include "tests/lib/store_s3_fixture.h"

/* GET */

static void test_get(struct fixture *f, gconstpointer data)
{
    liar_say(f->liar, 206,
             ETAG "Content-Range: bytes 5-14/100\r\nx-amz-meta-A: b\r\nContent-Type: video/mp4\r\n"
                  "x-amz-version-id: v7\r\nx-amz-storage-class: STANDARD_IA\r\n"
                  "Last-Modified: Fri, 24 May 2013 00:00:00 GMT\r\n",
             "0123456789");
    struct store_result *r =
        RUN(.verb = STORE_GET, .key = "k", .range = {5, 10, true}, .if_match = "e1");
    expect(r, 0, STORE_CLASS_OK);
    g_assert_cmpstr(f->sunk.got->str, ==, "0123456789");
    g_assert_cmpuint(f->sunk.next, ==, 15);
    g_assert_cmpuint(r->bytes, ==, 10);
    g_assert_cmpuint(r->object.size, ==, 100);
    g_assert_cmpstr(r->object.etag, ==, "e1");
    g_assert_cmpstr(r->object.version_id, ==, "v7");
    g_assert_cmpstr(r->object.storage_class, ==, "STANDARD_IA");
    g_assert_cmpstr(r->object.headers.content_type, ==, "video/mp4");
    g_assert_cmpstr(store_headers_get_meta(&r->object.headers, "a"), ==, "b");
    g_assert_cmpint(r->object.mtime_ns, ==, 1369353600LL * 1000000000LL);
    g_autofree char *q = liar_request(f->liar, 0);
    g_assert_true(g_str_has_prefix(q, "GET /b/k HTTP/1.1\r\n"));
    g_assert_nonnull(strstr(q, "\r\nrange: bytes=5-14\r\n"));
    g_assert_nonnull(strstr(q, "\r\nif-match: \"e1\"\r\n"));
}

static void test_get_wrong_range(struct fixture *f, gconstpointer data)
{
    static const char *const ranges[] = {
        "Content-Range: bytes 6-15/100\r\n",
        "Content-Range: bytes 0-9/100\r\n",
        "Content-Range: bytes 5-15/100\r\n",
        "Content-Range: bytes 5-14/10\r\n",
        "Content-Range: bytes 5-14/*\r\n",
        "Content-Range: bytes 5-4/100\r\n",
        "Content-Range: bytes -5-14/100\r\n",
        "Content-Range: lines 5-14/100\r\n",
        "Content-Range: bytes 5-14/100x\r\n",
        "Content-Range: bytes 5-14/18446744073709551616\r\n",
        "",
    };
    for (size_t i = 0; i < G_N_ELEMENTS(ranges); i++) {
        g_autofree char *headers = g_strconcat(ETAG, ranges[i], NULL);
        g_autofree char *raw = liar_reply(206, headers, "0123456789");
        liar_add(f->liar, (struct liar_step){.reply = g_steal_pointer(&raw), .close = true});
        expect(GET_5_10, -EBADMSG, STORE_CLASS_FATAL);
        g_assert_cmpuint(f->sunk.got->len, ==, 0);
    }
}

static void test_get_cut(struct fixture *f, gconstpointer data)
{
    liar_add(f->liar, (struct liar_step){
                          .reply = g_strdup("HTTP/1.1 206 OK\r\nContent-Length: 10\r\n" ETAG
                                            "Content-Range: bytes 5-14/100\r\n\r\n0123"),
                          .close = true,
                      });
    struct store_result *r = GET_5_10;
    expect(r, -ECONNRESET, STORE_CLASS_RETRY);
    g_assert_cmpuint(r->bytes, ==, 4);
    g_assert_cmpstr(f->sunk.got->str, ==, "0123");
    g_assert_cmpstr(r->object.etag, ==, "e1"); /* for whoever resumes */
    /* well-formed HTTP, but fewer bytes than the range has */
    liar_say(f->liar, 206, ETAG "Content-Range: bytes 5-14/100\r\n", "012345");
    r = GET_5_10;
    expect(r, -ECONNRESET, STORE_CLASS_RETRY);
    g_assert_cmpuint(r->bytes, ==, 6);
    /* the server says itself that it sends less */
    liar_say(f->liar, 206, ETAG "Content-Range: bytes 5-7/100\r\n", "012");
    r = GET_5_10;
    expect(r, -ECONNRESET, STORE_CLASS_RETRY);
    g_assert_cmpuint(r->bytes, ==, 3);
}

static void test_get_long(struct fixture *f, gconstpointer data)
{
    liar_say(f->liar, 206, ETAG "Content-Range: bytes 5-14/100\r\n", "0123456789abcdef");
    expect(GET_5_10, -EBADMSG, STORE_CLASS_FATAL);
    g_assert_cmpuint(f->sunk.got->len, <=, 10);
}

static void test_get_end(struct fixture *f, gconstpointer data)
{
    liar_say(f->liar, 206, ETAG "Content-Range: bytes 5-7/8\r\n", "567");
    struct store_result *r = GET_5_10;
    expect(r, 0, STORE_CLASS_OK);
    g_assert_cmpuint(r->object.size, ==, 8);
    liar_say(f->liar, 416, "", "<Error><Code>InvalidRange</Code></Error>");
    expect(GET_5_10, -ERANGE, STORE_CLASS_FATAL);
}

static void test_get_range_ignored(struct fixture *f, gconstpointer data)
{
    liar_say(f->liar, 200, ETAG, "0123456789abcdef");
    struct store_result *r = GET_0_10;
    expect(r, 0, STORE_CLASS_OK);
    g_assert_cmpstr(f->sunk.got->str, ==, "0123456789");
    g_assert_cmpuint(r->object.size, ==, 16);
    liar_say(f->liar, 200, ETAG, "0123456789abcdef");
    expect(GET_5_10, -EBADMSG, STORE_CLASS_FATAL);
    g_assert_cmpuint(f->sunk.got->len, ==, 0);
    liar_say(f->liar, 200, ETAG, "");
    expect(GET_0_10, -ERANGE, STORE_CLASS_FATAL);
    liar_say(f->liar, 206, ETAG "Content-Range: bytes 0-3/4\r\n", "0123"); /* none was asked for */
    expect(RUN(.verb = STORE_GET, .key = "k"), -EBADMSG, STORE_CLASS_FATAL);
}

static void test_get_version(struct fixture *f, gconstpointer data)
{
    liar_say(f->liar, 200, "ETag: \"e2\"\r\n", "0123");
    struct store_result *r = RUN(.verb = STORE_GET, .key = "k", .if_match = "e1");
    expect(r, -ESTALE, STORE_CLASS_CONFLICT);
    g_assert_cmpuint(f->sunk.got->len, ==, 0);
    liar_say(f->liar, 200, "ETag: \"e2\"\r\n", "");
    expect(RUN(.verb = STORE_HEAD, .key = "k", .if_match = "e1"), -ESTALE, STORE_CLASS_CONFLICT);
}

/* Last-Modified has whole seconds: an object tells by it what it is only when that second is over, by the server's clock. */
static void test_settled(struct fixture *f, gconstpointer data)
{
    static const struct {
        const char *headers;
        bool settled;
    } rows[] = {
        {"Date: Fri, 24 May 2013 00:00:02 GMT\r\n", true},
        {"Date: Sat, 25 May 2013 00:00:00 GMT\r\nServer: MinIO\r\n", true},
        {"Date: Fri, 24 May 2013 00:00:01 GMT\r\n", false},
        {"Date: Fri, 24 May 2013 00:00:00 GMT\r\n", false},
        {"Date: Thu, 23 May 2013 00:00:00 GMT\r\n", false},
        {"Date: yesterday\r\n", false},
        {"", false},
        {"Date: Sat, 25 May 2013 00:00:00 GMT\r\nServer: VERSITYGW\r\n", false},
    };
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        g_autofree char *h = g_strconcat(ETAG "Last-Modified: Fri, 24 May 2013 00:00:00 GMT\r\n", rows[i].headers, NULL);
        liar_say(f->liar, 200, h, "");
        struct store_result *r = RUN(.verb = STORE_HEAD, .key = "k");
        expect(r, 0, STORE_CLASS_OK);
        g_assert_cmpint(r->object.settled, ==, rows[i].settled);
    }
    liar_say(f->liar, 200, ETAG "Date: Fri, 24 May 2013 00:00:02 GMT\r\n", ""); /* no Last-Modified */
    g_assert_false(RUN(.verb = STORE_HEAD, .key = "k")->object.settled);
}

static void test_get_headers_missing(struct fixture *f, gconstpointer data)
{
    liar_say(f->liar, 200, "", "0123");
    expect(RUN(.verb = STORE_GET, .key = "k"), -EBADMSG, STORE_CLASS_FATAL);
    liar_add(f->liar,
             (struct liar_step){
                 .reply = g_strdup("HTTP/1.1 200 OK\r\n" ETAG
                                   "Transfer-Encoding: chunked\r\n\r\n4\r\n0123\r\n0\r\n\r\n"),
             });
    expect(RUN(.verb = STORE_GET, .key = "k"), -EBADMSG, STORE_CLASS_FATAL);
    liar_say(f->liar, 200, "", "");
    expect(RUN(.verb = STORE_HEAD, .key = "k"), -EBADMSG, STORE_CLASS_FATAL);
    liar_say(f->liar, 200, "", "");
    expect(RUN(.verb = STORE_PUT, .key = "k"), -EBADMSG, STORE_CLASS_AMBIGUOUS);
    liar_say(f->liar, 200, "", "");
    expect(RUN(.verb = STORE_PUT, .key = "k", .if_none_match = true), -EBADMSG,
           STORE_CLASS_AMBIGUOUS);
}

static int sink_full(void *ctx, uint64_t off, const void *buf, size_t n)
{
    return -ENOBUFS;
}

static void test_get_sink_fails(struct fixture *f, gconstpointer data)
{
    liar_say(f->liar, 200, ETAG, "0123");
    struct store_request req = {
        .verb = STORE_GET, .bucket = "b", .key = "k", .sink = {.write = sink_full}};
    g_assert_cmpint(store_run(f->store, &req, NULL), ==, -ENOBUFS);
    expect(&req.res, -ENOBUFS, STORE_CLASS_FATAL);
    store_request_clear(&req);
}

/* XML */

static const struct store_part one_part[] = {{.number = 1, .size = 3, .etag = (char[]){"p1"}}};
#define COMPLETE(...)                                                                              \
    RUN(.verb = STORE_MPU_COMPLETE, .key = "k", .upload_id = "u", .parts = one_part, .n_parts = 1, \
        __VA_ARGS__)

static void test_error_in_200(struct fixture *f, gconstpointer data)
{
    static const char error[] =
        "<?xml version=\"1.0\"?>\n<Error><Code>InternalError</Code><Message>Oops</Message></Error>";
    liar_say(f->liar, 200, "", error);
    struct store_result *r = COMPLETE();
    expect(r, -EIO, STORE_CLASS_RETRY);
    g_assert_cmpstr(r->code, ==, "InternalError");
    liar_say(f->liar, 200, "", error);
    expect(COMPLETE(.if_none_match = true), -EIO, STORE_CLASS_AMBIGUOUS);
    liar_say(f->liar, 200, "", error);
    expect(RUN(.verb = STORE_COPY, .key = "k", .from_bucket = "b", .from_key = "f"), -EIO,
           STORE_CLASS_RETRY);
    liar_say(f->liar, 200, "", error);
    expect(RUN(.verb = STORE_MPU_COPY_PART, .key = "k", .upload_id = "u", .part_number = 1,
               .from_bucket = "b", .from_key = "f"),
           -EIO, STORE_CLASS_RETRY);
}

static void test_complete_blanks(struct fixture *f, gconstpointer data)
{
    GString *s = g_string_new("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < 500; i++) {
        g_string_append(s, "1\r\n \r\n");
    }
    static const char xml[] = "<?xml version=\"1.0\"?><CompleteMultipartUploadResult>"
                              "<ETag>&quot;abc-1&quot;</ETag></CompleteMultipartUploadResult>";
    g_string_append_printf(s, "%zx\r\n%s\r\n0\r\n\r\n", sizeof xml - 1, xml);
    liar_add(f->liar, (struct liar_step){.reply = g_string_free(s, FALSE)});
    struct store_result *r = COMPLETE();
    expect(r, 0, STORE_CLASS_OK);
    g_assert_cmpstr(r->object.etag, ==, "abc-1");
    g_autofree char *q = liar_request(f->liar, 0);
    g_assert_nonnull(
        strstr(q, "<Part><PartNumber>1</PartNumber><ETag>&quot;p1&quot;</ETag></Part>"));
}

static void test_senseless_xml(struct fixture *f, gconstpointer data)
{
    static const char *const bodies[] = {
        "",
        "garbage",
        "<html><body>hello</body></html>",
        "<ListBucketResult><Contents><Key>a</Key>",
        "<ListBucketResult><Contents><Key>a</Key><Size>-1</Size></Contents></ListBucketResult>",
        "<ListBucketResult><Contents><Key>a</Key><Size>99999999999999999999999</Size></Contents></"
        "ListBucketResult>",
        "<ListBucketResult><Contents><Size>1</Size></Contents></ListBucketResult>",
        "<ListBucketResult><EncodingType>url</EncodingType><Contents><Key>a%00b</Key></Contents></"
        "ListBucketResult>",
        "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
        "<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>t</"
        "NextContinuationToken></ListBucketResult>",
        "<!DOCTYPE x [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b "
        "\"&a;&a;&a;&a;\">]><ListBucketResult>&b;</ListBucketResult>",
    };
    for (size_t i = 0; i < G_N_ELEMENTS(bodies); i++) {
        liar_say(f->liar, 200, "", bodies[i]);
        expect(RUN(.verb = STORE_LIST, .token = "t"), -EBADMSG, STORE_CLASS_FATAL);
    }
    liar_say(f->liar, 200, "", "<InitiateMultipartUploadResult/>");
    expect(RUN(.verb = STORE_MPU_CREATE, .key = "k"), -EBADMSG, STORE_CLASS_FATAL);
    liar_say(f->liar, 200, "", "<CompleteMultipartUploadResult/>");
    expect(COMPLETE(.if_match = "x"), -EBADMSG, STORE_CLASS_AMBIGUOUS);
}

static void test_huge_xml(struct fixture *f, gconstpointer data)
{
    g_autofree char *pad = g_strnfill(17 << 20, ' ');
    liar_say(f->liar, 200, "", pad);
    expect(RUN(.verb = STORE_LIST), -EMSGSIZE, STORE_CLASS_FATAL);
}

static void test_list(struct fixture *f, gconstpointer data)
{
    liar_say(
        f->liar, 200, "",
        "<ListBucketResult><Contents><Key>z+%2B%01%FF</Key><ETag>&quot;e&quot;</ETag><Size>7</Size>"
        "<LastModified>2013-05-24T00:00:00.250Z</LastModified><StorageClass>GLACIER</"
        "StorageClass></Contents>"
        "<CommonPrefixes><Prefix>d%2F/</Prefix></CommonPrefixes><EncodingType>url</EncodingType>"
        "<IsTruncated>true</IsTruncated><NextContinuationToken>n/=&amp;</NextContinuationToken></"
        "ListBucketResult>");
    struct store_result *r =
        RUN(.verb = STORE_LIST, .prefix = "p q", .delimiter = "/", .start_after = "s+");
    expect(r, 0, STORE_CLASS_OK);
    g_assert_cmpuint(r->entries->len, ==, 2);
    const struct store_entry *d = r->entries->pdata[0], *z = r->entries->pdata[1];
    g_assert_cmpstr(d->key, ==, "d//");
    g_assert_true(d->is_prefix);
    g_assert_cmpstr(z->key, ==, "z +\x01\xff");
    g_assert_cmpstr(z->etag, ==, "e");
    g_assert_cmpuint(z->size, ==, 7);
    g_assert_cmpint(z->mtime_ns, ==, 1369353600250000000LL);
    g_assert_cmpstr(z->storage_class, ==, "GLACIER");
    g_assert_cmpstr(r->token, ==, "n/=&");
    g_autofree char *q = liar_request(f->liar, 0);
    g_assert_true(g_str_has_prefix(
        q, "GET /b?delimiter=%2F&encoding-type=url&list-type=2&max-keys=1000&prefix=p%20q&"
           "start-after=s%2B HTTP/1.1\r\n"));
    /* Not encoded when the server does not say so. */
    liar_say(f->liar, 200, "",
             "<ListBucketResult><Contents><Key>a+%41</Key></Contents></ListBucketResult>");
    r = RUN(.verb = STORE_LIST);
    g_assert_cmpstr(((struct store_entry *)r->entries->pdata[0])->key, ==, "a+%41");
    g_assert_null(r->token);
}

static void test_pages(struct fixture *f, gconstpointer data)
{
    liar_say(f->liar, 200, "",
             "<ListPartsResult><Part><PartNumber>1</PartNumber><Size>5</Size><ETag>a</ETag></Part>"
             "<IsTruncated>true</IsTruncated><NextPartNumberMarker>1</NextPartNumberMarker></"
             "ListPartsResult>");
    liar_say(f->liar, 200, "",
             "<ListPartsResult><Part><PartNumber>9</PartNumber><Size>6</Size><ETag>b</ETag></"
             "Part></ListPartsResult>");
    struct store_result *r = RUN(.verb = STORE_MPU_LIST_PARTS, .key = "k", .upload_id = "u");
    expect(r, 0, STORE_CLASS_OK);
    g_assert_cmpuint(r->parts->len, ==, 2);
    g_assert_cmpuint(((struct store_part *)r->parts->pdata[1])->number, ==, 9);
    g_autofree char *q = liar_request(f->liar, 1);
    g_assert_nonnull(strstr(q, "part-number-marker=1&"));

    static const char page[] =
        "<ListMultipartUploadsResult><EncodingType>url</EncodingType><Upload><Key>k%%20%d</"
        "Key><UploadId>u</UploadId>"
        "</Upload><IsTruncated>%s</IsTruncated><NextKeyMarker>k%%201</NextKeyMarker>"
        "<NextUploadIdMarker>u</NextUploadIdMarker></ListMultipartUploadsResult>";
    for (int i = 1; i <= 2; i++) {
        g_autofree char *body =
            i == 1 ? g_strdup_printf(page, 1, "true") : g_strdup_printf(page, 2, "false");
        liar_say(f->liar, 200, "", body);
    }
    r = RUN(.verb = STORE_MPU_LIST, .prefix = "k");
    expect(r, 0, STORE_CLASS_OK);
    g_assert_cmpuint(r->entries->len, ==, 2);
    g_assert_cmpstr(((struct store_entry *)r->entries->pdata[1])->key, ==, "k 2");
    g_assert_false(r->clock_known);
    g_autofree char *q2 = liar_request(f->liar, 3);
    g_assert_nonnull(strstr(q2, "key-marker=k%201&"));
    liar_say(f->liar, 200, "Date: Fri, 01 Jan 2100 00:00:00 GMT\r\n", "<ListMultipartUploadsResult/>");
    int64_t before = clock_real_ns(), century = 4102444800LL * (int64_t)NSEC_PER_SEC;
    r = RUN(.verb = STORE_MPU_LIST);
    g_assert_true(r->clock_known);
    g_assert_cmpint(r->clock_ahead_ns, <=, century - before);
    g_assert_cmpint(r->clock_ahead_ns, >=, century - clock_real_ns());
    /* A server that never gets to an end. */
    for (int i = 0; i < 3; i++) {
        g_autofree char *body = g_strdup_printf(page, 1, "true");
        liar_say(f->liar, 200, "", body);
    }
    expect(RUN(.verb = STORE_MPU_LIST), -EBADMSG, STORE_CLASS_FATAL);
    for (int i = 0; i < 2; i++) {
        liar_say(
            f->liar, 200, "",
            "<ListPartsResult><Part><PartNumber>1</PartNumber><Size>5</Size><ETag>a</ETag></Part>"
            "<IsTruncated>true</IsTruncated><NextPartNumberMarker>1</NextPartNumberMarker></"
            "ListPartsResult>");
    }
    expect(RUN(.verb = STORE_MPU_LIST_PARTS, .key = "k", .upload_id = "u"), -EBADMSG,
           STORE_CLASS_FATAL);
}

static void test_delete_many(struct fixture *f, gconstpointer data)
{
    liar_add(f->liar, (struct liar_step){
                          .match = "POST /b?delete",
                          .reply = liar_reply(
                              200, "",
                              "<DeleteResult><Error><Key>a&amp;b</Key><Code>AccessDenied</Code>"
                              "<Message>no</Message></Error><Error><Key>gone</Key>"
                              "<Code>NoSuchKey</Code></Error></DeleteResult>"),
                      });
    liar_add(f->liar,
             (struct liar_step){.match = "DELETE /b/x%01 ", .reply = liar_reply(204, "", "")});
    liar_add(f->liar, (struct liar_step){
                          .match = "DELETE /b/y%02 ",
                          .reply = liar_reply(403, "", "<Error><Code>AccessDenied</Code></Error>"),
                      });
    const char *const keys[] = {"a&b", "x\x01", "c\r", "y\x02"};
    struct store_result *r = RUN(.verb = STORE_DELETE_MANY, .keys = keys, .n_keys = 4);
    expect(r, -EACCES, STORE_CLASS_AUTH);
    g_assert_cmpuint(r->failed->len, ==, 2);
    g_assert_cmpstr(r->failed->pdata[0], ==, "a&b");
    g_assert_cmpstr(r->failed->pdata[1], ==, "y\x02");
    g_assert_cmpuint(liar_requests(f->liar), ==, 3);
    g_autofree char *q = liar_request(f->liar, 0);
    g_assert_nonnull(strstr(
        q, "<Object><Key>a&amp;b</Key></Object><Object><Key>c&#13;</Key></Object></Delete>"));
    g_assert_nonnull(strstr(q, "\r\ncontent-md5: "));
}

/* Errors */

static void test_conditions(struct fixture *f, gconstpointer data)
{
    static const char failed[] = "<Error><Code>PreconditionFailed</Code></Error>";
    liar_say(f->liar, 412, "", failed);
    expect(RUN(.verb = STORE_PUT, .key = "k", .if_none_match = true), -EEXIST,
           STORE_CLASS_CONFLICT);
    liar_say(f->liar, 412, "", failed);
    expect(RUN(.verb = STORE_PUT, .key = "k", .if_match = "e"), -ESTALE, STORE_CLASS_CONFLICT);
    liar_say(f->liar, 404, "", "<Error><Code>NoSuchKey</Code></Error>");
    expect(RUN(.verb = STORE_PUT, .key = "k", .if_match = "e"), -ESTALE, STORE_CLASS_CONFLICT);
    liar_say(f->liar, 412, "", failed);
    expect(RUN(.verb = STORE_COPY, .key = "k", .from_bucket = "b", .from_key = "f",
               .from_if_match = "e"),
           -ESTALE, STORE_CLASS_CONFLICT);
    g_autofree char *q = liar_request(f->liar, 0);
    g_assert_nonnull(strstr(q, "\r\nif-none-match: *\r\n"));
}

static void test_slow_down(struct fixture *f, gconstpointer data)
{
    liar_say(f->liar, 503, "Retry-After: 7\r\n", "<Error><Code>SlowDown</Code></Error>");
    struct store_result *r = RUN(.verb = STORE_GET, .key = "k");
    expect(r, -EAGAIN, STORE_CLASS_RETRY);
    g_assert_cmpuint(r->retry_after_ns, ==, 7 * NSEC_PER_SEC);
    g_assert_cmpint(r->http_status, ==, 503);
    liar_say(f->liar, 503, "Retry-After: 99999999999999999999\r\n", "<html>no XML here");
    r = RUN(.verb = STORE_GET, .key = "k");
    expect(r, -EAGAIN, STORE_CLASS_RETRY);
    g_assert_cmpuint(r->retry_after_ns, ==, 3600 * NSEC_PER_SEC);
    liar_say(f->liar, 503, "Retry-After: Fri, 24 May 2013 00:00:00 GMT\r\n", "");
    r = RUN(.verb = STORE_GET, .key = "k");
    g_assert_cmpuint(r->retry_after_ns, ==, 0);
}

static void test_gone_is_deleted(struct fixture *f, gconstpointer data)
{
    liar_say(f->liar, 404, "", "<Error><Code>NoSuchKey</Code></Error>");
    expect(RUN(.verb = STORE_DELETE, .key = "k"), 0, STORE_CLASS_OK);
    liar_say(f->liar, 404, "", "<Error><Code>NoSuchBucket</Code></Error>");
    expect(RUN(.verb = STORE_DELETE, .key = "k"), -ENOENT, STORE_CLASS_FATAL);
    liar_say(f->liar, 404, "", "<Error><Code>NoSuchUpload</Code></Error>");
    expect(RUN(.verb = STORE_MPU_ABORT, .key = "k", .upload_id = "u"), 0, STORE_CLASS_OK);
    liar_say(f->liar, 404, "", "<Error><Code>NoSuchTagSet</Code></Error>");
    struct store_result *r = RUN(.verb = STORE_TAGS_GET, .key = "k");
    expect(r, 0, STORE_CLASS_OK);
    g_assert_cmpuint(g_hash_table_size(r->tags), ==, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
#define CASE(name, fn) g_test_add("/store-s3/" name, struct fixture, NULL, setup, fn, teardown)
    CASE("get", test_get);
    CASE("get-wrong-range", test_get_wrong_range);
    CASE("get-cut", test_get_cut);
    CASE("get-long", test_get_long);
    CASE("get-end", test_get_end);
    CASE("get-range-ignored", test_get_range_ignored);
    CASE("get-version", test_get_version);
    CASE("settled", test_settled);
    CASE("get-headers-missing", test_get_headers_missing);
    CASE("get-sink-fails", test_get_sink_fails);
    CASE("error-in-200", test_error_in_200);
    CASE("complete-blanks", test_complete_blanks);
    CASE("senseless-xml", test_senseless_xml);
    CASE("huge-xml", test_huge_xml);
    CASE("list", test_list);
    CASE("pages", test_pages);
    CASE("delete-many", test_delete_many);
    CASE("conditions", test_conditions);
    CASE("slow-down", test_slow_down);
    CASE("gone-is-deleted", test_gone_is_deleted);
    return g_test_run();
}
