/* SPDX-License-Identifier: Apache-2.0
 *
 * replay: cache_adopt(): files from the journals of earlier mounts, as they were when they were
 * sealed. Nothing is asked of the bucket here: what a request of then may have left there is in the
 * files' attempts (outcome.h), and the next commit looks. What cannot become an object goes to
 * `recovered` first: drafts, and seals that cannot be read again. Threads: the one that mounts;
 * ending uploads that belong to nothing is the sweep's.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/workq.h"
#include "cache/file.h"
#include "cache/journal.h"
#include "cache/local_sync.h"
#include "cache/outcome.h"
#include "cache/recovered.h"
#include "cache/stream.h"
#include "cache/sums.h"
#include "cache/sweep.h"

/* ---- one file ---- */

static gint by_source(gconstpointer a, gconstpointer b)
{
    const struct extent *x = a, *y = b;
    return x->src < y->src ? -1 : x->src > y->src;
}

/* What the map does not refer to is garbage. -EUCLEAN when it refers to what is not there. */
static int drop_unreferenced(struct staging *s, const struct extents *map)
{
    g_autoptr(GArray) used = g_array_new(FALSE, FALSE, sizeof(struct extent));
    struct extent x;
    for (uint64_t off = 0; extents_next(map, off, &x); off = x.off + x.len)
        if (x.kind == EXTENT_STAGED)
            g_array_append_val(used, x);
    g_array_sort(used, by_source);
    uint64_t end = staging_end(s), at = 0;
    for (guint i = 0; i < used->len; i++) {
        const struct extent *u = &g_array_index(used, struct extent, i);
        if (u->src < at || u->src + u->len > end)
            return -EUCLEAN;
        if (u->src > at)
            staging_drop(s, at, u->src - at);
        at = u->src + u->len;
    }
    if (end > at)
        staging_drop(s, at, end - at);
    return 0;
}

/* Whether the disk has what was staged: after another start of the machine it may not. */
static int verify(struct staging *s, const struct extents *map)
{
    struct extent x;
    int r = 0;
    for (uint64_t off = 0; r == 0 && extents_next(map, off, &x); off = x.off + x.len)
        if (x.kind == EXTENT_STAGED)
            r = staging_verify(s, x.src, x.len);
    return r;
}

/* has_older: a power cut may yet bring back a seal before s, so what only that refers to stays until s is synced. */
static int open_staging(struct cache_file *f, const struct journal_seal *s, bool has_older)
{
    g_autofree char *path = journal_staging_path(f->journal, s->staging);
    struct staging *staging = NULL;
    bool needed = extents_has(s->map, 0, UINT64_MAX, EXTENT_STAGED);
    if (s->staging == 0)
        return needed ? -EUCLEAN : 0;
    int r = staging_open(path, f->cache->disk, &staging);
    if (r == -ENOENT && !needed)
        return 0;
    if (r < 0)
        return r;
    staging_keep(staging, true); /* as long as the record is there */
    r = has_older ? 0 : drop_unreferenced(staging, s->map);
    staging_restore(staging, (const struct sum *)(const void *)s->sums->data, s->sums->len);
    if (r == 0 && !journal_is_of_this_boot(f->journal))
        r = verify(staging, s->map);
    if (r < 0) {
        staging_unref(staging);
        return r;
    }
    staging_keep(staging, false);
    f->staging = staging;
    f->staging_number = s->staging;
    f->recorded_pin = g_new0(struct staging_pin, 1);
    staging_pin(staging, f->recorded_pin);
    if (has_older && !s->synced) {
        f->synced_pin = g_new0(struct staging_pin, 1);
        staging_pin(staging, f->synced_pin);
    }
    return 0;
}

static void restore_map(struct cache_file *f, const struct extents *from)
{
    struct extent x;
    for (uint64_t off = 0; extents_next(from, off, &x); off = x.off + x.len)
        extents_set(f->map, x.off, x.len, x.kind, x.src);
    f->fresh = !extents_has(f->map, 0, UINT64_MAX, EXTENT_BASE);
    while (f->fresh && extents_next(f->map, f->cursor, &x) && x.kind != EXTENT_ZERO)
        f->cursor = x.off + x.len;
}

static void restore_state(struct cache_file *f, const struct journal_seal *s)
{
    /* "*" was said of the version that was there then; whatever is there now is somebody's. */
    f->expect = g_strcmp0(s->expect, "*") != 0 ? g_strdup(s->expect) : NULL;
    if (s->has_base)
        f->base = file_base_new(s->base_bucket, s->base_key, &s->base);
    store_headers_copy(&f->headers, &s->headers);
    restore_map(f, s->map);
    f->gen = f->recorded_gen = s->gen;
    f->recorded_synced = s->synced;
    f->data_dirty = s->data_dirty;
    f->headers_dirty = s->headers_dirty;
    f->moved = s->moved;
    f->data_gen = s->data_dirty ? s->gen : 0;
    f->headers_gen = s->headers_dirty ? s->gen : 0;
    file_recorded_locked(f, true);
}

static bool same_target(const struct journal_seal *s, const struct journal_upload *u)
{
    return u && strcmp(u->bucket, s->bucket) == 0 && strcmp(u->key, s->key) == 0;
}

/* An older seal than the upload's: parts that were sent since are another content's. Those whose bytes are nowhere else are not, since
 * what they hold was published before it was changed. */
static void distrust_parts(struct journal_upload *u, const struct extents *map)
{
    for (guint i = 0; i < u->parts->len; i++) {
        struct journal_part *p = u->parts->pdata[i];
        if (!extents_has(map, p->off, p->len, EXTENT_PUNCHED)) {
            g_free((gpointer)(uintptr_t)p->etag);
            p->etag = NULL;
        }
    }
}

static void restore_locked(struct cache_file *f, const struct journal_content *content, const struct journal_seal *s, bool upload)
{
    restore_state(f, s);
    for (guint i = 0; i < content->attempts->len; i++) {
        const struct journal_attempt *a = content->attempts->pdata[i];
        if (a->file != s->file)
            continue;
        outcome_restore_locked(f, a); /* a later one may have become the object before the power went */
        f->gen = MAX(f->gen, a->gen);
    }
    if (upload)
        stream_restore_locked(f, s->upload);
    if (!f->recorded_synced)
        local_sync_add_locked(f->cache->local_sync, f);
    file_count_locked(f);
}

static int file_of_seal(struct cache *c, struct journal *j, const struct journal_content *content, const struct journal_seal *s,
                        bool has_older, struct cache_file **ret)
{
    struct cache_file *f = file_new(c, j, s->file, s->bucket, s->key);
    bool upload = same_target(s, s->upload);
    int r = open_staging(f, s, has_older);
    if (r == 0 && !upload && extents_has(s->map, 0, UINT64_MAX, EXTENT_PUNCHED))
        r = -ENODATA;
    mutex_lock(&f->lock);
    f->kept = true; /* whatever happens, until it is in the bucket */
    if (r == 0)
        restore_locked(f, content, s, upload);
    mutex_unlock(&f->lock);
    if (r < 0)
        g_clear_pointer(&f, cache_file_unref);
    *ret = f;
    return r;
}

/* ---- what cannot become an object ---- */

/* Moves the staging there, unless `shared`: a seal needs it, too. */
static int park(struct cache *c, struct journal *j, const struct journal_seal *s, bool shared, const char *why)
{
    g_autofree char *staging = s->staging ? journal_staging_path(j, s->staging) : NULL;
    g_autofree char *id = journal_record_id(j, s->file, s->gen, s->taken_ns);
    int r = recovered_park(c->recovered, id, staging, !shared, s, c->origin, why);
    if (r < 0)
        return log_error_errno(r, "%s/%s: what was written to it before a crash cannot be put into %s; it stays in %s", s->bucket, s->key,
                               c->recovered, journal_dir(j));
    c->parked++;
    return 0;
}

/* Whether a seal other than s has its staged bytes in the same file: staging files are used again. */
static bool is_in(const GPtrArray *seals, const struct journal_seal *s)
{
    for (guint i = 0; i < seals->len; i++) {
        const struct journal_seal *other = seals->pdata[i];
        if (other != s && other->staging == s->staging && (other->file != s->file || s->taken_ns))
            return true;
    }
    return false;
}

static bool is_shared(const struct journal_content *content, const struct journal_seal *s)
{
    return is_in(content->seals, s) || is_in(content->damaged, s);
}

static const struct journal_seal *seal_of_file(const GPtrArray *seals, uint64_t file)
{
    for (guint i = 0; i < seals->len; i++) {
        const struct journal_seal *s = seals->pdata[i];
        if (s->file == file)
            return s;
    }
    return NULL;
}

/* Returns whether the draft is done with. */
static bool park_draft(struct cache *c, struct journal *j, const struct journal_content *content, const struct journal_seal *d)
{
    const struct journal_seal *s = seal_of_file(content->seals, d->file);
    uint64_t n = extents_bytes(d->map, 0, UINT64_MAX, EXTENT_STAGED);
    if (n > 0 && park(c, j, d, is_shared(content, d), RECOVERED_UNSEALED) < 0)
        return false;
    if (n > 0)
        log_warning("%s/%s was being written to when an earlier mount ended: %s; `mlopsfs recover` offers what nobody had closed or fsynced",
                    d->bucket, d->key, s ? "what was closed before is brought there" : "the object stays as it is");
    return journal_undraft(j, d->file, d->gen) == 0;
}

/* Before the files of seals are made, whose staging goes on being used. */
static void park_drafts(struct cache *c, struct journal *j, struct journal_content *content)
{
    for (guint i = content->drafts->len; c->recovered && i-- > 0;)
        if (park_draft(c, j, content, content->drafts->pdata[i]))
            g_ptr_array_remove_index(content->drafts, i);
}

/* Whether it will be the same whenever it is tried. */
static bool is_lost(const struct journal *j, int r)
{
    return r == -ENOENT || r == -EUCLEAN || r == -ENODATA || (r == -EIO && !journal_is_of_this_boot(j));
}

/* No seal of a file can be replayed, for this reason; s is the newest. Whether it was taken from the journal. */
static bool give_up(struct cache *c, struct journal *j, const struct journal_content *content, const struct journal_seal *s, bool synced,
                    int err)
{
    /* Its staged bytes were on the disk once, and go only when they are in the bucket, or given up. */
    if (synced && err == -ENOENT && !journal_is_of_this_boot(j)) {
        log_notice("%s/%s: had come into the bucket just before the power went", s->bucket, s->key);
        return journal_forget(j, s->file, NULL) == 0;
    }
    bool parked = c->recovered && is_lost(j, err) && park(c, j, s, is_shared(content, s), RECOVERED_UNREADABLE) == 0;
    const char *when = synced || journal_is_of_this_boot(j) ? "before a crash" : "right before the power went";
    if (parked)
        log_error_errno(err, "%s/%s: what was closed of it %s cannot be read whole; the object stays as it is, and `mlopsfs recover` offers "
                             "what there is", s->bucket, s->key, when);
    else
        log_error_errno(err, "%s/%s: what was closed of it %s cannot be read again; what there is of it stays in %s", s->bucket, s->key, when,
                        journal_dir(j));
    return parked && journal_forget(j, s->file, NULL) == 0;
}

/* The file of the seals from *at on, which are one file's, the newest that can be read; NULL: said why, and the record stays. Sets *at
 * behind them. */
static struct cache_file *file_of_seals(struct cache *c, struct journal *j, const struct journal_content *content, guint *at)
{
    struct journal_seal *s = content->seals->pdata[*at], *last = s;
    struct cache_file *f = NULL;
    guint begin = *at, end = begin + 1;
    while (end < content->seals->len && ((struct journal_seal *)content->seals->pdata[end])->file == s->file)
        end++;
    int r = 0;
    /* What could not be read now and may be another time is not put back to what was before. */
    for (guint i = *at; !f && i < end && (i == begin || (is_lost(j, r) && !journal_is_of_this_boot(j))); i++) {
        last = content->seals->pdata[i];
        if (i > *at && last->upload)
            distrust_parts((struct journal_upload *)(uintptr_t)last->upload, last->map);
        r = file_of_seal(c, j, content, last, i + 1 < end, &f);
        if (f && i > *at)
            log_warning("%s/%s: what was written to it last had not reached the disk when the power went; it is as it was a few seconds "
                        "before", last->bucket, last->key);
    }
    *at = end;
    bool over = f || give_up(c, j, content, content->seals->pdata[begin], last->synced, r);
    /* Other uploads are nobody's any more. */
    for (guint i = begin; over && i < end; i++) {
        s = content->seals->pdata[i];
        if (!f || s != last)
            s->upload = NULL;
    }
    return f;
}

/* ---- uploads of nothing ---- */

static bool is_used(const struct journal_content *content, const struct journal_upload *u)
{
    for (guint i = 0; i < content->seals->len; i++) {
        const struct journal_seal *s = content->seals->pdata[i];
        if (s->upload == u && same_target(s, u))
            return true;
    }
    return false;
}

static void abort_leftovers(struct cache *c, struct journal *j, const struct journal_content *content)
{
    for (guint i = 0; i < content->uploads->len; i++) {
        const struct journal_upload *u = content->uploads->pdata[i];
        if (!is_used(content, u) && !seal_of_file(content->damaged, u->file))
            sweep_upload(c->sweep, j, u->bucket, u->key, u->id, NULL);
    }
}

/* ---- an instance ---- */

static bool is_named(const struct journal *j, const GPtrArray *records, const char *path)
{
    for (guint i = 0; i < records->len; i++) {
        const struct journal_seal *s = records->pdata[i];
        g_autofree char *staged = journal_staging_path(j, s->staging);
        if (strcmp(staged, path) == 0)
            return true;
    }
    return false;
}

/* What had been written, and neither sealed nor drafted. */
static void remove_unsealed(const struct journal *j, const struct journal_content *content)
{
    g_autoptr(GDir) d = g_dir_open(journal_dir(j), 0, NULL);
    const char *name;
    while (d && (name = g_dir_read_name(d))) {
        g_autofree char *path = g_build_filename(journal_dir(j), name, NULL);
        bool named = is_named(j, content->seals, path) || is_named(j, content->damaged, path) || is_named(j, content->drafts, path);
        if (g_str_has_suffix(name, ".staged") && !named && unlink(path) < 0)
            log_warning_errno(-errno, "cannot remove %s", path);
    }
}

static void tell_damaged(const struct journal *j, const struct journal_content *content)
{
    for (guint i = 0; i < content->damaged->len; i++) {
        const struct journal_seal *s = content->damaged->pdata[i];
        if (seal_of_file(content->damaged, s->file) == s)
            log_error("%s/%s: the record of what was closed of it before a crash is damaged; it stays in %s with its bytes, and the object as it "
                      "is", s->bucket, s->key, journal_dir(j));
    }
}

static int adopt(struct cache *c, struct journal *j, bool (*adopted)(void *ctx, struct cache_file *f), void *ctx)
{
    _cleanup_journal_content_ struct journal_content *content = NULL;
    int r = journal_load(j, &content);
    if (r < 0)
        return log_error_errno(r, "cannot read the journal in %s; what it has of an earlier mount stays there", journal_dir(j));
    r = journal_intent_lost(j, NULL); /* nobody waits for an answer any more */
    if (r < 0)
        log_warning_errno(r, "cannot write to the journal in %s; uploads that were not answered are not looked for", journal_dir(j));
    tell_damaged(j, content);
    park_drafts(c, j, content);
    remove_unsealed(j, content);
    for (guint i = 0; i < content->seals->len;) {
        struct cache_file *f = file_of_seals(c, j, content, &i);
        if (!f || adopted(ctx, f))
            continue;
        mutex_lock(&f->lock);
        committer_start_locked(f);
        mutex_unlock(&f->lock);
        cache_file_unref(f);
    }
    abort_leftovers(c, j, content);
    return 0;
}

int cache_list_sealed(const char *dir, const char *bucket, GHashTable *held, GHashTable *left)
{
    return journal_list_seals(dir, bucket, held, left);
}

unsigned cache_parked(const struct cache *c)
{
    return c->parked;
}

int cache_adopt(struct cache *c, bool (*adopted)(void *ctx, struct cache_file *f), void *ctx)
{
    g_autoptr(GPtrArray) found = NULL;
    int r = journal_adopt(c->dir, c->bucket, &found);
    if (r < 0)
        return log_error_errno(r, "cannot look for journals in %s", c->dir);
    for (guint i = 0; i < found->len; i++) {
        mutex_lock(&c->lock);
        g_ptr_array_add(c->adopted, found->pdata[i]);
        mutex_unlock(&c->lock);
        (void)adopt(c, found->pdata[i], adopted, ctx);
    }
    if (found->len > 0)
        sweep_lost(c->sweep);
    return 0;
}
