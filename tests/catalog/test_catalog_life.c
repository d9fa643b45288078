/* SPDX-License-Identifier: Apache-2.0
 *
 * The catalog's life: opening old, newer, damaged and foreign databases; other processes; many
 * threads; a disk that fails.
 */
#include "base/clock.h"
#include "tests/catalog/fixture.h"
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- opening ---- */

static void test_migration(struct fix *f, gconstpointer unused)
{
    /* The first version's schema, as it was. */
    static const char old[] =
        "CREATE TABLE files(id INTEGER PRIMARY KEY, bucket TEXT NOT NULL, key BLOB NOT NULL,"
        " uuid TEXT, UNIQUE(bucket, key));"
        "CREATE TABLE attrs(file INTEGER PRIMARY KEY REFERENCES files(id) ON DELETE CASCADE,"
        " etag TEXT NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,"
        " storage_class TEXT, version_id TEXT, content_type TEXT, cache_control TEXT,"
        " content_disposition TEXT, content_encoding TEXT, content_language TEXT, expires TEXT,"
        " meta BLOB);"
        "CREATE TABLE xattrs(file INTEGER NOT NULL REFERENCES files(id) ON DELETE CASCADE,"
        " name TEXT NOT NULL, value BLOB NOT NULL, PRIMARY KEY(file, name)) WITHOUT ROWID;"
        "CREATE TABLE videos(file INTEGER PRIMARY KEY REFERENCES files(id) ON DELETE CASCADE,"
        " etag TEXT NOT NULL, size INTEGER NOT NULL, is_media INTEGER NOT NULL, container TEXT,"
        " duration REAL, bit_rate INTEGER, codec TEXT, width INTEGER, height INTEGER,"
        " frame_rate REAL, rotation INTEGER, audio_codec TEXT, creation_time TEXT);"
        "INSERT INTO files VALUES(1, 'b', CAST('k' AS BLOB), 'the-uuid');"
        "INSERT INTO attrs(file, etag, size, mtime_ns) VALUES(1, 'e', 5, 1234567890123456789);"
        "INSERT INTO xattrs VALUES(1, 'user.a', CAST('kept' AS BLOB));"
        "INSERT INTO videos(file, etag, size, is_media, codec) VALUES(1, 'e', 5, 1, 'vp9');"
        "PRAGMA user_version=1";
    catalog_close(f->c);
    f->c = NULL;
    g_assert_cmpint(g_unlink(f->path), ==, 0);
    sqlite3 *db;
    g_assert_cmpint(db_open(f->path, 0, NULL, 0, &db), ==, 0);
    g_assert_cmpint(db_exec(db, old), ==, 0);
    db_close(db);
    /* A reader may not migrate; an owner does. */
    struct catalog *ro;
    log_set_level(LOG_CRIT);
    g_assert_cmpint(catalog_open(f->path, true, &ro), ==, -EROFS);
    log_set_level(LOG_INFO);
    reopen(f);
    expect(f, "b", "k", "user.a", "kept");
    struct store_object got = {0}; /* of a time when ETags alone told */
    g_assert_cmpint(catalog_attrs_get(f->c, "b", "k", "e", MTIME, &got), ==, -ENOENT);
    struct video v;
    g_assert_cmpint(catalog_video_get(f->c, "b", "k", "e", &v), ==, 0);
    g_assert_cmpstr(v.uuid, ==, "the-uuid");
    g_assert_cmpstr(v.codec, ==, "vp9");
    reopen(f);
    expect(f, "b", "k", "user.a", "kept");
}

static void test_newer(struct fix *f, gconstpointer unused)
{
    g_assert_cmpint(set(f, "k", "user.a", "1"), ==, 0);
    catalog_close(f->c);
    f->c = NULL;
    sqlite3 *db;
    g_assert_cmpint(sqlite3_open(f->path, &db), ==, SQLITE_OK);
    g_assert_cmpint(db_exec(db, "PRAGMA user_version=99"), ==, 0);
    db_close(db);
    struct catalog *c;
    log_set_level(LOG_CRIT);
    g_assert_cmpint(catalog_open(f->path, false, &c), ==, -EPROTO);
    g_assert_cmpint(catalog_open(f->path, true, &c), ==, -EPROTO);
    log_set_level(LOG_INFO);
    g_assert_true(g_file_test(f->path, G_FILE_TEST_EXISTS)); /* not touched */
}

static void test_damaged(struct fix *f, gconstpointer unused)
{
    for (int i = 0; i < 200; i++) {
        g_autofree char *key = g_strdup_printf("key-%d", i);
        g_assert_cmpint(set(f, key, "user.a", "1"), ==, 0);
    }
    catalog_close(f->c);
    f->c = NULL;
    /* A page in the middle, then the header. */
    for (int round = 1; round <= 2; round++) {
        g_autofree char *data = NULL;
        gsize n;
        g_assert_true(g_file_get_contents(f->path, &data, &n, NULL));
        g_assert_cmpuint(n, >, 8192);
        memset(data + (round == 1 ? 4096 : 0), 0xa5, 4096);
        g_assert_true(g_file_set_contents(f->path, data, (gssize)n, NULL));
        struct catalog *ro;
        log_set_level(LOG_CRIT);
        if (round == 2)
            g_assert_cmpint(catalog_open(f->path, true, &ro), ==, -EUCLEAN);
        g_assert_cmpint(catalog_open(f->path, false, &f->c), ==, 0);
        log_set_level(LOG_INFO);
        g_assert_cmpint(count_damaged(f), ==, round);
        expect(f, "b", "key-7", "user.a", NULL);
        g_assert_cmpint(set(f, "key-7", "user.a", "2"), ==, 0);
        expect(f, "b", "key-7", "user.a", "2");
        catalog_close(f->c);
        f->c = NULL;
    }
}

static void test_damaged_later(struct fix *f, gconstpointer unused)
{
    /* Damage that shows only while it runs: a table is gone behind the statements' back. */
    for (int i = 0; i < 2000; i++) {
        _cleanup_object_ struct store_object o = object_make("e", 77);
        g_autofree char *key = g_strdup_printf("key-%d", i);
        g_assert_cmpint(catalog_attrs_put(f->c, "b", key, &o), ==, 0);
    }
    reopen(f);
    FILE *file = fopen(f->path, "r+");
    g_assert_nonnull(file);
    char junk[4096];
    memset(junk, 0xa5, sizeof(junk));
    fseek(file, 0, SEEK_END);
    long end = ftell(file);
    for (long off = 8192; off < end; off += 4096) {
        fseek(file, off, SEEK_SET);
        g_assert_cmpuint(fwrite(junk, 1, sizeof(junk), file), ==, sizeof(junk));
    }
    fclose(file);
    log_set_level(LOG_CRIT);
    struct store_object got = {0};
    int r = 0;
    for (int i = 0; i < 2000 && r != -EUCLEAN; i++) {
        g_autofree char *key = g_strdup_printf("key-%d", i);
        r = catalog_attrs_get(f->c, "b", key, "e", MTIME, &got);
        if (r == 0)
            store_object_clear(&got);
    }
    g_assert_cmpint(r, ==, -EUCLEAN);
    reopen(f);
    log_set_level(LOG_INFO);
    g_assert_cmpint(count_damaged(f), ==, 1);
    g_assert_cmpint(catalog_attrs_get(f->c, "b", "key-1", "e", MTIME, &got), ==, -ENOENT);
}

static void test_read_only(struct fix *f, gconstpointer unused)
{
    struct catalog *ro;
    struct video v = {.is_media = true};
    _cleanup_object_ struct store_object o = object_make("e", 77);
    g_autofree char *absent = g_build_filename(f->dir, "absent.db", NULL);
    log_set_level(LOG_CRIT);
    g_assert_cmpint(catalog_open(absent, true, &ro), ==, -ENOENT);
    g_assert_cmpint(catalog_open(f->dir, false, &ro), <, 0);
    log_set_level(LOG_INFO);
    g_assert_false(g_file_test(absent, G_FILE_TEST_EXISTS));
    g_assert_cmpint(set(f, "k", "user.a", "1"), ==, 0);
    g_assert_cmpint(catalog_open(f->path, true, &ro), ==, 0);
    struct fix as_ro = {.c = ro};
    expect(&as_ro, "b", "k", "user.a", "1");
    g_assert_cmpint(set(&as_ro, "k", "user.a", "2"), ==, -EROFS);
    g_assert_cmpint(catalog_xattr_remove(ro, "b", "k", "user.a"), ==, -EROFS);
    g_assert_cmpint(catalog_attrs_put(ro, "b", "k", &o), ==, -EROFS);
    g_assert_cmpint(catalog_rename(ro, "b", "k", "b", "l", false), ==, -EROFS);
    g_assert_cmpint(catalog_forget(ro, "b", "k"), ==, -EROFS);
    g_assert_cmpint(catalog_video_put(ro, "b", "k", "e", 1, &v), ==, -EROFS);
    g_assert_cmpint(catalog_version_moved(ro, "b", "k", "e", "f"), ==, -EROFS);
    /* It sees what the owner writes. */
    g_assert_cmpint(set(f, "k", "user.a", "3"), ==, 0);
    expect(&as_ro, "b", "k", "user.a", "3");
    catalog_close(ro);
    catalog_close(f->c);
    /* And opens what nobody else has open. */
    g_assert_cmpint(catalog_open(f->path, true, &f->c), ==, 0);
    expect(f, "b", "k", "user.a", "3");
    catalog_close(NULL);
}

/* ---- another process ---- */

static int child_main(const char *mode, const char *path)
{
    struct fix f = {0};
    if (catalog_open(path, strcmp(mode, "--read") == 0, &f.c) < 0)
        return 1;
    if (strcmp(mode, "--set") == 0) {
        if (set(&f, "k", "user.child", "was here") < 0)
            return 1;
        raise(SIGKILL);
    }
    expect(&f, "b", "k", "user.parent", "hello");
    catalog_close(f.c);
    return 0;
}

static int run_self(const char *mode, const char *path)
{
    g_autofree char *self = g_file_read_link("/proc/self/exe", NULL);
    char *argv[] = {self, g_strdup(mode), g_strdup(path), NULL};
    int status = -1;
    g_autoptr(GError) e = NULL;
    g_spawn_sync(NULL, argv, NULL, G_SPAWN_DEFAULT, NULL, NULL, NULL, NULL, &status, &e);
    g_assert_no_error(e);
    g_free(argv[1]);
    g_free(argv[2]);
    return status;
}

static void test_processes(struct fix *f, gconstpointer unused)
{
    g_assert_cmpint(set(f, "k", "user.parent", "hello"), ==, 0);
    g_assert_cmpint(run_self("--read", f->path), ==, 0);
    /* It is killed right after its call returned. */
    int status = run_self("--set", f->path);
    g_assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    expect(f, "b", "k", "user.child", "was here");
    g_assert_cmpint(set(f, "k", "user.parent", "still"), ==, 0);
    reopen(f);
    expect(f, "b", "k", "user.child", "was here");
    expect(f, "b", "k", "user.parent", "still");
}

/* ---- a disk that fails ---- */

static void test_disk_fails(struct fix *f, gconstpointer unused)
{
    static const struct {
        int rc, err;
    } cases[] = {{SQLITE_FULL, -ENOSPC}, {SQLITE_IOERR_WRITE, -EIO}};
    struct video v = {.is_media = true, .duration = 1, .codec = "h264"};
    _cleanup_object_ struct store_object o = object_make("e", 77);
    g_assert_cmpint(set(f, "k", "user.a", "before"), ==, 0);
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_assert_cmpint(catalog_attrs_put(f->c, "b", "k", &o), ==, 0);
        atomic_store(&disk.fail, cases[i].rc);
        g_assert_cmpint(set(f, "k", "user.a", "lost"), ==, cases[i].err);
        g_assert_cmpint(catalog_rename(f->c, "b", "k", "b", "l", false), ==, cases[i].err);
        g_assert_cmpint(catalog_forget(f->c, "b", "k"), ==, cases[i].err);
        v.uuid[0] = 0;
        g_assert_cmpint(catalog_video_put(f->c, "b", "k", "e", 1, &v), ==, cases[i].err);
        g_assert_cmpstr(v.uuid, ==, "");
        expect(f, "b", "k", "user.a", "before");
        atomic_store(&disk.fail, 0);
        g_assert_cmpint(set(f, "k", "user.b", "after"), ==, 0);
        expect(f, "b", "k", "user.a", "before");
        expect(f, "b", "k", "user.b", "after");
    }
    reopen(f);
    expect(f, "b", "k", "user.a", "before");
}

/* ---- many threads ---- */

struct hammer {
    struct fix *f;
    uint32_t seed;
};

/* Whatever happens meanwhile, a value read is one that was written for this name. */
static void hammer_once(struct fix *f, GRand *rand)
{
    static const char *const names[] = {"user.a", "user.b"};
    const char *name = names[g_rand_int_range(rand, 0, 2)];
    g_autofree char *key =
        g_strdup_printf("d%d/f%d", g_rand_int_range(rand, 0, 3), g_rand_int_range(rand, 0, 4));
    g_autofree char *other = g_strdup_printf("d%d/f9", g_rand_int_range(rand, 0, 3));
    g_autoptr(GBytes) got = NULL;
    g_autoptr(GPtrArray) list = NULL;
    _cleanup_object_ struct store_object o = object_make("e", 77), o2 = {0};
    struct video v = {.is_media = true, .duration = 1, .codec = "h264"}, w;
    int r = 0;
    switch (g_rand_int_range(rand, 0, 10)) {
    case 0:
        r = set(f, key, name, name);
        break;
    case 1:
        r = catalog_xattr_remove(f->c, "b", key, name);
        r = r == -ENODATA ? 0 : r;
        break;
    case 2:
        r = catalog_rename(f->c, "b", key, "b", other, false);
        break;
    case 3:
        r = catalog_rename(f->c, "b", "d0/", "b", "d1/", true);
        break;
    case 4:
        r = catalog_forget(f->c, "b", key);
        break;
    case 5:
        r = catalog_video_put(f->c, "b", key, "e", 1, &v);
        break;
    case 6:
        r = catalog_video_get(f->c, "b", key, "e", &w);
        g_assert_true(r == -ENOENT || (r == 0 && strlen(w.uuid) == 36));
        return;
    case 7:
        r = catalog_xattr_list(f->c, "b", key, &list);
        break;
    case 8:
        r = catalog_attrs_put(f->c, "b", key, &o);
        if (r == 0 && catalog_attrs_get(f->c, "b", key, "e", MTIME, &o2) == 0)
            g_assert_cmpuint(o2.size, ==, 77);
        break;
    default:
        r = catalog_xattr_get(f->c, "b", key, name, &got);
        if (r == 0)
            g_assert_cmpmem(g_bytes_get_data(got, NULL), g_bytes_get_size(got), name, 6);
        r = r == -ENODATA ? 0 : r;
    }
    g_assert_cmpint(r, ==, 0);
}

static void *hammer_main(void *arg)
{
    struct hammer *h = arg;
    GRand *rand = g_rand_new_with_seed(h->seed);
    for (int i = 0; i < 400; i++)
        hammer_once(h->f, rand);
    g_rand_free(rand);
    return NULL;
}

static void test_threads(struct fix *f, gconstpointer unused)
{
    const char *env = getenv("MLOPSFS_SEED");
    uint32_t seed = env ? (uint32_t)strtoul(env, NULL, 0) : (uint32_t)clock_real_ns();
    g_test_message("MLOPSFS_SEED=%u", seed);
    enum { N = 6 };
    pthread_t threads[N];
    struct hammer h[N];
    for (int i = 0; i < N; i++) {
        h[i] = (struct hammer){f, seed + (uint32_t)i};
        g_assert_cmpint(pthread_create(&threads[i], NULL, hammer_main, &h[i]), ==, 0);
    }
    for (int i = 0; i < N; i++)
        pthread_join(threads[i], NULL);
    reopen(f);
    g_assert_cmpint(count_damaged(f), ==, 0);
}

int main(int argc, char **argv)
{
    if (argc == 3 && (strcmp(argv[1], "--read") == 0 || strcmp(argv[1], "--set") == 0))
        return child_main(argv[1], argv[2]);
    g_test_init(&argc, &argv, NULL);
    disk_install();
#define ADD(name, fn) g_test_add("/catalog-life/" name, struct fix, NULL, setup, fn, teardown)
    ADD("migration", test_migration);
    ADD("newer", test_newer);
    ADD("damaged", test_damaged);
    ADD("damaged-later", test_damaged_later);
    ADD("read-only", test_read_only);
    ADD("processes", test_processes);
    ADD("disk-fails", test_disk_fails);
    ADD("threads", test_threads);
    return g_test_run();
}
