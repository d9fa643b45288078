/* SPDX-License-Identifier: Apache-2.0
 *
 * s3/retry: a GET that breaks is resumed at its byte, under the version of its first bytes.
 */
#include <errno.h>
#include <glib.h>
#include <string.h>

#include "tests/lib/retry_rig.h"
#include "tests/lib/seed.h"

/* GET */

struct body {
    char *data;    /* as delivered */
    uint64_t from; /* of the object */
    uint64_t n, max;
    int fail_at; /* this many writes, then -ENOMEM; 0 = never */
};

static int body_write(void *ctx, uint64_t off, const void *buf, size_t n)
{
    struct body *b = ctx;
    if (b->fail_at && --b->fail_at == 0)
        return -ENOMEM;
    g_assert_cmpuint(off, ==, b->from + b->n); /* no gap, no overlap */
    g_assert_cmpuint(b->n + n, <=, b->max);
    memcpy(b->data + b->n, buf, n);
    b->n += n;
    return 0;
}

struct cuts {
    uint64_t prng;
    const struct store_request *outer;
    const struct body *body;
    const char *etag;
    unsigned cuts;
};

/* Cuts three of four attempts somewhere; sees that each one asks for just what is missing. */
static enum fake_action random_cuts(struct rig *rig, unsigned n, struct store_request *req,
                                    uint64_t *cut)
{
    struct cuts *c = rig->arg;
    if (c->body->n > 0) {
        g_assert_true(req->range.set);
        g_assert_cmpuint(req->range.off, ==, c->body->from + c->body->n);
        g_assert_cmpstr(req->if_match, ==, c->etag);
        if (c->outer->range.set && c->outer->range.len)
            g_assert_cmpuint(req->range.off + req->range.len, ==,
                             c->outer->range.off + c->outer->range.len);
    } else {
        g_assert_cmpstr(req->if_match, ==, c->outer->if_match);
    }
    if (test_random(&c->prng) % 4 == 0)
        return FAKE_GO;
    c->cuts++;
    if (test_random(&c->prng) % 8 == 0)
        return rig_fail_503(req);
    *cut = test_random(&c->prng) % 60000;
    return FAKE_GO;
}

static void one_cut_get(struct rig *rig, struct cuts *c, const char *data, uint64_t size)
{
    _cleanup_request_ struct store_request get = {.verb = STORE_GET, .bucket = "b", .key = "k"};
    uint64_t *x = &c->prng;
    get.range.set = test_random(x) % 4;
    get.range.off = get.range.set ? test_random(x) % size : 0;
    get.range.len = get.range.set && test_random(x) % 3 ? 1 + test_random(x) % size : 0;
    get.if_match = test_random(x) % 2 ? c->etag : NULL;
    uint64_t end = get.range.len ? MIN(size, get.range.off + get.range.len) : size;
    g_autofree char *got = g_malloc(size);
    struct body body = {.data = got, .from = get.range.off, .max = size};
    get.sink = (struct store_sink){.write = body_write, .ctx = &body};
    c->outer = &get;
    c->body = &body;
    rig->arg = c;
    g_assert_cmpint(store_run(rig->store, &get, NULL), ==, 0);
    g_assert_cmpmem(got, body.n, data + get.range.off, end - get.range.off);
    g_assert_cmpuint(get.res.bytes, ==, body.n);
    g_assert_cmpuint(get.res.object.size, ==, size);
    g_assert_cmpstr(get.res.object.etag, ==, c->etag);
}

static void test_get_resumed(void)
{
    uint64_t seed = test_seed();
    struct cuts c = {.prng = seed};
    for (int i = 0; i < 300; i++) {
        struct rig rig;
        rig_init_with(&rig, random_cuts, test_random(&c.prng),
                      (struct store_retry_params){.op_timeout_ns = HOUR});
        uint64_t size = 1 + test_random(&c.prng) % 300000;
        g_autofree char *data = g_malloc(size);
        for (uint64_t j = 0; j < size; j++)
            data[j] = (char)test_random(&c.prng);
        g_autofree char *etag = fake_store_put(rig.fake, "b", "k", data, size);
        c.etag = etag;
        for (int k = 0; k < 4; k++)
            one_cut_get(&rig, &c, data, size);
        rig_fini(&rig);
    }
    g_assert_cmpuint(c.cuts, >, 1000);
}

enum change { CHANGE_BYTES, CHANGE_SHORTER, CHANGE_DELETED, CHANGE_UNSEEN };

static enum fake_action change_after_cut(struct rig *rig, unsigned n, struct store_request *req,
                                         uint64_t *cut)
{
    static const char other[] = "OTHEROTHER";
    if (n == 0) {
        *cut = 4;
        return FAKE_GO;
    }
    switch (*(enum change *)rig->arg) {
    case CHANGE_BYTES:
        g_free(fake_store_put(rig->fake, "b", "k", other, 10));
        break;
    case CHANGE_SHORTER:
        g_free(fake_store_put(rig->fake, "b", "k", other, 2));
        break;
    case CHANGE_DELETED:
        fake_store_delete(rig->fake, "b", "k");
        break;
    case CHANGE_UNSEEN: /* by a server that does not know If-Match */
        g_free(fake_store_put(rig->fake, "b", "k", other, 10));
        req->if_match = NULL;
        break;
    }
    return FAKE_GO;
}

static void test_get_changed(void)
{
    for (enum change change = CHANGE_BYTES; change <= CHANGE_UNSEEN; change++) {
        struct rig rig;
        rig_init(&rig, change_after_cut);
        rig.arg = &change;
        g_free(fake_store_put(rig.fake, "b", "k", "0123456789", 10));
        char got[16];
        struct body body = {.data = got, .max = sizeof(got)};
        _cleanup_request_ struct store_request get = {.verb = STORE_GET, .bucket = "b", .key = "k"};
        get.sink = (struct store_sink){.write = body_write, .ctx = &body};
        g_assert_cmpint(store_run(rig.store, &get, NULL), ==, -ESTALE);
        g_assert_cmpint(get.res.cls, ==, STORE_CLASS_CONFLICT);
        g_assert_cmpuint(rig.attempts, ==, 2);
        g_assert_cmpmem(got, 4, "0123", 4);
        if (change != CHANGE_UNSEEN)
            g_assert_cmpuint(body.n, ==, 4);
        rig_fini(&rig);
    }
}

static enum fake_action cut_at_end(struct rig *rig, unsigned n, struct store_request *req,
                                   uint64_t *cut)
{
    *cut = *(uint64_t *)rig->arg;
    return FAKE_GO;
}

/* All bytes came, only the end of the reply did not: no further request. */
static void test_get_whole(void)
{
    static const struct store_range ranges[] = {{0},
                                                {.set = true, .off = 3, .len = 4},
                                                {.set = true, .off = 3},
                                                {.set = true, .off = 3, .len = 50}};
    static const uint64_t lengths[] = {10, 4, 7, 7};
    for (size_t i = 0; i < G_N_ELEMENTS(ranges); i++) {
        struct rig rig;
        rig_init(&rig, cut_at_end);
        uint64_t cut = lengths[i];
        rig.arg = &cut;
        g_autofree char *etag = fake_store_put(rig.fake, "b", "k", "0123456789", 10);
        char got[16];
        struct body body = {.data = got, .from = ranges[i].off, .max = sizeof(got)};
        _cleanup_request_ struct store_request get = {.verb = STORE_GET, .bucket = "b", .key = "k"};
        get.range = ranges[i];
        get.sink = (struct store_sink){.write = body_write, .ctx = &body};
        g_assert_cmpint(store_run(rig.store, &get, NULL), ==, 0);
        g_assert_cmpuint(get.res.bytes, ==, lengths[i]);
        g_assert_cmpstr(get.res.object.etag, ==, etag);
        g_assert_cmpuint(get.res.object.size, ==, 10);
        g_assert_cmpuint(rig.attempts, ==, 1);
        rig_fini(&rig);
    }
}

static enum fake_action lose_all(struct rig *rig, unsigned n, struct store_request *req,
                                 uint64_t *cut)
{
    return rig_lose_reply(req);
}

/* The reader's refusal ends it; so does a broken body of which no version is known. */
static void test_get_given_up(void)
{
    struct rig rig;
    rig_init(&rig, NULL);
    g_free(fake_store_put(rig.fake, "b", "k", "0123456789", 10));
    char got[16];
    struct body body = {.data = got, .max = sizeof(got), .fail_at = 1};
    _cleanup_request_ struct store_request get = {.verb = STORE_GET, .bucket = "b", .key = "k"};
    get.sink = (struct store_sink){.write = body_write, .ctx = &body};
    g_assert_cmpint(store_run(rig.store, &get, NULL), ==, -ENOMEM);
    g_assert_cmpuint(rig.attempts, ==, 1);
    /* Also when the layer below takes it for a broken connection. */
    rig.script = lose_all;
    body.fail_at = 1;
    g_assert_cmpint(store_run(rig.store, &get, NULL), ==, -ENOMEM);
    g_assert_cmpint(get.res.cls, ==, STORE_CLASS_FATAL);
    g_assert_cmpuint(rig.attempts, ==, 2);
    body.fail_at = 0;
    g_assert_cmpint(store_run(rig.store, &get, NULL), ==, -ECONNRESET);
    g_assert_cmpuint(get.res.bytes, ==, 10);
    g_assert_cmpuint(rig.attempts, ==, 3);
    rig_fini(&rig);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/retry/get/resumed", test_get_resumed);
    g_test_add_func("/retry/get/changed", test_get_changed);
    g_test_add_func("/retry/get/whole", test_get_whole);
    g_test_add_func("/retry/get/given-up", test_get_given_up);
    return g_test_run();
}
