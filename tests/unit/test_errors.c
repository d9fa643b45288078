/* SPDX-License-Identifier: Apache-2.0
 *
 * errors: the table row by row, as the rest of the program relies on it, for plain requests and
 * for conditional writes.
 */
#include "s3/errors.h"

#include <curl/curl.h>
#include <errno.h>

#define OK STORE_CLASS_OK
#define RETRY STORE_CLASS_RETRY
#define AUTH STORE_CLASS_AUTH
#define CONFLICT STORE_CLASS_CONFLICT
#define AMBIGUOUS STORE_CLASS_AMBIGUOUS
#define FATAL STORE_CLASS_FATAL

struct row {
    int curl, status;
    const char *code;
    enum store_verb verb;
    int err;
    enum store_class plain, conditional; /* conditional: for PUT and COMPLETE with a condition */
};

static const struct row rows[] = {
    {0, 200, NULL, STORE_GET, 0, OK, OK},
    {0, 200, "", STORE_PUT, 0, OK, OK},
    {0, 204, NULL, STORE_DELETE, 0, OK, OK},
    {0, 206, NULL, STORE_GET, 0, OK, OK},
    /* nothing came back */
    {CURLE_COULDNT_CONNECT, 0, NULL, STORE_PUT, -ECONNREFUSED, RETRY, RETRY},
    {CURLE_COULDNT_RESOLVE_HOST, 0, NULL, STORE_PUT, -EHOSTUNREACH, RETRY, RETRY},
    {CURLE_COULDNT_RESOLVE_PROXY, 0, NULL, STORE_PUT, -EHOSTUNREACH, RETRY, RETRY},
    {CURLE_SSL_CONNECT_ERROR, 0, NULL, STORE_PUT, -ECONNABORTED, RETRY, RETRY},
    {CURLE_OPERATION_TIMEDOUT, 0, NULL, STORE_PUT, -ETIMEDOUT, RETRY, AMBIGUOUS},
    {CURLE_SEND_ERROR, 0, NULL, STORE_PUT, -ECONNRESET, RETRY, AMBIGUOUS},
    {CURLE_RECV_ERROR, 0, NULL, STORE_PUT, -ECONNRESET, RETRY, AMBIGUOUS},
    {CURLE_GOT_NOTHING, 0, NULL, STORE_MPU_COMPLETE, -ECONNRESET, RETRY, AMBIGUOUS},
    {CURLE_PARTIAL_FILE, 200, NULL, STORE_MPU_COMPLETE, -ECONNRESET, RETRY, AMBIGUOUS},
    {CURLE_PARTIAL_FILE, 206, NULL, STORE_GET, -ECONNRESET, RETRY, AMBIGUOUS},
    {CURLE_UNSUPPORTED_PROTOCOL, 0, NULL, STORE_PUT, -EPROTO, RETRY, AMBIGUOUS},
    {CURLE_PEER_FAILED_VERIFICATION, 0, NULL, STORE_PUT, -EKEYREJECTED, FATAL, FATAL},
    {CURLE_SSL_CACERT_BADFILE, 0, NULL, STORE_PUT, -EINVAL, FATAL, FATAL},
    {CURLE_URL_MALFORMAT, 0, NULL, STORE_PUT, -EINVAL, FATAL, FATAL},
    {CURLE_OUT_OF_MEMORY, 0, NULL, STORE_PUT, -ENOMEM, FATAL, FATAL},
    {CURLE_LDAP_SEARCH_FAILED, 0, NULL, STORE_PUT, -EIO, RETRY, AMBIGUOUS},
    /* a broken transfer goes before whatever status it carried */
    {CURLE_RECV_ERROR, 200, "NoSuchKey", STORE_PUT, -ECONNRESET, RETRY, AMBIGUOUS},
    /* absent */
    {0, 404, "NoSuchBucket", STORE_PUT, -ENOENT, FATAL, FATAL},
    {0, 404, "NoSuchUpload", STORE_MPU_COMPLETE, -ENOENT, FATAL, FATAL},
    {0, 404, "NoSuchVersion", STORE_GET, -ENOENT, FATAL, FATAL},
    {0, 404, "NoSuchTagSet", STORE_TAGS_GET, -ENODATA, FATAL, FATAL},
    /* conditions */
    {0, 412, "PreconditionFailed", STORE_PUT, -ESTALE, CONFLICT, CONFLICT},
    {0, 412, NULL, STORE_HEAD, -ESTALE, CONFLICT, CONFLICT},
    {0, 409, "ConditionalRequestConflict", STORE_PUT, -EBUSY, RETRY, RETRY},
    {0, 409, "ConditionalRequestConflict", STORE_MPU_COMPLETE, -ESTALE, CONFLICT, CONFLICT},
    {0, 409, "OperationAborted", STORE_BUCKET_CREATE, -EBUSY, RETRY, RETRY},
    {0, 409, NULL, STORE_PUT, -EBUSY, RETRY, RETRY},
    /* who may */
    {0, 401, NULL, STORE_GET, -EACCES, AUTH, AUTH},
    {0, 403, NULL, STORE_HEAD, -EACCES, AUTH, AUTH},
    {0, 403, "AccessDenied", STORE_GET, -EACCES, AUTH, AUTH},
    {0, 403, "SignatureDoesNotMatch", STORE_PUT, -EACCES, AUTH, AUTH},
    {0, 403, "InvalidAccessKeyId", STORE_GET, -EACCES, AUTH, AUTH},
    {0, 404, "XAdminUserNotFound", STORE_PUT, -EACCES, AUTH, AUTH},
    {0, 400, "ExpiredToken", STORE_GET, -EACCES, AUTH, AUTH},
    {0, 403, "RequestTimeTooSkewed", STORE_GET, -EACCES, AUTH, AUTH},
    {0, 400, "AuthorizationHeaderMalformed", STORE_GET, -EACCES, AUTH, AUTH},
    /* what cannot be */
    {0, 416, "InvalidRange", STORE_GET, -ERANGE, FATAL, FATAL},
    {0, 416, NULL, STORE_GET, -ERANGE, FATAL, FATAL},
    {0, 400, "InvalidPart", STORE_MPU_COMPLETE, -EINVAL, FATAL, FATAL},
    {0, 400, "InvalidPartOrder", STORE_MPU_COMPLETE, -EINVAL, FATAL, FATAL},
    {0, 400, "EntityTooSmall", STORE_MPU_COMPLETE, -EINVAL, FATAL, FATAL},
    {0, 400, "InvalidRequest", STORE_COPY, -EINVAL, FATAL, FATAL},
    {0, 400, "SomethingNew", STORE_COPY, -EINVAL, FATAL, FATAL},
    {0, 400, NULL, STORE_HEAD, -EINVAL, FATAL, FATAL},
    {0, 400, "KeyTooLongError", STORE_PUT, -ENAMETOOLONG, FATAL, FATAL},
    {0, 400, "EntityTooLarge", STORE_PUT, -EFBIG, FATAL, FATAL},
    {0, 413, NULL, STORE_PUT, -EFBIG, FATAL, FATAL},
    {0, 400, "MetadataTooLarge", STORE_PUT, -E2BIG, FATAL, FATAL},
    {0, 403, "InvalidObjectState", STORE_GET, -ENODATA, FATAL, FATAL},
    {0, 405, "MethodNotAllowed", STORE_GET, -EOPNOTSUPP, FATAL, FATAL},
    {0, 501, "NotImplemented", STORE_TAGS_PUT, -EOPNOTSUPP, FATAL, FATAL},
    {0, 501, NULL, STORE_TAGS_PUT, -EOPNOTSUPP, FATAL, FATAL},
    {0, 301, "PermanentRedirect", STORE_GET, -EREMCHG, FATAL, FATAL},
    {0, 301, NULL, STORE_HEAD, -EREMCHG, FATAL, FATAL},
    {0, 307, "TemporaryRedirect", STORE_PUT, -EAGAIN, RETRY, RETRY},
    /* buckets and room */
    {0, 409, "BucketNotEmpty", STORE_BUCKET_DELETE, -ENOTEMPTY, FATAL, FATAL},
    {0, 409, "BucketAlreadyOwnedByYou", STORE_BUCKET_CREATE, -EEXIST, FATAL, FATAL},
    {0, 409, "BucketAlreadyExists", STORE_BUCKET_CREATE, -EEXIST, FATAL, FATAL},
    {0, 507, "XMinioStorageFull", STORE_PUT, -ENOSPC, FATAL, FATAL},
    {0, 507, NULL, STORE_PUT, -ENOSPC, FATAL, FATAL},
    {0, 403, "QuotaExceeded", STORE_PUT, -EDQUOT, FATAL, FATAL},
    /* what passes */
    {0, 500, "InternalError", STORE_PUT, -EIO, RETRY, AMBIGUOUS},
    {0, 500, NULL, STORE_GET, -EIO, RETRY, AMBIGUOUS},
    {0, 502, NULL, STORE_PUT, -EIO, RETRY, AMBIGUOUS},
    {0, 504, NULL, STORE_PUT, -ETIMEDOUT, RETRY, AMBIGUOUS},
    {0, 503, NULL, STORE_PUT, -EAGAIN, RETRY, AMBIGUOUS},
    {0, 503, "ServiceUnavailable", STORE_PUT, -EAGAIN, RETRY, AMBIGUOUS},
    {0, 503, "SlowDown", STORE_PUT, -EAGAIN, RETRY, RETRY},
    {0, 429, NULL, STORE_GET, -EAGAIN, RETRY, RETRY},
    {0, 400, "RequestTimeout", STORE_PUT, -ETIMEDOUT, RETRY, RETRY},
    {0, 408, NULL, STORE_PUT, -ETIMEDOUT, RETRY, RETRY},
    {0, 400, "BadDigest", STORE_PUT, -EIO, RETRY, RETRY},
    {0, 400, "XAmzContentChecksumMismatch", STORE_MPU_PART, -EIO, RETRY, RETRY},
    /* an error in the body of a 200: the server had begun */
    {0, 200, "InternalError", STORE_MPU_COMPLETE, -EIO, RETRY, AMBIGUOUS},
    {0, 200, "SlowDown", STORE_MPU_COMPLETE, -EAGAIN, RETRY, AMBIGUOUS},
    {0, 200, "SomethingNew", STORE_COPY, -EIO, RETRY, AMBIGUOUS},
    {0, 200, "PreconditionFailed", STORE_MPU_COMPLETE, -ESTALE, CONFLICT, CONFLICT},
    {0, 200, "AccessDenied", STORE_COPY, -EACCES, AUTH, AUTH},
    /* no such thing as HTTP */
    {0, 0, NULL, STORE_PUT, -EPROTO, RETRY, AMBIGUOUS},
    {0, 999, NULL, STORE_PUT, -EPROTO, RETRY, AMBIGUOUS},
};

static void test_row(gconstpointer data)
{
    const struct row *r = data;
    struct store_verdict v = store_classify(r->curl, r->status, r->code, r->verb, false);
    g_assert_cmpint(v.err, ==, r->err);
    g_assert_cmpint(v.cls, ==, r->plain);
    v = store_classify(r->curl, r->status, r->code, r->verb, true);
    g_assert_cmpint(v.err, ==, r->err);
    g_assert_cmpint(v.cls, ==, r->conditional);
}

/* An absent key: no such file to a reader, a failed condition to a write under If-Match. */
static void test_absent(void)
{
    static const char *const codes[] = {"NoSuchKey", NULL};
    for (size_t i = 0; i < G_N_ELEMENTS(codes); i++) {
        struct store_verdict v = store_classify(0, 404, codes[i], STORE_GET, false);
        g_assert_cmpint(v.err, ==, -ENOENT);
        g_assert_cmpint(v.cls, ==, FATAL);
        v = store_classify(0, 404, codes[i], STORE_PUT, true);
        g_assert_cmpint(v.err, ==, -ESTALE);
        g_assert_cmpint(v.cls, ==, CONFLICT);
    }
}

/* Whatever comes: an error has an errno and a class, and success has neither. */
static void test_total(void)
{
    static const char *const codes[] = {NULL, "", "NoSuchKey", "SlowDown", "Nonsense"};
    for (int curl = 0; curl < 100; curl++) {
        for (int status = -1; status < 1000; status++) {
            for (size_t i = 0; i < G_N_ELEMENTS(codes); i++) {
                struct store_verdict v =
                    store_classify(curl, status, codes[i], STORE_PUT, status & 1);
                g_assert_true((v.err == 0) == (v.cls == OK));
                g_assert_cmpint(v.err, <=, 0);
                bool good = curl == 0 && status >= 200 && status < 300 && i < 2;
                g_assert_true((v.err == 0) == good);
            }
        }
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        const struct row *r = &rows[i];
        g_autofree char *name =
            g_strdup_printf("/errors/%02zu %s curl %d http %d %s", i, store_verb_name(r->verb),
                            r->curl, r->status, r->code && *r->code ? r->code : "-");
        g_test_add_data_func(name, r, test_row);
    }
    g_test_add_func("/errors/absent", test_absent);
    g_test_add_func("/errors/total", test_total);
    return g_test_run();
}
