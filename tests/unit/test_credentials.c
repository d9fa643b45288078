/* SPDX-License-Identifier: Apache-2.0
 *
 * credentials: where they are looked for, in which order, and what is refused. Each case gets an
 * empty home and an environment without our names.
 */
#include "s3/credentials.h"

#include <errno.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const names[] = {
    "S3_ACCESS_KEY",     "S3_SECRET_KEY", "AWS_ACCESS_KEY_ID",           "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN", "AWS_PROFILE",   "AWS_SHARED_CREDENTIALS_FILE",
};

struct fixture {
    char *dir, *aws, *conf;
    struct s3_credentials c;
};

static void setup(struct fixture *f, gconstpointer data)
{
    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        g_unsetenv(names[i]);
    }
    f->dir = g_dir_make_tmp("credentials-XXXXXX", NULL);
    g_assert_nonnull(f->dir);
    f->aws = g_build_filename(f->dir, "credentials", NULL);
    f->conf = g_build_filename(f->dir, "mlopsfs.conf", NULL);
    g_setenv("AWS_SHARED_CREDENTIALS_FILE", f->aws, TRUE);
}

static void teardown(struct fixture *f, gconstpointer data)
{
    s3_credentials_clear(&f->c);
    g_unlink(f->aws);
    g_unlink(f->conf);
    g_rmdir(f->dir);
    g_free(f->aws);
    g_free(f->conf);
    g_free(f->dir);
}

static void expect(struct fixture *f, const struct s3_credentials_params *p, const char *access,
                   const char *secret, const char *token)
{
    static const struct s3_credentials_params none = {0};
    g_assert_cmpint(s3_credentials_load(p ? p : &none, &f->c), ==, 0);
    g_assert_cmpstr(f->c.access_key, ==, access);
    g_assert_cmpstr(f->c.secret_key, ==, secret);
    g_assert_cmpstr(f->c.session_token, ==, token);
    g_assert_false(f->c.anonymous);
    g_assert_nonnull(f->c.origin);
    s3_credentials_clear(&f->c);
    g_assert_null(f->c.secret_key);
}

static void expect_error(struct fixture *f, const struct s3_credentials_params *p, int err)
{
    static const struct s3_credentials_params none = {0};
    g_assert_cmpint(s3_credentials_load(p ? p : &none, &f->c), ==, err);
    g_assert_null(f->c.access_key);
    g_assert_null(f->c.secret_key);
}

static void write_file(const char *path, const char *text, int mode)
{
    g_assert_true(g_file_set_contents(path, text, -1, NULL));
    g_assert_cmpint(chmod(path, (mode_t)mode), ==, 0);
}

static void test_nothing(struct fixture *f, gconstpointer data)
{
    expect_error(f, NULL, -ENOENT);
}

static void test_anonymous(struct fixture *f, gconstpointer data)
{
    g_setenv("S3_ACCESS_KEY", "half", TRUE); /* not even looked at */
    const struct s3_credentials_params p = {.anonymous = true};
    g_assert_cmpint(s3_credentials_load(&p, &f->c), ==, 0);
    g_assert_true(f->c.anonymous);
    g_assert_null(f->c.access_key);
}

static void test_env_order(struct fixture *f, gconstpointer data)
{
    write_file(f->aws, "[default]\naws_access_key_id=pa\naws_secret_access_key=ps\n", 0600);
    write_file(f->conf, "", 0600);
    const struct s3_credentials_params p = {
        .conf_path = f->conf, .conf_access_key = "ca", .conf_secret_key = "cs"};
    expect(f, &p, "pa", "ps", NULL);
    g_setenv("AWS_ACCESS_KEY_ID", "aa", TRUE);
    g_setenv("AWS_SECRET_ACCESS_KEY", "as", TRUE);
    expect(f, &p, "aa", "as", NULL);
    g_setenv("AWS_SESSION_TOKEN", "at", TRUE);
    expect(f, &p, "aa", "as", "at");
    g_setenv("S3_ACCESS_KEY", "sa", TRUE);
    g_setenv("S3_SECRET_KEY", "ss", TRUE);
    expect(f, &p, "sa", "ss", NULL);
}

static void test_half(struct fixture *f, gconstpointer data)
{
    g_setenv("S3_ACCESS_KEY", "a", TRUE);
    expect_error(f, NULL, -EINVAL);
    g_setenv("S3_SECRET_KEY", "", TRUE); /* empty is not set */
    expect_error(f, NULL, -EINVAL);
    g_unsetenv("S3_ACCESS_KEY");
    g_unsetenv("S3_SECRET_KEY");
    g_setenv("AWS_SECRET_ACCESS_KEY", "s", TRUE);
    expect_error(f, NULL, -EINVAL);
    g_unsetenv("AWS_SECRET_ACCESS_KEY");
    write_file(f->aws, "[default]\naws_access_key_id = a\n", 0600);
    expect_error(f, NULL, -EINVAL);
    write_file(f->aws, "", 0600);
    const struct s3_credentials_params p = {.conf_secret_key = "s"};
    expect_error(f, &p, -EINVAL);
}

static void test_profile(struct fixture *f, gconstpointer data)
{
    write_file(f->aws,
               "# a comment\n"
               "[default]\r\n"
               "aws_access_key_id = DEF  # trailing\r\n"
               "aws_secret_access_key=de/f+s#cr=et\r\n"
               "\n; another\n"
               "[ work ]\n"
               "  AWS_ACCESS_KEY_ID   =   WORK\n"
               "\taws_secret_access_key\t=\twork secret\n"
               "aws_session_token = FQoGZ/token==\n"
               "region = eu-central-1\n"
               "[profile prefixed]\n"
               "aws_access_key_id=PRE\naws_secret_access_key=pre",
               0600);
    expect(f, NULL, "DEF", "de/f+s#cr=et", NULL);
    g_setenv("AWS_PROFILE", "work", TRUE);
    expect(f, NULL, "WORK", "work secret", "FQoGZ/token==");
    const struct s3_credentials_params p = {.profile = "prefixed"};
    expect(f, &p, "PRE", "pre", NULL);
    const struct s3_credentials_params absent = {.profile = "absent"};
    expect_error(f, &absent, -ENOENT);
}

static void test_home(struct fixture *f, gconstpointer data)
{
    if (g_test_subprocess()) { /* GLib looks at HOME once per process */
        g_unsetenv("AWS_SHARED_CREDENTIALS_FILE");
        expect(f, NULL, "H", "h", NULL);
        return;
    }
    g_autofree char *dot = g_build_filename(f->dir, ".aws", NULL);
    g_autofree char *file = g_build_filename(dot, "credentials", NULL);
    g_assert_cmpint(g_mkdir(dot, 0700), ==, 0);
    write_file(file, "[default]\naws_access_key_id=H\naws_secret_access_key=h\n", 0600);
    g_autofree char *home = g_strdup(g_getenv("HOME"));
    g_setenv("HOME", f->dir, TRUE);
    g_test_trap_subprocess(NULL, 0, 0);
    if (home) {
        g_setenv("HOME", home, TRUE);
    }
    g_test_trap_assert_passed();
    g_unlink(file);
    g_rmdir(dot);
}

static void test_conf(struct fixture *f, gconstpointer data)
{
    const struct s3_credentials_params p = {
        .conf_path = f->conf, .conf_access_key = "ca", .conf_secret_key = "cs"};
    write_file(f->conf, "x", 0600);
    expect(f, &p, "ca", "cs", NULL);
    static const int open_modes[] = {0644, 0640, 0604};
    for (size_t i = 0; i < G_N_ELEMENTS(open_modes); i++) {
        write_file(f->conf, "x", open_modes[i]);
        expect_error(f, &p, -EPERM);
    }
    const struct s3_credentials_params no_keys = {.conf_path = f->conf};
    expect_error(f, &no_keys, -ENOENT); /* without a secret in it the file may be open */
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
#define CASE(name, fn) g_test_add("/credentials/" name, struct fixture, NULL, setup, fn, teardown)
    CASE("nothing", test_nothing);
    CASE("anonymous", test_anonymous);
    CASE("env-order", test_env_order);
    CASE("half", test_half);
    CASE("profile", test_profile);
    CASE("home", test_home);
    CASE("conf", test_conf);
    return g_test_run();
}
