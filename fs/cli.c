/* SPDX-License-Identifier: Apache-2.0
 *
 * cli: finds the subcommand, and holds what subcommands share: parsing, finding the mount that is
 * meant, lines for people. One thread.
 */
#include "fs/cli.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/log.h"
#include "fs/config.h"
#include "fs/control.h"
#include "fs/drain.h"
#include "fs/mountinfo.h"

static const struct command {
    const char *name, *usage, *help;
    int (*run)(int argc, char **argv);
} commands[] = {
    {"mount", "[SOURCE] MNT", "show a bucket, every bucket, or a local store as a directory",
     cli_mount},
    {"umount", "MNT", "bring everything into the bucket, then unmount", cli_umount},
    {"status", "[MNT]", "what a mount is doing; without MNT, which mounts there are", cli_status},
    {"sync", "[PATH | SOURCE]", "wait until everything written is in the bucket", cli_sync},
    {"recover", "[save | discard]", "what was being written when a mount was killed", cli_recover},
    {"discard", "PATH...", "give up what was written to files and is not in the bucket", cli_discard},
    {"query", "[MNT] [CONDITION...]", "list videos by their facts", cli_query},
    {"scan", "PATH...", "look into every media file below PATH, so that query knows it", cli_scan},
};

static void print_usage(FILE *out)
{
    fputs("mlopsfs shows S3 object storage as directories.\n\nUsage:\n", out);
    for (size_t i = 0; i < G_N_ELEMENTS(commands); i++)
        fprintf(out, "  mlopsfs %-7s %-21s %s\n", commands[i].name, commands[i].usage,
                commands[i].help);
    fputs("\nSOURCE is s3://BUCKET[/PREFIX], s3:// (every bucket), local:DIR, or nothing: then "
          "S3_BUCKET says it.\n"
          "Each subcommand explains itself with --help. mlopsfs --version tells the version.\n",
          out);
}

static int unknown_command(const char *name)
{
    log_error("there is no subcommand \"%s\"; there are: mount, umount, status, sync, discard, recover, query, scan",
              name);
    return CLI_USAGE;
}

bool cli_is_source(const char *arg)
{
    return g_str_has_prefix(arg, "s3://") || g_str_has_prefix(arg, "local:");
}

int cli_main(int argc, char **argv)
{
    g_autofree char *called = g_path_get_basename(argc > 0 ? argv[0] : "mlopsfs");

    g_set_prgname("mlopsfs");
    if (strcmp(called, "mount.mlopsfs") == 0 || strcmp(called, "mount.fuse.mlopsfs") == 0)
        return cli_mount_helper(argc, argv);
    if (argc < 2) {
        print_usage(stderr);
        return CLI_USAGE;
    }
    const char *name = argv[1];
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0) {
        print_usage(stdout);
        return CLI_OK;
    }
    if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0) {
        puts("mlopsfs " MLOPSFS_VERSION);
        return CLI_OK;
    }
    if (strcmp(name, "--dump-conf") == 0 || strcmp(name, "--dump-man") == 0) {
        (name[7] == 'c' ? config_print_conf : config_print_man)(stdout);
        return CLI_OK;
    }
    for (size_t i = 0; i < G_N_ELEMENTS(commands); i++)
        if (strcmp(name, commands[i].name) == 0)
            return commands[i].run(argc - 1, argv + 1);
    if (cli_is_source(name)) /* mount.fuse3, for an fstab line of type fuse.mlopsfs: SOURCE MNT -o OPTIONS */
        return cli_mount_helper(argc, argv);
    return unknown_command(name);
}

bool cli_parse(int argc, char **argv, const GOptionEntry *entries, const char *usage,
               const char *summary, const char *more)
{
    GOptionContext *context = g_option_context_new(usage);
    g_autofree char *base = g_path_get_basename(argv[0]);
    bool helper = g_str_has_prefix(base, "mount.") || strcmp(base, "mlopsfs") == 0;
    g_autofree char *name = g_strconcat(helper ? "" : "mlopsfs ", base, NULL);
    g_autoptr(GError) error = NULL;
    g_autofree char **args = g_memdup2(argv, ((size_t)argc + 1) * sizeof(*argv));
    char **parsed = args;

    args[0] = name;
    g_option_context_set_summary(context, summary);
    g_option_context_set_description(context, more);
    g_option_context_add_main_entries(context, entries, NULL);
    g_set_prgname(name); /* stands in the usage line */
    bool ok = g_option_context_parse(context, &argc, &parsed, &error);
    g_set_prgname("mlopsfs");
    if (!ok)
        log_error("%s; see `%s --help`", error->message, name);
    g_option_context_free(context);
    return ok;
}

/* ---- which mount is meant ---- */

int cli_resolve(const char *path, char **ret)
{
    g_autofree char *plain = g_canonicalize_filename(path, NULL);
    g_autoptr(GPtrArray) list = mountinfo_list(NULL);
    const struct mountinfo *m = mountinfo_find(list, plain);

    if (m && strcmp(m->mountpoint, plain) == 0) {
        *ret = g_steal_pointer(&plain);
        return 0;
    }
    char *real = realpath(path, NULL);
    if (real) {
        *ret = g_strdup(real);
        free(real);
        return 0;
    }
    if (errno != ENOTCONN)
        return -errno;
    g_autofree char *dir = g_path_get_dirname(plain), *base = g_path_get_basename(plain);
    real = realpath(dir, NULL);
    if (!real)
        return -errno;
    *ret = g_build_filename(real, base, NULL);
    free(real);
    return 0;
}

static int only_mount(const GPtrArray *list, char **ret_mountpoint)
{
    const struct mountinfo *m = list->len ? list->pdata[0] : NULL;

    if (list->len == 0) {
        log_error("nothing is mounted by mlopsfs");
        return CLI_MOUNTPOINT;
    }
    if (list->len > 1) {
        log_error("mlopsfs has %u mounts; say which one (`mlopsfs status` lists them)", list->len);
        return CLI_MOUNTPOINT;
    }
    *ret_mountpoint = g_strdup(m->mountpoint);
    return CLI_OK;
}

int cli_find_mount(const char *path, char **ret_mountpoint, char **ret_below)
{
    g_autoptr(GPtrArray) list = mountinfo_list(NULL);
    g_autofree char *absolute = NULL;

    if (path) {
        int r = cli_resolve(path, &absolute);
        if (r < 0) {
            log_error_errno(r, "%s", path);
            return CLI_MOUNTPOINT;
        }
    } else {
        absolute = g_get_current_dir();
    }
    const struct mountinfo *m = mountinfo_find(list, absolute);
    if (!m && path) {
        log_error("%s is not mounted by mlopsfs (`mlopsfs status` lists what is)", path);
        return CLI_MOUNTPOINT;
    }
    if (ret_below)
        *ret_below = NULL;
    if (!m) {
        if (ret_below)
            *ret_below = g_strdup("");
        return only_mount(list, ret_mountpoint);
    }
    *ret_mountpoint = g_strdup(m->mountpoint);
    if (ret_below) {
        const char *below = path ? absolute + strlen(m->mountpoint) : "";
        *ret_below = g_strdup(*below == '/' ? below + 1 : below);
    }
    return CLI_OK;
}

int cli_control_exit(const char *mountpoint, int r)
{
    switch (r) {
    case 0:
        return CLI_OK;
    case -EREMOTEIO: /* has been said */
        return CLI_OTHER;
    case -ENOENT:
        log_error("%s: no daemon answers; it is dead, or another user's. `mlopsfs umount %s` "
                  "removes a dead mount",
                  mountpoint, mountpoint);
        return CLI_MOUNTPOINT;
    case -ECOMM:
        log_error("%s: the daemon went away before it was done", mountpoint);
        return CLI_OTHER;
    default:
        log_error_errno(r, "%s: cannot speak to the daemon", mountpoint);
        return CLI_OTHER;
    }
}

/* ---- lines for people ---- */

static char *printable(const char *text)
{
    char *valid = g_utf8_make_valid(text, -1);
    GString *out = g_string_new(NULL);

    for (char *p = valid; *p; p = g_utf8_next_char(p)) {
        gunichar u = g_utf8_get_char(p);
        if (u == '\t' || !g_unichar_iscntrl(u))
            g_string_append_unichar(out, u);
        else
            g_string_append_c(out, '?');
    }
    g_free(valid);
    return g_string_free(out, FALSE);
}

void cli_print_line(void *out, const char *text)
{
    g_autofree char *line = printable(text);

    fprintf(out, "%s\n", line);
}

void cli_progress_init(struct cli_progress *p, FILE *out)
{
    *p = (struct cli_progress){.out = out, .terminal = isatty(fileno(out))};
}

void cli_progress_line(void *progress, const char *text)
{
    struct cli_progress *p = progress;
    struct winsize size = {0};

    if (!p->terminal) {
        cli_print_line(p->out, text);
        fflush(p->out); /* to whoever reads along */
        return;
    }
    g_autofree char *line = printable(text);
    if (ioctl(fileno(p->out), TIOCGWINSZ, &size) < 0 || size.ws_col < 2)
        size.ws_col = 80;
    g_autofree char *cut = g_utf8_substring(line, 0, MIN(g_utf8_strlen(line, -1), size.ws_col - 1));
    fprintf(p->out, "\r\033[K%s", cut);
    fflush(p->out);
    p->open = true;
}

void cli_progress_end(struct cli_progress *p)
{
    if (p->open)
        fputc('\n', p->out);
    p->open = false;
}

/* ---- bringing things into the bucket ---- */

void cli_drain_line(void *progress, const char *text)
{
    if (!g_str_has_prefix(text, DRAIN_FAILED)) {
        cli_progress_line(progress, text);
        return;
    }
    cli_progress_end(progress);
    log_error("%s", text + strlen(DRAIN_FAILED));
}

int cli_drain(const char *mountpoint, const char *command, const char *arg)
{
    struct cli_progress p;

    cli_progress_init(&p, stdout);
    int r = control_call(mountpoint, command, arg, cli_drain_line, &p);
    cli_progress_end(&p);
    return r;
}
