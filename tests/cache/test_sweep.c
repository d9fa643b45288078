/* SPDX-License-Identifier: Apache-2.0
 *
 * test_sweep: uploads whose creation was not answered are ended, and nobody else's are. What a kill
 * leaves of them is in test_replay.
 */
#include <errno.h>

#include "base/clock.h"
#include "base/sqlite.h"
#include "cache/file.h"
#include "cache/journal.h"
#include "cache/sweep.h"
#include "tests/cache/world.h"

#define HOUR_NS (3600 * NSEC_PER_SEC)

/* The first reply to a creation is lost. */
static enum fake_action lose_first(struct world *w, struct store_request *req)
{
    if (req->verb != STORE_MPU_CREATE || w->hits++ > 0)
        return FAKE_GO;
    store_result_fail(&req->res, -ECONNRESET, STORE_CLASS_RETRY, NULL, "reply lost");
    return FAKE_FAIL_AFTER;
}

static void commit(struct world *w, const char *key, size_t n)
{
    struct cache_file *f = cache_file_new(w->cache, "b", key, NULL, w);
    struct cache_handle *h = cache_handle_new(f);
    g_autofree uint8_t *all = write_in_order(h, n);
    g_assert_cmpint(flush(h), ==, 0);
    assert_object(w, key, all, n);
    cache_handle_free(h);
    cache_file_unref(f);
}

static char *begin_upload(struct world *w, const char *key)
{
    _cleanup_request_ struct store_request req = {.verb = STORE_MPU_CREATE, .bucket = "b", .key = key};
    g_assert_cmpint(store_run(w->fake, &req, NULL), ==, 0);
    return g_steal_pointer(&req.res.upload_id);
}

static ssize_t read_zeros(void *ctx, uint64_t off, void *buf, size_t n)
{
    memset(buf, 0, n);
    return (ssize_t)n;
}

/* Ends one of ours that must still be there. */
static void end_upload(struct world *w, const char *key, const char *id)
{
    _cleanup_request_ struct store_request parts = {
        .verb = STORE_MPU_LIST_PARTS, .bucket = "b", .key = key, .upload_id = id};
    g_assert_cmpint(store_run(w->fake, &parts, NULL), ==, 0);
    _cleanup_request_ struct store_request req = {.verb = STORE_MPU_ABORT, .bucket = "b", .key = key, .upload_id = id};
    g_assert_cmpint(store_run(w->fake, &req, NULL), ==, 0);
}

/* Nothing that is recorded is left; world_free() sees that nothing is in the bucket. */
static void wait_swept(struct world *w)
{
    for (;;) {
        g_autoptr(GPtrArray) lost = NULL;
        g_assert_cmpint(journal_lost(w->cache->journal, &lost), ==, 0);
        if (lost->len == 0)
            return;
        g_thread_yield();
    }
}

/* ---- lost replies ---- */

/* The stream is broken, and the commit makes an upload of its own. */
static void test_lost(void)
{
    struct world *w = plain();
    world_set_hook(w, lose_first);
    commit(w, "k", 3 * PART);
    wait_swept(w);
    g_assert_cmpuint(fake_store_uploads(w->fake), ==, 0);
    world_free(w);
}

/* The retry layer asks again, and gets another upload. */
static void test_lost_and_repeated(void)
{
    struct world *w = world_new(test_seed(), &(struct world_params){.faults = "rate=0"});
    world_set_hook(w, lose_first);
    commit(w, "k", 3 * PART);
    g_assert_cmpuint(count(w, STORE_MPU_CREATE), ==, 2);
    wait_swept(w);
    g_assert_cmpuint(fake_store_uploads(w->fake), ==, 0);
    world_free(w);
}

static enum fake_action fail_first(struct world *w, struct store_request *req)
{
    return lose_first(w, req) == FAKE_GO ? FAKE_GO : FAKE_FAIL;
}

/* A creation takes effect after it was given up, and looked for in vain. */
static void test_late(void)
{
    struct world *w = plain();
    w->cache->settle_ns = HOUR_NS;
    world_set_hook(w, fail_first);
    commit(w, "k", 3 * PART);
    while (count(w, STORE_MPU_LIST) == 0)
        g_thread_yield();
    fake_store_wait_idle(w->fake);
    g_free(begin_upload(w, "k"));
    sweep_lost(w->cache->sweep);
    while (fake_store_uploads(w->fake) > 0)
        g_thread_yield();
    /* Yet another try of the same request may be on its way: the next mount goes on looking. */
    cache_free(w->cache);
    g_assert_cmpint(rmdir(w->dir), <, 0);
    struct cache_params cp = {.store = w->store, .dir = w->dir, .memory = 32 * MIB, .part_size = PART, .settle_ns = 1};
    g_assert_cmpint(cache_new(&cp, &w->cache), ==, 0);
    g_assert_cmpint(cache_adopt(w->cache, NULL, NULL), ==, 0);
    world_free(w);
}

/* Who was answered looks for nothing. */
static enum fake_action refuse_first(struct world *w, struct store_request *req)
{
    if (req->verb != STORE_MPU_CREATE || w->hits++ > 0)
        return FAKE_GO;
    store_result_fail(&req->res, -EACCES, STORE_CLASS_AUTH, "AccessDenied", "no");
    return FAKE_FAIL;
}

static void test_answered(void)
{
    struct world *w = plain();
    struct store *fake = w->fake;
    commit(w, "k", 3 * PART);
    world_set_hook(w, refuse_first);
    commit(w, "refused", 3 * PART);
    wait_swept(w);
    g_assert_cmpuint(fake_store_count(fake, STORE_MPU_LIST), ==, 0);
    world_free(w);
}

/* ---- others' uploads ---- */

static enum fake_action lose_and_hold(struct world *w, struct store_request *req)
{
    return req->verb == STORE_MPU_LIST ? FAKE_HOLD : lose_first(w, req);
}

static void add_part(struct world *w, const char *key, const char *id)
{
    _cleanup_request_ struct store_request req = {.verb = STORE_MPU_PART,
                                                  .bucket = "b",
                                                  .key = key,
                                                  .upload_id = id,
                                                  .part_number = 1,
                                                  .source = {.read = read_zeros, .size = 10}};
    g_assert_cmpint(store_run(w->fake, &req, NULL), ==, 0);
}

static void test_others(void)
{
    struct world *w = plain();
    g_autofree char *earlier = begin_upload(w, "k");
    fake_store_age_uploads(w->fake, 10 * NSEC_PER_SEC);
    world_set_hook(w, lose_and_hold);
    commit(w, "k", 3 * PART);
    fake_store_wait_held(w->fake, 1);
    g_autofree char *begun = begin_upload(w, "k"), *beside = begin_upload(w, "k2"), *below = begin_upload(w, "k/x");
    add_part(w, "k", begun);
    g_assert_cmpuint(fake_store_uploads(w->fake), ==, 5);
    world_set_hook(w, NULL);
    fake_store_release(w->fake);
    wait_swept(w);
    g_assert_cmpuint(fake_store_uploads(w->fake), ==, 4);
    end_upload(w, "k", earlier);
    end_upload(w, "k", begun);
    end_upload(w, "k2", beside);
    end_upload(w, "k/x", below);
    world_free(w);
}

/* The time of an upload is the server's. One that does not tell its time may be a minute off. */
static void test_clocks(void)
{
    static const struct {
        int64_t ahead_ns;
        bool tells, found;
    } rows[] = {
        {(int64_t)HOUR_NS, true, true},   {-(int64_t)HOUR_NS, true, true},
        {(int64_t)HOUR_NS, false, true},  {-30 * (int64_t)NSEC_PER_SEC, false, true},
        {-(int64_t)HOUR_NS, false, false},
    };
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        struct world *w = plain();
        fake_store_set_clock(w->fake, rows[i].ahead_ns, rows[i].tells);
        world_set_hook(w, lose_first);
        commit(w, "k", 3 * PART);
        wait_swept(w);
        g_assert_cmpuint(fake_store_uploads(w->fake), ==, rows[i].found ? 0 : 1);
        if (!rows[i].found)
            end_upload(w, "k", "upload-1");
        world_free(w);
    }
}

/* ---- of our own ---- */

/* And nobody can list before. */
static enum fake_action hold_second(struct world *w, struct store_request *req)
{
    if (req->verb == STORE_MPU_LIST && w->hits < 2) {
        store_result_fail(&req->res, -EAGAIN, STORE_CLASS_RETRY, "SlowDown", "not yet");
        return FAKE_FAIL;
    }
    return req->verb == STORE_MPU_CREATE && w->hits == 1 ? (w->hits++, FAKE_HOLD) : lose_first(w, req);
}

/* Another upload of the key is on its way, which might be taken for the lost one: it waits. */
static void test_being_created(void)
{
    struct world *w = plain();
    world_set_hook(w, hold_second);
    struct cache_file *f = cache_file_new(w->cache, "b", "k", NULL, w);
    struct cache_handle *h = cache_handle_new(f);
    g_autofree uint8_t *all = write_in_order(h, 3 * PART);
    struct call c;
    call_init(&c, NULL);
    struct cache_wait wait = {.done = call_flush_done, .ctx = &c};
    cache_flush(h, &wait);
    fake_store_wait_held(w->fake, 1);
    uint64_t seen = count(w, STORE_MPU_LIST);
    while (count(w, STORE_MPU_LIST) < seen + 2) /* it looks, and looks again */
        g_thread_yield();
    g_assert_cmpuint(fake_store_uploads(w->fake), ==, 1);
    fake_store_release(w->fake);
    g_assert_cmpint(call_wait(&c), ==, 0);
    assert_object(w, "k", all, 3 * PART);
    wait_swept(w);
    g_assert_cmpuint(fake_store_uploads(w->fake), ==, 0);
    cache_handle_free(h);
    cache_file_unref(f);
    world_free(w);
}

/* What other mounts know. */
static void test_known(void)
{
    struct world *w = plain();
    struct journal *other = NULL;
    g_autoptr(GHashTable) ids = NULL;
    struct journal_intent in = {.file = 1, .bucket = (char[]){"b"}, .key = (char[]){"k"}, .uuid = "u1", .time_ns = 1};
    g_assert_cmpint(journal_new(w->dir, "b", &other), ==, 0);
    g_assert_cmpint(journal_intent(other, &in), ==, 0);
    g_assert_cmpint(journal_known_uploads(w->dir, "b", "k", &ids), ==, -EAGAIN);
    g_assert_cmpint(journal_known_uploads(w->dir, "b", "k2", &ids), ==, 0);
    g_clear_pointer(&ids, g_hash_table_unref);

    struct journal_upload u = {.file = 1, .bucket = "b", .key = "k", .id = "theirs", .uuid = "u1"};
    g_assert_cmpint(journal_upload(other, &u, false), ==, 0);
    g_assert_cmpint(journal_known_uploads(w->dir, "b", "k", &ids), ==, 0);
    g_assert_cmpuint(g_hash_table_size(ids), ==, 1);
    g_assert_true(g_hash_table_contains(ids, "theirs"));
    g_clear_pointer(&ids, g_hash_table_unref);

    /* Its mount has died: it creates nothing more, and what it has stays its own. */
    strcpy(in.uuid, "u2");
    g_assert_cmpint(journal_intent(other, &in), ==, 0);
    journal_free(other);
    g_assert_cmpint(journal_known_uploads(w->dir, "b", "k", &ids), ==, 0);
    g_assert_cmpuint(g_hash_table_size(ids), ==, 1);

    g_autoptr(GPtrArray) found = NULL;
    g_assert_cmpint(journal_adopt(w->dir, "b", &found), ==, 0);
    g_assert_cmpuint(found->len, ==, 1);
    other = found->pdata[0];
    g_assert_cmpint(journal_upload_ended(other, "theirs"), ==, 0);
    g_assert_cmpint(journal_intent_ended(other, "u2"), ==, 0);
    journal_free(other);
    world_free(w);
}

/* ---- a journal that cannot be written ---- */

static void in_journal(struct world *w, const char *sql)
{
    g_autofree char *path = g_build_filename(journal_dir(w->cache->journal), "journal.db", NULL);
    sqlite3 *db = NULL;
    g_assert_cmpint(sqlite3_open(path, &db), ==, SQLITE_OK);
    sqlite3_busy_timeout(db, 10000);
    g_assert_cmpint(sqlite3_exec(db, sql, NULL, NULL, NULL), ==, SQLITE_OK);
    sqlite3_close(db);
}

static void run_unrecorded(const char *table)
{
    struct world *w = plain();
    g_autofree char *sql = g_strdup_printf("CREATE TRIGGER full BEFORE INSERT ON %s BEGIN SELECT RAISE(ABORT, 'full'); END", table);
    in_journal(w, sql);
    struct cache_file *f = cache_file_new(w->cache, "b", "k", NULL, w);
    struct cache_handle *h = cache_handle_new(f);
    g_autofree uint8_t *all = write_in_order(h, 3 * PART), *got = g_malloc(3 * PART);
    g_assert_cmpint(flush(h), <, 0);
    if (strcmp(table, "intents") == 0)
        g_assert_cmpuint(count(w, STORE_MPU_CREATE), ==, 0);
    else
        g_assert_cmpuint(count(w, STORE_MPU_CREATE), >=, 2); /* the stream's and the commit's */
    g_assert_cmpuint(count(w, STORE_MPU_PART), ==, 0);
    while (fake_store_uploads(w->fake) > 0)
        g_thread_yield();
    g_assert_true(cache_file_dirty(f));
    g_assert_cmpint(read_at(h, got, 3 * PART, 0), ==, 3 * PART);
    g_assert_cmpmem(got, 3 * PART, all, 3 * PART);
    in_journal(w, "DROP TRIGGER full");
    g_assert_cmpint(flush(h), ==, 0);
    assert_object(w, "k", all, 3 * PART);
    cache_handle_free(h);
    cache_file_unref(f);
    world_free(w);
}

/* An upload that is not recorded is not used: it is not begun, or ended at once. */
static void test_unrecorded(void)
{
    run_unrecorded("intents");
    run_unrecorded("uploads");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/sweep/lost", test_lost);
    g_test_add_func("/sweep/lost-and-repeated", test_lost_and_repeated);
    g_test_add_func("/sweep/late", test_late);
    g_test_add_func("/sweep/answered", test_answered);
    g_test_add_func("/sweep/others", test_others);
    g_test_add_func("/sweep/clocks", test_clocks);
    g_test_add_func("/sweep/being-created", test_being_created);
    g_test_add_func("/sweep/known", test_known);
    g_test_add_func("/sweep/unrecorded", test_unrecorded);
    return g_test_run();
}
