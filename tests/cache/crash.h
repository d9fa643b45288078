/* SPDX-License-Identifier: Apache-2.0
 *
 * crash: a cache that is killed, and the next one that takes up what it leaves. The kill is a copy of
 * the journals' directory, taken when a chosen request is about to run, or by kill_now(); from then on
 * the store answers nothing to the first cache. The second one starts on the copy.
 */
#pragma once
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/workq.h"
#include "cache/file.h"
#include "cache/journal.h"
#include "tests/cache/world.h"
#include "tests/lib/seed.h"

struct crash {
    struct world w; /* first: what world.h's calls want */
    enum store_verb verb; /* the request at which it comes … */
    unsigned nth;         /* … the nth of its kind, from 1 */
    bool applied;         /* and which is carried out all the same */
    unsigned seen;        /* w.lock */
    bool refuse;          /* w.lock: requests of the kind fail, and nobody is killed */
    bool dead, settled;   /* w.lock */
    char *copy;
};

G_GNUC_UNUSED static void run_command(const char *format, const char *from, const char *to)
{
    g_autofree char *a = g_shell_quote(from), *b = g_shell_quote(to);
    g_autoptr(GString) command = g_string_new(format);
    int status = -1;
    g_string_append_printf(command, " %s %s", a, b);
    g_assert_true(g_spawn_command_line_sync(command->str, NULL, NULL, &status, NULL));
    g_assert_cmpint(status, ==, 0);
}

G_GNUC_UNUSED static void copy_dir(const char *from, const char *to)
{
    run_command("cp -r", from, to);
}

G_GNUC_UNUSED static void remove_dir(const char *dir)
{
    run_command("rm -rf", dir, dir);
}

G_GNUC_UNUSED static void open_gate(void *arg)
{
    struct crash *k = arg;
    mutex_lock(&k->w.lock);
    k->settled = true;
    cond_broadcast(&k->w.changed);
    mutex_unlock(&k->w.lock);
}

/* The process is gone: nothing that it asks from now on is heard. What came before is in the journal,
 * and nobody writes there while it is copied. */
G_GNUC_UNUSED static void kill_now(struct crash *k)
{
    workq_push(k->w.cache->janitor, open_gate, k);
    mutex_lock(&k->w.lock);
    k->dead = true;
    while (!k->settled)
        cond_wait(&k->w.changed, &k->w.lock);
    mutex_unlock(&k->w.lock);
    copy_dir(k->w.dir, k->copy);
}

G_GNUC_UNUSED static enum fake_action crash_hook(void *ctx, struct store_request *req, uint64_t *cut)
{
    struct crash *k = ctx;
    (void)cut;
    mutex_lock(&k->w.lock);
    bool dead = k->dead;
    bool refused = k->refuse && !dead && req->verb == k->verb;
    bool now = !dead && k->nth > 0 && req->verb == k->verb && ++k->seen == k->nth;
    mutex_unlock(&k->w.lock);
    if (!dead && !now && !refused)
        return FAKE_GO;
    if (now)
        kill_now(k);
    store_result_fail(&req->res, -EIO, STORE_CLASS_FATAL, NULL, "the process is gone");
    return now && k->applied ? FAKE_FAIL_AFTER : FAKE_FAIL;
}

G_GNUC_UNUSED static void cache_start_on(struct crash *k, const char *dir)
{
    struct cache_params cp = {
        .store = k->w.store, .dir = dir, .bucket = "b", .memory = 32 * MIB, .disk = 160 * MIB, .uploads = 1, .part_size = PART, .settle_ns = 1, .local_sync_ns = 3600 * NSEC_PER_SEC, .committed = world_committed};
    g_assert_cmpint(cache_new(&cp, &k->w.cache), ==, 0);
}

G_GNUC_UNUSED static struct crash *crash_new(enum store_verb verb, unsigned nth, bool applied)
{
    struct crash *k = g_new0(struct crash, 1);
    mutex_init(&k->w.lock, RANK_LEAF);
    cond_init(&k->w.changed);
    k->verb = verb;
    k->nth = nth;
    k->applied = applied;
    k->w.dir = g_dir_make_tmp("mlopsfs-replay-XXXXXX", NULL);
    k->copy = g_strdup_printf("%s.copy", k->w.dir);
    k->w.fake = k->w.store = fake_store_new(&(struct fake_params){.seed = test_seed(), .hook = crash_hook, .ctx = k});
    cache_start_on(k, k->w.dir);
    return k;
}

G_GNUC_UNUSED static bool take(void *ctx, struct cache_file *f)
{
    g_ptr_array_add(ctx, f);
    return true;
}

G_GNUC_UNUSED static GPtrArray *restart_with(struct crash *k, bool refuse)
{
    GPtrArray *files = g_ptr_array_new();
    cache_free(k->w.cache);
    remove_dir(k->w.dir);
    mutex_lock(&k->w.lock);
    k->nth = 0;
    k->dead = false;
    k->refuse = refuse;
    mutex_unlock(&k->w.lock);
    cache_start_on(k, k->copy);
    g_assert_cmpint(cache_adopt(k->w.cache, take, files), ==, 0);
    for (guint i = 0; i < files->len; i++)
        cache_file_set_owner(files->pdata[i], &k->w);
    return files;
}

/* Ends the first cache, whose files are given up, and starts the second. Returns its files. */
G_GNUC_UNUSED static GPtrArray *restart(struct crash *k)
{
    return restart_with(k, false);
}

/* Nothing is left of it: no upload, no staged byte, no journal. */
G_GNUC_UNUSED static void crash_free(struct crash *k)
{
    cache_free(k->w.cache);
    g_assert_cmpuint(fake_store_uploads(k->w.fake), ==, 0);
    store_free(k->w.store);
    g_assert_cmpint(rmdir(k->copy), ==, 0);
    g_free(k->w.dir);
    g_free(k->copy);
    g_free(k->w.etag);
    cond_fini(&k->w.changed);
    mutex_fini(&k->w.lock);
    g_free(k);
}

G_GNUC_UNUSED static void assert_content(struct cache_file *f, const uint8_t *all, size_t n)
{
    g_autofree uint8_t *got = g_malloc(n + 1);
    struct cache_handle *h = cache_handle_new(f);
    g_assert_cmpint(read_at(h, got, n + 1, 0), ==, (ssize_t)n);
    g_assert_true(n == 0 || memcmp(got, all, n) == 0);
    cache_handle_free(h);
}
