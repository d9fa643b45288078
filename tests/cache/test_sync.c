/* SPDX-License-Identifier: Apache-2.0
 *
 * test_sync: cache_seal_synced() has the disk keep what was sealed. The system's calls that do that are
 * replaced here by ones that note of which file they were told.
 */
#include <errno.h>
#include <stdio.h>
#include <sys/syscall.h>

#include "tests/cache/world.h"

static struct {
    atomic_bool staged, journal, directory;
    atomic_int fail; /* errno, of fdatasync of staged bytes */
} synced;

static int note(int fd, long call)
{
    g_autofree char *link = g_strdup_printf("/proc/self/fd/%d", fd);
    g_autofree char *path = g_file_read_link(link, NULL);
    bool staged = path && g_str_has_suffix(path, ".staged");
    if (staged && atomic_load(&synced.fail)) {
        errno = atomic_load(&synced.fail);
        return -1;
    }
    if (staged)
        atomic_store(&synced.staged, true);
    else if (path && g_str_has_suffix(path, "-wal"))
        atomic_store(&synced.journal, atomic_load(&synced.staged)); /* not before the bytes that it refers to */
    else if (path && g_file_test(path, G_FILE_TEST_IS_DIR))
        atomic_store(&synced.directory, true);
    return (int)syscall(call, fd);
}

int fsync(int fd)
{
    return note(fd, SYS_fsync);
}

int fdatasync(int fd)
{
    return note(fd, SYS_fdatasync);
}

static void test_sync(void)
{
    struct world *w = plain();
    struct cache_file *f = cache_file_new(w->cache, "b", "k", NULL, w);
    struct cache_handle *h = cache_handle_new(f);
    g_assert_cmpint(cache_write(h, "ours", 4, 0, false, NULL), ==, 0);
    atomic_store(&synced.fail, EIO);
    g_assert_cmpint(cache_seal_synced(h, NULL), ==, -EIO);
    g_assert_false(atomic_load(&synced.journal));
    atomic_store(&synced.fail, 0);
    g_assert_cmpint(cache_seal_synced(h, NULL), ==, -EIO); /* the kernel takes the pages for clean */
    cache_handle_free(h);
    cache_file_unref(f);
    f = cache_file_new(w->cache, "b", "k", NULL, w);
    h = cache_handle_new(f);
    g_assert_cmpint(cache_write(h, "ours", 4, 0, false, NULL), ==, 0);
    atomic_store(&synced.directory, false);
    g_assert_cmpint(cache_seal_synced(h, NULL), ==, 0);
    g_assert_true(atomic_load(&synced.staged));
    g_assert_true(atomic_load(&synced.journal));
    g_assert_true(atomic_load(&synced.directory));
    struct cache_stats st;
    cache_get_stats(w->cache, &st);
    g_assert_cmpuint(st.sealed_files, ==, 1);
    g_assert_cmpuint(count(w, STORE_PUT), ==, 0); /* and the bucket is not asked */
    g_assert_cmpint(flush(h), ==, 0);
    atomic_store(&synced.staged, false);
    g_assert_cmpint(cache_seal_synced(h, NULL), ==, 0);
    g_assert_false(atomic_load(&synced.staged)); /* what is in the bucket is not the disk's */
    cache_handle_free(h);
    cache_file_unref(f);
    world_free(w);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/sync/local", test_sync);
    return g_test_run();
}
