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
    g_free(m->place);
    g_free(m->peers);
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

/* What the line of the mount with this id tells of a mount in it: see struct mountinfo. */
static void read_parent(struct mountinfo *m, char **lines, const char *id)
{
    m->place = g_strdup("");
    m->peers = g_strdup("");
    for (char **l = lines; *l; l++) {
        guint dash;
        g_auto(GStrv) w = split_line(*l, &dash);
        if (!w || strcmp(w[0], id) != 0)
            continue;
        g_autofree char *root = unescape(w[3]), *at = unescape(w[4]);
        size_t n = strcmp(at, "/") == 0 ? 0 : strlen(at);
        g_autoptr(GString) peers = g_string_new(NULL);
        for (guint i = 6; i < dash; i++)
            g_string_append_printf(peers, "%s%s", peers->len ? " " : "", w[i]);
        g_free(m->place);
        g_free(m->peers);
        m->place = g_strdup_printf("%s:%s%s", w[2], strcmp(root, "/") == 0 ? "" : root,
                                   strlen(m->mountpoint) >= n ? m->mountpoint + n : "");
        m->peers = g_strdup(peers->str);
        return;
    }
}

static struct mountinfo *parse_line(const char *line, char **lines)
{
    guint dash;
    g_auto(GStrv) w = split_line(line, &dash);

    if (!w || strcmp(w[dash + 1], "fuse.mlopsfs") != 0)
        return NULL;
    struct mountinfo *m = g_new0(struct mountinfo, 1);
    m->mountpoint = unescape(w[4]);
    m->dev = g_strdup(w[2]);
    m->source = unescape(w[dash + 2]);
    read_parent(m, lines, w[1]);
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
        struct mountinfo *m = parse_line(*l, lines);
        if (m)
            g_ptr_array_add(list, m);
    }
    return list;
}

/* Whether a mount with these peers is told what happens in the group "shared:N". */
static bool hears(const char *peers, const char *group)
{
    static const char *const ways[] = {"shared", "master", "propagate_from"};
    g_auto(GStrv) tags = g_strsplit(peers, " ", -1);
    const char *number = strchr(group, ':');

    for (size_t i = 0; i < G_N_ELEMENTS(ways); i++) {
        g_autofree char *tag = g_strconcat(ways[i], number, NULL);
        if (g_strv_contains((const char *const *)tags, tag))
            return true;
    }
    return false;
}

bool mountinfo_follows(const struct mountinfo *m, const struct mountinfo *ours)
{
    g_auto(GStrv) tags = g_strsplit(ours->peers, " ", -1);

    if (strcmp(m->place, ours->place) != 0)
        return false;
    for (char **t = tags; *t; t++)
        if (g_str_has_prefix(*t, "shared:") && hears(m->peers, *t))
            return true;
    return false;
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
