/* SPDX-License-Identifier: Apache-2.0
 *
 * cli_sync: `mlopsfs sync`: has the daemons bring everything into the bucket, or does it itself for mounts that have ended. One thread.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "fs/cli.h"
#include "fs/config.h"
#include "fs/control.h"
#include "fs/mountinfo.h"
#include "fs/offline.h"
#include "fs/stack.h"

/* Each of this user's, whatever becomes of the others. */
static int sync_mounts(const GPtrArray *list)
{
    int code = CLI_OK;

    for (guint n = 0; n < list->len; n++) {
        const struct mountinfo *m = list->pdata[n];

        if (m->uid != getuid())
            continue;
        int one = cli_control_exit(m->mountpoint, cli_drain(m->mountpoint, "sync", ""));
        code = code ? code : one;
    }
    return code;
}

static int sync_path(const char *path)
{
    g_autofree char *mountpoint = NULL, *below = NULL, *cwd = g_get_current_dir();
    g_autoptr(GPtrArray) list = mountinfo_list(NULL);

    if (!path && list->len > 1 && !mountinfo_find(list, cwd))
        return sync_mounts(list);
    int code = cli_find_mount(path, &mountpoint, &below);
    if (code != CLI_OK)
        return code;
    return cli_control_exit(mountpoint, cli_drain(mountpoint, "sync", below));
}

/* What a daemon says of its mount: "catalog PATH", "bucket NAME". */
struct place {
    char *catalog, *bucket;
};

static void take_line(void *ctx, const char *text)
{
    struct place *p = ctx;

    if (g_str_has_prefix(text, "catalog ") && !p->catalog)
        p->catalog = g_strdup(text + strlen("catalog "));
    else if (g_str_has_prefix(text, "bucket ") && !p->bucket)
        p->bucket = g_strdup(text + strlen("bucket "));
}

/* Whether the mount's journals are among those that c is about: the same cache_dir, server and bucket. */
static bool is_about(const struct config *c, const char *mountpoint)
{
    struct place p = {0};
    g_autofree char *dir = stack_dir(c), *catalog = g_build_filename(dir, STACK_CATALOG, NULL);
    bool yes = control_call(mountpoint, "catalog", NULL, take_line, &p) == 0 && g_strcmp0(p.catalog, catalog) == 0 &&
               (!c->bucket || !p.bucket || !*p.bucket || strcmp(p.bucket, c->bucket) == 0);

    g_free(p.catalog);
    g_free(p.bucket);
    return yes;
}

/* What running mounts have is theirs. */
static int sync_running(const struct config *c)
{
    g_autoptr(GPtrArray) list = mountinfo_list(NULL);
    int code = CLI_OK;

    for (guint n = 0; n < list->len; n++) {
        const struct mountinfo *m = list->pdata[n];

        if (m->uid != getuid() || !is_about(c, m->mountpoint))
            continue;
        int one = cli_control_exit(m->mountpoint, cli_drain(m->mountpoint, "sync", ""));
        code = code ? code : one;
    }
    return code;
}

static int sync_source(const char *source, const char *conf, char **options)
{
    struct cli_progress p;
    struct config c;

    config_init(&c);
    int code = cli_read_config(&c, conf, options, source);
    if (code == CLI_OK && c.read_only) {
        log_error("read_only is on: nothing is brought into the bucket");
        code = CLI_USAGE;
    }
    if (code == CLI_OK) {
        log_set_level(MIN(c.log_level, LOG_NOTICE));
        cli_progress_init(&p, stdout);
        code = offline_sync(&c, cli_drain_line, &p);
        cli_progress_end(&p);

        int running = sync_running(&c);
        code = code ? code : running;
        if (code == CLI_OK) { /* else what is left has been said */
            cli_progress_init(&p, stdout);
            code = offline_wait(&c, cli_drain_line, &p);
            cli_progress_end(&p);
        }
    }
    config_clear(&c);
    return code;
}

int cli_sync(int argc, char **argv)
{
    g_auto(GStrv) rest = NULL, options = NULL;
    g_autofree char *conf = NULL;
    const GOptionEntry entries[] = {
        {"options", 'o', 0, G_OPTION_ARG_FILENAME_ARRAY, &options, "Options of the mount, for a SOURCE", "NAME=VALUE,..."},
        {"config", 'c', 0, G_OPTION_ARG_FILENAME, &conf, "Configuration file, for a SOURCE", "FILE"},
        {G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &rest, NULL, NULL},
        {NULL},
    };

    if (!cli_parse(argc, argv, entries, "[PATH | SOURCE]",
                   "Waits until everything written to the mount that PATH is in has come into the bucket. Without PATH: the mount of\n"
                   "the working directory, or else every mount of yours. With a SOURCE (s3://BUCKET, s3://, local:DIR): also brings there what\n"
                   "mounts that have ended left in cache_dir; nothing needs to be mounted, and options are those of the mount.",
                   "Exit code 0: everything is in the bucket.\n"))
        return CLI_USAGE;
    if (rest && g_strv_length(rest) != 1) {
        log_error("sync takes one path or source at most");
        return CLI_USAGE;
    }
    if (rest && cli_is_source(rest[0]))
        return sync_source(rest[0], conf, options);
    if (options || conf) {
        log_error("-o and -c are for sync of a source, such as s3://videos; a mount has its options");
        return CLI_USAGE;
    }
    return sync_path(rest ? rest[0] : NULL);
}
