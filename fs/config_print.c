/* SPDX-License-Identifier: Apache-2.0
 *
 * config_print: the table of options as text for people: help, mlopsfs.conf, the man page's list.
 */
#include <glib.h>
#include <string.h>

#include "fs/config.h"
#include "fs/config_table.h"

/* Words of text in lines of at most width columns, each after indent (the first line too, unless
 * begun). */
static void print_wrapped(FILE *out, const char *text, const char *indent, size_t width, bool begun)
{
    g_auto(GStrv) words = g_strsplit(text, " ", -1);
    size_t column = 0;

    for (char **w = words; *w; w++) {
        size_t n = strlen(*w);
        if (column && column + 1 + n > width) {
            fputc('\n', out);
            column = 0;
            begun = false;
        }
        if (column)
            fputc(' ', out);
        else if (!begun)
            fputs(indent, out);
        fputs(*w, out);
        column += n + (column > 0);
    }
    fputc('\n', out);
}

/* What else there is to know: where the value may come from, and what it looks like. */
static char *details(const struct config_option *o)
{
    GString *s = g_string_new(NULL);

    if (o->def_help)
        g_string_append_printf(s, "Default: %s.", o->def_help);
    for (size_t i = 0; i < CONFIG_ENV_MAX && o->env[i]; i++)
        g_string_append_printf(s, "%s%s",
                               i        ? ", "
                               : s->len ? " Environment: "
                                        : "Environment: ",
                               o->env[i]);
    if (o->env[0])
        g_string_append_c(s, '.');
    return g_string_free(s, FALSE);
}

void config_print_help(FILE *out)
{
    static const char indent[] = "                          ";

    for (const struct config_option *o = config_options; o->name; o++) {
        g_autofree char *more = details(o);
        g_autofree char *text = g_strconcat(o->help, *more ? " " : "", more, NULL);
        int n = fprintf(out, "  %s=%s", o->name, o->def ? o->def : "");
        fprintf(out, "%*s", n < 25 ? 26 - n : 1, "");
        print_wrapped(out, text, indent, 72, true);
    }
}

void config_print_conf(FILE *out)
{
    const char *section = "";

    fputs(
        "# mlopsfs.conf: every option with its default. mlopsfs reads the first of $MLOPSFS_CONF,\n"
        "# $XDG_CONFIG_HOME/mlopsfs/mlopsfs.conf (~/.config where that is not set) and\n"
        "# /etc/mlopsfs.conf; the environment and -o win over it.\n"
        "# Sizes take K, M, G, T; times take ms, s, m, h; switches are on or off.\n"
        "[mlopsfs]\n",
        out);
    for (const struct config_option *o = config_options; o->name; o++) {
        g_autofree char *more = details(o);
        if (strcmp(section, o->section) != 0)
            fprintf(out, "\n# ---- %s ----\n", o->section);
        section = o->section;
        fputc('\n', out);
        print_wrapped(out, o->help, "# ", 96, false);
        if (*more)
            print_wrapped(out, more, "# ", 96, false);
        fprintf(out, "#%s =%s%s\n", o->name, o->def ? " " : "", o->def ? o->def : "");
    }
}

/* A roff line: backslashes and hyphens escaped, no dot or quote at its start. */
static void print_roff(FILE *out, const char *text)
{
    if (*text == '.' || *text == '\'')
        fputs("\\&", out);
    for (; *text; text++) {
        if (*text == '\\')
            fputs("\\e", out);
        else if (*text == '-')
            fputs("\\-", out);
        else if (*text == '~')
            fputs("\\(ti", out);
        else
            fputc(*text, out);
    }
}

void config_print_man(FILE *out)
{
    const char *section = "";

    for (const struct config_option *o = config_options; o->name; o++) {
        g_autofree char *more = details(o);
        if (strcmp(section, o->section) != 0)
            fprintf(out, ".SS %s\n", o->section);
        section = o->section;
        fputs(".TP\n\\fB", out);
        print_roff(out, o->name);
        fputs("\\fR=", out);
        if (o->def)
            print_roff(out, o->def);
        else
            fputs("\\fIvalue\\fR", out);
        fputc('\n', out);
        print_roff(out, o->help);
        fputc('\n', out);
        if (*more) {
            print_roff(out, more);
            fputc('\n', out);
        }
    }
}
