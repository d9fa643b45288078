/* SPDX-License-Identifier: Apache-2.0
 *
 * powerlog: a library to preload, which writes down in their order the changes that a process makes to files below $POWERLOG_DIR, with
 * what it syncs. tests/crash/power.py makes of that what a disk may hold after a power cut. The log is $POWERLOG_OUT; a record is a
 * line "OP PATH A B", PATH relative and A, B decimal, for OP "write" followed by B bytes that went to offset A. Others append marks of
 * their own to the log, in records "mark TEXT 0 0".
 *
 * One call at a time, so that the log has the order in which they took effect. Not seen: what is written through a mapping, which
 * SQLite does only to what does not outlive a crash.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* covers each call with its record */

#define NEXT(name) __extension__((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* The path below the directory that is watched, or NULL. */
static const char *watched(const char *path)
{
    const char *dir = getenv("POWERLOG_DIR");
    size_t n = dir ? strlen(dir) : 0;
    return n > 0 && strncmp(path, dir, n) == 0 && path[n] == '/' ? path + n + 1 : NULL;
}

static const char *path_of(int fd, char buf[static PATH_MAX])
{
    char link[64];
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, buf, PATH_MAX - 1);
    buf[n > 0 ? n : 0] = '\0';
    return watched(buf);
}

static void record(const char *op, const char *path, long long a, long long b, const void *data)
{
    static int log_fd = -1; /* lock */
    char head[PATH_MAX + 100];
    if (log_fd < 0)
        log_fd = NEXT(open)(getenv("POWERLOG_OUT"), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    int n = snprintf(head, sizeof(head), "%s %s %lld %lld\n", op, path, a, b);
    struct iovec v[] = {{head, (size_t)n}, {(void *)data, data ? (size_t)b : 0}};
    if (writev(log_fd, v, 2) != (ssize_t)(v[0].iov_len + v[1].iov_len))
        abort();
}

/* Makes a call, and its record when it has taken effect. */
#define LOGGED(path, call, op, a, b, data)           \
    do {                                             \
        pthread_mutex_lock(&lock);                   \
        r = call;                                    \
        int e = errno;                               \
        if (r >= 0 && (path))                        \
            record(op, path, (long long)(a), (long long)(b), data); \
        pthread_mutex_unlock(&lock);                 \
        errno = e;                                   \
    } while (0)

#define PWRITE(name)                                                      \
    ssize_t name(int fd, const void *buf, size_t n, off_t off)            \
    {                                                                     \
        char p[PATH_MAX];                                                 \
        const char *path = path_of(fd, p);                                \
        ssize_t r;                                                        \
        LOGGED(path, NEXT(name)(fd, buf, n, off), "write", off, r, buf);  \
        return r;                                                         \
    }
PWRITE(pwrite)
PWRITE(pwrite64)

#define TRUNCATE(name)                                                  \
    int name(int fd, off_t n)                                           \
    {                                                                   \
        char p[PATH_MAX];                                               \
        const char *path = path_of(fd, p);                              \
        int r;                                                          \
        LOGGED(path, NEXT(name)(fd, n), "truncate", n, 0, NULL);        \
        return r;                                                       \
    }
TRUNCATE(ftruncate)
TRUNCATE(ftruncate64)

#define SYNC(name)                                                      \
    int name(int fd)                                                    \
    {                                                                   \
        char p[PATH_MAX];                                               \
        const char *path = path_of(fd, p);                              \
        int r;                                                          \
        LOGGED(path, NEXT(name)(fd), "sync", 0, 0, NULL);               \
        return r;                                                       \
    }
SYNC(fsync)
SYNC(fdatasync)

#define FALLOCATE(name)                                                 \
    int name(int fd, int mode, off_t off, off_t n)                      \
    {                                                                   \
        char p[PATH_MAX];                                               \
        const char *path = path_of(fd, p);                              \
        int r;                                                          \
        LOGGED(path, NEXT(name)(fd, mode, off, n), "punch", off, n, NULL); \
        return r;                                                       \
    }
/* A record with B but no bytes: only "write" has them. */
FALLOCATE(fallocate)
FALLOCATE(fallocate64)

#define OPEN(name)                                                      \
    int name(const char *file, int flags, ...)                          \
    {                                                                   \
        va_list ap;                                                     \
        va_start(ap, flags);                                            \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(ap, mode_t) : 0; \
        va_end(ap);                                                     \
        const char *path = flags & O_CREAT ? watched(file) : NULL;      \
        struct stat st;                                                 \
        if (path && lstat(file, &st) == 0)                              \
            path = NULL;                                                \
        int r;                                                          \
        LOGGED(path, NEXT(name)(file, flags, mode), "create", 0, 0, NULL); \
        return r;                                                       \
    }
OPEN(open)
OPEN(open64)

#define NAMED(name, op, params, args)                                   \
    int name params                                                     \
    {                                                                   \
        const char *path = watched(file);                               \
        int r;                                                          \
        LOGGED(path, NEXT(name) args, op, 0, 0, NULL);                  \
        return r;                                                       \
    }
NAMED(unlink, "unlink", (const char *file), (file))
NAMED(rmdir, "unlink", (const char *file), (file))
NAMED(mkdir, "mkdir", (const char *file, mode_t mode), (file, mode))
