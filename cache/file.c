/* SPDX-License-Identifier: Apache-2.0
 *
 * file: a cache_file's life, its attributes and where it goes; the content is writer.c's. Threads:
 * any; everything under the file's lock. Two counts: `refs` are the users'; `life` also counts
 * what goes on without them (a commit, a stream that is being aborted), and frees the memory.
 */
#include "cache/file.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "base/workq.h"
#include "cache/draft.h"
#include "cache/journal.h"
#include "cache/local_sync.h"
#include "cache/reader.h"
#include "cache/seal.h"
#include "cache/stream.h"

struct file_base *file_base_new(const char *bucket, const char *key, const struct store_object *o)
{
    struct file_base *b = g_new0(struct file_base, 1);
    atomic_init(&b->refs, 1);
    b->bucket = g_strdup(bucket);
    b->key = g_strdup(key);
    store_object_copy(&b->object, o);
    return b;
}

struct file_base *file_base_ref(struct file_base *b)
{
    atomic_fetch_add(&b->refs, 1);
    return b;
}

void file_base_unref(struct file_base *b)
{
    if (!b || atomic_fetch_sub(&b->refs, 1) != 1)
        return;
    store_object_clear(&b->object);
    g_free(b->bucket);
    g_free(b->key);
    g_free(b);
}

/* ---- life ---- */

static void staged_dropped(void *ctx, uint64_t src, uint64_t n)
{
    struct cache_file *f = ctx;
    staging_drop(f->staging, src, n);
}

struct extents *file_map_new(struct cache_file *f)
{
    struct extents *map = extents_new();
    extents_on_dropped(map, staged_dropped, f);
    return map;
}

struct cache_file *file_new(struct cache *c, struct journal *j, uint64_t number, const char *bucket,
                            const char *key)
{
    struct cache_file *f = g_new0(struct cache_file, 1);
    f->cache = c;
    f->journal = j;
    f->number = number;
    atomic_init(&f->refs, 1);
    atomic_init(&f->life, 1);
    mutex_init(&f->lock, RANK_FILE);
    cond_init(&f->changed);
    f->bucket = g_strdup(bucket);
    f->key = g_strdup(key);
    f->map = file_map_new(f);
    f->draft_link.data = f;
    g_queue_init(&f->waiters);
    mutex_lock(&c->lock);
    c->n_files++;
    mutex_unlock(&c->lock);
    return f;
}

struct question {
    struct store *store;
    char *bucket;
};

static void ask_caps(void *arg)
{
    struct question *q = arg;
    struct store_caps caps;
    store_get_caps(q->store, q->bucket, &caps);
    g_free(q->bucket);
    g_free(q);
}

/* A commit will soon want to know: it takes round trips. */
static void expect_commit(struct cache *c, const char *bucket)
{
    if (atomic_flag_test_and_set(&c->caps_asked))
        return;
    struct question *q = g_new(struct question, 1);
    *q = (struct question){c->store, g_strdup(bucket)};
    workq_push(c->committers, ask_caps, q);
}

struct cache_file *cache_file_new(struct cache *c, const char *bucket, const char *key,
                                  const struct store_object *base, void *owner)
{
    struct cache_file *f = file_new(c, c->journal, journal_number(c->journal), bucket, key);
    f->owner = owner;
    if (base) {
        f->base = file_base_new(bucket, key, base);
        f->untagged_ns = base->untagged_ns;
        f->expect = g_strdup(base->etag);
        store_headers_copy(&f->headers, &base->headers);
        if (base->size > 0)
            extents_set(f->map, 0, base->size, EXTENT_BASE, 0);
        else
            f->fresh = true;
    } else {
        expect_commit(c, bucket);
        f->fresh = true;
        f->data_dirty = true;
        f->gen = f->data_gen = 1;
    }
    mutex_lock(&f->lock);
    file_count_locked(f);
    mutex_unlock(&f->lock);
    return f;
}

struct cache_file *cache_file_ref(struct cache_file *f)
{
    atomic_fetch_add(&f->refs, 1);
    return f;
}

void cache_file_unref(struct cache_file *f)
{
    if (!f || atomic_fetch_sub(&f->refs, 1) != 1)
        return;
    mutex_lock(&f->lock);
    while (f->calling)
        cond_wait(&f->changed, &f->lock);
    f->dead = true;
    f->owner = NULL;
    draft_cancel_locked(f);
    if (f->commit == COMMIT_IDLE) /* else it goes on, and detaches at its end */
        stream_detach_locked(f, f->kept ? STREAM_LEAVE : STREAM_ABORT);
    file_count_locked(f);
    mutex_unlock(&f->lock);
    file_release(f);
}

struct cache_file *file_hold(struct cache_file *f)
{
    atomic_fetch_add(&f->life, 1);
    return f;
}

bool file_hold_living(struct cache_file *f)
{
    unsigned n = atomic_load(&f->life);
    while (n > 0 && !atomic_compare_exchange_weak(&f->life, &n, n + 1))
        ;
    return n > 0;
}

void file_pin_free(struct staging_pin *pin)
{
    if (!pin)
        return;
    staging_unpin(pin);
    g_free(pin);
}

void file_recorded_locked(struct cache_file *f, bool recorded)
{
    if (f->recorded == recorded)
        return;
    f->recorded = recorded;
    if (!recorded)
        local_sync_remove(f->cache->local_sync, f);
    mutex_lock(&f->cache->lock);
    if (recorded)
        f->cache->sealed_files++;
    else
        f->cache->sealed_files--;
    mutex_unlock(&f->cache->lock);
}

void file_drafted_locked(struct cache_file *f, bool drafted)
{
    if (f->drafted == drafted)
        return;
    f->drafted = drafted;
    mutex_lock(&f->cache->lock);
    if (drafted)
        f->cache->drafted_files++;
    else
        f->cache->drafted_files--;
    mutex_unlock(&f->cache->lock);
}

static void file_free(struct cache_file *f)
{
    struct cache *c = f->cache;
    assert(!f->stream && f->commit == COMMIT_IDLE && g_queue_is_empty(&f->waiters));
    local_sync_remove(c->local_sync, f);
    if (!f->kept && seal_forget(f, UINT64_MAX, NULL) < 0)
        f->kept = true; /* what the journal says must stay true */
    mutex_lock(&f->lock);
    file_recorded_locked(f, false);
    file_drafted_locked(f, false);
    mutex_unlock(&f->lock);
    struct staging_pin *const pins[] = {f->recorded_pin, f->synced_pin};
    for (unsigned i = 0; i < G_N_ELEMENTS(pins); i++) {
        if (pins[i])
            staging_keep(pins[i]->s, true);
        file_pin_free(pins[i]);
    }
    extents_free(f->map);
    staging_unref(f->staging);
    file_base_unref(f->base);
    store_headers_clear(&f->headers);
    if (f->attempts)
        g_ptr_array_unref(f->attempts);
    g_free(f->bucket);
    g_free(f->key);
    g_free(f->expect);
    g_free(f->recorded_uuid);
    cond_fini(&f->changed);
    mutex_fini(&f->lock);
    g_free(f);
    /* Last: cache_free() waits for it. */
    mutex_lock(&c->lock);
    c->n_files--;
    c->events++;
    cond_broadcast(&c->changed);
    mutex_unlock(&c->lock);
}

void file_release(struct cache_file *f)
{
    if (atomic_fetch_sub(&f->life, 1) == 1)
        file_free(f);
}

static void release_job(void *arg)
{
    file_release(arg);
}

void file_release_later(struct cache_file *f)
{
    workq_push(f->cache->janitor, release_job, f);
}

/* ---- states ---- */

void file_count_locked(struct cache_file *f)
{
    bool dirty = file_dirty_locked(f) && !f->dead;
    if (dirty == f->counted)
        return;
    f->counted = dirty;
    mutex_lock(&f->cache->lock);
    if (dirty)
        f->cache->dirty_files++;
    else
        f->cache->dirty_files--;
    mutex_unlock(&f->cache->lock);
}

void file_wake(void *ctx)
{
    struct cache_file *f = ctx;
    mutex_lock(&f->lock);
    cond_broadcast(&f->changed);
    mutex_unlock(&f->lock);
}

int file_wait_locked(struct cache_file *f, struct cancel *cancel)
{
    if (cancel_fired(cancel))
        return -EINTR;
    cond_wait(&f->changed, &f->lock);
    return 0;
}

int file_enter_locked(struct cache_file *f, struct cancel *cancel)
{
    while (f->writing) {
        int r = file_wait_locked(f, cancel);
        if (r < 0)
            return r;
    }
    f->writing = true;
    return 0;
}

void file_leave_locked(struct cache_file *f)
{
    f->writing = false;
    cond_broadcast(&f->changed);
}

static int new_staging(struct cache_file *f, struct staging **ret, uint64_t *ret_number)
{
    struct cache *c = f->cache;
    bool ours = f->journal == c->journal; /* spares are in its directory */
    if (ours && staging_spares_take(c->spares, c->disk, ret, ret_number) == 0) {
        staging_reuse(*ret, c->spares, *ret_number);
        return 0;
    }
    *ret_number = journal_number(f->journal);
    g_autofree char *path = journal_staging_path(f->journal, *ret_number);
    int r = staging_create(path, c->disk, ret);
    if (r == 0 && ours)
        staging_reuse(*ret, c->spares, *ret_number);
    return r;
}

int file_staging_locked(struct cache_file *f, struct staging **ret)
{
    assert(f->writing);
    if (!f->staging) {
        struct staging *s = NULL;
        uint64_t number;
        mutex_unlock(&f->lock);
        int r = new_staging(f, &s, &number);
        mutex_lock(&f->lock);
        if (r < 0)
            return log_error_errno(r, "cannot stage %s/%s in %s", f->bucket, f->key, journal_dir(f->journal));
        f->staging = s;
        f->staging_number = number;
    }
    *ret = f->staging; /* stays while the file is entered */
    return 0;
}

void file_data_changed_locked(struct cache_file *f)
{
    f->data_dirty = true;
    f->data_gen = ++f->gen;
    file_count_locked(f);
    draft_want_locked(f);
}

/* ---- attributes ---- */

uint64_t cache_file_size(struct cache_file *f)
{
    mutex_lock(&f->lock);
    uint64_t n = extents_size(f->map);
    mutex_unlock(&f->lock);
    return n;
}

bool cache_file_dirty(struct cache_file *f)
{
    mutex_lock(&f->lock);
    bool dirty = file_dirty_locked(f);
    mutex_unlock(&f->lock);
    return dirty;
}

bool cache_file_data_dirty(struct cache_file *f)
{
    mutex_lock(&f->lock);
    bool dirty = f->data_dirty && !f->orphan;
    mutex_unlock(&f->lock);
    return dirty;
}

bool cache_file_failed(struct cache_file *f)
{
    mutex_lock(&f->lock);
    bool yes = f->failed_gen != 0 && f->failed_gen == f->gen; /* both are 0 before anything was written */
    mutex_unlock(&f->lock);
    return yes;
}

bool cache_file_conflicts(struct cache_file *f)
{
    mutex_lock(&f->lock);
    bool yes = f->conflict;
    mutex_unlock(&f->lock);
    return yes;
}

void cache_file_target(struct cache_file *f, char **ret_bucket, char **ret_key,
                       char **ret_etag)
{
    mutex_lock(&f->lock);
    *ret_bucket = g_strdup(f->bucket);
    *ret_key = g_strdup(f->key);
    *ret_etag = g_strcmp0(f->expect, "*") != 0 ? g_strdup(f->expect) : NULL;
    mutex_unlock(&f->lock);
}

void cache_file_headers(struct cache_file *f, struct store_headers *ret)
{
    mutex_lock(&f->lock);
    store_headers_copy(ret, &f->headers);
    mutex_unlock(&f->lock);
}

void cache_file_set_owner(struct cache_file *f, void *owner)
{
    mutex_lock(&f->lock);
    f->owner = owner;
    mutex_unlock(&f->lock);
}

bool cache_file_is_at(struct cache_file *f, const char *bucket, const char *key)
{
    mutex_lock(&f->lock);
    bool yes = strcmp(f->bucket, bucket) == 0 && strcmp(f->key, key) == 0 &&
               (!f->base || (strcmp(f->base->bucket, bucket) == 0 && strcmp(f->base->key, key) == 0));
    mutex_unlock(&f->lock);
    return yes;
}

static void set_target_locked(struct cache_file *f, const char *bucket, const char *key,
                              const char *expect)
{
    /* The new ones may be the old ones. */
    char *old[] = {f->bucket, f->key, f->expect};
    f->bucket = g_strdup(bucket);
    f->key = g_strdup(key);
    f->expect = g_strdup(expect);
    for (unsigned i = 0; i < G_N_ELEMENTS(old); i++)
        g_free(old[i]);
}

/* Waits until no commit is under way and, with `local`, no byte lives in a stream's parts only. */
static int settle_locked(struct cache_file *f, bool local, struct cancel *cancel)
{
    for (;;) {
        int r = 0;
        if (f->commit != COMMIT_IDLE)
            r = file_wait_locked(f, cancel);
        else if (local && extents_has(f->map, 0, UINT64_MAX, EXTENT_PUNCHED))
            r = committer_publish_locked(f, cancel);
        else
            return 0;
        if (r < 0)
            return r;
    }
}

int cache_file_retarget(struct cache_file *f, const char *bucket, const char *key,
                        const char *expect, struct cancel *cancel)
{
    struct cancel_watch watch = {.fired = file_wake, .ctx = f};
    cancel_watch(cancel, &watch);
    mutex_lock(&f->lock);
    int r = settle_locked(f, true, cancel);
    if (r == 0 && f->orphan) /* of which nothing comes under any name */
        r = -ESTALE;
    if (r == 0) {
        stream_detach_locked(f, STREAM_ABORT); /* its upload is bound to the old key */
        set_target_locked(f, bucket, key, expect);
        f->moved = f->base && (strcmp(f->base->bucket, bucket) != 0 || strcmp(f->base->key, key) != 0);
        f->gen++;
        if (f->recorded && !file_dirty_locked(f)) { /* back again: see cache_file_set_headers() */
            f->headers_dirty = true;
            f->headers_gen = f->gen;
        }
        file_count_locked(f);
        draft_want_locked(f);
    }
    mutex_unlock(&f->lock);
    cancel_unwatch(cancel, &watch);
    return r;
}

int cache_file_rebase(struct cache_file *f, const char *from_etag, const char *bucket,
                      const char *key, const struct store_object *now)
{
    mutex_lock(&f->lock);
    if (f->commit != COMMIT_IDLE || file_dirty_locked(f) || f->orphan || !f->base ||
        g_strcmp0(f->base->object.etag, from_etag) != 0 || f->base->object.size != now->size) {
        mutex_unlock(&f->lock);
        return -EAGAIN;
    }
    struct file_base *old = f->base;
    f->base = file_base_new(bucket, key, now);
    f->moved = false;
    set_target_locked(f, bucket, key, now->etag);
    file_count_locked(f);
    mutex_unlock(&f->lock);
    read_cache_alias(f->cache->readers, old->bucket, old->key, old->object.etag, bucket, key,
                     now->etag);
    file_base_unref(old);
    return 0;
}

int cache_file_tags_begin(struct cache_file *f, struct cancel *cancel, uint64_t *ret_begun)
{
    struct cancel_watch watch = {.fired = file_wake, .ctx = f};
    int r = 0;
    cancel_watch(cancel, &watch);
    mutex_lock(&f->lock);
    while (r == 0 && f->commit == COMMIT_RUNNING)
        r = file_wait_locked(f, cancel);
    *ret_begun = f->commits_begun;
    mutex_unlock(&f->lock);
    cancel_unwatch(cancel, &watch);
    return r;
}

bool cache_file_tags_end(struct cache_file *f, uint64_t begun)
{
    mutex_lock(&f->lock);
    f->untagged_ns = 0;
    bool alone = f->commits_begun == begun;
    mutex_unlock(&f->lock);
    return alone;
}

/* Waits until no commit is under way and, with fetch_base, no byte comes from the base. */
static int make_local_locked(struct cache_file *f, bool fetch_base, struct cancel *cancel)
{
    for (;;) {
        int r = settle_locked(f, fetch_base, cancel);
        if (r < 0 || !fetch_base)
            return r;
        struct file_base *base = f->base ? file_base_ref(f->base) : NULL;
        r = writer_fetch_base_locked(f, cancel);
        /* A flush may have begun meanwhile, and replaced the base. */
        bool overtaken = f->commit != COMMIT_IDLE || f->base != base;
        file_base_unref(base);
        if (!overtaken || (r < 0 && r != -ESTALE))
            return r;
    }
}

/* No replay may bring it back, and its upload is nobody's. */
static int bury_locked(struct cache_file *f)
{
    mutex_unlock(&f->lock);
    int r = seal_forget(f, UINT64_MAX, NULL);
    mutex_lock(&f->lock);
    if (r == 0)
        stream_detach_locked(f, STREAM_ABORT);
    return r;
}

int file_discard_locked(struct cache_file *f)
{
    f->orphan = true;
    int r = bury_locked(f);
    f->orphan = r == 0;
    f->fresh = f->fresh && r < 0;
    return r;
}

int cache_file_bury(struct cache_file *f)
{
    mutex_lock(&f->lock);
    int r = bury_locked(f);
    mutex_unlock(&f->lock);
    return r;
}

int cache_file_orphan(struct cache_file *f, bool fetch_base, struct cancel *cancel)
{
    struct cancel_watch watch = {.fired = file_wake, .ctx = f};
    cancel_watch(cancel, &watch);
    mutex_lock(&f->lock);
    int r = file_enter_locked(f, cancel);
    if (r == 0) {
        r = make_local_locked(f, fetch_base, cancel);
        if (r == 0) {
            f->orphan = true;
            f->fresh = false;
        }
        file_count_locked(f);
        file_leave_locked(f);
    }
    mutex_unlock(&f->lock);
    cancel_unwatch(cancel, &watch);
    return r;
}

void cache_file_unorphan(struct cache_file *f)
{
    mutex_lock(&f->lock);
    f->orphan = f->discarded; /* what was given up stays so */
    file_count_locked(f);
    draft_want_locked(f);
    mutex_unlock(&f->lock);
}
