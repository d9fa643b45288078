/* SPDX-License-Identifier: Apache-2.0
 *
 * inode: the table under lookups, forgets, pins and moves, also by many threads at once; keys and paths; and
 * listings of what a store has.
 */
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "fs/inode.h"
#include "fs/listing.h"
#include "tests/lib/fake_store.h"
#include "tests/lib/seed.h"

static void test_life(void)
{
    struct inode_table *t = inode_table_new(NULL, "bkt", "");
    struct inode *root = inode_root(t), *a = inode_add(root, "a", true), *b = inode_add(a, "b", false);
    uint64_t id_a = a->nodeid, id_b = b->nodeid;

    g_assert_cmpuint(inode_count(t), ==, 3);
    inode_looked_up(b);
    inode_looked_up(b);
    inode_put(b);
    inode_put(a); /* b pins it */
    a = inode_get(t, id_a);
    g_assert_nonnull(a);
    inode_put(a);
    inode_forget(t, id_b, 1);
    b = inode_get(t, id_b);
    g_assert_nonnull(b);
    inode_forget(t, id_b, 1); /* pinned still */
    g_assert_cmpuint(inode_count(t), ==, 3);
    inode_put(b); /* and with it its parent */
    g_assert_cmpuint(inode_count(t), ==, 1);
    g_assert_null(inode_get(t, id_a));
    inode_forget(t, id_b, 7); /* unknown: nothing */
    inode_put(root);
    inode_table_free(t);
}

static void test_replace(void)
{
    struct inode_table *t = inode_table_new(NULL, "bkt", "");
    struct inode *root = inode_root(t), *old = inode_add(root, "f", false), *new = inode_add(root, "f", false), *c;

    g_assert_false(inode_attached(old));
    g_assert_true(inode_attached(new));
    g_assert_cmpuint(old->nodeid, !=, new->nodeid);
    g_assert_cmpuint(old->ino, !=, new->ino); /* both live: they must not look like one file */
    c = inode_child(root, "f");
    g_assert_true(c == new);
    inode_put(c);
    inode_put(old);
    inode_detach(new);
    g_assert_null(inode_child(root, "f"));
    inode_put(new);
    g_assert_cmpuint(inode_count(t), ==, 1);
    inode_put(root);
    inode_table_free(t);
}

static void check_key(struct inode *i, const char *bucket, const char *key)
{
    g_autofree char *b = NULL, *k = NULL;

    g_assert_cmpint(inode_key(i, &b, &k), ==, 0);
    g_assert_cmpstr(b, ==, bucket);
    g_assert_cmpstr(k, ==, key);
}

static void test_keys(void)
{
    struct inode_table *t = inode_table_new(NULL, "bkt", "pre/fix/");
    struct inode *root = inode_root(t), *d = inode_add(root, "d", true), *f = inode_add(d, "f", false), *e = inode_add(root, "e", true);
    g_autofree char *path = inode_path(f), *b = NULL, *k = NULL;

    g_assert_cmpstr(path, ==, "d/f");
    check_key(root, "bkt", "pre/fix/");
    check_key(d, "bkt", "pre/fix/d/");
    check_key(f, "bkt", "pre/fix/d/f");
    inode_move(f, e, "g");
    check_key(f, "bkt", "pre/fix/e/g");
    inode_move(e, d, "x");
    check_key(f, "bkt", "pre/fix/d/x/g");
    g_autofree char *longest = g_strnfill(STORE_KEY_MAX, 'k');
    g_assert_cmpint(inode_child_key(d, longest, false, &b, &k), ==, -ENAMETOOLONG);
    inode_put(f);
    inode_put(e);
    inode_put(d);
    inode_put(root);
    inode_table_free(t);
}

static void test_all_buckets(void)
{
    struct inode_table *t = inode_table_new(NULL, NULL, "");
    struct inode *root = inode_root(t), *bkt = inode_add(root, "videos", true), *f = inode_add(bkt, "f", false);
    g_autofree char *b = NULL, *k = NULL;

    g_assert_true(inode_is_bucket_root(root));
    check_key(root, NULL, "");
    check_key(bkt, "videos", "");
    check_key(f, "videos", "f");
    g_assert_cmpint(inode_child_key(root, "other", true, &b, &k), ==, 0);
    g_assert_null(b);
    g_assert_cmpstr(k, ==, "other");
    inode_put(f);
    inode_put(bkt);
    inode_put(root);
    inode_table_free(t);
}

/* ---- many threads: the kernel's lookups and forgets, ours of pins and moves ---- */

struct hammer {
    struct inode_table *t;
    uint64_t seed;
};

static void *hammer(void *arg)
{
    struct hammer *h = arg;
    struct inode *root = inode_root(h->t);

    for (int n = 0; n < 20000; n++) {
        uint64_t r = test_random(&h->seed);
        char name[16];
        struct inode *i, *j;

        g_snprintf(name, sizeof(name), "%u", (unsigned)(r % 16));
        i = inode_child(root, name);
        if (!i)
            i = inode_add(root, name, true);
        inode_looked_up(i);
        j = inode_add(i, "child", false);
        if (r & 0x100)
            inode_detach(i);
        if (r & 0x200)
            inode_move(j, root, name);
        inode_forget(h->t, i->nodeid, 1);
        inode_put(j);
        inode_put(i);
    }
    inode_put(root);
    return NULL;
}

static void test_threads(void)
{
    uint64_t seed = test_seed();
    struct inode_table *t = inode_table_new(NULL, "bkt", "");
    struct hammer h[4];
    pthread_t th[4];

    for (int n = 0; n < 4; n++) {
        h[n] = (struct hammer){t, seed + (uint64_t)n * 7919};
        g_assert_cmpint(pthread_create(&th[n], NULL, hammer, &h[n]), ==, 0);
    }
    for (int n = 0; n < 4; n++)
        pthread_join(th[n], NULL);
    g_assert_cmpuint(inode_count(t), ==, 1); /* every lookup forgotten, every pin put: nobody is left */
    inode_table_free(t);
}

/* ---- listings ---- */

static void check_entry(struct listing *l, const char *name, bool is_dir, uint64_t size)
{
    struct listing_entry *e = listing_find(l, name);

    g_assert_nonnull(e);
    g_assert_cmpint(e->is_dir, ==, is_dir);
    g_assert_cmpuint(e->size, ==, size);
    listing_entry_free(e);
}

static void test_listing(void)
{
    struct store *s = fake_store_new(&(struct fake_params){.seed = test_seed()});
    static const char *const keys[] = {"d/", "d/a", "d/b/x", "d/b", "d/c-", "d//y", "d/./z", "d/../w", "d/b0", "e"};
    struct listing *l = listing_new();
    bool marker;

    for (size_t n = 0; n < G_N_ELEMENTS(keys); n++)
        g_free(fake_store_put(s, "bkt", keys[n], "12345", 5));
    g_assert_cmpint(listing_load(l, s, "bkt", "d/", 0, NULL, &marker), ==, 0);
    g_assert_true(marker);
    g_autoptr(GPtrArray) all = listing_entries(l);
    g_assert_cmpuint(all->len, ==, 4); /* a, b, b0, c-: what no path can carry is left out */
    check_entry(l, "a", false, 5);
    check_entry(l, "b", true, 0); /* the directory hides the object */
    g_assert_null(listing_find(l, "e"));
    listing_put(l, "new", false, "etag", 7, 0);
    check_entry(l, "new", false, 7);
    listing_remove(l, "a");
    g_assert_null(listing_find(l, "a"));
    listing_unref(l);
    store_free(s);
}

/* What is noted while a listing is loaded is newer than what the replies say. */
static void test_listing_noted(void)
{
    struct store *s = fake_store_new(&(struct fake_params){.seed = test_seed()});
    struct listing *l = listing_new();
    bool marker;

    g_free(fake_store_put(s, "bkt", "d/gone", "12345", 5));
    g_free(fake_store_put(s, "bkt", "d/changed", "12345", 5));
    g_free(fake_store_put(s, "bkt", "d/kept", "12345", 5));
    listing_remove(l, "gone");
    listing_put(l, "changed", false, "etag", 7, 0);
    listing_put(l, "new", false, "etag", 8, 0);
    g_assert_cmpint(listing_load(l, s, "bkt", "d/", 1, NULL, &marker), ==, 0);
    g_assert_null(listing_find(l, "gone"));
    check_entry(l, "changed", false, 7);
    check_entry(l, "new", false, 8);
    check_entry(l, "kept", false, 5);
    listing_unref(l);
    store_free(s);
}

static void test_listing_pages(void)
{
    struct store *s = fake_store_new(&(struct fake_params){.seed = test_seed()});
    struct listing *l = listing_new();
    bool marker;

    for (int n = 0; n < 2500; n++) {
        g_autofree char *key = g_strdup_printf("p/%05d", n);

        g_free(fake_store_put(s, "bkt", key, "", 0));
    }
    g_assert_cmpint(listing_load(l, s, "bkt", "p/", 2, NULL, &marker), ==, -E2BIG);
    listing_unref(l);
    l = listing_new();
    g_assert_cmpint(listing_load(l, s, "bkt", "p/", 0, NULL, &marker), ==, 0);
    g_assert_cmpuint(listing_pages(l), ==, 3);
    g_assert_false(marker);
    g_autoptr(GPtrArray) all = listing_entries(l);
    g_assert_cmpuint(all->len, ==, 2500);
    for (guint n = 1; n < all->len; n++)
        g_assert_cmpstr(((struct listing_entry *)all->pdata[n - 1])->name, <, ((struct listing_entry *)all->pdata[n])->name);
    listing_unref(l);
    store_free(s);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/inode/life", test_life);
    g_test_add_func("/inode/replace", test_replace);
    g_test_add_func("/inode/keys", test_keys);
    g_test_add_func("/inode/all-buckets", test_all_buckets);
    g_test_add_func("/inode/threads", test_threads);
    g_test_add_func("/listing/entries", test_listing);
    g_test_add_func("/listing/entries_noted", test_listing_noted);
    g_test_add_func("/listing/pages", test_listing_pages);
    return g_test_run();
}
