/* SPDX-License-Identifier: Apache-2.0
 *
 * The catalog: attributes, xattrs, facts, names.
 */
#include "base/clock.h"
#include "tests/catalog/fixture.h"

/* ---- attributes ---- */

static void test_attrs(struct fix *f, gconstpointer unused)
{
    struct store_object none = {0};
    g_assert_cmpint(catalog_attrs_get(f->c, "b", "k", "e1", MTIME, &none), ==, -ENOENT);
    _cleanup_object_ struct store_object a = object_make("e1", 77), b = object_make("e2", 77);
    g_assert_cmpint(catalog_attrs_put(f->c, "b", "k", &a), ==, 0);
    check_object(f, "k", "e1");
    /* A newer version takes its place, in memory … */
    g_assert_cmpint(catalog_attrs_put(f->c, "b", "k", &b), ==, 0);
    g_assert_cmpint(catalog_attrs_get(f->c, "b", "k", "e1", MTIME, &none), ==, -ENOENT);
    check_object(f, "k", "e2");
    g_assert_cmpint(catalog_attrs_get(f->c, "c", "k", "e2", MTIME, &none), ==, -ENOENT);
    /* … and on disk, where closing has brought it. */
    reopen(f);
    check_object(f, "k", "e2");
    g_assert_cmpint(catalog_attrs_get(f->c, "b", "k", "e1", MTIME, &none), ==, -ENOENT);
    g_assert_cmpint(catalog_attrs_put(f->c, "b", "k", &a), ==, 0);
    g_assert_cmpint(catalog_attrs_get(f->c, "b", "k", "e2", MTIME, &none), ==, -ENOENT);
    reopen(f);
    check_object(f, "k", "e1");

    struct store_object no_etag = {.size = 1};
    g_assert_cmpint(catalog_attrs_put(f->c, "b", "k", &no_etag), ==, -EINVAL);
}

static bool known(struct fix *f, int64_t mtime_ns)
{
    _cleanup_object_ struct store_object got = {0};
    return catalog_attrs_get(f->c, "b", "k", "e", mtime_ns, &got) == 0;
}

/* Other headers on the same bytes: the ETag stays, the date tells. HEAD has whole seconds, LIST may have more. */
static void test_attrs_date(struct fix *f, gconstpointer unused)
{
    const int64_t sec = 1000000000, t = 1234567890 * sec;
    for (int closed = 0; closed < 2; closed++) {
        static const int64_t later[] = {0, 250000000, 999999999};
        _cleanup_object_ struct store_object o = object_make("e", 77);
        o.mtime_ns = t;
        g_assert_cmpint(catalog_attrs_put(f->c, "b", "k", &o), ==, 0);
        if (closed)
            reopen(f);
        for (size_t i = 0; i < G_N_ELEMENTS(later); i++)
            g_assert_true(known(f, t + later[i]));
        g_assert_false(known(f, t + sec));
        g_assert_false(known(f, t - 1));
        g_assert_false(known(f, 0));

        o.mtime_ns = t + 250000000; /* both sides know parts of a second: they must be the same */
        g_assert_cmpint(catalog_attrs_put(f->c, "b", "k", &o), ==, 0);
        if (closed)
            reopen(f);
        g_assert_true(known(f, t + 250000000));
        g_assert_true(known(f, t));
        g_assert_false(known(f, t + 250000001));

        o.settled = false; /* the second is not over, or the date is our own guess */
        g_assert_cmpint(catalog_attrs_put(f->c, "b", "k", &o), ==, 0);
        if (closed)
            reopen(f);
        g_assert_false(known(f, t + 250000000));
        g_assert_false(known(f, 0));
    }
}

static void test_attrs_many(struct fix *f, gconstpointer unused)
{
    enum { N = 5000 };
    _cleanup_object_ struct store_object o = object_make("e", 77);
    int syncs = atomic_load(&disk.syncs);
    uint64_t start = clock_mono_ns();
    for (int i = 0; i < N; i++) {
        g_autofree char *key = g_strdup_printf("dir/%05d.mp4", i);
        g_assert_cmpint(catalog_attrs_put(f->c, "b", key, &o), ==, 0);
    }
    double seconds = (double)(clock_mono_ns() - start) / 1e9;
    g_test_message("%d puts, %.0f per second, %d syncs", N, N / seconds,
                   atomic_load(&disk.syncs) - syncs);
    /* Batches and a checkpoint now and then; nothing near one per put. */
    g_assert_cmpint(atomic_load(&disk.syncs) - syncs, <, N / 50);
    for (int i = 0; i < N; i += 97) {
        g_autofree char *key = g_strdup_printf("dir/%05d.mp4", i);
        check_object(f, key, "e");
    }
    reopen(f);
    check_object(f, "dir/00000.mp4", "e");
    check_object(f, "dir/04999.mp4", "e");
}

/* ---- extended attributes ---- */

static void test_xattrs(struct fix *f, gconstpointer unused)
{
    struct catalog *c = f->c;
    expect(f, "b", "k", "user.a", NULL);
    g_assert_cmpint(catalog_xattr_set(c, "b", "k", "user.a", "1", 1, XATTR_REPLACE), ==, -ENODATA);
    g_assert_cmpint(catalog_xattr_set(c, "b", "k", "user.a", "1", 1, XATTR_CREATE), ==, 0);
    g_assert_cmpint(catalog_xattr_set(c, "b", "k", "user.a", "2", 1, XATTR_CREATE), ==, -EEXIST);
    expect(f, "b", "k", "user.a", "1");
    g_assert_cmpint(catalog_xattr_set(c, "b", "k", "user.a", "22", 2, XATTR_REPLACE), ==, 0);
    g_assert_cmpint(catalog_xattr_set(c, "b", "k", "user.Z", "", 0, 0), ==, 0);
    g_assert_cmpint(catalog_xattr_set(c, "b", "k", "user.bin", "\0\xff\0", 3, 0), ==, 0);
    expect(f, "b", "k", "user.a", "22");
    expect(f, "b", "k", "user.Z", "");
    expect(f, "b", "K", "user.a", NULL);
    expect(f, "B", "k", "user.a", NULL);
    g_autoptr(GBytes) bin = NULL;
    g_assert_cmpint(catalog_xattr_get(c, "b", "k", "user.bin", &bin), ==, 0);
    g_assert_cmpmem(g_bytes_get_data(bin, NULL), g_bytes_get_size(bin), "\0\xff\0", 3);

    g_autoptr(GPtrArray) names = NULL;
    g_assert_cmpint(catalog_xattr_list(c, "b", "k", &names), ==, 0);
    g_assert_cmpuint(names->len, ==, 3);
    g_assert_cmpstr(names->pdata[0], ==, "user.Z");
    g_assert_cmpstr(names->pdata[1], ==, "user.a");
    g_assert_cmpstr(names->pdata[2], ==, "user.bin");
    g_autoptr(GPtrArray) empty = NULL;
    g_assert_cmpint(catalog_xattr_list(c, "b", "none", &empty), ==, 0);
    g_assert_cmpuint(empty->len, ==, 0);

    g_assert_cmpint(catalog_xattr_remove(c, "b", "k", "user.Z"), ==, 0);
    g_assert_cmpint(catalog_xattr_remove(c, "b", "k", "user.Z"), ==, -ENODATA);
    g_assert_cmpint(catalog_xattr_remove(c, "b", "none", "user.Z"), ==, -ENODATA);
    expect(f, "b", "k", "user.Z", NULL);
    reopen(f);
    expect(f, "b", "k", "user.a", "22");
}

/* A call that fails leaves nothing behind. */
static void test_rollback(struct fix *f, gconstpointer unused)
{
    g_assert_cmpint(catalog_xattr_set(f->c, "b", "k", "user.a", "1", 1, XATTR_REPLACE), ==,
                    -ENODATA);
    sqlite3 *db;
    g_assert_cmpint(sqlite3_open(f->path, &db), ==, SQLITE_OK);
    sqlite3_stmt *st;
    g_assert_cmpint(db_prepare(db, "SELECT count(*) FROM files", &st), ==, 0);
    g_assert_cmpint(db_step(st), ==, 1);
    g_assert_cmpint(sqlite3_column_int(st, 0), ==, 0);
    sqlite3_finalize(st);
    db_close(db);
}

static void test_xattr_limits(struct fix *f, gconstpointer unused)
{
    g_autofree char *value = g_malloc0(65537);
    char name[257];
    memset(name, 'n', 256);
    name[256] = 0;
    g_assert_cmpint(catalog_xattr_set(f->c, "b", "k", "user.a", value, 65537, 0), ==, -E2BIG);
    g_assert_cmpint(catalog_xattr_set(f->c, "b", "k", "user.a", value, 65536, 0), ==, 0);
    g_assert_cmpint(catalog_xattr_set(f->c, "b", "k", name, "v", 1, 0), ==, -ERANGE);
    g_assert_cmpint(catalog_xattr_set(f->c, "b", "k", "", "v", 1, 0), ==, -ERANGE);
    g_assert_cmpint(catalog_xattr_set(f->c, "b", "k", "user.a", "v", 1, 64), ==, -EINVAL);
    name[255] = 0;
    g_assert_cmpint(catalog_xattr_set(f->c, "b", "k", name, "v", 1, 0), ==, 0);
}

static void test_durable(struct fix *f, gconstpointer unused)
{
    int before = atomic_load(&disk.syncs);
    g_assert_cmpint(set(f, "k", "user.a", "1"), ==, 0);
    int after_set = atomic_load(&disk.syncs);
    g_assert_cmpint(after_set, >, before);
    g_assert_cmpint(catalog_xattr_remove(f->c, "b", "k", "user.a"), ==, 0);
    int after_remove = atomic_load(&disk.syncs);
    g_assert_cmpint(after_remove, >, after_set);
    /* A name that carries no data of the user's moves without a sync, one that does with. */
    g_assert_cmpint(catalog_rename(f->c, "b", "k", "b", "l", false), ==, 0);
    g_assert_cmpint(atomic_load(&disk.syncs), ==, after_remove);
    g_assert_cmpint(set(f, "l", "user.a", "1"), ==, 0);
    int again = atomic_load(&disk.syncs);
    g_assert_cmpint(catalog_rename(f->c, "b", "l", "b", "m", false), ==, 0);
    g_assert_cmpint(atomic_load(&disk.syncs), >, again);
}

/* ---- names ---- */

static void test_rename(struct fix *f, gconstpointer unused)
{
    struct video v = {.is_media = true, .duration = 1, .codec = "h264", .container = "mp4"}, w;
    _cleanup_object_ struct store_object o = object_make("e", 77);
    struct store_object none = {0};
    g_assert_cmpint(set(f, "tmp", "user.a", "new"), ==, 0);
    g_assert_cmpint(catalog_video_put(f->c, "b", "tmp", "e", 5, &v), ==, 0);
    g_assert_cmpint(catalog_attrs_put(f->c, "b", "tmp", &o), ==, 0);
    g_assert_cmpint(set(f, "doc", "user.a", "old"), ==, 0);
    g_assert_cmpint(set(f, "doc", "user.b", "old"), ==, 0);
    /* As an editor saves: what the name had before is gone, the source's identity came along. */
    g_assert_cmpint(catalog_rename(f->c, "b", "tmp", "b", "doc", false), ==, 0);
    expect(f, "b", "doc", "user.a", "new");
    expect(f, "b", "doc", "user.b", NULL);
    expect(f, "b", "tmp", "user.a", NULL);
    check_object(f, "doc", "e");
    g_assert_cmpint(catalog_attrs_get(f->c, "b", "tmp", "e", MTIME, &none), ==, -ENOENT);
    g_assert_cmpint(catalog_video_get(f->c, "b", "doc", "e", &w), ==, 0);
    g_assert_cmpstr(w.uuid, ==, v.uuid);
    g_assert_cmpint(catalog_video_get(f->c, "b", "tmp", "e", &w), ==, -ENOENT);
    /* Onto itself: nothing. To another bucket. From nothing: the target's rows still go. */
    g_assert_cmpint(catalog_rename(f->c, "b", "doc", "b", "doc", false), ==, 0);
    expect(f, "b", "doc", "user.a", "new");
    g_assert_cmpint(catalog_rename(f->c, "b", "doc", "c", "doc", false), ==, 0);
    expect(f, "c", "doc", "user.a", "new");
    expect(f, "b", "doc", "user.a", NULL);
    g_assert_cmpint(catalog_rename(f->c, "b", "absent", "c", "doc", false), ==, 0);
    expect(f, "c", "doc", "user.a", NULL);
    /* A longer key is another file. */
    g_assert_cmpint(set(f, "x", "user.a", "1"), ==, 0);
    g_assert_cmpint(set(f, "x/y", "user.a", "2"), ==, 0);
    g_assert_cmpint(set(f, "x\x01", "user.a", "3"), ==, 0);
    g_assert_cmpint(catalog_rename(f->c, "b", "x", "b", "z", false), ==, 0);
    expect(f, "b", "z", "user.a", "1");
    expect(f, "b", "x/y", "user.a", "2");
    expect(f, "b", "x\x01", "user.a", "3");
}

static void test_rename_tree(struct fix *f, gconstpointer unused)
{
    static const char *const inside[] = {"a/",       "a/b", "a/b/c",    "a/\x01", "a/\xff\xff",
                                         "a/\xff/x", "a//", "a/%_*'\"", "a/a/"};
    static const char *const beside[] = {"a", "a.", "a0", "a\xff", "A/", "A/b", "b", "`", "aa/"};
    static const char *const there[] = {"new/", "new/old", "new/b"};
    for (size_t i = 0; i < G_N_ELEMENTS(inside); i++)
        g_assert_cmpint(set(f, inside[i], "user.k", inside[i]), ==, 0);
    for (size_t i = 0; i < G_N_ELEMENTS(beside); i++)
        g_assert_cmpint(set(f, beside[i], "user.k", beside[i]), ==, 0);
    for (size_t i = 0; i < G_N_ELEMENTS(there); i++)
        g_assert_cmpint(set(f, there[i], "user.there", "x"), ==, 0);
    g_assert_cmpint(catalog_rename(f->c, "b", "a/", "b", "new/", true), ==, 0);
    for (size_t i = 0; i < G_N_ELEMENTS(inside); i++) {
        g_autofree char *to = g_strconcat("new/", inside[i] + 2, NULL);
        expect(f, "b", inside[i], "user.k", NULL);
        expect(f, "b", to, "user.k", inside[i]);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(beside); i++)
        expect(f, "b", beside[i], "user.k", beside[i]);
    for (size_t i = 0; i < G_N_ELEMENTS(there); i++)
        expect(f, "b", there[i], "user.there", NULL);
    g_assert_cmpint(catalog_rename(f->c, "b", "new/", "b", "new/b/", true), ==, -EINVAL);
    g_assert_cmpint(catalog_rename(f->c, "b", "new/b/", "b", "new/", true), ==, -EINVAL);
    expect(f, "b", "new/b", "user.k", "a/b");
    /* To a name of another length, in another bucket. */
    g_assert_cmpint(catalog_rename(f->c, "b", "new/", "c", "deep/er/", true), ==, 0);
    expect(f, "c", "deep/er/b/c", "user.k", "a/b/c");
    expect(f, "c", "deep/er/\xff\xff", "user.k", "a/\xff\xff");
    reopen(f);
    expect(f, "c", "deep/er/", "user.k", "a/");
}

static void test_forget(struct fix *f, gconstpointer unused)
{
    struct video v = {.is_media = true, .duration = 1, .codec = "h264"}, w = v;
    _cleanup_object_ struct store_object o = object_make("e", 77);
    struct store_object none = {0};
    g_assert_cmpint(set(f, "k", "user.a", "1"), ==, 0);
    g_assert_cmpint(set(f, "k2", "user.a", "2"), ==, 0);
    g_assert_cmpint(catalog_video_put(f->c, "b", "k", "e", 5, &v), ==, 0);
    g_assert_cmpint(catalog_attrs_put(f->c, "b", "k", &o), ==, 0);
    g_assert_cmpint(catalog_forget(f->c, "b", "k"), ==, 0);
    g_assert_cmpint(catalog_forget(f->c, "b", "k"), ==, 0);
    expect(f, "b", "k", "user.a", NULL);
    expect(f, "b", "k2", "user.a", "2");
    g_assert_cmpint(catalog_attrs_get(f->c, "b", "k", "e", MTIME, &none), ==, -ENOENT);
    g_assert_cmpint(catalog_video_get(f->c, "b", "k", "e", &w), ==, -ENOENT);
    /* The next file of this name is another one. */
    w.uuid[0] = 0;
    g_assert_cmpint(catalog_video_put(f->c, "b", "k", "e", 5, &w), ==, 0);
    g_assert_cmpstr(w.uuid, !=, v.uuid);
}

/* ---- videos ---- */

static void test_videos(struct fix *f, gconstpointer unused)
{
    struct video v = {.is_media = true,
                      .container = "mp4",
                      .duration = 12.5,
                      .bit_rate = 1000,
                      .codec = "h264",
                      .width = 1920,
                      .height = 1080,
                      .frame_rate = 29.97,
                      .rotation = 90,
                      .audio_codec = "aac",
                      .creation_time = "2024-05-06T07:08:09.000000Z"};
    struct video w, blank = {.is_media = true, .duration = -1}, not = {.duration = -1};
    g_assert_cmpint(catalog_video_get(f->c, "b", "k", "e1", &w), ==, -ENOENT);
    g_assert_cmpint(catalog_video_put(f->c, "b", "k", "e1", 5, &v), ==, 0);
    g_assert_cmpuint(strlen(v.uuid), ==, 36);
    reopen(f);
    g_assert_cmpint(catalog_video_get(f->c, "b", "k", "e1", &w), ==, 0);
    g_assert_cmpstr(w.uuid, ==, v.uuid);
    g_assert_cmpstr(w.container, ==, "mp4");
    g_assert_cmpfloat(w.duration, ==, 12.5);
    g_assert_cmpint(w.bit_rate, ==, 1000);
    g_assert_cmpstr(w.codec, ==, "h264");
    g_assert_cmpint(w.width, ==, 1920);
    g_assert_cmpint(w.height, ==, 1080);
    g_assert_cmpfloat(w.frame_rate, ==, 29.97);
    g_assert_cmpint(w.rotation, ==, 90);
    g_assert_cmpstr(w.audio_codec, ==, "aac");
    g_assert_cmpstr(w.creation_time, ==, v.creation_time);
    /* A new version: unknown facts stay unknown, the UUID stays. */
    g_assert_cmpint(catalog_video_get(f->c, "b", "k", "e2", &w), ==, -ENOENT);
    g_assert_cmpint(catalog_video_put(f->c, "b", "k", "e2", 5, &blank), ==, 0);
    g_assert_cmpstr(blank.uuid, ==, v.uuid);
    g_assert_cmpint(catalog_video_get(f->c, "b", "k", "e1", &w), ==, -ENOENT);
    g_assert_cmpint(catalog_video_get(f->c, "b", "k", "e2", &w), ==, 0);
    g_assert_cmpfloat(w.duration, ==, -1);
    g_assert_cmpint(w.bit_rate, ==, 0);
    g_assert_cmpstr(w.codec, ==, "");
    /* Same bytes under a new ETag. */
    g_assert_cmpint(catalog_version_moved(f->c, "b", "k", "e1", "e9"), ==, 0);
    g_assert_cmpint(catalog_video_get(f->c, "b", "k", "e9", &w), ==, -ENOENT);
    g_assert_cmpint(catalog_version_moved(f->c, "b", "k", "e2", "e3"), ==, 0);
    g_assert_cmpint(catalog_video_get(f->c, "b", "k", "e3", &w), ==, 0);
    /* No media any more, then media again. */
    g_assert_cmpint(catalog_video_put(f->c, "b", "k", "e4", 5, &not ), ==, 0);
    g_assert_cmpstr(not .uuid, ==, "");
    g_assert_cmpint(catalog_video_get(f->c, "b", "k", "e4", &w), ==, 0);
    g_assert_false(w.is_media);
    g_assert_cmpstr(w.uuid, ==, "");
    blank.uuid[0] = 0;
    g_assert_cmpint(catalog_video_put(f->c, "b", "k", "e5", 5, &blank), ==, 0);
    g_assert_cmpstr(blank.uuid, ==, v.uuid);
}

static void check_fact(const struct video *v, const char *name, const char *value)
{
    g_autofree char *s = NULL;
    int r = video_fact(v, name, &s);
    g_assert_cmpint(r, ==, value ? 0 : -ENODATA);
    g_assert_cmpstr(s, ==, value);
}

static void test_facts(void)
{
    struct video v = {.is_media = true,
                      .uuid = "u",
                      .container = "mp4",
                      .duration = 12.5,
                      .bit_rate = 5000000000,
                      .codec = "h264",
                      .width = 1920,
                      .height = 1080,
                      .frame_rate = 30000 / 1001.0,
                      .rotation = 270,
                      .audio_codec = "aac",
                      .creation_time = "2024"};
    static const char *const values[] = {"u",    "mp4",   "12.5", "5000000000", "h264", "1920",
                                         "1080", "29.97", "270",  "aac",        "2024"};
    for (size_t i = 0; video_fact_names[i]; i++)
        check_fact(&v, video_fact_names[i], values[i]);
    check_fact(&v, "none", NULL);
    check_fact(&v, "", NULL);
    v.duration = 120;
    check_fact(&v, "duration", "120");
    v.duration = 0;
    check_fact(&v, "duration", "0");
    v.duration = 1e308;
    g_autofree char *huge = NULL;
    g_assert_cmpint(video_fact(&v, "duration", &huge), ==, 0);
    v.rotation = 0;
    check_fact(&v, "rotation", "0");
    struct video blank = {.is_media = true, .duration = -1}, not = {.duration = 1, .codec = "x"};
    for (size_t i = 0; video_fact_names[i]; i++) {
        check_fact(&blank, video_fact_names[i], NULL);
        check_fact(&not, video_fact_names[i], NULL);
    }
}

static void test_names(void)
{
    g_assert_true(video_name_is_media("a.mp4", NULL));
    g_assert_true(video_name_is_media("d/a.MKV", NULL));
    g_assert_true(video_name_is_media("a", "video/mp4"));
    g_assert_true(video_name_is_media("a.txt", "Audio/x"));
    g_assert_false(video_name_is_media("a", NULL));
    g_assert_false(video_name_is_media("a.txt", "text/plain"));
    g_assert_false(video_name_is_media("a.mp4/b", NULL));
    g_assert_false(video_name_is_media("mp4", NULL));
    g_assert_false(video_name_is_media("a.", ""));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    disk_install();
#define ADD(name, fn) g_test_add("/catalog/" name, struct fix, NULL, setup, fn, teardown)
    ADD("attrs", test_attrs);
    ADD("attrs-date", test_attrs_date);
    ADD("attrs-many", test_attrs_many);
    ADD("xattrs", test_xattrs);
    ADD("rollback", test_rollback);
    ADD("xattr-limits", test_xattr_limits);
    ADD("durable", test_durable);
    ADD("rename", test_rename);
    ADD("rename-tree", test_rename_tree);
    ADD("forget", test_forget);
    ADD("videos", test_videos);
    g_test_add_func("/catalog/facts", test_facts);
    g_test_add_func("/catalog/names", test_names);
    return g_test_run();
}
