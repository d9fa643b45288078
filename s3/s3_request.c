/* SPDX-License-Identifier: Apache-2.0
 *
 * s3_request: from a store request to an HTTP request: method, URL, headers, body, signature.
 * Runs on the engine's thread, right before the exchange gets its connection, so that signatures
 * are fresh. No locks.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>
#include <time.h>

#include "s3/s3_op.h"
#include "s3/xml.h"

#define PARAMS_MAX 8

/* A request being put together. Strings live in `strings`. */
struct message {
    struct s3_op *op;
    const struct store_request *req;
    GStringChunk *strings;
    const char *method, *bucket, *key; /* bucket NULL: the service; key NULL: the bucket */
    struct sigv4_pair params[PARAMS_MAX];
    size_t n_params;
    GArray *headers; /* struct sigv4_pair */
    const char *payload_hash;
    int err;
};

static const char *keep(struct message *m, const char *s)
{
    return g_string_chunk_insert(m->strings, s);
}

static void param(struct message *m, const char *name, const char *value)
{
    assert(m->n_params < PARAMS_MAX);
    m->params[m->n_params++] = (struct sigv4_pair){name, value};
}

static void param_uint(struct message *m, const char *name, unsigned value)
{
    char buf[16];
    g_snprintf(buf, sizeof buf, "%u", value);
    param(m, name, keep(m, buf));
}

static bool is_token(const char *s)
{
    for (const char *p = s; *p; p++) {
        if (!g_ascii_isalnum(*p) && !strchr("!#$%&'*+-.^_`|~", *p)) {
            return false;
        }
    }
    return *s != '\0';
}

/* Headers never smuggle others. */
static void header(struct message *m, const char *name, const char *value)
{
    if (value == NULL) {
        return;
    }
    if (strpbrk(value, "\r\n") || !is_token(name)) {
        m->err = -EINVAL;
        m->op->why = "a header's name or value cannot be sent";
        return;
    }
    struct sigv4_pair p = {name, keep(m, value)};
    g_array_append_val(m->headers, p);
}

static void header_etag(struct message *m, const char *name, const char *etag)
{
    if (etag == NULL) {
        return;
    }
    bool quoted = etag[0] == '"' || g_str_has_prefix(etag, "W/\"");
    g_autofree char *v = quoted ? g_strdup(etag) : g_strdup_printf("\"%s\"", etag);
    header(m, name, v);
}

static void header_conditions(struct message *m)
{
    header_etag(m, "if-match", m->req->if_match);
    if (m->req->if_none_match) {
        header(m, "if-none-match", "*");
    }
}

static void header_object(struct message *m, const struct store_headers *h)
{
    if (h == NULL) {
        return;
    }
    header(m, "content-type", h->content_type);
    header(m, "cache-control", h->cache_control);
    header(m, "content-disposition", h->content_disposition);
    header(m, "content-encoding", h->content_encoding);
    header(m, "content-language", h->content_language);
    header(m, "expires", h->expires);
    if (h->meta == NULL) {
        return;
    }
    GHashTableIter it;
    gpointer name, value;
    g_hash_table_iter_init(&it, h->meta);
    while (g_hash_table_iter_next(&it, &name, &value)) {
        g_autofree char *lower = g_ascii_strdown(name, -1);
        g_autofree char *full = g_strconcat("x-amz-meta-", lower, NULL);
        header(m, keep(m, full), value);
    }
}

/* What an object has beside its headers. A copy has its source's tags. */
static void header_kept(struct message *m)
{
    if (!m->op->classless) {
        header(m, "x-amz-storage-class", m->req->storage_class);
    }
    guint n = m->req->tags ? g_hash_table_size(m->req->tags) : 0;
    if (n == 0 || m->req->verb == STORE_COPY) {
        return;
    }
    g_autofree struct sigv4_pair *pairs = g_new(struct sigv4_pair, n);
    GHashTableIter it;
    gpointer name, value;
    g_hash_table_iter_init(&it, m->req->tags);
    for (guint i = 0; g_hash_table_iter_next(&it, &name, &value); i++) {
        pairs[i] = (struct sigv4_pair){name, value};
    }
    g_autofree char *tags = sigv4_query(pairs, n);
    header(m, "x-amz-tagging", tags);
}

static void header_range(struct message *m, const char *name)
{
    const struct store_range *r = &m->req->range;
    if (!r->set) {
        return;
    }
    g_autofree char *v = r->len ? g_strdup_printf("bytes=%" G_GUINT64_FORMAT "-%" G_GUINT64_FORMAT,
                                                  r->off, r->off + (r->len - 1))
                                : g_strdup_printf("bytes=%" G_GUINT64_FORMAT "-", r->off);
    header(m, name, v);
}

static void header_copy_source(struct message *m)
{
    g_autoptr(GString) s = g_string_new("/");
    sigv4_encode(s, m->req->from_bucket, strlen(m->req->from_bucket), false);
    g_string_append_c(s, '/');
    sigv4_encode(s, m->req->from_key, strlen(m->req->from_key), true);
    header(m, "x-amz-copy-source", s->str);
    header_etag(m, "x-amz-copy-source-if-match", m->req->from_if_match);
}

/* A body that we make ourselves is small: its true hash is signed. */
static void body_xml(struct message *m, GString *xml, bool with_md5)
{
    char hash[SIGV4_SHA256_HEX_SIZE];
    sigv4_sha256_hex(xml->str, xml->len, hash);
    m->payload_hash = keep(m, hash);
    m->op->x.body = xml;
    header(m, "content-type", "application/xml");
    if (with_md5) {
        uint8_t md[16];
        gsize len = sizeof md;
        GChecksum *c = g_checksum_new(G_CHECKSUM_MD5);
        g_checksum_update(c, (const guchar *)xml->str, (gssize)xml->len);
        g_checksum_get_digest(c, md, &len);
        g_checksum_free(c);
        g_autofree char *b64 = g_base64_encode(md, len);
        header(m, "content-md5", b64);
    }
}

static void base64_checksum(uint32_t crc, char ret[static 16])
{
    const uint32_t be = GUINT32_TO_BE(crc);
    g_autofree char *b64 = g_base64_encode((const guchar *)&be, sizeof be);
    g_strlcpy(ret, b64, 16);
}

static void body_source(struct message *m)
{
    const struct store_source *source = &m->req->source;
    m->op->x.source = source;
    m->payload_hash = SIGV4_UNSIGNED;
    m->op->checksum.set = source->checksum != NULL;
    if (source->checksum == NULL) {
        return;
    }
    int r = source->checksum(source->ctx, &m->op->checksum.crc32c);
    if (r < 0) {
        m->err = r;
        m->op->why = "the bytes to send are not what they were";
        return;
    }
    char b64[16];
    base64_checksum(m->op->checksum.crc32c, b64);
    header(m, "x-amz-checksum-crc32c", b64);
}

static void build_list(struct message *m)
{
    const struct store_request *q = m->req;
    param(m, "list-type", "2");
    param(m, "encoding-type", "url");
    param_uint(m, "max-keys", q->max_keys ? q->max_keys : STORE_LIST_MAX);
    if (q->prefix && *q->prefix) {
        param(m, "prefix", q->prefix);
    }
    if (q->delimiter) {
        param(m, "delimiter", q->delimiter);
    }
    if (q->token) {
        param(m, "continuation-token", q->token);
    } else if (q->start_after && *q->start_after) {
        param(m, "start-after", q->start_after);
    }
}

static void build_uploads(struct message *m)
{
    param(m, "uploads", NULL);
    param(m, "encoding-type", "url");
    if (m->req->prefix && *m->req->prefix) {
        param(m, "prefix", m->req->prefix);
    }
    if (m->op->marker) {
        param(m, "key-marker", m->op->marker);
        param(m, "upload-id-marker", m->op->upload_marker ? m->op->upload_marker : "");
    }
}

static void build_bucket_create(struct message *m)
{
    if (!m->op->s3->on_aws || strcmp(m->op->region, "us-east-1") == 0) {
        return; /* elsewhere the server has one place to put it */
    }
    GString *xml = g_string_new(
        "<CreateBucketConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
    xml_append(xml, "LocationConstraint", m->op->region);
    g_string_append(xml, "</CreateBucketConfiguration>");
    body_xml(m, xml, false);
}

/* Keys that XML cannot hold are left to be deleted one by one. */
static void build_delete_many(struct message *m)
{
    struct s3_op *op = m->op;
    if (op->next_single > 0) {
        m->method = "DELETE";
        m->key = op->single->pdata[op->next_single - 1];
        return;
    }
    g_clear_pointer(&op->single, g_ptr_array_unref);
    op->single = g_ptr_array_new();
    GString *xml = g_string_new(
        "<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Quiet>true</Quiet>");
    size_t n = 0;
    for (size_t i = 0; i < m->req->n_keys; i++) {
        char *key = g_string_chunk_insert(m->strings, m->req->keys[i]);
        if (!xml_can_hold(key)) {
            g_ptr_array_add(op->single, (gpointer)(uintptr_t)m->req->keys[i]);
            continue;
        }
        g_string_append(xml, "<Object>");
        xml_append(xml, "Key", key);
        g_string_append(xml, "</Object>");
        n++;
    }
    if (n == 0) { /* then there is at least one of the other kind */
        g_string_free(xml, TRUE);
        op->next_single = 1;
        build_delete_many(m);
        return;
    }
    g_string_append(xml, "</Delete>");
    m->method = "POST";
    param(m, "delete", NULL);
    body_xml(m, xml, true);
}

static void build_complete(struct message *m)
{
    GString *xml =
        g_string_new("<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
    for (size_t i = 0; i < m->req->n_parts; i++) {
        const struct store_part *p = &m->req->parts[i];
        g_autofree char *etag =
            p->etag[0] == '"' ? g_strdup(p->etag) : g_strdup_printf("\"%s\"", p->etag);
        g_string_append_printf(xml, "<Part><PartNumber>%u</PartNumber>", p->number);
        xml_append(xml, "ETag", etag);
        if (p->checksum.set) {
            char b64[16];
            base64_checksum(p->checksum.crc32c, b64);
            xml_append(xml, "ChecksumCRC32C", b64);
        }
        g_string_append(xml, "</Part>");
    }
    g_string_append(xml, "</CompleteMultipartUpload>");
    m->method = "POST";
    param(m, "uploadId", m->req->upload_id);
    header_conditions(m);
    body_xml(m, xml, false);
}

static void build_tags_put(struct message *m)
{
    param(m, "tagging", NULL);
    if (m->req->tags == NULL || g_hash_table_size(m->req->tags) == 0) {
        m->method = "DELETE";
        return;
    }
    m->method = "PUT";
    GString *xml =
        g_string_new("<Tagging xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><TagSet>");
    GHashTableIter it;
    gpointer name, value;
    g_hash_table_iter_init(&it, m->req->tags);
    while (g_hash_table_iter_next(&it, &name, &value)) {
        if (!xml_can_hold(name) || !xml_can_hold(value)) {
            m->err = -EINVAL;
            m->op->why = "a tag holds characters that cannot be sent";
            break;
        }
        g_string_append(xml, "<Tag>");
        xml_append(xml, "Key", name);
        xml_append(xml, "Value", value);
        g_string_append(xml, "</Tag>");
    }
    g_string_append(xml, "</TagSet></Tagging>");
    body_xml(m, xml, true);
}

static void build_copy(struct message *m)
{
    m->method = "PUT";
    header_copy_source(m);
    if (m->req->verb == STORE_MPU_COPY_PART) {
        param_uint(m, "partNumber", m->req->part_number);
        param(m, "uploadId", m->req->upload_id);
        if (m->req->range.set && m->req->range.len == 0 && m->req->range.off > 0) {
            m->err = -EINVAL;
            m->op->why = "a part copied from a range needs the range's end";
        } else if (m->req->range.len > 0) {
            header_range(m, "x-amz-copy-source-range");
        }
        return;
    }
    header(m, "x-amz-metadata-directive", m->req->replace_headers ? "REPLACE" : "COPY");
    if (m->req->replace_headers) {
        header_object(m, m->req->headers);
    }
    header_kept(m);
    header_conditions(m);
}

static void build_object(struct message *m)
{
    switch (m->req->verb) {
    case STORE_HEAD:
        m->method = "HEAD";
        header_conditions(m);
        break;
    case STORE_GET:
        header_range(m, "range");
        header_conditions(m);
        break;
    case STORE_PUT:
        m->method = "PUT";
        header_object(m, m->req->headers);
        header_kept(m);
        header_conditions(m);
        body_source(m);
        break;
    case STORE_DELETE:
        m->method = "DELETE";
        header_conditions(m);
        break;
    case STORE_MPU_CREATE:
        m->method = "POST";
        param(m, "uploads", NULL);
        header_object(m, m->req->headers);
        header(m, "x-amz-checksum-algorithm", m->req->with_checksums ? "CRC32C" : NULL);
        header_kept(m);
        break;
    case STORE_MPU_PART:
        m->method = "PUT";
        param_uint(m, "partNumber", m->req->part_number);
        param(m, "uploadId", m->req->upload_id);
        body_source(m);
        break;
    case STORE_MPU_ABORT:
        m->method = "DELETE";
        param(m, "uploadId", m->req->upload_id);
        break;
    case STORE_MPU_LIST_PARTS:
        param(m, "uploadId", m->req->upload_id);
        if (m->op->marker) {
            param(m, "part-number-marker", m->op->marker);
        }
        break;
    default:
        assert(!"a verb without a request");
    }
}

static void build_verb(struct message *m)
{
    m->method = "GET";
    switch (m->req->verb) {
    case STORE_LIST:
        build_list(m);
        break;
    case STORE_BUCKETS:
        break;
    case STORE_BUCKET_CREATE:
        m->method = "PUT";
        build_bucket_create(m);
        break;
    case STORE_BUCKET_DELETE:
        m->method = "DELETE";
        break;
    case STORE_DELETE_MANY:
        build_delete_many(m);
        break;
    case STORE_COPY:
    case STORE_MPU_COPY_PART:
        build_copy(m);
        break;
    case STORE_MPU_COMPLETE:
        build_complete(m);
        break;
    case STORE_MPU_LIST:
        build_uploads(m);
        break;
    case STORE_TAGS_GET:
        param(m, "tagging", NULL);
        break;
    case STORE_TAGS_PUT:
        build_tags_put(m);
        break;
    default:
        build_object(m);
    }
}

/* A bucket's name as a DNS label without dots, so that it fits under a wildcard certificate. */
static bool is_label(const char *s)
{
    size_t n = strlen(s);
    if (n < 3 || n > 63 || s[0] == '-' || s[n - 1] == '-') {
        return false;
    }
    for (; *s; s++) {
        if (!g_ascii_islower(*s) && !g_ascii_isdigit(*s) && *s != '-') {
            return false;
        }
    }
    return true;
}

static bool use_virtual_host(const struct s3 *s3, const char *bucket)
{
    switch (s3->addressing) {
    case S3_ADDRESSING_PATH:
        return false;
    case S3_ADDRESSING_VIRTUAL:
        return is_label(bucket);
    case S3_ADDRESSING_AUTO:
    default:
        return s3->on_aws && is_label(bucket);
    }
}

static void address(const struct message *m, char **ret_host, GString *path)
{
    const struct s3 *s3 = m->op->s3;
    g_autofree char *host =
        s3->host ? g_strdup(s3->host) : g_strconcat("s3.", m->op->region, s3->aws_suffix, NULL);
    g_string_append_c(path, '/');
    if (m->bucket && use_virtual_host(s3, m->bucket)) {
        *ret_host = g_strconcat(m->bucket, ".", host, NULL);
    } else {
        *ret_host = g_steal_pointer(&host);
        if (m->bucket) {
            sigv4_encode(path, m->bucket, strlen(m->bucket), false);
            if (m->key) {
                g_string_append_c(path, '/');
            }
        }
    }
    if (m->key) {
        sigv4_encode(path, m->key, strlen(m->key), true);
    }
}

/* Signed: what changes the meaning. Other headers may be touched by a proxy on the way. */
static bool is_signed(const char *name)
{
    return strcmp(name, "host") == 0 || strcmp(name, "content-type") == 0 ||
           strcmp(name, "content-md5") == 0 || g_str_has_prefix(name, "x-amz-");
}

static int sign(struct message *m, const char *host, const char *path, const char *query)
{
    struct s3 *s3 = m->op->s3;
    const struct s3_credentials *c = &s3->credentials;
    char when[SIGV4_TIME_SIZE];
    sigv4_time(time(NULL) + s3->skew_s, when);
    header(m, "x-amz-date", when);
    header(m, "x-amz-content-sha256", m->payload_hash);
    header(m, "x-amz-security-token", c->session_token);
    if (m->err < 0) {
        return m->err;
    }
    g_autoptr(GArray) covered = g_array_new(FALSE, FALSE, sizeof(struct sigv4_pair));
    struct sigv4_pair h = {"host", host};
    g_array_append_val(covered, h);
    for (guint i = 0; i < m->headers->len; i++) {
        h = g_array_index(m->headers, struct sigv4_pair, i);
        if (is_signed(h.name)) {
            g_array_append_val(covered, h);
        }
    }
    const struct sigv4_input in = {
        .method = m->method,
        .path = path,
        .query = query,
        .headers = (const struct sigv4_pair *)(const void *)covered->data,
        .n_headers = covered->len,
        .payload_hash = m->payload_hash,
        .access_key = c->access_key,
        .secret_key = c->secret_key,
        .region = m->op->region,
        .service = "s3",
        .time = when,
    };
    g_autofree char *authorization = NULL;
    int r = sigv4_sign(&in, &s3->key, &authorization);
    if (r < 0) {
        return r;
    }
    header(m, "authorization", authorization);
    return m->err;
}

static void to_exchange(struct message *m, const char *host, const char *path, const char *query)
{
    struct http_exchange *x = &m->op->x;
    x->method = m->method;
    x->url = g_strconcat(m->op->s3->scheme, "://", host, path, *query ? "?" : "", query, NULL);
    bool has_type = false;
    for (guint i = 0; i < m->headers->len; i++) {
        const struct sigv4_pair *h = &g_array_index(m->headers, struct sigv4_pair, i);
        /* curl takes "name:" as an order to leave a header out, "name;" as an empty one. */
        g_autofree char *line = *h->value ? g_strconcat(h->name, ": ", h->value, NULL)
                                          : g_strconcat(h->name, ";", NULL);
        x->headers = curl_slist_append(x->headers, line);
        has_type = has_type || strcmp(h->name, "content-type") == 0;
    }
    x->headers = curl_slist_append(x->headers, "Expect:");
    if (!has_type) {
        x->headers = curl_slist_append(x->headers, "Content-Type:");
    }
}

static const char *region_of(const struct s3 *s3, const char *bucket)
{
    const char *r = bucket ? g_hash_table_lookup(s3->regions, bucket) : NULL;
    return r ? r : s3->region;
}

int s3_request_prepare(struct http_exchange *x)
{
    struct s3_op *op = (struct s3_op *)x;
    struct message m = {
        .op = op,
        .req = op->req,
        .strings = g_string_chunk_new(512),
        .bucket = op->req->verb == STORE_BUCKETS ? NULL : op->req->bucket,
        .headers = g_array_new(FALSE, FALSE, sizeof(struct sigv4_pair)),
        .payload_hash = SIGV4_EMPTY_SHA256,
    };
    if (op->req->verb != STORE_LIST && op->req->verb != STORE_MPU_LIST &&
        op->req->verb != STORE_DELETE_MANY && op->req->verb != STORE_BUCKETS &&
        op->req->verb != STORE_BUCKET_CREATE && op->req->verb != STORE_BUCKET_DELETE) {
        m.key = op->req->key;
    }
    g_free(op->region);
    op->region = g_strdup(region_of(op->s3, m.bucket));

    build_verb(&m);
    g_autofree char *host = NULL;
    g_autofree char *query = sigv4_query(m.params, m.n_params);
    g_autoptr(GString) path = g_string_new(NULL);
    address(&m, &host, path);
    int r = m.err;
    if (r == 0 && !op->s3->credentials.anonymous) {
        r = sign(&m, host, path->str, query);
    }
    if (r == 0) {
        to_exchange(&m, host, path->str, query);
    } else if (op->why == NULL) {
        op->why = "the request could not be signed";
    }
    g_array_unref(m.headers);
    g_string_chunk_free(m.strings);
    return r;
}
