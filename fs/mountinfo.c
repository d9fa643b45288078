/* SPDX-License-Identifier: Apache-2.0
 *
 * mountinfo: reads /proc/self/mountinfo (proc(5)). No state, no locks.
 */
#include "fs/mountinfo.h"

#include <stdlib.h>
#include <string.h>

static void mountinfo_free(void *arg)
{
    struct mountinfo *m = arg;

    g_free(m->mountpoint);
    g_free(m->source);
    g_free(m->dev);
    g_free(m);
}

/* \040 and the like; other bytes stay as they are. */
static char *unescape(const char *s)
{
    GString *out = g_string_new(NULL);

    for (; *s; s++) {
        if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' && s[2] <= '7' &&
            s[3] >= '0' && s[3] <= '7') {
            g_string_append_c(out, (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0')));
            s += 3;
        } else {
            g_string_append_c(out, *s);
        }
    }
    return g_string_free(out, FALSE);
}

/* id parent major:minor root MOUNTPOINT options [tags…] - TYPE SOURCE super-options: the words, and where the dash is; NULL if it is
 * another line. */
static char **split_line(const char *line, guint *ret_dash)
{
    char **w = g_strsplit(line, " ", -1);
    guint n = g_strv_length(w), dash = 6;

    while (dash < n && strcmp(w[dash], "-") != 0)
        dash++;
    if (dash + 3 >= n)
        g_clear_pointer(&w, g_strfreev);
    *ret_dash = dash;
    return w;
}

static struct mountinfo *parse_line(const char *line)
{
    guint dash;
    g_auto(GStrv) w = split_line(line, &dash);

    if (!w || strcmp(w[dash + 1], "fuse.mlopsfs") != 0)
        return NULL;
    struct mountinfo *m = g_new0(struct mountinfo, 1);
    m->mountpoint = unescape(w[4]);
    m->dev = g_strdup(w[2]);
    for (guint i = 6; i < dash; i++)
        m->propagates |= g_str_has_prefix(w[i], "shared:") || g_str_has_prefix(w[i], "master:");
    m->source = unescape(w[dash + 2]);
    const char *uid = strstr(w[dash + 3], "user_id=");
    m->uid = uid ? (uid_t)strtoul(uid + strlen("user_id="), NULL, 10) : 0;
    return m;
}

GPtrArray *mountinfo_list(const char *text)
{
    GPtrArray *list = g_ptr_array_new_with_free_func(mountinfo_free);
    g_autofree char *read = NULL;

    if (!text) {
        if (!g_file_get_contents("/proc/self/mountinfo", &read, NULL, NULL))
            return list;
        text = read;
    }
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    for (char **l = lines; *l; l++) {
        struct mountinfo *m = parse_line(*l);
        if (m)
            g_ptr_array_add(list, m);
    }
    return list;
}

const struct mountinfo *mountinfo_find(const GPtrArray *list, const char *path)
{
    const struct mountinfo *best = NULL;
    size_t longest = 0;

    for (guint i = 0; i < list->len; i++) {
        const struct mountinfo *m = list->pdata[i];
        size_t n = strlen(m->mountpoint);
        while (n > 1 && m->mountpoint[n - 1] == '/')
            n--;
        if (strncmp(m->mountpoint, path, n) != 0 || (n > 1 && path[n] && path[n] != '/') ||
            n < longest)
            continue;
        best = m;
        longest = n;
    }
    return best;
}

char *mountinfo_type(const char *text, const char *path)
{
    g_autofree char *read = NULL;
    char *type = NULL;

    if (!text && g_file_get_contents("/proc/self/mountinfo", &read, NULL, NULL))
        text = read;
    g_auto(GStrv) lines = g_strsplit(text ? text : "", "\n", -1);
    for (char **l = lines; *l; l++) {
        guint dash;
        g_auto(GStrv) w = split_line(*l, &dash);
        g_autofree char *at = w ? unescape(w[4]) : NULL;
        if (at && strcmp(at, path) == 0) {
            g_free(type);
            type = g_strdup(w[dash + 1]);
        }
    }
    return type;
}
