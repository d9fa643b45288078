/* SPDX-License-Identifier: Apache-2.0
 *
 * fixture: a catalog in a directory of its own, on a disk (a wrapped SQLite VFS) that counts syncs
 * and can fail; and what the catalog's tests ask again and again. One file of tests includes it.
 */
#pragma once
#include "base/log.h"
#include "base/sqlite.h"
#include "catalog/catalog.h"
#include <errno.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

/* ---- a VFS that counts and fails ---- */

static struct {
    sqlite3_vfs vfs, *real;
    /* SQLite has a few tables of methods, by kind of file; each gets a copy of ours. Files are
     * first opened by one thread. */
    struct {
        const sqlite3_io_methods *real;
        sqlite3_io_methods ours;
    } kinds[4];
    int (*sync)(sqlite3_file *f, int flags);
    int (*write)(sqlite3_file *f, const void *p, int n, sqlite3_int64 off);
    atomic_int syncs;
    atomic_int fail; /* SQLite's code for every write; 0 = none */
} disk;

static inline int disk_sync(sqlite3_file *f, int flags)
{
    atomic_fetch_add(&disk.syncs, 1);
    return disk.sync(f, flags);
}

static inline int disk_write(sqlite3_file *f, const void *p, int n, sqlite3_int64 off)
{
    int rc = atomic_load(&disk.fail);
    return rc ? rc : disk.write(f, p, n, off);
}

static inline void disk_wrap(sqlite3_file *f)
{
    size_t i = 0;
    while (i < G_N_ELEMENTS(disk.kinds) && disk.kinds[i].real && disk.kinds[i].real != f->pMethods)
        i++;
    g_assert_cmpuint(i, <, G_N_ELEMENTS(disk.kinds));
    if (!disk.kinds[i].real) {
        g_assert_true(!disk.sync || disk.sync == f->pMethods->xSync);
        disk.sync = f->pMethods->xSync;
        disk.write = f->pMethods->xWrite;
        disk.kinds[i].real = f->pMethods;
        disk.kinds[i].ours = *f->pMethods;
        disk.kinds[i].ours.xSync = disk_sync;
        disk.kinds[i].ours.xWrite = disk_write;
    }
    f->pMethods = &disk.kinds[i].ours;
}

static inline int disk_open(sqlite3_vfs *v, const char *name, sqlite3_file *f, int flags, int *out)
{
    int rc = disk.real->xOpen(disk.real, name, f, flags, out);
    if (rc == SQLITE_OK && f->pMethods)
        disk_wrap(f);
    return rc;
}

static inline void disk_install(void)
{
    disk.real = sqlite3_vfs_find(NULL);
    disk.vfs = *disk.real;
    disk.vfs.zName = "disk";
    disk.vfs.xOpen = disk_open;
    g_assert_cmpint(sqlite3_vfs_register(&disk.vfs, 1), ==, SQLITE_OK);
}

/* ---- fixture ---- */

struct fix {
    char *dir, *path;
    struct catalog *c;
};

static inline void setup(struct fix *f, gconstpointer unused)
{
    f->dir = g_dir_make_tmp("mlopsfs-catalog-XXXXXX", NULL);
    g_assert_nonnull(f->dir);
    f->path = g_build_filename(f->dir, "catalog.db", NULL);
    g_assert_cmpint(catalog_open(f->path, false, &f->c), ==, 0);
}

static inline void teardown(struct fix *f, gconstpointer unused)
{
    catalog_close(f->c);
    GDir *d = g_dir_open(f->dir, 0, NULL);
    const char *name;
    while ((name = g_dir_read_name(d))) {
        g_autofree char *p = g_build_filename(f->dir, name, NULL);
        g_unlink(p);
    }
    g_dir_close(d);
    g_assert_cmpint(g_rmdir(f->dir), ==, 0);
    g_free(f->dir);
    g_free(f->path);
}

static inline void reopen(struct fix *f)
{
    catalog_close(f->c);
    f->c = NULL;
    g_assert_cmpint(catalog_open(f->path, false, &f->c), ==, 0);
}

static inline int set(struct fix *f, const char *key, const char *name, const char *value)
{
    return catalog_xattr_set(f->c, "b", key, name, value, strlen(value), 0);
}

static inline void expect(struct fix *f, const char *bucket, const char *key, const char *name,
                          const char *value)
{
    g_autoptr(GBytes) got = NULL;
    int r = catalog_xattr_get(f->c, bucket, key, name, &got);
    if (!value) {
        g_assert_cmpint(r, ==, -ENODATA);
        return;
    }
    g_assert_cmpint(r, ==, 0);
    gsize n;
    const void *p = g_bytes_get_data(got, &n);
    g_assert_cmpmem(p, n, value, strlen(value));
}

/* ---- an object ---- */

#define MTIME 1234567890123456789

static inline struct store_object object_make(const char *etag, uint64_t size)
{
    struct store_object o = {.etag = g_strdup(etag), .size = size, .mtime_ns = MTIME, .settled = true};
    o.headers.content_type = g_strdup("video/mp4");
    store_headers_set_meta(&o.headers, "mode", "33188");
    store_headers_set_meta(&o.headers, "odd", "");
    store_headers_set_meta(&o.headers, "utf", "h\xc3\xa9 = ;\n");
    return o;
}

static inline void check_object(struct fix *f, const char *key, const char *etag)
{
    _cleanup_object_ struct store_object got = {0};
    g_assert_cmpint(catalog_attrs_get(f->c, "b", key, etag, MTIME, &got), ==, 0);
    g_assert_cmpstr(got.etag, ==, etag);
    g_assert_cmpuint(got.size, ==, 77);
    g_assert_cmpint(got.mtime_ns, ==, MTIME);
    g_assert_true(got.settled);
    g_assert_cmpstr(got.headers.content_type, ==, "video/mp4");
    g_assert_null(got.headers.expires);
    g_assert_null(got.storage_class);
    g_assert_cmpstr(store_headers_get_meta(&got.headers, "mode"), ==, "33188");
    g_assert_cmpstr(store_headers_get_meta(&got.headers, "odd"), ==, "");
    g_assert_cmpstr(store_headers_get_meta(&got.headers, "utf"), ==, "h\xc3\xa9 = ;\n");
    g_assert_cmpuint(g_hash_table_size(got.headers.meta), ==, 3);
}

/* ---- what is in the directory ---- */

static inline int count_damaged(struct fix *f)
{
    int n = 0;
    GDir *d = g_dir_open(f->dir, 0, NULL);
    const char *name;
    while ((name = g_dir_read_name(d)))
        n += strstr(name, ".damaged-") && !g_str_has_suffix(name, "-wal") &&
             !g_str_has_suffix(name, "-shm");
    g_dir_close(d);
    return n;
}
