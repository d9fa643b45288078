/* SPDX-License-Identifier: Apache-2.0
 *
 * The control socket: replies and errors, streaming, several clients at once, clients and daemons
 * that vanish, stale sockets. Mount points are names only: nothing is mounted.
 */
#include <errno.h>
#include <glib.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mutex.h"
#include "base/thread.h"
#include "fs/control.h"

/* What handler and client see of each other. */
struct meeting {
    struct mutex lock;
    struct cond changed;
    unsigned arrived; /* lock: handlers in "wait" */
    bool go;          /* lock: they may end */
    bool gone;        /* lock: a handler saw that its client is gone */
};

static int handler(void *ctx, const char *command, const char *arg, FILE *reply)
{
    struct meeting *m = ctx;

    if (strcmp(command, "status") == 0) {
        fprintf(reply, "one\ntwo %s\n", arg);
        return 0;
    }
    if (strcmp(command, "odd") == 0) {
        fprintf(reply, "OK\nERR no\n\nlast");
        fputc('\n', reply);
        return 0;
    }
    if (strcmp(command, "wait") == 0) {
        fprintf(reply, "waiting\n");
        mutex_lock(&m->lock);
        m->arrived++;
        cond_broadcast(&m->changed);
        while (!m->go)
            cond_wait(&m->changed, &m->lock);
        mutex_unlock(&m->lock);
        return 0;
    }
    if (strcmp(command, "flood") == 0) {
        while (!ferror(reply))
            fprintf(reply, "%0200d\n", 0);
        mutex_lock(&m->lock);
        m->gone = true;
        cond_broadcast(&m->changed);
        mutex_unlock(&m->lock);
        return 0;
    }
    if (strcmp(command, "die") == 0) {
        fprintf(reply, "OK\n");
        fflush(reply);
        fprintf(reply, "more\n");
        fflush(reply);
        _exit(0);
    }
    return -ENOTSUP;
}

static char *name_new(void)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz";
    GString *s = g_string_new("/nowhere/");

    for (int i = 0; i < 300; i++) /* longer than a socket's address may be */
        g_string_append_c(s, letters[g_random_int_range(0, 26)]);
    return g_string_free(s, FALSE);
}

static void meeting_init(struct meeting *m)
{
    *m = (struct meeting){0};
    mutex_init(&m->lock, RANK_LEAF);
    cond_init(&m->changed);
}

static void meeting_fini(struct meeting *m)
{
    cond_fini(&m->changed);
    mutex_fini(&m->lock);
}

static void collect(void *ctx, const char *text)
{
    g_string_append_printf(ctx, "%s|", text);
}

static void assert_reply(const char *mnt, const char *command, const char *arg, int want,
                         const char *text)
{
    g_autoptr(GString) got = g_string_new(NULL);

    g_assert_cmpint(control_call(mnt, command, arg, collect, got), ==, want);
    g_assert_cmpstr(got->str, ==, text);
}

static void test_replies(void)
{
    g_autofree char *mnt = name_new(), *other = name_new(), *long_arg = g_strnfill(20000, 'x');
    struct meeting m;
    struct control *c;
    pid_t pid = 0;

    meeting_init(&m);
    assert_reply(mnt, "status", NULL, -ENOENT, "");
    g_assert_cmpint(control_new(mnt, handler, &m, &c), ==, 0);
    assert_reply(mnt, "status", NULL, 0, "one|two |");
    assert_reply(mnt, "status", "a b\\", 0, "one|two a b\\|");
    assert_reply(mnt, "status", "\xc3\xa4\xff\t\"", 0, "one|two \xc3\xa4\xff\t\"|");
    assert_reply(mnt, "status", "line\nbreak", 0, "one|two line|break|");
    assert_reply(mnt, "odd", NULL, 0, "OK|ERR no||last|");
    assert_reply(mnt, "status", long_arg, -ENAMETOOLONG, "");
    assert_reply(other, "status", NULL, -ENOENT, "");
    g_assert_cmpint(control_call(mnt, "status", NULL, NULL, NULL), ==, 0);
    log_set_level(LOG_EMERG);
    assert_reply(mnt, "unheard-of", NULL, -EREMOTEIO, "");
    log_set_level(LOG_INFO);
    g_assert_cmpint(control_pid(mnt, &pid), ==, 0);
    g_assert_cmpint(pid, ==, getpid());
    g_assert_cmpint(control_pid(other, &pid), ==, -ENOENT);
    control_free(c);
    assert_reply(mnt, "status", NULL, -ENOENT, "");
    control_free(NULL);
    meeting_fini(&m);
}

struct caller {
    const char *mnt;
    struct meeting *m;
    int r;
};

/* The first line lets the handler go on: it comes while the handler runs, or both wait for ever. */
static void release(void *ctx, const char *text)
{
    struct meeting *m = ctx;

    g_assert_cmpstr(text, ==, "waiting");
    mutex_lock(&m->lock);
    m->go = true;
    cond_broadcast(&m->changed);
    mutex_unlock(&m->lock);
}

static void *call_wait(void *arg)
{
    struct caller *caller = arg;

    caller->r = control_call(caller->mnt, "wait", NULL, NULL, NULL);
    return NULL;
}

static void test_streams(void)
{
    g_autofree char *mnt = name_new();
    struct meeting m;
    struct control *c;

    meeting_init(&m);
    g_assert_cmpint(control_new(mnt, handler, &m, &c), ==, 0);
    g_assert_cmpint(control_call(mnt, "wait", NULL, release, &m), ==, 0);
    control_free(c);
    meeting_fini(&m);
}

static void test_concurrent(void)
{
    g_autofree char *mnt = name_new();
    struct meeting m;
    struct control *c;
    pthread_t threads[3];
    struct caller callers[3];

    meeting_init(&m);
    g_assert_cmpint(control_new(mnt, handler, &m, &c), ==, 0);
    for (int i = 0; i < 3; i++) {
        callers[i] = (struct caller){.mnt = mnt, .m = &m, .r = 1};
        g_assert_cmpint(thread_start(&threads[i], "caller", call_wait, &callers[i]), ==, 0);
    }
    mutex_lock(&m.lock);
    while (m.arrived < 3)
        cond_wait(&m.changed, &m.lock);
    mutex_unlock(&m.lock);
    assert_reply(mnt, "status", "now", 0, "one|two now|");
    mutex_lock(&m.lock);
    m.go = true;
    cond_broadcast(&m.changed);
    mutex_unlock(&m.lock);
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
        g_assert_cmpint(callers[i].r, ==, 0);
    }
    control_free(c);
    meeting_fini(&m);
}

static void leave(void *ctx, const char *text)
{
    _exit(7);
}

static void test_client_gone(void)
{
    g_autofree char *mnt = name_new();
    struct meeting m;
    struct control *c;
    int pipes[2], status;
    char byte;

    meeting_init(&m);
    g_assert_cmpint(pipe(pipes), ==, 0);
    pid_t pid = fork(); /* before there is a thread */
    g_assert_cmpint(pid, >=, 0);
    if (pid == 0) {
        close(pipes[1]);
        if (read(pipes[0], &byte, 1) == 1)
            control_call(mnt, "flood", NULL, leave, NULL);
        _exit(1);
    }
    g_assert_cmpint(control_new(mnt, handler, &m, &c), ==, 0);
    g_assert_cmpint(write(pipes[1], "x", 1), ==, 1);
    mutex_lock(&m.lock);
    while (!m.gone)
        cond_wait(&m.changed, &m.lock);
    mutex_unlock(&m.lock);
    g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
    g_assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 7);
    assert_reply(mnt, "status", NULL, 0, "one|two |");
    control_free(c);
    close(pipes[0]);
    close(pipes[1]);
    meeting_fini(&m);
}

/* A daemon in a process of its own: the process, once it listens. */
static pid_t daemon_fork(const char *mnt)
{
    int pipes[2];
    char byte;

    g_assert_cmpint(pipe(pipes), ==, 0);
    pid_t pid = fork();
    g_assert_cmpint(pid, >=, 0);
    if (pid == 0) {
        struct control *c;
        close(pipes[0]);
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* a failed test leaves nothing behind */
        if (control_new(mnt, handler, NULL, &c) < 0 || write(pipes[1], "x", 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    close(pipes[1]);
    g_assert_cmpint(read(pipes[0], &byte, 1), ==, 1);
    close(pipes[0]);
    return pid;
}

static void test_daemon_gone(void)
{
    g_autofree char *mnt = name_new();
    struct meeting m;
    struct control *c;
    pid_t told = 0, pid = daemon_fork(mnt);
    int status;

    meeting_init(&m);
    g_assert_cmpint(control_pid(mnt, &told), ==, 0);
    g_assert_cmpint(told, ==, pid);
    assert_reply(mnt, "die", NULL, -ECOMM, "OK|more|");
    g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
    assert_reply(mnt, "status", NULL, -ENOENT, ""); /* its socket is still there */
    g_assert_cmpint(control_new(mnt, handler, &m, &c), ==, 0);
    assert_reply(mnt, "status", NULL, 0, "one|two |");
    control_free(c);
    meeting_fini(&m);
}

static void test_taken_over(void)
{
    g_autofree char *mnt = name_new();
    struct meeting m;
    struct control *first, *second;

    meeting_init(&m);
    g_assert_cmpint(control_new(mnt, handler, &m, &first), ==, 0);
    g_assert_cmpint(control_new(mnt, handler, &m, &second), ==, 0);
    control_free(first); /* leaves the name to the second */
    assert_reply(mnt, "status", NULL, 0, "one|two |");
    control_free(second);
    assert_reply(mnt, "status", NULL, -ENOENT, "");
    meeting_fini(&m);
}

static void test_strangers(void)
{
    g_autofree char *mnt = name_new();
    int status;

    if (geteuid() != 0) {
        g_test_skip("only root can become someone else");
        return;
    }
    pid_t daemon = daemon_fork(mnt);
    pid_t pid = fork();
    g_assert_cmpint(pid, >=, 0);
    if (pid == 0) {
        if (setgid(65534) < 0 || setuid(65534) < 0)
            _exit(1);
        _exit(control_call(mnt, "status", NULL, NULL, NULL) == -ENOENT ? 0 : 2);
    }
    g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
    g_assert_cmpint(status, ==, 0);
    assert_reply(mnt, "status", NULL, 0, "one|two |"); /* it was there */
    g_assert_cmpint(kill(daemon, SIGKILL), ==, 0);
    g_assert_cmpint(waitpid(daemon, &status, 0), ==, daemon);
    struct control *c; /* takes the dead one's name, and removes it */
    g_assert_cmpint(control_new(mnt, handler, NULL, &c), ==, 0);
    control_free(c);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/control/replies", test_replies);
    g_test_add_func("/control/streams", test_streams);
    g_test_add_func("/control/concurrent", test_concurrent);
    g_test_add_func("/control/client-gone", test_client_gone);
    g_test_add_func("/control/daemon-gone", test_daemon_gone);
    g_test_add_func("/control/taken-over", test_taken_over);
    g_test_add_func("/control/strangers", test_strangers);
    return g_test_run();
}
