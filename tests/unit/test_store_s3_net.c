/* SPDX-License-Identifier: Apache-2.0
 *
 * store_s3 and the network: connections that are refused, reused, cut, or stall; deadlines and
 * cancellation; priorities; conditional writes whose outcome is unknown. The server is the lying
 * one of tests/lib. TLS: test_store_s3_tls.c.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cancel.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "base/thread.h"
#include "s3/store_s3.h"
#include "tests/lib/liar.h"

#define ETAG "ETag: \"e1\"\r\n"

struct fixture {
    struct liar *liar;
    struct store *store;
};

static struct store *open_store(const char *url, unsigned connections, uint64_t stall_ns)
{
    char access[] = "AKID", secret[] = "secret";
    const struct s3_credentials c = {.access_key = access, .secret_key = secret};
    const struct store_s3_params p = {
        .endpoint = url,
        .credentials = &c,
        .connections = connections,
        .stall_timeout_ns = stall_ns,
    };
    struct store *s;
    g_assert_cmpint(store_s3_new(&p, &s), ==, 0);
    return s;
}

static void setup(struct fixture *f, gconstpointer data)
{
    f->liar = liar_new();
    f->store = open_store(liar_url(f->liar), 1, 0);
}

static void teardown(struct fixture *f, gconstpointer data)
{
    store_free(f->store);
    liar_free(f->liar);
}

static ssize_t source_read(void *ctx, uint64_t off, void *buf, size_t n)
{
    memset(buf, 'x', n);
    return (ssize_t)n;
}

static int sink_write(void *ctx, uint64_t off, const void *buf, size_t n)
{
    return 0;
}

static struct store_request request(enum store_verb verb, uint64_t size)
{
    return (struct store_request){
        .verb = verb,
        .bucket = "b",
        .key = "k",
        .source = {.read = source_read, .size = size},
        .sink = {.write = sink_write},
    };
}

static void expect(struct store *s, struct store_request *req, struct cancel *cancel, int err,
                   enum store_class cls)
{
    int r = store_run(s, req, cancel);
    if (r < 0) {
        g_test_message("%s", req->res.detail);
    }
    g_assert_cmpint(r, ==, err);
    g_assert_cmpint(req->res.cls, ==, cls);
    store_request_clear(req);
}

static void test_refused(struct fixture *f, gconstpointer data)
{
    g_autofree char *url = g_strdup_printf("http://127.0.0.1:%d", liar_dead_port());
    struct store *s = open_store(url, 1, 0);
    struct store_request get = request(STORE_GET, 0), put = request(STORE_PUT, 5);
    expect(s, &get, NULL, -ECONNREFUSED, STORE_CLASS_RETRY);
    put.if_none_match = true; /* nothing was sent: nothing is unknown */
    expect(s, &put, NULL, -ECONNREFUSED, STORE_CLASS_RETRY);
    store_free(s);
}

static void test_reuse(struct fixture *f, gconstpointer data)
{
    for (int i = 0; i < 20; i++) {
        struct store_request req = request(i % 2 ? STORE_PUT : STORE_GET, i % 2 ? 1000 : 0);
        liar_say(f->liar, 200, ETAG, i % 2 ? "" : "body");
        expect(f->store, &req, NULL, 0, STORE_CLASS_OK);
    }
    struct store_request absent = request(STORE_GET, 0);
    liar_say(f->liar, 404, "", "<Error><Code>NoSuchKey</Code></Error>");
    expect(f->store, &absent, NULL, -ENOENT, STORE_CLASS_FATAL);
    g_assert_cmpuint(liar_requests(f->liar), ==, 21);
    g_assert_cmpuint(liar_accepts(f->liar), ==, 1);
}

/* The server takes the whole request and hangs up. */
static void test_no_reply(struct fixture *f, gconstpointer data)
{
    static const struct {
        uint64_t size;
        bool conditional;
        enum store_class cls;
    } rows[] = {{1000, false, STORE_CLASS_RETRY},
                {1000, true, STORE_CLASS_AMBIGUOUS},
                {0, true, STORE_CLASS_AMBIGUOUS}};
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        struct store_request put = request(STORE_PUT, rows[i].size);
        put.if_none_match = rows[i].conditional;
        liar_add(f->liar, (struct liar_step){.close = true});
        int r = store_run(f->store, &put, NULL);
        g_assert_cmpint(r, ==, -ECONNRESET);
        g_assert_cmpint(put.res.cls, ==, rows[i].cls);
        store_request_clear(&put);
    }
}

/* The server hangs up before it has the whole body: it cannot have acted. */
static void test_cut_upload(struct fixture *f, gconstpointer data)
{
    struct store_request put = request(STORE_PUT, 64 << 20);
    put.if_none_match = true;
    liar_add(f->liar, (struct liar_step){.match = "PUT", .early = true, .close = true});
    expect(f->store, &put, NULL, -ECONNRESET, STORE_CLASS_RETRY);
}

/* curl repeats a request on a fresh connection when a reused one turns out dead. Where the first
 * attempt may have worked, a condition that fails in the second says nothing. */
static void test_dead_reuse(struct fixture *f, gconstpointer data)
{
    static const struct {
        int status, err;
        enum store_class cls;
        const char *body;
    } rows[] = {
        {200, 0, STORE_CLASS_OK, ""},
        {412, -EEXIST, STORE_CLASS_AMBIGUOUS, "<Error><Code>PreconditionFailed</Code></Error>"},
    };
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        struct store_request first = request(STORE_HEAD, 0), put = request(STORE_PUT, 0);
        liar_say(f->liar, 200, ETAG, "");
        expect(f->store, &first, NULL, 0, STORE_CLASS_OK);
        unsigned before = liar_requests(f->liar);
        liar_add(f->liar, (struct liar_step){.close = true}); /* taken, not answered */
        liar_say(f->liar, rows[i].status, ETAG, rows[i].body);
        put.if_none_match = true;
        expect(f->store, &put, NULL, rows[i].err, rows[i].cls);
        g_assert_cmpuint(liar_requests(f->liar), ==, before + 2);
    }
}

static void test_stall(struct fixture *f, gconstpointer data)
{
    struct store *s = open_store(liar_url(f->liar), 1, 200 * NSEC_PER_MSEC);
    struct store_request get = request(STORE_GET, 0);
    liar_add(f->liar, (struct liar_step){.hang = true});
    expect(s, &get, NULL, -ETIMEDOUT, STORE_CLASS_RETRY);
    struct store_request half = request(STORE_GET, 0);
    liar_add(f->liar,
             (struct liar_step){
                 .reply = g_strdup("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n" ETAG "\r\n0123"),
             });
    g_assert_cmpint(store_run(s, &half, NULL), ==, -ETIMEDOUT);
    g_assert_cmpint(half.res.cls, ==, STORE_CLASS_RETRY);
    g_assert_cmpuint(half.res.bytes, ==, 4);
    store_request_clear(&half);
    struct store_request put = request(STORE_PUT, 100);
    put.if_match = "x";
    liar_add(f->liar, (struct liar_step){.hang = true});
    expect(s, &put, NULL, -ETIMEDOUT, STORE_CLASS_AMBIGUOUS);
    store_free(s);
}

static void test_deadline(struct fixture *f, gconstpointer data)
{
    struct store_request get = request(STORE_GET, 0);
    get.deadline_ns = clock_mono_ns() + 100 * NSEC_PER_MSEC;
    liar_add(f->liar, (struct liar_step){.hang = true});
    expect(f->store, &get, NULL, -ETIMEDOUT, STORE_CLASS_RETRY);
}

/* Several requests at once: each tells when it is done. */
struct flock_of {
    struct mutex lock;
    struct cond changed;
    unsigned done;
};

static void flock_done(struct store_request *req)
{
    struct flock_of *all = req->ctx;
    mutex_lock(&all->lock);
    all->done++;
    cond_broadcast(&all->changed);
    mutex_unlock(&all->lock);
}

static void flock_init(struct flock_of *all)
{
    memset(all, 0, sizeof *all);
    mutex_init(&all->lock, RANK_LEAF);
    cond_init(&all->changed);
}

static void flock_wait(struct flock_of *all, unsigned n)
{
    mutex_lock(&all->lock);
    while (all->done < n) {
        cond_wait(&all->changed, &all->lock);
    }
    mutex_unlock(&all->lock);
}

static void flock_fini(struct flock_of *all)
{
    mutex_fini(&all->lock);
    cond_fini(&all->changed);
}

static void flock_submit(struct flock_of *all, struct store *s, struct store_request *req)
{
    req->done = flock_done;
    req->ctx = all;
    store_submit(s, req);
}

/* One connection, held by a request that gets no answer: the next one waits for it, and no longer
 * than its deadline. */
static void test_queued(struct fixture *f, gconstpointer data)
{
    struct flock_of all;
    flock_init(&all);
    struct store_request hung = request(STORE_GET, 0), late = request(STORE_GET, 0),
                         cancelled = request(STORE_GET, 0);
    liar_add(f->liar, (struct liar_step){.hang = true});
    flock_submit(&all, f->store, &hung);
    liar_wait_requests(f->liar, 1);
    late.deadline_ns = clock_mono_ns() + 50 * NSEC_PER_MSEC;
    flock_submit(&all, f->store, &late);
    flock_submit(&all, f->store, &cancelled);
    store_cancel(f->store, &cancelled);
    flock_wait(&all, 2);
    g_assert_cmpint(late.res.err, ==, -ETIMEDOUT);
    g_assert_cmpint(late.res.cls, ==, STORE_CLASS_RETRY);
    g_assert_cmpint(cancelled.res.err, ==, -ECANCELED);
    store_cancel(f->store, &hung);
    flock_wait(&all, 3);
    g_assert_cmpint(hung.res.err, ==, -ECANCELED);
    g_assert_cmpuint(liar_requests(f->liar), ==, 1);
    store_request_clear(&hung);
    store_request_clear(&late);
    store_request_clear(&cancelled);
    flock_fini(&all);
}

static void test_cancel(struct fixture *f, gconstpointer data)
{
    struct cancel *c = cancel_new();
    struct store_request get = request(STORE_GET, 0);
    liar_add(f->liar, (struct liar_step){.hang = true, .fire = c});
    g_assert_cmpint(store_run(f->store, &get, c), ==, -EINTR);
    store_request_clear(&get);
    cancel_free(c);
    /* The engine goes on. */
    liar_say(f->liar, 200, ETAG, "x");
    expect(f->store, &get, NULL, 0, STORE_CLASS_OK);
}

/* Requests that complete while they are cancelled, from two threads. */
static void test_cancel_race(struct fixture *f, gconstpointer data)
{
    struct store *s = open_store(liar_url(f->liar), 4, 0);
    liar_add(f->liar, (struct liar_step){.stay = true, .reply = liar_reply(200, ETAG, "x")});
    for (int round = 0; round < 50; round++) {
        struct flock_of all;
        struct store_request reqs[8];
        flock_init(&all);
        for (int i = 0; i < 8; i++) {
            reqs[i] = request(STORE_GET, 0);
            flock_submit(&all, s, &reqs[i]);
        }
        flock_wait(&all, (unsigned)round % 8); /* some are done, some are not */
        mutex_lock(&all.lock);
        bool last_pending = all.done < 8;
        mutex_unlock(&all.lock);
        if (last_pending) {
            for (int i = 0; i < 8; i++) {
                store_cancel(s, &reqs[i]);
            }
        }
        flock_wait(&all, 8);
        for (int i = 0; i < 8; i++) {
            g_assert_true(reqs[i].res.err == 0 || reqs[i].res.err == -ECANCELED);
            store_request_clear(&reqs[i]);
        }
        flock_fini(&all);
    }
    store_free(s);
}

/* Uploads that take for ever do not keep reads from a connection, nor reads uploads, nor read-ahead
 * other reads. */
static void test_floors(struct fixture *f, gconstpointer data)
{
    static const struct {
        enum store_prio many, one;
        enum store_verb many_verb, one_verb;
    } rows[] = {
        {STORE_PRIO_UPLOAD, STORE_PRIO_DEMAND, STORE_PUT, STORE_GET},
        {STORE_PRIO_DEMAND, STORE_PRIO_UPLOAD, STORE_GET, STORE_PUT},
        {STORE_PRIO_AHEAD, STORE_PRIO_DEMAND, STORE_GET, STORE_HEAD},
        {STORE_PRIO_AHEAD, STORE_PRIO_META, STORE_GET, STORE_HEAD},
    };
    for (size_t k = 0; k < G_N_ELEMENTS(rows); k++) {
        struct liar *liar = liar_new();
        struct store *s = open_store(liar_url(liar), 8, 0);
        struct flock_of all;
        struct store_request many[20];
        flock_init(&all);
        liar_add(liar, (struct liar_step){.match = rows[k].many_verb == STORE_PUT ? "PUT" : "GET",
                                          .hang = true,
                                          .stay = true});
        for (int i = 0; i < 20; i++) {
            many[i] = request(rows[k].many_verb, 0);
            many[i].prio = rows[k].many;
            flock_submit(&all, s, &many[i]);
        }
        liar_wait_requests(liar, rows[k].many == STORE_PRIO_AHEAD ? 5 : 6);
        struct store_request one = request(rows[k].one_verb, 0);
        one.prio = rows[k].one;
        liar_say(liar, 200, ETAG, "");
        expect(s, &one, NULL, 0, STORE_CLASS_OK);
        for (int i = 0; i < 20; i++) {
            store_cancel(s, &many[i]);
        }
        flock_wait(&all, 20);
        for (int i = 0; i < 20; i++) {
            g_assert_cmpint(many[i].res.err, ==, -ECANCELED);
            store_request_clear(&many[i]);
        }
        store_free(s);
        liar_free(liar);
        flock_fini(&all);
    }
}

/* A server that copies or completes may be silent for longer than the stall limit, a GET not. */
static void test_silent_work(struct fixture *f, gconstpointer data)
{
    static const enum store_verb verbs[] = {STORE_COPY, STORE_MPU_COPY_PART, STORE_MPU_COMPLETE};
    char etag[] = "e";
    const struct store_part part = {.number = 1, .size = 1, .etag = etag};
    struct store *s = open_store(liar_url(f->liar), 8, 50 * NSEC_PER_MSEC);
    struct store_request work[3], get = request(STORE_GET, 0);
    struct flock_of all;
    flock_init(&all);
    liar_add(f->liar, (struct liar_step){.hang = true, .stay = true});
    for (int i = 0; i < 3; i++) {
        work[i] = request(verbs[i], 0);
        work[i].from_bucket = work[i].from_key = work[i].upload_id = "x";
        work[i].part_number = 1;
        work[i].parts = &part;
        work[i].n_parts = 1;
        flock_submit(&all, s, &work[i]);
    }
    liar_wait_requests(f->liar, 3);
    /* Each began before the GET, and with the GET's time theirs would be over. */
    expect(s, &get, NULL, -ETIMEDOUT, STORE_CLASS_RETRY);
    mutex_lock(&all.lock);
    g_assert_cmpuint(all.done, ==, 0);
    mutex_unlock(&all.lock);
    for (int i = 0; i < 3; i++) {
        store_cancel(s, &work[i]);
    }
    flock_wait(&all, 3);
    for (int i = 0; i < 3; i++) {
        g_assert_cmpint(work[i].res.err, ==, -ECANCELED);
        store_request_clear(&work[i]);
    }
    flock_fini(&all);
    store_free(s);
}

static void test_not_http(struct fixture *f, gconstpointer data)
{
    static const char *const replies[] = {"SSH-2.0-OpenSSH_9.2\r\n", "\r\n\r\n", "HTTP/1.1\r\n\r\n",
                                          "HTTP/1.1 20"};
    for (size_t i = 0; i < G_N_ELEMENTS(replies); i++) {
        struct store_request get = request(STORE_GET, 0), put = request(STORE_PUT, 3);
        put.if_none_match = true;
        liar_add(f->liar, (struct liar_step){.reply = g_strdup(replies[i]), .close = true});
        g_assert_cmpint(store_run(f->store, &get, NULL), <, 0);
        g_assert_cmpint(get.res.cls, ==, STORE_CLASS_RETRY);
        liar_add(f->liar, (struct liar_step){.reply = g_strdup(replies[i]), .close = true});
        g_assert_cmpint(store_run(f->store, &put, NULL), <, 0);
        g_assert_cmpint(put.res.cls, ==, STORE_CLASS_AMBIGUOUS);
        store_request_clear(&get);
        store_request_clear(&put);
    }
    struct store_request get = request(STORE_GET, 0);
    g_autoptr(GString) huge = g_string_new("HTTP/1.1 200 OK\r\n");
    for (int i = 0; i < 20000; i++) {
        g_string_append_printf(huge, "X-%d: %050d\r\n", i, i);
    }
    liar_add(f->liar, (struct liar_step){.reply = g_strdup(huge->str), .close = true});
    g_assert_cmpint(store_run(f->store, &get, NULL), <, 0);
    store_request_clear(&get);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
#define CASE(name, fn) g_test_add("/store-s3-net/" name, struct fixture, NULL, setup, fn, teardown)
    CASE("refused", test_refused);
    CASE("reuse", test_reuse);
    CASE("no-reply", test_no_reply);
    CASE("cut-upload", test_cut_upload);
    CASE("dead-reuse", test_dead_reuse);
    CASE("stall", test_stall);
    CASE("deadline", test_deadline);
    CASE("queued", test_queued);
    CASE("cancel", test_cancel);
    CASE("cancel-race", test_cancel_race);
    CASE("floors", test_floors);
    CASE("silent-work", test_silent_work);
    CASE("not-http", test_not_http);
    return g_test_run();
}
