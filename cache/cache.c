/* SPDX-License-Identifier: Apache-2.0
 *
 * cache: what the files share: queues of work, budgets, and the events by which a writer that
 * waits for room learns of space. Threads: any. `lock` ranks just above the upload queue's and is
 * never held while another lock is taken.
 */
#include "cache/cache.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/budget.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/workq.h"
#include "cache/draft.h"
#include "cache/file.h"
#include "cache/journal.h"
#include "cache/local_sync.h"
#include "cache/reader.h"
#include "cache/stream.h"
#include "cache/sweep.h"
#include "cache/upload.h"

#define RANK_CACHE ((enum mutex_rank)(RANK_COMMIT + 2))
#define DELIVER_THREADS 2
#define COMMIT_THREADS 256 /* each commit waits in one; they start when needed */
#define UPLOADS_DEFAULT 16
#define SPARES_MAX 256 /* staging files of small files: each commit gives one back and each new file takes one */
#define ARENA_MIN (8ULL << 20)
#define BUFFERS_MIN (16ULL << 20)
/* Staging must hold a part in the making, some under way, and a commit's scratch. */
#define DISK_MIN (40ULL << 20)
#define RESERVE_MIN (10ULL << 20)
#define RESERVE_MAX (256ULL << 20)
#define PAGE 4096ULL
#define SETTLE_NS (30 * NSEC_PER_SEC)

static uint64_t arena_size(uint64_t memory)
{
    uint64_t buffers = MAX(BUFFERS_MIN, memory / 8);
    return memory > buffers + ARENA_MIN ? memory - buffers : ARENA_MIN;
}

static int cache_start(struct cache *c, const struct cache_params *p)
{
    int r = workq_new("deliver", DELIVER_THREADS, &c->deliver);
    if (r == 0)
        r = workq_new("commit", COMMIT_THREADS, &c->committers);
    if (r == 0)
        r = workq_new("janitor", 1, &c->janitor);
    if (r == 0)
        r = sweep_new(c, &c->sweep);
    if (r < 0)
        return log_error_errno(r, "cannot start the cache's threads");
    struct read_cache_params rp = {
        .store = p->store,
        .deliver = c->deliver,
        .memory = arena_size(p->memory),
    };
    r = read_cache_new(&rp, &c->readers);
    if (r < 0)
        return log_error_errno(r, "cannot make a block cache of %" G_GUINT64_FORMAT " MiB",
                               rp.memory >> 20);
    r = journal_new(p->dir, p->bucket, &c->journal);
    if (r < 0)
        return log_error_errno(r, "cannot keep a journal in %s", p->dir);
    r = local_sync_new(c, p->local_sync_ns, &c->local_sync);
    if (r < 0)
        return log_error_errno(r, "cannot start the cache's threads");
    if (p->recovered)
        r = drafter_new(p->draft_ns, &c->drafter);
    return r < 0 ? log_error_errno(r, "cannot start the cache's threads") : 0;
}

static void cache_destroy(struct cache *c)
{
    drafter_free(c->drafter);
    /* Commits use readers and push to the others; readers deliver. */
    if (c->committers)
        workq_free(c->committers);
    if (c->readers)
        read_cache_free(c->readers);
    if (c->janitor)
        workq_free(c->janitor);
    if (c->deliver)
        workq_free(c->deliver);
    sweep_free(c->sweep); /* all of them may ask it for something */
    upload_queue_free(c->uploads);
    staging_spares_free(c->spares);
    budget_free(c->disk);
    budget_free(c->reserve);
    assert(g_queue_is_empty(&c->streams));
    cond_fini(&c->changed);
    mutex_fini(&c->lock);
    if (c->tagless)
        g_hash_table_unref(c->tagless);
    local_sync_free(c->local_sync);
    journal_free(c->journal);
    for (guint i = 0; i < c->adopted->len; i++)
        journal_free(c->adopted->pdata[i]);
    g_ptr_array_unref(c->adopted);
    g_free(c->bucket);
    g_free(c->recovered);
    g_free(c->origin);
    g_free(c->dir);
    g_free(c);
}

int cache_new(const struct cache_params *p, struct cache **ret)
{
    struct cache *c = g_new0(struct cache, 1);
    uint64_t disk = MAX(p->disk, DISK_MIN);
    uint64_t reserve = CLAMP(disk / 4, RESERVE_MIN, RESERVE_MAX);
    c->store = p->store;
    c->dir = g_strdup(p->dir);
    c->bucket = g_strdup(p->bucket);
    c->recovered = g_strdup(p->recovered);
    c->origin = g_strdup(p->origin ? p->origin : "");
    c->adopted = g_ptr_array_new();
    c->committed = p->committed;
    c->untagged_ttl_ns = p->untagged_ttl_ns;
    c->settle_ns = p->settle_ns ? p->settle_ns : SETTLE_NS;
    c->on_conflict = p->on_conflict;
    c->parted = p->parted;
    plan_limits_init(&c->limits, p->part_size, reserve - PAGE);
    c->limits.holes_max = p->holes_max ? p->holes_max : UINT64_MAX;
    c->disk = budget_new(disk - reserve);
    c->reserve = budget_new(reserve);
    c->spares = staging_spares_new(SPARES_MAX);
    c->uploads = upload_queue_new(p->store, p->uploads ? p->uploads : UPLOADS_DEFAULT);
    mutex_init(&c->lock, RANK_CACHE);
    cond_init(&c->changed);
    g_queue_init(&c->streams);
    int r = cache_start(c, p);
    if (r < 0) {
        cache_destroy(c);
        return r;
    }
    *ret = c;
    return 0;
}

void cache_free(struct cache *c)
{
    if (!c)
        return;
    /* What the last references left behind: commits that go on, uploads being aborted. */
    mutex_lock(&c->lock);
    while (c->n_files > 0)
        cond_wait(&c->changed, &c->lock);
    mutex_unlock(&c->lock);
    local_sync_stop(c->local_sync);
    cache_destroy(c);
}

int cache_sync_local(struct cache *c, struct cache_file *f)
{
    return f ? local_sync_file(c->local_sync, f) : local_sync_run(c->local_sync);
}

struct workq *cache_deliver(struct cache *c)
{
    return c->deliver;
}

void cache_get_stats(struct cache *c, struct cache_stats *ret)
{
    struct read_cache_stats rs;
    read_cache_get_stats(c->readers, &rs);
    *ret = (struct cache_stats){
        .staged = budget_used(c->disk) + budget_used(c->reserve),
        .unsynced_files = local_sync_count(c->local_sync),
        .uploading = upload_queue_bytes(c->uploads),
        .read_hits = rs.hits,
        .read_misses = rs.misses,
        .bytes_fetched = rs.bytes_fetched,
    };
    mutex_lock(&c->lock);
    ret->dirty_files = c->dirty_files;
    ret->sealed_files = c->sealed_files;
    ret->drafted_files = c->drafted_files;
    ret->commits = c->commits;
    ret->commit_errors = c->commit_errors;
    ret->conflicts = c->conflicts;
    mutex_unlock(&c->lock);
}

void cache_event(struct cache *c)
{
    mutex_lock(&c->lock);
    c->events++;
    cond_broadcast(&c->changed);
    mutex_unlock(&c->lock);
}

void cache_work_begin(struct cache *c)
{
    mutex_lock(&c->lock);
    c->work++;
    mutex_unlock(&c->lock);
}

void cache_work_end(struct cache *c)
{
    mutex_lock(&c->lock);
    assert(c->work > 0);
    c->work--;
    c->events++;
    cond_broadcast(&c->changed);
    mutex_unlock(&c->lock);
}

uint64_t cache_events(struct cache *c, unsigned *ret_work)
{
    mutex_lock(&c->lock);
    uint64_t n = c->events;
    if (ret_work)
        *ret_work = c->work;
    mutex_unlock(&c->lock);
    return n;
}

static void wake(void *ctx)
{
    struct cache *c = ctx;
    mutex_lock(&c->lock);
    cond_broadcast(&c->changed);
    mutex_unlock(&c->lock);
}

int cache_wait_event(struct cache *c, uint64_t seen, struct cancel *cancel)
{
    struct cancel_watch watch = {.fired = wake, .ctx = c};
    cancel_watch(cancel, &watch);
    mutex_lock(&c->lock);
    while (c->events == seen && !cancel_fired(cancel))
        cond_wait(&c->changed, &c->lock);
    int r = c->events == seen ? -EINTR : 0;
    mutex_unlock(&c->lock);
    cancel_unwatch(cancel, &watch);
    return r;
}

static uint64_t squeeze_streams(struct cache *c)
{
    g_autoptr(GPtrArray) files = g_ptr_array_new();
    mutex_lock(&c->lock);
    for (GList *l = c->streams.head; l; l = l->next)
        g_ptr_array_add(files, file_hold(l->data));
    mutex_unlock(&c->lock);

    uint64_t given = 0;
    for (unsigned i = 0; i < files->len; i++) {
        struct cache_file *f = files->pdata[i];
        mutex_lock(&f->lock);
        stream_punch_locked(f);
        struct staging *s = f->staging ? staging_ref(f->staging) : NULL;
        mutex_unlock(&f->lock);
        if (s)
            given += staging_reclaim(s);
        staging_unref(s);
        file_release(f);
    }
    return given;
}

uint64_t cache_squeeze(struct cache *c, struct staging *s, bool streams)
{
    /* One at a time: who finds nothing to give back must know that nobody else is giving it. */
    mutex_lock(&c->lock);
    while (c->squeezing)
        cond_wait(&c->changed, &c->lock);
    c->squeezing = true;
    mutex_unlock(&c->lock);

    uint64_t given = staging_reclaim(s);
    if (given == 0 && streams)
        given = squeeze_streams(c);
    if (given == 0 && streams && local_sync_run(c->local_sync) == 0) /* lets go of what older seals refer to */
        given = staging_reclaim(s);

    mutex_lock(&c->lock);
    c->squeezing = false;
    if (given > 0)
        c->events++;
    cond_broadcast(&c->changed);
    mutex_unlock(&c->lock);
    return given;
}
