/* SPDX-License-Identifier: Apache-2.0
 *
 * conflict: see conflict.h. Threads: a committer's, which waits; the file's fields under its lock.
 *
 * That a commit is refused does not say why: the key may have another version than was expected, or
 * the base, whose bytes the content needs, may be gone; so the key is looked at. If it is as
 * expected, it was the base. Storing beside gives the file another target for this commit; only
 * when that succeeds it is the file's for good, and the namespace is told.
 */
#include "cache/conflict.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "cache/outcome.h"
#include "cache/seal.h"
#include "cache/stream.h"

#define TRIES 16 /* somebody who writes the key all the time must not keep us forever */
#define MARK " (conflict "

/* ---- names ---- */

/* Where an earlier conflict's mark begins in name, so that marks do not pile up; its end if there is none. */
static size_t stem_length(const char *name, size_t end)
{
    g_autofree char *stem = g_strndup(name, end);
    const char *mark = g_strrstr(stem, MARK);
    return mark && mark > stem && g_str_has_suffix(mark, ")") ? (size_t)(mark - stem) : end;
}

/* Cuts to at most max bytes, not within a character. */
static size_t cut(const char *text, size_t n, size_t max)
{
    if (n <= max)
        return n;
    while (max > 0 && ((unsigned char)text[max] & 0xc0) == 0x80)
        max--;
    return max;
}

/* The parts of key: [0, *ret_dir) is its directory, then *ret_stem bytes of the name without mark and extension. Returns the
 * extension. */
static const char *split(const char *key, size_t *ret_dir, size_t *ret_stem)
{
    const char *slash = strrchr(key, '/');
    const char *name = slash ? slash + 1 : key;
    const char *dot = strrchr(name, '.');
    const char *ext = dot && dot > name ? dot : name + strlen(name);
    if (strlen(ext) > NAME_MAX / 4)
        ext = name + strlen(name); /* no extension */
    *ret_dir = (size_t)(name - key);
    *ret_stem = stem_length(name, (size_t)(ext - name));
    return ext;
}

char *conflict_key(const char *key, int64_t real_ns, unsigned n)
{
    size_t dir, stem;
    const char *ext = split(key, &dir, &stem);
    g_autoptr(GDateTime) when = g_date_time_new_from_unix_local(real_ns / (int64_t)NSEC_PER_SEC);
    g_autofree char *time = when ? g_date_time_format(when, "%Y-%m-%d %H-%M-%S") : g_strdup("?");
    g_autofree char *number = n > 0 ? g_strdup_printf(" %u", n + 1) : g_strdup("");
    g_autofree char *mark = g_strdup_printf(MARK "%s%s)", time, number);
    size_t rest = strlen(mark) + strlen(ext);
    size_t max = MIN((size_t)NAME_MAX, STORE_KEY_MAX - MIN(dir, STORE_KEY_MAX));
    stem = cut(key + dir, stem, max > rest ? max - rest : 0);
    return g_strdup_printf("%.*s%s%s", (int)(dir + stem), key, mark, ext);
}

/* ---- what to do ---- */

/* Whose tries ended: not a content that a name waits for, nor one of attributes alone, which theirs has too. */
static bool may_resolve(struct commit *c, struct conflict *k)
{
    struct cache_file *f = c->file;
    if (c->cache->on_conflict == CACHE_CONFLICT_FAIL || !c->data_dirty || k->tries++ >= TRIES)
        return false;
    mutex_lock(&f->lock);
    bool may = !f->stays && !f->orphan;
    mutex_unlock(&f->lock);
    return may;
}

/* The sealed content is to be sealed again. */
static void end_attempt_locked(struct commit *c, bool other_key)
{
    struct cache_file *f = c->file;
    bool open = f->stream && outcome_open_locked(f, stream_uuid(f->stream));
    f->publishing = false;
    if (other_key)
        stream_detach_locked(f, STREAM_ABORT); /* its upload is bound to its key */
    else if (open)
        f->spilled = true; /* as after any commit that failed */
    else
        stream_unseal_locked(f);
}

/* Whether what was replaced is the version that BASE is of. */
static bool was_base_locked(const struct cache_file *f, const char *key)
{
    return f->base && strcmp(f->base->bucket, f->bucket) == 0 && strcmp(f->base->key, key) == 0;
}

/* The same key, as it is now. */
static void expect(struct commit *c, const char *etag)
{
    struct cache_file *f = c->file;
    mutex_lock(&f->lock);
    end_attempt_locked(c, false);
    g_free(f->expect);
    f->expect = g_strdup(etag);
    f->base_gone = was_base_locked(f, f->key);
    mutex_unlock(&f->lock);
}

/* Where a request of an earlier commit, perhaps of an earlier mount, may have stored it beside key. */
static char *tried_locked(const struct cache_file *f, const char *key)
{
    g_autoptr(GPtrArray) all = outcome_attempts_locked(f);
    size_t dir, stem;
    (void)split(key, &dir, &stem);
    g_autofree char *begin = g_strdup_printf("%.*s" MARK, (int)(dir + stem), key);
    for (guint i = all->len; i > 0; i--) {
        const struct journal_attempt *a = all->pdata[i - 1];
        if (strcmp(a->bucket, f->bucket) == 0 && strcmp(a->key, key) != 0 && g_str_has_prefix(a->key, begin))
            return g_strdup(a->key);
    }
    return NULL;
}

static int go_aside(struct commit *c, struct conflict *k)
{
    struct cache_file *f = c->file;
    int r = 0;
    mutex_lock(&f->lock);
    if (extents_has(c->map, 0, UINT64_MAX, EXTENT_PUNCHED)) {
        r = -ESTALE; /* bytes that only the upload has cannot get another key */
    } else {
        end_attempt_locked(c, true);
        if (!k->key) {
            k->key = f->key;
            k->expect = f->expect;
            k->moved = f->moved;
        } else {
            g_free(f->key);
            g_free(f->expect);
        }
        f->key = k->names == 0 ? tried_locked(f, k->key) : NULL;
        if (!f->key)
            f->key = conflict_key(k->key, clock_real_ns(), k->names);
        k->names++;
        f->expect = NULL;
        f->moved = f->base != NULL;
        f->base_gone = was_base_locked(f, k->key);
    }
    mutex_unlock(&f->lock);
    return r;
}

int conflict_resolve(struct commit *c, struct conflict *k)
{
    if (!may_resolve(c, k) || g_strcmp0(c->expect, "*") == 0)
        return -ESTALE;
    _cleanup_request_ struct store_request head = {
        .verb = STORE_HEAD, .prio = STORE_PRIO_META, .bucket = c->bucket, .key = c->key};
    int r = store_run(c->cache->store, &head, NULL);
    if (r < 0 && r != -ENOENT)
        return r == -EAGAIN ? -EIO : r;
    const char *etag = r == 0 ? head.res.object.etag : NULL;
    if (g_strcmp0(etag, c->expect) == 0 && c->base)
        return -ESTALE; /* the key is as it should be: the base is gone */
    if (g_strcmp0(etag, c->expect) == 0) { /* somebody's was there for a moment */
        expect(c, etag);
        return 0;
    }
    if (k->key || (etag && c->cache->on_conflict == CACHE_CONFLICT_KEEP_BOTH))
        return go_aside(c, k);
    expect(c, etag); /* where there is nothing any more, there are no two to keep */
    return 0;
}

void conflict_revert_locked(struct cache_file *f, struct conflict *k)
{
    if (!k->key)
        return;
    g_free(f->key);
    g_free(f->expect);
    f->key = g_steal_pointer(&k->key);
    f->expect = g_steal_pointer(&k->expect);
    f->moved = k->moved;
    f->recorded_gen = 0; /* the journal has the other name */
    k->reverted = true;
}

void conflict_failed(struct commit *c, struct conflict *k, int err)
{
    g_autofree char *key = NULL;
    mutex_lock(&c->file->lock);
    key = g_strdup(k->reverted ? c->file->key : c->key);
    mutex_unlock(&c->file->lock);
    if (k->reverted)
        (void)cache_file_seal(c->file, NULL);
    if (err == -ESTALE)
        log_error("%s/%s was changed by someone else; what was written here stays staged and was "
                  "not uploaded", c->bucket, key);
    else
        log_error_errno(err, "cannot commit %s/%s, its changes stay staged", c->bucket, key);
}

void conflict_tell(struct commit *c, struct conflict *k)
{
    struct cache_file *f = c->file;
    struct cache *cache = c->cache;
    if (!k->key)
        return;
    log_warning("%s/%s was changed by someone else: theirs stays, and what was written here is stored beside it as %s/%s", c->bucket,
                k->key, c->bucket, c->key);
    mutex_lock(&f->lock);
    void *owner = f->owner;
    bool call = !f->dead && owner && cache->parted;
    f->calling = call;
    mutex_unlock(&f->lock);
    if (call)
        cache->parted(owner, c->bucket, c->key);
    mutex_lock(&f->lock);
    f->calling = false;
    cond_broadcast(&f->changed);
    mutex_unlock(&f->lock);
    mutex_lock(&cache->lock);
    cache->conflicts++;
    mutex_unlock(&cache->lock);
}

void cache_file_stay(struct cache_file *f, bool stays)
{
    mutex_lock(&f->lock);
    f->stays = stays;
    while (stays && f->commit != COMMIT_IDLE)
        cond_wait(&f->changed, &f->lock);
    mutex_unlock(&f->lock);
}

void conflict_clear(struct conflict *k)
{
    g_free(k->key);
    g_free(k->expect);
}
