/* SPDX-License-Identifier: Apache-2.0
 *
 * writer: changes of a file's content: write, truncate, and what they need: room in staging.
 * Threads: any. Everything is under the file's lock, which is not held while the disk or the
 * network works: whoever changes the content first enters the file (`writing`), alone; then
 * reserves staging, unlocks, fills it, relocks, and enters it into the map.
 *
 * States of a file (file.h):
 *   clean       the map is [0, size) BASE; no staging; nothing dirty
 *   dirty       data_dirty: the map says what is new; headers_dirty; moved: target ≠ base's key
 *   streaming   dirty, fresh, and a stream has parts of it; some may be PUNCHED
 *   orphan      the name is gone: never dirty, never committed; the content lives on in staging
 *   commit      IDLE → QUEUED → RUNNING → IDLE, beside any of these; sealed from RUNNING on
 * Invariants:
 *   STAGED offsets below the seal's end belong to the sealed generation, others to later ones
 *   fresh ⇒ no BASE in the map; PUNCHED ⇒ there is a stream, whose acknowledged parts hold it
 *   while a commit runs, no stream is started, advanced, punched or detached
 *   waiters ⇒ a commit is QUEUED or RUNNING
 *   a PUNCHED byte is neither read, overwritten nor cut before a commit has made it BASE
 */
#include <assert.h>
#include <errno.h>

#include "base/budget.h"
#include "cache/file.h"
#include "cache/reader.h"
#include "cache/staging.h"
#include "cache/stream.h"

#define FETCH_CHUNK (1U << 20)

/* Gives back what became garbage, if it is worth it. Unlocked. */
static void reclaim(struct cache *c, struct staging *s)
{
    if (!s)
        return;
    if (staging_wants_reclaim(s))
        cache_squeeze(c, s, false);
}

/* Staging is full, and was at event `seen`. 0 when it may be tried again. */
static int make_room_locked(struct cache_file *f, uint64_t seen, struct cancel *cancel)
{
    struct cache *c = f->cache;
    struct staging *s = f->staging;
    unsigned work;
    mutex_unlock(&f->lock);
    cache_squeeze(c, s, true); /* s stays: the file is entered */
    bool again = cache_events(c, &work) != seen;
    mutex_lock(&f->lock);
    if (again)
        return 0;
    if (work > 0) {
        mutex_unlock(&f->lock);
        int r = cache_wait_event(c, seen, cancel);
        mutex_lock(&f->lock);
        return r;
    }
    /* Nothing under way will free any. Perhaps the part in the making can go early. */
    if (stream_cut_short_locked(f))
        return 0;
    /* A file of this size that somebody wanted published while it was written goes on that way. */
    if ((f->spilled || f->recorded) && file_dirty_locked(f))
        return committer_publish_locked(f, cancel);
    return stream_error(f->stream) ? stream_error(f->stream) : -ENOSPC;
}

/* Reserves n bytes of staging; waits for room. Within file_enter. */
static int reserve_locked(struct cache_file *f, uint64_t seen, size_t n, struct cancel *cancel,
                          uint64_t *ret_src)
{
    struct staging *s;
    int r = file_staging_locked(f, &s);
    if (r < 0)
        return r;
    r = staging_reserve(s, n, ret_src);
    if (r == -EMSGSIZE)
        return -ENOSPC;
    if (r == -EAGAIN) {
        r = make_room_locked(f, seen, cancel);
        return r < 0 ? r : -EAGAIN;
    }
    return r;
}

/* Fills what was reserved with the lock released, and enters it into the map. */
static int fill_locked(struct cache_file *f, uint64_t off, uint64_t src, const void *buf, size_t n)
{
    struct staging *s = f->staging;
    f->reserved = true;
    f->res_off = off;
    f->res_len = n;
    f->res_src = src;
    mutex_unlock(&f->lock);
    int r = staging_fill(s, src, off, buf, n);
    mutex_lock(&f->lock);
    f->reserved = false;
    if (r < 0) {
        staging_drop(s, src, n);
        return r;
    }
    extents_set(f->map, off, n, EXTENT_STAGED, src);
    return 0;
}

/* An object that was larger before may stay so. */
static uint64_t size_max_locked(struct cache_file *f)
{
    return MAX(f->cache->limits.size_max, extents_size(f->map));
}

static int write_locked(struct cache_file *f, const void *buf, size_t n, uint64_t off, bool append,
                        struct cancel *cancel)
{
    if (f->discarded)
        return -ESTALE;
    for (;;) {
        uint64_t at = append ? extents_size(f->map) : off, src;
        uint64_t max = size_max_locked(f);
        if (n > max || at > max - n)
            return -EFBIG;
        int r;
        if (extents_has(f->map, at, n, EXTENT_PUNCHED)) {
            r = committer_publish_locked(f, cancel);
            if (r < 0)
                return r;
            continue;
        }
        uint64_t seen = cache_events(f->cache, NULL);
        r = reserve_locked(f, seen, n, cancel, &src);
        if (r == -EAGAIN)
            continue;
        if (r < 0)
            return r;
        /* Making the staging may have unlocked, and another file's writer punched. */
        if (extents_has(f->map, at, n, EXTENT_PUNCHED)) {
            staging_drop(f->staging, src, n);
            continue;
        }
        r = fill_locked(f, at, src, buf, n);
        if (r < 0)
            return r;
        file_data_changed_locked(f);
        stream_wrote_locked(f, at, n);
        return 0;
    }
}

int cache_write(struct cache_handle *h, const void *buf, size_t n, uint64_t off, bool append,
                struct cancel *cancel)
{
    struct cache_file *f = h->file;
    struct staging *s = NULL;
    struct cancel_watch watch = {.fired = file_wake, .ctx = f};
    if (n == 0)
        return 0;
    cancel_watch(cancel, &watch);
    mutex_lock(&f->lock);
    int r = file_enter_locked(f, cancel);
    if (r == 0) {
        r = write_locked(f, buf, n, off, append, cancel);
        file_leave_locked(f);
        s = f->staging ? staging_ref(f->staging) : NULL;
    }
    mutex_unlock(&f->lock);
    cancel_unwatch(cancel, &watch);
    reclaim(f->cache, s);
    staging_unref(s);
    return r;
}

static void truncate_to_locked(struct cache_file *f, uint64_t size)
{
    uint64_t old = extents_size(f->map);
    if (size == old)
        return;
    stream_truncated_locked(f, size);
    extents_truncate(f->map, size);
    file_data_changed_locked(f);
    if (size > 0)
        return;
    f->emptied_gen = f->gen;
    f->fresh = !f->orphan;
    f->spilled = false;
    if (f->commit != COMMIT_RUNNING) /* else it is the commit's, which ends it */
        stream_detach_locked(f, false);
}

static int truncate_locked(struct cache_file *f, uint64_t size, struct cancel *cancel)
{
    if (f->discarded)
        return -ESTALE;
    if (size > size_max_locked(f))
        return -EFBIG;
    /* What was sealed must not lose its upload. */
    while (size == 0 && (f->recorded || f->recording) && extents_has(f->map, 0, UINT64_MAX, EXTENT_PUNCHED)) {
        int r = committer_publish_locked(f, cancel);
        if (r < 0)
            return r;
    }
    /* A part cannot be cut where only the server has it. */
    while (size > 0 && size < extents_size(f->map) &&
           extents_has(f->map, size - 1, 1, EXTENT_PUNCHED) &&
           extents_has(f->map, size, 1, EXTENT_PUNCHED)) {
        int r = committer_publish_locked(f, cancel);
        if (r < 0)
            return r;
    }
    truncate_to_locked(f, size);
    return 0;
}

int cache_file_replace(struct cache_file *f, struct cancel *cancel)
{
    struct cancel_watch watch = {.fired = file_wake, .ctx = f};
    cancel_watch(cancel, &watch);
    mutex_lock(&f->lock);
    int r = file_enter_locked(f, cancel);
    if (r == 0) {
        while (r == 0 && f->commit != COMMIT_IDLE) /* whose end would set what is expected */
            r = file_wait_locked(f, cancel);
        if (r == 0)
            r = truncate_locked(f, 0, cancel);
        if (r == 0 && f->conflict) {
            g_free(f->expect);
            f->expect = g_strdup("*");
        }
        file_leave_locked(f);
    }
    mutex_unlock(&f->lock);
    cancel_unwatch(cancel, &watch);
    return r;
}

int cache_file_truncate(struct cache_file *f, uint64_t size, struct cancel *cancel)
{
    struct staging *s = NULL;
    struct cancel_watch watch = {.fired = file_wake, .ctx = f};
    cancel_watch(cancel, &watch);
    mutex_lock(&f->lock);
    int r = file_enter_locked(f, cancel);
    if (r == 0) {
        r = truncate_locked(f, size, cancel);
        file_leave_locked(f);
        s = f->staging ? staging_ref(f->staging) : NULL;
    }
    mutex_unlock(&f->lock);
    cancel_unwatch(cancel, &watch);
    reclaim(f->cache, s);
    staging_unref(s);
    return r;
}

/* ---- the base's bytes into staging ---- */

static bool next_base_locked(struct cache_file *f, uint64_t off, struct extent *ret)
{
    for (; extents_next(f->map, off, ret); off = ret->off + ret->len)
        if (ret->kind == EXTENT_BASE)
            return true;
    return false;
}

static int fetch_piece_locked(struct cache_file *f, const struct file_base *base,
                              struct reader *reader, char *buf, uint64_t off, size_t n,
                              struct cancel *cancel)
{
    mutex_unlock(&f->lock);
    ssize_t got = reader_pread(reader, buf, n, off, cancel);
    mutex_lock(&f->lock);
    if (got < 0)
        return (int)got;
    if ((size_t)got != n)
        return -EIO;
    for (;;) {
        uint64_t src, seen = cache_events(f->cache, NULL);
        int r = reserve_locked(f, seen, n, cancel, &src);
        if (r == -EAGAIN)
            continue;
        if (r < 0)
            return r;
        if (f->base != base) { /* the reader's bytes may not be the content any more */
            staging_drop(f->staging, src, n);
            return -ESTALE;
        }
        return fill_locked(f, off, src, buf, n);
    }
}

int writer_fetch_base_locked(struct cache_file *f, struct cancel *cancel)
{
    assert(f->writing);
    struct extent x;
    if (!f->base || !next_base_locked(f, 0, &x))
        return 0;
    struct file_base *base = file_base_ref(f->base);
    struct reader *reader = reader_new(f->cache->readers, base->bucket, base->key,
                                       base->object.etag, base->object.size);
    g_autofree char *buf = g_malloc(FETCH_CHUNK);
    int r = 0;
    for (uint64_t off = 0; r == 0 && next_base_locked(f, off, &x);) {
        size_t n = (size_t)MIN(x.len, FETCH_CHUNK);
        r = fetch_piece_locked(f, base, reader, buf, x.off, n, cancel);
        off = x.off + n;
    }
    mutex_unlock(&f->lock);
    reader_free(reader);
    mutex_lock(&f->lock);
    file_base_unref(base);
    return r;
}
