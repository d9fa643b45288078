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

/* How long a daemon may take to end after its file system is gone: its work is done by then. */
#define END_TIMEOUT_MS 60000

static int drain(const char *mountpoint)
{
    struct cli_progress p;

    cli_progress_init(&p, stdout);
    int r = control_call(mountpoint, "drain", NULL, cli_progress_line, &p);
    cli_progress_end(&p);
    return r;
}

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

static int umount_run(const char *mountpoint, bool lazy)
{
    bool dead = mount_state(mountpoint) == 2;
    int process = dead ? -1 : open_process(mountpoint);

    if (!dead) {
        int r = drain(mountpoint);
        if (r == -ENOENT)
            log_warning("%s: no daemon answers; unmounting all the same", mountpoint);
        else if (r < 0) {
            log_error("%s stays mounted: not everything could be brought into the bucket",
                      mountpoint);
            if (process >= 0)
                close(process);
            return cli_control_exit(mountpoint, r);
        }
    }
    int r = unmount(mountpoint, lazy);
    if (process >= 0) {
        if (r == 0 && !lazy)
            wait_for_end(mountpoint, process);
        close(process);
    }
    return umount_exit(mountpoint, r);
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
