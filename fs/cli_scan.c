/* SPDX-License-Identifier: Apache-2.0
 *
 * cli_scan: `mlopsfs scan`: gets user.video.uuid of every file that looks like media, so that each
 * is probed and known to `mlopsfs query`. Threads: this one walks and then reports; a few ask. The
 * list of paths is complete before they start; the counters have a lock.
 */
#include <errno.h>
#include <glib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "base/log.h"
#include "base/mutex.h"
#include "base/workq.h"
#include "catalog/catalog.h"
#include "fs/cli.h"

#define THREADS 8

struct scan {
    GPtrArray *paths; /* char*, constant once the threads run */
    struct mutex lock;
    struct cond changed;
    guint next;                 /* lock: index of the path that is taken next */
    guint done, videos, failed; /* lock */
};

/* Breadth is bounded by the open directories only; other file systems below are left alone. */
static int walk(struct scan *s, const char *path, dev_t dev, bool top)
{
    struct stat st;

    if (lstat(path, &st) < 0)
        return log_error_errno(-errno, "%s", path);
    if (!top && st.st_dev != dev)
        return 0;
    if (S_ISREG(st.st_mode)) {
        g_autofree char *name = g_path_get_basename(path);
        if (video_name_is_media(name, NULL))
            g_ptr_array_add(s->paths, g_strdup(path));
        return 0;
    }
    if (!S_ISDIR(st.st_mode))
        return 0;
    g_autoptr(GError) error = NULL;
    g_autoptr(GDir) dir = g_dir_open(path, 0, &error);
    int r = 0;
    if (!dir) {
        log_error("%s", error->message);
        return -EIO;
    }
    for (const char *name; (name = g_dir_read_name(dir));) {
        g_autofree char *below = g_build_filename(path, name, NULL);
        int one = walk(s, below, st.st_dev, false);
        r = r < 0 ? r : one;
    }
    return r;
}

static void ask(void *arg)
{
    struct scan *s = arg;

    for (;;) {
        char uuid[64];
        mutex_lock(&s->lock);
        const char *path = s->next < s->paths->len ? s->paths->pdata[s->next++] : NULL;
        mutex_unlock(&s->lock);
        if (!path)
            return;
        ssize_t n = lgetxattr(path, "user.video.uuid", uuid, sizeof(uuid));
        int r = n < 0 ? -errno : 0;
        if (r < 0 && r != -ENODATA && r != -ENOENT) /* not media after all, or deleted meanwhile */
            log_error_errno(r, "%s", path);
        mutex_lock(&s->lock);
        s->done++;
        s->videos += n > 0;
        s->failed += r < 0 && r != -ENODATA && r != -ENOENT;
        cond_signal(&s->changed);
        mutex_unlock(&s->lock);
    }
}

static int probe_all(struct scan *s)
{
    struct workq *q;
    struct cli_progress p;
    guint shown = 0;
    int r = workq_new("mlopsfs-scan", THREADS, &q);

    if (r < 0)
        return log_error_errno(r, "cannot start threads");
    cli_progress_init(&p, stderr);
    for (unsigned i = 0; i < THREADS; i++)
        workq_push(q, ask, s);
    mutex_lock(&s->lock);
    while (s->done < s->paths->len) {
        while (s->done == shown)
            cond_wait(&s->changed, &s->lock);
        shown = s->done;
        mutex_unlock(&s->lock);
        if (p.terminal) {
            g_autofree char *line = g_strdup_printf("%u of %u files", shown, s->paths->len);
            cli_progress_line(&p, line);
        }
        mutex_lock(&s->lock);
    }
    mutex_unlock(&s->lock);
    workq_free(q);
    cli_progress_end(&p);
    return 0;
}

static int scan_run(char **paths)
{
    struct scan s = {.paths = g_ptr_array_new_with_free_func(g_free)};
    int code = CLI_OK;

    for (char **path = paths; code == CLI_OK && *path; path++) {
        g_autofree char *mountpoint = NULL, *absolute = NULL;
        code = cli_find_mount(*path, &mountpoint, NULL);
        if (code == CLI_OK && cli_resolve(*path, &absolute) == 0 && walk(&s, absolute, 0, true) < 0)
            s.failed++;
    }
    if (code == CLI_OK) {
        mutex_init(&s.lock, RANK_LEAF);
        cond_init(&s.changed);
        code = probe_all(&s) < 0 || s.failed ? CLI_OTHER : CLI_OK;
        cond_fini(&s.changed);
        mutex_fini(&s.lock);
        printf("%u file%s looked into, %u of them media, %u failed\n", s.done,
               s.done == 1 ? "" : "s", s.videos, s.failed);
    }
    g_ptr_array_free(s.paths, TRUE);
    return code;
}

int cli_scan(int argc, char **argv)
{
    g_auto(GStrv) rest = NULL;
    const GOptionEntry entries[] = {
        {G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &rest, NULL, NULL},
        {NULL},
    };

    if (!cli_parse(argc, argv, entries, "PATH...",
                   "Looks into every file below PATH whose name is that of a media file, so that "
                   "`mlopsfs query`\n"
                   "knows it. Exit code 5 when some could not be looked into.",
                   NULL))
        return CLI_USAGE;
    if (!rest) {
        log_error("scan takes files or directories in a mount, such as: mlopsfs scan /mnt/videos");
        return CLI_USAGE;
    }
    return scan_run(rest);
}
