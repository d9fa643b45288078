/* SPDX-License-Identifier: Apache-2.0
 *
 * test_power: what a power cut leaves, taken up by the next cache. The cut is a kill (tests/cache/crash.h) whose copy says that it is
 * of another start of the machine, and which has lost what had not been synced.
 */
#include <sqlite3.h>
#include <stdio.h>

#include "tests/cache/crash.h"

/* ---- what the disk has ---- */

static char *found(const char *dir, const char *suffix)
{
    g_autoptr(GDir) top = g_dir_open(dir, 0, NULL);
    const char *name = g_dir_read_name(top);
    g_autofree char *instance = g_build_filename(dir, name, NULL);
    g_autoptr(GDir) d = g_dir_open(instance, 0, NULL);
    while ((name = g_dir_read_name(d)))
        if (g_str_has_suffix(name, suffix))
            return g_build_filename(instance, name, NULL);
    return NULL;
}

static int rows(const char *dir, const char *sql)
{
    g_autofree char *path = found(dir, "journal.db");
    sqlite3 *db;
    sqlite3_stmt *st;
    g_assert_cmpint(sqlite3_open(path, &db), ==, SQLITE_OK);
    g_assert_cmpint(sqlite3_prepare_v2(db, sql, -1, &st, NULL), ==, SQLITE_OK);
    int n = sqlite3_step(st) == SQLITE_ROW ? sqlite3_column_int(st, 0) : -1;
    sqlite3_finalize(st);
    sqlite3_close(db);
    return n;
}

static void other_boot(struct crash *k)
{
    (void)rows(k->copy, "UPDATE instance SET boot = 'another'");
    g_assert_cmpint(rows(k->copy, "SELECT count(*) FROM instance WHERE boot = 'another'"), ==, 1);
}

/* Of the staging file [from, end of it) never got there. */
static void lose_bytes(struct crash *k, size_t from)
{
    g_autofree char *path = found(k->copy, ".staged"), *data = NULL;
    gsize n;
    g_assert_true(g_file_get_contents(path, &data, &n, NULL));
    g_assert_cmpuint(from, <, n);
    memset(data + from, 0, n - from);
    g_assert_true(g_file_set_contents(path, data, (gssize)n, NULL));
}

static void lose_file(struct crash *k)
{
    g_autofree char *path = found(k->copy, ".staged");
    g_assert_cmpint(remove(path), ==, 0);
}

/* ---- a file of two contents ---- */

#define N (2 * PART + 77)

struct two {
    struct crash *k;
    struct cache_file *f;
    struct cache_handle *h;
    uint8_t *first, *second;
    size_t staged; /* where the second one begins in the staging file */
};

static void two_init(struct two *t, bool sync)
{
    t->k = crash_new(STORE_PUT, 0, false);
    t->f = cache_file_new(t->k->w.cache, "b", "k", NULL, &t->k->w);
    t->h = cache_handle_new(t->f);
    t->first = write_in_order(t->h, N);
    g_assert_cmpint(cache_seal(t->h, NULL), ==, 0);
    if (sync)
        g_assert_cmpint(cache_sync_local(t->k->w.cache, NULL), ==, 0);
    t->second = g_memdup2(t->first, N);
    t->staged = N;
    memcpy(t->second + 1000, "second", 6);
    g_assert_cmpint(cache_write(t->h, "second", 6, 1000, false, NULL), ==, 0);
    g_assert_cmpint(cache_seal(t->h, NULL), ==, 0);
}

static void cut(struct two *t)
{
    kill_now(t->k);
    other_boot(t->k);
    cache_handle_free(t->h);
    cache_file_unref(t->f);
}

/* The next cache has this content, and brings it into the bucket. NULL: it has no file. */
static void two_end(struct two *t, const uint8_t *want)
{
    g_autoptr(GPtrArray) files = restart(t->k);
    g_assert_cmpuint(files->len, ==, want ? 1 : 0);
    if (want) {
        struct cache_file *f = files->pdata[0];
        assert_content(f, want, N);
        g_assert_cmpint(cache_file_flush(f, NULL), ==, 0);
        assert_object(&t->k->w, "k", want, N);
        cache_file_unref(f);
    }
    crash_free(t->k);
    g_free(t->first);
    g_free(t->second);
}

/* All of it had reached the disk, though nobody had waited for that. */
static void test_whole(void)
{
    struct two t;
    two_init(&t, false);
    cut(&t);
    two_end(&t, t.second);
}

/* The last content had not: it is the one before, and no mixture. */
static void test_torn(void)
{
    struct two t;
    two_init(&t, true);
    cut(&t);
    lose_bytes(t.k, t.staged);
    two_end(&t, t.first);
}

/* A daemon that was killed is not asked: what it wrote is there. */
static void test_same_boot(void)
{
    struct two t;
    two_init(&t, true);
    kill_now(t.k);
    cache_handle_free(t.h);
    cache_file_unref(t.f);
    two_end(&t, t.second);
}

/* The seal that was synced stays while a newer one is not, with what it refers to, and goes when that is. */
static void test_synced(void)
{
    struct two t;
    g_autofree uint8_t *junk = g_malloc0(N);
    two_init(&t, true);
    g_assert_cmpint(rows(t.k->w.dir, "SELECT count(*) FROM seals"), ==, 2);
    /* Enough garbage that it is given back where it may be. */
    for (unsigned i = 0; i < 4; i++) {
        memcpy(junk + 1000, "second", 6);
        g_assert_cmpint(cache_write(t.h, junk, N, 0, false, NULL), ==, 0);
        g_assert_cmpint(cache_seal(t.h, NULL), ==, 0);
    }
    (void)staging_reclaim(t.f->staging);
    cut(&t);
    lose_bytes(t.k, t.staged);
    two_end(&t, t.first);

    two_init(&t, true);
    g_assert_cmpint(cache_sync_local(t.k->w.cache, NULL), ==, 0);
    g_assert_cmpint(rows(t.k->w.dir, "SELECT count(*) FROM seals"), ==, 1);
    g_assert_cmpint(rows(t.k->w.dir, "SELECT count(*) FROM seals WHERE synced"), ==, 1);
    cut(&t);
    two_end(&t, t.second);
}

/* Parts that were sent of the newer content are not the older one's. */
static void test_parts(void)
{
    struct crash *k = crash_new(STORE_MPU_COMPLETE, 1, false);
    struct cache_file *f = cache_file_new(k->w.cache, "b", "k", NULL, &k->w);
    struct cache_handle *h = cache_handle_new(f);
    struct two t = {.k = k, .f = f, .h = h};
    t.first = write_in_order(h, N);
    g_assert_cmpint(cache_seal(h, NULL), ==, 0);
    g_assert_cmpint(cache_sync_local(k->w.cache, NULL), ==, 0);
    t.second = g_memdup2(t.first, N);
    memcpy(t.second + 1000, "second", 6);
    g_assert_cmpint(cache_write(h, "second", 6, 1000, false, NULL), ==, 0);
    g_assert_cmpint(flush(h), <, 0); /* killed when all parts were there */
    other_boot(k);
    cache_handle_free(h);
    cache_file_unref(f);
    lose_bytes(k, N);
    two_end(&t, t.first);
}

/* Its commit had ended, and the disk knew of the end of its bytes, but not of that of its seal. */
static void test_forgotten(void)
{
    struct two t;
    two_init(&t, true);
    g_assert_cmpint(cache_sync_local(t.k->w.cache, NULL), ==, 0);
    cut(&t);
    lose_file(t.k);
    two_end(&t, NULL);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/power/whole", test_whole);
    g_test_add_func("/power/torn", test_torn);
    g_test_add_func("/power/same-boot", test_same_boot);
    g_test_add_func("/power/synced", test_synced);
    g_test_add_func("/power/parts", test_parts);
    g_test_add_func("/power/forgotten", test_forgotten);
    return g_test_run();
}
