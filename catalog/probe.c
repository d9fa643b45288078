/* SPDX-License-Identifier: Apache-2.0
 *
 * probe: starts one helper process per file, serves its reads, takes its facts, ends and reaps it.
 *
 * Threads: any; each call has its own process, socket and buffer. Locks: none. Invariants: when
 * probe_run() returns, the helper is dead and reaped and its socket closed; the helper inherits
 * descriptor 3 and /dev/null, an empty environment and no signal mask.
 */
#include "catalog/probe.h"
#include "base/clock.h"
#include "base/log.h"
#include "catalog/probe_proto.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define TIMEOUT_NS (20 * NSEC_PER_SEC)
#define MEMORY (512ULL << 20)
#define READ_MAX (64ULL << 20)

/* ---- bytes over the socket, within the deadline ---- */

static int wait_for(int fd, short events, uint64_t deadline_ns)
{
    for (;;) {
        uint64_t now = clock_mono_ns();
        if (now >= deadline_ns)
            return -ETIMEDOUT;
        uint64_t ms = (deadline_ns - now + NSEC_PER_MSEC - 1) / NSEC_PER_MSEC;
        struct pollfd p = {.fd = fd, .events = events};
        int r = poll(&p, 1, ms > 3600000 ? 3600000 : (int)ms);
        if (r > 0)
            return 0;
        if (r < 0 && errno != EINTR)
            return -errno;
    }
}

/* The peer's end, or its own doing: a helper that dies is a protocol error, not ours. */
static int peer_errno(int err)
{
    return err == EPIPE || err == ECONNRESET ? -EPROTO : -err;
}

static int send_all(int fd, const void *buf, size_t n, uint64_t deadline_ns)
{
    const char *p = buf;
    while (n > 0) {
        ssize_t k = send(fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (k < 0 && errno == EAGAIN) {
            int r = wait_for(fd, POLLOUT, deadline_ns);
            if (r < 0)
                return r;
        } else if (k < 0 && errno != EINTR) {
            return peer_errno(errno);
        } else if (k > 0) {
            p += k;
            n -= (size_t)k;
        }
    }
    return 0;
}

static int recv_all(int fd, void *buf, size_t n, uint64_t deadline_ns)
{
    char *p = buf;
    while (n > 0) {
        ssize_t k = recv(fd, p, n, MSG_DONTWAIT);
        if (k == 0)
            return -EPROTO;
        if (k < 0 && errno == EAGAIN) {
            int r = wait_for(fd, POLLIN, deadline_ns);
            if (r < 0)
                return r;
        } else if (k < 0 && errno != EINTR) {
            return peer_errno(errno);
        } else if (k > 0) {
            p += k;
            n -= (size_t)k;
        }
    }
    return 0;
}

/* ---- the conversation ---- */

/* Only the extension counts; the rest might be taken for a protocol or a pattern. */
static void name_reduce(char to[PROBE_NAME], const char *name)
{
    const char *dot = strrchr(name, '.');
    const char *end = dot ? dot + 1 : name;
    size_t n = strspn(end, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789");
    bool sane = dot && n > 0 && n <= 8 && !end[n];
    g_strlcpy(to, "media", PROBE_NAME);
    if (sane)
        g_strlcat(to, dot, PROBE_NAME);
}

static int say_hello(int fd, const struct probe_params *p, const struct probe_source *src,
                     uint64_t deadline_ns)
{
    uint64_t timeout = p->timeout_ns ? p->timeout_ns : TIMEOUT_NS;
    struct probe_hello h = {
        .magic = PROBE_MAGIC,
        .cpu_seconds = (uint32_t)MIN(timeout / NSEC_PER_SEC + 1, 86400),
        .size = src->size,
        .read_max = p->read_max ? p->read_max : READ_MAX,
        .memory = p->memory ? p->memory : MEMORY,
    };
    name_reduce(h.name, src->name ? src->name : "");
    return send_all(fd, &h, sizeof(h), deadline_ns);
}

static int serve_read(int fd, const struct probe_source *src, const struct probe_msg *m, void *buf,
                      uint64_t deadline_ns)
{
    ssize_t k = src->read(src->ctx, buf, m->len, m->off);
    if (k < 0)
        return (int)k;
    if ((size_t)k != m->len)
        return -EIO;
    return send_all(fd, buf, m->len, deadline_ns);
}

int probe_talk(int fd, const struct probe_params *p, const struct probe_source *src,
               uint64_t deadline_ns, struct video *ret)
{
    int r = say_hello(fd, p, src, deadline_ns);
    if (r < 0)
        return r;
    struct probe_limits limits = {src->size, p->read_max ? p->read_max : READ_MAX};
    g_autofree char *buf = g_malloc(PROBE_CHUNK);
    for (;;) {
        struct probe_msg m;
        if (clock_mono_ns() >= deadline_ns)
            return -ETIMEDOUT;
        r = recv_all(fd, &m, sizeof(m), deadline_ns);
        if (r == 0)
            r = probe_msg_check(&m, &limits);
        if (r < 0)
            return r;
        if (m.type == PROBE_FACTS)
            break;
        r = serve_read(fd, src, &m, buf, deadline_ns);
        if (r < 0)
            return r;
    }
    struct probe_facts facts;
    r = recv_all(fd, &facts, sizeof(facts), deadline_ns);
    if (r == 0)
        probe_facts_decode(&facts, ret);
    return r;
}

/* ---- the process ---- */

static int spawn_actions(posix_spawn_file_actions_t *a, int fd)
{
    int r = posix_spawn_file_actions_adddup2(a, fd, PROBE_FD);
    for (int i = 0; r == 0 && i < PROBE_FD; i++)
        r = posix_spawn_file_actions_addopen(a, i, "/dev/null", O_RDWR, 0);
    if (r == 0)
        r = posix_spawn_file_actions_addclosefrom_np(a, PROBE_FD + 1);
    return r;
}

static int spawn_attributes(posix_spawnattr_t *a)
{
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    int r = posix_spawnattr_setsigmask(a, &none);
    if (r == 0)
        r = posix_spawnattr_setsigdefault(a, &all);
    if (r == 0) /* a group of its own: Ctrl-C at the terminal is not for it */
        r = posix_spawnattr_setpgroup(a, 0);
    if (r == 0)
        r = posix_spawnattr_setflags(a, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
                                            POSIX_SPAWN_SETPGROUP);
    return r;
}

static int helper_spawn(const char *path, int fd, pid_t *ret)
{
    char name[] = "mlopsfs-probe", locale[] = "LC_ALL=C";
    char *const argv[] = {name, NULL}, *const envp[] = {locale, NULL};
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    int r = posix_spawn_file_actions_init(&actions);
    if (r != 0)
        return -r;
    r = posix_spawnattr_init(&attributes);
    if (r == 0) {
        r = spawn_actions(&actions, fd);
        if (r == 0)
            r = spawn_attributes(&attributes);
        if (r == 0)
            r = posix_spawn(ret, path, &actions, &attributes, argv, envp);
        posix_spawnattr_destroy(&attributes);
    }
    posix_spawn_file_actions_destroy(&actions);
    return -r;
}

static void helper_end(pid_t pid)
{
    /* Unreaped till the next call, so the number is still its own. */
    (void)kill(pid, SIGKILL);
    int status = 0;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return;
    if (WIFEXITED(status) && WEXITSTATUS(status) == PROBE_EXIT_SANDBOX)
        log_warning("no video facts: this system does not let mlopsfs-probe lock itself in");
}

int probe_run(const struct probe_params *p, const struct probe_source *src, struct video *ret)
{
    if (src->size == 0) {
        *ret = (struct video){.duration = -1};
        return 0;
    }
    uint64_t deadline = clock_mono_ns() + (p->timeout_ns ? p->timeout_ns : TIMEOUT_NS);
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
        return -errno;
    pid_t pid;
    int r = helper_spawn(p->helper, fds[1], &pid);
    close(fds[1]);
    if (r == 0) {
        r = probe_talk(fds[0], p, src, deadline, ret);
        if (r < 0)
            log_debug_errno(r, "mlopsfs-probe has no facts of %s",
                            src->name ? src->name : "a file");
        close(fds[0]);
        helper_end(pid);
        return r;
    }
    close(fds[0]);
    return r;
}
