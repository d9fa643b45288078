/* SPDX-License-Identifier: Apache-2.0
 *
 * errors: see errors.h. Three tables: curl codes (no usable reply), S3 codes (a reply with an
 * <Error> body), and bare HTTP statuses (HEAD, proxies). Pure; any thread.
 *
 * A row's `refused` says that the server surely did not act: what is RETRY stays RETRY even for a
 * conditional write. Without it the outcome of a conditional write is unknown: AMBIGUOUS.
 *
 * Choices that are not obvious:
 * - SlowDown and its kin are -EAGAIN: the only RETRY that means "wait", not "broken".
 * - An archived object (Glacier) is -ENODATA: it is there, permitted, and its bytes are not.
 * - A failed condition is -ESTALE; the layer that knows which condition was sent turns
 *   if_none_match into -EEXIST.
 * - ConditionalRequestConflict says that another write ran at the same time. A PUT may simply be
 *   sent again; a COMPLETE needs a new upload, so there it is a CONFLICT.
 */
#include "s3/errors.h"

#include <curl/curl.h>
#include <errno.h>
#include <string.h>

struct curl_row {
    int code;
    int err;
    enum store_class cls;
    bool refused;
};

static const struct curl_row curl_rows[] = {
    {CURLE_COULDNT_RESOLVE_PROXY, EHOSTUNREACH, STORE_CLASS_RETRY, true},
    {CURLE_COULDNT_RESOLVE_HOST, EHOSTUNREACH, STORE_CLASS_RETRY, true},
    {CURLE_COULDNT_CONNECT, ECONNREFUSED, STORE_CLASS_RETRY, true},
    {CURLE_SSL_CONNECT_ERROR, ECONNABORTED, STORE_CLASS_RETRY, true},
    {CURLE_PROXY, ECONNREFUSED, STORE_CLASS_RETRY, true},
    {CURLE_NO_CONNECTION_AVAILABLE, EAGAIN, STORE_CLASS_RETRY, true},
    {CURLE_OPERATION_TIMEDOUT, ETIMEDOUT, STORE_CLASS_RETRY, false},
    {CURLE_SEND_ERROR, ECONNRESET, STORE_CLASS_RETRY, false},
    {CURLE_RECV_ERROR, ECONNRESET, STORE_CLASS_RETRY, false},
    {CURLE_GOT_NOTHING, ECONNRESET, STORE_CLASS_RETRY, false},
    {CURLE_PARTIAL_FILE, ECONNRESET, STORE_CLASS_RETRY, false},
    {CURLE_SEND_FAIL_REWIND, ECONNRESET, STORE_CLASS_RETRY, false},
    {CURLE_UNSUPPORTED_PROTOCOL, EPROTO, STORE_CLASS_RETRY, false}, /* a reply that is not HTTP/1 */
    {CURLE_WEIRD_SERVER_REPLY, EPROTO, STORE_CLASS_RETRY, false},
    {CURLE_BAD_CONTENT_ENCODING, EPROTO, STORE_CLASS_RETRY, false},
    {CURLE_HTTP2, EPROTO, STORE_CLASS_RETRY, false},
    {CURLE_HTTP2_STREAM, EPROTO, STORE_CLASS_RETRY, false},
    {CURLE_PEER_FAILED_VERIFICATION, EKEYREJECTED, STORE_CLASS_FATAL, true},
    {CURLE_SSL_ISSUER_ERROR, EKEYREJECTED, STORE_CLASS_FATAL, true},
    {CURLE_SSL_INVALIDCERTSTATUS, EKEYREJECTED, STORE_CLASS_FATAL, true},
    {CURLE_SSL_PINNEDPUBKEYNOTMATCH, EKEYREJECTED, STORE_CLASS_FATAL, true},
    {CURLE_SSL_CERTPROBLEM, EKEYREJECTED, STORE_CLASS_FATAL, true},
    {CURLE_SSL_CACERT_BADFILE, EINVAL, STORE_CLASS_FATAL, true},
    {CURLE_URL_MALFORMAT, EINVAL, STORE_CLASS_FATAL, true},
    {CURLE_BAD_FUNCTION_ARGUMENT, EINVAL, STORE_CLASS_FATAL, true},
    {CURLE_OUT_OF_MEMORY, ENOMEM, STORE_CLASS_FATAL, true},
    {CURLE_ABORTED_BY_CALLBACK, ECANCELED, STORE_CLASS_FATAL, true},
};

struct code_row {
    const char *code;
    int err;
    enum store_class cls;
    bool refused;
};

static const struct code_row code_rows[] = {
    /* what is not there */
    {"NoSuchKey", ENOENT, STORE_CLASS_FATAL},
    {"NoSuchBucket", ENOENT, STORE_CLASS_FATAL},
    {"NoSuchUpload", ENOENT, STORE_CLASS_FATAL},
    {"NoSuchVersion", ENOENT, STORE_CLASS_FATAL},
    {"NoSuchTagSet", ENODATA, STORE_CLASS_FATAL},
    /* conditions */
    {"PreconditionFailed", ESTALE, STORE_CLASS_CONFLICT},
    {"ConditionalRequestConflict", EBUSY, STORE_CLASS_RETRY, true},
    {"OperationAborted", EBUSY, STORE_CLASS_RETRY, true},
    /* who may */
    {"AccessDenied", EACCES, STORE_CLASS_AUTH},
    {"AllAccessDisabled", EACCES, STORE_CLASS_AUTH},
    {"AccountProblem", EACCES, STORE_CLASS_AUTH},
    {"SignatureDoesNotMatch", EACCES, STORE_CLASS_AUTH},
    {"InvalidAccessKeyId", EACCES, STORE_CLASS_AUTH},
    {"InvalidToken", EACCES, STORE_CLASS_AUTH},
    {"ExpiredToken", EACCES, STORE_CLASS_AUTH},
    {"TokenRefreshRequired", EACCES, STORE_CLASS_AUTH},
    {"InvalidSecurity", EACCES, STORE_CLASS_AUTH},
    {"NotSignedUp", EACCES, STORE_CLASS_AUTH},
    {"XAdminUserNotFound", EACCES,
     STORE_CLASS_AUTH}, /* versitygw, with a 404: no such access key */
    {"RequestTimeTooSkewed", EACCES, STORE_CLASS_AUTH},
    {"RequestExpired", EACCES, STORE_CLASS_AUTH},
    {"AuthorizationHeaderMalformed", EACCES, STORE_CLASS_AUTH},
    {"MissingSecurityHeader", EACCES, STORE_CLASS_AUTH},
    /* what cannot be */
    {"InvalidObjectState", ENODATA, STORE_CLASS_FATAL},
    {"RestoreAlreadyInProgress", ENODATA, STORE_CLASS_FATAL},
    {"InvalidRange", ERANGE, STORE_CLASS_FATAL},
    {"InvalidPart", EINVAL, STORE_CLASS_FATAL},
    {"InvalidPartOrder", EINVAL, STORE_CLASS_FATAL},
    {"InvalidPartNumber", EINVAL, STORE_CLASS_FATAL},
    {"EntityTooSmall", EINVAL, STORE_CLASS_FATAL},
    {"InvalidRequest", EINVAL, STORE_CLASS_FATAL},
    {"InvalidArgument", EINVAL, STORE_CLASS_FATAL},
    {"InvalidBucketName", EINVAL, STORE_CLASS_FATAL},
    {"InvalidTag", EINVAL, STORE_CLASS_FATAL},
    {"BadDigest", EIO, STORE_CLASS_RETRY, true}, /* damaged on its way */
    {"InvalidDigest", EINVAL, STORE_CLASS_FATAL},
    {"XAmzContentSHA256Mismatch", EIO, STORE_CLASS_RETRY, true},
    {"XAmzContentChecksumMismatch", EIO, STORE_CLASS_RETRY, true}, /* MinIO's word for BadDigest */
    {"IncompleteBody", EIO, STORE_CLASS_RETRY, true},
    {"MalformedXML", EINVAL, STORE_CLASS_FATAL},
    {"MetadataTooLarge", E2BIG, STORE_CLASS_FATAL},
    {"RequestHeaderSectionTooLarge", E2BIG, STORE_CLASS_FATAL},
    {"KeyTooLongError", ENAMETOOLONG, STORE_CLASS_FATAL},
    {"KeyTooLong", ENAMETOOLONG, STORE_CLASS_FATAL},
    {"EntityTooLarge", EFBIG, STORE_CLASS_FATAL},
    {"MethodNotAllowed", EOPNOTSUPP, STORE_CLASS_FATAL},
    {"NotImplemented", EOPNOTSUPP, STORE_CLASS_FATAL},
    {"PermanentRedirect", EREMCHG, STORE_CLASS_FATAL}, /* the store has followed it if it could */
    {"TemporaryRedirect", EAGAIN, STORE_CLASS_RETRY, true},
    /* buckets */
    {"BucketNotEmpty", ENOTEMPTY, STORE_CLASS_FATAL},
    {"BucketAlreadyExists", EEXIST, STORE_CLASS_FATAL},
    {"BucketAlreadyOwnedByYou", EEXIST, STORE_CLASS_FATAL},
    {"TooManyBuckets", EDQUOT, STORE_CLASS_FATAL},
    {"QuotaExceeded", EDQUOT, STORE_CLASS_FATAL},
    {"XMinioAdminBucketQuotaExceeded", EDQUOT, STORE_CLASS_FATAL},
    {"XMinioStorageFull", ENOSPC, STORE_CLASS_FATAL},
    /* servers that keep objects as files */
    {"XMinioObjectExistsAsDirectory", EISDIR, STORE_CLASS_RETRY, true}, /* also while the same key is being deleted */
    {"XMinioParentIsObject", ENOTDIR, STORE_CLASS_FATAL},
    {"XMinioInvalidObjectName", EINVAL, STORE_CLASS_FATAL},
    {"XMinioServerNotInitialized", EAGAIN, STORE_CLASS_RETRY, true},
    {"ExistingObjectIsDirectory", EISDIR, STORE_CLASS_RETRY, true}, /* also while the same key is being written: versitygw #854 */
    {"ObjectParentIsFile", ENOTDIR, STORE_CLASS_FATAL},
    {"DirectoryObjectContainsData", EINVAL, STORE_CLASS_FATAL},
    /* what passes */
    {"SlowDown", EAGAIN, STORE_CLASS_RETRY, true},
    {"SlowDownRead", EAGAIN, STORE_CLASS_RETRY, true},
    {"SlowDownWrite", EAGAIN, STORE_CLASS_RETRY, true},
    {"TooManyRequests", EAGAIN, STORE_CLASS_RETRY, true},
    {"RequestLimitExceeded", EAGAIN, STORE_CLASS_RETRY, true},
    {"Throttling", EAGAIN, STORE_CLASS_RETRY, true},
    {"ThrottlingException", EAGAIN, STORE_CLASS_RETRY, true},
    {"ServiceUnavailable", EAGAIN, STORE_CLASS_RETRY, false},
    {"Busy", EAGAIN, STORE_CLASS_RETRY, false},
    {"InternalError", EIO, STORE_CLASS_RETRY, false},
    {"RequestTimeout", ETIMEDOUT, STORE_CLASS_RETRY, true}, /* the body did not come in time */
};

struct status_row {
    int from, to;
    int err;
    enum store_class cls;
    bool refused;
};

/* The first row that holds the status counts. */
static const struct status_row status_rows[] = {
    {307, 307, EAGAIN, STORE_CLASS_RETRY, true},
    {300, 399, EREMCHG, STORE_CLASS_FATAL},
    {401, 401, EACCES, STORE_CLASS_AUTH},
    {403, 403, EACCES, STORE_CLASS_AUTH},
    {404, 404, ENOENT, STORE_CLASS_FATAL},
    {405, 405, EOPNOTSUPP, STORE_CLASS_FATAL},
    {407, 407, EACCES, STORE_CLASS_AUTH},
    {408, 408, ETIMEDOUT, STORE_CLASS_RETRY, true},
    {409, 409, EBUSY, STORE_CLASS_RETRY, true},
    {410, 410, ENOENT, STORE_CLASS_FATAL},
    {412, 412, ESTALE, STORE_CLASS_CONFLICT},
    {413, 413, EFBIG, STORE_CLASS_FATAL},
    {414, 414, ENAMETOOLONG, STORE_CLASS_FATAL},
    {416, 416, ERANGE, STORE_CLASS_FATAL},
    {425, 425, EAGAIN, STORE_CLASS_RETRY, true},
    {429, 429, EAGAIN, STORE_CLASS_RETRY, true},
    {431, 431, E2BIG, STORE_CLASS_FATAL},
    {400, 499, EINVAL, STORE_CLASS_FATAL},
    {501, 501, EOPNOTSUPP, STORE_CLASS_FATAL},
    {503, 503, EAGAIN, STORE_CLASS_RETRY, false},
    {504, 504, ETIMEDOUT, STORE_CLASS_RETRY, false},
    {507, 507, ENOSPC, STORE_CLASS_FATAL},
    {500, 599, EIO, STORE_CLASS_RETRY, false},
};

/* What is unknown after a failure is unknown: unless the server surely did not act, a conditional
 * write is AMBIGUOUS. */
static struct store_verdict verdict(int err, enum store_class cls, bool refused, bool conditional)
{
    if (conditional && cls == STORE_CLASS_RETRY && !refused) {
        cls = STORE_CLASS_AMBIGUOUS;
    }
    return (struct store_verdict){.err = -err, .cls = cls};
}

static struct store_verdict classify_curl(int code, bool conditional)
{
    for (size_t i = 0; i < G_N_ELEMENTS(curl_rows); i++) {
        const struct curl_row *r = &curl_rows[i];
        if (r->code == code) {
            return verdict(r->err, r->cls, r->refused, conditional);
        }
    }
    return verdict(EIO, STORE_CLASS_RETRY, false, conditional);
}

static struct store_verdict classify_code(const struct code_row *r, int status,
                                          enum store_verb verb, bool conditional)
{
    if (conditional && strcmp(r->code, "NoSuchKey") == 0) {
        return verdict(ESTALE, STORE_CLASS_CONFLICT, true,
                       conditional); /* If-Match on an absent key */
    }
    if (verb == STORE_MPU_COMPLETE && strcmp(r->code, "ConditionalRequestConflict") == 0) {
        return verdict(ESTALE, STORE_CLASS_CONFLICT, true, conditional);
    }
    /* An error that comes after a 200 came after the server had begun to act. */
    return verdict(r->err, r->cls, r->refused && status >= 300, conditional);
}

static struct store_verdict classify_status(int status, bool conditional)
{
    if (conditional && status == 404) {
        return verdict(ESTALE, STORE_CLASS_CONFLICT, true, conditional);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(status_rows); i++) {
        const struct status_row *r = &status_rows[i];
        if (status >= r->from && status <= r->to) {
            return verdict(r->err, r->cls, r->refused, conditional);
        }
    }
    return verdict(EPROTO, STORE_CLASS_RETRY, false, conditional); /* 1xx, 6xx, none */
}

struct store_verdict store_classify(int curl_code, int status, const char *code,
                                    enum store_verb verb, bool conditional_write)
{
    if (curl_code != CURLE_OK) {
        return classify_curl(curl_code, conditional_write);
    }
    if (code == NULL || code[0] == '\0') {
        if (status >= 200 && status < 300) {
            return (struct store_verdict){.err = 0, .cls = STORE_CLASS_OK};
        }
        return classify_status(status, conditional_write);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(code_rows); i++) {
        if (strcmp(code_rows[i].code, code) == 0) {
            return classify_code(&code_rows[i], status, verb, conditional_write);
        }
    }
    if (status >= 200 && status < 300) {
        return verdict(EIO, STORE_CLASS_RETRY, false, conditional_write); /* <Error> under a 200 */
    }
    return classify_status(status, conditional_write);
}
