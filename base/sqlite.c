/* SPDX-License-Identifier: Apache-2.0
 *
 * sqlite: see sqlite.h. Threads: a connection belongs to one thread at a time, so it is opened
 * without SQLite's own mutex. No locks here.
 */
#include "base/sqlite.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BUSY_TIMEOUT_MS 10000

int db_errno(int rc)
{
    switch (rc & 0xff) {
    case SQLITE_OK:
    case SQLITE_ROW:
    case SQLITE_DONE:
        return 0;
    case SQLITE_FULL:
        return -ENOSPC;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return -EUCLEAN;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return -EBUSY;
    case SQLITE_READONLY:
        return -EROFS;
    case SQLITE_NOMEM:
        return -ENOMEM;
    case SQLITE_CONSTRAINT:
        return -EEXIST;
    default:
        return -EIO;
    }
}

void db_close(sqlite3 *db)
{
    sqlite3_close_v2(db);
}

int db_exec(sqlite3 *db, const char *sql)
{
    return db_errno(sqlite3_exec(db, sql, NULL, NULL, NULL));
}

int db_sync(sqlite3 *db)
{
    sqlite3_file *wal = NULL; /* what is in the database proper was synced when it was brought there */
    int rc = sqlite3_file_control(db, "main", SQLITE_FCNTL_JOURNAL_POINTER, &wal);
    if (rc == SQLITE_OK && wal && wal->pMethods)
        rc = wal->pMethods->xSync(wal, SQLITE_SYNC_NORMAL);
    return db_errno(rc);
}

int db_prepare(sqlite3 *db, const char *sql, sqlite3_stmt **ret)
{
    return db_errno(sqlite3_prepare_v2(db, sql, -1, ret, NULL));
}

static void free_statement(gpointer st)
{
    sqlite3_finalize(st);
}

GHashTable *db_kept_new(void)
{
    return g_hash_table_new_full(NULL, NULL, NULL, free_statement);
}

int db_prepare_kept(sqlite3 *db, GHashTable *kept, const char *sql, sqlite3_stmt **ret)
{
    *ret = g_hash_table_lookup(kept, sql);
    if (*ret) {
        sqlite3_reset(*ret);
        sqlite3_clear_bindings(*ret);
        return 0;
    }
    int r = db_errno(sqlite3_prepare_v3(db, sql, -1, SQLITE_PREPARE_PERSISTENT, ret, NULL));
    if (r == 0)
        g_hash_table_insert(kept, (gpointer)(uintptr_t)sql, *ret);
    return r;
}

int db_step(sqlite3_stmt *st)
{
    int rc = sqlite3_step(st);
    return rc == SQLITE_ROW ? 1 : db_errno(rc);
}

/* Makes the file with its mode before SQLite does; -wal and -shm take theirs from it. An existing
 * file is never opened and closed here: that would drop the POSIX locks which other connections of
 * this process hold on it. */
static int prepare_file(const char *path, bool readonly)
{
    if (!readonly) {
        int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd >= 0) {
            close(fd);
            return 0;
        }
        if (errno != EEXIST)
            return -errno;
    }
    struct stat st;
    if (stat(path, &st) < 0)
        return -errno;
    if (S_ISDIR(st.st_mode))
        return -EISDIR;
    if (!S_ISREG(st.st_mode))
        return -EINVAL;
    if (st.st_size > 0 && st.st_size < 512) /* less than any page: SQLite would take it for empty */
        return -EUCLEAN;
    if (!readonly && (st.st_mode & 077) && chmod(path, 0600) < 0)
        return -errno;
    return 0;
}

/* 0 and the first column of the first row as a number, or -errno. */
static int query_int(sqlite3 *db, const char *sql, int *ret)
{
    g_autoptr(sqlite3_stmt) st = NULL;
    int r = db_prepare(db, sql, &st);
    if (r < 0)
        return r;
    r = db_step(st);
    if (r < 0)
        return r;
    *ret = r ? sqlite3_column_int(st, 0) : 0;
    return 0;
}

static int set_wal(sqlite3 *db)
{
    g_autoptr(sqlite3_stmt) st = NULL;
    int r = db_prepare(db, "PRAGMA journal_mode=WAL", &st);
    if (r < 0)
        return r;
    r = db_step(st);
    if (r < 0)
        return r;
    const char *mode = r ? (const char *)sqlite3_column_text(st, 0) : NULL;
    /* A database in memory has no WAL and needs none. */
    return mode && (strcmp(mode, "wal") == 0 || strcmp(mode, "memory") == 0) ? 0 : -ENOTSUP;
}

static int configure(sqlite3 *db, enum db_flags flags)
{
    sqlite3_busy_timeout(db, BUSY_TIMEOUT_MS);
    int r = db_exec(db, "PRAGMA foreign_keys=ON; PRAGMA trusted_schema=OFF");
    if (r < 0)
        return r;
    if (!(flags & DB_READONLY)) {
        if (sqlite3_db_readonly(db, "main") == 1) /* SQLite fell back to it by itself */
            return -EROFS;
        r = set_wal(db);
        if (r < 0)
            return r;
        r = db_exec(db,
                    flags & DB_SYNC_FULL ? "PRAGMA synchronous=FULL" : "PRAGMA synchronous=NORMAL");
        if (r < 0)
            return r;
    }
    int n;
    return query_int(db, "SELECT count(*) FROM sqlite_master",
                     &n); /* reads and parses the schema */
}

/* One step up from `version`, unless another process has been quicker. */
static int migrate_one(sqlite3 *db, int version, const char *sql)
{
    int r = db_exec(db, "BEGIN IMMEDIATE");
    if (r < 0)
        return r;
    int found;
    r = query_int(db, "PRAGMA user_version", &found);
    if (r == 0 && found == version) {
        r = db_exec(db, sql);
        if (r == 0) {
            g_autofree char *pragma = g_strdup_printf("PRAGMA user_version=%d", version + 1);
            r = db_exec(db, pragma);
        }
    }
    if (r == 0)
        r = db_exec(db, "COMMIT");
    if (r < 0)
        (void)db_exec(db, "ROLLBACK");
    return r;
}

static int migrate(sqlite3 *db, enum db_flags flags, const char *const *migrations, size_t n)
{
    for (;;) {
        int version;
        int r = query_int(db, "PRAGMA user_version", &version);
        if (r < 0)
            return r;
        if (version < 0)
            return -EUCLEAN;
        if ((size_t)version > n)
            return -EPROTO;
        if ((size_t)version == n)
            return 0;
        if (flags & DB_READONLY)
            return -EROFS; /* an older one, which a reader may not bring up to date */
        r = migrate_one(db, version, migrations[version]);
        if (r < 0)
            return r;
    }
}

int db_open(const char *path, enum db_flags flags, const char *const *migrations, size_t n,
            sqlite3 **ret)
{
    bool readonly = flags & DB_READONLY;
    int r;
    if (strcmp(path, ":memory:") != 0) {
        r = prepare_file(path, readonly);
        if (r < 0)
            return r;
    }
    sqlite3 *db = NULL;
    int rc = sqlite3_open_v2(
        path, &db, SQLITE_OPEN_NOMUTEX | (readonly ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE),
        NULL);
    if (rc != SQLITE_OK) {
        int e = db ? sqlite3_system_errno(db) : ENOMEM;
        r = (rc & 0xff) == SQLITE_CANTOPEN && e > 0 ? -e : db_errno(rc);
    } else {
        r = configure(db, flags);
        if (r == 0)
            r = migrate(db, flags, migrations, n);
    }
    if (r < 0) {
        db_close(db);
        return r;
    }
    *ret = db;
    return 0;
}
