/* SPDX-License-Identifier: Apache-2.0
 *
 * attr: see attr.h. The formats are those of s3fs-fuse (doc/ "x-amz-meta-" headers), so that both can
 * mount one bucket. No state, no locks.
 */
#include "fs/attr.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

static bool parse_u64(const char *s, uint64_t max, uint64_t *ret)
{
    char *end = NULL;
    guint64 v;

    if (!s || !g_ascii_isdigit(s[0]))
        return false;
    errno = 0;
    v = g_ascii_strtoull(s, &end, 10);
    if (errno || *end || v > max)
        return false;
    *ret = v;
    return true;
}

/* "1700000000", "1700000000.5", "-1.000000001": seconds with up to nine decimals. */
static bool parse_time(const char *s, int64_t *ret_ns)
{
    char *end = NULL;
    gint64 sec;
    int64_t frac = 0;

    if (!s || !(g_ascii_isdigit(s[0]) || (s[0] == '-' && g_ascii_isdigit(s[1]))))
        return false;
    errno = 0;
    sec = g_ascii_strtoll(s, &end, 10);
    if (errno || sec > INT64_MAX / (int64_t)NSEC_PER_SEC - 1 || sec < INT64_MIN / (int64_t)NSEC_PER_SEC + 1)
        return false;
    if (*end == '.') {
        int64_t unit = NSEC_PER_SEC / 10;

        for (end++; g_ascii_isdigit(*end); end++, unit /= 10)
            frac += unit * (*end - '0');
    }
    if (*end)
        return false;
    *ret_ns = sec * (int64_t)NSEC_PER_SEC + frac;
    return true;
}

void attr_default(struct attr *a, bool is_dir, int64_t now_ns, const struct attr_defaults *d)
{
    *a = (struct attr){
        .mode = is_dir ? (S_IFDIR | d->dmode) : (S_IFREG | d->fmode),
        .uid = d->uid,
        .gid = d->gid,
        .mtime_ns = now_ns,
        .atime_ns = now_ns,
        .ctime_ns = now_ns,
    };
}

void attr_from_object(struct attr *a, const struct store_object *o, bool is_dir, const struct attr_defaults *d)
{
    const struct store_headers *h = &o->headers;
    uint64_t v;

    attr_default(a, is_dir, o->mtime_ns, d);
    a->size = is_dir ? 0 : o->size;
    if (parse_u64(store_headers_get_meta(h, "mode"), 0177777, &v)) {
        mode_t type = (mode_t)v & S_IFMT;

        if (is_dir)
            type = S_IFDIR;
        else if (type != S_IFLNK && type != S_IFIFO && type != S_IFSOCK)
            type = S_IFREG; /* a lying directory or device bit must not turn a body into something else */
        a->mode = type | ((mode_t)v & 07777);
    }
    if (parse_u64(store_headers_get_meta(h, "uid"), UINT32_MAX - 1, &v))
        a->uid = (uid_t)v;
    if (parse_u64(store_headers_get_meta(h, "gid"), UINT32_MAX - 1, &v))
        a->gid = (gid_t)v;
    if (parse_time(store_headers_get_meta(h, "mtime"), &a->mtime_ns))
        a->atime_ns = a->ctime_ns = a->mtime_ns;
    (void)parse_time(store_headers_get_meta(h, "atime"), &a->atime_ns);
    (void)parse_time(store_headers_get_meta(h, "ctime"), &a->ctime_ns);
}

static void set_time(struct store_headers *h, const char *name, int64_t ns)
{
    struct timespec ts = clock_timespec(ns);
    char text[48];

    if (ns < 0 && ts.tv_nsec) /* "-1.5" would read as -1 + .5: round to the second */
        ts.tv_nsec = 0;
    if (ts.tv_nsec)
        g_snprintf(text, sizeof(text), "%lld.%09ld", (long long)ts.tv_sec, ts.tv_nsec);
    else
        g_snprintf(text, sizeof(text), "%lld", (long long)ts.tv_sec);
    store_headers_set_meta(h, name, text);
}

void attr_to_headers(const struct attr *a, struct store_headers *h)
{
    char text[24];

    g_snprintf(text, sizeof(text), "%u", (unsigned)a->mode);
    store_headers_set_meta(h, "mode", text);
    g_snprintf(text, sizeof(text), "%u", (unsigned)a->uid);
    store_headers_set_meta(h, "uid", text);
    g_snprintf(text, sizeof(text), "%u", (unsigned)a->gid);
    store_headers_set_meta(h, "gid", text);
    set_time(h, "mtime", a->mtime_ns);
    set_time(h, "atime", a->atime_ns);
    set_time(h, "ctime", a->ctime_ns);
}

const char *attr_content_type(const char *name)
{
    static const struct {
        const char *ext, *type;
    } types[] = {
        {"mp4", "video/mp4"},        {"m4v", "video/mp4"},          {"mov", "video/quicktime"},
        {"mkv", "video/x-matroska"}, {"webm", "video/webm"},        {"ts", "video/mp2t"},
        {"m2ts", "video/mp2t"},      {"mpg", "video/mpeg"},         {"mpeg", "video/mpeg"},
        {"avi", "video/x-msvideo"},  {"wmv", "video/x-ms-wmv"},     {"flv", "video/x-flv"},
        {"3gp", "video/3gpp"},       {"ogv", "video/ogg"},          {"mxf", "application/mxf"},
        {"mp3", "audio/mpeg"},       {"m4a", "audio/mp4"},          {"aac", "audio/aac"},
        {"flac", "audio/flac"},      {"wav", "audio/wav"},          {"ogg", "audio/ogg"},
        {"opus", "audio/ogg"},       {"jpg", "image/jpeg"},         {"jpeg", "image/jpeg"},
        {"png", "image/png"},        {"gif", "image/gif"},          {"webp", "image/webp"},
        {"tif", "image/tiff"},       {"tiff", "image/tiff"},        {"svg", "image/svg+xml"},
        {"txt", "text/plain"},       {"md", "text/markdown"},       {"csv", "text/csv"},
        {"html", "text/html"},       {"css", "text/css"},           {"js", "text/javascript"},
        {"json", "application/json"},{"xml", "application/xml"},    {"pdf", "application/pdf"},
        {"zip", "application/zip"},  {"gz", "application/gzip"},    {"tar", "application/x-tar"},
    };
    const char *dot = strrchr(name, '.');

    if (dot && dot != name)
        for (size_t i = 0; i < G_N_ELEMENTS(types); i++)
            if (!g_ascii_strcasecmp(dot + 1, types[i].ext))
                return types[i].type;
    return "application/octet-stream";
}

void attr_to_stat(const struct attr *a, uint64_t ino, struct stat *ret)
{
    *ret = (struct stat){
        .st_ino = ino,
        .st_mode = a->mode,
        .st_nlink = S_ISDIR(a->mode) ? 2 : 1,
        .st_uid = a->uid,
        .st_gid = a->gid,
        .st_size = (off_t)a->size,
        .st_blksize = 128 << 10,
        .st_blocks = (blkcnt_t)((a->size + 511) / 512),
        .st_atim = clock_timespec(a->atime_ns),
        .st_mtim = clock_timespec(a->mtime_ns),
        .st_ctim = clock_timespec(a->ctime_ns),
    };
}
