/* SPDX-License-Identifier: Apache-2.0
 *
 * videos: facts of media files, one set per file, valid for the ETag they were learnt from; and the
 * UUID, which belongs to the file and outlives its versions.
 *
 * Threads: any. Locks: the connections' (catalog.c). What is unknown is NULL in the database.
 */
#include "catalog/db.h"
#include <errno.h>
#include <math.h>
#include <string.h>
#include <strings.h>
#include <uuid/uuid.h>

const char *const video_fact_names[] = {"uuid",     "container",   "duration",      "bit_rate",
                                        "codec",    "width",       "height",        "frame_rate",
                                        "rotation", "audio_codec", "creation_time", NULL};

/* ---- rows ---- */

static void column_text(sqlite3_stmt *st, int i, char *to, size_t size)
{
    const char *s = (const char *)sqlite3_column_text(st, i);
    g_strlcpy(to, s ? s : "", size);
}

static double column_real(sqlite3_stmt *st, int i, double unknown)
{
    return sqlite3_column_type(st, i) == SQLITE_NULL ? unknown : sqlite3_column_double(st, i);
}

void video_from_row(sqlite3_stmt *st, struct video *ret)
{
    *ret = (struct video){.is_media = sqlite3_column_int(st, 0) != 0, .duration = -1};
    if (!ret->is_media)
        return;
    column_text(st, 1, ret->uuid, sizeof(ret->uuid));
    column_text(st, 2, ret->container, sizeof(ret->container));
    ret->duration = column_real(st, 3, -1);
    ret->bit_rate = sqlite3_column_int64(st, 4);
    column_text(st, 5, ret->codec, sizeof(ret->codec));
    ret->width = sqlite3_column_int(st, 6);
    ret->height = sqlite3_column_int(st, 7);
    ret->frame_rate = column_real(st, 8, 0);
    ret->rotation = sqlite3_column_int(st, 9);
    column_text(st, 10, ret->audio_codec, sizeof(ret->audio_codec));
    column_text(st, 11, ret->creation_time, sizeof(ret->creation_time));
}

static void bind_known_text(sqlite3_stmt *st, int i, const char *s)
{
    bind_text(st, i, s[0] ? s : NULL);
}

static void bind_known_int(sqlite3_stmt *st, int i, int64_t v)
{
    if (v > 0)
        sqlite3_bind_int64(st, i, v);
}

/* Parameters 5 to 14; codec and audio_codec are known once a file is known as media ("" = has
 * none). */
static void bind_facts(sqlite3_stmt *st, const struct video *v)
{
    bind_known_text(st, 5, v->container);
    if (v->duration >= 0)
        sqlite3_bind_double(st, 6, v->duration);
    bind_known_int(st, 7, v->bit_rate);
    bind_text(st, 8, v->codec);
    bind_known_int(st, 9, v->width);
    bind_known_int(st, 10, v->height);
    if (v->frame_rate > 0)
        sqlite3_bind_double(st, 11, v->frame_rate);
    if (v->codec[0])
        sqlite3_bind_int(st, 12, v->rotation);
    bind_text(st, 13, v->audio_codec);
    bind_known_text(st, 14, v->creation_time);
}

static int video_write(struct catalog *c, int64_t file, const char *etag, uint64_t size,
                       const struct video *v)
{
    sqlite3_stmt *st;
    int r = write_stmt(c,
                       "INSERT OR REPLACE INTO videos VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9,"
                       " ?10, ?11, ?12, ?13, ?14)",
                       &st);
    if (r < 0)
        return r;
    sqlite3_bind_int64(st, 1, file);
    bind_text(st, 2, etag);
    sqlite3_bind_int64(st, 3, (int64_t)size);
    sqlite3_bind_int(st, 4, v->is_media);
    if (v->is_media)
        bind_facts(st, v);
    return write_done(c, st);
}

/* The file's UUID, made when it has none. */
static int uuid_ensure(struct catalog *c, int64_t file, char ret[37])
{
    sqlite3_stmt *st;
    int r = write_stmt(c, "SELECT uuid FROM files WHERE id = ?1", &st);
    if (r < 0)
        return r;
    sqlite3_bind_int64(st, 1, file);
    r = db_step(st);
    if (r > 0)
        column_text(st, 0, ret, 37);
    sqlite3_reset(st);
    sqlite3_clear_bindings(st);
    if (r < 0 || ret[0])
        return r < 0 ? r : 0;

    uuid_t u;
    uuid_generate(u);
    uuid_unparse_lower(u, ret);
    r = write_stmt(c, "UPDATE files SET uuid = ?2 WHERE id = ?1", &st);
    if (r < 0)
        return r;
    sqlite3_bind_int64(st, 1, file);
    bind_text(st, 2, ret);
    return write_done(c, st);
}

int catalog_video_put(struct catalog *c, const char *bucket, const char *key, const char *etag,
                      uint64_t size, struct video *v)
{
    char uuid[37] = "";
    int64_t file;
    int r = write_begin(c, v->is_media);
    if (r < 0)
        return r;
    r = file_make(c, bucket, key, &file);
    if (r == 0)
        r = video_write(c, file, etag, size, v);
    if (r == 0 && v->is_media)
        r = uuid_ensure(c, file, uuid);
    r = write_end(c, r);
    if (r == 0)
        memcpy(v->uuid, uuid, sizeof(uuid));
    return r;
}

int catalog_video_get(struct catalog *c, const char *bucket, const char *key, const char *etag,
                      struct video *ret)
{
    sqlite3_stmt *st;
    int r = conn_acquire(c, &c->reader,
                         "SELECT " VIDEO_COLUMNS " FROM files f JOIN videos v ON v.file = f.id"
                         " WHERE f.bucket = ?1 AND f.key = ?2 AND v.etag = ?3",
                         &st);
    if (r < 0)
        return r;
    bind_name(st, 1, bucket, key);
    bind_text(st, 3, etag);
    r = db_step(st);
    if (r == 0) {
        r = -ENOENT;
    } else if (r > 0) {
        video_from_row(st, ret);
        r = 0;
    }
    conn_release(&c->reader, st);
    return catalog_check(c, r);
}

int catalog_version_moved(struct catalog *c, const char *bucket, const char *key,
                          const char *from_etag, const char *to_etag)
{
    if (strcmp(from_etag, to_etag) == 0)
        return 0;
    int r = write_begin(c, false);
    if (r < 0)
        return r;
    sqlite3_stmt *st;
    r = write_stmt(c,
                   "UPDATE videos SET etag = ?4 WHERE etag = ?3 AND file ="
                   " (SELECT id FROM files WHERE bucket = ?1 AND key = ?2)",
                   &st);
    if (r == 0) {
        bind_name(st, 1, bucket, key);
        bind_text(st, 3, from_etag);
        bind_text(st, 4, to_etag);
        r = write_done(c, st);
    }
    return write_end(c, r);
}

/* ---- facts as text ---- */

static char *text_known(const char *s)
{
    return s[0] ? g_strdup(s) : NULL;
}

static char *int_known(int64_t v)
{
    return v > 0 ? g_strdup_printf("%lld", (long long)v) : NULL;
}

/* At most three decimals, none that says nothing; a point in every locale. */
static char *decimal(double v)
{
    char buf[G_ASCII_DTOSTR_BUF_SIZE + 320];
    g_ascii_formatd(buf, sizeof(buf), "%.3f", v);
    size_t n = strlen(buf);
    while (n > 0 && buf[n - 1] == '0')
        buf[--n] = 0;
    if (n > 0 && buf[n - 1] == '.')
        buf[--n] = 0;
    return g_strdup(buf);
}

int video_fact(const struct video *v, const char *name, char **ret)
{
    char *s = NULL;
    if (!v->is_media)
        return -ENODATA;
    if (strcmp(name, "uuid") == 0)
        s = text_known(v->uuid);
    else if (strcmp(name, "container") == 0)
        s = text_known(v->container);
    else if (strcmp(name, "duration") == 0)
        s = v->duration >= 0 ? decimal(v->duration) : NULL;
    else if (strcmp(name, "bit_rate") == 0)
        s = int_known(v->bit_rate);
    else if (strcmp(name, "codec") == 0)
        s = text_known(v->codec);
    else if (strcmp(name, "width") == 0)
        s = int_known(v->width);
    else if (strcmp(name, "height") == 0)
        s = int_known(v->height);
    else if (strcmp(name, "frame_rate") == 0)
        s = v->frame_rate > 0 ? decimal(v->frame_rate) : NULL;
    else if (strcmp(name, "rotation") == 0)
        s = v->codec[0] ? g_strdup_printf("%d", v->rotation) : NULL;
    else if (strcmp(name, "audio_codec") == 0)
        s = text_known(v->audio_codec);
    else if (strcmp(name, "creation_time") == 0)
        s = text_known(v->creation_time);
    if (!s)
        return -ENODATA;
    *ret = s;
    return 0;
}

bool video_name_is_media(const char *name, const char *content_type)
{
    static const char *const extensions[] = {
        "3g2",  "3gp",  "aac",  "aif",  "aiff", "amr",  "asf", "avi", "caf", "dv",   "f4v",
        "flac", "flv",  "m2t",  "m2ts", "m2v",  "m4a",  "m4v", "mka", "mkv", "mov",  "mp3",
        "mp4",  "mpe",  "mpeg", "mpg",  "mts",  "mxf",  "oga", "ogg", "ogv", "opus", "qt",
        "rm",   "rmvb", "ts",   "vob",  "wav",  "webm", "wma", "wmv", "wv",  "y4m",
    };
    if (content_type && (g_ascii_strncasecmp(content_type, "video/", 6) == 0 ||
                         g_ascii_strncasecmp(content_type, "audio/", 6) == 0))
        return true;
    const char *slash = strrchr(name, '/');
    const char *dot = strrchr(slash ? slash : name, '.');
    if (!dot)
        return false;
    for (size_t i = 0; i < G_N_ELEMENTS(extensions); i++)
        if (strcasecmp(dot + 1, extensions[i]) == 0)
            return true;
    return false;
}
