/* SPDX-License-Identifier: Apache-2.0
 *
 * http_exchange: one request and its reply as curl sees them: options, and the callbacks that move
 * bytes between curl and source, sink and reply. All on the engine's thread; no locks.
 */
#include "s3/http_exchange.h"

#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"

#define GET_BUFFER (256L << 10)
#define PUT_BUFFER (256L << 10)
#define SMALL_BODY (16L << 10) /* the least that curl allows: there may be hundreds of them */

/* Replies */

const char *http_header(const struct http_reply *r, const char *name)
{
    size_t pos = 0;
    const char *n, *v;
    while (http_header_next(r, &pos, &n, &v)) {
        if (strcmp(n, name) == 0) {
            return v;
        }
    }
    return NULL;
}

bool http_header_next(const struct http_reply *r, size_t *pos, const char **ret_name,
                      const char **ret_value)
{
    if (r->headers == NULL || *pos >= r->headers->len) {
        return false;
    }
    *ret_name = r->headers->str + *pos;
    *ret_value = *ret_name + strlen(*ret_name) + 1;
    *pos += strlen(*ret_name) + strlen(*ret_value) + 2;
    return true;
}

void http_exchange_clear(struct http_exchange *x)
{
    g_clear_pointer(&x->url, g_free);
    g_clear_pointer(&x->headers, curl_slist_free_all);
    if (x->body) {
        g_string_free(x->body, TRUE);
    }
    if (x->reply.headers) {
        g_string_free(x->reply.headers, TRUE);
    }
    if (x->reply.body) {
        g_string_free(x->reply.body, TRUE);
    }
    memset(&x->reply, 0, sizeof x->reply);
    x->body = NULL;
    x->source = NULL;
    x->sink = NULL;
    x->sink_off = x->sink_left = x->sent_off = x->received = x->moved = 0;
    x->sink_stops = x->begun = x->full = x->whole = false;
}

/* curl's callbacks. All on the engine's thread; returning a short count ends the transfer, and
 * reply.err says why. */

static int on_request(void *data, char *ip, char *local_ip, int port, int local_port)
{
    struct http_exchange *x = data;
    x->reply.sends++;
    return CURL_PREREQFUNC_OK;
}

static void note_header(struct http_exchange *x, const char *line, size_t n)
{
    const char *colon = memchr(line, ':', n);
    if (colon == NULL || memchr(line, '\0', n) != NULL) {
        return;
    }
    const char *v = colon + 1, *end = line + n;
    while (v < end && (*v == ' ' || *v == '\t')) {
        v++;
    }
    while (end > v && g_ascii_isspace(end[-1])) {
        end--;
    }
    g_autofree char *name = g_ascii_strdown(line, colon - line);
    g_string_append(x->reply.headers, name);
    g_string_append_c(x->reply.headers, '\0');
    g_string_append_len(x->reply.headers, v, end - v);
    g_string_append_c(x->reply.headers, '\0');
}

static size_t on_header(char *line, size_t size, size_t n, void *data)
{
    struct http_exchange *x = data;
    x->received += n;
    if (n >= 5 && memcmp(line, "HTTP/", 5) == 0 && !x->begun) { /* also after a 1xx reply */
        if (x->reply.headers == NULL) {
            x->reply.headers = g_string_new(NULL);
        }
        g_string_truncate(x->reply.headers, 0);
        return n;
    }
    if (x->begun || x->reply.headers == NULL) {
        return n; /* trailers */
    }
    if (x->reply.headers->len + n > HTTP_HEADERS_MAX) {
        x->reply.err = -EMSGSIZE;
        return 0;
    }
    if (n > 0 && line[0] != '\r' && line[0] != '\n') {
        note_header(x, line, n);
        return n;
    }
    long status = 0;
    curl_easy_getinfo(x->easy, CURLINFO_RESPONSE_CODE, &status);
    if (status >= 100 && status < 200) {
        return n;
    }
    x->begun = true;
    x->reply.status = (int)status;
    int r = x->hooks->begin ? x->hooks->begin(x) : 0;
    if (r < 0) {
        x->reply.err = r;
        return 0;
    }
    return n;
}

static size_t to_sink(struct http_exchange *x, const char *buf, size_t n)
{
    size_t take = MIN(n, x->sink_left);
    if (take > 0) {
        int r = x->sink->write(x->sink->ctx, x->sink_off, buf, take);
        if (r < 0) {
            x->reply.err = r;
            return 0;
        }
        x->sink_off += take;
        x->sink_left -= take;
        x->reply.bytes += take;
    }
    if (take == n) {
        return n;
    }
    if (x->sink_stops) {
        x->full = true;
    } else {
        x->reply.overlong = true;
        x->reply.err = -EBADMSG;
    }
    return 0;
}

static size_t on_body(char *buf, size_t size, size_t n, void *data)
{
    struct http_exchange *x = data;
    x->received += n;
    if (x->sink) {
        return to_sink(x, buf, n);
    }
    if (x->reply.body == NULL) {
        x->reply.body = g_string_sized_new(MAX(n, 512));
    }
    if (x->reply.body->len + n > HTTP_BODY_MAX) {
        x->reply.err = -EMSGSIZE;
        return 0;
    }
    g_string_append_len(x->reply.body, buf, (gssize)n);
    return n;
}

uint64_t http_exchange_body_size(const struct http_exchange *x)
{
    return x->source ? x->source->size : x->body ? x->body->len : 0;
}

static size_t on_send(char *buf, size_t size, size_t count, void *data)
{
    struct http_exchange *x = data;
    size_t n = MIN(size * count, http_exchange_body_size(x) - x->sent_off);
    if (n == 0) {
        return 0;
    }
    if (x->source) {
        ssize_t r = x->source->read(x->source->ctx, x->sent_off, buf, n);
        if (r != (ssize_t)n) {
            x->reply.err = r < 0 ? (int)r : -EIO;
            return CURL_READFUNC_ABORT;
        }
    } else {
        memcpy(buf, x->body->str + x->sent_off, n);
    }
    x->sent_off += n;
    x->whole = x->whole || x->sent_off == http_exchange_body_size(x);
    return n;
}

static int on_rewind(void *data, curl_off_t off, int origin)
{
    struct http_exchange *x = data;
    if (origin != SEEK_SET || off < 0 || (uint64_t)off > http_exchange_body_size(x)) {
        return CURL_SEEKFUNC_FAIL;
    }
    x->sent_off = (uint64_t)off;
    return CURL_SEEKFUNC_OK;
}

/* Options */

static void set_method(struct http_exchange *x)
{
    CURL *e = x->easy;
    if (strcmp(x->method, "HEAD") == 0) {
        curl_easy_setopt(e, CURLOPT_NOBODY, 1L);
    } else if (strcmp(x->method, "PUT") == 0 || strcmp(x->method, "POST") == 0) {
        curl_easy_setopt(e, CURLOPT_UPLOAD, 1L);
        curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, x->method);
        curl_easy_setopt(e, CURLOPT_INFILESIZE_LARGE, (curl_off_t)http_exchange_body_size(x));
        curl_easy_setopt(e, CURLOPT_READFUNCTION, on_send);
        curl_easy_setopt(e, CURLOPT_READDATA, x);
        curl_easy_setopt(e, CURLOPT_SEEKFUNCTION, on_rewind);
        curl_easy_setopt(e, CURLOPT_SEEKDATA, x);
        bool big = http_exchange_body_size(x) > SMALL_BODY;
        curl_easy_setopt(e, CURLOPT_UPLOAD_BUFFERSIZE, big ? PUT_BUFFER : SMALL_BODY);
    } else {
        curl_easy_setopt(e, CURLOPT_HTTPGET, 1L);
        curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, x->method);
        curl_easy_setopt(e, CURLOPT_BUFFERSIZE, GET_BUFFER);
    }
}

static void set_connection(CURL *e, const struct http_params *p, const char *ca_file)
{
    curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(e, CURLOPT_TCP_NODELAY, 1L);
    curl_easy_setopt(e, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(e, CURLOPT_TCP_KEEPIDLE, 30L);
    curl_easy_setopt(e, CURLOPT_TCP_KEEPINTVL, 10L);
    curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS,
                     (long)(p->connect_timeout_ns / NSEC_PER_MSEC));
    curl_easy_setopt(e, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L); /* a proxy's reply is not ours */
    curl_easy_setopt(e, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    if (ca_file) {
        curl_easy_setopt(e, CURLOPT_CAINFO, ca_file);
        curl_easy_setopt(e, CURLOPT_CAPATH, NULL); /* that file's CAs and no others */
    }
}

void http_exchange_setup(struct http_exchange *x, const struct http_params *p, const char *ca_file)
{
    CURL *e = x->easy;
    set_connection(e, p, ca_file);
    set_method(x);
    curl_easy_setopt(e, CURLOPT_URL, x->url);
    curl_easy_setopt(e, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(e, CURLOPT_HTTPHEADER, x->headers);
    curl_easy_setopt(e, CURLOPT_USERAGENT, "mlopsfs/" MLOPSFS_VERSION);
    curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(e, CURLOPT_HEADERDATA, x);
    curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(e, CURLOPT_WRITEDATA, x);
    curl_easy_setopt(e, CURLOPT_PREREQFUNCTION, on_request);
    curl_easy_setopt(e, CURLOPT_PREREQDATA, x);
    curl_easy_setopt(e, CURLOPT_ERRORBUFFER, x->reply.error);
    curl_easy_setopt(e, CURLOPT_PRIVATE, x);
    if (x->deadline_ns) {
        uint64_t now = clock_mono_ns();
        uint64_t left = x->deadline_ns > now ? (x->deadline_ns - now) / NSEC_PER_MSEC + 1 : 1;
        curl_easy_setopt(e, CURLOPT_TIMEOUT_MS, (long)MIN(left, (uint64_t)G_MAXINT));
    }
}
