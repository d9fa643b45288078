/* SPDX-License-Identifier: Apache-2.0
 *
 * liar: see liar.h. One thread polls the listening socket and its connections; `lock` covers the
 * steps and what has been seen.
 */
#include "tests/lib/liar.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cancel.h"
#include "base/mutex.h"
#include "base/thread.h"

#define CONNS 32

struct conn {
    int fd; /* -1 = free */
    GString *in;
};

struct liar {
    int fd, wake[2];
    char *url;
    pthread_t thread;
    struct conn conns[CONNS];

    struct mutex lock;
    struct cond changed;
    GArray *steps;    /* lock: struct liar_step */
    GPtrArray *seen;  /* lock: char*, whole requests */
    unsigned accepts; /* lock */
};

static void send_all(int fd, const char *data, size_t n)
{
    while (n > 0) {
        ssize_t r = send(fd, data, n, MSG_NOSIGNAL);
        if (r < 0 && errno == EINTR) {
            continue;
        }
        if (r <= 0) {
            return; /* the client has gone: its right */
        }
        data += r;
        n -= (size_t)r;
    }
}

static void conn_close(struct conn *c)
{
    close(c->fd);
    c->fd = -1;
    g_string_free(c->in, TRUE);
}

/* Length of the first request in buf, 0 while it is incomplete; *ret_head: of its head. */
static size_t request_size(const GString *in, size_t *ret_head)
{
    const char *end = strstr(in->str, "\r\n\r\n");
    *ret_head = 0;
    if (end == NULL) {
        return 0;
    }
    *ret_head = (size_t)(end - in->str) + 4;
    g_autofree char *head = g_ascii_strdown(in->str, (gssize)*ret_head);
    const char *cl = strstr(head, "\r\ncontent-length:");
    size_t n = *ret_head + (cl ? strtoull(cl + 17, NULL, 10) : 0);
    return in->len >= n ? n : 0;
}

/* True with a copy of the step (its reply the caller's) that fits the request. */
static bool take_step(struct liar *l, const GString *in, bool whole, struct liar_step *ret)
{
    for (guint i = 0; i < l->steps->len; i++) {
        struct liar_step *s = &g_array_index(l->steps, struct liar_step, i);
        if (s->match && !g_str_has_prefix(in->str, s->match)) {
            continue;
        }
        if (!whole && !s->early) {
            return false;
        }
        *ret = *s;
        ret->reply = g_strdup(s->reply);
        if (!s->stay) {
            g_free(s->reply);
            g_array_remove_index(l->steps, i);
        }
        return true;
    }
    if (!whole) {
        return false;
    }
    *ret = (struct liar_step){.reply = liar_reply(599, "", "no step fits")};
    return true;
}

/* Answers the requests that are in c's buffer. */
static void conn_serve(struct liar *l, struct conn *c)
{
    for (;;) {
        size_t head, n = request_size(c->in, &head);
        struct liar_step s;
        if (head == 0) {
            return;
        }
        mutex_lock(&l->lock);
        bool ok = take_step(l, c->in, n > 0, &s);
        if (ok) {
            g_ptr_array_add(l->seen, g_strndup(c->in->str, n ? n : head));
            cond_broadcast(&l->changed);
        }
        mutex_unlock(&l->lock);
        if (!ok) {
            return;
        }
        if (s.fire) {
            cancel_fire(s.fire);
        }
        if (s.reply && !s.hang) {
            send_all(c->fd, s.reply, strlen(s.reply));
        }
        g_free(s.reply);
        if (s.deaf && l->fd >= 0) {
            close(l->fd);
            l->fd = -1;
        }
        if (s.close) {
            conn_close(c);
            return;
        }
        g_string_erase(c->in, 0, (gssize)(n ? n : head));
    }
}

static void conn_read(struct liar *l, struct conn *c)
{
    static const size_t piece = 64 << 10;
    g_autofree char *buf = g_malloc(piece);
    ssize_t r = recv(c->fd, buf, piece, 0);
    if (r <= 0) {
        conn_close(c);
        return;
    }
    g_string_append_len(c->in, buf, r);
    conn_serve(l, c);
}

static void accept_one(struct liar *l)
{
    int fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC);
    for (int i = 0; fd >= 0 && i < CONNS; i++) {
        if (l->conns[i].fd < 0) {
            l->conns[i] = (struct conn){fd, g_string_new(NULL)};
            mutex_lock(&l->lock);
            l->accepts++;
            cond_broadcast(&l->changed);
            mutex_unlock(&l->lock);
            return;
        }
    }
    assert(!"no room for a connection");
}

static void *run(void *arg)
{
    struct liar *l = arg;
    for (;;) {
        struct pollfd p[CONNS + 2] = {{.fd = l->wake[0], .events = POLLIN},
                                      {.fd = l->fd, .events = POLLIN}};
        for (int i = 0; i < CONNS; i++) {
            p[i + 2] = (struct pollfd){.fd = l->conns[i].fd, .events = POLLIN};
        }
        if (poll(p, CONNS + 2, -1) < 0) {
            continue;
        }
        if (p[0].revents) {
            return NULL;
        }
        for (int i = 0; i < CONNS; i++) {
            if (p[i + 2].revents) {
                conn_read(l, &l->conns[i]);
            }
        }
        if (p[1].revents && l->fd >= 0) {
            accept_one(l);
        }
    }
}

int liar_listen(int *ret_port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || listen(fd, 64) < 0 ||
        getsockname(fd, (struct sockaddr *)&a, &n) < 0) {
        g_error("cannot listen on loopback: %s", g_strerror(errno));
    }
    *ret_port = ntohs(a.sin_port);
    return fd;
}

int liar_dead_port(void)
{
    int port;
    close(liar_listen(&port));
    return port;
}

struct liar *liar_new(void)
{
    struct liar *l = g_new0(struct liar, 1);
    int port;
    l->fd = liar_listen(&port);
    l->url = g_strdup_printf("http://127.0.0.1:%d", port);
    if (pipe2(l->wake, O_CLOEXEC) < 0) {
        g_error("pipe: %s", g_strerror(errno));
    }
    for (int i = 0; i < CONNS; i++) {
        l->conns[i].fd = -1;
    }
    mutex_init(&l->lock, RANK_LEAF);
    cond_init(&l->changed);
    l->steps = g_array_new(FALSE, FALSE, sizeof(struct liar_step));
    l->seen = g_ptr_array_new_with_free_func(g_free);
    if (thread_start(&l->thread, "liar", run, l) < 0) {
        g_error("cannot start a thread");
    }
    return l;
}

void liar_free(struct liar *l)
{
    if (write(l->wake[1], "x", 1) != 1) {
        g_error("write: %s", g_strerror(errno));
    }
    pthread_join(l->thread, NULL);
    for (int i = 0; i < CONNS; i++) {
        if (l->conns[i].fd >= 0) {
            conn_close(&l->conns[i]);
        }
    }
    for (guint i = 0; i < l->steps->len; i++) {
        g_free(g_array_index(l->steps, struct liar_step, i).reply);
    }
    if (l->fd >= 0) {
        close(l->fd);
    }
    close(l->wake[0]);
    close(l->wake[1]);
    g_array_unref(l->steps);
    g_ptr_array_unref(l->seen);
    cond_fini(&l->changed);
    mutex_fini(&l->lock);
    g_free(l->url);
    g_free(l);
}

const char *liar_url(const struct liar *l)
{
    return l->url;
}

void liar_add(struct liar *l, struct liar_step step)
{
    mutex_lock(&l->lock);
    g_array_append_val(l->steps, step);
    mutex_unlock(&l->lock);
}

char *liar_reply(int status, const char *headers, const char *body)
{
    return g_strdup_printf("HTTP/1.1 %d Whatever\r\nContent-Length: %zu\r\n%s\r\n%s", status,
                           strlen(body), headers, body);
}

void liar_say(struct liar *l, int status, const char *headers, const char *body)
{
    liar_add(l, (struct liar_step){.reply = liar_reply(status, headers, body)});
}

unsigned liar_accepts(struct liar *l)
{
    mutex_lock(&l->lock);
    unsigned n = l->accepts;
    mutex_unlock(&l->lock);
    return n;
}

unsigned liar_requests(struct liar *l)
{
    mutex_lock(&l->lock);
    unsigned n = l->seen->len;
    mutex_unlock(&l->lock);
    return n;
}

void liar_wait_requests(struct liar *l, unsigned n)
{
    mutex_lock(&l->lock);
    while (l->seen->len < n) {
        cond_wait(&l->changed, &l->lock);
    }
    mutex_unlock(&l->lock);
}

char *liar_request(struct liar *l, unsigned i)
{
    mutex_lock(&l->lock);
    char *s = i < l->seen->len ? g_strdup(l->seen->pdata[i]) : NULL;
    mutex_unlock(&l->lock);
    return s;
}
