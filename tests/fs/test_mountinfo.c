/* SPDX-License-Identifier: Apache-2.0
 *
 * /proc/self/mountinfo as text: which lines are ours, and which mount a path lies in.
 */
#include <glib.h>

#include "fs/mountinfo.h"

static const char text[] =
    "22 1 0:21 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"
    "40 22 0:50 / /mnt/a rw,nosuid,nodev shared:9 master:2 - fuse.mlopsfs s3://videos "
    "rw,user_id=1000,group_id=0\n"
    "41 40 0:51 / /mnt/a/in\\040it rw - fuse.mlopsfs local:/x\\054b rw,user_id=0,group_id=0\n"
    "42 22 0:52 / /mnt/ab rw - fuse.sshfs host:/ rw,user_id=0\n"
    "43 22 0:53 / /mnt/odd\\\\134 rw - fuse.mlopsfs s3://\n"
    "44 22 0:54 / /mnt/top rw - fuse.mlopsfs s3://one rw,user_id=1\n"
    "45 22 0:55 / /mnt/top rw - fuse.mlopsfs s3://two rw,user_id=2\n"
    "garbage\n"
    "46 22 0:56 /\n"
    "47 22 0:57 / /mnt/z rw - fuse.mlopsfs";

static const char *found(const GPtrArray *list, const char *path)
{
    const struct mountinfo *m = mountinfo_find(list, path);

    return m ? m->source : NULL;
}

static void test_list(void)
{
    g_autoptr(GPtrArray) list = mountinfo_list(text);

    g_assert_cmpuint(list->len, ==, 4);
    const struct mountinfo *m = list->pdata[0];
    g_assert_cmpstr(m->mountpoint, ==, "/mnt/a");
    g_assert_cmpstr(m->source, ==, "s3://videos");
    g_assert_cmpuint(m->uid, ==, 1000);
    g_assert_cmpstr(m->dev, ==, "0:50");
    g_assert_cmpstr(m->place, ==, "0:21:/mnt/a");
    g_assert_cmpstr(m->peers, ==, "shared:1");
    m = list->pdata[1];
    g_assert_cmpstr(m->mountpoint, ==, "/mnt/a/in it");
    g_assert_cmpstr(m->source, ==, "local:/x,b");
    g_assert_cmpstr(m->place, ==, "0:50:/in it");
    g_assert_cmpstr(m->peers, ==, "shared:9 master:2");
    g_autoptr(GPtrArray) none = mountinfo_list("");
    g_assert_cmpuint(none->len, ==, 0);
    g_autoptr(GPtrArray) real = mountinfo_list(NULL);
    g_assert_nonnull(real);
}

static void test_find(void)
{
    g_autoptr(GPtrArray) list = mountinfo_list(text);

    g_assert_cmpstr(found(list, "/mnt/a"), ==, "s3://videos");
    g_assert_cmpstr(found(list, "/mnt/a/x/y"), ==, "s3://videos");
    g_assert_cmpstr(found(list, "/mnt/a/in it/y"), ==, "local:/x,b");
    g_assert_cmpstr(found(list, "/mnt/a/in itself"), ==, "s3://videos");
    g_assert_null(found(list, "/mnt/ab"));
    g_assert_null(found(list, "/mnt"));
    g_assert_cmpstr(found(list, "/mnt/top/x"), ==, "s3://two");

    g_autoptr(GPtrArray) root =
        mountinfo_list("1 0 0:1 / / rw - fuse.mlopsfs s3://root rw,user_id=0\n");
    g_assert_cmpstr(found(root, "/anything"), ==, "s3://root");
}

/* Of the mount at /mnt/a another namespace has this, below a parent with these optional fields. */
static void assert_follows(const char *parent, const char *mountpoint, bool want)
{
    g_autoptr(GPtrArray) ours = mountinfo_list(text);
    g_autofree char *other = g_strdup_printf("80 1 %s - ext4 /dev/vda rw\n81 80 0:50 / %s rw master:9 - fuse.mlopsfs s3://videos rw,user_id=0\n",
                                             parent, mountpoint);
    g_autoptr(GPtrArray) theirs = mountinfo_list(other);

    g_assert_cmpuint(theirs->len, ==, 1);
    g_assert_cmpint(mountinfo_follows(theirs->pdata[0], ours->pdata[0]), ==, want);
}

static void test_follows(void)
{
    assert_follows("0:21 / / rw shared:1", "/mnt/a", true);
    assert_follows("0:21 / / rw master:1", "/mnt/a", true);
    assert_follows("0:21 / / rw shared:5 master:1", "/mnt/a", true);
    assert_follows("0:21 / / rw master:7 propagate_from:1", "/mnt/a", true);
    assert_follows("0:21 /mnt /srv rw master:1", "/srv/a", true);
    assert_follows("0:21 / / rw", "/mnt/a", false);             /* private */
    assert_follows("0:21 / / rw master:11", "/mnt/a", false);   /* hears of others */
    assert_follows("0:21 / / rw master:1", "/mnt/b", false);    /* a volume in another place */
    assert_follows("0:90 / / rw master:1", "/mnt/a", false);    /* in a container's own root */
    assert_follows("0:21 /mnt /srv rw master:1", "/srv/b", false);
}

static void assert_type(const char *path, const char *want)
{
    g_autofree char *type = mountinfo_type(text, path);

    g_assert_cmpstr(type, ==, want);
}

static void test_type(void)
{
    assert_type("/mnt/ab", "fuse.sshfs");
    assert_type("/mnt/a/in it", "fuse.mlopsfs");
    assert_type("/mnt/a/x", NULL);
    g_autofree char *proc = mountinfo_type(NULL, "/proc");
    g_assert_cmpstr(proc, ==, "proc");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/mountinfo/list", test_list);
    g_test_add_func("/mountinfo/find", test_find);
    g_test_add_func("/mountinfo/follows", test_follows);
    g_test_add_func("/mountinfo/type", test_type);
    return g_test_run();
}
