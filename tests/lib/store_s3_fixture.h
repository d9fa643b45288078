/* SPDX-License-Identifier: Apache-2.0
 *
 * store_s3_fixture: a store_s3 that talks to a lying server (liar.h); for the tests of single replies and requests.
 */
#pragma once
#include "s3/store_s3.h"

#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "tests/lib/liar.h"

#define SECRET "a-very-secret-key"
#define ETAG "ETag: \"e1\"\r\n"

struct sunk {
    GString *got;
    uint64_t next;
};

struct fixture {
    struct liar *liar;
    struct store *store;
    struct sunk sunk;
    struct store_request req;
};

static inline int sink_write(void *ctx, uint64_t off, const void *buf, size_t n)
{
    struct sunk *s = ctx;
    if (s->got->len == 0) {
        s->next = off;
    }
    g_assert_cmpuint(off, ==, s->next);
    s->next += n;
    g_string_append_len(s->got, buf, (gssize)n);
    return 0;
}

static inline ssize_t source_read(void *ctx, uint64_t off, void *buf, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        ((char *)buf)[i] = (char)('a' + (off + i) % 26);
    }
    return (ssize_t)n;
}

static inline void setup(struct fixture *f, gconstpointer data)
{
    char access[] = "AKID", secret[] = SECRET;
    const struct s3_credentials c = {.access_key = access, .secret_key = secret};
    f->liar = liar_new();
    const struct store_s3_params p = {
        .endpoint = liar_url(f->liar), .credentials = &c, .connections = 1};
    g_assert_cmpint(store_s3_new(&p, &f->store), ==, 0);
    f->sunk.got = g_string_new(NULL);
}

static inline void teardown(struct fixture *f, gconstpointer data)
{
    store_request_clear(&f->req);
    store_free(f->store);
    liar_free(f->liar);
    g_string_free(f->sunk.got, TRUE);
}

static inline struct store_result *run(struct fixture *f, struct store_request req)
{
    store_request_clear(&f->req);
    g_string_truncate(f->sunk.got, 0);
    f->req = req;
    f->req.bucket = req.bucket ? req.bucket : "b";
    f->req.sink = (struct store_sink){.write = sink_write, .ctx = &f->sunk};
    if (f->req.source.size > 0) {
        f->req.source.read = source_read;
    }
    store_run(f->store, &f->req, NULL);
    g_assert_true((f->req.res.err == 0) == (f->req.res.cls == STORE_CLASS_OK));
    if (f->req.res.err < 0) {
        g_test_message("%s", f->req.res.detail);
        g_assert_null(strstr(f->req.res.detail, SECRET));
    }
    return &f->req.res;
}

#define RUN(...) run(f, (struct store_request){__VA_ARGS__})
#define GET_0_10 RUN(.verb = STORE_GET, .key = "k", .range = {.off = 0, .len = 10, .set = true})
#define GET_5_10 RUN(.verb = STORE_GET, .key = "k", .range = {.off = 5, .len = 10, .set = true})

static inline void expect(const struct store_result *r, int err, enum store_class cls)
{
    g_assert_cmpint(r->err, ==, err);
    g_assert_cmpint(r->cls, ==, cls);
}
