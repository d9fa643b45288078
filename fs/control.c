/* SPDX-License-Identifier: Apache-2.0
 *
 * control: see control.h. Threads: one accepts; a few serve, one connection each, so that a status
 * is told while a drain runs. The only lock is the queue's own. `wake` is an eventfd that
 * control_free() makes readable for good: every wait on a socket also waits on it. Handlers run
 * with no lock held.
 *
 * The socket is bound under a passing name and renamed to its own, so that a name always leads to a
 * daemon that listens, or to one that is dead. Who may speak: the daemon's own user and root.
 */
#include "fs/control.h"

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "base/thread.h"
#include "base/workq.h"
#include "fs/mountinfo.h"

#define REQUEST_MAX 16384
#define REQUEST_TIMEOUT_MS 10000
#define SEND_TIMEOUT_S 30
#define SERVERS 8

struct control {
    control_handler *handler;
    void *ctx;
    int listener, wake;
    int dir;        /* O_PATH */
    char *name;     /* in dir */
    struct stat st; /* of our socket: another daemon may have taken the name since */
    pthread_t thread;
    struct workq *servers;
};

struct connection {
    struct control *control;
    int fd;
};

/* ---- where the socket lies ---- */

/* Directories that the daemon of a user may use, best first. NULL-terminated. */
static char **directories(uid_t uid)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR"), *cache = getenv("XDG_CACHE_HOME"),
               *home = getenv("HOME");
    bool own = uid == geteuid();
    GPtrArray *d = g_ptr_array_new();

    if (uid == 0)
        g_ptr_array_add(d, g_strdup("/run/mlopsfs"));
    if (own && runtime && *runtime == '/')
        g_ptr_array_add(d, g_build_filename(runtime, "mlopsfs", NULL));
    if (uid != 0)
        g_ptr_array_add(d, g_strdup_printf("/run/user/%u/mlopsfs", uid));
    if (own && cache && *cache == '/')
        g_ptr_array_add(d, g_build_filename(cache, "mlopsfs/run", NULL));
    else if (own && home && *home == '/')
        g_ptr_array_add(d, g_build_filename(home, ".cache/mlopsfs/run", NULL));
    g_ptr_array_add(d, NULL);
    return (char **)g_ptr_array_free(d, FALSE);
}

static char *socket_name(const char *mountpoint)
{
    g_autofree char *hash = g_compute_checksum_for_string(G_CHECKSUM_SHA256, mountpoint, -1);

    return g_strdup_printf("%.32s.sock", hash);
}

/* A name below an open directory, whatever the length of the directory's path. */
static void socket_address(struct sockaddr_un *a, int dir, const char *name)
{
    *a = (struct sockaddr_un){.sun_family = AF_UNIX};
    snprintf(a->sun_path, sizeof(a->sun_path), "/proc/self/fd/%d/%s", dir, name);
}

/* Opens a directory that only uid can enter, made if need be. The directory or -errno. */
static int directory_open(const char *path, uid_t uid, bool make)
{
    struct stat st;

    if (make && g_mkdir_with_parents(path, 0700) < 0)
        return -errno;
    int fd = open(path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    if (fstat(fd, &st) < 0 || st.st_uid != uid || (st.st_mode & 077)) {
        close(fd);
        return -EPERM;
    }
    return fd;
}

/* ---- the daemon's side ---- */

static ssize_t reply_write(void *cookie, const char *buf, size_t n)
{
    const struct connection *conn = cookie;

    for (size_t done = 0; done < n;) {
        ssize_t r = send(conn->fd, buf + done, n - done, MSG_NOSIGNAL);
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return 0; /* stdio's convention for an error */
        done += (size_t)r;
    }
    return (ssize_t)n;
}

static bool peer_allowed(int fd)
{
    struct ucred peer;
    socklen_t n = sizeof(peer);

    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) == 0 &&
           (peer.uid == geteuid() || peer.uid == 0);
}

/* The request's line without its newline; NULL when none came in time. */
static char *read_request(const struct connection *conn)
{
    g_autoptr(GString) line = g_string_new(NULL);
    char buf[1024];

    while (line->len < REQUEST_MAX) {
        struct pollfd p[] = {{.fd = conn->fd, .events = POLLIN},
                             {.fd = conn->control->wake, .events = POLLIN}};
        int r = poll(p, 2, REQUEST_TIMEOUT_MS);
        if (r < 0 && errno == EINTR)
            continue;
        if (r <= 0 || p[1].revents)
            return NULL;
        ssize_t n = recv(conn->fd, buf, sizeof(buf), 0);
        if (n <= 0)
            return NULL;
        g_string_append_len(line, buf, n);
        char *end = memchr(line->str, '\n', line->len);
        if (end) {
            *end = 0;
            return g_strdup(line->str);
        }
    }
    return NULL;
}

static void answer(struct connection *conn, char *request)
{
    cookie_io_functions_t io = {.write = reply_write};
    FILE *reply = fopencookie(conn, "w", io);
    char *space = strchr(request, ' ');

    if (!reply)
        return;
    setvbuf(reply, NULL, _IOLBF, 4096);
    if (space)
        *space = 0;
    g_autofree char *arg = g_strcompress(space ? space + 1 : "");
    int r = conn->control->handler(conn->control->ctx, request, arg, reply);
    if (r < 0)
        fprintf(reply, "ERR %s\n", r == -EREMOTEIO ? "" : g_strerror(-r));
    else
        fprintf(reply, "OK\n");
    fclose(reply);
}

static void serve(void *arg)
{
    struct connection *conn = arg;
    g_autofree char *request = read_request(conn);

    if (request)
        answer(conn, request);
    close(conn->fd);
    g_free(conn);
}

static void *accept_loop(void *arg)
{
    struct control *c = arg;
    struct pollfd p[] = {{.fd = c->listener, .events = POLLIN}, {.fd = c->wake, .events = POLLIN}};

    for (;;) {
        int r = poll(p, 2, -1);
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0 || p[1].revents)
            return NULL;
        int fd = accept4(c->listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0)
            continue;
        struct timeval limit = {.tv_sec = SEND_TIMEOUT_S};
        if (!peer_allowed(fd) ||
            setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) < 0) {
            close(fd);
            continue;
        }
        struct connection *conn = g_new(struct connection, 1);
        *conn = (struct connection){.control = c, .fd = fd};
        workq_push(c->servers, serve, conn);
    }
}

/* Listens at dir/name in place of whatever has that name. */
static int listen_at(struct control *c)
{
    g_autofree char *passing = g_strdup_printf("%s.%d", c->name, (int)getpid());
    struct sockaddr_un a;
    int r = 0;

    c->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (c->listener < 0)
        return -errno;
    socket_address(&a, c->dir, passing);
    unlinkat(c->dir, passing, 0); /* of a dead process with our number */
    mode_t mask = umask(077);
    if (bind(c->listener, (struct sockaddr *)&a, sizeof(a)) < 0)
        r = -errno;
    umask(mask);
    if (r < 0)
        return r;
    if (listen(c->listener, 16) < 0 || fstatat(c->dir, passing, &c->st, AT_SYMLINK_NOFOLLOW) < 0 ||
        renameat(c->dir, passing, c->dir, c->name) < 0) {
        r = -errno;
        unlinkat(c->dir, passing, 0);
    }
    return r;
}

static int open_and_listen(struct control *c)
{
    g_auto(GStrv) dirs = directories(geteuid());
    int r = -ENOENT;

    for (char **d = dirs; *d; d++) {
        c->dir = directory_open(*d, geteuid(), true);
        if (c->dir < 0) {
            r = c->dir;
            continue;
        }
        r = listen_at(c);
        if (r == 0)
            return 0;
        if (c->listener >= 0)
            close(c->listener);
        close(c->dir);
        c->listener = c->dir = -1;
    }
    return r;
}

/* Only if the name still leads to us. */
static void remove_socket(struct control *c)
{
    struct stat st;

    if (fstatat(c->dir, c->name, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_ino == c->st.st_ino &&
        st.st_dev == c->st.st_dev)
        unlinkat(c->dir, c->name, 0);
}

static void control_destroy(struct control *c)
{
    if (c->servers)
        workq_free(c->servers);
    if (c->listener >= 0) {
        remove_socket(c);
        close(c->listener);
    }
    if (c->dir >= 0)
        close(c->dir);
    if (c->wake >= 0)
        close(c->wake);
    g_free(c->name);
    g_free(c);
}

int control_new(const char *mountpoint, control_handler *handler, void *ctx, struct control **ret)
{
    struct control *c = g_new(struct control, 1);

    *c = (struct control){.handler = handler, .ctx = ctx, .listener = -1, .dir = -1};
    c->name = socket_name(mountpoint);
    c->wake = eventfd(0, EFD_CLOEXEC);
    int r = c->wake < 0 ? -errno : open_and_listen(c);
    if (r == 0)
        r = workq_new("mlopsfs-serve", SERVERS, &c->servers);
    if (r == 0)
        r = thread_start(&c->thread, "mlopsfs-control", accept_loop, c);
    if (r < 0) {
        control_destroy(c);
        return log_error_errno(
            r, "%s: cannot make the socket for `mlopsfs status` and `mlopsfs umount`", mountpoint);
    }
    *ret = c;
    return 0;
}

void control_free(struct control *c)
{
    if (!c)
        return;
    remove_socket(c);
    eventfd_write(c->wake, 1);
    pthread_join(c->thread, NULL);
    control_destroy(c);
}

/* ---- the client's side ---- */

/* Who mounted it decides where its daemon listens; only root asks for another. */
static uid_t daemon_uid(const char *mountpoint)
{
    g_autoptr(GPtrArray) list = NULL;

    if (geteuid() != 0)
        return geteuid();
    list = mountinfo_list(NULL);
    const struct mountinfo *m = mountinfo_find(list, mountpoint);
    return m && strcmp(m->mountpoint, mountpoint) == 0 ? m->uid : 0;
}

/* A socket that a living daemon answers, or -ENOENT. */
static int dial(const char *mountpoint)
{
    uid_t uid = daemon_uid(mountpoint);
    g_auto(GStrv) dirs = directories(uid);
    g_autofree char *name = socket_name(mountpoint);

    for (char **d = dirs; *d; d++) {
        struct sockaddr_un a;
        int dir = directory_open(*d, uid, false);
        if (dir < 0)
            continue;
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        socket_address(&a, dir, name);
        int r = fd < 0 ? -1 : connect(fd, (struct sockaddr *)&a, sizeof(a));
        close(dir);
        if (r == 0)
            return fd;
        if (fd >= 0)
            close(fd);
    }
    return -ENOENT;
}

static int verdict(const char *mountpoint, const char *last)
{
    if (strcmp(last, "OK") == 0)
        return 0;
    last += strlen("ERR ");
    if (*last)
        log_error("%s: %s", mountpoint, last);
    return -EREMOTEIO;
}

/* Only the very last line is the verdict, so one that looks like it waits for the next. */
static int read_reply(const char *mountpoint, int fd, void (*line)(void *ctx, const char *text),
                      void *ctx)
{
    FILE *in = fdopen(fd, "r");
    g_autofree char *held = NULL;
    char *text = NULL;
    size_t size = 0;
    ssize_t n;

    if (!in) {
        close(fd);
        return -ENOMEM;
    }
    while ((n = getline(&text, &size, in)) > 0) {
        bool whole = text[n - 1] == '\n';
        if (whole)
            text[n - 1] = 0;
        if (held && line)
            line(ctx, held);
        g_clear_pointer(&held, g_free);
        if (whole && (strcmp(text, "OK") == 0 || g_str_has_prefix(text, "ERR ")))
            held = g_strdup(text);
        else if (line)
            line(ctx, text);
    }
    free(text);
    fclose(in);
    return held ? verdict(mountpoint, held) : -ECOMM;
}

int control_call(const char *mountpoint, const char *command, const char *arg,
                 void (*line)(void *ctx, const char *text), void *ctx)
{
    g_autofree char *escaped = g_strescape(arg ? arg : "", NULL);
    g_autofree char *request = g_strdup_printf("%s%s%s\n", command, *escaped ? " " : "", escaped);
    size_t n = strlen(request);

    if (n > REQUEST_MAX)
        return -ENAMETOOLONG;
    int fd = dial(mountpoint);
    if (fd < 0)
        return fd;
    if (send(fd, request, n, MSG_NOSIGNAL) != (ssize_t)n) {
        close(fd);
        return -ECOMM;
    }
    return read_reply(mountpoint, fd, line, ctx);
}

int control_pid(const char *mountpoint, pid_t *ret)
{
    struct ucred peer;
    socklen_t n = sizeof(peer);
    int fd = dial(mountpoint);

    if (fd < 0)
        return fd;
    int r = getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n);
    close(fd);
    if (r < 0 || peer.pid <= 0)
        return -ENOENT;
    *ret = peer.pid;
    return 0;
}
