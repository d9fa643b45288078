/* SPDX-License-Identifier: Apache-2.0
 *
 * journal: see journal.h. Threads: any; `lock` covers the connection and is held across SQLite. An
 * instance's directory is made, adopted and removed under a lock on the directory above it, so that
 * none is seen half made. Its own lock is held as long as the instance is open.
 */
#include "cache/journal_private.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uuid/uuid.h>

#include "base/log.h"

#define RANK_JOURNAL RANK_CATALOG
#define DATABASE "journal.db"

/* Buckets and keys are blobs: any bytes. */
static const char *const migrations[] = {
    "CREATE TABLE instance(bucket BLOB, number INTEGER NOT NULL, boot TEXT NOT NULL);"
    "CREATE TABLE seals("
    "  file INTEGER NOT NULL, synced INTEGER NOT NULL, staging INTEGER NOT NULL, gen INTEGER NOT NULL, staged_end INTEGER NOT NULL,"
    "  bucket BLOB NOT NULL, key BLOB NOT NULL, expect TEXT, base BLOB, map BLOB NOT NULL,"
    "  headers BLOB NOT NULL, flags INTEGER NOT NULL, uuid TEXT NOT NULL, upload TEXT NOT NULL,"
    "  sums BLOB NOT NULL, PRIMARY KEY(file, synced));"
    "CREATE TABLE attempts("
    "  file INTEGER NOT NULL, gen INTEGER NOT NULL,"
    "  uuid TEXT NOT NULL, size INTEGER NOT NULL, staged_end INTEGER NOT NULL, flags INTEGER NOT NULL,"
    "  bucket BLOB NOT NULL, key BLOB NOT NULL, headers BLOB NOT NULL, PRIMARY KEY(file, gen, uuid)) WITHOUT ROWID;"
    "CREATE TABLE uploads("
    "  id TEXT PRIMARY KEY, file INTEGER NOT NULL, bucket BLOB NOT NULL, key BLOB NOT NULL,"
    "  uuid TEXT NOT NULL, headers BLOB NOT NULL, checksums INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE parts("
    "  upload TEXT NOT NULL REFERENCES uploads(id) ON DELETE CASCADE, number INTEGER NOT NULL,"
    "  off INTEGER NOT NULL, len INTEGER NOT NULL, etag TEXT, crc INTEGER,"
    "  PRIMARY KEY(upload, number)) WITHOUT ROWID;",
    "CREATE TABLE intents("
    "  uuid TEXT PRIMARY KEY, file INTEGER NOT NULL, bucket BLOB NOT NULL, key BLOB NOT NULL,"
    "  time INTEGER NOT NULL, lost INTEGER NOT NULL) WITHOUT ROWID;",
    "CREATE TABLE drafts("
    "  file INTEGER PRIMARY KEY, staging INTEGER NOT NULL, gen INTEGER NOT NULL, taken INTEGER NOT NULL,"
    "  bucket BLOB NOT NULL, key BLOB NOT NULL, base BLOB, map BLOB NOT NULL, sums BLOB NOT NULL);",
};

void journal_bind(sqlite3_stmt *st, int n, const char *text)
{
    if (text)
        sqlite3_bind_blob(st, n, text, (int)strlen(text), SQLITE_TRANSIENT);
}

char *journal_column(sqlite3_stmt *st, int n)
{
    if (sqlite3_column_type(st, n) == SQLITE_NULL)
        return NULL;
    const char *data = sqlite3_column_blob(st, n);
    return g_strndup(data ? data : "", (gsize)sqlite3_column_bytes(st, n));
}

/* ---- instances ---- */

static int lock_file(const char *path, int flags, int how)
{
    int fd = open(path, flags | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    while (flock(fd, how) < 0) {
        if (errno == EINTR)
            continue;
        int r = -errno;
        close(fd);
        return r;
    }
    return fd;
}

static int lock_parent(const char *dir)
{
    return lock_file(dir, O_RDONLY | O_DIRECTORY, LOCK_EX);
}

static void remove_files(const char *dir)
{
    g_autoptr(GDir) d = g_dir_open(dir, 0, NULL);
    const char *name;
    while (d && (name = g_dir_read_name(d))) {
        g_autofree char *path = g_build_filename(dir, name, NULL);
        if (unlink(path) < 0)
            log_warning_errno(-errno, "cannot remove %s", path);
    }
    if (rmdir(dir) < 0)
        log_warning_errno(-errno, "cannot remove %s", dir);
}

/* The rows that make an instance worth keeping, and its bucket. */
static int count_rows(sqlite3 *db, int64_t *ret_rows)
{
    g_autoptr(sqlite3_stmt) st = NULL;
    int r = db_prepare(db, "SELECT (SELECT count(*) FROM seals) + (SELECT count(*) FROM drafts) + (SELECT count(*) FROM uploads)"
                           " + (SELECT count(*) FROM intents)", &st);
    if (r == 0)
        r = db_step(st);
    if (r < 0)
        return r;
    *ret_rows = sqlite3_column_int64(st, 0);
    return 0;
}

static void destroy(struct journal *j)
{
    g_clear_pointer(&j->statements, g_hash_table_destroy);
    g_ptr_array_unref(j->queue);
    mutex_fini(&j->queue_lock);
    db_close(j->db);
    if (j->lock_fd >= 0)
        close(j->lock_fd);
    mutex_fini(&j->lock);
    g_free(j->parent);
    g_free(j->dir);
    g_free(j);
}

/* Opens the instance in dir: -EWOULDBLOCK when somebody holds it. */
static int open_instance(const char *parent, const char *dir, struct journal **ret)
{
    g_autofree char *lock = g_build_filename(dir, "lock", NULL), *db = g_build_filename(dir, DATABASE, NULL);
    struct journal *j = g_new0(struct journal, 1);
    j->parent = g_strdup(parent);
    j->dir = g_strdup(dir);
    atomic_init(&j->number, 1);
    j->statements = db_kept_new();
    mutex_init(&j->lock, RANK_JOURNAL);
    mutex_init(&j->queue_lock, RANK_LEAF);
    j->queue = g_ptr_array_new();
    int r = j->lock_fd = lock_file(lock, O_RDWR | O_CREAT, LOCK_EX | LOCK_NB);
    if (r >= 0)
        r = db_open(db, 0, migrations, G_N_ELEMENTS(migrations), &j->db);
    if (r < 0) {
        destroy(j);
        return r;
    }
    *ret = j;
    return 0;
}

/* The start of this machine; "" when it cannot be told, which is no other's. g_free it. */
static char *boot_id(void)
{
    char *id = NULL;
    if (!g_file_get_contents("/proc/sys/kernel/random/boot_id", &id, NULL, NULL))
        return g_strdup("");
    return g_strstrip(id);
}

static int set_bucket(struct journal *j, const char *bucket)
{
    g_autoptr(sqlite3_stmt) st = NULL;
    g_autofree char *boot = boot_id();
    int r = db_prepare(j->db, "INSERT INTO instance(bucket, number, boot) VALUES(?, 1, ?)", &st);
    if (r < 0)
        return r;
    journal_bind(st, 1, bucket);
    sqlite3_bind_text(st, 2, boot, -1, SQLITE_STATIC);
    j->same_boot = true;
    r = db_step(st);
    return MIN(r, 0);
}

int journal_new(const char *dir, const char *bucket, struct journal **ret)
{
    uuid_t id;
    char name[37];
    uuid_generate(id);
    uuid_unparse_lower(id, name);
    g_autofree char *path = g_build_filename(dir, name, NULL);
    int parent = lock_parent(dir);
    if (parent < 0)
        return parent;
    struct journal *j = NULL;
    int r = mkdir(path, 0700) < 0 ? -errno : open_instance(dir, path, &j);
    if (r == 0)
        r = set_bucket(j, bucket);
    if (r == 0)
        r = fsync(parent) < 0 ? -errno : 0;
    if (r < 0) {
        if (j)
            destroy(j);
        remove_files(path);
    }
    close(parent);
    *ret = r == 0 ? j : NULL;
    return r;
}

/* Whether a mount of bucket may have it; its numbers go on where they ended. */
static int is_for(struct journal *j, const char *bucket, bool *ret)
{
    g_autoptr(sqlite3_stmt) st = NULL;
    int r = db_prepare(j->db, "SELECT bucket, max(number, (SELECT coalesce(max(max(file, staging)), 0) FROM seals),"
                              " (SELECT coalesce(max(max(file, staging)), 0) FROM drafts),"
                              " (SELECT coalesce(max(file), 0) FROM uploads), (SELECT coalesce(max(file), 0) FROM intents)),"
                              " boot FROM instance", &st);
    if (r == 0)
        r = db_step(st);
    if (r < 0)
        return r;
    if (r == 0) { /* it ended before it began */
        *ret = true;
        return 0;
    }
    g_autofree char *own = journal_column(st, 0), *boot = boot_id();
    j->same_boot = *boot && g_strcmp0(boot, (const char *)sqlite3_column_text(st, 2)) == 0;
    atomic_store(&j->number, (uint64_t)sqlite3_column_int64(st, 1) + 1);
    *ret = !bucket || g_strcmp0(own, bucket) == 0;
    return 0;
}

static int adopt_one(const char *parent, const char *dir, const char *bucket, struct journal **ret)
{
    struct journal *j = NULL;
    int64_t rows = 0;
    bool mine = false;
    *ret = NULL;
    int r = open_instance(parent, dir, &j);
    if (r < 0)
        return r;
    r = is_for(j, bucket, &mine);
    if (r == 0)
        r = count_rows(j->db, &rows);
    if (r == 0 && mine && rows > 0) {
        *ret = j;
        return 0;
    }
    destroy(j);
    if (r == 0 && rows == 0)
        remove_files(dir);
    return r;
}

int journal_adopt(const char *dir, const char *bucket, GPtrArray **ret)
{
    *ret = g_ptr_array_new();
    int parent = lock_parent(dir);
    if (parent < 0)
        return parent;
    g_autoptr(GDir) d = g_dir_open(dir, 0, NULL);
    const char *name;
    while (d && (name = g_dir_read_name(d))) {
        g_autofree char *path = g_build_filename(dir, name, NULL);
        struct journal *j;
        int r = g_file_test(path, G_FILE_TEST_IS_DIR) ? adopt_one(dir, path, bucket, &j) : -EWOULDBLOCK;
        if (r == 0 && j)
            g_ptr_array_add(*ret, j);
        else if (r < 0 && r != -EWOULDBLOCK)
            log_error_errno(r, "cannot read the journal in %s; what it has of an earlier mount stays there", path);
    }
    close(parent);
    return 0;
}

/* Of an instance that may be anybody's. Who has died creates nothing. */
static int add_known(const char *path, const char *bucket, const char *key, GHashTable *ids)
{
    g_autofree char *lock = g_build_filename(path, "lock", NULL), *name = g_build_filename(path, DATABASE, NULL);
    sqlite3 *db = NULL;
    int creating = 0;
    int fd = lock_file(lock, O_RDWR, LOCK_EX | LOCK_NB);
    if (fd == -ENOENT)
        return 0;
    if (fd < 0 && fd != -EWOULDBLOCK)
        return fd;
    int r = db_open(name, fd < 0 ? DB_READONLY : 0, migrations, G_N_ELEMENTS(migrations), &db);
    if (r == 0)
        r = journal_add_upload_ids(db, bucket, key, ids);
    if (r == 0 && fd < 0)
        r = journal_count_live_intents(db, bucket, key, &creating);
    db_close(db);
    if (fd >= 0)
        close(fd);
    if (fd >= 0 && (r == -EUCLEAN || r == -EPROTO)) {
        log_debug("the journal in %s cannot be read: which uploads it knows is not known", path);
        r = 0; /* nobody creates any from it; parts tell of those that somebody has used */
    }
    return r < 0 ? r : creating > 0 ? -EAGAIN : 0;
}

int journal_known_uploads(const char *dir, const char *bucket, const char *key, GHashTable **ret)
{
    GHashTable *ids = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    int parent = lock_parent(dir), r = MIN(parent, 0);
    g_autoptr(GDir) d = g_dir_open(dir, 0, NULL);
    const char *name;
    if (!d && r == 0)
        r = -EIO;
    while (r == 0 && (name = g_dir_read_name(d))) {
        g_autofree char *path = g_build_filename(dir, name, NULL);
        if (g_file_test(path, G_FILE_TEST_IS_DIR))
            r = add_known(path, bucket, key, ids);
    }
    if (parent >= 0)
        close(parent);
    if (r < 0)
        g_clear_pointer(&ids, g_hash_table_unref);
    *ret = ids;
    return r;
}

static int add_seals(sqlite3 *db, const char *instance, const char *bucket, GHashTable *to)
{
    g_autoptr(sqlite3_stmt) st = NULL;
    int r = db_prepare(db, "SELECT s.file, s.gen, s.bucket, s.key FROM seals s, instance i WHERE ?1 IS NULL OR i.bucket IS ?1", &st);
    if (r < 0)
        return r;
    journal_bind(st, 1, bucket);
    while ((r = db_step(st)) == 1) {
        g_autofree char *in = journal_column(st, 2), *key = journal_column(st, 3);
        g_hash_table_replace(to, g_strdup_printf("%s/%lld/%lld", instance, (long long)sqlite3_column_int64(st, 0),
                                                 (long long)sqlite3_column_int64(st, 1)),
                             g_strdup_printf("%s/%s", in, key));
    }
    return r;
}

int journal_list_seals(const char *dir, const char *bucket, GHashTable *held, GHashTable *left)
{
    int parent = lock_parent(dir), r = MIN(parent, 0);
    g_autoptr(GDir) d = g_dir_open(dir, 0, NULL);
    const char *instance;
    while (r == 0 && d && (instance = g_dir_read_name(d))) {
        g_autofree char *lock = g_build_filename(dir, instance, "lock", NULL), *name = g_build_filename(dir, instance, DATABASE, NULL);
        sqlite3 *db = NULL;
        int fd = lock_file(lock, O_RDWR, LOCK_EX | LOCK_NB);
        if (fd < 0 && fd != -EWOULDBLOCK)
            continue; /* no instance */
        r = db_open(name, fd < 0 ? DB_READONLY : 0, migrations, G_N_ELEMENTS(migrations), &db);
        if (r == 0)
            r = add_seals(db, instance, bucket, fd < 0 ? held : left);
        db_close(db);
        if (fd >= 0)
            close(fd);
    }
    if (parent >= 0)
        close(parent);
    return r;
}

void journal_free(struct journal *j)
{
    if (!j)
        return;
    int parent = lock_parent(j->parent);
    int64_t rows = 1;
    mutex_lock(&j->lock);
    int r = count_rows(j->db, &rows);
    g_clear_pointer(&j->statements, g_hash_table_destroy);
    db_close(j->db);
    j->db = NULL;
    mutex_unlock(&j->lock);
    if (r == 0 && rows == 0 && parent >= 0)
        remove_files(j->dir);
    destroy(j);
    if (parent >= 0)
        close(parent);
}

const char *journal_dir(const struct journal *j)
{
    return j->dir;
}

bool journal_is_of_this_boot(const struct journal *j)
{
    return j->same_boot;
}

static int sync_dir(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int r = fd < 0 || fsync(fd) < 0 ? -errno : 0;
    if (fd >= 0)
        close(fd);
    return r;
}

int journal_sync(struct journal *j)
{
    int r = sync_dir(j->dir);
    mutex_lock(&j->lock);
    if (r == 0 || j->sync_err)
        r = j->sync_err;
    if (r == 0)
        r = db_sync(j->db);
    j->sync_err = r; /* the kernel tells of it once, and takes the pages for clean */
    mutex_unlock(&j->lock);
    return r;
}

uint64_t journal_number(struct journal *j)
{
    return atomic_fetch_add(&j->number, 1);
}

char *journal_staging_path(const struct journal *j, uint64_t staging)
{
    return g_strdup_printf("%s/%" G_GUINT64_FORMAT ".staged", j->dir, staging);
}

char *journal_record_id(const struct journal *j, uint64_t file, uint64_t gen, int64_t taken_ns)
{
    g_autofree char *instance = g_path_get_basename(j->dir);
    /* After a kill, generations are counted again from what was sealed. */
    g_autofree char *when = taken_ns ? g_strdup_printf("-%" G_GINT64_MODIFIER "x", (uint64_t)taken_ns) : g_strdup("");
    return g_strdup_printf("%.8s-%" G_GUINT64_FORMAT "-%" G_GUINT64_FORMAT "%s", instance, file, gen, when);
}
