/* SPDX-License-Identifier: Apache-2.0
 *
 * sqlite: opening a database the way all of ours are opened, migrations, and SQLite's result codes
 * as errnos. Connections are used by one thread at a time (their owner's lock); all of it blocks on
 * the disk.
 */
#pragma once
#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>
#include <glib.h>

G_DEFINE_AUTOPTR_CLEANUP_FUNC(sqlite3_stmt, sqlite3_finalize)

enum db_flags {
    DB_READONLY = 1 << 0,
    DB_SYNC_FULL = 1 << 1, /* PRAGMA synchronous=FULL; default NORMAL (WAL: safe against kill, not power cut of the last commits) */
};

/* Opens or creates the database at path: mode 0600, WAL, foreign keys on, busy timeout 10 s. Then
 * runs migrations[user_version .. n) in order, each in a transaction with its user_version.
 * -EUCLEAN: not a database or damaged; -EPROTO: written by a newer version than this one knows;
 * -ENOENT: read-only and absent; else -errno. Logs nothing. */
int db_open(const char *path, enum db_flags flags, const char *const *migrations, size_t n, sqlite3 **ret);
void db_close(sqlite3 *db); /* NULL is fine */
int db_exec(sqlite3 *db, const char *sql); /* 0 or -errno */
/* What was committed is on the disk, and survives a power cut, when this returns. 0 or -errno. */
int db_sync(sqlite3 *db);
/* A prepared statement that the caller finalizes (g_autoptr(sqlite3_stmt)). */
int db_prepare(sqlite3 *db, const char *sql, sqlite3_stmt **ret);
/* The same for sql that lives on: prepared once and kept in `kept` (by its address), reset and without bindings each time. Borrowed. Not
 * for what yields rows: an unfinished read would hold the log. db_kept_new() and g_hash_table_destroy(), before the connection closes. */
int db_prepare_kept(sqlite3 *db, GHashTable *kept, const char *sql, sqlite3_stmt **ret);
GHashTable *db_kept_new(void);
/* Steps once: 1 = a row, 0 = done, -errno. */
int db_step(sqlite3_stmt *st);
/* SQLITE_FULL → -ENOSPC, SQLITE_CORRUPT/NOTADB → -EUCLEAN, SQLITE_BUSY/LOCKED → -EBUSY,
 * SQLITE_READONLY → -EROFS, SQLITE_NOMEM → -ENOMEM, SQLITE_CONSTRAINT → -EEXIST, other → -EIO; OK/ROW/DONE → 0. */
int db_errno(int rc);
