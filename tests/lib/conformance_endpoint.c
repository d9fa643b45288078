/* SPDX-License-Identifier: Apache-2.0
 *
 * conformance_endpoint: what only a server can refuse or fail: wrong keys, no keys, nobody there,
 * somebody there who does not speak HTTP.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/lib/conformance.h"

/* The case's own store for one request; c->store is untouched. */
static bool with_store(struct conf *c, const struct conf_endpoint *e, struct store_request *req,
                       int err, enum store_class cls)
{
    struct store *other = conf_store_on(e), *suite = c->store;
    if (other == NULL) {
        return conf_fail(c, "no store on %s", e->url);
    }
    c->store = other;
    bool ok = conf_expect(c, req, err, cls);
    c->store = suite;
    store_free(other);
    return ok;
}

static bool refused(struct conf *c, const struct conf_endpoint *e)
{
    _cleanup_sink_ struct conf_sink sink;
    struct conf_memory m;
    g_autofree char *key = conf_key(c, "o");
    if (!conf_put_text(c, key, "x")) {
        return false;
    }
    REQUEST(g, .verb = STORE_GET, .key = key, .sink = conf_sink(&sink, 0));
    REQUEST(p, .verb = STORE_PUT, .key = key, .source = conf_source(&m, "yy", 2));
    REQUEST(l, .verb = STORE_LIST);
    REQUEST(d, .verb = STORE_DELETE, .key = key);
    struct store_request *all[] = {&g, &p, &l, &d};
    for (size_t i = 0; i < G_N_ELEMENTS(all); i++) {
        if (!with_store(c, e, all[i], -EACCES, STORE_CLASS_AUTH)) {
            return false;
        }
    }
    return conf_is_text(c, key, "x");
}

static void bad_secret(struct conf *c, const void *arg)
{
    struct conf_endpoint e = c->endpoint;
    e.secret_key = "not-the-secret-of-anyone-here";
    refused(c, &e);
}

static void bad_access_key(struct conf *c, const void *arg)
{
    struct conf_endpoint e = c->endpoint;
    e.access_key = "NOBODYATALL";
    refused(c, &e);
}

/* A reply to HEAD has no body, and so no code: the status alone tells. */
static void bad_access_key_head(struct conf *c, const void *arg)
{
    struct conf_endpoint e = c->endpoint;
    e.access_key = "NOBODYATALL";
    g_autofree char *key = conf_key(c, "o");
    TRY(conf_put_text(c, key, "x"));
    REQUEST(h, .verb = STORE_HEAD, .key = key);
    with_store(c, &e, &h, -EACCES, STORE_CLASS_AUTH);
}

static void bad_secret_head(struct conf *c, const void *arg)
{
    struct conf_endpoint e = c->endpoint;
    e.secret_key = "not-the-secret-of-anyone-here";
    g_autofree char *key = conf_key(c, "o");
    TRY(conf_put_text(c, key, "x"));
    REQUEST(h, .verb = STORE_HEAD, .key = key);
    with_store(c, &e, &h, -EACCES, STORE_CLASS_AUTH);
}

static void anonymous(struct conf *c, const void *arg)
{
    struct conf_endpoint e = c->endpoint;
    e.access_key = e.secret_key = NULL;
    refused(c, &e);
}

/* A loopback socket that listens, or (backlog < 0) only holds its port. */
static int loopback(int backlog, char **ret_url)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t n = sizeof(a);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 ||
        getsockname(fd, (struct sockaddr *)&a, &n) < 0 ||
        (backlog >= 0 && listen(fd, backlog) < 0)) {
        return -1;
    }
    *ret_url = g_strdup_printf("http://127.0.0.1:%u", ntohs(a.sin_port));
    return fd;
}

static void connection_refused(struct conf *c, const void *arg)
{
    g_autofree char *url = NULL;
    int fd = loopback(-1, &url); /* bound, so that nobody else takes the port, but deaf */
    EXPECT(c, fd >= 0, "no port");
    struct conf_endpoint e = c->endpoint;
    e.url = url;
    struct conf_memory m;
    REQUEST(h, .verb = STORE_HEAD, .key = "k");
    REQUEST(l, .verb = STORE_LIST);
    REQUEST(p, .verb = STORE_PUT, .key = "k", .source = conf_source(&m, "x", 1));
    /* Nothing was sent, so that even a conditional PUT may be repeated. */
    REQUEST(q, .verb = STORE_PUT, .key = "k", .if_none_match = true,
            .source = conf_source(&m, "x", 1));
    struct store_request *all[] = {&h, &l, &p, &q};
    for (size_t i = 0; i < G_N_ELEMENTS(all); i++) {
        with_store(c, &e, all[i], -ECONNREFUSED, STORE_CLASS_RETRY);
    }
    close(fd);
}

struct rude {
    int fd;
    unsigned n;         /* connections to take */
    const char *answer; /* NULL = hang up after the request's first bytes */
};

/* Takes connections, reads a little, answers something, hangs up. */
static void *rude_server(void *arg)
{
    struct rude *r = arg;
    for (unsigned i = 0; i < r->n; i++) {
        int fd = accept(r->fd, NULL, NULL);
        if (fd < 0) {
            break;
        }
        char buf[4096];
        (void)!read(fd, buf, sizeof(buf));
        if (r->answer != NULL) {
            (void)!send(fd, r->answer, strlen(r->answer), MSG_NOSIGNAL);
        }
        close(fd);
    }
    return NULL;
}

static void with_rude_server(struct conf *c, struct rude *r, struct store_request *req,
                             enum store_class cls)
{
    g_autofree char *url = NULL;
    pthread_t t;
    r->fd = loopback(8, &url);
    r->n = 8;
    EXPECT(c, r->fd >= 0 && pthread_create(&t, NULL, rude_server, r) == 0, "no server");
    struct conf_endpoint e = c->endpoint;
    e.url = url;
    struct store *other = conf_store_on(&e), *suite = c->store;
    c->store = other;
    conf_run(c, req);
    c->store = suite;
    store_free(other);
    shutdown(r->fd, SHUT_RDWR); /* ends accept() */
    pthread_join(t, NULL);
    close(r->fd);
    EXPECT(c, req->res.err < 0 && req->res.cls == cls, "%s ended with %d, class %d: %s",
           store_verb_name(req->verb), req->res.err, req->res.cls, req->res.detail);
}

static void hangs_up(struct conf *c, const void *arg)
{
    struct rude r = {.answer = NULL};
    REQUEST(l, .verb = STORE_LIST);
    with_rude_server(c, &r, &l, STORE_CLASS_RETRY);
}

/* The PUT may have been done: it must not be repeated blindly. */
static void hangs_up_conditional(struct conf *c, const void *arg)
{
    struct rude r = {.answer = NULL};
    struct conf_memory m;
    REQUEST(p, .verb = STORE_PUT, .key = "k", .if_none_match = true,
            .source = conf_source(&m, "x", 1));
    with_rude_server(c, &r, &p, STORE_CLASS_AMBIGUOUS);
}

static void not_http(struct conf *c, const void *arg)
{
    struct rude r = {.answer = "SSH-2.0-OpenSSH_9.2p1\r\n"};
    REQUEST(l, .verb = STORE_LIST);
    with_rude_server(c, &r, &l, STORE_CLASS_RETRY);
}

static void short_body(struct conf *c, const void *arg)
{
    struct rude r = {.answer =
                         "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nETag: \"x\"\r\n\r\nonly this"};
    _cleanup_sink_ struct conf_sink sink;
    REQUEST(g, .verb = STORE_GET, .key = "k", .sink = conf_sink(&sink, 0));
    with_rude_server(c, &r, &g, STORE_CLASS_RETRY);
}

static void bad_xml(struct conf *c, const void *arg)
{
    struct rude r = {
        .answer = "HTTP/1.1 200 OK\r\nContent-Length: 25\r\nContent-Type: application/xml\r\n\r\n"
                  "<ListBucketResult><oh dear"};
    REQUEST(l, .verb = STORE_LIST);
    with_rude_server(c, &r, &l, STORE_CLASS_FATAL);
}

static void server_error(struct conf *c, const void *arg)
{
    struct rude r = {.answer = "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"};
    REQUEST(h, .verb = STORE_LIST);
    with_rude_server(c, &r, &h, STORE_CLASS_RETRY);
}

static void slow_down(struct conf *c, const void *arg)
{
    struct rude r = {.answer =
                         "HTTP/1.1 503 Slow Down\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n"};
    REQUEST(l, .verb = STORE_LIST);
    with_rude_server(c, &r, &l, STORE_CLASS_RETRY);
    EXPECT(c, l.res.retry_after_ns == 7000000000ULL, "Retry-After: %" G_GUINT64_FORMAT " ns",
           l.res.retry_after_ns);
}

/* ---- what the probe finds ---- */

struct cap_row {
    const char *name;
    size_t offset;
};

static const struct cap_row cap_rows[] = {
    {"caps/put-if", offsetof(struct store_caps, put_if)},
    {"caps/complete-if", offsetof(struct store_caps, complete_if)},
    {"caps/copy-if", offsetof(struct store_caps, copy_if)},
    {"caps/delete-if", offsetof(struct store_caps, delete_if)},
    {"caps/copy-part", offsetof(struct store_caps, copy_part)},
    {"caps/checksum", offsetof(struct store_caps, checksum)},
    {"caps/checksum-part", offsetof(struct store_caps, checksum_part)},
    {"caps/checksum-mpu", offsetof(struct store_caps, checksum_mpu)},
    {"caps/copy-into-checksum-mpu", offsetof(struct store_caps, copy_into_checksum_mpu)},
    {"caps/head-tags", offsetof(struct store_caps, head_tags)},
};

static void cap_case(struct conf *c, const void *arg)
{
    const struct cap_row *row = arg;
    struct store *s = conf_store_on(&c->endpoint);
    EXPECT(c, s != NULL, "no store");
    struct store_caps caps;
    store_get_caps(s, c->bucket, &caps);
    store_free(s);
    bool have = *(const bool *)((const char *)&caps + row->offset);
    EXPECT(c, have, "the probe does not find it");
    TRY(conf_list_is(c, &(struct store_request){.prefix = ".mlopsfs-probe-"}, "",
                     "")); /* it cleans up */
}

void conf_endpoint_cases(GArray *cases)
{
    conf_add_network(cases, "endpoint/bad-secret", bad_secret);
    conf_add_network(cases, "endpoint/bad-access-key", bad_access_key);
    conf_add_network(cases, "endpoint/bad-secret-head", bad_secret_head);
    conf_add_network(cases, "endpoint/bad-access-key-head", bad_access_key_head);
    conf_add_network(cases, "endpoint/anonymous", anonymous);
    conf_add_network(cases, "endpoint/connection-refused", connection_refused);
    conf_add_network(cases, "endpoint/hangs-up", hangs_up);
    conf_add_network(cases, "endpoint/hangs-up-conditional", hangs_up_conditional);
    conf_add_network(cases, "endpoint/not-http", not_http);
    conf_add_network(cases, "endpoint/short-body", short_body);
    conf_add_network(cases, "endpoint/bad-xml", bad_xml);
    conf_add_network(cases, "endpoint/500", server_error);
    conf_add_network(cases, "endpoint/503-retry-after", slow_down);
    for (size_t i = 0; i < G_N_ELEMENTS(cap_rows); i++) {
        struct conf_case x = {
            .name = cap_rows[i].name, .run = cap_case, .arg = &cap_rows[i], .network = true};
        g_array_append_val(cases, x);
    }
}
