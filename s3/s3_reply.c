/* SPDX-License-Identifier: Apache-2.0
 *
 * s3_reply: from an HTTP reply to a store result: which errors it means, whether the exchange is
 * to be repeated in another region or with a corrected clock, what the headers say. Servers may
 * lie: a body that is not exactly the range asked for, or of another version, is never passed on
 * as good. Runs on the engine's thread; no locks.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "s3/s3_op.h"

#define SKEW_WORTH_FIXING 300 /* seconds; servers tolerate 15 minutes */

/* Sentences */

/* Keys may hold anything: control characters and what is not UTF-8 become \xNN; cut at max bytes.
 */
static void append_escaped(GString *to, const char *s, size_t max)
{
    size_t start = to->len;
    while (*s) {
        if (to->len - start >= max) {
            g_string_append(to, "...");
            return;
        }
        gunichar c = g_utf8_get_char_validated(s, -1);
        if (c == (gunichar)-1 || c == (gunichar)-2 || g_unichar_iscntrl(c)) {
            g_string_append_printf(to, "\\x%02x", (unsigned char)*s);
            s++;
        } else {
            const char *next = s + g_utf8_skip[(unsigned char)*s];
            g_string_append_len(to, s, next - s);
            s = next;
        }
    }
}

static char *describe(const struct s3_op *op)
{
    GString *s = g_string_new(store_verb_name(op->req->verb));
    g_string_append(s, " s3://");
    if (op->req->bucket && op->req->verb != STORE_BUCKETS) {
        append_escaped(s, op->req->bucket, 24);
    }
    const char *key = op->req->verb == STORE_LIST || op->req->verb == STORE_MPU_LIST
                          ? op->req->prefix
                          : op->req->key;
    if (key && op->req->verb != STORE_DELETE_MANY) {
        g_string_append_c(s, '/');
        append_escaped(s, key, 40);
    }
    return g_string_free(s, FALSE);
}

/* What a server says may repeat what we sent it. */
static const char *without_secrets(const struct s3_op *op, const char *message)
{
    const struct s3_credentials *c = &op->s3->credentials;
    if ((c->secret_key && *c->secret_key && strstr(message, c->secret_key)) ||
        (c->session_token && *c->session_token && strstr(message, c->session_token)) ||
        strstr(message, "Signature=")) {
        return "(message withheld)";
    }
    return message;
}

static void fail(struct s3_op *op, struct store_verdict v, const char *code, const char *what)
{
    g_autofree char *where = describe(op);
    g_autoptr(GString) text = g_string_new(NULL);
    append_escaped(text, what, 90);
    store_result_fail(&op->req->res, v.err, v.cls, code, "%s: %s", where, text->str);
}

static void fail_why(struct s3_op *op, int err, enum store_class cls, const char *why)
{
    fail(op, (struct store_verdict){.err = err, .cls = cls}, NULL, why);
}

/* Which condition failed is known here alone; and after a repetition by curl it may have been our
 * own first attempt that made it fail. */
static struct store_verdict refine(const struct s3_op *op, struct store_verdict v)
{
    if (v.cls == STORE_CLASS_CONFLICT) {
        if (op->req->if_none_match && v.err == -ESTALE && op->req->from_if_match == NULL) {
            v.err = -EEXIST;
        }
        if (op->conditional && op->x.reply.sends > 1) {
            v.cls = STORE_CLASS_AMBIGUOUS;
        }
    }
    return v;
}

static void fail_status(struct s3_op *op, const struct s3_error *e)
{
    int status = op->x.reply.status;
    struct store_verdict v =
        refine(op, store_classify(0, status, e->code, op->req->verb, op->conditional));
    if (v.err == 0) {
        v = (struct store_verdict){-EIO, STORE_CLASS_FATAL};
    }
    const char *more = e->message;
    if (strcmp(e->code, "InvalidObjectState") == 0) {
        more = "the object is archived; restore it first";
    }
    g_autofree char *what = g_strdup_printf("%d%s%s%s%s", status, e->code[0] ? " " : "", e->code,
                                            *more ? ": " : "", without_secrets(op, more));
    fail(op, v, e->code, what);
    op->req->res.http_status = status;
    const char *after = http_header(&op->x.reply, "retry-after");
    if (after) {
        int64_t s = g_ascii_isdigit(*after) ? strtoll(after, NULL, 10)
                                            : curl_getdate(after, NULL) - time(NULL);
        op->req->res.retry_after_ns = (uint64_t)CLAMP(s, 0, 3600) * NSEC_PER_SEC;
    }
}

/* Whether a write that makes an object may have made it, although we cannot use the reply. */
static bool maybe_made(const struct s3_op *op)
{
    const struct http_reply *r = &op->x.reply;
    enum store_verb v = op->req->verb;
    bool makes = v == STORE_PUT || v == STORE_COPY || v == STORE_MPU_COMPLETE;
    return makes && ((op->conditional && r->sent) || (r->status >= 200 && r->status < 300));
}

/* The reply cannot be believed or understood. A write that needed it has an unknown outcome. */
static void fail_reply(struct s3_op *op, const char *why)
{
    fail_why(op, -EBADMSG, maybe_made(op) ? STORE_CLASS_AMBIGUOUS : STORE_CLASS_FATAL, why);
    op->req->res.http_status = op->x.reply.status;
}

/* The engine, a hook, the sink or the source ended the exchange. */
static void fail_local(struct s3_op *op)
{
    const struct http_reply *r = &op->x.reply;
    enum store_class cls = maybe_made(op) ? STORE_CLASS_AMBIGUOUS : STORE_CLASS_FATAL;
    const char *why = "ended";
    if (op->why) {
        why = op->why;
        cls = op->why_cls != STORE_CLASS_OK ? op->why_cls : cls;
    } else if (r->err == -ECANCELED) {
        why = "cancelled";
    } else if (r->err == -ETIMEDOUT) {
        why = "no free connection before the deadline";
        cls = STORE_CLASS_RETRY;
    } else if (r->overlong) {
        why = "the server sent more bytes than asked for";
    } else if (r->err == -EMSGSIZE) {
        why = "the reply is too large";
    } else if (op->req->verb == STORE_GET) {
        why = "the bytes could not be taken";
    } else {
        why = "the bytes to send could not be read";
    }
    fail_why(op, r->err, cls, why);
    op->req->res.http_status = r->status;
}

/* A CA of the right name and another key ends the handshake with an error of the decoder's, which
 * curl does not take for a failed verification. Trying again would not help. */
static int true_curl_code(const struct http_reply *r)
{
    if (r->curl == CURLE_SSL_CONNECT_ERROR &&
        (strstr(r->error, "asn1") || strstr(r->error, "certificate"))) {
        return CURLE_PEER_FAILED_VERIFICATION;
    }
    return r->curl;
}

static void fail_curl(struct s3_op *op)
{
    const struct http_reply *r = &op->x.reply;
    struct store_verdict v = store_classify(true_curl_code(r), r->status, NULL, op->req->verb,
                                            op->conditional && r->sent);
    if (r->sent && v.cls != STORE_CLASS_OK) {
        /* It reached the server on a connection that died; a second one did not come about. */
        if (v.err == -ECONNREFUSED || v.err == -EHOSTUNREACH) {
            v.err = -ECONNRESET;
        }
        if (op->conditional) {
            v.cls = STORE_CLASS_AMBIGUOUS;
        }
    }
    const char *text = r->error[0] ? r->error : curl_easy_strerror((CURLcode)r->curl);
    g_autofree char *what =
        r->stalled ? g_strdup("no byte moved for too long")
        : v.err == -EKEYREJECTED
            ? g_strdup_printf("the server's certificate is not trusted (%s)", text)
            : g_strdup(text);
    fail(op, v, NULL, what);
    op->req->res.http_status = r->status;
}

/* Headers */

static bool header_uint(const struct http_reply *r, const char *name, uint64_t *ret)
{
    const char *v = http_header(r, name);
    return v && g_ascii_isdigit(*v) && g_ascii_string_to_unsigned(v, 10, 0, G_MAXINT64, ret, NULL);
}

static void take_header(struct store_headers *h, const char *name, const char *value)
{
    static const struct {
        const char *name;
        size_t field;
    } fields[] = {
        {"content-type", offsetof(struct store_headers, content_type)},
        {"cache-control", offsetof(struct store_headers, cache_control)},
        {"content-disposition", offsetof(struct store_headers, content_disposition)},
        {"content-encoding", offsetof(struct store_headers, content_encoding)},
        {"content-language", offsetof(struct store_headers, content_language)},
        {"expires", offsetof(struct store_headers, expires)},
    };
    static const char meta[] = "x-amz-meta-";
    if (g_str_has_prefix(name, meta)) {
        store_headers_set_meta(h, name + sizeof meta - 1, value);
        return;
    }
    for (size_t i = 0; i < G_N_ELEMENTS(fields); i++) {
        if (strcmp(fields[i].name, name) == 0 && *value) {
            char **field = (char **)(void *)((char *)h + fields[i].field);
            g_free(*field);
            *field = g_strdup(value);
        }
    }
}

/* All but size, which is the caller's. */
static void take_object(struct s3_op *op)
{
    const struct http_reply *r = &op->x.reply;
    struct store_object *o = &op->req->res.object;
    store_object_clear(o);
    const char *name, *value;
    for (size_t pos = 0; http_header_next(r, &pos, &name, &value);) {
        if (strcmp(name, "etag") == 0 && o->etag == NULL) {
            o->etag = s3_unquote_etag(value);
        } else if (strcmp(name, "last-modified") == 0) {
            time_t t = curl_getdate(value, NULL);
            o->mtime_ns = t > 0 ? (int64_t)t * (int64_t)NSEC_PER_SEC : 0;
        } else if (strcmp(name, "x-amz-storage-class") == 0 && strcmp(value, "STANDARD") != 0) {
            g_free(o->storage_class);
            o->storage_class = g_strdup(value);
        } else if (strcmp(name, "x-amz-version-id") == 0 && strcmp(value, "null") != 0) {
            g_free(o->version_id);
            o->version_id = g_strdup(value);
        } else {
            take_header(&o->headers, name, value);
        }
    }
    o->settled = s3_date_settled(r, o->mtime_ns);
}

/* GET: is this the version and the range that was asked for? */

static int refuse(struct s3_op *op, int err, enum store_class cls, const char *why)
{
    op->why = why;
    op->why_cls = cls;
    return err;
}

static bool same_etag(const char *asked, const char *got)
{
    g_autofree char *a = s3_unquote_etag(asked);
    return strcmp(a, got) == 0;
}

static bool parse_content_range(const char *s, uint64_t *ret_first, uint64_t *ret_last,
                                uint64_t *ret_total)
{
    unsigned long long first, last, total;
    int n = 0;
    if (s == NULL || strpbrk(s, "+") || strstr(s, "--") ||
        sscanf(s, "bytes %llu-%llu/%llu%n", &first, &last, &total, &n) != 3 || s[n] != '\0') {
        return false;
    }
    *ret_first = first, *ret_last = last, *ret_total = total;
    return first <= last && last < total && total <= G_MAXINT64;
}

static bool size_changed(const struct s3_op *op, uint64_t size)
{
    return op->req->expect_size && size != op->req->expect_size;
}

static int refuse_size(struct s3_op *op)
{
    return refuse(op, -ESTALE, STORE_CLASS_CONFLICT, "the object has another size than expected");
}

static int begin_partial(struct s3_op *op)
{
    const struct store_range *asked = &op->req->range;
    uint64_t first, last, total;
    if (!asked->set ||
        !parse_content_range(http_header(&op->x.reply, "content-range"), &first, &last, &total)) {
        return refuse(op, -EBADMSG, STORE_CLASS_FATAL,
                      "the reply's Content-Range is missing or senseless");
    }
    uint64_t want = total - first;
    if (asked->len > 0) {
        want = MIN(want, asked->len);
    }
    if (first != asked->off || last - first + 1 > want) {
        return refuse(op, -EBADMSG, STORE_CLASS_FATAL,
                      "the server sent another range than asked for");
    }
    if (size_changed(op, total)) {
        return refuse_size(op);
    }
    op->req->res.object.size = total;
    op->x.sink_left = want;
    return 0;
}

static int begin_whole(struct s3_op *op)
{
    const struct store_range *asked = &op->req->range;
    uint64_t size;
    if (!header_uint(&op->x.reply, "content-length", &size)) {
        return refuse(op, -EBADMSG, STORE_CLASS_FATAL,
                      "the reply does not say how long the object is");
    }
    if (size_changed(op, size)) {
        return refuse_size(op);
    }
    op->req->res.object.size = size;
    op->x.sink_left = size;
    if (asked->set) {
        if (asked->off > 0) {
            return refuse(op, -EBADMSG, STORE_CLASS_FATAL,
                          "the server ignored the range asked for");
        }
        if (size == 0 && asked->len > 0) {
            return refuse(op, -ERANGE, STORE_CLASS_FATAL, "the range lies past the end");
        }
        if (asked->len > 0 && asked->len < size) {
            op->x.sink_left = asked->len;
            op->x.sink_stops = true;
        }
    }
    return 0;
}

int s3_reply_begin(struct http_exchange *x)
{
    struct s3_op *op = (struct s3_op *)x;
    if (op->req->verb != STORE_GET || (x->reply.status != 200 && x->reply.status != 206)) {
        return 0;
    }
    take_object(op);
    const char *etag = op->req->res.object.etag;
    if (etag == NULL || *etag == '\0') {
        return refuse(op, -EBADMSG, STORE_CLASS_FATAL, "the reply has no ETag");
    }
    if (op->req->if_match && !same_etag(op->req->if_match, etag)) {
        return refuse(op, -ESTALE, STORE_CLASS_CONFLICT,
                      "the server sent another version than asked for");
    }
    int r = x->reply.status == 206 ? begin_partial(op) : begin_whole(op);
    if (r == 0) {
        x->sink = &op->req->sink;
        x->sink_off = op->req->range.set ? op->req->range.off : 0;
    }
    return r;
}

/* Errors that another try mends at once */

static bool region_valid(const char *s)
{
    size_t n = strlen(s);
    return n > 0 && n < 48 && strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == n;
}

static bool follow_region(struct s3_op *op, const struct s3_error *e)
{
    int status = op->x.reply.status;
    const char *region = http_header(&op->x.reply, "x-amz-bucket-region");
    if (region == NULL) {
        region = e->region;
    }
    bool misplaced = status == 301 || status == 307 || status == 400 ||
                     strcmp(e->code, "AuthorizationHeaderMalformed") == 0;
    if (op->moved || !misplaced || op->req->bucket == NULL || !region_valid(region) ||
        strcmp(region, op->region) == 0) {
        return false;
    }
    op->moved = true;
    g_hash_table_replace(op->s3->regions, g_strdup(op->req->bucket), g_strdup(region));
    return true;
}

static bool correct_clock(struct s3_op *op, const struct s3_error *e)
{
    const char *date = http_header(&op->x.reply, "date");
    bool skewed = strcmp(e->code, "RequestTimeTooSkewed") == 0 ||
                  (e->code[0] == '\0' && op->x.reply.status == 403);
    if (op->clock_set || !skewed || date == NULL) {
        return false;
    }
    time_t theirs = curl_getdate(date, NULL);
    int64_t skew = (int64_t)theirs - (int64_t)time(NULL);
    if (theirs <= 0 || llabs(skew - op->s3->skew_s) < SKEW_WORTH_FIXING) {
        return false;
    }
    op->clock_set = true;
    op->s3->skew_s = skew;
    return true;
}

/* A class of another server's, or the name of a tier: the object is worth more than its class. */
static bool drop_class(struct s3_op *op, const struct s3_error *e)
{
    if (op->classless || op->req->storage_class == NULL ||
        strcmp(e->code, "InvalidStorageClass") != 0) {
        return false;
    }
    op->classless = true;
    return true;
}

/* Digesting */

static bool deletion_done(const struct s3_op *op, const struct s3_error *e)
{
    return (op->req->verb == STORE_DELETE && strcmp(e->code, "NoSuchKey") == 0) ||
           (op->req->verb == STORE_MPU_ABORT && strcmp(e->code, "NoSuchUpload") == 0);
}

static GHashTable *new_tags(void)
{
    return g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
}

void s3_deleted_failed(struct s3_op *op, const char *key, int status, const char *code,
                       const char *message)
{
    struct store_result *res = &op->req->res;
    if (res->failed == NULL) {
        res->failed = g_ptr_array_new_with_free_func(g_free);
    }
    g_ptr_array_add(res->failed, g_strdup(key));
    if (res->err == 0) {
        struct store_verdict v = store_classify(0, status, code, STORE_DELETE, false);
        g_autofree char *what =
            g_strdup_printf("%s: %s: %s", key, code, without_secrets(op, message));
        fail(op, v, code, what);
    }
}

/* An error reply. True when the exchange is worth repeating as it is. */
static bool digest_error(struct s3_op *op, const struct s3_error *e)
{
    op->req->res.http_status = op->x.reply.status;
    if (follow_region(op, e) || correct_clock(op, e) || drop_class(op, e)) {
        return true;
    }
    if (op->next_single > 0) {
        const char *key = op->single->pdata[op->next_single - 1];
        if (strcmp(e->code, "NoSuchKey") != 0) {
            s3_deleted_failed(op, key, op->x.reply.status, e->code, e->message);
        }
        return op->next_single++ < op->single->len;
    }
    if (deletion_done(op, e)) {
        return false;
    }
    if (op->req->verb == STORE_TAGS_GET && strcmp(e->code, "NoSuchTagSet") == 0) {
        op->req->res.tags = new_tags();
        return false;
    }
    fail_status(op, e);
    return false;
}

static void digest_get(struct s3_op *op)
{
    op->req->res.bytes = op->x.reply.bytes;
    if (op->x.sink_left > 0) {
        g_autofree char *why =
            g_strdup_printf("the body ended %" G_GUINT64_FORMAT " bytes early", op->x.sink_left);
        fail_why(op, -ECONNRESET, STORE_CLASS_RETRY, why);
        op->req->res.http_status = op->x.reply.status;
    }
}

static void digest_head(struct s3_op *op)
{
    take_object(op);
    uint64_t tags = 0;
    (void)header_uint(&op->x.reply, "x-amz-tagging-count", &tags);
    op->req->res.object.untagged_ns = tags == 0 ? clock_mono_ns() : 0;
    if (op->req->res.object.etag == NULL ||
        !header_uint(&op->x.reply, "content-length", &op->req->res.object.size)) {
        fail_reply(op, "the reply has no ETag or no length");
    } else if (op->req->if_match && !same_etag(op->req->if_match, op->req->res.object.etag)) {
        fail_why(op, -ESTALE, STORE_CLASS_CONFLICT, "the object has changed");
    }
}

static void digest_written(struct s3_op *op)
{
    take_object(op);
    op->req->res.bytes = op->x.reply.bytes;
    op->req->res.checksum = op->checksum;
    if (op->req->res.object.etag == NULL || *op->req->res.object.etag == '\0') {
        fail_reply(op, "the reply has no ETag");
    }
}

/* A copy's or a completion's reply: the body says how it went, the headers which version it made.
 */
static int digest_made(struct s3_op *op)
{
    const char *version = http_header(&op->x.reply, "x-amz-version-id");
    int r = s3_parse_etag(op, op->x.reply.body);
    if (r == 0 && version && strcmp(version, "null") != 0) {
        op->req->res.object.version_id = g_strdup(version);
    }
    return r;
}

/* A reply with a 2xx status. True when another page, or another key, is next. */
static bool digest_ok(struct s3_op *op)
{
    const GString *body = op->x.reply.body;
    bool more = false;
    int r = 0;
    switch (op->req->verb) {
    case STORE_HEAD:
        digest_head(op);
        break;
    case STORE_GET:
        digest_get(op);
        break;
    case STORE_PUT:
    case STORE_MPU_PART:
        digest_written(op);
        break;
    case STORE_COPY:
    case STORE_MPU_COPY_PART:
    case STORE_MPU_COMPLETE:
        r = digest_made(op);
        if (op->req->verb == STORE_MPU_COPY_PART) {
            s3_parse_copied_checksum(op, body);
        }
        break;
    case STORE_LIST:
        r = s3_parse_list(op, body);
        break;
    case STORE_BUCKETS:
        r = s3_parse_buckets(op, body);
        break;
    case STORE_MPU_CREATE:
        r = s3_parse_upload_id(op, body);
        break;
    case STORE_MPU_LIST:
        r = s3_parse_uploads(op, body, &more);
        s3_date_clock(&op->x.reply, &op->req->res);
        break;
    case STORE_MPU_LIST_PARTS:
        r = s3_parse_parts(op, body, &more);
        break;
    case STORE_TAGS_GET:
        op->req->res.tags = new_tags();
        r = s3_parse_tags(op, body);
        break;
    case STORE_DELETE_MANY:
        r = op->next_single == 0 ? s3_parse_deleted(op, body) : 0;
        more = r == 0 && op->next_single++ < op->single->len;
        break;
    default: /* nothing to read */
        break;
    }
    if (r < 0) {
        fail_reply(op, "the server's reply does not make sense");
    }
    return more && r == 0;
}

bool s3_reply_digest(struct s3_op *op)
{
    const struct http_reply *r = &op->x.reply;
    op->req->res.bytes = op->req->verb == STORE_GET ? r->bytes : 0;
    if (r->err < 0) {
        fail_local(op);
        return false;
    }
    if (r->curl != CURLE_OK) {
        fail_curl(op);
        return false;
    }
    struct s3_error e = {.code = ""};
    bool is_error = op->x.sink == NULL && r->body && s3_parse_error(r->body, &e);
    if (r->status < 200 || r->status >= 300 || is_error) {
        return digest_error(op, &e);
    }
    op->req->res.http_status = r->status;
    return digest_ok(op);
}
