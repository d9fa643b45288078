/* SPDX-License-Identifier: Apache-2.0
 *
 * cli_query: `mlopsfs query`: asks the daemon which catalog it keeps and reads that, as a table or
 * as JSON. Keys may be any bytes: what is not UTF-8 is replaced in what is printed. One thread.
 */
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "catalog/catalog.h"
#include "fs/cli.h"
#include "fs/control.h"

enum column {
    COLUMN_PATH,
    COLUMN_DURATION,
    COLUMN_CODEC,
    COLUMN_PIXELS,
    COLUMN_FPS,
    COLUMN_SIZE,
    COLUMN_UUID,
    COLUMNS
};

static const struct {
    const char *title;
    bool right;
} columns[COLUMNS] = {
    {"PATH", false}, {"DURATION", true}, {"CODEC", false}, {"PIXELS", true},
    {"FPS", true},   {"SIZE", true},     {"UUID", false},
};

struct query {
    char *catalog, *mountpoint; /* mountpoint NULL: no mount is meant */
    char *bucket, *prefix;      /* of the mount; bucket "" = every bucket is a directory */
    bool json;
    GPtrArray *rows; /* table: char *[COLUMNS] */
    guint printed;   /* JSON objects so far */
};

static void query_clear(struct query *q)
{
    g_free(q->catalog);
    g_free(q->mountpoint);
    g_free(q->bucket);
    g_free(q->prefix);
    if (q->rows)
        g_ptr_array_free(q->rows, TRUE);
}

static void row_free(void *arg)
{
    char **cells = arg;

    for (int i = 0; i < COLUMNS; i++)
        g_free(cells[i]);
    g_free(cells);
}

/* What the daemon says of its mount: "catalog PATH", "bucket NAME", "prefix P". */
static void take_line(void *ctx, const char *text)
{
    static const char *const names[] = {"catalog", "bucket", "prefix"};
    struct query *q = ctx;
    char **fields[] = {&q->catalog, &q->bucket, &q->prefix};

    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        size_t n = strlen(names[i]);
        if (strncmp(text, names[i], n) == 0 && (text[n] == ' ' || !text[n])) {
            g_free(*fields[i]);
            *fields[i] = g_strdup(text[n] ? text + n + 1 : "");
        }
    }
}

static bool has_operator(const char *text)
{
    return strpbrk(text, "=!<>~") != NULL;
}

/* ---- where a row's file is ---- */

static bool row_is_ours(const struct query *q, const struct query_row *row)
{
    return (!q->bucket || !*q->bucket || strcmp(q->bucket, row->bucket) == 0) &&
           (!q->prefix || g_str_has_prefix(row->key, q->prefix));
}

static char *row_path(const struct query *q, const struct query_row *row)
{
    const char *key = row->key + (q->prefix ? strlen(q->prefix) : 0);

    if (!q->mountpoint)
        return g_strdup_printf("%s/%s", row->bucket, row->key);
    const char *slash = g_str_has_suffix(q->mountpoint, "/") ? "" : "/";
    if (q->bucket && *q->bucket)
        return g_strconcat(q->mountpoint, slash, key, NULL);
    return g_strconcat(q->mountpoint, slash, row->bucket, "/", key, NULL);
}

/* ---- JSON ---- */

static void json_string(GString *out, const char *text)
{
    g_autofree char *valid = g_utf8_make_valid(text, -1);

    g_string_append_c(out, '"');
    for (const char *p = valid; *p; p++) {
        if (*p == '"' || *p == '\\')
            g_string_append_printf(out, "\\%c", *p);
        else if ((unsigned char)*p < 0x20 || *p == 0x7f)
            g_string_append_printf(out, "\\u%04x", *p);
        else
            g_string_append_c(out, *p);
    }
    g_string_append_c(out, '"');
}

/* Whether the text is a number as JSON writes it. */
static bool json_is_number(const char *text)
{
    return g_regex_match_simple("^-?(0|[1-9][0-9]*)(\\.[0-9]+)?$", text, 0, 0);
}

static bool fact_is_number(const char *name)
{
    static const char *const numbers[] = {"duration",   "bit_rate", "width", "height",
                                          "frame_rate", "rotation", NULL};

    return g_strv_contains(numbers, name);
}

static void json_row(struct query *q, const struct query_row *row)
{
    g_autoptr(GString) out = g_string_new(q->printed++ ? ",\n  {\"path\": " : "[\n  {\"path\": ");
    g_autofree char *path = row_path(q, row);

    json_string(out, path);
    g_string_append(out, ", \"bucket\": ");
    json_string(out, row->bucket);
    g_string_append(out, ", \"key\": ");
    json_string(out, row->key);
    g_string_append_printf(out, ", \"size\": %" G_GUINT64_FORMAT, row->size);
    for (const char *const *name = video_fact_names; *name; name++) {
        g_autofree char *text = NULL;
        g_string_append_printf(out, ", \"%s\": ", *name);
        if (video_fact(row->video, *name, &text) < 0)
            g_string_append(out, "null");
        else if (fact_is_number(*name) && json_is_number(text))
            g_string_append(out, text);
        else
            json_string(out, text);
    }
    g_string_append_c(out, '}');
    fputs(out->str, stdout);
}

/* ---- table ---- */

static char *cell(const char *text)
{
    g_autofree char *valid = g_utf8_make_valid(text, -1);
    GString *out = g_string_new(NULL);

    for (char *p = valid; *p; p = g_utf8_next_char(p)) {
        gunichar u = g_utf8_get_char(p);
        g_string_append_unichar(out, g_unichar_iscntrl(u) ? '?' : u);
    }
    return g_string_free(out, FALSE);
}

static size_t cell_width(const char *text)
{
    size_t n = 0;

    for (const char *p = text; *p; p += g_utf8_skip[(unsigned char)*p]) {
        gunichar u = g_utf8_get_char(p);
        n += g_unichar_iszerowidth(u) ? 0 : g_unichar_iswide(u) ? 2 : 1;
    }
    return n;
}

static char *fact_cell(const struct query_row *row, const char *name)
{
    g_autofree char *text = NULL;

    return video_fact(row->video, name, &text) < 0 ? g_strdup("-") : cell(text);
}

static char *size_cell(uint64_t size)
{
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB"};
    double v = (double)size / 1024;
    size_t u = 0;

    if (size < 1024)
        return g_strdup_printf("%d B", (int)size);
    for (; v >= 1024 && u + 1 < G_N_ELEMENTS(units); u++)
        v /= 1024;
    return g_strdup_printf("%.1f %s", v, units[u]);
}

static void table_row(struct query *q, const struct query_row *row)
{
    char **cells = g_new0(char *, COLUMNS);
    g_autofree char *path = row_path(q, row);
    g_autofree char *codec = fact_cell(row, "codec");
    const struct video *v = row->video;

    cells[COLUMN_PATH] = cell(path);
    cells[COLUMN_DURATION] = fact_cell(row, "duration");
    cells[COLUMN_CODEC] =
        strcmp(codec, "-") == 0 ? fact_cell(row, "audio_codec") : g_steal_pointer(&codec);
    cells[COLUMN_PIXELS] =
        v->width > 0 ? g_strdup_printf("%dx%d", v->width, v->height) : g_strdup("-");
    cells[COLUMN_FPS] = fact_cell(row, "frame_rate");
    cells[COLUMN_SIZE] = size_cell(row->size);
    cells[COLUMN_UUID] = fact_cell(row, "uuid");
    g_ptr_array_add(q->rows, cells);
}

static void print_cells(char *const *cells, const size_t *widths)
{
    for (int i = 0; i < COLUMNS; i++) {
        int pad = (int)(widths[i] - cell_width(cells[i]));
        if (columns[i].right)
            printf("%*s%s", pad, "", cells[i]);
        else
            printf("%s%*s", cells[i], i == COLUMNS - 1 ? 0 : pad, "");
        fputs(i == COLUMNS - 1 ? "\n" : "  ", stdout);
    }
}

static void print_table(const struct query *q)
{
    char *titles[COLUMNS];
    size_t widths[COLUMNS];

    for (int i = 0; i < COLUMNS; i++) {
        titles[i] = g_strdup(columns[i].title);
        widths[i] = strlen(titles[i]);
        for (guint n = 0; n < q->rows->len; n++)
            widths[i] = MAX(widths[i], cell_width(((char **)q->rows->pdata[n])[i]));
    }
    print_cells(titles, widths);
    for (guint n = 0; n < q->rows->len; n++)
        print_cells(q->rows->pdata[n], widths);
    for (int i = 0; i < COLUMNS; i++)
        g_free(titles[i]);
}

/* ---- the query ---- */

static int each(void *ctx, const struct query_row *row)
{
    struct query *q = ctx;

    if (row_is_ours(q, row))
        (q->json ? json_row : table_row)(q, row);
    return ferror(stdout);
}

static int ask_daemon(struct query *q, const char *path)
{
    int code = cli_find_mount(path, &q->mountpoint, NULL);

    if (code != CLI_OK)
        return code;
    code =
        cli_control_exit(q->mountpoint, control_call(q->mountpoint, "catalog", NULL, take_line, q));
    if (code == CLI_OK && (!q->catalog || !*q->catalog)) {
        log_error("%s: this mount keeps no catalog", q->mountpoint);
        code = CLI_OTHER;
    }
    return code;
}

static int query_run(struct query *q, char **conditions)
{
    struct catalog *catalog = NULL;
    g_autofree char *error = NULL;

    if (access(q->catalog, R_OK) < 0) {
        log_error_errno(-errno, "%s: cannot read the catalog", q->catalog);
        return errno == EACCES ? CLI_PERMISSION : CLI_OTHER;
    }
    if (catalog_open(q->catalog, true, &catalog) < 0) /* has said why */
        return CLI_OTHER;
    q->rows = g_ptr_array_new_with_free_func(row_free);
    int r = catalog_query(catalog, (const char *const *)conditions,
                          conditions ? g_strv_length(conditions) : 0, each, q, &error);
    catalog_close(catalog);
    if (r < 0) {
        if (error)
            log_error("%s", error);
        else
            log_error_errno(r, "%s: cannot query the catalog", q->catalog);
        return r == -EINVAL ? CLI_USAGE : CLI_OTHER;
    }
    if (q->json)
        fputs(q->printed ? "\n]\n" : "[]\n", stdout);
    else
        print_table(q);
    return fflush(stdout) == 0 ? CLI_OK : CLI_OTHER;
}

int cli_query(int argc, char **argv)
{
    __attribute__((cleanup(query_clear))) struct query q = {0};
    gboolean json = FALSE, table = FALSE;
    g_auto(GStrv) rest = NULL;
    g_autofree char *catalog = NULL;
    const GOptionEntry entries[] = {
        {"json", 'j', 0, G_OPTION_ARG_NONE, &json, "Print a JSON array with every fact", NULL},
        {"table", 't', 0, G_OPTION_ARG_NONE, &table, "Print a table (the default)", NULL},
        {"catalog", 0, 0, G_OPTION_ARG_FILENAME, &catalog, "Read this catalog; no mount is asked",
         "FILE"},
        {G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &rest, NULL, NULL},
        {NULL},
    };

    g_autofree char *facts = g_strjoinv(", ", (char **)(uintptr_t)video_fact_names);
    g_autofree char *more = g_strdup_printf("Fields: name, key, bucket, size, %s.\n", facts);

    if (!cli_parse(argc, argv, entries, "[MNT] [CONDITION...]",
                   "Lists the videos whose facts fulfil every condition. A condition is FIELD OP "
                   "VALUE in one word,\n"
                   "quoted from the shell: 'duration>=10m' 'codec=h264' 'height<720' 'name~*.mp4' "
                   "'size>1G'.\n"
                   "OP is one of = != < <= > >= and ~ (a pattern with * and ?).",
                   more))
        return CLI_USAGE;
    if (json && table) {
        log_error("--json and --table exclude each other");
        return CLI_USAGE;
    }
    q.json = json;
    char **conditions = rest;
    const char *mnt = NULL;
    if (rest && (g_file_test(*rest, G_FILE_TEST_IS_DIR) || !has_operator(*rest))) {
        mnt = *rest;
        conditions++;
    }
    if (catalog && mnt) {
        log_error("with --catalog no mount is asked, so %s has no meaning", mnt);
        return CLI_USAGE;
    }
    q.catalog = g_steal_pointer(&catalog);
    int code = q.catalog ? CLI_OK : ask_daemon(&q, mnt);
    return code == CLI_OK ? query_run(&q, conditions) : code;
}
