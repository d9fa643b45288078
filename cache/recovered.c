/* SPDX-License-Identifier: Apache-2.0
 *
 * recovered: see recovered.h; recovered_save.c writes contents. No threads of its own, no locks but files'.
 */
#include "cache/recovered.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "cache/extents.h"
#include "cache/journal.h"
#include "cache/journal_pack.h"
#include "cache/recovered_private.h"

#define GROUP "recovered"
#define VERSION 1

char *recovered_path(const char *dir, const char *id, const char *suffix)
{
    return g_strdup_printf("%s/%s%s", dir, id, suffix);
}

static bool is_id(const char *id)
{
    return *id && strspn(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") == strlen(id);
}

/* ---- parking ---- */

static int copy_range(int from, int to, uint64_t off, uint64_t n)
{
    g_autofree char *buf = NULL;
    enum { CHUNK = 1 << 20 };
    while (n > 0) {
        loff_t in = (loff_t)off, out = (loff_t)off;
        ssize_t r = buf ? -1 : copy_file_range(from, &in, to, &out, n, 0);
        if (r < 0 && !buf)
            buf = g_malloc(CHUNK); /* not between these file systems */
        if (r < 0 && (r = pread(from, buf, MIN(n, (uint64_t)CHUNK), (off_t)off)) > 0)
            r = pwrite(to, buf, (size_t)r, (off_t)off);
        if (r < 0)
            return -errno;
        if (r == 0)
            return 0; /* the rest is not there; its sums tell */
        off += (uint64_t)r;
        n -= (uint64_t)r;
    }
    return 0;
}

static int copy_staged(const char *from, const char *to, const struct extents *map)
{
    g_autofree char *temporary = g_strconcat(to, ".part", NULL);
    int in = open(from, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (in < 0)
        return -errno;
    int out = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    int r = out < 0 ? -errno : 0;
    struct extent x;
    for (uint64_t off = 0; r == 0 && extents_next(map, off, &x); off = x.off + x.len)
        if (x.kind == EXTENT_STAGED)
            r = copy_range(in, out, x.src, x.len);
    close(in);
    if (out >= 0)
        close(out);
    if (r == 0 && rename(temporary, to) < 0)
        r = -errno;
    if (r < 0)
        (void)unlink(temporary);
    return r;
}

static int create_empty(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return -errno;
    close(fd);
    return 0;
}

static int put_data(const char *staging, const char *data, bool move, const struct extents *map)
{
    int r = !staging ? -ENOENT : move ? (rename(staging, data) < 0 ? -errno : 0) : copy_staged(staging, data, map);
    if (r == -EXDEV) {
        r = copy_staged(staging, data, map);
        if (r == 0)
            (void)unlink(staging);
    }
    /* Moved before, by who was killed then; or not there at all, which is worth telling, too. */
    return r == -ENOENT ? create_empty(data) : r;
}

/* Keys are any bytes. */
static void set_bytes(GKeyFile *k, const char *name, const char *text)
{
    g_autofree char *escaped = g_uri_escape_bytes((const guint8 *)text, strlen(text), "/");
    g_key_file_set_string(k, GROUP, name, escaped);
}

static void set_blob(GKeyFile *k, const char *name, GBytes *take)
{
    gsize n;
    const void *data = g_bytes_get_data(take, &n);
    g_autofree char *text = g_base64_encode(data ? data : (const guchar *)"", n);
    g_key_file_set_string(k, GROUP, name, text);
    g_bytes_unref(take);
}

static int put_entry(const char *path, const struct journal_seal *s, const char *origin, const char *why)
{
    g_autoptr(GKeyFile) k = g_key_file_new();
    int64_t taken_ns = s->taken_ns ? s->taken_ns : clock_real_ns();
    g_key_file_set_integer(k, GROUP, "version", VERSION);
    g_key_file_set_string(k, GROUP, "why", why);
    set_bytes(k, "origin", origin);
    set_bytes(k, "bucket", s->bucket);
    set_bytes(k, "key", s->key);
    g_key_file_set_int64(k, GROUP, "time", taken_ns / (int64_t)NSEC_PER_SEC);
    g_key_file_set_uint64(k, GROUP, "size", extents_size(s->map));
    if (s->has_base && s->base.etag)
        set_bytes(k, "base", s->base.etag);
    set_blob(k, "map", journal_pack_map(s->map));
    set_blob(k, "sums", journal_pack_sums(s->sums));
    gsize n;
    g_autofree char *text = g_key_file_to_data(k, &n, NULL);
    g_autoptr(GError) error = NULL;
    if (g_file_set_contents_full(path, text, (gssize)n, G_FILE_SET_CONTENTS_CONSISTENT, 0600, &error))
        return 0;
    return g_error_matches(error, G_FILE_ERROR, G_FILE_ERROR_NOSPC) ? -ENOSPC : -EIO;
}

int recovered_park(const char *dir, const char *id, const char *staging, bool move, const struct journal_seal *s, const char *origin,
                   const char *why)
{
    g_autofree char *entry = recovered_path(dir, id, RECOVERED_ENTRY), *data = recovered_path(dir, id, RECOVERED_DATA);
    if (!is_id(id))
        return -EINVAL;
    if (g_mkdir_with_parents(dir, 0700) < 0)
        return -errno;
    if (access(entry, F_OK) == 0)
        return 0;
    int r = put_data(staging, data, move, s->map);
    return r < 0 ? r : put_entry(entry, s, origin, why);
}

/* ---- reading entries ---- */

static char *get_bytes(GKeyFile *k, const char *name)
{
    g_autofree char *text = g_key_file_get_string(k, GROUP, name, NULL);
    g_autoptr(GBytes) bytes = text ? g_uri_unescape_bytes(text, -1, NULL, NULL) : NULL;
    gsize n;
    const char *data = bytes ? g_bytes_get_data(bytes, &n) : NULL;
    return bytes ? g_strndup(data ? data : "", n) : NULL;
}

static guchar *get_blob(GKeyFile *k, const char *name, gsize *ret_n)
{
    g_autofree char *text = g_key_file_get_string(k, GROUP, name, NULL);
    *ret_n = 0;
    return text && *text ? g_base64_decode(text, ret_n) : NULL;
}

static int parse(GKeyFile *k, struct recovered *r)
{
    gsize n_map, n_sums;
    g_autofree guchar *map = get_blob(k, "map", &n_map), *sums = get_blob(k, "sums", &n_sums);
    if (g_key_file_get_integer(k, GROUP, "version", NULL) != VERSION)
        return -EUCLEAN;
    r->origin = get_bytes(k, "origin");
    r->bucket = get_bytes(k, "bucket");
    r->key = get_bytes(k, "key");
    r->why = g_key_file_get_string(k, GROUP, "why", NULL);
    r->base_etag = get_bytes(k, "base");
    r->time_s = g_key_file_get_int64(k, GROUP, "time", NULL);
    if (!r->origin || !r->bucket || !r->key || !r->why)
        return -EUCLEAN;
    int e = journal_unpack_map(map, n_map, &r->map);
    if (e == 0)
        e = journal_unpack_sums(sums, n_sums, &r->sums);
    if (e < 0)
        return e;
    r->size = extents_size(r->map);
    r->ours = extents_bytes(r->map, 0, r->size, EXTENT_STAGED);
    r->elsewhere = extents_bytes(r->map, 0, r->size, EXTENT_PUNCHED);
    return r->size == g_key_file_get_uint64(k, GROUP, "size", NULL) ? 0 : -EUCLEAN;
}

static struct recovered *read_entry(const char *dir, const char *id)
{
    struct recovered *r = g_new0(struct recovered, 1);
    g_autofree char *entry = recovered_path(dir, id, RECOVERED_ENTRY), *data = recovered_path(dir, id, RECOVERED_DATA);
    g_autoptr(GKeyFile) k = g_key_file_new();
    g_autoptr(GError) error = NULL;
    r->id = g_strdup(id);
    r->lock_fd = -1;
    if (g_key_file_load_from_file(k, entry, G_KEY_FILE_NONE, &error))
        r->err = parse(k, r);
    else
        r->err = g_error_matches(error, G_FILE_ERROR, G_FILE_ERROR_NOENT) ? -ENOENT : -EUCLEAN;
    if (r->err == 0 && access(data, R_OK) < 0)
        r->err = errno == ENOENT ? -ENODATA : -errno;
    return r;
}

void recovered_free(struct recovered *r)
{
    if (!r)
        return;
    if (r->lock_fd >= 0)
        close(r->lock_fd);
    g_free(r->id);
    g_free(r->origin);
    g_free(r->bucket);
    g_free(r->key);
    g_free(r->why);
    g_free(r->base_etag);
    extents_free(r->map);
    if (r->sums)
        g_array_unref(r->sums);
    g_free(r);
}

static void free_entry(void *r)
{
    recovered_free(r);
}

static gint by_time(gconstpointer a, gconstpointer b)
{
    const struct recovered *x = *(struct recovered *const *)a, *y = *(struct recovered *const *)b;
    return x->time_s != y->time_s ? (x->time_s < y->time_s ? -1 : 1) : strcmp(x->id, y->id);
}

int recovered_list(const char *dir, GPtrArray **ret)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(GDir) d = g_dir_open(dir, 0, &error);
    const char *name;
    *ret = g_ptr_array_new_with_free_func(free_entry);
    if (!d)
        return g_error_matches(error, G_FILE_ERROR, G_FILE_ERROR_NOENT) ? 0 : -EACCES;
    while ((name = g_dir_read_name(d))) {
        if (!g_str_has_suffix(name, RECOVERED_ENTRY))
            continue;
        g_autofree char *id = g_strndup(name, strlen(name) - strlen(RECOVERED_ENTRY));
        struct recovered *r = read_entry(dir, id);
        if (r->err == -ENOENT) /* discarded meanwhile */
            recovered_free(r);
        else
            g_ptr_array_add(*ret, r);
    }
    g_ptr_array_sort(*ret, by_time);
    return 0;
}

static int lock_entry(const char *dir, const char *id, bool exclusive)
{
    g_autofree char *path = recovered_path(dir, id, RECOVERED_ENTRY);
    struct stat st;
    int r = 0, fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return -errno;
    if (flock(fd, (exclusive ? LOCK_EX : LOCK_SH) | LOCK_NB) < 0 || fstat(fd, &st) < 0)
        r = -errno;
    else if (st.st_nlink == 0) /* removed by who had the lock before */
        r = -ENOENT;
    if (r < 0)
        close(fd);
    return r < 0 ? r : fd;
}

int recovered_open(const char *dir, const char *id, bool exclusive, struct recovered **ret)
{
    *ret = NULL;
    if (!is_id(id))
        return -ENOENT;
    int fd = lock_entry(dir, id, exclusive);
    if (fd < 0)
        return fd;
    struct recovered *r = read_entry(dir, id);
    r->lock_fd = fd;
    if (r->err < 0 && !exclusive) {
        int e = r->err;
        recovered_free(r);
        return e;
    }
    *ret = r;
    return 0;
}

int recovered_discard(const struct recovered *r, const char *dir)
{
    g_autofree char *entry = recovered_path(dir, r->id, RECOVERED_ENTRY), *data = recovered_path(dir, r->id, RECOVERED_DATA);
    if (unlink(data) < 0 && errno != ENOENT)
        return -errno;
    return unlink(entry) < 0 ? -errno : 0;
}
