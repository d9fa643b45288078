/* SPDX-License-Identifier: Apache-2.0
 *
 * config_value: the text of one option becomes its value, checked for type and range. No threads
 * yet when it runs; nothing is shared.
 */
#include <assert.h>
#include <errno.h>
#include <glib.h>
#include <grp.h>
#include <inttypes.h>
#include <math.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "fs/config.h"
#include "fs/config_table.h"

const char *config_value_kind(const struct config_option *o)
{
    switch (o->type) {
    case CONFIG_STRING:
        return "text";
    case CONFIG_PATH:
        return "an absolute path, or one that begins with ~/";
    case CONFIG_BOOL:
        return "on or off";
    case CONFIG_SIZE:
        return "a number of bytes, or one with K, M, G or T, such as 256M";
    case CONFIG_DURATION:
        return "a number of seconds, or one with ms, s, m or h, such as 500ms";
    case CONFIG_UNSIGNED:
    case CONFIG_COUNT:
        return "a whole number";
    case CONFIG_MODE:
        return "octal permission bits, such as 0644";
    case CONFIG_UID:
        return "a user's number or name";
    case CONFIG_GID:
        return "a group's number or name";
    case CONFIG_ENUM:
        return "one of the listed words";
    case CONFIG_CAPS:
        return "probe, none, or a list of names such as put_if:complete_if";
    }
    return "";
}

/* Digits only, so that neither sign nor space nor hexadecimal slips in. */
static bool parse_digits(const char *s, unsigned base, uint64_t *ret, const char **end)
{
    uint64_t v = 0;
    const char *p = s;

    for (; *p >= '0' && *p < (char)('0' + base); p++) {
        unsigned d = (unsigned)(*p - '0');
        if (v > (UINT64_MAX - d) / base)
            return false;
        v = v * base + d;
    }
    *ret = v;
    *end = p;
    return p != s;
}

static bool parse_size(const char *s, uint64_t *ret)
{
    static const char units[] = "KMGT";
    const char *end;
    uint64_t v;

    if (!parse_digits(s, 10, &v, &end))
        return false;
    if (*end) {
        const char *u = strchr(units, g_ascii_toupper(*end));
        if (!u)
            return false;
        unsigned shift = 10 * (unsigned)(u - units + 1);
        if (v > UINT64_MAX >> shift)
            return false;
        v <<= shift;
        end++;
        if (*end == 'i')
            end++;
        if (*end == 'B')
            end++;
    }
    *ret = v;
    return *end == 0;
}

static bool parse_duration(const char *s, uint64_t *ret)
{
    static const struct {
        const char *unit;
        double ns;
    } units[] = {{"", 1e9}, {"ms", 1e6}, {"s", 1e9}, {"m", 60e9}, {"h", 3600e9}};
    size_t n = strspn(s, "0123456789.");
    char *end;

    if (n == 0 || n > 20)
        return false;
    g_autofree char *number = g_strndup(s, n);
    double v = g_ascii_strtod(number, &end);
    if (*end || end == number || !isfinite(v))
        return false;
    for (size_t i = 0; i < G_N_ELEMENTS(units); i++)
        if (strcmp(s + n, units[i].unit) == 0) {
            v *= units[i].ns;
            if (v > 9e18) /* fits signed nanoseconds */
                return false;
            *ret = (uint64_t)llround(v);
            return true;
        }
    return false;
}

static bool parse_bool(const char *s, bool *ret)
{
    static const char *const words[] = {"off", "on", "no", "yes", "false", "true", "0", "1"};

    for (size_t i = 0; i < G_N_ELEMENTS(words); i++)
        if (strcasecmp(s, words[i]) == 0) {
            *ret = i % 2;
            return true;
        }
    return false;
}

static bool parse_number(const struct config_option *o, const char *text, uint64_t *ret)
{
    const char *end;

    switch (o->type) {
    case CONFIG_SIZE:
        return parse_size(text, ret);
    case CONFIG_DURATION:
        return parse_duration(text, ret);
    case CONFIG_MODE:
        return parse_digits(text, 8, ret, &end) && *end == 0;
    default:
        return parse_digits(text, 10, ret, &end) && *end == 0;
    }
}

static char *number_text(const struct config_option *o, uint64_t v)
{
    static const char units[] = "\0KMGT";
    unsigned u = 0;

    if (o->type == CONFIG_MODE)
        return g_strdup_printf("%04" PRIo64, v);
    if (o->type == CONFIG_DURATION)
        return v % NSEC_PER_SEC ? g_strdup_printf("%" PRIu64 "ms", (uint64_t)(v / NSEC_PER_MSEC))
                                : g_strdup_printf("%" PRIu64 "s", (uint64_t)(v / NSEC_PER_SEC));
    if (o->type == CONFIG_SIZE)
        while (v && v % 1024 == 0 && u < 4) {
            v /= 1024;
            u++;
        }
    return u ? g_strdup_printf("%" PRIu64 "%c", v, units[u]) : g_strdup_printf("%" PRIu64, v);
}

static int set_number(struct config *c, const struct config_option *o, const char *text,
                      char **ret_why)
{
    void *field = (char *)c + o->offset;
    uint64_t v;

    if (!parse_number(o, text, &v)) {
        *ret_why = g_strdup_printf("it takes %s", config_value_kind(o));
        return -EINVAL;
    }
    if (!(v == 0 && (o->flags & CONFIG_ZERO_OK)) && (v < o->min || (o->max && v > o->max))) {
        g_autofree char *min = number_text(o, o->min), *max = number_text(o, o->max);
        *ret_why = o->max ? g_strdup_printf("it lies between %s and %s", min, max)
                          : g_strdup_printf("it is at least %s", min);
        return -EINVAL;
    }
    if (o->type == CONFIG_UNSIGNED) {
        assert(o->max && o->max <= UINT32_MAX);
        *(unsigned *)field = (unsigned)v;
    } else if (o->type == CONFIG_MODE) {
        assert(o->max && o->max <= 07777);
        *(mode_t *)field = (mode_t)v;
    } else {
        *(uint64_t *)field = v;
    }
    return 0;
}

static int set_id(struct config *c, const struct config_option *o, const char *text, char **ret_why)
{
    void *field = (char *)c + o->offset;
    const char *end;
    uint64_t v;

    if (!parse_digits(text, 10, &v, &end) || *end) {
        const struct passwd *pw = o->type == CONFIG_UID ? getpwnam(text) : NULL;
        const struct group *gr = o->type == CONFIG_GID ? getgrnam(text) : NULL;
        if (!pw && !gr) {
            *ret_why =
                g_strdup_printf("it takes %s, and none is called so here", config_value_kind(o));
            return -EINVAL;
        }
        v = pw ? pw->pw_uid : gr->gr_gid;
    }
    if (v >= UINT32_MAX) {
        *ret_why = g_strdup("the number is too large");
        return -EINVAL;
    }
    if (o->type == CONFIG_UID)
        *(uid_t *)field = (uid_t)v;
    else
        *(gid_t *)field = (gid_t)v;
    return 0;
}

static int set_path(char **field, const char *text, bool relative_ok, char **ret_why)
{
    char *path;

    if (g_str_has_prefix(text, "~/")) {
        const char *home = getenv("HOME");
        if (!home || !*home) {
            *ret_why = g_strdup("HOME is not set, so ~/ has no meaning");
            return -EINVAL;
        }
        path = g_build_filename(home, text + 2, NULL);
    } else if (*text == '/') {
        path = g_strdup(text);
    } else if (!*text) {
        path = NULL;
    } else if (relative_ok) {
        path = g_canonicalize_filename(text, NULL);
    } else {
        *ret_why = g_strdup("it takes an absolute path, or one that begins with ~/");
        return -EINVAL;
    }
    g_free(*field);
    *field = path;
    return 0;
}

static int set_enum(int *field, const struct config_option *o, const char *text, char **ret_why)
{
    GString *words = g_string_new(NULL);

    for (const struct config_name *n = o->names; n->name; n++) {
        if (strcasecmp(n->name, text) == 0) {
            *field = n->value;
            g_string_free(words, TRUE);
            return 0;
        }
        g_string_append_printf(words, "%s%s",
                               n == o->names ? ""
                               : n[1].name   ? ", "
                                             : " or ",
                               n->name);
    }
    *ret_why = g_strdup_printf("it takes %s", words->str);
    g_string_free(words, TRUE);
    return -EINVAL;
}

static int set_caps(struct config_caps *field, const char *text, char **ret_why)
{
    g_autofree char *unknown = NULL;
    struct store_caps caps = {0};
    bool given = *text && strcmp(text, "probe") != 0;

    if (given && !store_caps_parse(text, &caps, &unknown)) {
        g_autofree char *names = store_caps_names();
        *ret_why = g_strdup_printf("%s is no capability; it takes probe, none, or a list of %s", unknown, names);
        return -EINVAL;
    }
    *field = (struct config_caps){.given = given, .caps = caps};
    return 0;
}

int config_value_set(struct config *c, const struct config_option *o, const char *text,
                     bool relative_ok, char **ret_why)
{
    void *field = (char *)c + o->offset;

    *ret_why = NULL;
    switch (o->type) {
    case CONFIG_STRING:
        g_free(*(char **)field);
        *(char **)field = *text ? g_strdup(text) : NULL;
        return 0;
    case CONFIG_PATH:
        return set_path(field, text, relative_ok, ret_why);
    case CONFIG_BOOL:
        if (parse_bool(text, field))
            return 0;
        *ret_why = g_strdup_printf("it takes %s", config_value_kind(o));
        return -EINVAL;
    case CONFIG_UID:
    case CONFIG_GID:
        return set_id(c, o, text, ret_why);
    case CONFIG_ENUM:
        return set_enum(field, o, text, ret_why);
    case CONFIG_CAPS:
        return set_caps(field, text, ret_why);
    case CONFIG_SIZE:
    case CONFIG_DURATION:
    case CONFIG_UNSIGNED:
    case CONFIG_COUNT:
    case CONFIG_MODE:
        return set_number(c, o, text, ret_why);
    }
    assert(!"unknown type of option");
    return -EINVAL;
}
