/* SPDX-License-Identifier: Apache-2.0
 *
 * store_s3: see store_s3.h. This file opens and closes the store and leads each request through its
 * HTTP exchanges; s3_request.c writes them, s3_reply.c, s3_parse.c and s3_date.c read them, s3_caps.c keeps
 * what s3_probe.c has found out.
 *
 * Threads: submit and cancel on any thread; everything else on the engine's.
 * Locks: `lock` (engine rank) makes cancellation and completion exclude each other: a request's
 * `layer` is its op exactly while the op may be cancelled. http's own lock is taken inside it.
 */
#include "s3/store_s3.h"

#include <errno.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/workq.h"
#include "s3/s3_op.h"

static void op_done(struct http_exchange *x);

static const struct http_hooks hooks = {
    .prepare = s3_request_prepare,
    .begin = s3_reply_begin,
    .done = op_done,
};

/* One request */

static void op_free(struct s3_op *op)
{
    http_exchange_clear(&op->x);
    g_free(op->region);
    g_free(op->marker);
    g_free(op->upload_marker);
    if (op->single) {
        g_ptr_array_unref(op->single);
    }
    g_free(op);
}

static void s3_submit(struct store *s, struct store_request *req)
{
    struct s3 *s3 = (struct s3 *)s;
    struct s3_op *op = g_new0(struct s3_op, 1);
    op->s3 = s3;
    op->req = req;
    op->conditional =
        (req->verb == STORE_PUT || req->verb == STORE_MPU_COMPLETE || req->verb == STORE_COPY) &&
        (req->if_match || req->if_none_match);
    op->x.hooks = &hooks;
    op->x.prio = req->prio;
    op->x.deadline_ns = req->deadline_ns;
    op->x.patient = req->verb == STORE_COPY || req->verb == STORE_MPU_COPY_PART ||
                    req->verb == STORE_MPU_COMPLETE;
    mutex_lock(&s3->lock);
    req->layer = op;
    http_submit(s3->http, &op->x);
    mutex_unlock(&s3->lock);
}

static void s3_cancel(struct store *s, struct store_request *req)
{
    struct s3 *s3 = (struct s3 *)s;
    mutex_lock(&s3->lock);
    struct s3_op *op = req->layer;
    if (op) {
        op->cancelled = true;
        http_cancel(s3->http, &op->x);
    }
    mutex_unlock(&s3->lock);
}

/* True when the op goes on with another exchange; else it can no longer be cancelled. */
static bool op_continue(struct s3_op *op, bool more)
{
    struct s3 *s3 = op->s3;
    if (more) {
        http_exchange_clear(&op->x);
        op->why = NULL;
        op->why_cls = STORE_CLASS_OK;
    }
    mutex_lock(&s3->lock);
    more = more && !op->cancelled;
    if (more) {
        http_submit(s3->http, &op->x);
    } else {
        op->req->layer = NULL;
    }
    mutex_unlock(&s3->lock);
    return more;
}

static void op_done(struct http_exchange *x)
{
    struct s3_op *op = (struct s3_op *)x;
    struct store_request *req = op->req;
    bool more = s3_reply_digest(op);
    if (op_continue(op, more)) {
        return;
    }
    if (more) { /* cancelled between two exchanges */
        store_result_fail(&req->res, -ECANCELED, STORE_CLASS_FATAL, NULL, "%s: cancelled",
                          store_verb_name(req->verb));
    }
    op_free(op);
    store_complete(req);
}

/* Opening */

static int parse_endpoint(struct s3 *s3, const char *endpoint, char **ret_bare_host)
{
    int r = -EINVAL;
    char *scheme = NULL, *host = NULL, *port = NULL, *path = NULL, *user = NULL, *query = NULL;
    CURLU *u = curl_url();
    if (u && curl_url_set(u, CURLUPART_URL, endpoint, 0) == CURLUE_OK &&
        curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
        curl_url_get(u, CURLUPART_HOST, &host, 0) == CURLUE_OK && *host &&
        curl_url_get(u, CURLUPART_PATH, &path, 0) == CURLUE_OK && strcmp(path, "/") == 0 &&
        (strcmp(scheme, "http") == 0 || strcmp(scheme, "https") == 0) &&
        curl_url_get(u, CURLUPART_USER, &user, 0) != CURLUE_OK &&
        curl_url_get(u, CURLUPART_QUERY, &query, 0) != CURLUE_OK &&
        curl_url_get(u, CURLUPART_FRAGMENT, &query, 0) != CURLUE_OK) {
        /* As curl writes the Host header: without the port that the scheme implies. */
        bool has_port = curl_url_get(u, CURLUPART_PORT, &port, CURLU_NO_DEFAULT_PORT) == CURLUE_OK;
        s3->scheme = g_strdup(scheme);
        s3->host = has_port ? g_strconcat(host, ":", port, NULL) : g_strdup(host);
        *ret_bare_host = g_ascii_strdown(host, -1);
        r = 0;
    }
    curl_free(scheme);
    curl_free(host);
    curl_free(port);
    curl_free(path);
    curl_free(user);
    curl_free(query);
    curl_url_cleanup(u);
    return r;
}

/* On AWS the host says which region it serves, and buckets elsewhere need that region's host. */
static void recognize_aws(struct s3 *s3, const char *host)
{
    static const char *const suffixes[] = {".amazonaws.com", ".amazonaws.com.cn"};
    for (size_t i = 0; i < G_N_ELEMENTS(suffixes); i++) {
        if (!g_str_has_suffix(host, suffixes[i])) {
            continue;
        }
        s3->on_aws = true;
        size_t n = strlen(host) - strlen(suffixes[i]);
        g_autofree char *name = g_strndup(host, n);
        bool regional = g_str_has_prefix(name, "s3.") && strchr(name + 3, '.') == NULL;
        if (strchr(s3->host, ':') || (strcmp(name, "s3") != 0 && !regional)) {
            continue; /* dual-stack, FIPS, access points: that host alone */
        }
        if (regional && s3->region == NULL) {
            s3->region = g_strdup(name + 3);
        }
        s3->aws_suffix = g_strdup(suffixes[i]);
        g_clear_pointer(&s3->host, g_free);
    }
}

static int open_endpoint(struct s3 *s3, const struct store_s3_params *p)
{
    s3->region = g_strdup(p->region && *p->region ? p->region : NULL);
    if (p->endpoint && *p->endpoint) {
        g_autofree char *host = NULL;
        if (strchr(p->endpoint, '@')) { /* not printed: it may hold a password */
            log_error("the endpoint must not hold a user name");
            return -EINVAL;
        }
        if (parse_endpoint(s3, p->endpoint, &host) < 0) {
            log_error("endpoint \"%s\" is not of the form http[s]://host[:port]", p->endpoint);
            return -EINVAL;
        }
        recognize_aws(s3, host);
    } else {
        s3->scheme = g_strdup("https");
        s3->aws_suffix = g_strdup(".amazonaws.com");
        s3->on_aws = true;
    }
    if (s3->region == NULL) {
        s3->region = g_strdup("us-east-1");
    }
    if (strspn(s3->region, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") !=
            strlen(s3->region) ||
        strlen(s3->region) > 60) {
        log_error("region \"%s\" is not a region's name", s3->region);
        return -EINVAL;
    }
    return 0;
}

static int check_ca_file(const char *path)
{
    if (path == NULL) {
        return 0;
    }
    FILE *f = fopen(path, "re");
    if (f == NULL) {
        int r = -errno;
        return log_error_errno(r, "cannot open ca_file %s", path);
    }
    X509 *cert = PEM_read_X509(f, NULL, NULL, NULL);
    fclose(f);
    if (cert == NULL) {
        log_error("ca_file %s holds no PEM certificate", path);
        return -EINVAL;
    }
    X509_free(cert);
    return 0;
}

static int copy_credentials(struct s3 *s3, const struct s3_credentials *c)
{
    if (c == NULL || c->anonymous) {
        s3->credentials.anonymous = true;
        return 0;
    }
    if (c->access_key == NULL || c->secret_key == NULL || strpbrk(c->access_key, "\r\n") ||
        (c->session_token && strpbrk(c->session_token, "\r\n"))) {
        log_error("the credentials are not complete");
        return -EACCES;
    }
    s3->credentials = (struct s3_credentials){
        .access_key = g_strdup(c->access_key),
        .secret_key = g_strdup(c->secret_key),
        .session_token = c->session_token && *c->session_token ? g_strdup(c->session_token) : NULL,
        .origin = c->origin,
    };
    return 0;
}

static void s3_free(struct s3 *s3)
{
    http_free(s3->http);
    s3_credentials_clear(&s3->credentials);
    sigv4_key_wipe(&s3->key);
    g_hash_table_unref(s3->regions);
    mutex_fini(&s3->lock);
    mutex_fini(&s3->caps_lock);
    cond_fini(&s3->caps_changed);
    g_free(s3->scheme);
    g_free(s3->host);
    g_free(s3->aws_suffix);
    g_free(s3->region);
    g_hash_table_unref(s3->caps_limited);
    g_free(s3->probe_prefix);
    g_free(s3);
}

static void s3_destroy(struct store *s)
{
    struct s3 *s3 = (struct s3 *)s;
    if (s3->caps_jobs) {
        workq_free(s3->caps_jobs); /* waits until a probe's objects are gone */
    }
    s3_free(s3);
}

static const struct store_ops ops = {
    .name = "s3",
    .submit = s3_submit,
    .cancel = s3_cancel,
    .caps = s3_caps_get,
    .destroy = s3_destroy,
};

int store_s3_new(const struct store_s3_params *p, struct store **ret)
{
    struct s3 *s3 = g_new0(struct s3, 1);
    s3->store.ops = &ops;
    s3->addressing = p->addressing;
    s3->caps_limited = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    s3->probe_prefix = g_strdup(p->probe_prefix ? p->probe_prefix : "");
    s3->regions = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    if (p->caps) {
        s3->caps = *p->caps;
        s3->caps_known = true;
    }
    mutex_init(&s3->lock, RANK_ENGINE);
    mutex_init(&s3->caps_lock, RANK_LEAF);
    cond_init(&s3->caps_changed);

    int r = open_endpoint(s3, p);
    if (r == 0) {
        r = check_ca_file(p->ca_file);
    }
    if (r == 0) {
        r = copy_credentials(s3, p->credentials);
    }
    if (r == 0) {
        const struct http_params h = {
            .connections = p->connections ? p->connections : 32,
            .connect_timeout_ns = p->connect_timeout_ns ? p->connect_timeout_ns : 10 * NSEC_PER_SEC,
            .stall_timeout_ns = p->stall_timeout_ns ? p->stall_timeout_ns : 30 * NSEC_PER_SEC,
            .ca_file = p->ca_file,
        };
        r = http_new(&h, &s3->http);
        if (r < 0) {
            log_error_errno(r, "cannot start the network engine");
        }
    }
    if (r < 0) {
        s3_free(s3);
        return r;
    }
    *ret = &s3->store;
    return 0;
}
