/* SPDX-License-Identifier: Apache-2.0
 *
 * conformance_async: many requests at once, cancellation, bodies larger than any buffer; each
 * request ends exactly once.
 */
#include "base/mutex.h"
#include "tests/lib/conformance.h"

static void concurrent_puts(struct conf *c, const void *arg)
{
    enum { N = 200 };
    g_autofree char *base = conf_key(c, "");
    struct conf_batch *b = conf_batch_new(c, N);
    struct conf_pattern_source sources[N];
    char *names[N];
    for (unsigned i = 0; i < N; i++) {
        names[i] = g_strdup_printf("%s%u", base, i);
        struct store_request *r = conf_batch_get(b, i);
        *r = (struct store_request){
            .verb = STORE_PUT, .key = names[i], .prio = i % STORE_PRIO_COUNT};
        r->source = conf_source_pattern(&sources[i], i, i * 997);
    }
    conf_batch_run(b, N);
    for (unsigned i = 0; i < N; i++) {
        if (conf_batch_get(b, i)->res.err != 0) {
            conf_fail(c, "PUT %u: %s", i, conf_batch_get(b, i)->res.detail);
        }
        if (conf_batch_done(b, i) != 1) {
            conf_fail(c, "PUT %u ended %u times", i, conf_batch_done(b, i));
        }
    }
    conf_batch_free(b);
    for (unsigned i = 0; i < N; i++) {
        if (c->failure == NULL && i % 20 == 0) {
            g_autoptr(GBytes) expected = conf_pattern(i, i * 997);
            conf_is_bytes(c, names[i], expected);
        }
        g_free(names[i]);
    }
}

/* Readers and writers of one key: each reader sees one whole version. */
static void versions_do_not_mix(struct conf *c, const void *arg)
{
    enum { N = 96, SIZE = 300000 };
    g_autofree char *key = conf_key(c, "o");
    struct conf_batch *b = conf_batch_new(c, N);
    struct conf_pattern_source sources[N];
    struct conf_sink sinks[N];
    g_autoptr(GBytes) first = conf_pattern(0, SIZE);
    TRY(conf_put(c, key, g_bytes_get_data(first, NULL), SIZE, NULL));
    for (unsigned i = 0; i < N; i++) {
        struct store_request *r = conf_batch_get(b, i);
        *r = (struct store_request){.verb = i % 3 == 0 ? STORE_PUT : STORE_GET, .key = key};
        sinks[i] = (struct conf_sink){0};
        if (i % 3 == 0) {
            r->source = conf_source_pattern(&sources[i], i, SIZE);
        } else {
            r->sink = conf_sink(&sinks[i], 0);
        }
    }
    conf_batch_run(b, 32);
    g_autoptr(GHashTable) digests = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    for (unsigned i = 0; i < N; i += 3) {
        g_autoptr(GBytes) version = conf_pattern(i, SIZE);
        g_hash_table_add(digests, conf_md5(version));
    }
    for (unsigned i = 0; i < N; i++) {
        const struct store_request *r = conf_batch_get(b, i);
        if (r->res.err != 0) {
            conf_fail(c, "%s %u: %s", store_verb_name(r->verb), i, r->res.detail);
        } else if (r->verb == STORE_GET) {
            g_autofree char *md5 = g_compute_checksum_for_data(G_CHECKSUM_MD5, sinks[i].bytes->data,
                                                               sinks[i].bytes->len);
            if (!g_hash_table_contains(digests, md5)) {
                conf_fail(c, "GET %u gave bytes that nobody put", i);
            } else if (strcmp(md5, r->res.object.etag) != 0) {
                conf_fail(c, "GET %u gave one version's ETag with another's bytes", i);
            }
        }
        conf_sink_clear(&sinks[i]);
    }
    conf_batch_free(b);
}

/* ---- 64 MiB: streamed, never whole in memory ---- */

struct check {
    uint64_t seed, next;
    bool wrong;
};

static int check_write(void *ctx, uint64_t off, const void *buf, size_t n)
{
    struct check *k = ctx;
    g_autofree guint8 *expected = g_malloc(n);
    conf_pattern_fill(k->seed, off, expected, n);
    k->wrong = k->wrong || off != k->next || memcmp(expected, buf, n) != 0;
    k->next = off + n;
    return 0;
}

static void big_body(struct conf *c, const void *arg)
{
    uint64_t n = 64 * MIB;
    g_autofree char *key = conf_key(c, "o");
    struct conf_pattern_source src;
    REQUEST(p, .verb = STORE_PUT, .key = key, .source = conf_source_pattern(&src, 64, n));
    TRY(conf_ok(c, &p));
    struct check k = {.seed = 64};
    REQUEST(g, .verb = STORE_GET, .key = key, .sink = {.write = check_write, .ctx = &k});
    TRY(conf_ok(c, &g));
    EXPECT(c, !k.wrong && k.next == n, "other bytes, or %" G_GUINT64_FORMAT " of them", k.next);
    k = (struct check){.seed = 64, .next = 13 * MIB + 1};
    REQUEST(r, .verb = STORE_GET, .key = key, .sink = {.write = check_write, .ctx = &k},
            .range = {.off = 13 * MIB + 1, .len = 29 * MIB, .set = true});
    TRY(conf_ok(c, &r));
    EXPECT(c, !k.wrong && k.next == 42 * MIB + 1, "other bytes in the range");
    TRY(conf_delete(c, key));
}

/* ---- cancellation ---- */

/* A request whose body stops at a gate until it has been cancelled. */
struct gate {
    struct mutex lock;
    struct cond changed;
    bool reached, open; /* lock */
    bool cancelling;    /* lock: done waits, so that cancel lies between submit and done */
    unsigned done;      /* lock */
};

static void gate_init(struct gate *g)
{
    *g = (struct gate){.open = false};
    mutex_init(&g->lock, RANK_LEAF);
    cond_init(&g->changed);
}

static void gate_fini(struct gate *g)
{
    cond_fini(&g->changed);
    mutex_fini(&g->lock);
}

static void gate_pass(struct gate *g)
{
    mutex_lock(&g->lock);
    g->reached = true;
    cond_broadcast(&g->changed);
    while (!g->open) {
        cond_wait(&g->changed, &g->lock);
    }
    mutex_unlock(&g->lock);
}

static void gate_done(struct store_request *req)
{
    struct gate *g = req->ctx;
    mutex_lock(&g->lock);
    while (g->cancelling) {
        cond_wait(&g->changed, &g->lock);
    }
    g->done++;
    g->reached = true;
    cond_broadcast(&g->changed);
    mutex_unlock(&g->lock);
}

static int gate_write(void *ctx, uint64_t off, const void *buf, size_t n)
{
    gate_pass(ctx);
    return 0;
}

static ssize_t gate_read(void *ctx, uint64_t off, void *buf, size_t n)
{
    gate_pass(ctx);
    memset(buf, 'x', n);
    return (ssize_t)n;
}

static void gate_cancel(struct gate *g, struct store *s, struct store_request *req)
{
    mutex_lock(&g->lock);
    g->cancelling = g->done == 0;
    bool cancel = g->cancelling;
    mutex_unlock(&g->lock);
    if (!cancel) {
        return;
    }
    store_cancel(s, req);
    mutex_lock(&g->lock);
    g->cancelling = false;
    cond_broadcast(&g->changed);
    mutex_unlock(&g->lock);
}

static unsigned gate_wait(struct gate *g)
{
    mutex_lock(&g->lock);
    while (g->done == 0) {
        cond_wait(&g->changed, &g->lock);
    }
    unsigned done = g->done;
    mutex_unlock(&g->lock);
    return done;
}

/* Submits, waits until the body flows, cancels, lets it flow, waits for done. */
static unsigned cancel_in_flight(struct conf *c, struct store_request *req, struct gate *g)
{
    req->bucket = c->bucket;
    req->done = gate_done;
    req->ctx = g;
    store_submit(c->store, req);
    mutex_lock(&g->lock);
    while (!g->reached) {
        cond_wait(&g->changed, &g->lock);
    }
    mutex_unlock(&g->lock);
    gate_cancel(g, c->store, req);
    mutex_lock(&g->lock);
    g->open = true;
    cond_broadcast(&g->changed);
    mutex_unlock(&g->lock);
    return gate_wait(g);
}

static void cancel_get(struct conf *c, const void *arg)
{
    g_autofree char *key = conf_key(c, "o");
    struct conf_pattern_source src;
    /* More than the sockets hold: it cannot end by itself first. */
    REQUEST(p, .verb = STORE_PUT, .key = key, .source = conf_source_pattern(&src, 1, 64 * MIB));
    TRY(conf_ok(c, &p));
    struct gate g;
    gate_init(&g);
    REQUEST(r, .verb = STORE_GET, .key = key, .sink = {.write = gate_write, .ctx = &g});
    unsigned done = cancel_in_flight(c, &r, &g);
    gate_fini(&g);
    EXPECT(c, done == 1, "ended %u times", done);
    EXPECT(c, r.res.err == -ECANCELED && r.res.cls == STORE_CLASS_FATAL, "GET ended with %d %s",
           r.res.err, r.res.detail);
    TRY(conf_put_text(c, key, "the store goes on"));
    TRY(conf_is_text(c, key, "the store goes on"));
}

static void cancel_put(struct conf *c, const void *arg)
{
    g_autofree char *key = conf_key(c, "o");
    TRY(conf_put_text(c, key, "old"));
    struct gate g;
    gate_init(&g);
    REQUEST(r, .verb = STORE_PUT, .key = key,
            .source = {.read = gate_read, .ctx = &g, .size = 8 * MIB});
    unsigned done = cancel_in_flight(c, &r, &g);
    gate_fini(&g);
    EXPECT(c, done == 1, "ended %u times", done);
    EXPECT(c, r.res.err == -ECANCELED, "PUT ended with %d %s", r.res.err, r.res.detail);
    TRY(conf_is_text(c, key, "old"));
}

static void cancel_part(struct conf *c, const void *arg)
{
    g_autofree char *key = conf_key(c, "o"), *id = NULL;
    TRY(conf_mpu_create(c, key, &id));
    struct gate g;
    gate_init(&g);
    REQUEST(r, .verb = STORE_MPU_PART, .key = key, .upload_id = id, .part_number = 1,
            .source = {.read = gate_read, .ctx = &g, .size = 8 * MIB});
    unsigned done = cancel_in_flight(c, &r, &g);
    gate_fini(&g);
    EXPECT(c, done == 1 && r.res.err == -ECANCELED, "ended %u times with %d", done, r.res.err);
    REQUEST(l, .verb = STORE_MPU_LIST_PARTS, .key = key, .upload_id = id);
    TRY(conf_ok(c, &l));
    EXPECT(c, l.res.parts->len == 0, "the part is there");
    TRY(conf_mpu_abort(c, key, id));
}

/* Cancelled at any moment, also before it started or after it ended: still exactly one end. */
static void cancel_storm(struct conf *c, const void *arg)
{
    enum { N = 64 };
    g_autofree char *base = conf_key(c, "");
    struct gate gates[N];
    struct store_request reqs[N];
    struct conf_pattern_source sources[N];
    char *names[N];
    for (unsigned i = 0; i < N; i++) {
        gate_init(&gates[i]);
        names[i] = g_strdup_printf("%s%u", base, i);
        reqs[i] = (struct store_request){.verb = STORE_PUT,
                                         .bucket = c->bucket,
                                         .key = names[i],
                                         .done = gate_done,
                                         .ctx = &gates[i]};
        reqs[i].source = conf_source_pattern(&sources[i], i, 200000);
        store_submit(c->store, &reqs[i]);
    }
    for (unsigned i = 0; i < N; i++) {
        gate_cancel(&gates[(i * 37) % N], c->store, &reqs[(i * 37) % N]);
    }
    unsigned finished = 0;
    for (unsigned i = 0; i < N; i++) {
        gate_wait(&gates[i]);
    }
    for (unsigned i = 0; i < N; i++) {
        int err = reqs[i].res.err;
        if (gates[i].done != 1 || (err != 0 && err != -ECANCELED)) {
            conf_fail(c, "request %u ended %u times with %d %s", i, gates[i].done, err,
                      reqs[i].res.detail);
        }
        if (err == 0 && c->failure == NULL) {
            finished++;
            g_autoptr(GBytes) b = conf_pattern(i, 200000);
            conf_is_bytes(c, names[i], b);
        }
        store_request_clear(&reqs[i]);
        gate_fini(&gates[i]);
        g_free(names[i]);
    }
    g_test_message("%u of %u ended before their cancel", finished, N);
}

/* A request is submitted from another's done. */
struct chain {
    struct conf *c;
    struct mutex lock;
    struct cond changed;
    unsigned left; /* lock */
    int err;       /* lock */
};

static void chain_done(struct store_request *req)
{
    struct chain *ch = req->ctx;
    mutex_lock(&ch->lock);
    ch->err = ch->err != 0 ? ch->err : req->res.err;
    bool more = --ch->left > 0;
    cond_broadcast(&ch->changed);
    mutex_unlock(&ch->lock);
    if (more) {
        store_submit(ch->c->store, req);
    }
}

static void submit_from_done(struct conf *c, const void *arg)
{
    g_autofree char *key = conf_key(c, "o");
    TRY(conf_put_text(c, key, "x"));
    struct chain ch = {.c = c, .left = 50};
    mutex_init(&ch.lock, RANK_LEAF);
    cond_init(&ch.changed);
    REQUEST(r, .verb = STORE_HEAD, .bucket = c->bucket, .key = key, .done = chain_done, .ctx = &ch);
    store_submit(c->store, &r);
    mutex_lock(&ch.lock);
    while (ch.left > 0) {
        cond_wait(&ch.changed, &ch.lock);
    }
    int err = ch.err;
    mutex_unlock(&ch.lock);
    cond_fini(&ch.changed);
    mutex_fini(&ch.lock);
    EXPECT(c, err == 0, "one of them ended with %d", err);
}

void conf_async_cases(GArray *cases)
{
    conf_add(cases, "async/concurrent-puts", concurrent_puts, NULL);
    conf_add(cases, "async/versions-do-not-mix", versions_do_not_mix, NULL);
    conf_add(cases, "async/64m", big_body, NULL);
    conf_add(cases, "async/cancel-get", cancel_get, NULL);
    conf_add(cases, "async/cancel-put", cancel_put, NULL);
    conf_add(cases, "async/cancel-part", cancel_part, NULL);
    conf_add(cases, "async/cancel-storm", cancel_storm, NULL);
    conf_add(cases, "async/submit-from-done", submit_from_done, NULL);
}
