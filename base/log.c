/* SPDX-License-Identifier: Apache-2.0
 *
 * log: see log.h. Threads: any; no lock: a message is built on the stack and leaves in one write(2)
 * (files are opened O_APPEND) or one syslog(3).
 */
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"

#define MESSAGE_MAX 6144 /* a path and a key of the longest kind, escaped or not */

enum target { TARGET_STDERR, TARGET_SYSLOG, TARGET_FILE };

/* Set by main before the first thread starts, only read after (see log.h). */
static struct {
    enum target target;
    int level;
    int fd;
} to = {.target = TARGET_STDERR, .level = LOG_INFO, .fd = STDERR_FILENO};

void log_set_level(int max_level)
{
    to.level = max_level;
}

int log_get_level(void)
{
    return to.level;
}

static void close_file(void)
{
    if (to.target == TARGET_FILE)
        close(to.fd);
    to.fd = STDERR_FILENO;
}

void log_to_syslog(const char *ident)
{
    close_file();
    openlog(ident, LOG_PID | LOG_NDELAY, LOG_DAEMON);
    to.target = TARGET_SYSLOG;
}

int log_to_file(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0600);
    if (fd < 0)
        return -errno;
    close_file();
    to.fd = fd;
    to.target = TARGET_FILE;
    return 0;
}

/* Keys and server replies may hold anything: one message stays one line, and no terminal obeys it.
 */
static void strip_control(char *s)
{
    for (unsigned char *p = (unsigned char *)s; *p; p++) {
        if (*p < 0x20 || *p == 0x7f)
            *p = '?';
        else if (*p == 0xc2 && p[1] >= 0x80 && p[1] <= 0x9f) /* C1 controls in UTF-8 */
            *p = p[1] = '?';
    }
}

static const char *level_name(int level)
{
    static const char *const names[] = {"emerg",   "alert",  "crit", "error",
                                        "warning", "notice", "info", "debug"};
    return names[level & LOG_PRIMASK];
}

static void write_all(int fd, const char *line, size_t n)
{
    ssize_t w;
    do
        w = write(fd, line, n);
    while (w < 0 && errno == EINTR);
    /* A log that cannot be written has nowhere to say so. */
}

static void emit(int level, const char *text)
{
    char line[MESSAGE_MAX + 128];
    int n;
    switch (to.target) {
    case TARGET_SYSLOG:
        syslog(level, "%s", text);
        return;
    case TARGET_FILE: {
        struct timespec ts = clock_timespec(clock_real_ns());
        struct tm tm;
        gmtime_r(&ts.tv_sec, &tm);
        char stamp[32];
        strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%S", &tm);
        n = snprintf(line, sizeof(line), "%s.%03ldZ mlopsfs[%d] %s: %s\n", stamp,
                     ts.tv_nsec / 1000000, (int)getpid(), level_name(level), text);
        break;
    }
    default:
        n = snprintf(line, sizeof(line), "mlopsfs: %s\n", text);
        break;
    }
    if (n > 0)
        write_all(to.fd, line, (size_t)n < sizeof(line) ? (size_t)n : sizeof(line) - 1);
}

int log_message(int level, int r, const char *fmt, ...)
{
    if (level > to.level)
        return r;
    int saved_errno = errno;
    char text[MESSAGE_MAX];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (n < 0)
        n = 0, text[0] = '\0';
    if (r < 0 && (size_t)n < sizeof(text)) {
        char buf[128];
        snprintf(text + n, sizeof(text) - (size_t)n, ": %s", strerror_r(-r, buf, sizeof(buf)));
    }
    strip_control(text);
    emit(level, text);
    errno = saved_errno;
    return r;
}
