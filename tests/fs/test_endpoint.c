/* SPDX-License-Identifier: Apache-2.0
 *
 * Endpoints: which are taken, that every spelling of one is the same, and that no secret is repeated.
 */
#include <errno.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

#include "fs/config.h"
#include "fs/endpoint.h"

static void test_good(void)
{
    static const struct {
        const char *text, *is;
    } good[] = {
        {"http://127.0.0.1:9000", "http://127.0.0.1:9000"},
        {"http://127.0.0.1:9000/", "http://127.0.0.1:9000"},
        {"HTTP://127.0.0.1:9000", "http://127.0.0.1:9000"},
        {"http://MinIO.Example", "http://minio.example"},
        {"http://h:80/", "http://h"},
        {"https://h:443", "https://h"},
        {"https://h:80", "https://h:80"},
        {"http://h:443", "http://h:443"},
        {"http://h:09000", "http://h:9000"},
        {"http://[::1]:9000/", "http://[::1]:9000"},
        {"http://[FE80::A]", "http://[fe80::a]"},
        {"http://localhost:9000", "http://localhost:9000"}, /* not 127.0.0.1: that is for the resolver to say */
    };

    for (size_t i = 0; i < G_N_ELEMENTS(good); i++) {
        g_autofree char *is = NULL, *why = NULL;
        g_assert_cmpint(endpoint_normalize(good[i].text, &is, &why), ==, 0);
        g_assert_cmpstr(is, ==, good[i].is);
        g_assert_null(why);
    }
}

static void test_bad(void)
{
    static const char *const bad[] = {
        "ftp://x",    "host",         "host:9000",         "http://",          "http:///",      "http://h/path",     "not a url", "",
        "http://h?q", "http://h#f",   "http://h:99999",    "http://h:0",       "http://h:port", "http://a b",        "//h",       "/",
        "http://h//", "file:///etc/", "http://user@h",     "http://user:hunter2@h", "https://:hunter2@h:9000/", "user:hunter2@h", "http://h/@hunter2",
    };

    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autofree char *is = NULL, *why = NULL;
        if (endpoint_normalize(bad[i], &is, &why) != -EINVAL)
            g_error("\"%s\" is taken, as %s", bad[i], is);
        g_assert_nonnull(why);
        g_assert_null(is);
        g_assert_null(strstr(why, "hunter2"));
        if (strchr(bad[i], '@'))
            g_assert_nonnull(strstr(why, "a user name or a password"));
        else
            g_assert_nonnull(strstr(why, "http://host[:port]"));
    }
}

static void assert_identity(const char *endpoint, const char *want)
{
    struct config c = {.kind = CONFIG_S3, .endpoint = (char *)(uintptr_t)endpoint};
    g_autofree char *id = endpoint_identity(&c);

    g_assert_cmpstr(id, ==, want);
}

static void test_identity(void)
{
    assert_identity("http://h:9000", "http://h:9000");
    assert_identity(NULL, "Amazon S3");
    assert_identity("https://s3.amazonaws.com", "Amazon S3");
    assert_identity("https://s3.eu-central-1.amazonaws.com", "Amazon S3");
    assert_identity("https://s3.eu-central-1.amazonaws.com.evil.example", "https://s3.eu-central-1.amazonaws.com.evil.example");
    assert_identity("https://s3.dualstack.eu-west-1.amazonaws.com", "https://s3.dualstack.eu-west-1.amazonaws.com");
    assert_identity("https://s3.cn-north-1.amazonaws.com.cn", "https://s3.cn-north-1.amazonaws.com.cn");
}

static void test_local(void)
{
    g_autofree char *dir = g_dir_make_tmp("mlopsfs-endpoint-XXXXXX", NULL);
    g_autofree char *store = g_build_filename(dir, "store", NULL), *link = g_build_filename(dir, "link", NULL);
    struct config c = {.kind = CONFIG_LOCAL, .local_path = store}, d = {.kind = CONFIG_LOCAL, .local_path = link};

    g_assert_cmpint(g_mkdir(store, 0700), ==, 0);
    g_assert_cmpint(symlink("store", link), ==, 0);
    g_autofree char *one = endpoint_identity(&c), *other = endpoint_identity(&d);
    g_assert_cmpstr(one, ==, other);
    g_assert_cmpint(g_unlink(link), ==, 0);
    g_assert_cmpint(g_rmdir(store), ==, 0);
    g_autofree char *gone = endpoint_identity(&c);
    g_assert_cmpstr(gone, ==, store);
    g_assert_cmpint(g_rmdir(dir), ==, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/endpoint/good", test_good);
    g_test_add_func("/endpoint/bad", test_bad);
    g_test_add_func("/endpoint/identity", test_identity);
    g_test_add_func("/endpoint/local", test_local);
    return g_test_run();
}
