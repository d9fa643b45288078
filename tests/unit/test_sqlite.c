/* SPDX-License-Identifier: Apache-2.0
 *
 * base/sqlite: opening, modes, migrations, damaged and foreign files.
 */
#include <errno.h>
#include <glib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/sqlite.h"
#include "base/thread.h"

static const char *const migrations[] = {
    "CREATE TABLE a(x INTEGER PRIMARY KEY); INSERT INTO a VALUES(1)",
    "CREATE TABLE b(y INTEGER REFERENCES a(x)); INSERT INTO a VALUES(2)",
    "ALTER TABLE a ADD COLUMN z TEXT DEFAULT 'new'",
};

struct dir {
    char *path, *db;
};

static void dir_setup(struct dir *d, const void *data)
{
    d->path = g_dir_make_tmp("mlopsfs-db-XXXXXX", NULL);
    d->db = g_build_filename(d->path, "test.db", NULL);
}

static void dir_teardown(struct dir *d, const void *data)
{
    static const char *const ends[] = {"", "-wal", "-shm"};
    for (size_t i = 0; i < G_N_ELEMENTS(ends); i++) {
        g_autofree char *p = g_strconcat(d->db, ends[i], NULL);
        unlink(p);
    }
    g_assert_cmpint(rmdir(d->path), ==, 0);
    g_free(d->db);
    g_free(d->path);
}

static int number(sqlite3 *db, const char *sql)
{
    g_autoptr(sqlite3_stmt) st = NULL;
    g_assert_cmpint(db_prepare(db, sql, &st), ==, 0);
    g_assert_cmpint(db_step(st), ==, 1);
    return sqlite3_column_int(st, 0);
}

static unsigned mode_of(const char *base, const char *end)
{
    g_autofree char *p = g_strconcat(base, end, NULL);
    struct stat st;
    g_assert_cmpint(stat(p, &st), ==, 0);
    return st.st_mode & 07777;
}

static void test_fresh(struct dir *d, const void *data)
{
    sqlite3 *db;
    mode_t old = umask(0);
    g_assert_cmpint(db_open(d->db, 0, migrations, 3, &db), ==, 0);
    g_assert_cmpint(number(db, "PRAGMA user_version"), ==, 3);
    g_assert_cmpint(number(db, "SELECT count(*) FROM a WHERE z='new'"), ==, 2);
    g_assert_cmpint(number(db, "PRAGMA foreign_keys"), ==, 1);
    g_assert_cmpint(number(db, "PRAGMA synchronous"), ==, 1);
    g_assert_cmpuint(mode_of(d->db, ""), ==, 0600);
    g_assert_cmpuint(mode_of(d->db, "-wal"), ==, 0600);
    g_assert_cmpuint(mode_of(d->db, "-shm"), ==, 0600);
    umask(old);
    db_close(db);

    /* Again: nothing to do. A file that others may read is closed to them. */
    g_assert_cmpint(chmod(d->db, 0644), ==, 0);
    g_assert_cmpint(db_open(d->db, DB_SYNC_FULL, migrations, 3, &db), ==, 0);
    g_assert_cmpint(number(db, "SELECT count(*) FROM a"), ==, 2);
    g_assert_cmpint(number(db, "PRAGMA synchronous"), ==, 2);
    g_assert_cmpuint(mode_of(d->db, ""), ==, 0600);
    db_close(db);
    db_close(NULL);
}

static void test_upgrade(struct dir *d, const void *data)
{
    sqlite3 *db;
    g_assert_cmpint(db_open(d->db, 0, migrations, 1, &db), ==, 0);
    g_assert_cmpint(number(db, "PRAGMA user_version"), ==, 1);
    db_close(db);
    g_assert_cmpint(db_open(d->db, DB_READONLY, migrations, 3, &db), ==, -EROFS);
    g_assert_cmpint(db_open(d->db, 0, migrations, 3, &db), ==, 0);
    g_assert_cmpint(number(db, "PRAGMA user_version"), ==, 3);
    g_assert_cmpint(number(db, "SELECT count(*) FROM a"), ==, 2);
    db_close(db);
}

/* A step that fails leaves the database as the one before it did. */
static void test_failing_step(struct dir *d, const void *data)
{
    static const char *const bad[] = {
        "CREATE TABLE a(x INTEGER PRIMARY KEY); INSERT INTO a VALUES(1)",
        "INSERT INTO a VALUES(2); INSERT INTO a VALUES(1)",
    };
    sqlite3 *db;
    g_assert_cmpint(db_open(d->db, 0, bad, 2, &db), ==, -EEXIST);
    g_assert_cmpint(db_open(d->db, 0, bad, 1, &db), ==, 0);
    g_assert_cmpint(number(db, "PRAGMA user_version"), ==, 1);
    g_assert_cmpint(number(db, "SELECT count(*) FROM a"), ==, 1);
    db_close(db);
}

static void test_newer(struct dir *d, const void *data)
{
    sqlite3 *db;
    g_assert_cmpint(db_open(d->db, 0, migrations, 3, &db), ==, 0);
    db_close(db);
    g_assert_cmpint(db_open(d->db, 0, migrations, 2, &db), ==, -EPROTO);
    g_assert_cmpint(db_open(d->db, DB_READONLY, migrations, 2, &db), ==, -EPROTO);
}

static void test_garbage(struct dir *d, const void *data)
{
    static const size_t sizes[] = {1, 99, 100, 512, 5000, 70000};
    sqlite3 *db;
    for (size_t i = 0; i < G_N_ELEMENTS(sizes); i++) {
        g_autofree char *junk = g_strnfill(sizes[i], 'j');
        g_assert_true(g_file_set_contents(d->db, junk, (gssize)sizes[i], NULL));
        g_assert_cmpint(db_open(d->db, 0, migrations, 3, &db), ==, -EUCLEAN);
        g_assert_cmpint(db_open(d->db, DB_READONLY, migrations, 3, &db), ==, -EUCLEAN);
    }
}

/* The right header, the schema's page overwritten. */
static void test_damaged(struct dir *d, const void *data)
{
    sqlite3 *db;
    g_assert_cmpint(db_open(d->db, 0, migrations, 3, &db), ==, 0);
    db_close(db);
    g_autofree char *bytes = NULL;
    gsize n;
    g_assert_true(g_file_get_contents(d->db, &bytes, &n, NULL));
    memset(bytes + 100, 0xa5, 3000);
    g_assert_true(g_file_set_contents(d->db, bytes, (gssize)n, NULL));
    g_assert_cmpint(db_open(d->db, 0, migrations, 3, &db), ==, -EUCLEAN);
}

static void test_absent(struct dir *d, const void *data)
{
    sqlite3 *db;
    g_autofree char *nowhere = g_build_filename(d->path, "none", "test.db", NULL);
    g_assert_cmpint(db_open(d->db, DB_READONLY, migrations, 3, &db), ==, -ENOENT);
    g_assert_cmpint(db_open(nowhere, 0, migrations, 3, &db), ==, -ENOENT);
    g_assert_cmpint(db_open(d->path, 0, migrations, 3, &db), ==, -EISDIR);
    g_assert_cmpint(db_open("/dev/null", 0, migrations, 3, &db), ==, -EINVAL);
}

static void test_statements(struct dir *d, const void *data)
{
    sqlite3 *db, *reader;
    g_assert_cmpint(db_open(d->db, 0, migrations, 3, &db), ==, 0);
    g_assert_cmpint(db_open(d->db, DB_READONLY, migrations, 3, &reader), ==, 0);
    g_assert_cmpint(db_exec(db, "INSERT INTO a VALUES(1, '')"), ==, -EEXIST);
    g_assert_cmpint(db_exec(db, "INSERT INTO b VALUES(77)"), ==, -EEXIST); /* foreign key */
    g_assert_cmpint(db_exec(db, "nonsense"), ==, -EIO);
    g_assert_cmpint(db_exec(reader, "DELETE FROM a"), ==, -EROFS);
    g_assert_cmpint(number(reader, "SELECT count(*) FROM a"), ==, 2);
    g_autoptr(sqlite3_stmt) st = NULL;
    g_assert_cmpint(db_prepare(db, "SELECT x FROM a WHERE x > 1", &st), ==, 0);
    g_assert_cmpint(db_step(st), ==, 1);
    g_assert_cmpint(sqlite3_column_int(st, 0), ==, 2);
    g_assert_cmpint(db_step(st), ==, 0);
    g_clear_pointer(&st, sqlite3_finalize);
    db_close(reader);
    db_close(db);
}

static void *open_thread(void *arg)
{
    const struct dir *d = arg;
    sqlite3 *db;
    g_assert_cmpint(db_open(d->db, 0, migrations, 3, &db), ==, 0);
    g_assert_cmpint(number(db, "SELECT count(*) FROM a"), ==, 2);
    db_close(db);
    return NULL;
}

/* Several open an old database at once: each step runs once. */
static void test_concurrent(struct dir *d, const void *data)
{
    sqlite3 *db;
    g_assert_cmpint(db_open(d->db, 0, migrations, 0, &db), ==, 0);
    db_close(db);
    pthread_t t[4];
    for (size_t i = 0; i < G_N_ELEMENTS(t); i++)
        g_assert_cmpint(thread_start(&t[i], "open", open_thread, d), ==, 0);
    for (size_t i = 0; i < G_N_ELEMENTS(t); i++)
        pthread_join(t[i], NULL);
}

static void test_errno(void)
{
    g_assert_cmpint(db_errno(SQLITE_OK), ==, 0);
    g_assert_cmpint(db_errno(SQLITE_ROW), ==, 0);
    g_assert_cmpint(db_errno(SQLITE_DONE), ==, 0);
    g_assert_cmpint(db_errno(SQLITE_FULL), ==, -ENOSPC);
    g_assert_cmpint(db_errno(SQLITE_CORRUPT_VTAB), ==, -EUCLEAN);
    g_assert_cmpint(db_errno(SQLITE_NOTADB), ==, -EUCLEAN);
    g_assert_cmpint(db_errno(SQLITE_BUSY_SNAPSHOT), ==, -EBUSY);
    g_assert_cmpint(db_errno(SQLITE_LOCKED), ==, -EBUSY);
    g_assert_cmpint(db_errno(SQLITE_READONLY), ==, -EROFS);
    g_assert_cmpint(db_errno(SQLITE_NOMEM), ==, -ENOMEM);
    g_assert_cmpint(db_errno(SQLITE_CONSTRAINT_UNIQUE), ==, -EEXIST);
    g_assert_cmpint(db_errno(SQLITE_IOERR_READ), ==, -EIO);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
#define ADD(name, fn) g_test_add("/sqlite/" name, struct dir, NULL, dir_setup, fn, dir_teardown)
    ADD("fresh", test_fresh);
    ADD("upgrade", test_upgrade);
    ADD("failing-step", test_failing_step);
    ADD("newer", test_newer);
    ADD("garbage", test_garbage);
    ADD("damaged", test_damaged);
    ADD("absent", test_absent);
    ADD("statements", test_statements);
    ADD("concurrent", test_concurrent);
    g_test_add_func("/sqlite/errno", test_errno);
    return g_test_run();
}
