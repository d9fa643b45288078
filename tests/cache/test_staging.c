/* SPDX-License-Identifier: Apache-2.0
 *
 * test_staging: reserve, fill, drop, pin and reclaim: bytes that are live or pinned stay what they
 * were, the budget counts what the disk holds, and all of it comes back.
 */
#include <errno.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/budget.h"
#include "cache/staging.h"
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
    g_assert_cmpint(staging_fill(s, off, buf, n), ==, 0);
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
            g_assert_cmpint(staging_fill(s, p.off, buf, p.n), ==, 0);
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
    g_test_add_func("/staging/errors", test_errors);
    int r = g_test_run();
    g_assert_cmpint(g_rmdir(tmp), ==, 0); /* nothing with a name was left */
    g_free(tmp);
    return r;
}
