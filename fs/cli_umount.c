/* SPDX-License-Identifier: Apache-2.0
 *
 * cli_umount: `mlopsfs umount`: asks the daemon to drain, unmounts, and waits until the daemon has
 * ended, so that what follows finds its store and cache free. A dead mount is simply removed. One
 * thread.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "fs/cli.h"
#include "fs/control.h"
#include "fs/mount.h"
#include "fs/mountinfo.h"

/* How long a daemon may take to end after its file system is gone: its work is done by then. */
#define END_TIMEOUT_MS 60000

/* As a user, or where this process may not: the setuid helper does it. */
static int umount_by_fusermount(const char *mountpoint, bool lazy)
{
    g_auto(GStrv) argv = lazy ? g_strsplit("fusermount3|-u|-z|--|", "|", -1)
                              : g_strsplit("fusermount3|-u|--|", "|", -1);
    g_autofree char *said = NULL;
    g_autoptr(GError) error = NULL;
    int status;

    char **last = argv + g_strv_length(argv) - 1; /* the empty word after the last bar */
    g_free(*last);
    *last = g_strdup(mountpoint);
    if (!g_spawn_sync(NULL, argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL, &said, &status,
                      &error)) {
        log_error("cannot run fusermount3: %s", error->message);
        return -ENOEXEC;
    }
    if (g_spawn_check_wait_status(status, NULL))
        return 0;
    if (strstr(said, "busy"))
        return -EBUSY;
    cli_print_line(stderr, g_strstrip(said));
    return -EPERM;
}

static int unmount(const char *mountpoint, bool lazy)
{
    if (umount2(mountpoint, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) == 0)
        return 0;
    return errno == EPERM ? umount_by_fusermount(mountpoint, lazy) : -errno;
}

/* ---- other mount namespaces ---- */

static bool keeps(const char *pid, const struct mountinfo *ours)
{
    g_autofree char *path = g_strdup_printf("/proc/%s/mountinfo", pid), *text = NULL;

    if (!g_file_get_contents(path, &text, NULL, NULL))
        return false;
    g_autoptr(GPtrArray) list = mountinfo_list(text);
    for (guint i = 0; i < list->len; i++) {
        const struct mountinfo *m = list->pdata[i];
        if (strcmp(m->dev, ours->dev) == 0 && !mountinfo_follows(m, ours))
            return true;
    }
    return false;
}

/* A process in another mount namespace (a container) that has this file system mounted in a place
 * where the kernel would let it go on after ours is gone. NULL if none is seen. */
static char *find_container(const char *mountpoint)
{
    g_autoptr(GPtrArray) list = mountinfo_list(NULL);
    g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    const struct mountinfo *m = mountinfo_find(list, mountpoint);
    g_autoptr(GDir) proc = g_dir_open("/proc", 0, NULL);
    char *own = g_file_read_link("/proc/self/ns/mnt", NULL);

    if (!m || !proc || !own) {
        g_free(own);
        return NULL;
    }
    g_hash_table_add(seen, own);
    for (const char *pid; (pid = g_dir_read_name(proc));) {
        if (!g_ascii_isdigit(*pid))
            continue;
        g_autofree char *path = g_strdup_printf("/proc/%s/ns/mnt", pid);
        char *ns = g_file_read_link(path, NULL);
        if (ns && g_hash_table_add(seen, ns) && keeps(pid, m))
            return g_strdup(pid);
    }
    return NULL;
}

static int open_process(const char *mountpoint)
{
    pid_t pid;

    return control_pid(mountpoint, &pid) < 0 ? -1 : (int)syscall(SYS_pidfd_open, pid, 0);
}

static void wait_for_end(const char *mountpoint, int process)
{
    struct pollfd p = {.fd = process, .events = POLLIN};
    int r;

    do
        r = poll(&p, 1, END_TIMEOUT_MS);
    while (r < 0 && errno == EINTR);
    if (r == 0)
        log_warning("%s: unmounted, but its daemon has not ended yet", mountpoint);
}

static int umount_exit(const char *mountpoint, int r)
{
    switch (r) {
    case 0:
        return CLI_OK;
    case -EBUSY:
        log_error("%s is busy: a process has a file open or its working directory there; nothing "
                  "was changed. "
                  "`fuser -vm %s` names it",
                  mountpoint, mountpoint);
        return CLI_MOUNTPOINT;
    case -EPERM:
        log_error("%s: only who mounted it, or root, may unmount it", mountpoint);
        return CLI_PERMISSION;
    default:
        log_error_errno(r, "%s: cannot unmount", mountpoint);
        return CLI_MOUNTPOINT;
    }
}

static int check_containers(const char *mountpoint)
{
    g_autofree char *pid = find_container(mountpoint);

    if (!pid)
        return 0;
    log_error("%s is busy: a container, or another mount namespace, has it (process %s); nothing "
              "was changed",
              mountpoint, pid);
    return -EBUSY;
}

/* Everything is in the bucket, and nobody is seen who would keep the file system: CLI_OK, or an
 * exit code, said why. */
static int prepare(const char *mountpoint, bool lazy)
{
    int r = cli_drain(mountpoint, "drain", NULL);

    if (r == -ENOENT) {
        log_warning("%s: no daemon answers; unmounting all the same", mountpoint);
    } else if (r < 0) {
        log_error("%s stays mounted: not everything could be brought into the bucket", mountpoint);
        return cli_control_exit(mountpoint, r);
    }
    return lazy || check_containers(mountpoint) == 0 ? CLI_OK : CLI_MOUNTPOINT;
}

static int umount_run(const char *mountpoint, bool lazy)
{
    bool dead = mount_state(mountpoint) == 2;
    int process = dead ? -1 : open_process(mountpoint);
    int code = dead ? CLI_OK : prepare(mountpoint, lazy);

    if (code == CLI_OK) {
        int r = unmount(mountpoint, lazy);
        if (r == 0 && process >= 0 && !lazy)
            wait_for_end(mountpoint, process);
        code = umount_exit(mountpoint, r);
    }
    if (process >= 0)
        close(process);
    return code;
}

int cli_umount(int argc, char **argv)
{
    gboolean lazy = FALSE;
    g_auto(GStrv) rest = NULL;
    g_autofree char *mountpoint = NULL, *below = NULL;
    const GOptionEntry entries[] = {
        {"lazy", 'l', 0, G_OPTION_ARG_NONE, &lazy,
         "Detach now; the daemon ends when the last user has closed", NULL},
        {G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &rest, NULL, NULL},
        {NULL},
    };

    if (!cli_parse(argc, argv, entries, "MNT",
                   "Brings everything written into the bucket, showing how much is left, then "
                   "unmounts MNT and\n"
                   "waits for the daemon to end. A busy mount stays as it is (exit code 4).",
                   NULL))
        return CLI_USAGE;
    if (!rest || g_strv_length(rest) != 1) {
        log_error("umount takes one mount point, such as: mlopsfs umount /mnt/videos");
        return CLI_USAGE;
    }
    int code = cli_find_mount(rest[0], &mountpoint, &below);
    if (code == CLI_OK && *below) {
        log_error("%s is not a mount point; it lies in the mount %s", rest[0], mountpoint);
        code = CLI_MOUNTPOINT;
    }
    return code == CLI_OK ? umount_run(mountpoint, lazy) : code;
}
