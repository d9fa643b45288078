/* SPDX-License-Identifier: Apache-2.0
 *
 * test_recovered: what was written and not sealed when a process was killed, as drafts in its journal, and as entries in
 * `recovered` after the next one adopted it. The kill is a copy of the journals' directory; the first cache then ends by itself.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "cache/draft.h"
#include "cache/file.h"
#include "cache/recovered.h"
#include "tests/cache/world.h"
#include "tests/lib/seed.h"

struct rig {
    struct world w; /* first */
    char *copy, *recovered;
};

static void shell(const char *format, const char *a, const char *b)
{
    g_autofree char *x = g_shell_quote(a), *y = g_shell_quote(b), *command = g_strdup_printf("%s %s %s", format, x, y);
    int status = -1;
    g_assert_true(g_spawn_command_line_sync(command, NULL, NULL, &status, NULL));
    g_assert_cmpint(status, ==, 0);
}

static void start_on(struct rig *r, const char *dir)
{
    struct cache_params cp = {.store = r->w.store, .dir = dir, .recovered = r->recovered, .origin = "http://server", .bucket = "b", .draft_ns = 1000000,
                              .memory = 32 * MIB, .disk = 160 * MIB, .uploads = 1, .part_size = PART, .committed = world_committed};
    g_assert_cmpint(cache_new(&cp, &r->w.cache), ==, 0);
}

static struct rig *rig_new(void)
{
    struct rig *r = g_new0(struct rig, 1);
    mutex_init(&r->w.lock, RANK_LEAF);
    cond_init(&r->w.changed);
    r->w.dir = g_dir_make_tmp("mlopsfs-recovered-XXXXXX", NULL);
    r->copy = g_strdup_printf("%s.copy", r->w.dir);
    r->recovered = g_strdup_printf("%s.recovered", r->w.dir);
    r->w.fake = r->w.store = fake_store_new(&(struct fake_params){.seed = test_seed(), .hook = world_hooked, .ctx = &r->w});
    start_on(r, r->w.dir);
    return r;
}

static void rig_free(struct rig *r)
{
    cache_free(r->w.cache);
    g_assert_cmpuint(fake_store_uploads(r->w.fake), ==, 0);
    store_free(r->w.store);
    g_assert_cmpint(rmdir(r->copy), ==, 0); /* no journal is left */
    shell("rm -rf", r->recovered, r->w.dir);
    g_free(r->w.dir);
    g_free(r->w.etag);
    g_free(r->copy);
    g_free(r->recovered);
    cond_fini(&r->w.changed);
    mutex_fini(&r->w.lock);
    g_free(r);
}

/* The journal has a draft of what the file is now. */
static void wait_drafted(struct cache_file *f)
{
    mutex_lock(&f->lock);
    while (!(f->drafted && f->drafted_gen == f->gen && !f->recording))
        cond_wait(&f->changed, &f->lock);
    mutex_unlock(&f->lock);
}

static bool take(void *ctx, struct cache_file *f)
{
    g_ptr_array_add(ctx, f);
    return true;
}

static GPtrArray *adopt(struct rig *r, unsigned parked)
{
    GPtrArray *files = g_ptr_array_new();
    start_on(r, r->copy);
    g_assert_cmpint(cache_adopt(r->w.cache, take, files), ==, 0);
    g_assert_cmpuint(cache_parked(r->w.cache), ==, parked);
    for (guint i = 0; i < files->len; i++)
        cache_file_set_owner(files->pdata[i], &r->w);
    return files;
}

/* Kills the first cache, whose file this is, and starts the second. */
static GPtrArray *restart(struct rig *r, struct cache_file *f, struct cache_handle *h, unsigned parked)
{
    shell("cp -r", r->w.dir, r->copy);
    cache_handle_free(h);
    cache_file_unref(f);
    cache_free(r->w.cache);
    return adopt(r, parked);
}

static struct recovered *only_entry(struct rig *r)
{
    g_autoptr(GPtrArray) all = NULL;
    struct recovered *e;
    g_assert_cmpint(recovered_list(r->recovered, &all), ==, 0);
    g_assert_cmpuint(all->len, ==, 1);
    e = all->pdata[0];
    g_assert_cmpint(e->err, ==, 0);
    g_assert_cmpint(recovered_open(r->recovered, e->id, false, &e), ==, 0);
    return e;
}

static void assert_no_entry(struct rig *r)
{
    g_autoptr(GPtrArray) all = NULL;
    g_assert_cmpint(recovered_list(r->recovered, &all), ==, 0);
    g_assert_cmpuint(all->len, ==, 0);
}

static char *save(struct rig *r, const struct recovered *e, int base, struct recovered_report *report)
{
    g_autofree char *path = g_strdup_printf("%s/saved", r->recovered);
    char *got;
    gsize n;
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    g_assert_cmpint(recovered_save(e, r->recovered, fd, base, report), ==, 0);
    close(fd);
    g_assert_true(g_file_get_contents(path, &got, &n, NULL));
    g_assert_cmpuint(n, ==, e->size);
    g_assert_cmpint(unlink(path), ==, 0);
    return got;
}

static void assert_saved(struct rig *r, const struct recovered *e, const uint8_t *all, size_t n)
{
    struct recovered_report report;
    g_autofree char *got = save(r, e, -1, &report);
    g_assert_cmpuint(e->size, ==, n);
    g_assert_true(memcmp(got, all, n) == 0);
    g_assert_cmpuint(report.lost->len + report.base->len, ==, 0);
    recovered_report_clear(&report);
}

static void discard(struct rig *r, struct recovered *e)
{
    g_autofree char *id = g_strdup(e->id);
    recovered_free(e);
    g_assert_cmpint(recovered_open(r->recovered, id, true, &e), ==, 0);
    g_assert_cmpint(recovered_discard(e, r->recovered), ==, 0);
    recovered_free(e);
    g_assert_cmpint(recovered_open(r->recovered, id, true, &e), ==, -ENOENT);
    assert_no_entry(r);
    g_assert_cmpint(rmdir(r->recovered), ==, 0);
    g_assert_cmpint(mkdir(r->recovered, 0700), ==, 0);
}

static uint8_t *scatter(struct cache_handle *h, size_t n)
{
    uint8_t *all = g_malloc(n);
    fill(all, n, n);
    for (size_t end = n; end > 0;) {
        size_t k = MIN(end, 100000);
        end -= k;
        g_assert_cmpint(cache_write(h, all + end, k, end, false, NULL), ==, 0);
    }
    return all;
}

/* ---- unsealed ---- */

static void test_new_file(void)
{
    struct rig *r = rig_new();
    struct cache_file *f = cache_file_new(r->w.cache, "b", "dir/k\n\xff", NULL, &r->w);
    struct cache_handle *h = cache_handle_new(f);
    g_autofree uint8_t *all = scatter(h, 3 * MIB + 5);
    wait_drafted(f);
    g_autoptr(GPtrArray) files = restart(r, f, h, 1);
    g_assert_cmpuint(files->len, ==, 0);
    struct recovered *e = only_entry(r);
    g_assert_cmpstr(e->bucket, ==, "b");
    g_assert_cmpstr(e->key, ==, "dir/k\n\xff");
    g_assert_cmpstr(e->origin, ==, "http://server");
    g_assert_cmpstr(e->why, ==, RECOVERED_UNSEALED);
    g_assert_cmpuint(e->ours, ==, e->size);
    g_assert_null(e->base_etag);
    assert_saved(r, e, all, 3 * MIB + 5);
    discard(r, e);
    rig_free(r);
}

/* What was sealed becomes the object; what came after is offered, with it. */
static void test_after_seal(void)
{
    struct rig *r = rig_new();
    struct cache_file *f = cache_file_new(r->w.cache, "b", "k", NULL, &r->w);
    struct cache_handle *h = cache_handle_new(f);
    g_autofree uint8_t *all = scatter(h, MIB), *then = g_memdup2(all, MIB);
    g_assert_cmpint(cache_seal(h, NULL), ==, 0);
    memcpy(all + 70000, "changed", 7);
    g_assert_cmpint(cache_write(h, "changed", 7, 70000, false, NULL), ==, 0);
    wait_drafted(f);
    g_autoptr(GPtrArray) files = restart(r, f, h, 1);
    g_assert_cmpuint(files->len, ==, 1);
    f = files->pdata[0];
    /* Whatever its staging goes through from here on. */
    g_assert_cmpint(cache_file_flush(f, NULL), ==, 0);
    assert_object(&r->w, "k", then, MIB);
    cache_file_unref(f);
    struct recovered *e = only_entry(r);
    assert_saved(r, e, all, MIB);
    discard(r, e);
    rig_free(r);
}

static void test_edit(void)
{
    enum { N = 700000 };
    struct rig *r = rig_new();
    g_autofree uint8_t *all = g_malloc(N);
    fill(all, N, 3);
    g_free(fake_store_put(r->w.fake, "b", "k", all, N));
    g_autofree char *base_path = g_strdup_printf("%s/base", r->w.dir);
    g_assert_true(g_file_set_contents(base_path, (char *)all, N, NULL));
    int base = open(base_path, O_RDONLY | O_CLOEXEC);
    g_assert_cmpint(unlink(base_path), ==, 0);

    struct cache_file *f = open_object(&r->w, "k");
    struct cache_handle *h = cache_handle_new(f);
    memcpy(all + 300000, "changed", 7);
    g_assert_cmpint(cache_write(h, "changed", 7, 300000, false, NULL), ==, 0);
    wait_drafted(f);
    g_autoptr(GPtrArray) files = restart(r, f, h, 1);
    g_assert_cmpuint(files->len, ==, 0);
    struct recovered *e = only_entry(r);
    g_assert_cmpuint(e->ours, ==, 7);
    g_assert_nonnull(e->base_etag);

    struct recovered_report report;
    g_autofree char *whole = save(r, e, base, &report);
    g_assert_true(memcmp(whole, all, N) == 0);
    g_assert_cmpuint(report.lost->len + report.base->len, ==, 0);
    recovered_report_clear(&report);
    g_autofree char *alone = save(r, e, -1, &report);
    g_assert_true(memcmp(alone + 300000, "changed", 7) == 0);
    g_assert_cmpint(alone[0] | alone[299999] | alone[300007] | alone[N - 1], ==, 0);
    g_assert_cmpuint(report.lost->len, ==, 0);
    g_assert_cmpuint(report.base->len, ==, 2);
    g_assert_cmpuint(g_array_index(report.base, struct recovered_range, 1).off, ==, 300007);
    recovered_report_clear(&report);
    /* A file that cannot be it. */
    g_assert_cmpint(fcntl(base, F_GETFD), >=, 0);
    int short_fd = open("/dev/null", O_RDONLY | O_CLOEXEC), out = open(base_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    g_assert_cmpint(recovered_save(e, r->recovered, out, short_fd, &report), ==, -ENODATA);
    recovered_report_clear(&report);
    close(short_fd);
    close(out);
    close(base);
    discard(r, e);
    rig_free(r);
}

/* What is committed, removed or renamed leaves no draft behind that is not true any more. */
static void test_gone(void)
{
    struct rig *r = rig_new();
    struct cache_stats st;
    struct cache_file *f = cache_file_new(r->w.cache, "b", "k", NULL, &r->w);
    struct cache_handle *h = cache_handle_new(f);
    g_autofree uint8_t *all = scatter(h, 100);
    wait_drafted(f);
    g_assert_cmpint(cache_file_retarget(f, "b", "renamed", NULL, NULL), ==, 0);
    wait_drafted(f);
    cache_get_stats(r->w.cache, &st);
    g_assert_cmpuint(st.drafted_files, ==, 1);
    g_assert_cmpint(flush(h), ==, 0);
    g_assert_cmpint(cache_write(h, "again", 5, 0, false, NULL), ==, 0);
    wait_drafted(f);
    g_assert_cmpint(cache_seal(h, NULL), ==, 0);
    cache_get_stats(r->w.cache, &st);
    g_assert_cmpuint(st.drafted_files, ==, 0);
    g_assert_cmpint(cache_write(h, "third", 5, 0, false, NULL), ==, 0);
    wait_drafted(f);
    g_assert_cmpint(cache_file_orphan(f, false, NULL), ==, 0);
    g_assert_cmpint(cache_file_bury(f), ==, 0);
    cache_get_stats(r->w.cache, &st);
    g_assert_cmpuint(st.drafted_files, ==, 0);
    g_autoptr(GPtrArray) files = restart(r, f, h, 0);
    g_assert_cmpuint(files->len, ==, 0);
    assert_no_entry(r);
    rig_free(r);
    (void)all;
}

static void test_renamed(void)
{
    struct rig *r = rig_new();
    struct cache_file *f = cache_file_new(r->w.cache, "b", "k", NULL, &r->w);
    struct cache_handle *h = cache_handle_new(f);
    g_autofree uint8_t *all = scatter(h, 100);
    wait_drafted(f);
    g_assert_cmpint(cache_file_retarget(f, "b", "renamed", NULL, NULL), ==, 0);
    wait_drafted(f);
    g_ptr_array_unref(restart(r, f, h, 1));
    struct recovered *e = only_entry(r);
    g_assert_cmpstr(e->key, ==, "renamed");
    assert_saved(r, e, all, 100);
    discard(r, e);
    rig_free(r);
}

/* A mount that was killed while it adopted: the next one finds some of it done. */
static void test_twice(void)
{
    struct rig *r = rig_new();
    struct cache_file *f = cache_file_new(r->w.cache, "b", "k", NULL, &r->w);
    struct cache_handle *h = cache_handle_new(f);
    g_autofree uint8_t *all = scatter(h, MIB);
    wait_drafted(f);
    g_autofree char *kept = g_strdup_printf("%s.kept", r->w.dir);
    shell("cp -r", r->w.dir, kept);
    g_ptr_array_unref(restart(r, f, h, 1));
    for (unsigned i = 0; i < 2; i++) {
        struct recovered *e = only_entry(r);
        g_autofree char *entry = g_strdup_printf("%s/%s.entry", r->recovered, e->id);
        recovered_free(e);
        cache_free(r->w.cache);
        shell("rm -rf", r->copy, r->copy);
        shell("cp -r", kept, r->copy);
        if (i == 1) { /* the bytes were moved, and the entry not yet written */
            g_assert_cmpint(unlink(entry), ==, 0);
            g_autofree char *quoted = g_shell_quote(r->copy), *cut = g_strdup_printf("find %s -name *.staged -delete", quoted);
            g_assert_true(g_spawn_command_line_sync(cut, NULL, NULL, NULL, NULL));
        }
        g_autoptr(GPtrArray) again = adopt(r, 1);
        g_assert_cmpuint(again->len, ==, 0);
    }
    shell("rm -rf", kept, kept);
    struct recovered *e = only_entry(r);
    assert_saved(r, e, all, MIB);
    discard(r, e);
    rig_free(r);
}

/* ---- damage ---- */

static void test_damage(void)
{
    struct rig *r = rig_new();
    struct cache_file *f = cache_file_new(r->w.cache, "b", "k", NULL, &r->w);
    struct cache_handle *h = cache_handle_new(f);
    g_autofree uint8_t *all = write_in_order(h, MIB);
    wait_drafted(f);
    g_ptr_array_unref(restart(r, f, h, 1));
    struct recovered *e = only_entry(r);
    g_autofree char *data = g_strdup_printf("%s/%s.data", r->recovered, e->id), *entry = g_strdup_printf("%s/%s.entry", r->recovered, e->id);
    int fd = open(data, O_WRONLY | O_CLOEXEC);
    g_assert_cmpint(pwrite(fd, "damaged", 7, 5), ==, 7);
    g_assert_cmpint(ftruncate(fd, MIB - 10), ==, 0);
    close(fd);
    struct recovered_report report;
    g_autofree char *got = save(r, e, -1, &report);
    g_assert_cmpuint(report.lost->len, ==, 2);
    const struct recovered_range *x = &g_array_index(report.lost, struct recovered_range, 0);
    g_assert_cmpuint(x->off, ==, 0);
    g_assert_cmpuint(x->len, <=, 65536);
    g_assert_true(memcmp(got + x->len, all + x->len, 500000) == 0);
    for (size_t i = 0; i < x->len; i++)
        g_assert_cmpint(got[i], ==, 0);
    recovered_report_clear(&report);

    /* One entry is damaged: it says so, and can be discarded. */
    g_autofree char *id = g_strdup(e->id), *text = NULL;
    recovered_free(e);
    g_assert_true(g_file_get_contents(entry, &text, NULL, NULL));
    g_assert_cmpint(truncate(entry, (off_t)strlen(text) / 2), ==, 0);
    g_autoptr(GPtrArray) all_entries = NULL;
    g_assert_cmpint(recovered_list(r->recovered, &all_entries), ==, 0);
    g_assert_cmpuint(all_entries->len, ==, 1);
    g_assert_cmpint(((struct recovered *)all_entries->pdata[0])->err, ==, -EUCLEAN);
    g_assert_cmpint(recovered_open(r->recovered, id, false, &e), ==, -EUCLEAN);
    g_assert_true(g_file_set_contents(entry, text, -1, NULL));
    g_assert_cmpint(unlink(data), ==, 0);
    g_assert_cmpint(recovered_open(r->recovered, id, false, &e), ==, -ENODATA);
    g_assert_cmpint(recovered_open(r->recovered, "../x", false, &e), ==, -ENOENT);
    g_assert_cmpint(recovered_open(r->recovered, id, true, &e), ==, 0);
    discard(r, e);
    rig_free(r);
}

/* A seal whose bytes are gone. */
static void test_unreadable(void)
{
    struct rig *r = rig_new();
    struct cache_file *f = cache_file_new(r->w.cache, "b", "k", NULL, &r->w);
    struct cache_handle *h = cache_handle_new(f);
    g_autofree uint8_t *all = write_in_order(h, 3 * MIB);
    g_assert_cmpint(cache_seal(h, NULL), ==, 0);
    shell("cp -r", r->w.dir, r->copy);
    cache_handle_free(h);
    cache_file_unref(f);
    cache_free(r->w.cache);
    g_autofree char *quoted = g_shell_quote(r->copy), *cut = g_strdup_printf("find %s -name *.staged -exec truncate -s 2M {} ;", quoted);
    int status = -1;
    g_assert_true(g_spawn_command_line_sync(cut, NULL, NULL, &status, NULL));
    g_assert_cmpint(status, ==, 0);
    g_autoptr(GPtrArray) files = adopt(r, 1);
    g_assert_cmpuint(files->len, ==, 0);
    struct recovered *e = only_entry(r);
    g_assert_cmpstr(e->why, ==, RECOVERED_UNREADABLE);
    struct recovered_report report;
    g_autofree char *got = save(r, e, -1, &report);
    g_assert_true(memcmp(got, all, 2 * MIB) == 0);
    g_assert_cmpuint(report.lost->len, ==, 1);
    g_assert_cmpuint(g_array_index(report.lost, struct recovered_range, 0).off, ==, 2 * MIB);
    recovered_report_clear(&report);
    discard(r, e);
    rig_free(r);
}

/* ---- entries ---- */

static void test_park_and_locks(void)
{
    struct rig *r = rig_new();
    struct cache_file *f = cache_file_new(r->w.cache, "b", "k", NULL, &r->w);
    struct cache_handle *h = cache_handle_new(f);
    g_autofree uint8_t *all = scatter(h, MIB);
    g_assert_cmpint(cache_file_park(f, RECOVERED_CONFLICT), ==, 0);
    struct recovered *e = only_entry(r), *other, *third;
    g_assert_cmpstr(e->why, ==, RECOVERED_CONFLICT);
    g_assert_cmpint(recovered_open(r->recovered, e->id, false, &other), ==, 0);
    g_assert_cmpint(recovered_open(r->recovered, e->id, true, &third), ==, -EWOULDBLOCK);
    recovered_free(other);
    assert_saved(r, e, all, MIB);
    /* The file goes on as if nothing had been. */
    g_assert_cmpint(flush(h), ==, 0);
    assert_object(&r->w, "k", all, MIB);
    discard(r, e);
    g_ptr_array_unref(restart(r, f, h, 0));
    rig_free(r);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/recovered/new-file", test_new_file);
    g_test_add_func("/recovered/after-seal", test_after_seal);
    g_test_add_func("/recovered/edit", test_edit);
    g_test_add_func("/recovered/gone", test_gone);
    g_test_add_func("/recovered/renamed", test_renamed);
    g_test_add_func("/recovered/twice", test_twice);
    g_test_add_func("/recovered/damage", test_damage);
    g_test_add_func("/recovered/unreadable", test_unreadable);
    g_test_add_func("/recovered/park-and-locks", test_park_and_locks);
    return g_test_run();
}
