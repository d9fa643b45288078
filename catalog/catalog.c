/* SPDX-License-Identifier: Apache-2.0
 *
 * catalog: the database itself: schema and migrations, opening (a damaged file is set aside), the
 * two connections, their cached statements, and write transactions.
 *
 * Threads: any. Locks: writer.lock for the write connection, reader.lock for the read connection,
 * pend_lock (a leaf) for attributes that wait in memory; the first two are held across SQLite calls
 * and never together. Invariants: every row hangs on one row of `files`, which goes with the file;
 * a transaction is open only while writer.lock is held.
 */
#include "base/clock.h"
#include "base/log.h"
#include "catalog/db.h"
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* Up to here a full check at open costs tens of milliseconds; beyond, damage is found as it is met.
 */
#define CHECK_MAX (32 << 20)

/* Buckets are text, keys are blobs: any bytes, compared byte by byte as S3 orders them. NULL =
 * unknown. */
static const char *const migrations[] = {
    "CREATE TABLE files("
    "  id INTEGER PRIMARY KEY, bucket TEXT NOT NULL, key BLOB NOT NULL, uuid TEXT,"
    "  UNIQUE(bucket, key));"
    "CREATE TABLE attrs("
    "  file INTEGER PRIMARY KEY REFERENCES files(id) ON DELETE CASCADE,"
    "  etag TEXT NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, storage_class TEXT,"
    "  version_id TEXT, content_type TEXT, cache_control TEXT, content_disposition TEXT,"
    "  content_encoding TEXT, content_language TEXT, expires TEXT, meta BLOB);"
    "CREATE TABLE xattrs("
    "  file INTEGER NOT NULL REFERENCES files(id) ON DELETE CASCADE,"
    "  name TEXT NOT NULL, value BLOB NOT NULL, PRIMARY KEY(file, name)) WITHOUT ROWID;"
    "CREATE TABLE videos("
    "  file INTEGER PRIMARY KEY REFERENCES files(id) ON DELETE CASCADE,"
    "  etag TEXT NOT NULL, size INTEGER NOT NULL, is_media INTEGER NOT NULL, container TEXT,"
    "  duration REAL, bit_rate INTEGER, codec TEXT, width INTEGER, height INTEGER,"
    "  frame_rate REAL, rotation INTEGER, audio_codec TEXT, creation_time TEXT);",
    /* A query walks the media, not every file that was ever probed. */
    "CREATE INDEX videos_media ON videos(file) WHERE is_media = 1;",
    /* Rows were taken by their ETag alone: their dates vouch for nothing. */
    "UPDATE attrs SET mtime_ns = 0;",
};

int catalog_check(struct catalog *c, int r)
{
    if (r == -EUCLEAN && !atomic_exchange(&c->damaged, true))
        log_error("catalog %s is damaged; it will be set aside at unmount", c->path);
    return r;
}

/* ---- connections and statements ---- */

static void stmt_destroy(gpointer st)
{
    sqlite3_finalize(st);
}

static void conn_init(struct conn *cn)
{
    mutex_init(&cn->lock, RANK_CATALOG);
    cn->db = NULL;
    cn->stmts = g_hash_table_new_full(g_direct_hash, g_direct_equal, NULL, stmt_destroy);
}

static void conn_fini(struct conn *cn)
{
    g_hash_table_destroy(cn->stmts);
    db_close(cn->db);
    mutex_fini(&cn->lock);
}

static int conn_stmt(struct conn *cn, const char *sql, sqlite3_stmt **ret)
{
    *ret = g_hash_table_lookup(cn->stmts, sql);
    if (*ret)
        return 0;
    int r = db_prepare(cn->db, sql, ret);
    if (r < 0)
        return r;
    /* The table never writes through its keys. */
    g_hash_table_insert(cn->stmts, (gpointer)(uintptr_t)sql, *ret);
    return 0;
}

int conn_acquire(struct catalog *c, struct conn *cn, const char *sql, sqlite3_stmt **ret)
{
    mutex_lock(&cn->lock);
    int r = cn->db ? conn_stmt(cn, sql, ret) : -EROFS;
    if (r < 0)
        mutex_unlock(&cn->lock);
    return catalog_check(c, r);
}

void conn_release(struct conn *cn, sqlite3_stmt *st)
{
    sqlite3_reset(st);
    sqlite3_clear_bindings(st);
    mutex_unlock(&cn->lock);
}

int write_stmt(struct catalog *c, const char *sql, sqlite3_stmt **ret)
{
    mutex_assert_held(&c->writer.lock);
    return conn_stmt(&c->writer, sql, ret);
}

int write_done(struct catalog *c, sqlite3_stmt *st)
{
    int r = db_step(st);
    sqlite3_reset(st);
    sqlite3_clear_bindings(st);
    return r < 0 ? r : 0;
}

void bind_name(sqlite3_stmt *st, int first, const char *bucket, const char *key)
{
    sqlite3_bind_text(st, first, bucket, -1, SQLITE_STATIC);
    sqlite3_bind_blob(st, first + 1, key, (int)strlen(key), SQLITE_STATIC);
}

void bind_text(sqlite3_stmt *st, int i, const char *s)
{
    sqlite3_bind_text(st, i, s, -1, SQLITE_STATIC);
}

/* ---- write transactions ---- */

static int write_sql(struct catalog *c, const char *sql)
{
    sqlite3_stmt *st;
    int r = write_stmt(c, sql, &st);
    return r < 0 ? r : write_done(c, st);
}

static void write_rollback(struct catalog *c)
{
    /* SQLite has rolled back by itself after some errors. */
    if (!sqlite3_get_autocommit(c->writer.db))
        (void)write_sql(c, "ROLLBACK");
    pending_written(c);
}

int write_begin_locked(struct catalog *c, bool durable)
{
    mutex_assert_held(&c->writer.lock);
    int r = 0;
    if (!c->writer.db)
        r = -EROFS;
    /* Takes effect at once between transactions; FULL syncs the log at commit. Not prepared once:
     * the pragma acts while it is compiled. */
    if (r == 0)
        r = db_exec(c->writer.db,
                    durable ? "PRAGMA synchronous=FULL" : "PRAGMA synchronous=NORMAL");
    if (r == 0)
        r = write_sql(c, "BEGIN IMMEDIATE");
    if (r == 0) {
        r = pending_write(c);
        if (r < 0)
            write_rollback(c);
    }
    if (r < 0)
        mutex_unlock(&c->writer.lock);
    return catalog_check(c, r);
}

int write_begin(struct catalog *c, bool durable)
{
    mutex_lock(&c->writer.lock);
    return write_begin_locked(c, durable);
}

int write_end(struct catalog *c, int r)
{
    mutex_assert_held(&c->writer.lock);
    if (r >= 0) {
        int q = write_sql(c, "COMMIT");
        if (q < 0)
            r = q;
    }
    if (r < 0)
        write_rollback(c);
    else
        pending_written(c);
    mutex_unlock(&c->writer.lock);
    return catalog_check(c, r);
}

int file_make(struct catalog *c, const char *bucket, const char *key, int64_t *ret)
{
    sqlite3_stmt *st;
    int r = write_stmt(c, "SELECT id FROM files WHERE bucket = ?1 AND key = ?2", &st);
    if (r < 0)
        return r;
    bind_name(st, 1, bucket, key);
    r = db_step(st);
    if (r > 0)
        *ret = sqlite3_column_int64(st, 0);
    sqlite3_reset(st);
    sqlite3_clear_bindings(st);
    if (r != 0)
        return r < 0 ? r : 0;

    r = write_stmt(c, "INSERT INTO files(bucket, key) VALUES(?1, ?2)", &st);
    if (r < 0)
        return r;
    bind_name(st, 1, bucket, key);
    r = write_done(c, st);
    if (r == 0)
        *ret = sqlite3_last_insert_rowid(c->writer.db);
    return r;
}

/* ---- open and close ---- */

/* Moves a damaged database out of the way, its log included. */
static int set_aside(const char *path)
{
    static const char *const suffixes[] = {"", "-wal", "-shm"};
    g_autofree char *to = g_strdup_printf("%s.damaged-%lld", path, (long long)clock_real_ns());
    for (size_t i = 0; i < G_N_ELEMENTS(suffixes); i++) {
        g_autofree char *a = g_strconcat(path, suffixes[i], NULL);
        g_autofree char *b = g_strconcat(to, suffixes[i], NULL);
        if (rename(a, b) < 0 && (errno != ENOENT || i == 0))
            return log_error_errno(-errno, "cannot set the damaged catalog %s aside", a);
    }
    log_error("the catalog %s was damaged: set aside as %s, a new one will be made", path, to);
    return 0;
}

static int db_healthy(sqlite3 *db, const char *path)
{
    struct stat sb;
    if (stat(path, &sb) < 0 || sb.st_size > CHECK_MAX)
        return 0;
    g_autoptr(sqlite3_stmt) st = NULL;
    int r = db_prepare(db, "PRAGMA quick_check(1)", &st);
    if (r < 0)
        return r;
    r = db_step(st);
    if (r <= 0)
        return r < 0 ? r : -EUCLEAN;
    return g_strcmp0((const char *)sqlite3_column_text(st, 0), "ok") == 0 ? 0 : -EUCLEAN;
}

static int open_writer(const char *path, sqlite3 **ret)
{
    sqlite3 *db;
    int r = db_open(path, 0, migrations, G_N_ELEMENTS(migrations), &db);
    if (r < 0)
        return r;
    r = db_healthy(db, path);
    if (r < 0) {
        db_close(db);
        return r;
    }
    *ret = db;
    return 0;
}

int reader_open(struct catalog *c, sqlite3 **ret)
{
    return db_open(c->path, DB_READONLY, migrations, G_N_ELEMENTS(migrations), ret);
}

static int open_connections(struct catalog *c)
{
    int r = 0;
    if (!c->read_only) {
        r = open_writer(c->path, &c->writer.db);
        if (r == -EUCLEAN) {
            r = set_aside(c->path);
            if (r < 0)
                return r;
            r = open_writer(c->path, &c->writer.db);
        }
    }
    if (r == 0)
        r = reader_open(c, &c->reader.db);
    if (r == -EPROTO)
        return log_error_errno(r, "the catalog %s was made by a newer version", c->path);
    if (r < 0)
        return log_error_errno(r, "cannot open the catalog %s", c->path);
    return 0;
}

int catalog_open(const char *path, bool read_only, struct catalog **ret)
{
    struct catalog *c = g_new0(struct catalog, 1);
    c->path = g_strdup(path);
    c->read_only = read_only;
    conn_init(&c->writer);
    conn_init(&c->reader);
    mutex_init(&c->pend_lock, RANK_LEAF);
    c->pending = pending_new();
    int r = open_connections(c);
    if (r < 0) {
        catalog_close(c);
        return r;
    }
    *ret = c;
    return 0;
}

void catalog_close(struct catalog *c)
{
    if (!c)
        return;
    if (c->writer.db && write_begin(c, false) == 0)
        (void)write_end(c, 0);
    conn_fini(&c->reader);
    conn_fini(&c->writer); /* last: folds the log into the database */
    if (atomic_load(&c->damaged) && !c->read_only)
        (void)set_aside(c->path);
    assert(!c->flushing);
    g_hash_table_destroy(c->pending);
    mutex_fini(&c->pend_lock);
    g_free(c->path);
    g_free(c);
}
