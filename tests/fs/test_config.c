/* SPDX-License-Identifier: Apache-2.0
 *
 * Options: each type, each source and which one wins, bad lines and their messages, secrets, and
 * that mlopsfs.conf and the man page say what the table says. Messages are read from a log file.
 */
#include <errno.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "fs/config.h"
#include "fs/config_table.h"

#define _cleanup_config_ __attribute__((cleanup(config_clear)))
#define MIB (1ULL << 20)

/* Where this run writes; made once in main, handed to each test. */
struct scratch {
    char *dir, *log, *conf;
};

/* What has been logged since the last call. */
static char *logged(const struct scratch *s)
{
    char *text = NULL;

    g_assert_true(g_file_get_contents(s->log, &text, NULL, NULL));
    g_assert_cmpint(truncate(s->log, 0), ==, 0);
    return text;
}

static void assert_logged(const struct scratch *s, const char *want)
{
    g_autofree char *text = logged(s);

    if (!strstr(text, want))
        g_error("no \"%s\" in the log, which says \"%s\"", want, text);
}

static void write_conf(const struct scratch *s, const char *text, mode_t mode)
{
    g_assert_true(g_file_set_contents(s->conf, text, -1, NULL));
    g_assert_cmpint(chmod(s->conf, mode), ==, 0);
}

static void test_defaults(gconstpointer data)
{
    _cleanup_config_ struct config c;

    config_init(&c);
    g_assert_null(c.endpoint);
    g_assert_cmpuint(c.connections, ==, 128);
    g_assert_cmpuint(c.op_timeout_ns, ==, 120000000000ULL);
    g_assert_cmpuint(c.memory, ==, 256 * MIB);
    g_assert_cmpuint(c.disk, ==, 4096 * MIB);
    g_assert_cmpuint(c.part_size, ==, 16 * MIB);
    g_assert_cmpuint(c.uploads, ==, 16);
    g_assert_cmpuint(c.attr_ttl_ns, ==, 1000000000);
    g_assert_cmpuint(c.fmode, ==, 0644);
    g_assert_cmpuint(c.dmode, ==, 0755);
    g_assert_cmpuint(c.uid, ==, getuid());
    g_assert_cmpuint(c.gid, ==, getgid());
    g_assert_cmpuint(c.rename_max, ==, 10000);
    g_assert_true(c.probe);
    g_assert_false(c.allow_other || c.read_only || c.durable || c.anonymous || c.allow_bucket_ops);
    g_assert_cmpint(c.log_level, ==, LOG_INFO);
}

static void test_names(gconstpointer data)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(g_str_hash, g_str_equal);

    for (const struct config_option *o = config_options; o->name; o++) {
        g_assert_true(g_hash_table_add(seen, (gpointer)(uintptr_t)o->name));
        g_assert_true(config_option_find(o->name) == o);
        g_assert_true(g_str_has_suffix(o->help, "."));
        g_assert_cmpuint(o->offset, <, sizeof(struct config));
        g_assert_true(o->type != CONFIG_ENUM || o->names);
    }
}

static void test_values(gconstpointer data)
{
    const struct scratch *s = data;
    _cleanup_config_ struct config c;

    config_init(&c);
    g_assert_cmpint(
        config_read_options(&c, "memory=64M,disk=1T,part_size=5242880,rename_max=7,uploads=256"),
        ==, 0);
    g_assert_cmpuint(c.memory, ==, 64 * MIB);
    g_assert_cmpuint(c.disk, ==, 1ULL << 40);
    g_assert_cmpuint(c.part_size, ==, 5 * MIB);
    g_assert_cmpuint(c.rename_max, ==, 7);
    g_assert_cmpuint(c.uploads, ==, 256);
    g_assert_cmpint(config_read_options(&c, "memory=1024k,part_size=0"), ==, -EINVAL);
    assert_logged(s, "-o: memory=1024k: it is at least 32M");
    g_assert_cmpint(config_read_options(&c, "memory=33MiB,part_size=0,disk=1GB"), ==, 0);
    g_assert_cmpuint(c.memory, ==, 33 * MIB);
    g_assert_cmpuint(c.part_size, ==, 0);
    g_assert_cmpint(
        config_read_options(&c, "op_timeout=1500ms,attr_ttl=0,dir_ttl=2m,probe_timeout=0.5s"), ==,
        0);
    g_assert_cmpuint(c.op_timeout_ns, ==, 1500000000);
    g_assert_cmpuint(c.attr_ttl_ns, ==, 0);
    g_assert_cmpuint(c.dir_ttl_ns, ==, 120000000000ULL);
    g_assert_cmpuint(c.probe_timeout_ns, ==, 500000000);
    g_assert_cmpint(config_read_options(
                        &c, "allow_other,probe=no,durable=TRUE,anonymous=1,allow_bucket_ops=off"),
                    ==, 0);
    g_assert_true(c.allow_other && c.durable && c.anonymous);
    g_assert_false(c.probe || c.allow_bucket_ops);
    g_assert_cmpint(
        config_read_options(
            &c, "fmode=600,dmode=0700,uid=root,gid=12,log_level=Debug,addressing=virtual"),
        ==, 0);
    g_assert_cmpuint(c.fmode, ==, 0600);
    g_assert_cmpuint(c.dmode, ==, 0700);
    g_assert_cmpuint(c.uid, ==, 0);
    g_assert_cmpuint(c.gid, ==, 12);
    g_assert_cmpint(c.log_level, ==, LOG_DEBUG);
    g_assert_cmpint(c.addressing, ==, CONFIG_ADDRESSING_VIRTUAL);
    g_assert_cmpint(
        config_read_options(&c, "region=a\\,b\\\\c\\d,,endpoint=http://h:1,ca_file=x/../y"), ==, 0);
    g_assert_cmpstr(c.region, ==, "a,b\\c\\d");
    g_assert_cmpstr(c.endpoint, ==, "http://h:1");
    g_autofree char *cwd = g_get_current_dir(), *y = g_build_filename(cwd, "y", NULL);
    g_assert_cmpstr(c.ca_file, ==, y);
    g_assert_cmpint(config_read_options(&c, "endpoint=,cache_dir=~/c"), ==, 0);
    g_assert_null(c.endpoint);
    g_autofree char *home = g_build_filename(getenv("HOME"), "c", NULL);
    g_assert_cmpstr(c.cache_dir, ==, home);
}

static void test_capabilities(gconstpointer data)
{
    const struct scratch *s = data;
    _cleanup_config_ struct config c;

    config_init(&c);
    g_assert_false(c.caps.given);
    g_assert_cmpint(config_read_options(&c, "capabilities=put_if\\,complete_if,uploads=3"), ==, 0);
    g_assert_true(c.caps.given && c.caps.caps.put_if && c.caps.caps.complete_if);
    g_assert_false(c.caps.caps.copy_if || c.caps.caps.delete_if || c.caps.caps.copy_part);
    g_assert_cmpuint(c.uploads, ==, 3);
    g_assert_cmpint(config_read_options(&c, "capabilities=copy_part:head_tags"), ==, 0);
    g_assert_true(c.caps.caps.copy_part && c.caps.caps.head_tags && !c.caps.caps.put_if);
    g_assert_cmpint(config_read_options(&c, "capabilities=none"), ==, 0);
    g_assert_true(c.caps.given && !c.caps.caps.copy_part);
    write_conf(s, "[mlopsfs]\ncapabilities = put_if, delete_if\n", 0600);
    g_assert_cmpint(config_read_file(&c, s->conf), ==, 0);
    g_assert_true(c.caps.given && c.caps.caps.put_if && c.caps.caps.delete_if);
    g_assert_cmpint(config_read_options(&c, "capabilities=probe"), ==, 0);
    g_assert_false(c.caps.given || c.caps.caps.put_if);
    g_assert_cmpint(config_read_options(&c, "capabilities=put_if:putif"), ==, -EINVAL);
    assert_logged(s, "-o: capabilities=put_if:putif: putif is no capability; it takes probe, none, or a list of put_if, complete_if");
    g_assert_false(c.caps.given);

    /* Whatever the server may be said to honour is in the help. */
    const struct config_option *o = config_option_find("capabilities");
    g_autofree char *names = store_caps_names();
    g_auto(GStrv) words = g_strsplit_set(names, ", ", -1);
    for (char **w = words; *w; w++)
        g_assert_true(!strcmp(*w, "and") || strstr(o->help, *w));
}

static void test_bad_options(gconstpointer data)
{
    const struct scratch *s = data;
    static const struct {
        const char *text, *says;
    } bad[] = {
        {"memory=lots", "memory=lots: it takes a number of bytes, or one with K, M, G or T"},
        {"memory=", "memory=: it takes"},
        {"memory=-1", "memory=-1: it takes"},
        {"memory=64Q", "it takes a number of bytes"},
        {"memory=64MM", "it takes a number of bytes"},
        {"memory=18446744073709551616", "it takes a number of bytes"},
        {"disk=99999999999T", "it takes a number of bytes"},
        {"disk=63M", "disk=63M: it is at least 64M"},
        {"part_size=4M", "part_size=4M: it lies between 5M and 5G"},
        {"part_size=6G", "it lies between 5M and 5G"},
        {"op_timeout=5 parrots", "it takes a number of seconds, or one with ms, s, m or h"},
        {"op_timeout=1d", "it takes a number of seconds"},
        {"op_timeout=1e3", "it takes a number of seconds"},
        {"op_timeout=inf", "it takes a number of seconds"},
        {"op_timeout=0x10", "it takes a number of seconds"},
        {"op_timeout=.", "it takes a number of seconds"},
        {"op_timeout=500ms", "op_timeout=500ms: it lies between 1s and 86400s"},
        {"connections=0", "it lies between 1 and 1024"},
        {"connections=+4", "it takes a whole number"},
        {"connections=4294967297", "it lies between"},
        {"fmode=0999", "it takes octal permission bits"},
        {"fmode=7777", "it lies between 0000 and 0777"},
        {"probe=maybe", "probe=maybe: it takes on or off"},
        {"log_level=loud", "it takes error, warning, notice, info or debug"},
        {"addressing=host", "it takes auto, path or virtual"},
        {"uid=no such user", "it takes a user's number or name, and none is called so here"},
        {"gid=4294967295", "the number is too large"},
        {"memory", "-o memory: a value is missing"},
        {"memroy=64M", "there is no option \"memroy\"; did you mean memory?"},
        {"attr-ttl=1s", "did you mean attr_ttl?"},
        {"completely_different=1",
         "there is no option \"completely_different\"; `mlopsfs mount --help` lists them"},
        {"remount,rw", "unmount it and mount it again"},
        {"secret_key=hunter2", "-o secret_key: everyone on this machine can read a command line"},
        {"access_key=AKIA", "-o access_key: everyone"},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        _cleanup_config_ struct config c;
        config_init(&c);
        g_assert_cmpint(config_read_options(&c, bad[i].text), ==, -EINVAL);
        g_autofree char *text = logged(s);
        if (!strstr(text, bad[i].says))
            g_error("-o %s: \"%s\" lacks \"%s\"", bad[i].text, text, bad[i].says);
        g_assert_null(strstr(text, "hunter2"));
    }
}

static void test_generic(gconstpointer data)
{
    _cleanup_config_ struct config c;

    config_init(&c);
    g_assert_cmpint(
        config_read_options(
            &c, "rw,noexec,nosuid,nodev,auto,noauto,user,nofail,_netdev,x-systemd.automount,"
                "comment=x,defaults,noatime,dev,suid"),
        ==, 0);
    g_assert_false(c.read_only);
    g_assert_cmpstr(c.kernel_options, ==, "noexec,nosuid,nodev,noatime");
    g_assert_cmpint(config_read_options(&c, "ro"), ==, 0);
    g_assert_true(c.read_only);
    g_assert_cmpint(config_read_options(&c, "rw"), ==, 0);
    g_assert_false(c.read_only);
    g_assert_cmpint(config_read_options(&c, ""), ==, 0);

    /* Of a word and its opposite the last one counts. */
    g_assert_cmpint(config_read_options(&c, "exec,strictatime,sync,dirsync,async"), ==, 0);
    g_assert_cmpstr(c.kernel_options, ==, "nosuid,nodev,dirsync");
    g_assert_cmpint(config_read_options(&c, "noexec,noexec,context=a:b:c"), ==, 0);
    g_assert_cmpstr(c.kernel_options, ==, "nosuid,nodev,dirsync,noexec,context=a:b:c");
    g_assert_cmpint(config_read_options(&c,
                        "lazytime,nolazytime,default_permissions,user=bob,uhelper=udisks2,nofail,group,owner,users,mand,nomand,"
                        "iversion,noiversion,relatime,norelatime,nostrictatime,nodiratime,diratime,silent,loud,symfollow,nonempty,"
                        "x-systemd.requires=network-online.target,x-systemd.device-timeout=5,X-mount.mkdir=0755,x-gvfs-show"),
                    ==, 0);
    g_assert_cmpint(config_read_options(&c, "nosymfollow"), ==, -EINVAL); /* not silently without it */
    g_assert_cmpint(config_read_options(&c, "usr=bob"), ==, -EINVAL);
}

static void test_file(gconstpointer data)
{
    const struct scratch *s = data;
    _cleanup_config_ struct config c;

    config_init(&c);
    write_conf(s,
               "# comment\n\n ; too\r\n[mlopsfs]\nendpoint = http://one:1 \n region=r\\x\nmemory= "
               "48M\nca_file=/x/y\nlog_file =\n",
               0644);
    g_assert_cmpint(config_read_file(&c, s->conf), ==, 0);
    g_assert_cmpstr(c.endpoint, ==, "http://one:1");
    g_assert_cmpstr(c.region, ==, "r\\x");
    g_assert_cmpuint(c.memory, ==, 48 * MIB);
    g_assert_cmpstr(c.conf_path, ==, s->conf);
    g_assert_null(c.log_file);
}

static void test_bad_file(gconstpointer data)
{
    const struct scratch *s = data;
    static const struct {
        const char *text, *says;
        int r;
    } bad[] = {
        {"[mlopsfs]\nmemory\n", ":2: this is neither a comment nor name = value", -EINVAL},
        {"\n[other]\n", ":2: the only section is [mlopsfs], not [other]", -EINVAL},
        {"memory = 1G\n", ":1: [mlopsfs] must stand above the first option", -EINVAL},
        {"[mlopsfs]\n\nmemory = 1X\n", ":3: memory=1X: it takes a number of bytes", -EINVAL},
        {"[mlopsfs]\nmemory = 1G # much\n", ":2: memory=1G # much: it takes", -EINVAL},
        {"[mlopsfs]\nmemry = 1G\n", ":2: there is no option \"memry\"; did you mean memory?",
         -EINVAL},
        {"[mlopsfs]\nca_file = ca.pem\n", ":2: ca_file=ca.pem: it takes an absolute path", -EINVAL},
        {"[mlopsfs]\nsecret_key = hunter2\n",
         ":2: secret_key stands in a file that others can read; `chmod 600 ", -EPERM},
        {"[mlopsfs]\naccess_key = hunter2\n",
         ":2: access_key stands in a file that others can read", -EPERM},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        _cleanup_config_ struct config c;
        config_init(&c);
        write_conf(s, bad[i].text, 0640);
        g_assert_cmpint(config_read_file(&c, s->conf), ==, bad[i].r);
        g_autofree char *text = logged(s);
        if (!strstr(text, s->conf) || !strstr(text, bad[i].says) || strstr(text, "hunter2"))
            g_error("%s: \"%s\" lacks \"%s\"", bad[i].text, text, bad[i].says);
    }
    _cleanup_config_ struct config c;
    config_init(&c);
    g_assert_cmpint(config_read_file(&c, "/nonexistent/x.conf"), ==, -ENOENT);
    assert_logged(s, "cannot read the configuration file /nonexistent/x.conf: No such file");
    g_assert_cmpint(config_read_file(&c, s->dir), ==, -EINVAL);
    assert_logged(s, "this is not a text file");
    g_assert_true(g_file_set_contents(s->conf, "[mlopsfs]\n\0", 11, NULL));
    g_assert_cmpint(config_read_file(&c, s->conf), ==, -EINVAL);
    assert_logged(s, "this is not a text file");
}

static void test_secrets(gconstpointer data)
{
    const struct scratch *s = data;
    _cleanup_config_ struct config c, half;

    config_init(&c);
    write_conf(s, "[mlopsfs]\naccess_key = AK\nsecret_key = s=e cret\n", 0600);
    g_assert_cmpint(config_read_file(&c, s->conf), ==, 0);
    g_assert_cmpstr(c.access_key, ==, "AK");
    g_assert_cmpstr(c.secret_key, ==, "s=e cret");
    g_assert_cmpint(config_set_source(&c, "s3://bucket"), ==, 0);
    g_assert_cmpint(config_finish(&c), ==, 0);
    config_init(&half);
    write_conf(s, "[mlopsfs]\nsecret_key = s\n", 0600);
    g_assert_cmpint(config_read_file(&half, s->conf), ==, 0);
    g_assert_cmpint(config_set_source(&half, "s3://bucket"), ==, 0);
    g_assert_cmpint(config_finish(&half), ==, -EINVAL);
    assert_logged(s, "secret_key is set and access_key is not");
}

static void test_precedence(gconstpointer data)
{
    const struct scratch *s = data;
    _cleanup_config_ struct config c;

    write_conf(s,
               "[mlopsfs]\nendpoint = http://file\nregion = file\nca_file = /file\nmemory = 40M\n",
               0644);
    g_setenv("MLOPSFS_CONF", s->conf, TRUE);
    g_setenv("AWS_ENDPOINT_URL", "http://third", TRUE);
    g_setenv("AWS_REGION", "second", TRUE);
    g_setenv("S3_REGION", "first", TRUE);
    g_setenv("S3_ENDPOINT", "", TRUE);
    config_init(&c);
    g_assert_cmpint(config_read_file(&c, NULL), ==, 0);
    g_assert_cmpint(config_read_environment(&c), ==, 0);
    g_assert_cmpstr(c.endpoint, ==, "http://third");
    g_assert_cmpstr(c.region, ==, "first");
    g_assert_cmpstr(c.ca_file, ==, "/file");
    g_assert_cmpint(config_read_options(&c, "region=option"), ==, 0);
    g_assert_cmpint(config_read_options(&c, "memory=41M,memory=42M"), ==, 0);
    g_assert_cmpstr(c.region, ==, "option");
    g_assert_cmpuint(c.memory, ==, 42 * MIB);
    g_unsetenv("MLOPSFS_CONF");
    g_unsetenv("AWS_ENDPOINT_URL");
    g_unsetenv("AWS_REGION");
    g_unsetenv("S3_REGION");
    g_unsetenv("S3_ENDPOINT");
}

static void test_found_file(gconstpointer data)
{
    const struct scratch *s = data;
    _cleanup_config_ struct config c;
    g_autofree char *dir = g_build_filename(s->dir, ".config/mlopsfs", NULL);
    g_autofree char *file = g_build_filename(dir, "mlopsfs.conf", NULL);

    g_assert_cmpint(g_mkdir_with_parents(dir, 0700), ==, 0);
    g_assert_true(g_file_set_contents(file, "[mlopsfs]\nregion = found\n", -1, NULL));
    config_init(&c);
    g_assert_cmpint(config_read_file(&c, NULL), ==, 0); /* HOME is the scratch directory */
    g_assert_cmpstr(c.region, ==, "found");
    g_assert_cmpstr(c.conf_path, ==, file);
    g_assert_cmpint(g_unlink(file), ==, 0);
}

static void test_source(gconstpointer data)
{
    const struct scratch *s = data;
    static const struct {
        const char *source, *bucket, *prefix, *local;
    } good[] = {
        {"s3://", NULL, "", NULL},
        {"s3://videos", "videos", "", NULL},
        {"s3://videos/", "videos", "", NULL},
        {"s3://videos/a/b", "videos", "a/b/", NULL},
        {"s3://videos/a/b/", "videos", "a/b/", NULL},
        {"s3://videos/.a/..b/...", "videos", ".a/..b/.../", NULL},
        {"local:/srv/store", "data", "", "/srv/store"},
        {"local:/srv/store,films", "films", "", "/srv/store"},
        {"local:/srv/store,films/x", "films", "x/", "/srv/store"},
        {"local:/srv/store,", NULL, "", "/srv/store"},
        {"local:/srv/a,b,", NULL, "", "/srv/a,b"},
    };
    static const struct {
        const char *source, *says;
    } bad[] = {
        {"videos", "\"videos\" cannot be mounted: give s3://bucket"},
        {"https://host/bucket", "cannot be mounted"},
        {"s3:///x", "a bucket's name is missing"},
        {"s3://a b", "\"a b\" cannot be a bucket's name"},
        {"s3://..", "cannot be a bucket's name"},
        {"local:", "local: takes a directory"},
        {"local:/x,a b", "cannot be a bucket's name"},
        {"s3://b/../x", "s3://b/../x: the prefix holds an empty segment, \".\" or \"..\""},
        {"s3://b/x/.", "the prefix holds"},
        {"s3://b/x/./", "the prefix holds"},
        {"s3://b/x//y", "the prefix holds"},
        {"s3://b//", "the prefix holds"},
        {"local:/x,b/..", "the prefix holds"},
        {NULL, "nothing says what to mount"},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(good); i++) {
        _cleanup_config_ struct config c;
        config_init(&c);
        g_assert_cmpint(config_set_source(&c, good[i].source), ==, 0);
        g_assert_cmpint(c.kind, ==, good[i].local ? CONFIG_LOCAL : CONFIG_S3);
        g_assert_cmpstr(c.bucket, ==, good[i].bucket);
        g_assert_cmpstr(c.prefix, ==, good[i].prefix);
        g_assert_cmpstr(c.local_path, ==, good[i].local);
        g_assert_cmpstr(c.source, ==, good[i].source);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        _cleanup_config_ struct config c;
        config_init(&c);
        g_assert_cmpint(config_set_source(&c, bad[i].source), ==, -EINVAL);
        assert_logged(s, bad[i].says);
    }
}

static void test_source_elsewhere(gconstpointer data)
{
    _cleanup_config_ struct config c;

    config_init(&c);
    g_setenv("S3_BUCKET", "films/x", TRUE);
    g_assert_cmpint(config_set_source(&c, NULL), ==, 0);
    g_unsetenv("S3_BUCKET");
    g_assert_cmpstr(c.bucket, ==, "films");
    g_assert_cmpstr(c.prefix, ==, "x/");
    g_assert_cmpstr(c.source, ==, "s3://films/x");
    g_autofree char *cwd = g_get_current_dir(), *absolute = g_strdup_printf("local:%s/x,films/y", cwd);
    g_assert_cmpint(config_set_source(&c, "local:x,films/y"), ==, 0);
    g_assert_cmpstr(c.source, ==, absolute);
}

static void test_finish(gconstpointer data)
{
    const struct scratch *s = data;
    _cleanup_config_ struct config c;

    config_init(&c);
    g_assert_cmpint(config_set_source(&c, "s3://b"), ==, 0);
    g_assert_cmpint(config_finish(&c), ==, 0);
    g_assert_true(c.cache_dir && *c.cache_dir == '/');
    g_assert_cmpint(config_read_options(&c, "durable"), ==, 0);
    g_assert_cmpint(config_finish(&c), ==, -EINVAL);
    assert_logged(s, "durable=on is for local: stores");
    g_assert_cmpint(config_read_options(&c, "durable=off,endpoint=HTTPS://Minio.Example:443/"), ==, 0);
    g_assert_cmpint(config_finish(&c), ==, 0);
    g_assert_cmpstr(c.endpoint, ==, "https://minio.example");
    g_assert_cmpint(config_read_options(&c, "endpoint=ftp://host"), ==, 0);
    g_assert_cmpint(config_finish(&c), ==, -EINVAL);
    assert_logged(s, "the endpoint \"ftp://host\" cannot be used: it takes http://host[:port]");
    g_assert_cmpint(config_read_options(&c, "endpoint=http://key:hunter2@host"), ==, 0);
    g_assert_cmpint(config_finish(&c), ==, -EINVAL);
    g_autofree char *text = logged(s);
    g_assert_nonnull(strstr(text, "a user name or a password does not belong into it"));
    g_assert_null(strstr(text, "hunter2"));
    g_assert_cmpint(config_set_source(&c, "local:/x"), ==, 0); /* then it does not matter */
    g_assert_cmpint(config_finish(&c), ==, 0);
}

/* ---- texts ---- */

static char *printed(void (*print)(FILE *out))
{
    char *text = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&text, &n);

    print(out);
    fclose(out);
    return text; /* malloc's */
}

static char *source_file(const char *name)
{
    const char *top = getenv("MLOPSFS_TOP");
    g_autofree char *path = g_build_filename(top ? top : ".", name, NULL);
    char *text = NULL;
    g_autoptr(GError) error = NULL;

    g_file_get_contents(path, &text, NULL, &error);
    g_assert_no_error(error);
    return text;
}

static void test_conf_file(gconstpointer data)
{
    const struct scratch *s = data;
    char *conf = printed(config_print_conf);
    g_autofree char *file = source_file("mlopsfs.conf");

    if (strcmp(conf, file) != 0)
        g_error("mlopsfs.conf is not what the table says: run `mlopsfs --dump-conf >mlopsfs.conf`");

    /* Every default it shows is taken back, and is the default. */
    GString *live = g_string_new(NULL);
    g_auto(GStrv) lines = g_strsplit(conf, "\n", -1);
    for (char **l = lines; *l; l++)
        if (**l != '#')
            g_string_append_printf(live, "%s\n", *l);
        else if ((*l)[1] != ' ' && g_str_has_suffix(*l, "=") == 0)
            g_string_append_printf(live, "%s\n", *l + 1);
    _cleanup_config_ struct config c, plain;
    config_init(&c);
    config_init(&plain);
    write_conf(s, live->str, 0600);
    g_assert_cmpint(config_read_file(&c, s->conf), ==, 0);
    g_assert_cmpuint(c.memory, ==, plain.memory);
    g_assert_cmpuint(c.dmode, ==, plain.dmode);
    g_assert_cmpint(c.log_level, ==, plain.log_level);
    g_string_free(live, TRUE);
    free(conf);
}

static void test_man_page(gconstpointer data)
{
    char *list = printed(config_print_man);
    g_autofree char *page = source_file("docs/mlopsfs.1");

    if (!strstr(page, list))
        g_error("the options in docs/mlopsfs.1 are not what the table says: paste what `mlopsfs "
                "--dump-man` prints");
    free(list);
}

static void test_help(gconstpointer data)
{
    char *help = printed(config_print_help);
    g_auto(GStrv) lines = g_strsplit(help, "\n", -1);

    for (const struct config_option *o = config_options; o->name; o++) {
        g_autofree char *start = g_strdup_printf("  %s=", o->name);
        g_assert_nonnull(strstr(help, start));
    }
    for (char **l = lines; *l; l++)
        g_assert_cmpuint(strlen(*l), <=, 100);
    free(help);
}

int main(int argc, char **argv)
{
    static const char *const variables[] = {
        "S3_ENDPOINT",         "S3_REGION",       "S3_BUCKET",          "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_S3", "AWS_REGION",      "AWS_DEFAULT_REGION", "AWS_CA_BUNDLE",
        "MLOPSFS_CONF",        "XDG_CONFIG_HOME", "XDG_CACHE_HOME"};
    struct scratch s = {.dir = g_dir_make_tmp("mlopsfs-config-XXXXXX", NULL)};

    for (size_t i = 0; i < G_N_ELEMENTS(variables); i++)
        g_unsetenv(variables[i]);
    g_setenv("HOME", s.dir, TRUE);
    g_test_init(&argc, &argv, NULL);
    s.log = g_build_filename(s.dir, "log", NULL);
    s.conf = g_build_filename(s.dir, "x.conf", NULL);
    g_assert_cmpint(log_to_file(s.log), ==, 0);
    g_test_add_data_func("/config/defaults", &s, test_defaults);
    g_test_add_data_func("/config/names", &s, test_names);
    g_test_add_data_func("/config/values", &s, test_values);
    g_test_add_data_func("/config/capabilities", &s, test_capabilities);
    g_test_add_data_func("/config/bad-options", &s, test_bad_options);
    g_test_add_data_func("/config/generic-options", &s, test_generic);
    g_test_add_data_func("/config/file", &s, test_file);
    g_test_add_data_func("/config/bad-file", &s, test_bad_file);
    g_test_add_data_func("/config/secrets", &s, test_secrets);
    g_test_add_data_func("/config/precedence", &s, test_precedence);
    g_test_add_data_func("/config/found-file", &s, test_found_file);
    g_test_add_data_func("/config/source", &s, test_source);
    g_test_add_data_func("/config/source-elsewhere", &s, test_source_elsewhere);
    g_test_add_data_func("/config/finish", &s, test_finish);
    g_test_add_data_func("/config/conf-file", &s, test_conf_file);
    g_test_add_data_func("/config/man-page", &s, test_man_page);
    g_test_add_data_func("/config/help", &s, test_help);
    int r = g_test_run();
    g_unlink(s.log);
    g_unlink(s.conf);
    g_autofree char *rm = g_build_filename(s.dir, ".config/mlopsfs", NULL),
                    *rm2 = g_build_filename(s.dir, ".config", NULL);
    g_rmdir(rm);
    g_rmdir(rm2);
    g_rmdir(s.dir);
    g_free(s.log);
    g_free(s.conf);
    g_free(s.dir);
    return r;
}
