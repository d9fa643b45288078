/* SPDX-License-Identifier: Apache-2.0
 *
 * xattrs: the users' own extended attributes. Data, not a cache: every change is synced before the
 * call returns.
 *
 * Threads: any. Locks: the connections' (catalog.c). Invariant: names are not empty and at most
 * XATTR_NAME_MAX bytes, values at most XATTR_SIZE_MAX.
 */
#include "catalog/db.h"
#include <errno.h>
#include <linux/limits.h>
#include <string.h>
#include <sys/xattr.h>

int catalog_xattr_get(struct catalog *c, const char *bucket, const char *key, const char *name,
                      GBytes **ret)
{
    sqlite3_stmt *st;
    int r = conn_acquire(c, &c->reader,
                         "SELECT x.value FROM files f JOIN xattrs x ON x.file = f.id"
                         " WHERE f.bucket = ?1 AND f.key = ?2 AND x.name = ?3",
                         &st);
    if (r < 0)
        return r;
    bind_name(st, 1, bucket, key);
    bind_text(st, 3, name);
    r = db_step(st);
    if (r == 0) {
        r = -ENODATA;
    } else if (r > 0) {
        const void *value = sqlite3_column_blob(st, 0); /* before its size: it may convert */
        *ret = g_bytes_new(value, (gsize)sqlite3_column_bytes(st, 0));
        r = 0;
    }
    conn_release(&c->reader, st);
    return catalog_check(c, r);
}

static int xattr_exists(struct catalog *c, int64_t file, const char *name)
{
    sqlite3_stmt *st;
    int r = write_stmt(c, "SELECT 1 FROM xattrs WHERE file = ?1 AND name = ?2", &st);
    if (r < 0)
        return r;
    sqlite3_bind_int64(st, 1, file);
    bind_text(st, 2, name);
    r = db_step(st);
    sqlite3_reset(st);
    sqlite3_clear_bindings(st);
    return r;
}

static int xattr_write(struct catalog *c, int64_t file, const char *name, const void *value,
                       size_t n, int flags)
{
    int r = flags & (XATTR_CREATE | XATTR_REPLACE) ? xattr_exists(c, file, name) : 0;
    if (r < 0)
        return r;
    if (r > 0 && (flags & XATTR_CREATE))
        return -EEXIST;
    if (r == 0 && (flags & XATTR_REPLACE))
        return -ENODATA;
    sqlite3_stmt *st;
    r = write_stmt(c, "INSERT OR REPLACE INTO xattrs(file, name, value) VALUES(?1, ?2, ?3)", &st);
    if (r < 0)
        return r;
    sqlite3_bind_int64(st, 1, file);
    bind_text(st, 2, name);
    if (n > 0)
        sqlite3_bind_blob(st, 3, value, (int)n, SQLITE_STATIC);
    else
        sqlite3_bind_zeroblob(st, 3, 0); /* a NULL pointer would bind NULL */
    return write_done(c, st);
}

int catalog_xattr_set(struct catalog *c, const char *bucket, const char *key, const char *name,
                      const void *value, size_t n, int flags)
{
    size_t len = strlen(name);
    if (len == 0 || len > XATTR_NAME_MAX)
        return -ERANGE;
    if (n > XATTR_SIZE_MAX)
        return -E2BIG;
    if (flags & ~(XATTR_CREATE | XATTR_REPLACE))
        return -EINVAL;
    int r = write_begin(c, true);
    if (r < 0)
        return r;
    int64_t file;
    r = file_make(c, bucket, key, &file);
    if (r == 0)
        r = xattr_write(c, file, name, value, n, flags);
    return write_end(c, r);
}

int catalog_xattr_remove(struct catalog *c, const char *bucket, const char *key, const char *name)
{
    int r = write_begin(c, true);
    if (r < 0)
        return r;
    sqlite3_stmt *st;
    r = write_stmt(c,
                   "DELETE FROM xattrs WHERE name = ?3 AND file ="
                   " (SELECT id FROM files WHERE bucket = ?1 AND key = ?2)",
                   &st);
    if (r == 0) {
        bind_name(st, 1, bucket, key);
        bind_text(st, 3, name);
        r = write_done(c, st);
    }
    if (r == 0 && sqlite3_changes(c->writer.db) == 0)
        r = -ENODATA;
    return write_end(c, r);
}

int catalog_xattr_list(struct catalog *c, const char *bucket, const char *key, GPtrArray **ret)
{
    sqlite3_stmt *st;
    int r = conn_acquire(c, &c->reader,
                         "SELECT x.name FROM files f JOIN xattrs x ON x.file = f.id"
                         " WHERE f.bucket = ?1 AND f.key = ?2 ORDER BY x.name",
                         &st);
    if (r < 0)
        return r;
    bind_name(st, 1, bucket, key);
    g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
    while ((r = db_step(st)) > 0)
        g_ptr_array_add(names, g_strdup((const char *)sqlite3_column_text(st, 0)));
    conn_release(&c->reader, st);
    if (r == 0)
        *ret = g_steal_pointer(&names);
    return catalog_check(c, r);
}
