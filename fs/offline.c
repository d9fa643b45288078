/* SPDX-License-Identifier: Apache-2.0
 *
 * offline: see offline.h. The commits run on a workq of their own while the caller's thread tells of progress. There are no inodes:
 * a file goes by its bucket and key.
 */
#include "fs/offline.h"

#include <errno.h>
#include <glib.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/workq.h"
#include "cache/cache.h"
#include "fs/drain.h"
#include "fs/fs.h"
#include "fs/stack.h"

#define AT_ONCE 64
#define PROGRESS_NS (200 * NSEC_PER_MSEC)
#define SETTLE_NS (5 * NSEC_PER_SEC)
#define SETTLE_LOOK_NS (20 * NSEC_PER_MSEC)

enum exit_code { EXIT_OTHER = 5 };

struct offline {
    struct fs fs;
    GPtrArray *files; /* struct item* */
    struct mutex lock;
    struct cond changed;
    unsigned left;     /* lock */
    GPtrArray *failed; /* lock: lines */
};

struct item {
    struct offline *offline;
    struct cache_file *file;
};

static bool adopted(void *ctx, struct cache_file *f)
{
    struct offline *o = ctx;
    struct item *it = g_new(struct item, 1);

    *it = (struct item){o, f};
    g_ptr_array_add(o->files, it);
    return true;
}

static const char *advice(int r)
{
    switch (r) {
    case -ESTALE:
        return "somebody else has changed the object meanwhile, and theirs was not overwritten; what was written here stays in cache_dir: "
               "mount the bucket to read it, and to remove it or write it again";
    case -EACCES:
    case -EPERM:
        return "the server refuses it: check the credentials and the bucket's policy, and try again; it stays in cache_dir meanwhile";
    default:
        return "it could not be stored, and stays in cache_dir: try again";
    }
}

static void commit(void *arg)
{
    struct item *it = arg;
    struct offline *o = it->offline;
    int r = cache_file_flush(it->file, NULL);
    g_autofree char *bucket = NULL, *key = NULL, *etag = NULL;

    cache_file_target(it->file, &bucket, &key, &etag);
    cache_file_unref(it->file);
    mutex_lock(&o->lock);
    if (r < 0)
        g_ptr_array_add(o->failed, g_strdup_printf(DRAIN_FAILED "s3://%s/%s: %s (%s)", bucket, key, advice(r), g_strerror(-r)));
    o->left--;
    cond_signal(&o->changed);
    mutex_unlock(&o->lock);
}

static void progress(struct offline *o, void (*line)(void *ctx, const char *text), void *ctx)
{
    mutex_lock(&o->lock);
    for (unsigned left; (left = o->left) > 0;) {
        struct cache_stats st;
        g_autoptr(GString) text = g_string_new(NULL);

        mutex_unlock(&o->lock);
        cache_get_stats(o->fs.cache, &st);
        g_string_printf(text, "%u file%s", left, left == 1 ? "" : "s");
        if (st.uploading)
            g_string_append_printf(text, ", %.1f MiB", (double)st.uploading / (1 << 20));
        g_string_append(text, " to go");
        line(ctx, text->str);
        mutex_lock(&o->lock);
        if (o->left > 0)
            (void)cond_wait_until(&o->changed, &o->lock, clock_mono_ns() + PROGRESS_NS);
    }
    mutex_unlock(&o->lock);
}

static int commit_all(struct offline *o, void (*line)(void *ctx, const char *text), void *ctx)
{
    struct workq *q;

    if (workq_new("sync", AT_ONCE, &q) < 0)
        return EXIT_OTHER;
    o->left = o->files->len;
    for (guint n = 0; n < o->files->len; n++)
        workq_push(q, commit, o->files->pdata[n]);
    progress(o, line, ctx);
    workq_free(q);
    if (o->files->len > 0 && o->failed->len == 0)
        line(ctx, "0 files to go");
    for (guint n = 0; n < o->failed->len; n++)
        line(ctx, g_strdelimit(o->failed->pdata[n], "\n", '?'));
    return o->failed->len > 0 ? EXIT_OTHER : 0;
}

static bool any_of(GHashTable *first, GHashTable *now)
{
    GHashTableIter it;
    gpointer record;

    g_hash_table_iter_init(&it, first);
    while (g_hash_table_iter_next(&it, &record, NULL))
        if (g_hash_table_contains(now, record))
            return true;
    return false;
}

static int say_left(GHashTable *left, void (*line)(void *ctx, const char *text), void *ctx)
{
    GHashTableIter it;
    gpointer name;

    g_hash_table_iter_init(&it, left);
    while (g_hash_table_iter_next(&it, NULL, &name)) {
        g_autofree char *text = g_strdup_printf(DRAIN_FAILED "s3://%s: what was closed of it is not in the bucket, and stays in cache_dir: "
                                                "try again", (char *)name);

        line(ctx, g_strdelimit(text, "\n", '?'));
    }
    return g_hash_table_size(left) > 0 ? EXIT_OTHER : 0;
}

static GHashTable *records(void)
{
    return g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
}

/* Whether any process has yet to bring something there that it had sealed at the first call, when *first is NULL. Adds what nobody holds to
 * `left`. */
static bool others_hold(const struct config *c, GHashTable **first, GHashTable *left)
{
    g_autofree char *dir = stack_journals(c);
    g_autoptr(GHashTable) held = records();

    if (cache_list_sealed(dir, c->bucket, held, left) < 0)
        return false; /* no cache, no journal */
    if (!*first)
        *first = g_hash_table_ref(held);
    return any_of(*first, held);
}

int offline_wait(const struct config *c, void (*line)(void *ctx, const char *text), void *ctx)
{
    g_autoptr(GHashTable) first = NULL;
    int code = 0;

    for (bool wait = true; wait;) {
        g_autoptr(GHashTable) left = records();

        wait = others_hold(c, &first, left);
        code = say_left(left, line, ctx);
        wait = wait && code == 0;
        if (wait) {
            line(ctx, "waiting for a mount that is ending");
            clock_sleep(PROGRESS_NS);
        }
    }
    return code;
}

void offline_settle(const struct config *c)
{
    g_autoptr(GHashTable) first = NULL;
    uint64_t until = clock_mono_ns() + SETTLE_NS;

    for (;;) {
        g_autoptr(GHashTable) left = records();

        if (!others_hold(c, &first, left))
            return;
        if (clock_mono_ns() >= until)
            break;
        clock_sleep(SETTLE_LOOK_NS);
    }
    log_notice("another mount of the same cache_dir is still bringing files into the bucket: what it has closed last does not show here yet");
}

int offline_sync(const struct config *c, void (*line)(void *ctx, const char *text), void *ctx)
{
    struct offline o = {.files = g_ptr_array_new_with_free_func(g_free), .failed = g_ptr_array_new_with_free_func(g_free)};
    int code = stack_open_cache(&o.fs, c);

    mutex_init(&o.lock, RANK_LEAF);
    cond_init(&o.changed);
    if (code == 0)
        code = cache_adopt(o.fs.cache, adopted, &o) < 0 ? EXIT_OTHER : 0;
    if (code == 0)
        code = commit_all(&o, line, ctx);
    stack_close(&o.fs);
    cond_fini(&o.changed);
    mutex_fini(&o.lock);
    g_ptr_array_unref(o.files);
    g_ptr_array_unref(o.failed);
    return code;
}
