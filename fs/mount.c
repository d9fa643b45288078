/* SPDX-License-Identifier: Apache-2.0
 *
 * mount: see mount.h. The process forks before anything starts a thread; the child builds the stack,
 * mounts, serves, and tells the parent by one byte on a pipe (an exit code) how that went: as soon as
 * the kernel's INIT has been answered, or when it has failed.
 */
#include "fs/mount.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "fs/control.h"
#include "fs/mountinfo.h"
#include "fs/opened.h"
#include "fs/ops.h"
#include "fs/stack.h"
#include "fs/status.h"

#define WORKERS 24           /* FUSE threads: name operations block in them, and so do writers for whom staging is full */
#define READ_AHEAD_KIB 1024  /* the kernel's, per file, where we may set it: bigger READs cost less CPU each */

enum exit_code { EXIT_MOUNTPOINT = 4, EXIT_OTHER = 5 };

struct mount {
    struct config *config;
    struct fs fs;
    int ready_fd; /* to the parent; -1 in the foreground, or once told */
};

static int tell_parent(struct mount *m, int code)
{
    char byte = (char)code;

    if (m->ready_fd >= 0) {
        ssize_t n = write(m->ready_fd, &byte, 1);

        (void)n; /* a parent that is gone does not want to know */
        close(m->ready_fd);
        m->ready_fd = -1;
    }
    return code;
}

/* ---- the mount point ---- */

int mount_state(const char *path)
{
    g_autoptr(GPtrArray) mounts = mountinfo_list(NULL);
    bool ours = false;
    struct statvfs st;

    for (guint n = 0; n < mounts->len; n++)
        ours |= !strcmp(((struct mountinfo *)mounts->pdata[n])->mountpoint, path);
    if (!ours)
        return 0;
    if (statvfs(path, &st) == 0) /* the kernel answers a stat(2) from what it remembers, for a while after the daemon's death */
        return 1;
    return errno == ENOTCONN || errno == ECONNABORTED ? 2 : 1;
}

static int detach_dead(const char *path)
{
    if (umount2(path, MNT_DETACH) == 0)
        return 0;
    g_autofree char *quoted = g_shell_quote(path);
    g_autofree char *command = g_strdup_printf("fusermount3 -u -z -- %s", quoted);
    int status = 0;

    return g_spawn_command_line_sync(command, NULL, NULL, &status, NULL) && status == 0 ? 0 : -EPERM;
}

/* Why nothing can be mounted there, after stat() of it failed. */
static void explain_stat(const char *path, int err)
{
    g_autofree char *type = NULL, *quoted = NULL;

    if (err != ENOTCONN && err != ECONNABORTED) {
        log_error_errno(-err, "cannot mount on %s", path);
        return;
    }
    type = mountinfo_type(NULL, path);
    quoted = g_shell_quote(path);
    log_error("cannot mount on %s: a dead mount of another file system (%s) lies there: its process has ended; remove it with "
              "`fusermount3 -u %s`, or as root `umount %s`",
              path, type ? type : "of type fuse", quoted, quoted);
}

static int check_mountpoint(const char *path)
{
    struct stat st;
    int r = mount_state(path);

    if (r == 2) {
        log_notice("%s: replacing the mount of a daemon that died", path);
        if (detach_dead(path) < 0) {
            log_error("%s: its daemon died, and the dead mount cannot be removed: run `fusermount3 -u -z %s`", path, path);
            return EXIT_MOUNTPOINT;
        }
    } else if (r == 1) {
        log_error("%s: mlopsfs is mounted there already: unmount it first (`mlopsfs umount %s`)", path, path);
        return EXIT_MOUNTPOINT;
    }
    if (stat(path, &st) < 0) {
        explain_stat(path, errno);
        return EXIT_MOUNTPOINT;
    }
    if (!S_ISDIR(st.st_mode)) {
        log_error("cannot mount on %s: it is not a directory", path);
        return EXIT_MOUNTPOINT;
    }
    if (geteuid() != 0 && access(path, W_OK) < 0) {
        log_error_errno(-errno, "cannot mount on %s: it must be writable for who mounts", path);
        return EXIT_MOUNTPOINT;
    }
    return 0;
}

/* The kernel's read-ahead of this mount, through its backing device's knob; root only, best effort. The answer to INIT sets it
 * back: so at the first request, which the kernel sends after that. Does not touch the mount, which would make it busy. */
static void raise_read_ahead(void *ctx)
{
    const char *mountpoint = ((struct mount *)ctx)->config->mountpoint;
    g_autofree char *text = NULL;
    g_auto(GStrv) lines = NULL;

    if (!g_file_get_contents("/proc/self/mountinfo", &text, NULL, NULL))
        return;
    lines = g_strsplit(text, "\n", -1);
    for (char **l = lines; *l; l++) {
        g_auto(GStrv) f = g_strsplit(*l, " ", 6);
        g_autofree char *knob = NULL, *value = g_strdup_printf("%d", READ_AHEAD_KIB);
        int fd;

        g_autofree char *where = g_strv_length(f) < 6 ? NULL : g_strcompress(f[4]);
        if (g_strcmp0(where, mountpoint) != 0)
            continue;
        knob = g_strdup_printf("/sys/class/bdi/%s/read_ahead_kb", f[2]);
        fd = open(knob, O_WRONLY | O_CLOEXEC);
        if (fd < 0)
            continue;
        if (write(fd, value, strlen(value)) < 0)
            log_debug_errno(-errno, "cannot set %s", knob);
        close(fd);
    }
}

/* ---- serving ---- */

static void to_background(struct mount *m)
{
    const struct config *c = m->config;
    int null;

    if (c->log_file && log_to_file(c->log_file) < 0)
        log_warning("cannot write log_file %s: messages go to %s", c->log_file, c->foreground ? "stderr" : "syslog");
    if (c->foreground)
        return;
    if (!c->log_file)
        log_to_syslog("mlopsfs");
    null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null >= 0) {
        dup2(null, STDIN_FILENO);
        dup2(null, STDOUT_FILENO);
        dup2(null, STDERR_FILENO);
        close(null);
    }
}

/* From the INIT handler: requests are answered from here on. */
static void serving(void *ctx)
{
    struct mount *m = ctx;

    to_background(m);
    if (!m->config->foreground || m->config->log_file)
        stack_warn_volatile(m->config); /* in the log, too */
    (void)tell_parent(m, 0);
}

/* As it was given, so that `mount -a` finds it mounted; libfuse wants commas and backslashes escaped. */
static void append_source(GString *o, const char *source)
{
    for (const char *p = source; *p; p++) {
        if (*p == ',' || *p == '\\')
            g_string_append_c(o, '\\');
        g_string_append_c(o, g_ascii_iscntrl(*p) ? '_' : *p);
    }
}

static struct fuse_session *new_session(struct mount *m)
{
    const struct config *c = m->config;
    struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
    struct fuse_session *se;
    g_autoptr(GString) o = g_string_new("subtype=mlopsfs,default_permissions,fsname=");

    append_source(o, c->source);
    if (c->allow_other)
        g_string_append(o, ",allow_other");
    if (c->read_only)
        g_string_append(o, ",ro");
    if (c->kernel_options && *c->kernel_options)
        g_string_append_printf(o, ",%s", c->kernel_options);
    fuse_opt_add_arg(&args, "mlopsfs");
    fuse_opt_add_arg(&args, "-o");
    fuse_opt_add_arg(&args, o->str);
    se = fuse_session_new(&args, &fs_ops, sizeof(fs_ops), &m->fs);
    fuse_opt_free_args(&args);
    return se;
}

static int loop(struct fuse_session *se)
{
    struct fuse_loop_config *lc = fuse_loop_cfg_create();
    int r;

    fuse_loop_cfg_set_clone_fd(lc, 1);
    fuse_loop_cfg_set_max_threads(lc, WORKERS);
    fuse_loop_cfg_set_idle_threads(lc, WORKERS);
    r = fuse_session_loop_mt(se, lc);
    fuse_loop_cfg_destroy(lc);
    if (r != -ECONNABORTED)
        return r;
    /* Seen when a mount namespace ended with the last mount in it; after umount -f it is ENODEV, which libfuse takes for an unmount. */
    log_notice("the kernel ended the connection; what is written is brought into the bucket as after any unmount");
    return 0;
}

static int serve(struct mount *m)
{
    struct fuse_session *se = new_session(m);
    struct control *control = NULL;
    int code = EXIT_OTHER;

    if (!se) {
        log_error("cannot make a FUSE session: a mount option is not known to the kernel or to libfuse");
        return code;
    }
    m->fs.session = se;
    if (fuse_set_signal_handlers(se) == 0) {
        if (fuse_session_mount(se, m->config->mountpoint) < 0) {
            log_error("cannot mount on %s: see above; is /dev/fuse there, and (for allow_other) user_allow_other in /etc/fuse.conf?",
                      m->config->mountpoint);
            code = EXIT_MOUNTPOINT;
        } else {
            (void)control_new(m->config->mountpoint, status_handle, &m->fs, &control);
            code = loop(se) < 0 ? EXIT_OTHER : 0;
            fuse_session_unmount(se);
            opened_cancel_all(m->fs.parked); /* they reply to the session */
            control_free(control);
        }
        fuse_remove_signal_handlers(se);
    }
    fuse_session_destroy(se);
    return code;
}

static int child(struct mount *m)
{
    int code = stack_open(&m->fs, m->config);

    m->fs.serving = serving;
    m->fs.first_request = raise_read_ahead;
    m->fs.serving_ctx = m;
    if (code == 0)
        code = serve(m);
    stack_close(&m->fs);
    return tell_parent(m, code);
}

/* ---- the parent ---- */

static int wait_ready(int fd, pid_t pid)
{
    char code = EXIT_OTHER;
    ssize_t n;

    do
        n = read(fd, &code, 1);
    while (n < 0 && errno == EINTR);
    close(fd);
    if (n != 1) { /* it died without a word of its own */
        int status = 0;

        waitpid(pid, &status, 0);
        log_error("the daemon ended before the mount was ready (status %d)", status);
        return EXIT_OTHER;
    }
    return code;
}

/* Memory is counted: few arenas, and big buffers go back to the system at once. */
static void tame_malloc(void)
{
    mallopt(M_ARENA_MAX, 2);
    mallopt(M_MMAP_THRESHOLD, 128 << 10);
    mallopt(M_TRIM_THRESHOLD, 1 << 20);
}

int mount_run(struct config *c)
{
    struct mount m = {.config = c, .ready_fd = -1};
    int pipefd[2];
    pid_t pid;
    int code = check_mountpoint(c->mountpoint);

    if (code)
        return code;
    tame_malloc();
    if (c->foreground)
        return child(&m);
    if (pipe2(pipefd, O_CLOEXEC) < 0)
        return log_error_errno(-errno, "cannot make a pipe"), EXIT_OTHER;
    pid = fork();
    if (pid < 0)
        return log_error_errno(-errno, "cannot start the daemon"), EXIT_OTHER;
    if (pid > 0) {
        close(pipefd[1]);
        return wait_ready(pipefd[0], pid);
    }
    close(pipefd[0]);
    m.ready_fd = pipefd[1];
    if (setsid() < 0 || chdir("/") < 0)
        _exit(tell_parent(&m, EXIT_OTHER));
    return child(&m);
}
