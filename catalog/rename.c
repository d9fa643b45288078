/* SPDX-License-Identifier: Apache-2.0
 *
 * rename: names change, rows follow. A file's row keeps its id, so xattrs, facts and UUID go along
 * with one update; what the new name had before goes away.
 *
 * Threads: any. Locks: writer.lock (catalog.c). A tree is the range of keys [prefix, successor).
 * Synced only where a user's data moves: cached rows can be learnt again.
 */
#include "catalog/db.h"
#include <assert.h>
#include <errno.h>
#include <string.h>

/* A range of keys in one bucket. */
struct range {
    const char *bucket, *from;
    GBytes *to; /* exclusive; owned */
};

static void range_clear(struct range *r)
{
    g_clear_pointer(&r->to, g_bytes_unref);
}

#define _cleanup_range_ __attribute__((cleanup(range_clear)))

static struct range range_make(const char *bucket, const char *key, bool tree)
{
    size_t n = strlen(key);
    g_autofree char *end = g_malloc(n + 1);
    memcpy(end, key, n + 1);
    if (!tree)
        /* The least key after this one is itself and a NUL. */
        return (struct range){bucket, key, g_bytes_new(end, n + 1)};
    assert(n > 0 && key[n - 1] == '/');
    end[n - 1] = '/' + 1;
    return (struct range){bucket, key, g_bytes_new(end, n)};
}

/* Three parameters: bucket, from, to. */
static void bind_range(sqlite3_stmt *st, const struct range *r)
{
    gsize n;
    const void *to = g_bytes_get_data(r->to, &n);
    bind_name(st, 1, r->bucket, r->from);
    sqlite3_bind_blob(st, 3, to, (int)n, SQLITE_STATIC);
}

/* 1 when a file in the range has what only we know (before a transaction: it picks the kind). */
static int range_has_data(struct catalog *c, const struct range *range)
{
    sqlite3_stmt *st;
    int r = write_stmt(c,
                       "SELECT 1 FROM files f WHERE bucket = ?1 AND key >= ?2 AND key < ?3 AND"
                       " (uuid IS NOT NULL OR EXISTS(SELECT 1 FROM xattrs WHERE file = f.id))"
                       " LIMIT 1",
                       &st);
    if (r < 0)
        return r;
    bind_range(st, range);
    r = db_step(st);
    sqlite3_reset(st);
    sqlite3_clear_bindings(st);
    return r;
}

static int range_delete(struct catalog *c, const struct range *range)
{
    sqlite3_stmt *st;
    int r = write_stmt(c, "DELETE FROM files WHERE bucket = ?1 AND key >= ?2 AND key < ?3", &st);
    if (r < 0)
        return r;
    bind_range(st, range);
    return write_done(c, st);
}

static int range_move(struct catalog *c, const struct range *range, const char *to_bucket,
                      const char *to_key)
{
    sqlite3_stmt *st;
    /* || makes text of the same bytes; the cast makes it a blob again. */
    int r = write_stmt(c,
                       "UPDATE files SET bucket = ?4, key = CAST(?5 || substr(key, ?6) AS BLOB)"
                       " WHERE bucket = ?1 AND key >= ?2 AND key < ?3",
                       &st);
    if (r < 0)
        return r;
    bind_range(st, range);
    bind_name(st, 4, to_bucket, to_key);
    sqlite3_bind_int64(st, 6, (int64_t)strlen(range->from) + 1);
    return write_done(c, st);
}

/* Begins a transaction that is synced when it touches a user's data. Nothing is held on failure. */
static int rename_begin(struct catalog *c, const struct range *from)
{
    mutex_lock(&c->writer.lock);
    int r = c->writer.db ? range_has_data(c, from) : -EROFS;
    if (r < 0) {
        mutex_unlock(&c->writer.lock);
        return catalog_check(c, r);
    }
    return write_begin_locked(c, r > 0);
}

int catalog_rename(struct catalog *c, const char *bucket, const char *key, const char *to_bucket,
                   const char *to_key, bool tree)
{
    if (strcmp(bucket, to_bucket) == 0) {
        if (strcmp(key, to_key) == 0)
            return 0;
        /* A directory does not move into itself, nor onto one that holds it. */
        if (tree && (g_str_has_prefix(to_key, key) || g_str_has_prefix(key, to_key)))
            return -EINVAL;
    }
    _cleanup_range_ struct range from = range_make(bucket, key, tree);
    _cleanup_range_ struct range to = range_make(to_bucket, to_key, tree);
    int r = rename_begin(c, &from);
    if (r < 0)
        return r;
    r = range_delete(c, &to);
    if (r == 0)
        r = range_move(c, &from, to_bucket, to_key);
    return write_end(c, r);
}

int catalog_forget(struct catalog *c, const char *bucket, const char *key)
{
    _cleanup_range_ struct range range = range_make(bucket, key, false);
    int r = write_begin(c, false);
    if (r < 0)
        return r;
    return write_end(c, range_delete(c, &range));
}
