/* SPDX-License-Identifier: Apache-2.0
 *
 * probe_fixture: where the helper is, a folder for files, a source in memory, and the check that no
 * descriptor and no process was left behind. One file of tests includes it.
 */
#pragma once
#include "base/clock.h"
#include "base/log.h"
#include "catalog/probe.h"
#include "catalog/probe_proto.h"
#include <errno.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

/* Shared by the tests; main alone writes it. */
struct env {
    char *dir, *helper;
    bool ffmpeg;
};

static inline char *in_dir(const struct env *e, const char *name)
{
    return g_build_filename(e->dir, name, NULL);
}

/* ---- a source in memory ---- */

struct source {
    const char *data;
    gsize size;
    int reads;
    ssize_t fail; /* returned by read() unless 0 */
    void (*on_read)(void);
};

static inline ssize_t source_read(void *ctx, void *buf, size_t n, uint64_t off)
{
    struct source *s = ctx;
    g_assert_cmpuint(off, <, s->size);
    g_assert_cmpuint(n, <=, s->size - off);
    g_assert_cmpuint(n, >, 0);
    s->reads++;
    if (s->on_read)
        s->on_read();
    if (s->fail)
        return s->fail;
    memcpy(buf, s->data + off, n);
    return (ssize_t)n;
}

static inline int run(const struct probe_params *p, struct source *s, const char *name,
                      struct video *ret)
{
    const struct probe_source src = {source_read, s, s->size, name};
    memset(ret, 0xa5, sizeof(*ret));
    return probe_run(p, &src, ret);
}

static inline int open_fds(void)
{
    int n = 0;
    GDir *d = g_dir_open("/proc/self/fd", 0, NULL);
    while (g_dir_read_name(d))
        n++;
    g_dir_close(d);
    return n;
}

static inline void assert_clean(int fds)
{
    g_assert_cmpint(open_fds(), ==, fds);
    int status;
    g_assert_cmpint(waitpid(-1, &status, WNOHANG), ==, -1);
    g_assert_cmpint(errno, ==, ECHILD);
}

/* ---- main's part ---- */

static inline char *helper_path(void)
{
    const char *env = getenv("MLOPSFS_PROBE");
    if (env)
        return g_strdup(env);
    g_autofree char *self = g_file_read_link("/proc/self/exe", NULL);
    g_autofree char *dir = g_path_get_dirname(self);
    return g_build_filename(dir, "..", "..", "mlopsfs-probe", NULL);
}

static inline void remove_dir(const char *dir)
{
    GDir *d = g_dir_open(dir, 0, NULL);
    const char *name;
    while ((name = g_dir_read_name(d))) {
        g_autofree char *p = g_build_filename(dir, name, NULL);
        g_unlink(p);
    }
    g_dir_close(d);
    g_rmdir(dir);
}

static inline void env_make(struct env *e)
{
    log_set_level(LOG_CRIT); /* some helpers are meant to fail */
    g_autofree char *tool = g_find_program_in_path("ffmpeg");
    e->ffmpeg = tool != NULL;
    e->helper = helper_path();
    e->dir = g_dir_make_tmp("mlopsfs-probe-XXXXXX", NULL);
    g_assert_nonnull(e->dir);
}

static inline void env_clear(struct env *e)
{
    remove_dir(e->dir);
    g_free(e->dir);
    g_free(e->helper);
}
