/* SPDX-License-Identifier: Apache-2.0
 *
 * attr: POSIX attributes to object metadata and back, and what others may have written there.
 */

#include "fs/attr.h"

static const struct attr_defaults defaults = {.fmode = 0640, .dmode = 0750, .uid = 7, .gid = 8};

static void test_round_trip(void)
{
    const int64_t times[] = {0, 1, 999999999, 1700000000LL * 1000000000, 1700000000123456789LL, -5000000000LL, INT64_MAX / 2};

    for (size_t n = 0; n < G_N_ELEMENTS(times); n++) {
        struct attr a = {.mode = S_IFREG | 04751, .uid = 1000, .gid = 4294967294u, .mtime_ns = times[n], .atime_ns = 5, .ctime_ns = times[n] / 2};
        struct attr b;
        struct store_object o = {.size = 42, .mtime_ns = 99};

        if (a.ctime_ns < 0)
            a.ctime_ns = -2000000000LL;
        attr_to_headers(&a, &o.headers);
        attr_from_object(&b, &o, false, &defaults);
        g_assert_cmpuint(b.mode, ==, a.mode);
        g_assert_cmpuint(b.uid, ==, a.uid);
        g_assert_cmpuint(b.gid, ==, a.gid);
        g_assert_cmpint(b.mtime_ns, ==, a.mtime_ns);
        g_assert_cmpint(b.atime_ns, ==, a.atime_ns);
        g_assert_cmpint(b.ctime_ns, ==, a.ctime_ns);
        g_assert_cmpuint(b.size, ==, 42);
        store_object_clear(&o);
    }
}

static void test_defaults(void)
{
    struct store_object o = {.size = 3, .mtime_ns = 1234};
    struct attr a;

    attr_from_object(&a, &o, false, &defaults);
    g_assert_cmpuint(a.mode, ==, S_IFREG | 0640);
    g_assert_cmpuint(a.uid, ==, 7);
    g_assert_cmpint(a.mtime_ns, ==, 1234);
    attr_from_object(&a, &o, true, &defaults);
    g_assert_cmpuint(a.mode, ==, S_IFDIR | 0750);
    g_assert_cmpuint(a.size, ==, 0);
}

/* What s3fs writes, and what nobody should. */
static void test_foreign(void)
{
    static const struct {
        const char *name, *value;
        mode_t mode;
        int64_t mtime_ns;
    } cases[] = {
        {"mode", "33188", S_IFREG | 0644, 1234},
        {"mode", "41471", S_IFLNK | 0777, 1234},
        {"mode", "16877", S_IFREG | 0755, 1234},  /* a directory's bits on a file's key */
        {"mode", "24992", S_IFREG | 0640, 1234},  /* a block device */
        {"mode", "0x1ff", S_IFREG | 0640, 1234},
        {"mode", "-1", S_IFREG | 0640, 1234},
        {"mode", "99999999999999999999", S_IFREG | 0640, 1234},
        {"mode", "", S_IFREG | 0640, 1234},
        {"mtime", "1700000000", S_IFREG | 0640, 1700000000LL * 1000000000},
        {"mtime", "1700000000.25", S_IFREG | 0640, 1700000000250000000LL},
        {"mtime", "1700000000.1234567891", S_IFREG | 0640, 1700000000123456789LL},
        {"mtime", "99999999999999", S_IFREG | 0640, 1234},
        {"mtime", "1.5e3", S_IFREG | 0640, 1234},
        {"mtime", "tomorrow", S_IFREG | 0640, 1234},
        {"uid", "4294967295", S_IFREG | 0640, 1234}, /* (uid_t)-1 is nobody's id */
    };

    for (size_t n = 0; n < G_N_ELEMENTS(cases); n++) {
        struct store_object o = {.size = 1, .mtime_ns = 1234};
        struct attr a;

        store_headers_set_meta(&o.headers, cases[n].name, cases[n].value);
        attr_from_object(&a, &o, false, &defaults);
        g_assert_cmpuint(a.mode, ==, cases[n].mode);
        g_assert_cmpint(a.mtime_ns, ==, cases[n].mtime_ns);
        g_assert_cmpuint(a.uid, ==, 7);
        store_object_clear(&o);
    }
}

static void test_content_type(void)
{
    g_assert_cmpstr(attr_content_type("clip.MP4"), ==, "video/mp4");
    g_assert_cmpstr(attr_content_type("a.tar.gz"), ==, "application/gzip");
    g_assert_cmpstr(attr_content_type(".mp4"), ==, "application/octet-stream");
    g_assert_cmpstr(attr_content_type("noext"), ==, "application/octet-stream");
    g_assert_cmpstr(attr_content_type("end."), ==, "application/octet-stream");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/attr/round-trip", test_round_trip);
    g_test_add_func("/attr/defaults", test_defaults);
    g_test_add_func("/attr/foreign", test_foreign);
    g_test_add_func("/attr/content-type", test_content_type);
    return g_test_run();
}
