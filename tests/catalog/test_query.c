/* SPDX-License-Identifier: Apache-2.0
 *
 * catalog_query: every operator on every kind of field, units, patterns, odd keys, stale facts, and
 * what is said about conditions that are none.
 */
#include "base/clock.h"
#include "catalog/catalog.h"
#include <errno.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct fix {
    char *dir, *path;
    struct catalog *c;
};

struct seen {
    GString *keys;
    int stop_after; /* 0 = never */
    struct catalog *c;
};

static int each(void *ctx, const struct query_row *row)
{
    struct seen *s = ctx;
    struct video v;
    /* The callback may ask the catalog. */
    g_assert_cmpint(catalog_video_get(s->c, row->bucket, row->key, "e", &v), ==, 0);
    g_assert_cmpstr(v.uuid, ==, row->video->uuid);
    g_string_append_printf(s->keys, "%s%s:%s", s->keys->len ? " " : "", row->bucket, row->key);
    return s->stop_after && --s->stop_after == 0;
}

static char *run(struct fix *f, const char *const *conds, size_t n)
{
    struct seen s = {.keys = g_string_new(NULL), .c = f->c};
    char *error = NULL;
    int r = catalog_query(f->c, conds, n, each, &s, &error);
    g_assert_cmpstr(error, ==, NULL);
    g_assert_cmpint(r, ==, 0);
    return g_string_free(s.keys, FALSE);
}

static void check(struct fix *f, const char *cond, const char *keys)
{
    g_autofree char *got = run(f, &cond, 1);
    if (strcmp(got, keys) != 0)
        g_test_message("condition %s", cond);
    g_assert_cmpstr(got, ==, keys);
}

static void bad(struct fix *f, const char *cond, const char *says)
{
    const char *conds[] = {"codec=h264", cond};
    char *error = NULL;
    struct seen s = {.keys = g_string_new(NULL), .c = f->c};
    g_assert_cmpint(catalog_query(f->c, conds, 2, each, &s, &error), ==, -EINVAL);
    g_assert_nonnull(error);
    g_assert_cmpuint(s.keys->len, ==, 0);
    if (!strstr(error, says) || !strstr(error, cond))
        g_error("\"%s\" says \"%s\", not \"%s\"", cond, error, says);
    g_free(error);
    g_string_free(s.keys, TRUE);
}

static void put(struct fix *f, const char *bucket, const char *key, uint64_t size, struct video v)
{
    v.is_media = true;
    g_assert_cmpint(catalog_video_put(f->c, bucket, key, "e", size, &v), ==, 0);
}

static void setup(struct fix *f, gconstpointer unused)
{
    f->dir = g_dir_make_tmp("mlopsfs-query-XXXXXX", NULL);
    f->path = g_build_filename(f->dir, "catalog.db", NULL);
    g_assert_cmpint(catalog_open(f->path, false, &f->c), ==, 0);
    put(f, "b", "d/one.mp4", 10 << 20,
        (struct video){.container = "mp4",
                       .duration = 59.94,
                       .bit_rate = 1000000,
                       .codec = "h264",
                       .width = 1920,
                       .height = 1080,
                       .frame_rate = 30000 / 1001.0,
                       .audio_codec = "aac",
                       .creation_time = "2024-05-06T07:08:09.000000Z"});
    put(f, "b", "two.mov", 5000,
        (struct video){.container = "mov",
                       .duration = 5400,
                       .codec = "hevc",
                       .width = 3840,
                       .height = 2160,
                       .frame_rate = 25,
                       .rotation = 90,
                       .creation_time = "2023-01-01T00:00:00.000000Z"});
    put(f, "a", "song [1].mp3", 100,
        (struct video){.container = "mp3", .duration = 180.5, .audio_codec = "mp3"});
    put(f, "b", "\xff\xfe/z\xff.mp4", 1,
        (struct video){.container = "mp4", .duration = -1, .codec = "vp9"});
    struct video none = {.duration = -1};
    g_assert_cmpint(catalog_video_put(f->c, "b", "text.mp4", "e", 9, &none), ==, 0);
}

static void teardown(struct fix *f, gconstpointer unused)
{
    catalog_close(f->c);
    g_unlink(f->path);
    g_assert_cmpint(g_rmdir(f->dir), ==, 0);
    g_free(f->dir);
    g_free(f->path);
}

#define ONE "b:d/one.mp4"
#define TWO "b:two.mov"
#define SONG "a:song [1].mp3"
#define ODD "b:\xff\xfe/z\xff.mp4"

static void test_conditions(struct fix *f, gconstpointer unused)
{
    g_autofree char *all = run(f, NULL, 0);
    g_assert_cmpstr(all, ==, SONG " " ONE " " TWO " " ODD);
    check(f, "codec=h264", ONE);
    check(f, "codec==h264", ONE);
    check(f, "  codec \t=  h264  ", ONE);
    check(f, "codec!=h264", SONG " " TWO " " ODD);
    check(f, "codec=", SONG);
    check(f, "codec=H264", "");
    check(f, "codec~h*4", ONE);
    check(f, "audio_codec=", TWO " " ODD);
    check(f, "duration>60", SONG " " TWO);
    check(f, "duration>=1.5h", TWO);
    check(f, "duration<=1.5H", SONG " " ONE " " TWO);
    check(f, "duration<1m", ONE);
    check(f, "duration=59.94", ONE);
    check(f, "duration=90m", TWO);
    check(f, "duration<0", "");
    check(f, "frame_rate=29.97", ONE);
    check(f, "frame_rate!=29.97", TWO);
    check(f, "width>=1920", ONE " " TWO);
    check(f, "width > 1920", TWO);
    check(f, "height<1081", ONE);
    check(f, "rotation=90", TWO);
    check(f, "rotation=0", ONE " " ODD);
    check(f, "bit_rate>=1e6", ONE);
    check(f, "size>=10M", ONE);
    check(f, "size>10M", "");
    check(f, "size<5K", SONG " " TWO " " ODD);
    check(f, "size>0.5g", "");
    check(f, "size<1T", SONG " " ONE " " TWO " " ODD);
    check(f, "container=mp4", ONE " " ODD);
    check(f, "creation_time>=2024", ONE);
    check(f, "creation_time<2024", TWO);
    check(f, "bucket=a", SONG);
    check(f, "bucket~?", SONG " " ONE " " TWO " " ODD);
    check(f, "uuid=none", "");
}

static void test_name(struct fix *f, gconstpointer unused)
{
    check(f, "name~*.mp4", ONE " " ODD);
    check(f, "name=one.mp4", ONE);
    check(f, "name=d/one.mp4", "");
    check(f, "name=two.mov", TWO);
    check(f, "name=song [1].mp3", SONG);
    check(f, "name~song [[]1].mp3", SONG);
    check(f, "name~*.MP4", "");
    check(f, "name=z\xff.mp4", ODD);
    check(f, "key=d/one.mp4", ONE);
    check(f, "key~d/*", ONE);
    check(f, "key~*/*", ONE " " ODD);
    check(f, "key=\xff\xfe/z\xff.mp4", ODD);
    check(f, "key<s", ONE);
    /* Values stay values. */
    check(f, "name=x' OR 1=1 --", "");
    check(f, "name=\"", "");
    check(f, "codec=h264 AND width=1", "");
}

static void test_many(struct fix *f, gconstpointer unused)
{
    const char *both[] = {"codec != ", "width>=1920", "duration > 60"};
    g_autofree char *got = run(f, both, 3);
    g_assert_cmpstr(got, ==, TWO);
    const char *same[] = {"width=1920", "width=3840"};
    g_autofree char *nothing = run(f, same, 2);
    g_assert_cmpstr(nothing, ==, "");

    char *error = NULL;
    struct seen s = {.keys = g_string_new(NULL), .stop_after = 2, .c = f->c};
    g_assert_cmpint(catalog_query(f->c, NULL, 0, each, &s, &error), ==, 0);
    g_assert_cmpstr(s.keys->str, ==, SONG " " ONE);
    g_string_free(s.keys, TRUE);

    const char *lots[101];
    for (size_t i = 0; i < G_N_ELEMENTS(lots); i++)
        lots[i] = "width>0";
    g_assert_cmpint(catalog_query(f->c, lots, 101, each, &s, &error), ==, -EINVAL);
    g_assert_nonnull(error);
    g_free(error);
    g_autofree char *hundred = run(f, lots, 100);
    g_assert_cmpstr(hundred, ==, ONE " " TWO);
}

static void test_stale(struct fix *f, gconstpointer unused)
{
    struct store_object o = {.etag = g_strdup("e"), .size = 5000};
    g_assert_cmpint(catalog_attrs_put(f->c, "b", "two.mov", &o), ==, 0);
    g_assert_cmpint(catalog_xattr_set(f->c, "b", "x", "user.x", "", 0, 0), ==, 0); /* flushes */
    check(f, "codec=hevc", TWO);
    g_free(o.etag);
    o.etag = g_strdup("newer");
    g_assert_cmpint(catalog_attrs_put(f->c, "b", "two.mov", &o), ==, 0);
    g_assert_cmpint(catalog_xattr_set(f->c, "b", "x", "user.x", "", 0, 0), ==, 0);
    check(f, "codec=hevc", "");
    store_object_clear(&o);
}

static void test_errors(struct fix *f, gconstpointer unused)
{
    bad(f, "", "does not begin with a field: bucket, key, name, size, uuid");
    bad(f, "foo=1", "creation_time");
    bad(f, "Codec=h264", "does not begin with a field");
    bad(f, "=1", "does not begin with a field");
    bad(f, "f.key=1", "does not begin with a field");
    bad(f, "codec", "lacks an operator");
    bad(f, "codec h264", "one of = != < <= > >= ~");
    bad(f, "codec like x", "lacks an operator");
    bad(f, "width~19*", "width is a number");
    bad(f, "width=", "needs a number");
    bad(f, "width=big", "needs a number");
    bad(f, "width=1920px", "needs a number");
    bad(f, "width=10K", "needs a number");
    bad(f, "width=0x10", "needs a number");
    bad(f, "width>inf", "needs a number");
    bad(f, "width>-inf", "needs a number");
    bad(f, "width>nan", "needs a number");
    bad(f, "width>1e999", "needs a number");
    bad(f, "width>-", "needs a number");
    bad(f, "width>e", "needs a number");
    bad(f, "duration>10x", "a number of seconds");
    bad(f, "duration>10mm", "1.5m or 2h");
    bad(f, "duration>1e308h", "a number of seconds");
    bad(f, "size>10MB", "a number of bytes");
    bad(f, "size=>10", "a number of bytes");
}

/* Whatever is asked: rows or a sentence. */
static void test_random(struct fix *f, gconstpointer unused)
{
    static const char *const parts[] = {"codec", "width", "size", "duration", "name", "key", "=",
                                        "!=",    "<",     ">=",   "~",        " ",    "10",  "M",
                                        "h",     "-",     ".",    "e",        "*",    "[",   "'",
                                        "\"",    "?",     ";",    "\xff",     "%s",   "%n",  "("};
    const char *env = getenv("MLOPSFS_SEED");
    uint32_t seed = env ? (uint32_t)strtoul(env, NULL, 0) : (uint32_t)clock_real_ns();
    g_test_message("MLOPSFS_SEED=%u", seed);
    GRand *rand = g_rand_new_with_seed(seed);
    for (int i = 0; i < 1000; i++) {
        g_autoptr(GString) cond = g_string_new(NULL);
        for (int n = g_rand_int_range(rand, 0, 7); n > 0; n--)
            g_string_append(cond, parts[g_rand_int_range(rand, 0, G_N_ELEMENTS(parts))]);
        const char *conds[] = {cond->str};
        struct seen s = {.keys = g_string_new(NULL), .c = f->c};
        char *error = NULL;
        int r = catalog_query(f->c, conds, 1, each, &s, &error);
        if (r != (error ? -EINVAL : 0))
            g_error("\"%s\": %d, %s", cond->str, r, error ? error : "no sentence");
        g_free(error);
        g_string_free(s.keys, TRUE);
    }
    g_rand_free(rand);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
#define ADD(name, fn) g_test_add("/query/" name, struct fix, NULL, setup, fn, teardown)
    ADD("conditions", test_conditions);
    ADD("name", test_name);
    ADD("many", test_many);
    ADD("stale", test_stale);
    ADD("errors", test_errors);
    ADD("random", test_random);
    return g_test_run();
}
