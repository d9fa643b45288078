/* SPDX-License-Identifier: Apache-2.0
 *
 * world: a cache over a store in memory, for the tests of the write side: the smallest budgets and
 * parts that S3's rules allow, the calls of cache.h made synchronous, and a hook.
 */
#pragma once
#include <glib.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "base/cancel.h"
#include "base/mutex.h"
#include "cache/cache.h"
#include "s3/fault.h"
#include "s3/retry.h"
#include "tests/lib/fake_store.h"
#include "tests/lib/seed.h"

#define MIB (1ULL << 20)
#define PART (5 * MIB)

struct world {
    struct store *fake, *faulty, *store; /* faulty: with faults only */
    struct cache *cache;
    char *dir;
    struct mutex lock;
    struct cond changed;
    enum fake_action (*hook)(struct world *w, struct store_request *req); /* lock */
    unsigned hits;      /* lock: for hooks */
    unsigned committed; /* lock: callbacks */
    char *etag;         /* lock: of the last */
    unsigned parted;    /* lock: callbacks */
    char *beside;       /* lock: the last one's key */
};

struct world_params {
    const char *faults; /* NULL = none, and no retry */
    struct store_caps *caps;
    uint64_t disk; /* 0 = the least */
    unsigned uploads;
    uint64_t untagged_ttl_ns;
    enum cache_conflict on_conflict;
};

static inline enum fake_action world_hooked(void *ctx, struct store_request *req, uint64_t *cut)
{
    struct world *w = ctx;
    mutex_lock(&w->lock);
    enum fake_action a = w->hook ? w->hook(w, req) : FAKE_GO;
    mutex_unlock(&w->lock);
    return a;
}

static inline void world_set_hook(struct world *w,
                                  enum fake_action (*hook)(struct world *, struct store_request *))
{
    mutex_lock(&w->lock);
    w->hook = hook;
    w->hits = 0;
    mutex_unlock(&w->lock);
}

static inline void world_committed(void *owner, const struct store_object *now,
                                   bool same_content)
{
    struct world *w = owner;
    mutex_lock(&w->lock);
    w->committed++;
    g_free(w->etag);
    w->etag = g_strdup(now->etag);
    mutex_unlock(&w->lock);
}

static inline void world_parted(void *owner, const char *bucket, const char *key)
{
    struct world *w = owner;
    g_assert_cmpstr(bucket, ==, "b");
    mutex_lock(&w->lock);
    w->parted++;
    g_free(w->beside);
    w->beside = g_strdup(key);
    mutex_unlock(&w->lock);
}

static inline struct world *world_new(uint64_t seed, const struct world_params *p)
{
    struct world *w = g_new0(struct world, 1);
    mutex_init(&w->lock, RANK_LEAF);
    cond_init(&w->changed);
    w->dir = g_dir_make_tmp("mlopsfs-writer-XXXXXX", NULL);
    w->fake = fake_store_new(
        &(struct fake_params){.seed = seed, .caps = p->caps, .hook = world_hooked, .ctx = w});
    w->store = w->fake;
    if (p->faults) {
        g_assert_cmpint(store_fault_new(w->fake, p->faults, &w->faulty), ==, 0);
        struct store_retry_params rp = {
            .op_timeout_ns = 60000000000ULL, .base_ns = 100000, .cap_ns = 1000000, .seed = seed | 1};
        g_assert_cmpint(store_retry_new(w->faulty, &rp, &w->store), ==, 0);
    }
    struct cache_params cp = {
        .store = w->store,
        .dir = w->dir,
        .memory = 32 * MIB,
        .disk = p->disk,
        .uploads = p->uploads,
        .part_size = PART,
        .untagged_ttl_ns = p->untagged_ttl_ns,
        .settle_ns = 1,
        .committed = world_committed,
        .on_conflict = p->on_conflict,
        .parted = world_parted,
    };
    g_assert_cmpint(cache_new(&cp, &w->cache), ==, 0);
    return w;
}

/* Nothing may be left: no staged byte, no upload, no file in the staging directory. */
static inline void world_free(struct world *w)
{
    struct cache *c = w->cache;
    cache_free(c);
    g_assert_cmpuint(fake_store_uploads(w->fake), ==, 0);
    store_free(w->store);
    g_assert_cmpint(rmdir(w->dir), ==, 0);
    g_free(w->dir);
    g_free(w->etag);
    g_free(w->beside);
    cond_fini(&w->changed);
    mutex_fini(&w->lock);
    g_free(w);
}

/* ---- calls made synchronous ---- */

struct call {
    struct mutex lock;
    struct cond changed;
    bool done; /* lock */
    int err;
    uint8_t *to;
    size_t got;
};

static inline void call_init(struct call *c, void *to)
{
    *c = (struct call){.to = to};
    mutex_init(&c->lock, RANK_LEAF);
    cond_init(&c->changed);
}

static inline void call_finish(struct call *c, int err)
{
    mutex_lock(&c->lock);
    c->err = err;
    c->done = true;
    cond_signal(&c->changed);
    mutex_unlock(&c->lock);
}

static inline int call_wait(struct call *c)
{
    mutex_lock(&c->lock);
    while (!c->done)
        cond_wait(&c->changed, &c->lock);
    mutex_unlock(&c->lock);
    cond_fini(&c->changed);
    mutex_fini(&c->lock);
    return c->err;
}

static inline void call_read_done(struct cache_read *r, int err, const struct iovec *iov, int n)
{
    struct call *c = r->ctx;
    for (int i = 0; err == 0 && i < n; i++) {
        memcpy(c->to + c->got, iov[i].iov_base, iov[i].iov_len);
        c->got += iov[i].iov_len;
    }
    call_finish(c, err);
}

static inline void call_flush_done(struct cache_wait *w, int err)
{
    call_finish(w->ctx, err);
}

/* Bytes read, or -errno. */
static inline ssize_t read_at(struct cache_handle *h, void *buf, size_t n, uint64_t off)
{
    size_t got = 0;
    while (got < n) {
        struct call c;
        call_init(&c, (uint8_t *)buf + got);
        struct cache_read r = {
            .off = off + got, .len = MIN(n - got, 4 * MIB), .done = call_read_done, .ctx = &c};
        cache_read(h, &r);
        int err = call_wait(&c);
        if (err < 0)
            return err;
        if (c.got == 0)
            break;
        got += c.got;
    }
    return (ssize_t)got;
}

static inline int flush(struct cache_handle *h)
{
    struct call c;
    call_init(&c, NULL);
    struct cache_wait w = {.done = call_flush_done, .ctx = &c};
    cache_flush(h, &w);
    return call_wait(&c);
}

static inline struct cache_file *open_object(struct world *w, const char *key)
{
    struct store_object o = {0};
    GBytes *b = fake_store_get(w->fake, "b", key, &o);
    g_assert_nonnull(b);
    g_bytes_unref(b);
    struct cache_file *f = cache_file_new(w->cache, "b", key, &o, w);
    store_object_clear(&o);
    return f;
}

static inline void assert_object(struct world *w, const char *key, const void *bytes, size_t n)
{
    GBytes *b = fake_store_get(w->fake, "b", key, NULL);
    g_assert_nonnull(b);
    g_assert_cmpuint(g_bytes_get_size(b), ==, n);
    g_assert_true(n == 0 || memcmp(g_bytes_get_data(b, NULL), bytes, n) == 0);
    g_bytes_unref(b);
}

static inline uint64_t count(struct world *w, enum store_verb v)
{
    return fake_store_count(w->fake, v);
}

static inline void fill(uint8_t *buf, size_t n, uint64_t salt)
{
    uint64_t s = salt * 0x9e3779b97f4a7c15ULL | 1;
    for (size_t i = 0; i < n; i += 8) {
        s ^= s >> 12;
        s ^= s << 25;
        s ^= s >> 27;
        memcpy(buf + i, &s, MIN(n - i, 8));
    }
}

static inline struct world *plain(void)
{
    return world_new(test_seed(), &(struct world_params){0});
}

/* Writes n bytes in order, in steps; byte pattern by fill(off). */
static inline uint8_t *write_in_order(struct cache_handle *h, size_t n)
{
    uint8_t *all = g_malloc(n);
    fill(all, n, n);
    for (size_t off = 0; off < n; off += 256 << 10)
        g_assert_cmpint(cache_write(h, all + off, MIN(n - off, 256 << 10), off, false, NULL), ==,
                        0);
    return all;
}
