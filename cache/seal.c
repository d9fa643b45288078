/* SPDX-License-Identifier: Apache-2.0
 *
 * seal: see seal.h. Threads: any. A file's records are written one after another (`recording`), and
 * never an older one over a newer one; what is recorded is under the file's lock.
 */
#include "cache/seal.h"

#include <errno.h>
#include <uuid/uuid.h>

#include "base/clock.h"
#include "base/log.h"
#include "cache/journal.h"
#include "cache/local_sync.h"
#include "cache/outcome.h"
#include "cache/recovered.h"
#include "cache/stream.h"
#include "cache/sums.h"
#include "cache/sweep.h"

/* The stream's upload with the parts that it has by now; its other parts go up again. */
static void take_upload_locked(struct commit *c)
{
    const struct stream *s = c->stream;
    struct journal_upload *u = &c->upload;
    u->id = g_strdup(stream_upload_id(s));
    g_strlcpy(u->uuid, stream_uuid(s), sizeof(u->uuid));
    store_headers_copy(&u->headers, stream_headers(s));
    u->parts = journal_parts_new();
    for (size_t i = 0; u->id && i < c->n_done; i++) {
        const struct plan_done *d = &c->done[i];
        unsigned number = (unsigned)i + 1;
        struct journal_part *part = g_new0(struct journal_part, 1);
        *part = (struct journal_part){.number = number, .off = d->off, .len = d->len};
        if (!d->stale) {
            part->etag = g_strdup(stream_part_etag(s, number));
            part->checksum = stream_part_checksum(s, number);
        }
        g_ptr_array_add(u->parts, part);
    }
}

void seal_take_locked(struct commit *c)
{
    struct cache_file *f = c->file;
    c->untagged_ns = f->untagged_ns;
    c->gen = f->gen;
    c->staged_end = f->reserved ? f->res_src : f->staging ? staging_end(f->staging) : 0;
    c->map = extents_slice(f->map, 0, UINT64_MAX);
    store_headers_copy(&c->headers, &f->headers);
    c->bucket = g_strdup(f->bucket);
    c->key = g_strdup(f->key);
    c->expect = g_strdup(f->expect);
    c->base = f->base ? file_base_ref(f->base) : NULL;
    c->data_dirty = f->data_dirty;
    c->headers_dirty = f->headers_dirty;
    c->moved = f->moved;
    c->base_gone = f->base_gone;
    if (f->staging) {
        c->staging = f->staging;
        staging_pin(f->staging, &c->pin);
        c->record_pin = g_new0(struct staging_pin, 1);
        staging_pin(f->staging, c->record_pin);
        c->staging_number = f->staging_number;
    }
    uuid_t id;
    uuid_generate(id);
    uuid_unparse_lower(id, c->uuid);
    c->earlier = outcome_attempts_locked(f);
    c->stream = f->stream;
    if (!c->stream)
        return;
    c->n_done = stream_parts(c->stream, &c->done);
    take_upload_locked(c);
}

void seal_clear(struct commit *c)
{
    journal_upload_clear(&c->upload);
    if (c->earlier)
        g_ptr_array_unref(c->earlier);
    extents_free(c->map);
    store_headers_clear(&c->headers);
    g_free(c->bucket);
    g_free(c->key);
    g_free(c->expect);
    file_base_unref(c->base);
    staging_unpin(&c->pin);
    file_pin_free(c->record_pin);
    g_free(c->done);
}

/* ---- the record ---- */

static void enter_locked(struct cache_file *f)
{
    while (f->recording)
        cond_wait(&f->changed, &f->lock);
    f->recording = true;
}

static void leave_locked(struct cache_file *f)
{
    f->recording = false;
    cond_broadcast(&f->changed);
}

bool seal_is_recorded_locked(const struct cache_file *f)
{
    return f->recorded && f->recorded_gen == f->gen;
}

/* The CRCs of what is staged. */
static int find_sums(const struct commit *c, GArray *sums)
{
    struct extent x;
    int r = 0;
    for (uint64_t off = 0; r == 0 && extents_next(c->map, off, &x); off = x.off + x.len)
        if (x.kind == EXTENT_STAGED)
            r = staging_sums(c->staging, x.src, x.len, sums);
    return r;
}

/* All borrowed from c; without sums. */
static struct journal_seal seal_of(struct commit *c)
{
    struct journal_seal s = {
        .file = c->file->number,
        .staging = c->staging_number,
        .gen = c->gen,
        .staged_end = c->staged_end,
        .bucket = c->bucket,
        .key = c->key,
        .expect = c->expect,
        .has_base = c->base != NULL,
        .map = c->map,
        .headers = c->headers,
        .data_dirty = c->data_dirty,
        .headers_dirty = c->headers_dirty,
        .moved = c->moved,
        .upload = c->stream ? &c->upload : NULL,
        .earlier = c->earlier,
    };
    g_strlcpy(s.uuid, c->uuid, sizeof(s.uuid));
    if (c->base) {
        s.base_bucket = c->base->bucket;
        s.base_key = c->base->key;
        s.base = c->base->object;
    }
    return s;
}

static int record(struct commit *c)
{
    g_autoptr(GArray) sums = g_array_new(FALSE, FALSE, sizeof(struct sum));
    struct journal_seal s = seal_of(c);
    s.sums = sums;
    int r = find_sums(c, sums);
    return r < 0 ? r : journal_seal(c->file->journal, &s);
}

static int failed(struct commit *c, int r)
{
    return log_error_errno(r, "cannot record %s/%s in the journal in %s", c->bucket, c->key,
                           journal_dir(c->file->journal));
}

/* Within enter_locked(), which is not the lock's: unlocks. */
static int record_locked(struct commit *c)
{
    struct cache_file *f = c->file;
    mutex_unlock(&f->lock);
    int r = record(c);
    mutex_lock(&f->lock);
    if (r < 0)
        return r;
    struct staging_pin *old = f->recorded_pin;
    if (f->recorded && f->recorded_synced) {
        f->synced_pin = g_steal_pointer(&old);
        f->recorded_synced = false;
    }
    f->recorded_pin = g_steal_pointer(&c->record_pin);
    f->recorded_gen = c->gen;
    g_free(f->recorded_uuid);
    f->recorded_uuid = c->by_close && *c->uuid ? g_strdup(c->uuid) : NULL;
    file_recorded_locked(f, true);
    local_sync_add_locked(f->cache->local_sync, f);
    if (f->drafted_gen <= c->gen)
        file_drafted_locked(f, false);
    mutex_unlock(&f->lock);
    file_pin_free(old);
    mutex_lock(&f->lock);
    return 0;
}

void seal_reuse_locked(struct commit *c)
{
    struct cache_file *f = c->file;
    c->recorded = f->recorded_uuid && f->recorded && f->recorded_gen == c->gen && !c->stream;
    if (c->recorded)
        g_strlcpy(c->uuid, f->recorded_uuid, sizeof(c->uuid));
    g_clear_pointer(&f->recorded_uuid, g_free);
}

int seal_record(struct commit *c)
{
    struct cache_file *f = c->file;
    if (c->recorded || (!c->data_dirty && !c->headers_dirty && !c->moved))
        return 0;
    int r;
    mutex_lock(&f->lock);
    enter_locked(f);
    if (f->recorded && f->recorded_gen > c->gen) {
        /* A close came in between. What is about to be requested must be known all the same. */
        struct journal_seal s = seal_of(c);
        mutex_unlock(&f->lock);
        r = journal_attempt(f->journal, &s);
        mutex_lock(&f->lock);
    } else {
        r = record_locked(c);
    }
    leave_locked(f);
    mutex_unlock(&f->lock);
    return r < 0 ? failed(c, r) : 0;
}

/* Within enter_locked(): unlocks. */
static int mark_synced_locked(struct cache_file *f, GPtrArray *old)
{
    uint64_t gen = f->recorded_gen;
    mutex_unlock(&f->lock);
    int r = journal_mark_synced(f->journal, f->number, gen);
    mutex_lock(&f->lock);
    if (r == 0) {
        f->recorded_synced = true;
        if (f->synced_pin)
            g_ptr_array_add(old, g_steal_pointer(&f->synced_pin));
    }
    return r;
}

int seal_sync(struct cache_file *f, GPtrArray *old)
{
    int r = 0;
    mutex_lock(&f->lock);
    /* What takes the place of a seal while its bytes are synced must not be lost either. Closes wait for the second try. */
    for (bool held = false, again = true; again; held = true) {
        if (held)
            enter_locked(f);
        uint64_t gen = f->recorded_gen;
        bool due = f->recorded && !f->recorded_synced;
        struct staging *s = due && f->recorded_pin ? staging_ref(f->recorded_pin->s) : NULL;
        mutex_unlock(&f->lock);
        r = s ? staging_sync(s) : 0;
        staging_unref(s);
        mutex_lock(&f->lock);
        if (!held)
            enter_locked(f);
        bool still = f->recorded && !f->recorded_synced;
        if (r == 0 && due && still && f->recorded_gen == gen)
            r = mark_synced_locked(f, old);
        again = r == 0 && due && still && f->recorded_gen != gen;
        leave_locked(f);
    }
    mutex_unlock(&f->lock);
    return r;
}

int seal_forget(struct cache_file *f, uint64_t gen, const char *upload_id)
{
    struct staging_pin *pin = NULL, *synced = NULL;
    int r = 0;
    mutex_lock(&f->lock);
    enter_locked(f);
    bool recorded = f->recorded && f->recorded_gen <= gen;
    bool drafted = f->drafted && f->drafted_gen <= gen;
    mutex_unlock(&f->lock);
    if (drafted)
        r = journal_undraft(f->journal, f->number, gen);
    if (r == 0 && (recorded || upload_id))
        r = journal_forget(f->journal, recorded ? f->number : 0, upload_id);
    mutex_lock(&f->lock);
    if (drafted && r == 0)
        file_drafted_locked(f, false);
    if (recorded && r == 0) {
        pin = g_steal_pointer(&f->recorded_pin);
        synced = g_steal_pointer(&f->synced_pin);
        f->recorded_synced = false;
        g_clear_pointer(&f->recorded_uuid, g_free);
        file_recorded_locked(f, false);
        f->kept = false;
    }
    if (r < 0)
        log_error_errno(r, "cannot take what is known of %s/%s from the journal in %s", f->bucket,
                        f->key, journal_dir(f->journal));
    leave_locked(f);
    mutex_unlock(&f->lock);
    file_pin_free(pin);
    file_pin_free(synced);
    if (upload_id)
        sweep_upload_ended(f->cache->sweep);
    return r;
}

static bool is_punched_locked(const struct cache_file *f)
{
    return extents_has(f->map, 0, UINT64_MAX, EXTENT_PUNCHED);
}

static int wait_for_upload_locked(struct cache_file *f, struct cancel *cancel)
{
    int r = 0;
    while (r == 0 && f->commit == COMMIT_RUNNING && is_punched_locked(f))
        r = file_wait_locked(f, cancel);
    return r;
}

int cache_file_seal(struct cache_file *f, struct cancel *cancel)
{
    struct commit c = {.file = f, .cache = f->cache, .by_close = true};
    struct cancel_watch watch = {.fired = file_wake, .ctx = f};
    cancel_watch(cancel, &watch);
    mutex_lock(&f->lock);
    int r = wait_for_upload_locked(f, cancel);
    enter_locked(f); /* from here to its end no other record comes in between, nor goes */
    while (r == 0 && f->commit == COMMIT_RUNNING && is_punched_locked(f)) { /* it has begun meanwhile */
        leave_locked(f);
        r = wait_for_upload_locked(f, cancel);
        enter_locked(f);
    }
    if (r == 0 && file_dirty_locked(f) && !seal_is_recorded_locked(f)) {
        seal_take_locked(&c);
        /* The next commit makes the request that is recorded here, unless what a stream or another commit does comes first. */
        if (c.stream || f->commit == COMMIT_RUNNING)
            *c.uuid = '\0';
        /* A commit under way may yet send parts that this content does not have. */
        if (f->commit == COMMIT_RUNNING)
            c.stream = NULL;
        r = record_locked(&c);
    }
    leave_locked(f);
    mutex_unlock(&f->lock);
    if (r < 0 && r != -EINTR)
        failed(&c, r);
    seal_clear(&c);
    cancel_unwatch(cancel, &watch);
    return r;
}

int seal_renew(struct cache_file *f, uint64_t gen, const char *upload_id)
{
    mutex_lock(&f->lock);
    bool stays = upload_id && f->recorded && f->recorded_gen > gen;
    if (stays)
        f->recorded_gen = 0;
    mutex_unlock(&f->lock);
    return stays ? cache_file_seal(f, NULL) : 0;
}

int cache_seal(struct cache_handle *h, struct cancel *cancel)
{
    struct cache_file *f = h->file;
    int r = cache_file_seal(f, cancel);
    mutex_lock(&f->lock);
    int unseen = committer_unseen_locked(h);
    mutex_unlock(&f->lock);
    return r < 0 ? r : unseen;
}

int cache_seal_synced(struct cache_handle *h, struct cancel *cancel)
{
    int r = cache_seal(h, cancel);
    return r < 0 ? r : local_sync_file(h->file->cache->local_sync, h->file);
}

/* ---- drafts, and what goes to `recovered` ---- */

static bool wants_draft_locked(const struct cache_file *f)
{
    return f->data_dirty && !f->orphan && !f->dead && f->staging && f->data_gen > (f->recorded ? f->recorded_gen : 0) &&
           !(f->drafted && f->drafted_gen == f->gen);
}

static int record_draft(struct commit *c)
{
    g_autoptr(GArray) sums = g_array_new(FALSE, FALSE, sizeof(struct sum));
    struct journal_seal s = seal_of(c);
    s.sums = sums;
    s.taken_ns = clock_real_ns();
    if (!extents_has(c->map, 0, UINT64_MAX, EXTENT_STAGED))
        return journal_undraft(c->file->journal, c->file->number, c->gen);
    int r = find_sums(c, sums);
    return r < 0 ? r : journal_draft(c->file->journal, &s);
}

void seal_draft(struct cache_file *f)
{
    struct commit c = {.file = f, .cache = f->cache};
    mutex_lock(&f->lock);
    f->draft_wanted = false; /* who writes from here on wants the next one */
    enter_locked(f);
    bool wanted = wants_draft_locked(f);
    if (wanted) {
        seal_take_locked(&c);
        c.stream = NULL;
        mutex_unlock(&f->lock);
        int r = record_draft(&c);
        if (r < 0)
            log_debug_errno(r, "cannot record a draft of %s/%s", c.bucket, c.key);
        mutex_lock(&f->lock);
        if (r == 0) {
            f->drafted_gen = c.gen;
            file_drafted_locked(f, extents_has(c.map, 0, UINT64_MAX, EXTENT_STAGED));
        }
    }
    leave_locked(f);
    mutex_unlock(&f->lock);
    if (wanted)
        seal_clear(&c);
}

int cache_file_park(struct cache_file *f, const char *why)
{
    struct commit c = {.file = f, .cache = f->cache};
    g_autoptr(GArray) sums = g_array_new(FALSE, FALSE, sizeof(struct sum));
    if (!f->cache->recovered)
        return -EOPNOTSUPP;
    mutex_lock(&f->lock);
    seal_take_locked(&c);
    c.stream = NULL;
    mutex_unlock(&f->lock);
    g_autofree char *id = journal_record_id(f->journal, f->number, c.gen, clock_real_ns());
    g_autofree char *staging = c.staging ? journal_staging_path(f->journal, c.staging_number) : NULL;
    struct journal_seal s = seal_of(&c);
    s.sums = sums;
    int r = find_sums(&c, sums);
    if (r == 0)
        r = recovered_park(f->cache->recovered, id, staging, false, &s, f->cache->origin, why);
    if (r < 0)
        log_error_errno(r, "%s/%s: what was written to it cannot be put into %s", c.bucket, c.key, f->cache->recovered);
    seal_clear(&c);
    return r;
}

/* ---- uploads ---- */

int seal_upload_intended(struct cache_file *f, const char *bucket, const char *key, const char *uuid)
{
    struct journal_intent i = {
        .file = f->number, .bucket = g_strdup(bucket), .key = g_strdup(key), .time_ns = clock_real_ns()};
    g_strlcpy(i.uuid, uuid, sizeof(i.uuid));
    int r = journal_intent(f->journal, &i);
    g_free(i.bucket);
    g_free(i.key);
    if (r < 0)
        log_error_errno(r, "cannot record in the journal in %s that an upload of %s/%s begins", journal_dir(f->journal), bucket, key);
    return r;
}

/* A refusal tells that nothing was made; anything else does not. */
static bool may_be_there(const struct store_result *res)
{
    switch (res->cls) {
    case STORE_CLASS_OK:
    case STORE_CLASS_AUTH:
    case STORE_CLASS_CONFLICT:
        return res->doubtful;
    case STORE_CLASS_RETRY:
    case STORE_CLASS_AMBIGUOUS:
        return true;
    case STORE_CLASS_FATAL:
        break;
    }
    return res->doubtful || res->err == -EBADMSG || res->err == -EPROTO || res->err == -EIO || res->err == -ETIMEDOUT ||
           res->err == -ECANCELED || res->err == -EINTR;
}

static void creation_failed(struct cache_file *f, const struct journal_upload *u, const struct store_result *res)
{
    bool lost = may_be_there(res);
    int r = lost ? journal_intent_lost(f->journal, u->uuid) : journal_intent_ended(f->journal, u->uuid);
    if (r < 0)
        log_warning_errno(r, "cannot record in the journal in %s that no upload of %s/%s began; the next mount will look for it",
                          journal_dir(f->journal), u->bucket, u->key);
    else if (lost)
        sweep_lost(f->cache->sweep);
}

int seal_upload_created(struct cache_file *f, struct journal_upload *u, const struct store_result *res)
{
    struct sweep *sweep = f->cache->sweep;
    if (res->err < 0) {
        creation_failed(f, u, res);
        return res->err;
    }
    u->file = f->number;
    u->id = res->upload_id;
    int r = journal_upload(f->journal, u, res->doubtful);
    if (r < 0) {
        log_error_errno(r, "cannot record the upload of %s/%s in the journal in %s: it is ended", u->bucket, u->key,
                        journal_dir(f->journal));
        sweep_upload(sweep, f->journal, u->bucket, u->key, u->id, u->uuid);
    } else if (res->doubtful) {
        sweep_lost_later(sweep);
    }
    return r;
}

int seal_upload_parts(struct cache_file *f, const char *upload_id, const struct journal_part *parts,
                      size_t n)
{
    int r = journal_parts(f->journal, upload_id, parts, n);
    if (r < 0)
        log_warning_errno(r, "cannot record parts of an upload in the journal in %s",
                          journal_dir(f->journal));
    return r;
}

void seal_upload_ended(struct cache_file *f, const char *upload_id)
{
    int r = journal_upload_ended(f->journal, upload_id);
    if (r < 0)
        log_warning_errno(r, "cannot take an upload from the journal in %s", journal_dir(f->journal));
    sweep_upload_ended(f->cache->sweep);
}
