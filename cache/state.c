/* SPDX-License-Identifier: Apache-2.0
 *
 * state: what the users of a file see of its way into the bucket, and how they give it up. Threads:
 * any; everything under the file's lock.
 */
#include <errno.h>

#include "cache/file.h"
#include "cache/staging.h"
#include "cache/stream.h"

void cache_file_get_state(struct cache_file *f, struct cache_file_state *ret)
{
    *ret = (struct cache_file_state){.state = CACHE_CLEAN};
    mutex_lock(&f->lock);
    uint64_t streamed = f->stream ? stream_bytes(f->stream) : 0;
    bool failed = f->failed_gen != 0 && f->failed_gen == f->gen;
    if (!file_dirty_locked(f)) {
        ; /* clean, also while a commit tells of its end */
    } else if (f->publishing || (streamed > 0 && !failed)) {
        ret->state = CACHE_UPLOADING;
        ret->total = extents_size(f->map);
        ret->done = MIN(MAX(f->publishing ? f->sent : 0, streamed), ret->total);
    } else if (failed) {
        ret->state = CACHE_FAILED;
        ret->err = f->err;
    } else {
        ret->state = CACHE_DIRTY;
    }
    mutex_unlock(&f->lock);
}

/* The content goes at once; who reads or writes it still learns that it is gone. */
static struct staging *drop_content_locked(struct cache_file *f)
{
    f->discarded = true;
    f->data_dirty = f->headers_dirty = f->moved = false;
    f->err_seq++;
    f->err = -ESTALE;
    uint64_t size = extents_size(f->map); /* stays: else who reads would take it for the end */
    extents_truncate(f->map, 0);
    extents_truncate(f->map, size);
    return g_steal_pointer(&f->staging); /* entered: nobody fills it */
}

int cache_file_discard(struct cache_file *f, struct cancel *cancel)
{
    struct cancel_watch watch = {.fired = file_wake, .ctx = f};
    struct staging *s = NULL;
    cancel_watch(cancel, &watch);
    mutex_lock(&f->lock);
    int r = file_enter_locked(f, cancel);
    if (r == 0) {
        while (r == 0 && f->commit != COMMIT_IDLE)
            r = file_wait_locked(f, cancel);
        if (r == 0)
            r = file_dirty_locked(f) ? file_discard_locked(f) : -ENODATA;
        if (r == 0)
            s = drop_content_locked(f);
        file_count_locked(f);
        file_leave_locked(f);
    }
    mutex_unlock(&f->lock);
    cancel_unwatch(cancel, &watch);
    staging_unref(s);
    cache_event(f->cache);
    return r;
}
