/* SPDX-License-Identifier: Apache-2.0
 *
 * sweep: see sweep.h. Threads: one, while there is something to do; `lock` covers what is asked of it.
 *
 * A lost intent says that an upload of a key may be there since a time, and not which one. What is
 * listed of that very key is aborted if
 *   - no journal knows its id, nor is an upload of the key being created by anybody who has one; the
 *     journals are read after the listing: what they do not know then was not made by us later;
 *   - it was initiated after the intent was written, by the server's own clock where it tells it;
 *   - it has no part: ours got none, since nobody ever knew its id.
 * An upload of somebody else's meets all that only if he began to write the same key after us, with
 * another program or from another machine, and no part of his has arrived yet. S3 tells nothing by
 * which to know his from ours, nor aborts under a condition. He loses nothing: none of his bytes has
 * been acknowledged, his first part is refused (NoSuchUpload), and he starts again, as we do.
 *
 * A creation that was given up may still take effect: a server that stood still, goes on with it.
 * So an intent under which nothing was found is looked at again until it has been lost for `settle`.
 */
#include "cache/sweep.h"

#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/workq.h"
#include "cache/file.h"
#include "cache/journal.h"

#define AGAIN_NS (30 * NSEC_PER_SEC)    /* after that a server that was away is asked again */
#define PATIENCE_NS (10 * NSEC_PER_SEC) /* of one request: the end of a mount may wait for it */
#define LEAST_NS NSEC_PER_SEC
/* What clocks may be apart: ours and a server's; and what rounding and a request's way make of one that is told. */
#define SKEW_NS (60 * (int64_t)NSEC_PER_SEC)
#define SLACK_NS (5 * (int64_t)NSEC_PER_SEC)

struct job { /* an upload whose id is known */
    struct journal *journal;
    char *bucket, *key, *id, *uuid;
};

struct sweep {
    struct cache *cache;
    struct workq *q;
    GHashTable *hopeless; /* of the thread: "bucket/key" where looking does not help before the next mount */

    struct mutex lock;
    struct cond changed;
    GPtrArray *jobs; /* lock: struct job* */
    bool asked;      /* lock: since the last pass began */
    bool later;      /* lock: is to be asked when an upload ends */
    bool running;    /* lock: there is a thread on it */
    bool ending;     /* lock */
};

/* One key's lost intents, of one journal. */
struct key {
    struct journal *journal;
    const char *bucket, *name;
    int64_t since_ns;
    GPtrArray *intents; /* borrowed */
};

/* What a pass came to: it ends at the first request that a later one may answer. */
struct pass {
    bool left, away;
};

static void job_free(void *p)
{
    struct job *job = p;
    g_free(job->bucket);
    g_free(job->key);
    g_free(job->id);
    g_free(job->uuid);
    g_free(job);
}

static int ask(struct sweep *s, struct pass *p, struct store_request *req)
{
    req->prio = STORE_PRIO_META;
    req->deadline_ns = clock_mono_ns() + PATIENCE_NS;
    int r = store_run(s->cache->store, req, NULL);
    p->away = req->res.cls == STORE_CLASS_RETRY || req->res.cls == STORE_CLASS_AMBIGUOUS;
    p->left = p->left || p->away;
    return r;
}

/* ---- uploads whose id is known ---- */

/* Whether that is all that can be done about it now. */
static bool end_upload(struct sweep *s, struct pass *p, const struct job *job)
{
    _cleanup_request_ struct store_request req = {
        .verb = STORE_MPU_ABORT, .bucket = job->bucket, .key = job->key, .upload_id = job->id};
    int r = ask(s, p, &req);
    if (p->away)
        return false;
    if (r == 0)
        r = job->uuid ? journal_intent_ended(job->journal, job->uuid) : journal_upload_ended(job->journal, job->id);
    if (r < 0)
        log_warning_errno(r, "cannot end an upload of %s/%s that belongs to nothing; the next mount will try again",
                          job->bucket, job->key);
    return true;
}

static void end_uploads(struct sweep *s, struct pass *p)
{
    mutex_lock(&s->lock);
    GPtrArray *jobs = s->jobs;
    s->jobs = g_ptr_array_new_with_free_func(job_free);
    mutex_unlock(&s->lock);
    while (jobs->len > 0 && end_upload(s, p, jobs->pdata[0]))
        g_ptr_array_remove_index(jobs, 0);
    mutex_lock(&s->lock);
    g_ptr_array_extend_and_steal(s->jobs, jobs);
    mutex_unlock(&s->lock);
}

/* ---- uploads whose id is not ---- */

static void key_free(void *arg)
{
    struct key *k = arg;
    g_ptr_array_unref(k->intents);
    g_free(k);
}

static GPtrArray *group(struct journal *j, GPtrArray *lost)
{
    GPtrArray *keys = g_ptr_array_new_with_free_func(key_free);
    for (guint i = 0; i < lost->len; i++) {
        const struct journal_intent *in = lost->pdata[i];
        struct key *k = NULL;
        for (guint n = 0; n < keys->len && !k; n++) {
            struct key *other = keys->pdata[n];
            if (strcmp(other->bucket, in->bucket) == 0 && strcmp(other->name, in->key) == 0)
                k = other;
        }
        if (!k) {
            k = g_new0(struct key, 1);
            *k = (struct key){j, in->bucket, in->key, in->time_ns, g_ptr_array_new()};
            g_ptr_array_add(keys, k);
        }
        k->since_ns = MIN(k->since_ns, in->time_ns);
        g_ptr_array_add(k->intents, lost->pdata[i]);
    }
    return keys;
}

/* 1: aborted; 0: it is another's, or has ended; or -errno. */
static int end_if_empty(struct sweep *s, struct pass *p, const struct key *k, const char *id)
{
    _cleanup_request_ struct store_request parts = {
        .verb = STORE_MPU_LIST_PARTS, .bucket = k->bucket, .key = k->name, .upload_id = id};
    int r = ask(s, p, &parts);
    if (r < 0)
        return r == -ENOENT ? 0 : r;
    if (!parts.res.parts || parts.res.parts->len > 0)
        return 0;
    _cleanup_request_ struct store_request end = {
        .verb = STORE_MPU_ABORT, .bucket = k->bucket, .key = k->name, .upload_id = id};
    r = ask(s, p, &end);
    if (r == 0)
        log_info("ended an upload of %s/%s whose creation was not answered", k->bucket, k->name);
    return r < 0 ? r : 1;
}

static bool may_be_ours(const struct key *k, const struct store_result *listed, const struct store_entry *e)
{
    int64_t since = k->since_ns + (listed->clock_known ? listed->clock_ahead_ns - SLACK_NS : -SKEW_NS);
    return strcmp(e->key, k->name) == 0 && e->upload_id && e->mtime_ns != 0 && e->mtime_ns >= since;
}

/* How many were found and ended, or -errno; -EAGAIN when it cannot be told yet which are nobody's. */
static int end_unknown(struct sweep *s, struct pass *p, const struct key *k)
{
    _cleanup_request_ struct store_request list = {.verb = STORE_MPU_LIST, .bucket = k->bucket, .prefix = k->name};
    int r = ask(s, p, &list);
    if (r < 0)
        return r == -ENOENT ? 0 : r; /* with the bucket they are gone */
    g_autoptr(GHashTable) ids = NULL;
    r = journal_known_uploads(s->cache->dir, k->bucket, k->name, &ids);
    int n = 0;
    for (guint i = 0; r >= 0 && list.res.entries && i < list.res.entries->len; i++) {
        const struct store_entry *e = list.res.entries->pdata[i];
        if (!may_be_ours(k, &list.res, e) || g_hash_table_contains(ids, e->upload_id))
            continue;
        r = end_if_empty(s, p, k, e->upload_id);
        n += MAX(r, 0);
    }
    return r < 0 ? r : n;
}

static bool is_settled(const struct sweep *s, const struct journal_intent *i)
{
    int64_t for_ns = clock_real_ns() - i->lost_ns;
    return for_ns < 0 || (uint64_t)for_ns >= s->cache->settle_ns;
}

static void sweep_key(struct sweep *s, struct pass *p, const struct key *k)
{
    g_autofree char *name = g_strdup_printf("%s/%s", k->bucket, k->name);
    if (g_hash_table_contains(s->hopeless, name))
        return;
    int n = end_unknown(s, p, k);
    if (n == -EAGAIN)
        p->left = true;
    if (n < 0 && n != -EAGAIN && !p->away) {
        log_warning_errno(n, "cannot look for an upload of %s whose creation was not answered; the next mount will try again", name);
        g_hash_table_add(s->hopeless, g_steal_pointer(&name));
    }
    for (guint i = 0; n >= 0 && i < k->intents->len; i++) {
        const struct journal_intent *in = k->intents->pdata[i];
        if (is_settled(s, in)) /* what was found may be of another try than the one that is on its way yet */
            (void)journal_intent_ended(k->journal, in->uuid);
        else
            p->left = true;
    }
}

static void sweep_journal(struct sweep *s, struct pass *p, struct journal *j)
{
    g_autoptr(GPtrArray) lost = NULL;
    int r = journal_lost(j, &lost);
    if (r < 0) {
        log_warning_errno(r, "cannot read from the journal in %s which uploads were not answered", journal_dir(j));
        return;
    }
    g_autoptr(GPtrArray) keys = group(j, lost);
    for (guint i = 0; i < keys->len && !p->away; i++)
        sweep_key(s, p, keys->pdata[i]);
}

/* ---- when ---- */

static struct pass make_pass(struct sweep *s)
{
    struct cache *c = s->cache;
    struct pass p = {0};
    g_autoptr(GPtrArray) journals = g_ptr_array_new();
    g_ptr_array_add(journals, c->journal);
    mutex_lock(&c->lock);
    for (guint i = 0; i < c->adopted->len; i++)
        g_ptr_array_add(journals, c->adopted->pdata[i]);
    mutex_unlock(&c->lock);
    end_uploads(s, &p);
    for (guint i = 0; i < journals->len && !p.away; i++)
        sweep_journal(s, &p, journals->pdata[i]);
    return p;
}

static void run(void *arg)
{
    struct sweep *s = arg;
    mutex_lock(&s->lock);
    for (bool more = true; more;) {
        bool last = s->ending;
        s->asked = false;
        mutex_unlock(&s->lock);
        struct pass p = make_pass(s);
        uint64_t until = clock_mono_ns() + CLAMP(s->cache->settle_ns, LEAST_NS, AGAIN_NS);
        mutex_lock(&s->lock);
        while (p.left && !s->asked && !s->ending && cond_wait_until(&s->changed, &s->lock, until))
            ;
        /* At the end once more, now that nothing is under way, if somebody answers. */
        more = s->asked || (p.left && !(s->ending && (last || p.away)));
    }
    s->running = false;
    mutex_unlock(&s->lock);
}

void sweep_lost(struct sweep *s)
{
    mutex_lock(&s->lock);
    bool start = !s->running;
    s->asked = s->running = true;
    s->later = false;
    cond_broadcast(&s->changed);
    mutex_unlock(&s->lock);
    if (start)
        workq_push(s->q, run, s);
}

void sweep_lost_later(struct sweep *s)
{
    mutex_lock(&s->lock);
    s->later = true;
    mutex_unlock(&s->lock);
}

void sweep_upload_ended(struct sweep *s)
{
    mutex_lock(&s->lock);
    bool later = s->later;
    mutex_unlock(&s->lock);
    if (later)
        sweep_lost(s);
}

void sweep_upload(struct sweep *s, struct journal *j, const char *bucket, const char *key, const char *id, const char *uuid)
{
    struct job *job = g_new(struct job, 1);
    *job = (struct job){j, g_strdup(bucket), g_strdup(key), g_strdup(id), g_strdup(uuid)};
    mutex_lock(&s->lock);
    g_ptr_array_add(s->jobs, job);
    mutex_unlock(&s->lock);
    sweep_lost(s);
}

int sweep_new(struct cache *c, struct sweep **ret)
{
    struct sweep *s = g_new0(struct sweep, 1);
    int r = workq_new("sweep", 1, &s->q);
    if (r < 0) {
        g_free(s);
        return r;
    }
    s->cache = c;
    s->hopeless = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    s->jobs = g_ptr_array_new_with_free_func(job_free);
    mutex_init(&s->lock, RANK_LEAF);
    cond_init(&s->changed);
    *ret = s;
    return 0;
}

void sweep_free(struct sweep *s)
{
    if (!s)
        return;
    mutex_lock(&s->lock);
    s->ending = true;
    cond_broadcast(&s->changed);
    mutex_unlock(&s->lock);
    workq_free(s->q);
    g_ptr_array_unref(s->jobs);
    g_hash_table_unref(s->hopeless);
    cond_fini(&s->changed);
    mutex_fini(&s->lock);
    g_free(s);
}
