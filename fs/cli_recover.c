/* SPDX-License-Identifier: Apache-2.0
 *
 * cli_recover: `mlopsfs recover`: what a crash left that could not become an object (cache/recovered.h): lists, saves and discards it.
 * Needs no mount. One thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/log.h"
#include "cache/recovered.h"
#include "fs/cli.h"
#include "fs/config.h"

#define RANGES_SHOWN 8

static char *name_of(const struct recovered *r)
{
    return g_strdup_printf("s3://%s/%s", r->bucket, r->key);
}

static char *reason(const struct recovered *r)
{
    if (!strcmp(r->why, RECOVERED_UNSEALED))
        return g_strdup("was open when the mount ended");
    if (!strcmp(r->why, RECOVERED_UNREADABLE))
        return g_strdup("cannot be read whole");
    if (!strcmp(r->why, RECOVERED_CONFLICT))
        return g_strdup("changed a version that is gone");
    return g_strdup(r->why);
}

/* Why an entry cannot be used. */
static int explain(const char *dir, const char *id, int r)
{
    switch (r) {
    case -ENOENT:
        log_error("there is nothing called \"%s\" in %s; `mlopsfs recover` lists what there is", id, dir);
        break;
    case -EWOULDBLOCK:
        log_error("%s: another mlopsfs saves or discards it just now", id);
        break;
    case -EUCLEAN:
        log_error("%s: its description %s/%s.entry is damaged; its bytes, as far as they are there, are in %s/%s.data. `mlopsfs recover "
                  "discard %s` removes both", id, dir, id, dir, id, id);
        break;
    case -ENODATA:
        log_error("%s: its bytes %s/%s.data are not there any more; `mlopsfs recover discard %s` removes what is left", id, dir, id, id);
        break;
    default:
        log_error_errno(r, "%s", id);
    }
    return CLI_OTHER;
}

/* ---- list ---- */

static int list(const char *dir)
{
    g_autoptr(GPtrArray) all = NULL;
    int r = recovered_list(dir, &all), code = CLI_OK;

    if (r < 0) {
        log_error_errno(r, "cannot read %s", dir);
        return CLI_OTHER;
    }
    for (guint n = 0; n < all->len; n++) {
        const struct recovered *e = all->pdata[n];

        if (e->err < 0) {
            code = explain(dir, e->id, e->err);
            continue;
        }
        g_autoptr(GDateTime) time = g_date_time_new_from_unix_local(e->time_s);
        g_autofree char *when = time ? g_date_time_format(time, "%Y-%m-%d %H:%M:%S") : g_strdup("?");
        g_autofree char *name = name_of(e), *why = reason(e);
        g_autofree char *line = g_strdup_printf("%s  %s  %" G_GUINT64_FORMAT " of %" G_GUINT64_FORMAT " bytes  %s%s%s  (%s)", e->id, when,
                                                e->ours, e->size, name, *e->origin ? " on " : "", e->origin, why);
        cli_print_line(stdout, line);
    }
    return code;
}

/* ---- save ---- */

static void tell_ranges(const char *what, const GArray *ranges)
{
    g_autoptr(GString) text = g_string_new(NULL);
    uint64_t bytes = 0;

    for (guint n = 0; n < ranges->len; n++) {
        const struct recovered_range *x = &g_array_index(ranges, struct recovered_range, n);

        bytes += x->len;
        if (n < RANGES_SHOWN)
            g_string_append_printf(text, "%s%" G_GUINT64_FORMAT "-%" G_GUINT64_FORMAT, n ? ", " : "", x->off, x->off + x->len - 1);
    }
    if (ranges->len > RANGES_SHOWN)
        g_string_append_printf(text, " and %u more ranges", ranges->len - RANGES_SHOWN);
    if (bytes)
        log_warning("%" G_GUINT64_FORMAT " bytes %s, and are zeros in what was saved: %s", bytes, what, text->str);
}

/* The file of --base is another version's, as far as its mount tells. */
static bool is_other_version(int fd, const char *etag)
{
    char found[1024];
    ssize_t n = etag ? fgetxattr(fd, "user.s3.etag", found, sizeof(found) - 1) : -1;
    g_autofree char *plain = NULL, *wanted = NULL;

    if (n < 0)
        return false;
    found[n] = '\0';
    plain = g_strdup(g_strdelimit(found, "\"", ' '));
    wanted = g_strdup(etag);
    return strcmp(g_strstrip(plain), g_strstrip(g_strdelimit(wanted, "\"", ' '))) != 0;
}

static int open_base(const struct recovered *e, const char *path, int *ret)
{
    *ret = -1;
    if (!path)
        return CLI_OK;
    *ret = open(path, O_RDONLY | O_CLOEXEC);
    if (*ret < 0) {
        log_error_errno(-errno, "cannot read %s", path);
        return CLI_OTHER;
    }
    if (!is_other_version(*ret, e->base_etag))
        return CLI_OK;
    log_error("%s is not the version that was changed (ETag %s): bytes of the two do not belong together", path, e->base_etag);
    close(*ret);
    *ret = -1;
    return CLI_OTHER;
}

static int save_to(const struct recovered *e, const char *dir, const char *target, int base)
{
    struct recovered_report report = {0};
    int fd = open(target, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);

    if (fd < 0) {
        log_error_errno(-errno, "cannot make %s", target);
        return CLI_OTHER;
    }
    int r = recovered_save(e, dir, fd, base, &report);
    if (r == 0 && fsync(fd) < 0) /* before the copy may go */
        r = -errno;
    if (close(fd) < 0 && r == 0)
        r = -errno;
    if (r == -ENODATA)
        log_error("the file of --base is too short to be the version that was changed");
    else if (r < 0)
        log_error_errno(r, "cannot write %s; what was recovered stays where it is", target);
    if (r < 0) {
        (void)unlink(target);
    } else {
        tell_ranges("of the object's version before were not written anew (--base FILE takes them from there)", report.base);
        tell_ranges("that were written are lost", report.lost);
        g_autofree char *line = g_strdup_printf("saved as %s; `mlopsfs recover discard %s` removes the copy in cache_dir", target, e->id);

        cli_print_line(stdout, line);
    }
    int code = r < 0 || report.lost->len > 0 ? CLI_OTHER : CLI_OK;
    recovered_report_clear(&report);
    return code;
}

static int save(const char *dir, const char *id, const char *target, const char *base_path)
{
    struct recovered *e;
    int base, r = recovered_open(dir, id, false, &e);

    if (r < 0)
        return explain(dir, id, r);
    int code = open_base(e, base_path, &base);
    if (code == CLI_OK)
        code = save_to(e, dir, target, base);
    if (base >= 0)
        close(base);
    recovered_free(e);
    return code;
}

/* ---- discard ---- */

static int discard(const char *dir, char **ids)
{
    int code = CLI_OK;

    for (; *ids; ids++) {
        struct recovered *e;
        int r = recovered_open(dir, *ids, true, &e);

        if (r == 0)
            r = recovered_discard(e, dir);
        if (r < 0)
            code = explain(dir, *ids, r);
        recovered_free(e);
    }
    return code;
}

static int run(const char *dir, char **words, const char *base)
{
    guint n = words ? g_strv_length(words) : 0;

    if (n == 0 || (n == 1 && !strcmp(words[0], "list")))
        return list(dir);
    if (n == 3 && !strcmp(words[0], "save"))
        return save(dir, words[1], words[2], base);
    if (n >= 2 && !strcmp(words[0], "discard"))
        return discard(dir, words + 1);
    log_error("recover takes nothing, \"save ID FILE\", or \"discard ID...\"; see `mlopsfs recover --help`");
    return CLI_USAGE;
}

int cli_recover(int argc, char **argv)
{
    g_auto(GStrv) options = NULL, rest = NULL;
    g_autofree char *conf = NULL, *base = NULL, *dir = NULL;
    struct config c;
    const GOptionEntry entries[] = {
        {"options", 'o', 0, G_OPTION_ARG_FILENAME_ARRAY, &options, "Options, as of the mount: only cache_dir counts", "NAME=VALUE,..."},
        {"config", 'c', 0, G_OPTION_ARG_FILENAME, &conf, "Configuration file", "FILE"},
        {"base", 'b', 0, G_OPTION_ARG_FILENAME, &base, "save: the version that was changed, for bytes that were not written", "FILE"},
        {G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &rest, NULL, NULL},
        {NULL},
    };

    if (!cli_parse(argc, argv, entries, "[list | save ID FILE | discard ID...]",
                   "Bytes that were written and could not become an object, because nobody had closed or fsynced the file when its mount was\n"
                   "killed, are kept in cache_dir by the next mount or sync. Lists them, saves one as FILE (which may be in a mount), or discards them.",
                   NULL))
        return CLI_USAGE;
    config_init(&c);
    int r = config_read_file(&c, conf);
    if (r == 0)
        r = config_read_environment(&c);
    for (char **o = options; r == 0 && o && *o; o++)
        r = config_read_options(&c, *o);
    if (r == 0)
        r = config_finish_cache_dir(&c);
    if (r == 0)
        dir = g_build_filename(c.cache_dir, CONFIG_RECOVERED, NULL);
    config_clear(&c);
    if (r < 0)
        return r == -EPERM ? CLI_PERMISSION : CLI_USAGE;
    return run(dir, rest, base);
}
