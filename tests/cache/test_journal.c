/* SPDX-License-Identifier: Apache-2.0
 *
 * test_journal: changes that many threads make at the same time.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "cache/extents.h"
#include "cache/journal_private.h"
#include "cache/sums.h"

enum { THREADS = 8 };

struct rig {
    char *dir;
    struct journal *j;
    unsigned commits; /* the journal's lock */
};

static int committed(void *ctx)
{
    struct rig *r = ctx;
    r->commits++;
    return 0;
}

static struct rig *rig_new(void)
{
    struct rig *r = g_new0(struct rig, 1);
    r->dir = g_dir_make_tmp("mlopsfs-journal-XXXXXX", NULL);
    g_assert_cmpint(journal_new(r->dir, "b", &r->j), ==, 0);
    sqlite3_commit_hook(r->j->db, committed, r);
    return r;
}

static void rig_free(struct rig *r)
{
    journal_free(r->j);
    g_assert_cmpint(rmdir(r->dir), ==, 0);
    g_free(r->dir);
    g_free(r);
}

struct writer {
    struct rig *rig;
    uint64_t file;
    int r;
};

static void *seal(void *arg)
{
    struct writer *w = arg;
    g_autoptr(GArray) sums = g_array_new(FALSE, FALSE, sizeof(struct sum));
    char bucket[] = "b", key[] = "k";
    struct journal_seal s = {.file = w->file, .gen = 1, .bucket = bucket, .key = key, .map = extents_new(), .sums = sums, .data_dirty = true};
    w->r = journal_seal(w->rig->j, &s);
    extents_free(s.map);
    return NULL;
}

/* All have the same id. */
static void *upload(void *arg)
{
    struct writer *w = arg;
    struct journal_upload u = {.file = w->file, .bucket = "b", .key = "k", .id = "id", .uuid = "u"};
    w->r = journal_upload(w->rig->j, &u, false);
    return NULL;
}

static void wait_for_queue(struct journal *j, guint n)
{
    for (bool there = false; !there;) {
        mutex_lock(&j->queue_lock);
        there = j->led && j->queue->len == n;
        mutex_unlock(&j->queue_lock);
        g_thread_yield();
    }
}

/* The first one leads itself alone, and the others queue behind it while it waits for the database. */
static void make_all(struct rig *r, struct writer *writers, void *(*const *fns)(void *))
{
    pthread_t threads[THREADS];
    mutex_lock(&r->j->lock);
    for (unsigned i = 0; i < THREADS; i++) {
        writers[i] = (struct writer){.rig = r, .file = i + 1};
        g_assert_cmpint(pthread_create(&threads[i], NULL, fns[i], &writers[i]), ==, 0);
        wait_for_queue(r->j, i);
    }
    mutex_unlock(&r->j->lock);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
}

static void test_together(void)
{
    struct rig *r = rig_new();
    struct writer writers[THREADS];
    void *(*fns[THREADS])(void *);
    for (unsigned i = 0; i < THREADS; i++)
        fns[i] = seal;
    make_all(r, writers, fns);
    g_assert_cmpuint(r->commits, ==, 2);
    _cleanup_journal_content_ struct journal_content *all = NULL;
    g_assert_cmpint(journal_load(r->j, &all), ==, 0);
    g_assert_cmpuint(all->seals->len, ==, THREADS);
    for (unsigned i = 0; i < THREADS; i++) {
        g_assert_cmpint(writers[i].r, ==, 0);
        g_assert_cmpint(journal_forget(r->j, i + 1, NULL), ==, 0);
    }
    rig_free(r);
}

/* One change in the middle cannot be made: the others are. */
static void test_one_fails(void)
{
    struct rig *r = rig_new();
    struct writer writers[THREADS];
    void *(*fns[THREADS])(void *);
    for (unsigned i = 0; i < THREADS; i++)
        fns[i] = i == 0 || i == THREADS / 2 ? upload : seal;
    make_all(r, writers, fns);
    for (unsigned i = 0; i < THREADS; i++)
        g_assert_cmpint(writers[i].r, ==, i == THREADS / 2 ? -EEXIST : 0);
    _cleanup_journal_content_ struct journal_content *all = NULL;
    g_assert_cmpint(journal_load(r->j, &all), ==, 0);
    g_assert_cmpuint(all->seals->len, ==, THREADS - 2);
    g_assert_cmpuint(all->uploads->len, ==, 1);
    g_assert_cmpint(journal_upload_ended(r->j, "id"), ==, 0);
    for (unsigned i = 0; i < THREADS; i++)
        g_assert_cmpint(journal_forget(r->j, i + 1, NULL), ==, 0);
    rig_free(r);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/journal/together", test_together);
    g_test_add_func("/journal/one-fails", test_one_fails);
    return g_test_run();
}
