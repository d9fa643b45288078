/* SPDX-License-Identifier: Apache-2.0
 *
 * test_replay: what a killed process leaves, taken up by the next cache.
 */
#include <sqlite3.h>

#include "tests/cache/crash.h"

/* ---- one content ---- */

struct shape {
    const char *name;
    size_t size;
    bool backwards; /* not streamed: an upload of the commit's own */
    enum store_verb verb;
    unsigned nth;
    bool applied;
    unsigned parts_again; /* that the second cache sends */
};

static const struct shape shapes[] = {
    {"put", 5000, false, STORE_PUT, 1, false, 0},
    {"put-done", 5000, false, STORE_PUT, 1, true, 0},
    {"empty", 0, false, STORE_PUT, 1, false, 0},
    {"stream-complete", 4 * PART + 77, false, STORE_MPU_COMPLETE, 1, false, 1}, /* the short last one */
    {"stream-completed", 4 * PART + 77, false, STORE_MPU_COMPLETE, 1, true, 0},
    {"own-complete", 4 * PART + 77, true, STORE_MPU_COMPLETE, 1, false, 1}, /* the short last one */
    {"own-completed", 4 * PART + 77, true, STORE_MPU_COMPLETE, 1, true, 0},
    {"own-created", 4 * PART + 77, true, STORE_MPU_CREATE, 1, false, 5},
    {"own-unanswered", 4 * PART + 77, true, STORE_MPU_CREATE, 1, true, 5}, /* of the first one nobody knows */
};

static uint8_t *write_backwards(struct cache_handle *h, size_t n)
{
    uint8_t *all = g_malloc(n);
    fill(all, n, n);
    for (size_t end = n; end > 0;) {
        size_t k = MIN(end, 1 << 20);
        end -= k;
        g_assert_cmpint(cache_write(h, all + end, k, end, false, NULL), ==, 0);
    }
    return all;
}

/* One that is not streamed: it has a base. */
static struct cache_file *overwritten(struct crash *k, const char *key, size_t n)
{
    g_autofree uint8_t *old = g_malloc0(n);
    g_free(fake_store_put(k->w.fake, "b", key, old, n));
    return open_object(&k->w, key);
}

static void test_shape(gconstpointer data)
{
    const struct shape *s = data;
    struct crash *k = crash_new(s->verb, s->nth, s->applied);
    struct cache_file *f = s->backwards ? overwritten(k, "dir/k", s->size) : cache_file_new(k->w.cache, "b", "dir/k", NULL, &k->w);
    struct cache_handle *h = cache_handle_new(f);
    g_autofree uint8_t *all = s->backwards ? write_backwards(h, s->size) : write_in_order(h, s->size);
    (void)flush(h);
    g_assert_true(k->dead);
    cache_handle_free(h);
    cache_file_unref(f);

    uint64_t puts = count(&k->w, STORE_PUT), parts = count(&k->w, STORE_MPU_PART);
    g_autoptr(GPtrArray) files = restart(k);
    g_assert_cmpuint(files->len, ==, 1);
    f = files->pdata[0];
    g_autofree char *bucket = NULL, *key = NULL, *etag = NULL;
    cache_file_target(f, &bucket, &key, &etag);
    g_assert_cmpstr(key, ==, "dir/k");
    g_assert_true(cache_file_dirty(f));
    assert_content(f, all, s->size);
    g_assert_cmpint(cache_file_flush(f, NULL), ==, 0);
    g_assert_false(cache_file_dirty(f));
    assert_object(&k->w, "dir/k", all, s->size);
    assert_content(f, all, s->size);
    if (s->applied)
        g_assert_cmpuint(count(&k->w, STORE_PUT), ==, puts);
    g_assert_cmpuint(count(&k->w, STORE_MPU_PART) - parts, ==, s->parts_again);
    cache_file_unref(f);
    crash_free(k);
}

/* Killed when some parts of a sealed content were there and others not: only the others are sent again. */
static void test_resume(void)
{
    enum { N = 8 };
    for (unsigned nth = 1; nth <= N; nth++) {
        struct crash *k = crash_new(STORE_MPU_PART, nth, false);
        struct cache_file *f = overwritten(k, "k", N * PART);
        struct cache_handle *h = cache_handle_new(f);
        g_autofree uint8_t *all = write_backwards(h, N * PART);
        (void)flush(h);
        g_assert_true(k->dead);
        cache_handle_free(h);
        cache_file_unref(f);
        uint64_t parts = count(&k->w, STORE_MPU_PART), creates = count(&k->w, STORE_MPU_CREATE);
        g_autoptr(GPtrArray) files = restart(k);
        f = files->pdata[0];
        g_assert_cmpint(cache_file_flush(f, NULL), ==, 0);
        assert_object(&k->w, "k", all, N * PART);
        /* The last that had ended when it was killed may not have been recorded. */
        g_assert_cmpuint(count(&k->w, STORE_MPU_PART) - parts, >=, N - (nth - 1));
        g_assert_cmpuint(count(&k->w, STORE_MPU_PART) - parts, <=, N - MAX(nth, 2) + 2);
        g_assert_cmpuint(count(&k->w, STORE_MPU_CREATE), ==, creates);
        cache_file_unref(f);
        crash_free(k);
    }
}

/* ---- a base ---- */

static void edit(struct cache_file *f, uint8_t *all, size_t *n)
{
    struct cache_handle *h = cache_handle_new(f);
    memcpy(all + 3 * PART, "changed", 7);
    memcpy(all + *n, "appended", 8);
    g_assert_cmpint(cache_write(h, "changed", 7, 3 * PART, false, NULL), ==, 0);
    g_assert_cmpint(cache_write(h, "appended", 8, *n, false, NULL), ==, 0);
    *n += 8;
    (void)flush(h);
    cache_handle_free(h);
}

static void run_edit(bool applied, bool foreign)
{
    struct crash *k = crash_new(STORE_MPU_COMPLETE, 1, applied);
    size_t n = 6 * PART + 5;
    g_autofree uint8_t *all = g_malloc(n + 8);
    fill(all, n, 3);
    g_free(fake_store_put(k->w.fake, "b", "k", all, n));
    struct cache_file *f = open_object(&k->w, "k");
    edit(f, all, &n);
    g_assert_true(k->dead);
    cache_file_unref(f);
    if (foreign)
        g_free(fake_store_put(k->w.fake, "b", "k", "theirs", 6));
    g_autoptr(GPtrArray) files = restart(k);
    g_assert_cmpuint(files->len, ==, 1);
    f = files->pdata[0];
    int r = cache_file_flush(f, NULL);
    if (foreign) {
        g_assert_cmpint(r, ==, -ESTALE);
        assert_object(&k->w, "k", "theirs", 6);
        g_assert_cmpint(cache_file_orphan(f, false, NULL), ==, 0); /* they are to stay */
        g_assert_cmpint(cache_file_bury(f), ==, 0);
    } else {
        g_assert_cmpint(r, ==, 0);
        assert_object(&k->w, "k", all, n);
        assert_content(f, all, n);
    }
    cache_file_unref(f);
    crash_free(k);
}

static void test_edit(void)
{
    run_edit(false, false);
    run_edit(true, false);
    run_edit(false, true);
}

/* A change that is sealed and then taken back: the journal must not bring it. */
static void test_taken_back(void)
{
    struct crash *k = crash_new(STORE_COPY, 0, false);
    g_free(fake_store_put(k->w.fake, "b", "k", "content", 7));
    struct cache_file *f = open_object(&k->w, "k");
    struct store_headers before = {0}, changed = {0};
    cache_file_headers(f, &before);
    store_headers_copy(&changed, &before);
    store_headers_set_meta(&changed, "mode", "33152");
    cache_file_set_headers(f, &changed);
    g_assert_cmpint(cache_file_seal(f, NULL), ==, 0);
    cache_file_set_headers(f, &before);
    g_assert_true(cache_file_dirty(f));
    g_assert_cmpint(cache_file_flush(f, NULL), ==, 0);
    cache_file_set_headers(f, &changed);
    cache_file_set_headers(f, &before);
    g_assert_false(cache_file_dirty(f)); /* nobody has heard of it */
    store_headers_clear(&before);
    store_headers_clear(&changed);
    kill_now(k);
    cache_file_unref(f);
    g_autoptr(GPtrArray) files = restart(k);
    g_assert_cmpuint(files->len, ==, 0);
    crash_free(k);
}

static void test_move(void)
{
    struct crash *k = crash_new(STORE_COPY, 1, false);
    g_free(fake_store_put(k->w.fake, "b", "old", "content", 7));
    struct cache_file *f = open_object(&k->w, "old");
    g_assert_cmpint(cache_file_retarget(f, "b", "new", NULL, NULL), ==, 0);
    g_assert_cmpint(cache_file_flush(f, NULL), <, 0);
    cache_file_unref(f);
    g_autoptr(GPtrArray) files = restart(k);
    f = files->pdata[0];
    g_assert_cmpint(cache_file_flush(f, NULL), ==, 0);
    assert_object(&k->w, "new", "content", 7);
    cache_file_unref(f);
    crash_free(k);
}

/* ---- what was not sealed ---- */

static void wait_dead(struct crash *k)
{
    mutex_lock(&k->w.lock);
    while (!k->dead) {
        mutex_unlock(&k->w.lock);
        fake_store_wait_idle(k->w.fake);
        mutex_lock(&k->w.lock);
    }
    mutex_unlock(&k->w.lock);
}

/* A stream that no seal refers to is ended, and nothing appears. */
static void test_unsealed(void)
{
    struct crash *k = crash_new(STORE_MPU_PART, 3, false);
    struct cache_file *f = cache_file_new(k->w.cache, "b", "k", NULL, &k->w);
    struct cache_handle *h = cache_handle_new(f);
    g_autofree uint8_t *all = write_in_order(h, 5 * PART);
    wait_dead(k);
    cache_handle_free(h);
    cache_file_unref(f);
    g_autoptr(GPtrArray) files = restart(k);
    g_assert_cmpuint(files->len, ==, 0);
    fake_store_wait_idle(k->w.fake);
    crash_free(k);
    (void)all;
}

/* Nor does anybody know the id of an upload whose creation was on its way. The next mount ends it, or, if the server does not let it
 * look, the one after that. */
static void run_unanswered(bool refused)
{
    struct crash *k = crash_new(STORE_MPU_CREATE, 1, true);
    struct cache_file *f = cache_file_new(k->w.cache, "b", "k", NULL, &k->w);
    struct cache_handle *h = cache_handle_new(f);
    g_autofree uint8_t *all = write_in_order(h, 2 * PART);
    wait_dead(k);
    cache_handle_free(h);
    cache_file_unref(f);
    if (refused) {
        mutex_lock(&k->w.lock);
        k->verb = STORE_MPU_LIST;
        mutex_unlock(&k->w.lock);
        g_autoptr(GPtrArray) none = restart_with(k, true);
        g_assert_cmpuint(none->len, ==, 0);
        cache_free(k->w.cache);
        g_assert_cmpuint(fake_store_uploads(k->w.fake), ==, 1);
        g_assert_cmpint(mkdir(k->w.dir, 0700), ==, 0);
        cache_start_on(k, k->w.dir);
    }
    g_autoptr(GPtrArray) files = restart(k);
    g_assert_cmpuint(files->len, ==, 0);
    crash_free(k);
    (void)all;
}

static void test_unanswered(void)
{
    run_unanswered(false);
    run_unanswered(true);
}

/* What was written after a seal that could not be committed does not get into it. */
static void test_sealed_alone(void)
{
    struct crash *k = crash_new(STORE_PUT, 1, false);
    struct cache_file *f = cache_file_new(k->w.cache, "b", "k", NULL, &k->w);
    struct cache_handle *h = cache_handle_new(f);
    g_autofree uint8_t *all = write_in_order(h, 3 * MIB), *junk = g_malloc(3 * MIB);
    g_assert_cmpint(flush(h), <, 0);
    remove_dir(k->copy);
    memset(junk, 'x', 3 * MIB);
    for (unsigned i = 0; i < 4; i++)
        g_assert_cmpint(cache_write(h, junk, 3 * MIB, 0, false, NULL), ==, 0);
    g_assert_cmpint(cache_file_truncate(f, 10, NULL), ==, 0);
    kill_now(k);
    cache_handle_free(h);
    cache_file_unref(f);
    g_autoptr(GPtrArray) files = restart(k);
    g_assert_cmpuint(files->len, ==, 1);
    f = files->pdata[0];
    assert_content(f, all, 3 * MIB);
    g_assert_cmpint(cache_file_flush(f, NULL), ==, 0);
    assert_object(&k->w, "k", all, 3 * MIB);
    cache_file_unref(f);
    crash_free(k);
}

/* ---- seals that no commit follows ---- */

static struct cache_file *only_file(struct crash *k)
{
    g_autoptr(GPtrArray) files = restart(k);
    g_assert_cmpuint(files->len, ==, 1);
    return files->pdata[0];
}

/* Ends the first process; the second one brings `all` into the bucket. */
static void end_with(struct crash *k, struct cache_file *f, struct cache_handle *h, const uint8_t *all, size_t n)
{
    kill_now(k);
    cache_handle_free(h);
    cache_file_unref(f);
    f = only_file(k);
    assert_content(f, all, n);
    g_assert_cmpint(cache_file_flush(f, NULL), ==, 0);
    assert_object(&k->w, "k", all, n);
    cache_file_unref(f);
    crash_free(k);
}

/* The newest of several, and nothing that came after. */
static void test_sealed_twice(void)
{
    struct crash *k = crash_new(STORE_PUT, 0, false);
    struct cache_file *f = cache_file_new(k->w.cache, "b", "k", NULL, &k->w);
    struct cache_handle *h = cache_handle_new(f);
    g_autofree uint8_t *all = write_in_order(h, 4 * PART + 100);
    g_assert_cmpint(cache_seal(h, NULL), ==, 0);
    g_assert_cmpint(cache_seal(h, NULL), ==, 0);
    memcpy(all + 17, "again", 5);
    g_assert_cmpint(cache_write(h, "again", 5, 17, false, NULL), ==, 0);
    g_assert_cmpint(cache_seal(h, NULL), ==, 0);
    g_assert_cmpint(cache_write(h, "never", 5, PART, false, NULL), ==, 0);
    end_with(k, f, h, all, 4 * PART + 100);
}

/* A commit has sent more parts than the stream had; then what they hold is written again, and sealed. */
static void test_tail(void)
{
    enum { TAIL = PART + PART / 2 };
    struct crash *k = crash_new(STORE_MPU_COMPLETE, 0, false);
    struct cache_file *f = cache_file_new(k->w.cache, "b", "k", NULL, &k->w);
    struct cache_handle *h = cache_handle_new(f);
    size_t n = 3 * PART + TAIL;
    g_autofree uint8_t *all = write_in_order(h, n), *tail = g_malloc(TAIL);
    mutex_lock(&k->w.lock);
    k->refuse = true;
    mutex_unlock(&k->w.lock);
    g_assert_cmpint(flush(h), <, 0);
    memset(tail, 't', TAIL);
    memcpy(all + 3 * PART, tail, TAIL);
    g_assert_cmpint(cache_write(h, tail, TAIL, 3 * PART, false, NULL), ==, 0);
    g_assert_cmpint(cache_seal(h, NULL), ==, 0);
    end_with(k, f, h, all, n);
}

/* It was to replace whatever was there: not what somebody has stored after the kill. */
static void test_whatever(void)
{
    struct crash *k = crash_new(STORE_PUT, 0, false);
    g_free(fake_store_put(k->w.fake, "b", "k", "old", 3));
    struct cache_file *f = open_object(&k->w, "k");
    struct cache_handle *h = cache_handle_new(f);
    g_assert_cmpint(cache_file_retarget(f, "b", "k", "*", NULL), ==, 0);
    g_assert_cmpint(cache_file_truncate(f, 0, NULL), ==, 0);
    g_assert_cmpint(cache_write(h, "ours", 4, 0, false, NULL), ==, 0);
    g_assert_cmpint(cache_seal(h, NULL), ==, 0);
    kill_now(k);
    cache_handle_free(h);
    cache_file_unref(f);
    g_free(fake_store_put(k->w.fake, "b", "k", "theirs", 6));
    f = only_file(k);
    assert_content(f, (const uint8_t *)"ours", 4);
    g_assert_cmpint(cache_file_flush(f, NULL), ==, -ESTALE);
    assert_object(&k->w, "k", "theirs", 6);
    g_assert_cmpint(cache_file_orphan(f, false, NULL), ==, 0);
    g_assert_cmpint(cache_file_bury(f), ==, 0);
    cache_file_unref(f);
    crash_free(k);
}

/* The request was recorded by a close before it was made: its object is recognised, also when headers have changed in between. */
static void test_foretold(void)
{
    for (int changed = 0; changed < 2; changed++) {
        struct crash *k = crash_new(STORE_PUT, 1, true);
        struct cache_file *f = cache_file_new(k->w.cache, "b", "k", NULL, &k->w);
        struct cache_handle *h = cache_handle_new(f);
        struct store_headers headers = {0}, got;
        g_assert_cmpint(cache_write(h, "bytes", 5, 0, false, NULL), ==, 0);
        store_headers_set_meta(&headers, "x", "1");
        cache_file_suggest_headers(f, &headers);
        g_assert_cmpint(cache_seal(h, NULL), ==, 0);
        g_assert_nonnull(f->recorded_uuid);
        store_headers_set_meta(&headers, "x", changed ? "2" : "1");
        cache_file_suggest_headers(f, &headers);
        g_assert_true(changed == (f->recorded_uuid == NULL));
        g_assert_cmpint(flush(h), <, 0);
        g_assert_true(k->dead);
        cache_handle_free(h);
        cache_file_unref(f);
        uint64_t puts = count(&k->w, STORE_PUT);
        f = only_file(k);
        cache_file_headers(f, &got);
        g_assert_cmpstr(store_headers_get_meta(&got, "x"), ==, changed ? "2" : "1");
        g_assert_cmpint(cache_file_flush(f, NULL), ==, 0);
        g_assert_cmpuint(count(&k->w, STORE_PUT), ==, puts);
        assert_object(&k->w, "k", "bytes", 5);
        cache_file_unref(f);
        store_headers_clear(&headers);
        store_headers_clear(&got);
        crash_free(k);
    }
}

/* Removed, and then it could not be: sealed again, it is there after a kill. */
static void test_unorphan(void)
{
    struct crash *k = crash_new(STORE_PUT, 0, false);
    struct cache_file *f = cache_file_new(k->w.cache, "b", "k", NULL, &k->w);
    struct cache_handle *h = cache_handle_new(f);
    g_autofree uint8_t *all = write_in_order(h, MIB);
    g_assert_cmpint(cache_seal(h, NULL), ==, 0);
    g_assert_cmpint(cache_file_orphan(f, true, NULL), ==, 0);
    cache_file_unorphan(f);
    g_assert_cmpint(cache_file_seal(f, NULL), ==, 0);
    end_with(k, f, h, all, MIB);
}

/* ---- damaged records ---- */

/* Runs SQL on the database of the one instance in the copy. */
static void change_journal(const struct crash *k, const char *sql)
{
    g_autoptr(GDir) d = g_dir_open(k->copy, 0, NULL);
    const char *name = g_dir_read_name(d);
    g_autofree char *path = g_build_filename(k->copy, name, "journal.db", NULL);
    sqlite3 *db = NULL;
    g_assert_null(g_dir_read_name(d));
    g_assert_cmpint(sqlite3_open(path, &db), ==, SQLITE_OK);
    g_assert_cmpint(sqlite3_exec(db, sql, NULL, NULL, NULL), ==, SQLITE_OK);
    g_assert_cmpint(sqlite3_changes(db), ==, 1);
    sqlite3_close(db);
}

static struct cache_file *write_sealed(struct crash *k, const char *key)
{
    struct cache_file *f = cache_file_new(k->w.cache, "b", key, NULL, &k->w);
    struct cache_handle *h = cache_handle_new(f);
    g_assert_cmpint(cache_write(h, key, strlen(key), 0, false, NULL), ==, 0);
    g_assert_cmpint(cache_seal(h, NULL), ==, 0);
    cache_handle_free(h);
    return f;
}

/* Adopts the copy again, with nothing else than what is in it. */
static struct cache_file *again(struct crash *k)
{
    g_autoptr(GPtrArray) files = g_ptr_array_new();
    cache_free(k->w.cache);
    cache_start_on(k, k->copy);
    g_assert_cmpint(cache_adopt(k->w.cache, take, files), ==, 0);
    g_assert_cmpuint(files->len, ==, 1);
    return files->pdata[0];
}

/* One file's record is damaged: the other file comes into the bucket, and what there is of this one stays, as often as it is tried. */
static void test_damaged(void)
{
    struct crash *k = crash_new(STORE_PUT, 0, false);
    struct cache_file *one = write_sealed(k, "one"), *two = write_sealed(k, "two");
    kill_now(k);
    cache_file_unref(one);
    cache_file_unref(two);
    change_journal(k, "CREATE TABLE was AS SELECT headers FROM seals WHERE key = x'6f6e65'; UPDATE seals SET headers = x'ff' WHERE key = x'6f6e65'");
    struct cache_file *f = only_file(k);
    g_assert_true(cache_file_is_at(f, "b", "two"));
    g_assert_cmpint(cache_file_flush(f, NULL), ==, 0);
    cache_file_unref(f);
    assert_object(&k->w, "two", "two", 3);
    g_autoptr(GPtrArray) none = g_ptr_array_new();
    cache_free(k->w.cache);
    cache_start_on(k, k->copy);
    g_assert_cmpint(cache_adopt(k->w.cache, take, none), ==, 0);
    g_assert_cmpuint(none->len, ==, 0);
    cache_free(k->w.cache);
    change_journal(k, "UPDATE seals SET headers = (SELECT headers FROM was)");
    cache_start_on(k, k->copy);
    f = again(k);
    assert_content(f, (const uint8_t *)"one", 3);
    g_assert_cmpint(cache_file_flush(f, NULL), ==, 0);
    cache_file_unref(f);
    crash_free(k);
}

/* The record of an upload is, which alone has bytes of the content: it must not be ended. */
static void test_damaged_upload(void)
{
    struct crash *k = crash_new(STORE_MPU_COMPLETE, 0, false);
    struct cache_file *f = cache_file_new(k->w.cache, "b", "k", NULL, &k->w);
    struct cache_handle *h = cache_handle_new(f);
    size_t n = 3 * PART + 77;
    g_autofree uint8_t *all = write_in_order(h, n);
    while (cache_squeeze(k->w.cache, f->staging, true) == 0) /* until a part is there */
        g_thread_yield();
    g_assert_cmpint(cache_seal(h, NULL), ==, 0);
    kill_now(k);
    change_journal(k, "CREATE TABLE was AS SELECT headers FROM uploads; UPDATE uploads SET headers = x'ff'");
    cache_handle_free(h);
    cache_file_unref(f);
    g_autoptr(GPtrArray) none = restart(k);
    g_assert_cmpuint(none->len, ==, 0);
    cache_free(k->w.cache); /* waits for what is to be ended */
    g_assert_cmpuint(fake_store_uploads(k->w.fake), ==, 1);
    change_journal(k, "UPDATE uploads SET headers = (SELECT headers FROM was)");
    cache_start_on(k, k->copy);
    f = again(k);
    g_assert_cmpint(cache_file_flush(f, NULL), ==, 0);
    assert_object(&k->w, "k", all, n);
    cache_file_unref(f);
    crash_free(k);
}

/* ---- ends that are no crash ---- */

/* The server is away when the mount ends: what is uncommitted, sealed or not, is kept. */
static void test_keep(void)
{
    struct crash *k = crash_new(STORE_PUT, 1, false);
    struct cache_file *f = cache_file_new(k->w.cache, "b", "k", NULL, &k->w);
    struct cache_handle *h = cache_handle_new(f);
    g_autofree uint8_t *all = write_in_order(h, 3 * PART);
    cache_handle_free(h);
    mutex_lock(&k->w.lock);
    k->dead = true;
    mutex_unlock(&k->w.lock);
    g_assert_cmpint(cache_file_keep(f), ==, 0);
    cache_file_unref(f);
    cache_free(k->w.cache);
    copy_dir(k->w.dir, k->copy);
    cache_start_on(k, k->w.dir);
    g_autoptr(GPtrArray) files = restart(k);
    g_assert_cmpuint(files->len, ==, 1);
    f = files->pdata[0];
    assert_content(f, all, 3 * PART);
    g_assert_cmpint(cache_file_flush(f, NULL), ==, 0);
    assert_object(&k->w, "k", all, 3 * PART);
    cache_file_unref(f);
    crash_free(k);
}

/* Without anybody who takes them, files are committed all the same. */
static bool refuse(void *ctx, struct cache_file *f)
{
    (void)f;
    ++*(unsigned *)ctx;
    return false;
}

static void test_refused(void)
{
    struct crash *k = crash_new(STORE_PUT, 2, false);
    struct cache_file *f = cache_file_new(k->w.cache, "b", "other", NULL, &k->w);
    g_assert_cmpint(cache_file_flush(f, NULL), ==, 0);
    cache_file_unref(f);
    f = cache_file_new(k->w.cache, "b", "k", NULL, &k->w);
    struct cache_handle *h = cache_handle_new(f);
    g_assert_cmpint(cache_write(h, "bytes", 5, 0, false, NULL), ==, 0);
    g_assert_cmpint(flush(h), <, 0);
    cache_handle_free(h);
    cache_file_unref(f);
    cache_free(k->w.cache);
    remove_dir(k->w.dir);
    mutex_lock(&k->w.lock);
    k->nth = 0;
    k->dead = false;
    mutex_unlock(&k->w.lock);
    cache_start_on(k, k->copy);
    unsigned n = 0;
    g_assert_cmpint(cache_adopt(k->w.cache, refuse, &n), ==, 0);
    g_assert_cmpuint(n, ==, 1);
    cache_free(k->w.cache); /* waits for it */
    assert_object(&k->w, "k", "bytes", 5);
    g_assert_cmpint(rmdir(k->copy), ==, 0);
    g_assert_cmpint(mkdir(k->copy, 0700), ==, 0);
    cache_start_on(k, k->copy);
    crash_free(k);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(shapes); i++) {
        g_autofree char *name = g_strdup_printf("/replay/%s", shapes[i].name);
        g_test_add_data_func(name, &shapes[i], test_shape);
    }
    g_test_add_func("/replay/resume", test_resume);
    g_test_add_func("/replay/edit", test_edit);
    g_test_add_func("/replay/taken-back", test_taken_back);
    g_test_add_func("/replay/move", test_move);
    g_test_add_func("/replay/unsealed", test_unsealed);
    g_test_add_func("/replay/unanswered", test_unanswered);
    g_test_add_func("/replay/sealed-alone", test_sealed_alone);
    g_test_add_func("/replay/sealed-twice", test_sealed_twice);
    g_test_add_func("/replay/tail", test_tail);
    g_test_add_func("/replay/whatever", test_whatever);
    g_test_add_func("/replay/foretold", test_foretold);
    g_test_add_func("/replay/unorphan", test_unorphan);
    g_test_add_func("/replay/damaged", test_damaged);
    g_test_add_func("/replay/damaged-upload", test_damaged_upload);
    g_test_add_func("/replay/keep", test_keep);
    g_test_add_func("/replay/refused", test_refused);
    return g_test_run();
}
