/* SPDX-License-Identifier: Apache-2.0
 *
 * test_staging: reserve, fill, drop, pin and reclaim: bytes that are live or pinned stay what they
 * were, the budget counts what the disk holds, and all of it comes back; the CRC of any of them is
 * that of what came in, and what the disk does to them is found out.
 */
#include <errno.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/budget.h"
#include "base/crc32c.h"
#include "cache/staging.h"
#include "cache/sums.h"
#include "tests/lib/seed.h"

#define PAGE 4096

static char *tmp;

static uint64_t allocated(struct staging *s)
{
    struct stat st;
    g_assert_cmpint(fstat(staging_fd(s), &st), ==, 0);
    return (uint64_t)st.st_blocks * 512;
}

static uint64_t put(struct staging *s, const void *buf, size_t n)
{
    uint64_t off;
    g_assert_cmpint(staging_reserve(s, n, &off), ==, 0);
    g_assert_cmpint(staging_fill(s, off, off, buf, n), ==, 0);
    return off;
}

static void test_budget(void)
{
    struct budget *b = budget_new(4 * PAGE);
    struct staging *s;
    char page[PAGE] = {1};
    uint64_t off;
    g_assert_cmpint(staging_new(tmp, b, &s), ==, 0);
    g_assert_cmpint(staging_reserve(s, 5 * PAGE, &off), ==, -EMSGSIZE);
    for (int i = 0; i < 4; i++)
        g_assert_cmpuint(put(s, page, PAGE), ==, (uint64_t)i * PAGE);
    g_assert_cmpint(staging_reserve(s, 1, &off), ==, -EAGAIN);
    g_assert_cmpuint(budget_used(b), ==, 4 * PAGE);

    /* Two halves of pages 1 and 2 free nothing, the halves between them one page. */
    staging_drop(s, PAGE / 2, PAGE);
    g_assert_cmpuint(staging_reclaim(s), ==, 0);
    staging_drop(s, 3 * PAGE / 2, PAGE / 2);
    g_assert_cmpuint(staging_reclaim(s), ==, PAGE);
    g_assert_cmpuint(budget_used(b), ==, 3 * PAGE);
    g_assert_cmpuint(allocated(s), ==, 3 * PAGE);
    g_assert_cmpuint(put(s, page, 10), ==, 4 * PAGE);
    staging_unref(s);
    g_assert_cmpuint(budget_used(b), ==, 0);
    budget_free(b);
}

static void test_pin(void)
{
    struct budget *b = budget_new(1 << 20);
    struct staging *s;
    struct staging_pin one, two;
    char page[PAGE], got[PAGE];
    memset(page, 7, sizeof(page));
    g_assert_cmpint(staging_new(tmp, b, &s), ==, 0);
    uint64_t off = put(s, page, PAGE), later = put(s, page, PAGE);
    staging_pin(s, &one);
    staging_drop(s, off, PAGE);
    staging_pin(s, &two); /* came after the drop: does not hold it */
    g_assert_cmpuint(staging_reclaim(s), ==, 0);
    g_assert_cmpint(staging_read(s, off, got, PAGE), ==, 0);
    g_assert_cmpmem(got, PAGE, page, PAGE);
    staging_drop(s, later, PAGE);
    staging_unpin(&one);
    g_assert_cmpuint(staging_reclaim(s), ==, PAGE);
    staging_unref(s); /* the pin holds the file */
    g_assert_cmpint(staging_read(two.s, later, got, PAGE), ==, 0);
    g_assert_cmpmem(got, PAGE, page, PAGE);
    staging_unpin(&two);
    staging_unpin(&two); /* no-op */
    g_assert_cmpuint(budget_used(b), ==, 0);
    budget_free(b);
}

struct piece {
    uint64_t off;
    size_t n;
    uint8_t fill;
};

static void check_piece(struct staging *s, const struct piece *p)
{
    g_autofree uint8_t *buf = g_malloc(p->n);
    g_assert_cmpint(staging_read(s, p->off, buf, p->n), ==, 0);
    for (size_t i = 0; i < p->n; i++)
        g_assert_cmpuint(buf[i], ==, p->fill);
    size_t from = p->n / 3 * (p->fill % 3), n = (p->n - from) >> (p->fill % 2);
    uint32_t crc;
    g_assert_cmpint(staging_crc(s, p->off + from, n, &crc), ==, 0);
    g_assert_cmphex(crc, ==, crc32c(0, buf + from, n));
}

static void test_many(void)
{
    GRand *rand = g_rand_new_with_seed((guint32)test_seed());
    struct budget *b = budget_new(8 << 20);
    struct staging *s;
    g_assert_cmpint(staging_new(tmp, b, &s), ==, 0);
    GArray *live = g_array_new(FALSE, FALSE, sizeof(struct piece));
    uint64_t bytes = 0;
    for (int step = 0; step < 3000; step++) {
        struct piece p = {.n = (size_t)g_rand_int_range(rand, 1, 20000),
                          .fill = (uint8_t)g_rand_int(rand)};
        int r = staging_reserve(s, p.n, &p.off);
        if (r == 0) {
            g_autofree uint8_t *buf = g_malloc(p.n);
            memset(buf, p.fill, p.n);
            g_assert_cmpint(staging_fill(s, p.off, p.off, buf, p.n), ==, 0);
            g_array_append_val(live, p);
            bytes += p.n;
        }
        if (live->len > 0 && (r < 0 || g_rand_int_range(rand, 0, 3) > 0)) {
            guint i = (guint)g_rand_int_range(rand, 0, (gint32)live->len);
            struct piece *q = &g_array_index(live, struct piece, i);
            check_piece(s, q);
            staging_drop(s, q->off, q->n);
            bytes -= q->n;
            g_array_remove_index_fast(live, i);
        }
        if (staging_wants_reclaim(s) || r < 0)
            staging_reclaim(s);
        g_assert_cmpuint(staging_live(s), ==, bytes);
        g_assert_cmpuint(staging_charged(s), ==, budget_used(b));
        g_assert_cmpuint(budget_used(b), >=, bytes);
    }
    for (guint i = 0; i < live->len; i++)
        check_piece(s, &g_array_index(live, struct piece, i));
    for (guint i = 0; i < live->len; i++) {
        struct piece *q = &g_array_index(live, struct piece, i);
        staging_drop(s, q->off, q->n);
    }
    staging_reclaim(s);
    g_assert_cmpuint(budget_used(b), <=, PAGE); /* the page at the end is not whole */
    g_assert_cmpuint(allocated(s), <=, PAGE);
    g_array_unref(live);
    staging_unref(s);
    g_assert_cmpuint(budget_used(b), ==, 0);
    budget_free(b);
    g_rand_free(rand);
}

/* Any range, however it was filled: in pieces of all sizes, in one file or in several places. */
static void test_crc(void)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed((guint32)test_seed());
    struct budget *b = budget_new(64 << 20);
    struct staging *s;
    g_autoptr(GByteArray) all = g_byte_array_new();
    g_assert_cmpint(staging_new(tmp, b, &s), ==, 0);
    for (uint64_t at = 0; all->len < 6 << 20;) {
        size_t n = (size_t)g_rand_int_range(rand, 1, g_rand_boolean(rand) ? 5000 : 2 << 20);
        g_autofree uint8_t *buf = g_malloc(n);
        for (size_t i = 0; i < n; i++)
            buf[i] = (uint8_t)(i * 7 + all->len / 3);
        uint64_t off;
        g_assert_cmpint(staging_reserve(s, n, &off), ==, 0);
        g_assert_cmpint(staging_fill(s, off, at, buf, n), ==, 0);
        g_byte_array_append(all, buf, (guint)n);
        at = g_rand_int_range(rand, 0, 4) ? at + n : g_rand_int(rand);
    }
    for (int i = 0; i < 500; i++) {
        uint64_t off = (uint64_t)g_rand_int_range(rand, 0, (gint32)all->len);
        uint64_t n = (uint64_t)g_rand_int_range(rand, 0, (gint32)(all->len - off) + 1);
        uint32_t crc;
        if (i % 3 == 0)
            n = MIN(n, 9000);
        g_assert_cmpint(staging_crc(s, off, n, &crc), ==, 0);
        g_assert_cmphex(crc, ==, crc32c(0, all->data + off, n));
    }
    staging_unref(s);
    budget_free(b);
}

static void flip(struct staging *s, uint64_t off)
{
    uint8_t c;
    g_assert_cmpint(pread(staging_fd(s), &c, 1, (off_t)off), ==, 1);
    c ^= 1;
    g_assert_cmpint(pwrite(staging_fd(s), &c, 1, (off_t)off), ==, 1);
}

/* A byte that the disk has changed is never vouched for, neither by what shares a run with it nor
 * by what remains of the run; whoever asks for the whole run is told what it was. */
static void test_damage(void)
{
    struct budget *b = budget_new(1 << 20);
    struct staging *s;
    g_autofree uint8_t *buf = g_malloc0(40000);
    uint32_t crc;
    g_assert_cmpint(staging_new(tmp, b, &s), ==, 0);
    uint64_t off = put(s, buf, 40000);
    flip(s, off + 20000);
    g_assert_cmpint(staging_crc(s, off, 40000, &crc), ==, 0);
    g_assert_cmphex(crc, ==, crc32c(0, buf, 40000));
    g_assert_cmpint(staging_crc(s, off, 39999, &crc), ==, -EIO);
    g_assert_cmpint(staging_crc(s, off + 30000, 10, &crc), ==, -EIO);
    staging_drop(s, off, PAGE); /* the rest has no CRC of its own but that */
    g_assert_cmpuint(staging_reclaim(s), ==, PAGE);
    g_assert_cmpint(staging_crc(s, off + PAGE, 40000 - PAGE, &crc), ==, -EIO);
    flip(s, off + 20000);
    g_assert_cmpint(staging_crc(s, off + PAGE, 40000 - PAGE, &crc), ==, -EIO);

    off = put(s, buf, 40000); /* and others are not touched by it */
    staging_drop(s, off + 10000, 20000);
    staging_reclaim(s);
    g_assert_cmpint(staging_crc(s, off, 10000, &crc), ==, 0);
    g_assert_cmphex(crc, ==, crc32c(0, buf, 10000));
    g_assert_cmpint(staging_crc(s, off + 30001, 9000, &crc), ==, 0);
    g_assert_cmphex(crc, ==, crc32c(0, buf, 9000));
    g_assert_cmpint(staging_crc(s, off + 9999, 2, &crc), ==, -EIO); /* dropped */
    staging_unref(s);
    budget_free(b);
}

/* A file of an earlier process: its CRCs come from a record. */
static void test_restore(void)
{
    struct budget *b = budget_new(8 << 20);
    struct staging *s, *again;
    g_autofree uint8_t *buf = g_malloc(3 << 20);
    g_autofree char *path = g_build_filename(tmp, "named", NULL);
    g_autoptr(GArray) runs = g_array_new(FALSE, FALSE, sizeof(struct sum));
    uint64_t off;
    uint32_t crc;
    memset(buf, 9, 3 << 20);
    g_assert_cmpint(staging_create(path, b, &s), ==, 0);
    put(s, buf, 1000);
    off = put(s, buf, 3 << 20);
    g_assert_cmpint(staging_sums(s, off + 10, 2 << 20, runs), ==, 0);
    staging_keep(s, true);
    staging_unref(s);
    g_assert_cmpuint(budget_used(b), ==, 0);

    g_assert_cmpint(staging_open(path, b, &again), ==, 0);
    g_assert_cmpuint(staging_end(again), ==, (3 << 20) + 1000);
    g_assert_cmpuint(budget_used(b), ==, (3 << 20) + 4096);
    g_assert_cmpint(staging_crc(again, off + 10, 5, &crc), ==, -EIO);
    staging_restore(again, (const struct sum *)(const void *)runs->data, runs->len);
    g_assert_cmpint(staging_crc(again, off + 500, 1 << 20, &crc), ==, 0);
    g_assert_cmphex(crc, ==, crc32c(0, buf, 1 << 20));
    g_assert_cmpint(staging_verify(again, off + 10, 2 << 20), ==, 0);
    g_assert_cmpint(staging_crc(again, off, 5, &crc), ==, -EIO); /* was not recorded */
    g_assert_cmpint(staging_crc(again, off + 10 + (2 << 20), 1, &crc), ==, -EIO);
    g_assert_cmpint(pwrite(staging_fd(again), "x", 1, (off_t)off + 5000), ==, 1);
    g_assert_cmpint(staging_verify(again, off + 10, 2 << 20), ==, -EIO);
    staging_unref(again);
    g_assert_cmpint(access(path, F_OK), ==, -1); /* not kept this time */
    g_assert_cmpint(staging_open(path, b, &again), ==, -ENOENT);
    g_assert_cmpuint(budget_used(b), ==, 0);
    budget_free(b);
}

static unsigned files_in(const char *dir)
{
    unsigned n = 0;
    g_autoptr(GDir) d = g_dir_open(dir, 0, NULL);
    while (g_dir_read_name(d))
        n++;
    return n;
}

/* The file of a staging that ended is another's, empty, unless it is kept or there are enough. */
static void test_spares(void)
{
    struct budget *b = budget_new(1 << 20);
    struct staging_spares *sp = staging_spares_new(1);
    struct staging *s[3];
    uint64_t number;
    char buf[8];
    g_autofree char *dir = g_build_filename(tmp, "spares", NULL);
    g_assert_cmpint(g_mkdir(dir, 0700), ==, 0);
    g_assert_cmpint(staging_spares_take(sp, b, &s[0], &number), ==, -ENOENT);
    for (unsigned i = 0; i < 3; i++) {
        g_autofree char *path = g_strdup_printf("%s/%u", dir, i + 1);
        g_assert_cmpint(staging_create(path, b, &s[i]), ==, 0);
        staging_reuse(s[i], sp, i + 1);
        put(s[i], "content", 8);
    }
    staging_keep(s[0], true);
    staging_unref(s[0]);
    g_assert_cmpint(staging_spares_take(sp, b, &s[0], &number), ==, -ENOENT);
    staging_unref(s[1]);
    staging_unref(s[2]); /* one too many */
    g_assert_cmpuint(files_in(dir), ==, 2);
    g_assert_cmpuint(budget_used(b), ==, 0);
    g_assert_cmpint(staging_spares_take(sp, b, &s[0], &number), ==, 0);
    g_assert_cmpuint(number, ==, 2);
    g_assert_cmpuint(staging_end(s[0]), ==, 0);
    g_assert_cmpuint(allocated(s[0]), ==, 0);
    uint64_t off = put(s[0], "another", 8);
    g_assert_cmpint(staging_read(s[0], off, buf, 8), ==, 0);
    g_assert_cmpstr(buf, ==, "another");
    staging_reuse(s[0], sp, number);
    staging_unref(s[0]);
    staging_spares_free(sp);
    g_assert_cmpuint(files_in(dir), ==, 1); /* what was kept */
    g_autofree char *kept = g_build_filename(dir, "1", NULL);
    g_assert_cmpint(g_unlink(kept), ==, 0);
    g_assert_cmpint(g_rmdir(dir), ==, 0);
    budget_free(b);
}

static void test_errors(void)
{
    struct budget *b = budget_new(1 << 20);
    struct staging *s;
    char c;
    g_assert_cmpint(staging_new("/nowhere/at/all", b, &s), ==, -ENOENT);
    g_assert_cmpint(staging_new(tmp, b, &s), ==, 0);
    g_assert_cmpint(staging_read(s, 0, &c, 1), ==, -EIO);
    staging_unref(s);
    budget_free(b);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    tmp = g_dir_make_tmp("mlopsfs-staging-XXXXXX", NULL);
    g_test_add_func("/staging/budget", test_budget);
    g_test_add_func("/staging/pin", test_pin);
    g_test_add_func("/staging/many", test_many);
    g_test_add_func("/staging/crc", test_crc);
    g_test_add_func("/staging/damage", test_damage);
    g_test_add_func("/staging/restore", test_restore);
    g_test_add_func("/staging/spares", test_spares);
    g_test_add_func("/staging/errors", test_errors);
    int r = g_test_run();
    g_assert_cmpint(g_rmdir(tmp), ==, 0); /* nothing with a name was left */
    g_free(tmp);
    return r;
}
