/* SPDX-License-Identifier: Apache-2.0
 *
 * config_generic: the options that mount(8), fstab and systemd know for every file system. Some are
 * for the kernel, the others are for those who call us, or mean nothing here. Runs before the first
 * thread.
 */
#include <glib.h>
#include <string.h>

#include "fs/config.h"
#include "fs/config_table.h"

/* What sets a word for the kernel, or takes it back: the last one counts, as in mount(8). suid and dev take nothing back: a mount is
 * always nosuid and nodev. Access times are not kept, so the other words about them mean nothing. */
static const struct {
    const char *name, *kernel;
    bool off;
} for_kernel[] = {
    {"nosuid", "nosuid"},         {"nodev", "nodev"},           {"noexec", "noexec"},       {"exec", "noexec", true},
    {"noatime", "noatime"},       {"atime", "noatime", true},   {"relatime", "noatime", true}, {"strictatime", "noatime", true},
    {"sync", "sync"},             {"async", "sync", true},      {"dirsync", "dirsync"},
};

static const char *const ignored[] = {
    "defaults", "auto", "noauto", "nofail", "_netdev", "silent", "loud",
    /* who may mount: mount(8) has looked at it */
    "user", "nouser", "users", "nousers", "owner", "noowner", "group", "nogroup",
    /* always so, or without meaning for S3 */
    "suid", "dev", "diratime", "nodiratime", "norelatime", "nostrictatime", "lazytime", "nolazytime", "mand", "nomand", "iversion",
    "noiversion", "symfollow", "default_permissions", "nonempty", "noauto_da_alloc", NULL};

static const char *const ignored_prefixes[] = {"x-", "X-", "comment=", "user=", "uhelper=", "helper="};

/* Labels of SELinux: as they are. */
static const char *const kernel_prefixes[] = {"context=", "fscontext=", "defcontext=", "rootcontext="};

static bool has_prefix(const char *word, const char *const *prefixes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (g_str_has_prefix(word, prefixes[i]))
            return true;
    return false;
}

/* kernel_options is a list in which each word stands once. */
static void set_kernel(struct config *c, const char *word, bool on)
{
    g_auto(GStrv) old = g_strsplit(c->kernel_options ? c->kernel_options : "", ",", -1);
    g_autoptr(GString) all = g_string_new(NULL);

    for (char **w = old; *w; w++)
        if (**w && strcmp(*w, word) != 0)
            g_string_append_printf(all, "%s%s", all->len ? "," : "", *w);
    if (on)
        g_string_append_printf(all, "%s%s", all->len ? "," : "", word);
    g_free(c->kernel_options);
    c->kernel_options = all->len ? g_strdup(all->str) : NULL;
}

bool config_generic_option(struct config *c, const char *word)
{
    if (strcmp(word, "ro") == 0 || strcmp(word, "rw") == 0) {
        c->read_only = word[1] == 'o';
        return true;
    }
    for (size_t i = 0; i < G_N_ELEMENTS(for_kernel); i++)
        if (strcmp(word, for_kernel[i].name) == 0) {
            set_kernel(c, for_kernel[i].kernel, !for_kernel[i].off);
            return true;
        }
    if (has_prefix(word, kernel_prefixes, G_N_ELEMENTS(kernel_prefixes)) && !strchr(word, ',')) {
        set_kernel(c, word, true);
        return true;
    }
    return g_strv_contains(ignored, word) || has_prefix(word, ignored_prefixes, G_N_ELEMENTS(ignored_prefixes));
}
