/* SPDX-License-Identifier: Apache-2.0
 *
 * store_s3 against a server that lies: what it says is told for what it is, never passed on as
 * good. Connections, time and TLS are in test_store_s3_net.c; that true servers and the store
 * understand each other is shown by the conformance suite.
 */
#include "s3/store_s3.h"

#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "tests/lib/liar.h"

#define SECRET "a-very-secret-key"
#define ETAG "ETag: \"e1\"\r\n"

struct sunk {
    GString *got;
    uint64_t next;
};

struct fixture {
    struct liar *liar;
    struct store *store;
    struct sunk sunk;
    struct store_request req;
};

static int sink_write(void *ctx, uint64_t off, const void *buf, size_t n)
{
    struct sunk *s = ctx;
    if (s->got->len == 0) {
        s->next = off;
    }
    g_assert_cmpuint(off, ==, s->next);
    s->next += n;
    g_string_append_len(s->got, buf, (gssize)n);
    return 0;
}

static ssize_t source_read(void *ctx, uint64_t off, void *buf, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        ((char *)buf)[i] = (char)('a' + (off + i) % 26);
    }
    return (ssize_t)n;
}

static void setup(struct fixture *f, gconstpointer data)
{
    char access[] = "AKID", secret[] = SECRET;
    const struct s3_credentials c = {.access_key = access, .secret_key = secret};
    f->liar = liar_new();
    const struct store_s3_params p = {
        .endpoint = liar_url(f->liar), .credentials = &c, .connections = 1};
    g_assert_cmpint(store_s3_new(&p, &f->store), ==, 0);
    f->sunk.got = g_string_new(NULL);
}

static void teardown(struct fixture *f, gconstpointer data)
{
    store_request_clear(&f->req);
    store_free(f->store);
    liar_free(f->liar);
    g_string_free(f->sunk.got, TRUE);
}

static struct store_result *run(struct fixture *f, struct store_request req)
{
    store_request_clear(&f->req);
    g_string_truncate(f->sunk.got, 0);
    f->req = req;
    f->req.bucket = req.bucket ? req.bucket : "b";
    f->req.sink = (struct store_sink){.write = sink_write, .ctx = &f->sunk};
    if (f->req.source.size > 0) {
        f->req.source.read = source_read;
    }
    store_run(f->store, &f->req, NULL);
    g_assert_true((f->req.res.err == 0) == (f->req.res.cls == STORE_CLASS_OK));
    if (f->req.res.err < 0) {
        g_test_message("%s", f->req.res.detail);
        g_assert_null(strstr(f->req.res.detail, SECRET));
    }
    return &f->req.res;
}

#define RUN(...) run(f, (struct store_request){__VA_ARGS__})
#define GET_0_10 RUN(.verb = STORE_GET, .key = "k", .range = {.off = 0, .len = 10, .set = true})
#define GET_5_10 RUN(.verb = STORE_GET, .key = "k", .range = {.off = 5, .len = 10, .set = true})

static void expect(const struct store_result *r, int err, enum store_class cls)
{
    g_assert_cmpint(r->err, ==, err);
    g_assert_cmpint(r->cls, ==, cls);
}

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
    expect(RUN(.verb = STORE_PUT, .key = "k"), -EBADMSG, STORE_CLASS_FATAL);
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
    g_autofree char *q2 = liar_request(f->liar, 3);
    g_assert_nonnull(strstr(q2, "key-marker=k%201&"));
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

static void test_caps_given(struct fixture *f, gconstpointer data)
{
    struct store *store;
    const struct store_caps given = {.put_if = true, .delete_if = true};
    const struct store_s3_params p = {
        .endpoint = liar_url(f->liar), .caps = &given, .probe_bucket = "b"};
    g_assert_cmpint(store_s3_new(&p, &store), ==, 0);
    struct store_caps caps;
    store_get_caps(store, &caps);
    g_assert_true(caps.put_if && caps.delete_if && !caps.complete_if && !caps.copy_if);
    store_free(store);
    store_get_caps(f->store, &caps); /* no bucket to probe in: nothing is assumed */
    g_assert_false(caps.put_if || caps.complete_if || caps.copy_if || caps.delete_if ||
                   caps.copy_part);
    g_assert_cmpuint(liar_requests(f->liar), ==, 0);
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
    CASE("region", test_region);
    CASE("clock", test_clock);
    CASE("path", test_path);
    CASE("body", test_body);
    CASE("header-injection", test_header_injection);
    CASE("detail", test_detail);
    CASE("anonymous", test_anonymous);
    CASE("params", test_params);
    CASE("caps-given", test_caps_given);
    return g_test_run();
}
