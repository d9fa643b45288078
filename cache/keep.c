/* SPDX-License-Identifier: Apache-2.0
 *
 * keep: see keep.h. Threads: a committer's, which waits; keep_asks() and keep_tags() on any. Under
 * the cache's lock: the buckets whose tags cannot be read.
 *
 * Tags change without a new version: what a server said of them is believed for untagged_ttl_ns,
 * and what we know from a commit of our own likewise.
 */
#include "cache/keep.h"

#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "cache/stream.h"

static bool is_tagless(struct cache *c, const char *bucket)
{
    mutex_lock(&c->lock);
    bool yes = c->tagless && g_hash_table_contains(c->tagless, bucket);
    mutex_unlock(&c->lock);
    return yes;
}

/* True the first time. */
static bool note_tagless(struct cache *c, const char *bucket)
{
    mutex_lock(&c->lock);
    if (!c->tagless)
        c->tagless = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    bool first = g_hash_table_add(c->tagless, g_strdup(bucket));
    mutex_unlock(&c->lock);
    return first;
}

bool keep_asks(struct cache *c, const char *bucket, bool head_tags, uint64_t untagged_ns)
{
    if (head_tags && untagged_ns && clock_mono_ns() - untagged_ns < c->untagged_ttl_ns)
        return false;
    return !is_tagless(c, bucket);
}

int keep_tags(struct cache *c, struct store_request *req, GHashTable **ret_tags)
{
    const struct store_result *res = &req->res;
    *ret_tags = NULL;
    if (res->err == -ENOENT)
        return 0; /* no tags where no object is; whether it may be replaced is the condition's */
    if (res->err == -EOPNOTSUPP || strcmp(res->code, "AccessDenied") == 0) {
        if (note_tagless(c, req->bucket))
            log_warning("tags cannot be read in bucket %s (%s): an object there that has tags loses "
                        "them when it is written anew", req->bucket,
                        *res->code ? res->code : g_strerror(-res->err));
        return 0;
    }
    if (res->err < 0)
        return res->err == -EAGAIN ? -EIO : res->err;
    if (res->tags && g_hash_table_size(res->tags) > 0)
        *ret_tags = g_hash_table_ref(res->tags);
    return 0;
}

int keep_find(struct commit *c)
{
    const struct file_base *b = c->base;
    if (!b || c->plan.kind == PLAN_NOTHING)
        return 0;
    c->storage_class = store_class_kept(b->object.storage_class);
    if (c->plan.kind == PLAN_COPY ||
        !keep_asks(c->cache, b->bucket, c->caps.head_tags, c->untagged_ns))
        return 0;
    _cleanup_request_ struct store_request req = {.verb = STORE_TAGS_GET,
                                                  .prio = STORE_PRIO_META,
                                                  .bucket = b->bucket,
                                                  .key = b->key};
    store_run(c->cache->store, &req, NULL);
    return keep_tags(c->cache, &req, &c->tags);
}

void keep_in(const struct commit *c, struct store_request *req)
{
    req->storage_class = c->storage_class;
    if (req->verb != STORE_COPY)
        req->tags = c->tags;
}

static GHashTable *tags_sent(const struct commit *c)
{
    return c->stream_completed ? stream_tags(c->stream) : c->tags;
}

void keep_result(struct commit *c)
{
    /* What comes of an earlier attempt, or before anything was planned, a HEAD has told. */
    if (c->late || c->plan.kind == PLAN_NOTHING)
        return;
    if (!c->now.storage_class)
        c->now.storage_class = g_strdup(c->storage_class);
    if (c->plan.kind == PLAN_COPY)
        c->now.untagged_ns = c->untagged_ns;
    else
        c->now.untagged_ns = tags_sent(c) ? 0 : clock_mono_ns();
}

void keep_late(struct commit *c)
{
    if (c->nothing || c->late || store_tags_equal(tags_sent(c), c->tags))
        return;
    _cleanup_request_ struct store_request req = {.verb = STORE_TAGS_PUT,
                                                  .prio = STORE_PRIO_META,
                                                  .bucket = c->bucket,
                                                  .key = c->key,
                                                  .tags = c->tags};
    int r = store_run(c->cache->store, &req, NULL);
    if (r < 0)
        log_error_errno(r, "%s/%s has the tags that it had when its upload began: what was changed "
                           "of them since is lost", c->bucket, c->key);
    c->now.untagged_ns = 0;
}
