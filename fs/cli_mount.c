/* SPDX-License-Identifier: Apache-2.0
 *
 * cli_mount: `mlopsfs mount`, and the same as mount(8)'s helper. Gathers the options from all their
 * sources and hands over to mount_run(). One thread.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "fs/cli.h"
#include "fs/config.h"
#include "fs/mount.h"

#define _cleanup_config_ __attribute__((cleanup(config_clear)))

struct mount_args {
    const char *source, *mountpoint; /* source NULL: S3_BUCKET */
    char **options;                  /* each as after -o; NULL = none */
    const char *conf;
    gboolean foreground, verbose, debug;
};

int cli_read_config(struct config *c, const char *conf, char **options, const char *source)
{
    int r = config_read_file(c, conf);

    if (r == 0)
        r = config_read_environment(c);
    for (char **o = options; r == 0 && o && *o; o++)
        r = config_read_options(c, *o);
    if (r == 0)
        r = config_set_source(c, source);
    if (r == 0)
        r = config_finish(c);
    return r == 0 ? CLI_OK : r == -EPERM ? CLI_PERMISSION : CLI_USAGE;
}

static int find_mountpoint(struct config *c, const char *path)
{
    int r = cli_resolve(path, &c->mountpoint);

    if (r == -ENOENT)
        log_error("%s: there is no such directory to mount on; make it first", path);
    else if (r == -ENOTCONN)
        log_error("%s: it lies in a dead mount, whose process has ended; remove that first, with `fusermount3 -u` or `umount`", path);
    else if (r < 0)
        log_error_errno(r, "%s: cannot mount there", path);
    return r < 0 ? CLI_MOUNTPOINT : CLI_OK;
}

static int run(const struct mount_args *a)
{
    _cleanup_config_ struct config c;

    config_init(&c);
    int code = cli_read_config(&c, a->conf, a->options, a->source);
    if (code == CLI_OK)
        code = find_mountpoint(&c, a->mountpoint);
    if (code != CLI_OK)
        return code;
    if (a->verbose || a->debug)
        c.log_level = LOG_DEBUG;
    c.foreground = a->foreground || a->debug;
    log_set_level(c.log_level);
    return mount_run(&c);
}

static char *options_help(void)
{
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);

    fputs("Options for -o, with their defaults:\n", out);
    config_print_help(out);
    fputs("\nExit codes: 0 it is mounted; 1 usage or configuration; 2 credentials or permission;\n"
          "3 bucket or server; 4 mount point; 5 anything else.\n",
          out);
    fclose(out);
    return text;
}

/* "SOURCE MNT" or "MNT". */
static bool take_operands(struct mount_args *a, char **rest)
{
    guint n = rest ? g_strv_length(rest) : 0;

    if (n == 2) {
        a->source = rest[0];
        a->mountpoint = rest[1];
        return true;
    }
    if (n == 1 && !g_str_has_prefix(rest[0], "s3://") && !g_str_has_prefix(rest[0], "local:")) {
        a->mountpoint = rest[0];
        return true;
    }
    if (n == 1)
        log_error("where shall %s be mounted? Give a directory after it", rest[0]);
    else
        log_error(
            "mount takes a source and a directory, such as: mlopsfs mount s3://videos /mnt/videos");
    return false;
}

int cli_mount(int argc, char **argv)
{
    struct mount_args a = {0};
    g_auto(GStrv) options = NULL, rest = NULL;
    g_autofree char *conf = NULL;
    const GOptionEntry entries[] = {
        {"options", 'o', 0, G_OPTION_ARG_FILENAME_ARRAY, &options, "Options, separated by commas",
         "NAME=VALUE,..."},
        {"config", 'c', 0, G_OPTION_ARG_FILENAME, &conf, "Configuration file", "FILE"},
        {"foreground", 'f', 0, G_OPTION_ARG_NONE, &a.foreground, "Stay in the foreground", NULL},
        {"verbose", 'v', 0, G_OPTION_ARG_NONE, &a.verbose, "Log everything", NULL},
        {"debug", 'd', 0, G_OPTION_ARG_NONE, &a.debug, "Stay in the foreground and log everything",
         NULL},
        {G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &rest, NULL, NULL},
        {NULL},
    };
    char *more = options_help(); /* malloc's */
    bool ok = cli_parse(
        argc, argv, entries, "[s3://[BUCKET[/PREFIX]] | local:DIR[,BUCKET]] MNT",
        "Shows a bucket, every bucket (s3://), or a local store as the directory MNT. Without a "
        "source,\nS3_BUCKET says which bucket. Returns when the mount serves requests.",
        more);

    free(more);
    if (!ok || !take_operands(&a, rest))
        return CLI_USAGE;
    a.options = options;
    a.conf = conf;
    return run(&a);
}

int cli_mount_helper(int argc, char **argv)
{
    struct mount_args a = {0};
    gboolean sloppy = FALSE, fake = FALSE, no_mtab = FALSE;
    g_auto(GStrv) options = NULL, rest = NULL;
    g_autofree char *type = NULL, *space = NULL;
    const GOptionEntry entries[] = {
        {"options", 'o', 0, G_OPTION_ARG_FILENAME_ARRAY, &options, "Options, separated by commas",
         "NAME=VALUE,..."},
        {"types", 't', 0, G_OPTION_ARG_FILENAME, &type, "Ignored", "TYPE"},
        {"namespace", 'N', 0, G_OPTION_ARG_FILENAME, &space, "Ignored", "NAMESPACE"},
        {"sloppy", 's', 0, G_OPTION_ARG_NONE, &sloppy, "Ignored", NULL},
        {"fake", 'f', 0, G_OPTION_ARG_NONE, &fake, "Check the options, mount nothing", NULL},
        {"no-mtab", 'n', 0, G_OPTION_ARG_NONE, &no_mtab, "Ignored", NULL},
        {"verbose", 'v', 0, G_OPTION_ARG_NONE, &a.verbose, "Log everything", NULL},
        {G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &rest, NULL, NULL},
        {NULL},
    };

    if (!cli_parse(argc, argv, entries, "SOURCE MNT", "Mounts for mount(8).", NULL))
        return CLI_USAGE;
    if (!rest || g_strv_length(rest) != 2) {
        log_error("mount(8)'s helper takes a source and a directory, such as: mount.mlopsfs "
                  "s3://videos /mnt/videos");
        return CLI_USAGE;
    }
    a.source = rest[0];
    a.mountpoint = rest[1];
    a.options = options;
    if (fake) {
        _cleanup_config_ struct config c;
        config_init(&c);
        return cli_read_config(&c, a.conf, a.options, a.source);
    }
    return run(&a);
}
