/* SPDX-License-Identifier: Apache-2.0
 *
 * query: conditions of the form FIELD OP VALUE become one SELECT in which every value is bound, and
 * only names from the table below are pasted.
 *
 * Threads: any. Locks: none: each query reads on a connection of its own, so that `each` may take
 * its time and may call the catalog.
 */
#include "catalog/db.h"
#include <errno.h>
#include <math.h>
#include <string.h>

enum type { TYPE_TEXT, TYPE_NUMBER, TYPE_SECONDS, TYPE_BYTES };

struct field {
    const char *name, *sql;
    enum type type;
};

/* Fractions are compared as they are shown: with three decimals. */
static const struct field fields[] = {
    {"bucket", "f.bucket", TYPE_TEXT},
    {"key", "CAST(f.key AS TEXT)", TYPE_TEXT},
    {"name", "basename(f.key)", TYPE_TEXT},
    {"size", "v.size", TYPE_BYTES},
    {"uuid", "f.uuid", TYPE_TEXT},
    {"container", "v.container", TYPE_TEXT},
    {"duration", "round(v.duration, 3)", TYPE_SECONDS},
    {"bit_rate", "v.bit_rate", TYPE_NUMBER},
    {"codec", "v.codec", TYPE_TEXT},
    {"width", "v.width", TYPE_NUMBER},
    {"height", "v.height", TYPE_NUMBER},
    {"frame_rate", "round(v.frame_rate, 3)", TYPE_NUMBER},
    {"rotation", "v.rotation", TYPE_NUMBER},
    {"audio_codec", "v.audio_codec", TYPE_TEXT},
    {"creation_time", "v.creation_time", TYPE_TEXT},
};

/* Longest first. */
static const struct {
    const char *text, *sql;
} operators[] = {{"<=", "<="}, {">=", ">="}, {"!=", "<>"}, {"==", "="},
                 {"<", "<"},   {">", ">"},   {"=", "="},   {"~", "GLOB"}};

struct condition {
    const struct field *field;
    const char *op;    /* as in SQL */
    const char *value; /* within the caller's text, up to value_len */
    size_t value_len;
    double number; /* where the field is no text */
};

static int fail(char **ret_error, char *sentence)
{
    g_free(*ret_error);
    *ret_error = sentence;
    return -EINVAL;
}

static const struct field *field_find(const char *name, size_t n)
{
    for (size_t i = 0; i < G_N_ELEMENTS(fields); i++)
        if (strlen(fields[i].name) == n && memcmp(fields[i].name, name, n) == 0)
            return &fields[i];
    return NULL;
}

static char *field_list(void)
{
    GString *s = g_string_new(NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(fields); i++)
        g_string_append_printf(s, "%s%s", i ? ", " : "", fields[i].name);
    return g_string_free(s, FALSE);
}

/* The factor of a unit; 0 = no such unit. */
static double unit_factor(enum type type, const char *unit, size_t n)
{
    static const struct {
        enum type type;
        char unit;
        double factor;
    } units[] = {{TYPE_SECONDS, 's', 1},          {TYPE_SECONDS, 'm', 60},
                 {TYPE_SECONDS, 'h', 3600},       {TYPE_BYTES, 'k', 1024},
                 {TYPE_BYTES, 'm', 1048576},      {TYPE_BYTES, 'g', 1073741824},
                 {TYPE_BYTES, 't', 1099511627776}};
    if (n == 0)
        return 1;
    for (size_t i = 0; i < G_N_ELEMENTS(units); i++)
        if (n == 1 && units[i].type == type && units[i].unit == g_ascii_tolower(unit[0]))
            return units[i].factor;
    return 0;
}

static bool parse_number(const struct condition *cond, double *ret)
{
    g_autofree char *text = g_strndup(cond->value, cond->value_len);
    /* strtod also takes hexadecimal, infinities and NaN: these are no answers to "how many". */
    size_t digits = strspn(text, "0123456789.+-eE");
    if (digits == 0 || !memchr("0123456789.+-", text[0], 13))
        return false;
    char *end;
    double v = g_ascii_strtod(text, &end);
    if (end == text || (size_t)(end - text) > digits || !isfinite(v))
        return false;
    double factor = unit_factor(cond->field->type, end, strlen(end));
    *ret = v * factor;
    return factor > 0 && isfinite(*ret);
}

static const char *number_hint(enum type t)
{
    return t == TYPE_SECONDS ? "a number of seconds, such as 90, 1.5m or 2h"
           : t == TYPE_BYTES ? "a number of bytes, such as 4096, 500K, 10M or 2G"
                             : "a number";
}

static int condition_parse(const char *text, struct condition *ret, char **ret_error)
{
    const char *p = text + strspn(text, " \t");
    size_t n = strspn(p, "abcdefghijklmnopqrstuvwxyz_ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789");
    ret->field = field_find(p, n);
    if (!ret->field) {
        g_autofree char *list = field_list();
        return fail(
            ret_error,
            g_strdup_printf("the condition \"%s\" does not begin with a field: %s", text, list));
    }
    p += n;
    p += strspn(p, " \t");
    ret->op = NULL;
    for (size_t i = 0; i < G_N_ELEMENTS(operators) && !ret->op; i++)
        if (g_str_has_prefix(p, operators[i].text)) {
            ret->op = operators[i].sql;
            p += strlen(operators[i].text);
        }
    if (!ret->op)
        return fail(ret_error,
                    g_strdup_printf("the condition \"%s\" lacks an operator after \"%s\":"
                                    " one of = != < <= > >= ~",
                                    text, ret->field->name));
    p += strspn(p, " \t");
    ret->value = p;
    ret->value_len = strlen(p);
    while (ret->value_len > 0 && strchr(" \t", p[ret->value_len - 1]))
        ret->value_len--;
    if (ret->field->type == TYPE_TEXT)
        return 0;
    if (strcmp(ret->op, "GLOB") == 0)
        return fail(ret_error,
                    g_strdup_printf("the condition \"%s\" matches a pattern, but %s is a number",
                                    text, ret->field->name));
    if (!parse_number(ret, &ret->number))
        return fail(ret_error, g_strdup_printf("the condition \"%s\" needs %s after the operator",
                                               text, number_hint(ret->field->type)));
    return 0;
}

/* SQL function: what follows the last slash that does not end the key. */
static void sql_basename(sqlite3_context *ctx, int argc, sqlite3_value **argv)
{
    const char *key = sqlite3_value_blob(argv[0]);
    int n = sqlite3_value_bytes(argv[0]);
    if (!key || n == 0) {
        sqlite3_result_text(ctx, "", 0, SQLITE_STATIC);
        return;
    }
    const char *slash = n > 1 ? memrchr(key, '/', (size_t)n - 1) : NULL;
    int skip = slash ? (int)(slash - key) + 1 : 0;
    sqlite3_result_text(ctx, key + skip, n - skip, SQLITE_TRANSIENT);
}

static int query_prepare(sqlite3 *db, const struct condition *conds, size_t n, sqlite3_stmt **ret)
{
    int rc = sqlite3_create_function(db, "basename", 1, SQLITE_UTF8 | SQLITE_DETERMINISTIC, NULL,
                                     sql_basename, NULL, NULL);
    if (rc != SQLITE_OK)
        return db_errno(rc);
    g_autoptr(GString) sql =
        g_string_new("SELECT " VIDEO_COLUMNS ", f.bucket, CAST(f.key AS TEXT), v.size"
                     " FROM videos v JOIN files f ON f.id = v.file"
                     " LEFT JOIN attrs a ON a.file = f.id"
                     /* Facts of a version that is known to be gone tell nothing. */
                     " WHERE v.is_media = 1 AND (a.etag IS NULL OR a.etag = v.etag)");
    for (size_t i = 0; i < n; i++)
        g_string_append_printf(sql, " AND %s %s ?", conds[i].field->sql, conds[i].op);
    g_string_append(sql, " ORDER BY f.bucket, f.key");
    int r = db_prepare(db, sql->str, ret);
    for (size_t i = 0; i < n && r == 0; i++) {
        rc = conds[i].field->type == TYPE_TEXT
                 ? sqlite3_bind_text(*ret, (int)i + 1, conds[i].value, (int)conds[i].value_len,
                                     SQLITE_TRANSIENT)
                 : sqlite3_bind_double(*ret, (int)i + 1, conds[i].number);
        r = db_errno(rc);
    }
    return r;
}

static int query_rows(sqlite3_stmt *st, int (*each)(void *ctx, const struct query_row *row),
                      void *ctx)
{
    int r;
    while ((r = db_step(st)) > 0) {
        struct video video;
        video_from_row(st, &video);
        const struct query_row row = {
            .bucket = (const char *)sqlite3_column_text(st, VIDEO_COLUMN_COUNT),
            .key = (const char *)sqlite3_column_text(st, VIDEO_COLUMN_COUNT + 1),
            .size = (uint64_t)sqlite3_column_int64(st, VIDEO_COLUMN_COUNT + 2),
            .video = &video,
        };
        if (!row.bucket || !row.key)
            return -ENOMEM;
        if (each(ctx, &row) != 0)
            return 0;
    }
    return r;
}

int catalog_query(struct catalog *c, const char *const *conditions, size_t n,
                  int (*each)(void *ctx, const struct query_row *row), void *ctx, char **ret_error)
{
    *ret_error = NULL;
    if (n > 100)
        return fail(ret_error, g_strdup("there are more than 100 conditions"));
    g_autofree struct condition *conds = g_new0(struct condition, n + 1);
    for (size_t i = 0; i < n; i++) {
        int r = condition_parse(conditions[i], &conds[i], ret_error);
        if (r < 0)
            return r;
    }
    sqlite3 *db = NULL;
    int r = reader_open(c, &db);
    if (r < 0)
        return r;
    sqlite3_stmt *st = NULL;
    r = query_prepare(db, conds, n, &st);
    if (r == 0)
        r = query_rows(st, each, ctx);
    sqlite3_finalize(st);
    db_close(db);
    return catalog_check(c, r);
}
