/* SPDX-License-Identifier: Apache-2.0
 *
 * committer: when a file is committed, who waits for it, and what a commit changes. Threads: the
 * commit queue's run commits; anyone asks for one. Everything under the file's lock but the
 * publishing itself.
 *
 * One commit at a time per file. It seals the file as of its start (generation `gen`): a copy of
 * the map, headers and target; staging is pinned. Who asked for a generation up to that is served
 * by it; who asks later waits for the next one, which the same job runs. On success, what was
 * staged before the seal is BASE of the new version; what was staged after stays.
 */
#include <assert.h>
#include <errno.h>

#include "base/log.h"
#include "base/workq.h"
#include "cache/commit.h"
#include "cache/conflict.h"
#include "cache/draft.h"
#include "cache/outcome.h"
#include "cache/reader.h"
#include "cache/seal.h"
#include "cache/stream.h"

struct waiter {
    uint64_t want; /* the generation that must be committed */
    struct cache_wait *w; /* NULL: a thread waits on the file's `changed` */
    struct cache_handle *handle;
    bool sealed; /* does not want what a writer has not sealed yet */
    bool finished;
    int err;
};

/* ---- who waits ---- */

static void waiter_deliver(void *arg)
{
    struct waiter *wt = arg;
    wt->w->done(wt->w, wt->err);
    g_free(wt);
}

int committer_unseen_locked(struct cache_handle *h)
{
    struct cache_file *f = h->file;
    if (h->err_seen == f->err_seq)
        return 0;
    h->err_seen = f->err_seq;
    return f->err;
}

/* Serves those who wait for a generation up to gen. */
static void waiters_finish_locked(struct cache_file *f, uint64_t gen, int err)
{
    for (GList *l = f->waiters.head, *next; l; l = next) {
        next = l->next;
        struct waiter *wt = l->data;
        if (wt->want > gen)
            continue;
        g_queue_delete_link(&f->waiters, l);
        int unseen = wt->handle ? committer_unseen_locked(wt->handle) : 0;
        wt->err = err ? err : unseen;
        wt->finished = true;
        if (wt->w)
            workq_push(f->cache->deliver, waiter_deliver, wt);
    }
    cond_broadcast(&f->changed);
}

static struct waiter *wait_for_locked(struct cache_file *f, uint64_t gen, struct cache_handle *h,
                                      struct cache_wait *w)
{
    struct waiter *wt = g_new0(struct waiter, 1);
    wt->want = gen;
    wt->w = w;
    wt->handle = h;
    w->layer = wt;
    g_queue_push_tail(&f->waiters, wt);
    return wt;
}

static bool is_unsealed_locked(const struct cache_file *f)
{
    return f->data_gen > (f->recorded ? f->recorded_gen : 0);
}

/* Whether a writer is at what the next commit would take, and nobody has asked for that: it stays until somebody seals it. */
static bool postpone_locked(struct cache_file *f)
{
    if (f->writers == 0 || !is_unsealed_locked(f) || g_queue_is_empty(&f->waiters))
        return false;
    for (GList *l = f->waiters.head; l; l = l->next)
        if (!((struct waiter *)l->data)->sealed)
            return false;
    waiters_finish_locked(f, UINT64_MAX, -EBUSY);
    return true;
}

void committer_wait_locked(struct cache_file *f, struct cache_handle *h, struct cache_wait *w)
{
    wait_for_locked(f, f->gen, h, w);
    committer_start_locked(f);
}

void committer_wait_running_locked(struct cache_file *f, struct cache_wait *w)
{
    assert(f->commit == COMMIT_RUNNING);
    wait_for_locked(f, f->sealed_gen, NULL, w);
}

bool committer_unwait_locked(struct cache_file *f, struct cache_wait *w)
{
    for (GList *l = f->waiters.head; l; l = l->next) {
        struct waiter *wt = l->data;
        if (wt->w != w)
            continue;
        g_queue_delete_link(&f->waiters, l);
        g_free(wt);
        return true;
    }
    return false;
}

int committer_publish_locked(struct cache_file *f, struct cancel *cancel)
{
    struct waiter wt = {.want = f->commit == COMMIT_RUNNING && f->stream ? f->sealed_gen : f->gen};
    g_queue_push_tail(&f->waiters, &wt);
    committer_start_locked(f);
    while (!wt.finished) {
        if (file_wait_locked(f, cancel) < 0) {
            g_queue_remove(&f->waiters, &wt);
            return -EINTR;
        }
    }
    return wt.err;
}

void cache_flush(struct cache_handle *h, struct cache_wait *w)
{
    struct cache_file *f = h->file;
    mutex_lock(&f->lock);
    if (file_dirty_locked(f) || f->commit != COMMIT_IDLE) {
        committer_wait_locked(f, h, w);
        mutex_unlock(&f->lock);
        return;
    }
    int err = f->orphan && !f->discarded ? 0 : committer_unseen_locked(h);
    mutex_unlock(&f->lock);
    w->done(w, err);
}

bool cache_flush_cancel(struct cache_handle *h, struct cache_wait *w)
{
    return cache_file_flush_cancel(h->file, w);
}

bool cache_file_flush_start(struct cache_file *f, bool sealed, struct cache_wait *w)
{
    mutex_lock(&f->lock);
    bool any = file_dirty_locked(f) || f->commit != COMMIT_IDLE;
    if (any) {
        wait_for_locked(f, f->gen, NULL, w)->sealed = sealed;
        committer_start_locked(f);
    }
    mutex_unlock(&f->lock);
    return any;
}

void cache_file_writer(struct cache_file *f, bool more)
{
    mutex_lock(&f->lock);
    assert(more || f->writers > 0);
    f->writers += more ? 1 : -1U;
    mutex_unlock(&f->lock);
}

bool cache_file_flush_cancel(struct cache_file *f, struct cache_wait *w)
{
    mutex_lock(&f->lock);
    bool mine = committer_unwait_locked(f, w);
    mutex_unlock(&f->lock);
    return mine;
}

int cache_file_flush(struct cache_file *f, struct cancel *cancel)
{
    struct cancel_watch watch = {.fired = file_wake, .ctx = f};
    cancel_watch(cancel, &watch);
    mutex_lock(&f->lock);
    int r = 0;
    if (file_dirty_locked(f) || f->commit != COMMIT_IDLE)
        r = committer_publish_locked(f, cancel);
    mutex_unlock(&f->lock);
    cancel_unwatch(cancel, &watch);
    return r;
}

/* ---- sealing ---- */

static void begin_locked(struct commit *c)
{
    struct cache_file *f = c->file;
    f->commit = COMMIT_RUNNING;
    f->publishing = true;
    f->sent = 0;
    f->commits_begun++;
    seal_take_locked(c);
    seal_reuse_locked(c);
    f->sealed_gen = c->gen;
    /* What a stream sends was cut before the seal; nothing more goes up till the commit ends. */
    stream_seal_locked(f);
}

/* Its last parts are on their way. Once they are there, only the commit knows of the upload. */
static void settle_stream_locked(struct commit *c)
{
    struct cache_file *f = c->file;
    if (!c->stream)
        return;
    while (!stream_idle_locked(c->stream))
        cond_wait(&f->changed, &f->lock);
    if (!stream_upload_id(c->stream))
        c->n_done = 0;
    for (size_t i = 0; i < c->n_done; i++)
        if (!stream_part_etag(c->stream, (unsigned)i + 1))
            c->done[i].stale = true;
}

static void commit_clear(struct commit *c)
{
    seal_clear(c);
    plan_clear(&c->plan);
    if (c->tags)
        g_hash_table_unref(c->tags);
    if (c->reader)
        reader_free(c->reader);
    store_object_clear(&c->now);
}

/* The mount ends: nothing of it is published any more. */
static int keep_locked(struct commit *c)
{
    struct cache_file *f = c->file;
    begin_locked(c);
    mutex_unlock(&f->lock);
    int r = seal_record(c);
    mutex_lock(&f->lock);
    settle_stream_locked(c); /* so that all that it has is recorded */
    stream_unseal_locked(f);
    f->publishing = false;
    f->commit = COMMIT_IDLE;
    return r;
}

int cache_file_keep(struct cache_file *f)
{
    struct commit c = {.file = f, .cache = f->cache};
    int r = 0;
    mutex_lock(&f->lock);
    while (f->commit != COMMIT_IDLE)
        cond_wait(&f->changed, &f->lock);
    if (file_dirty_locked(f) && !seal_is_recorded_locked(f))
        r = keep_locked(&c);
    f->kept = f->recorded; /* an older seal is better than none */
    mutex_unlock(&f->lock);
    commit_clear(&c);
    return r;
}

/* ---- what a commit changes ---- */

/* The map of the file as it is now, over the new base. */
static struct extents *rebased_map_locked(struct commit *c)
{
    struct cache_file *f = c->file;
    struct extents *map = file_map_new(f);
    struct extent x;
    bool all = f->data_gen <= c->gen; /* holes, too; and what is older than the object has nothing of it */
    for (uint64_t off = 0; extents_next(f->map, off, &x); off = x.off + x.len) {
        if (all) {
            if (x.kind == EXTENT_STAGED)
                staging_drop(f->staging, x.src, x.len);
            continue;
        }
        bool sealed = x.kind == EXTENT_PUNCHED || x.kind == EXTENT_BASE ||
                      (x.kind == EXTENT_STAGED && x.src < c->staged_end);
        /* One extent may have been written before and after the seal. */
        uint64_t n = x.len;
        if (sealed && x.kind == EXTENT_STAGED && x.src + x.len > c->staged_end)
            n = c->staged_end - x.src;
        extents_set(map, x.off, n, sealed ? EXTENT_BASE : x.kind, sealed ? 0 : x.src);
        if (x.kind == EXTENT_STAGED && sealed)
            staging_drop(f->staging, x.src, n);
        x.len = n;
    }
    if (all && f->base->object.size > 0)
        extents_set(map, 0, f->base->object.size, EXTENT_BASE, 0);
    return map;
}

static void install_content_locked(struct commit *c)
{
    struct cache_file *f = c->file;
    if (f->emptied_gen <= c->gen) {
        struct extents *map = rebased_map_locked(c);
        extents_free(f->map);
        f->map = map;
        /* An empty commit leaves nothing to a base: dup2(2) and close(2) before the first write must not end streaming. */
        f->fresh = f->fresh && !extents_has(f->map, 0, UINT64_MAX, EXTENT_BASE);
        f->spilled = f->spilled || c->stream_completed;
    }
    f->data_dirty = f->data_gen > c->gen;
}

static void install_locked(struct commit *c, struct file_base *base)
{
    struct cache_file *f = c->file;
    f->base = base;
    f->untagged_ns = base->object.untagged_ns;
    g_free(f->expect);
    f->expect = g_strdup(base->object.etag);
    f->conflict = false;
    f->base_gone = false;
    install_content_locked(c);
    /* A stream's object has the headers of its beginning: the next commit brings the new ones. */
    f->headers_dirty = f->headers_gen > c->gen || !headers_equal(&c->now.headers, &c->headers);
    f->moved = false;
    stream_detach_locked(f, c->stream_completed ? STREAM_COMPLETED : STREAM_ABORT);
    outcome_forget_locked(f);
    draft_want_locked(f); /* of what came after: over this version */
}

/* Content that nobody refers to any more lives on in no staging. */
static struct staging *idle_staging_locked(struct cache_file *f)
{
    struct staging *s = f->staging;
    if (!s || f->writing || staging_live(s) > 0)
        return NULL;
    f->staging = NULL;
    if (f->drafted)
        staging_reuse(s, NULL, 0); /* the draft's record names it */
    return s;
}

static void call_committed(struct commit *c)
{
    struct cache_file *f = c->file;
    mutex_lock(&f->lock);
    void *owner = f->owner;
    bool call = !f->dead && owner && c->cache->committed;
    f->calling = call;
    mutex_unlock(&f->lock);
    if (!call)
        return;
    c->cache->committed(owner, &c->now, !c->data_dirty);
    mutex_lock(&f->lock);
    f->calling = false;
    cond_broadcast(&f->changed);
    mutex_unlock(&f->lock);
}

static void commit_succeeded(struct commit *c, struct conflict *k)
{
    struct cache_file *f = c->file;
    struct file_base *base = NULL, *old = NULL;
    g_autofree char *upload_id = c->stream_completed ? g_strdup(stream_upload_id(c->stream)) : NULL;
    if (!c->nothing) {
        base = file_base_new(c->bucket, c->key, &c->now);
        mutex_lock(&f->lock);
        old = f->base;
        install_locked(c, base);
        f->publishing = false;
        file_count_locked(f);
        mutex_unlock(&f->lock);
        /* The blocks we have are those of the new version. */
        if (old && !c->data_dirty)
            read_cache_alias(c->cache->readers, old->bucket, old->key, old->object.etag, c->bucket,
                             c->key, c->now.etag);
        file_base_unref(old);
        conflict_tell(c, k);
        call_committed(c);
        mutex_lock(&c->cache->lock);
        c->cache->commits++;
        mutex_unlock(&c->cache->lock);
    }
    mutex_lock(&f->lock);
    f->publishing = false; /* also when there was nothing to do */
    mutex_unlock(&f->lock);
    bool whole = c->nothing || headers_equal(&c->now.headers, &c->headers);
    /* Before its staging goes. Headers that the upload began without come with the next commit. */
    if (seal_renew(f, whole ? c->gen : 0, upload_id) == 0)
        (void)seal_forget(f, whole ? c->gen : 0, upload_id);
    mutex_lock(&f->lock);
    struct staging *idle = idle_staging_locked(f);
    struct staging *s = f->staging ? staging_ref(f->staging) : NULL;
    if (whole)
        waiters_finish_locked(f, c->gen, 0);
    mutex_unlock(&f->lock);
    staging_unpin(&c->pin);
    if (s)
        staging_reclaim(s);
    staging_unref(s);
    staging_unref(idle);
    cache_event(c->cache);
}

/* True when the commit should be tried again at once. */
static bool commit_failed(struct commit *c, int err, bool *distrusted, struct conflict *k)
{
    struct cache_file *f = c->file;
    mutex_lock(&f->lock);
    f->publishing = false;
    /* An upload that may have become the object takes no part before that is known. */
    bool open = f->stream && outcome_open_locked(f, stream_uuid(f->stream));
    if (open)
        f->spilled = true; /* what finds staging full asks for the next commit */
    else
        stream_unseal_locked(f);
    /* Bytes that only the upload has keep it; else the next commit may as well start afresh. */
    bool punched = extents_has(f->map, 0, UINT64_MAX, EXTENT_PUNCHED);
    c->stream_lost = c->stream_lost || (c->parts_invalid && !punched);
    if (c->parts_invalid)
        stream_distrust_locked(f);
    bool useless = c->stream && (c->stream_lost || err == -ESTALE || !stream_upload_id(c->stream) ||
                                 f->emptied_gen > c->gen);
    if (useless && !punched)
        stream_detach_locked(f, STREAM_ABORT);
    bool again = !punched ? c->stream_lost : c->parts_invalid && !*distrusted;
    *distrusted = *distrusted || c->parts_invalid;
    if (!again) {
        f->err_seq++;
        f->failed_gen = c->gen;
        f->conflict = f->conflict || err == -ESTALE;
        f->err = err;
        conflict_revert_locked(f, k);
        waiters_finish_locked(f, c->gen, err);
    }
    mutex_unlock(&f->lock);
    if (again)
        return true;
    conflict_failed(c, k, err);
    mutex_lock(&c->cache->lock);
    c->cache->commit_errors++;
    mutex_unlock(&c->cache->lock);
    return false;
}

/* ---- the job ---- */

/* Whether it was successful. */
static bool commit_once(struct cache_file *f)
{
    bool done = false;
    bool distrusted = false;
    struct conflict conflict = {0};
    for (bool again = true; again;) {
        struct commit c = {.file = f, .cache = f->cache};
        mutex_lock(&f->lock);
        if (postpone_locked(f)) {
            conflict_revert_locked(f, &conflict);
            mutex_unlock(&f->lock);
            break;
        }
        begin_locked(&c);
        bool orphan = f->orphan;
        mutex_unlock(&f->lock);
        c.nothing = orphan;
        /* Who waits, waits for the bucket: that it cannot be recorded keeps nothing from there, unless what is recorded refers to
         * an upload that would be changed. */
        int r = orphan ? 0 : seal_record(&c);
        mutex_lock(&f->lock);
        settle_stream_locked(&c);
        bool may = r == 0 || !f->recorded || !c.stream;
        mutex_unlock(&f->lock);
        if (may)
            r = orphan ? 0 : publish(&c);
        done = r == 0;
        if (r == -ESTALE)
            r = conflict_resolve(&c, &conflict);
        again = !done && r == 0;
        if (done)
            commit_succeeded(&c, &conflict);
        else if (!again)
            again = commit_failed(&c, r, &distrusted, &conflict);
        commit_clear(&c);
    }
    conflict_clear(&conflict);
    return done;
}

static void commit_job(void *arg)
{
    struct cache_file *f = arg;
    struct cache *c = f->cache;
    for (;;) {
        bool done = commit_once(f);
        mutex_lock(&f->lock);
        /* Nobody will ask for what an earlier mount sealed after what has just turned out to be there. */
        bool more = done && f->dead && f->recorded && file_dirty_locked(f);
        if (g_queue_is_empty(&f->waiters) && !more)
            break;
        mutex_unlock(&f->lock);
    }
    f->commit = COMMIT_IDLE;
    if (f->dead)
        stream_detach_locked(f, f->kept ? STREAM_LEAVE : STREAM_ABORT);
    else
        stream_advance_locked(f);
    cond_broadcast(&f->changed);
    mutex_unlock(&f->lock);
    cache_work_end(c);
    file_release(f);
}

void committer_start_locked(struct cache_file *f)
{
    if (f->commit != COMMIT_IDLE)
        return;
    f->commit = COMMIT_QUEUED;
    file_hold(f);
    cache_work_begin(f->cache);
    workq_push(f->cache->committers, commit_job, f);
}
