/* SPDX-License-Identifier: Apache-2.0
 *
 * http: see http.h.
 *
 * Threads: any thread submits and cancels; all else happens on the engine's thread, hooks included.
 * Locks: `lock` (leaf) covers the queues, the list of cancellations and each exchange's state; it
 * is never held while curl, a hook, a sink or a source runs.
 *
 * Invariants: an exchange is in queue[prio] iff QUEUED, in `active` iff ACTIVE (and then has an
 * easy handle); `active` never exceeds `connections`; every submitted exchange gets done once.
 */
#include "s3/http.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/thread.h"

#define GET_BUFFER (256L << 10)
#define PUT_BUFFER (256L << 10)
#define IDLE_POLL_MS 60000

enum { IDLE, QUEUED, ACTIVE };

struct http {
    struct http_params params;
    char *ca_file;
    CURLM *multi;
    pthread_t thread;

    struct mutex lock;
    GQueue queue[STORE_PRIO_COUNT]; /* lock */
    GQueue cancels;                 /* lock */
    uint64_t queue_deadline_ns; /* lock: no queued exchange has an earlier one; UINT64_MAX = none */
    bool woken;                 /* lock: a wakeup is on its way */
    bool stop;                  /* lock */

    GQueue active; /* engine thread, as all below */
    unsigned n_active[STORE_PRIO_COUNT];
    GPtrArray *idle_easy; /* CURL* */
    uint64_t next_stall_check_ns;
};

static void curl_init_once(void)
{
    curl_global_init(CURL_GLOBAL_DEFAULT);
}

/* Replies */

const char *http_header(const struct http_reply *r, const char *name)
{
    size_t pos = 0;
    const char *n, *v;
    while (http_header_next(r, &pos, &n, &v)) {
        if (strcmp(n, name) == 0) {
            return v;
        }
    }
    return NULL;
}

bool http_header_next(const struct http_reply *r, size_t *pos, const char **ret_name,
                      const char **ret_value)
{
    if (r->headers == NULL || *pos >= r->headers->len) {
        return false;
    }
    *ret_name = r->headers->str + *pos;
    *ret_value = *ret_name + strlen(*ret_name) + 1;
    *pos += strlen(*ret_name) + strlen(*ret_value) + 2;
    return true;
}

void http_exchange_clear(struct http_exchange *x)
{
    g_clear_pointer(&x->url, g_free);
    g_clear_pointer(&x->headers, curl_slist_free_all);
    if (x->body) {
        g_string_free(x->body, TRUE);
    }
    if (x->reply.headers) {
        g_string_free(x->reply.headers, TRUE);
    }
    if (x->reply.body) {
        g_string_free(x->reply.body, TRUE);
    }
    memset(&x->reply, 0, sizeof x->reply);
    x->body = NULL;
    x->source = NULL;
    x->sink = NULL;
    x->sink_off = x->sink_left = x->sent_off = x->received = x->moved = 0;
    x->sink_stops = x->begun = x->full = false;
}

/* curl's callbacks. All on the engine's thread; returning a short count ends the transfer, and
 * reply.err says why. */

static int on_request(void *data, char *ip, char *local_ip, int port, int local_port)
{
    struct http_exchange *x = data;
    x->reply.sends++;
    return CURL_PREREQFUNC_OK;
}

static void note_header(struct http_exchange *x, const char *line, size_t n)
{
    const char *colon = memchr(line, ':', n);
    if (colon == NULL || memchr(line, '\0', n) != NULL) {
        return;
    }
    const char *v = colon + 1, *end = line + n;
    while (v < end && (*v == ' ' || *v == '\t')) {
        v++;
    }
    while (end > v && g_ascii_isspace(end[-1])) {
        end--;
    }
    g_autofree char *name = g_ascii_strdown(line, colon - line);
    g_string_append(x->reply.headers, name);
    g_string_append_c(x->reply.headers, '\0');
    g_string_append_len(x->reply.headers, v, end - v);
    g_string_append_c(x->reply.headers, '\0');
}

static size_t on_header(char *line, size_t size, size_t n, void *data)
{
    struct http_exchange *x = data;
    x->received += n;
    if (n >= 5 && memcmp(line, "HTTP/", 5) == 0 && !x->begun) { /* also after a 1xx reply */
        if (x->reply.headers == NULL) {
            x->reply.headers = g_string_new(NULL);
        }
        g_string_truncate(x->reply.headers, 0);
        return n;
    }
    if (x->begun || x->reply.headers == NULL) {
        return n; /* trailers */
    }
    if (x->reply.headers->len + n > HTTP_HEADERS_MAX) {
        x->reply.err = -EMSGSIZE;
        return 0;
    }
    if (n > 0 && line[0] != '\r' && line[0] != '\n') {
        note_header(x, line, n);
        return n;
    }
    long status = 0;
    curl_easy_getinfo(x->easy, CURLINFO_RESPONSE_CODE, &status);
    if (status >= 100 && status < 200) {
        return n;
    }
    x->begun = true;
    x->reply.status = (int)status;
    int r = x->hooks->begin ? x->hooks->begin(x) : 0;
    if (r < 0) {
        x->reply.err = r;
        return 0;
    }
    return n;
}

static size_t to_sink(struct http_exchange *x, const char *buf, size_t n)
{
    size_t take = MIN(n, x->sink_left);
    if (take > 0) {
        int r = x->sink->write(x->sink->ctx, x->sink_off, buf, take);
        if (r < 0) {
            x->reply.err = r;
            return 0;
        }
        x->sink_off += take;
        x->sink_left -= take;
        x->reply.bytes += take;
    }
    if (take == n) {
        return n;
    }
    if (x->sink_stops) {
        x->full = true;
    } else {
        x->reply.overlong = true;
        x->reply.err = -EBADMSG;
    }
    return 0;
}

static size_t on_body(char *buf, size_t size, size_t n, void *data)
{
    struct http_exchange *x = data;
    x->received += n;
    if (x->sink) {
        return to_sink(x, buf, n);
    }
    if (x->reply.body == NULL) {
        x->reply.body = g_string_sized_new(MAX(n, 512));
    }
    if (x->reply.body->len + n > HTTP_BODY_MAX) {
        x->reply.err = -EMSGSIZE;
        return 0;
    }
    g_string_append_len(x->reply.body, buf, (gssize)n);
    return n;
}

static uint64_t body_size(const struct http_exchange *x)
{
    return x->source ? x->source->size : x->body ? x->body->len : 0;
}

static size_t on_send(char *buf, size_t size, size_t count, void *data)
{
    struct http_exchange *x = data;
    size_t n = MIN(size * count, body_size(x) - x->sent_off);
    if (n == 0) {
        return 0;
    }
    if (x->source) {
        ssize_t r = x->source->read(x->source->ctx, x->sent_off, buf, n);
        if (r != (ssize_t)n) {
            x->reply.err = r < 0 ? (int)r : -EIO;
            return CURL_READFUNC_ABORT;
        }
    } else {
        memcpy(buf, x->body->str + x->sent_off, n);
    }
    x->sent_off += n;
    return n;
}

static int on_rewind(void *data, curl_off_t off, int origin)
{
    struct http_exchange *x = data;
    if (origin != SEEK_SET || off < 0 || (uint64_t)off > body_size(x)) {
        return CURL_SEEKFUNC_FAIL;
    }
    x->sent_off = (uint64_t)off;
    return CURL_SEEKFUNC_OK;
}

/* Starting and ending a transfer */

static void set_method(struct http_exchange *x)
{
    CURL *e = x->easy;
    if (strcmp(x->method, "HEAD") == 0) {
        curl_easy_setopt(e, CURLOPT_NOBODY, 1L);
    } else if (strcmp(x->method, "PUT") == 0 || strcmp(x->method, "POST") == 0) {
        curl_easy_setopt(e, CURLOPT_UPLOAD, 1L);
        curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, x->method);
        curl_easy_setopt(e, CURLOPT_INFILESIZE_LARGE, (curl_off_t)body_size(x));
        curl_easy_setopt(e, CURLOPT_READFUNCTION, on_send);
        curl_easy_setopt(e, CURLOPT_READDATA, x);
        curl_easy_setopt(e, CURLOPT_SEEKFUNCTION, on_rewind);
        curl_easy_setopt(e, CURLOPT_SEEKDATA, x);
        if (body_size(x) > (64u << 10)) {
            curl_easy_setopt(e, CURLOPT_UPLOAD_BUFFERSIZE, PUT_BUFFER);
        }
    } else {
        curl_easy_setopt(e, CURLOPT_HTTPGET, 1L);
        curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, x->method);
        curl_easy_setopt(e, CURLOPT_BUFFERSIZE, GET_BUFFER);
    }
}

static void set_connection(struct http *h, CURL *e)
{
    curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(e, CURLOPT_TCP_NODELAY, 1L);
    curl_easy_setopt(e, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(e, CURLOPT_TCP_KEEPIDLE, 30L);
    curl_easy_setopt(e, CURLOPT_TCP_KEEPINTVL, 10L);
    curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS,
                     (long)(h->params.connect_timeout_ns / NSEC_PER_MSEC));
    curl_easy_setopt(e, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    if (h->ca_file) {
        curl_easy_setopt(e, CURLOPT_CAINFO, h->ca_file);
        curl_easy_setopt(e, CURLOPT_CAPATH, NULL); /* that file's CAs and no others */
    }
}

static void set_exchange(struct http *h, struct http_exchange *x)
{
    CURL *e = x->easy;
    set_connection(h, e);
    set_method(x);
    curl_easy_setopt(e, CURLOPT_URL, x->url);
    curl_easy_setopt(e, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(e, CURLOPT_HTTPHEADER, x->headers);
    curl_easy_setopt(e, CURLOPT_USERAGENT, "mlopsfs/" MLOPSFS_VERSION);
    curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(e, CURLOPT_HEADERDATA, x);
    curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(e, CURLOPT_WRITEDATA, x);
    curl_easy_setopt(e, CURLOPT_PREREQFUNCTION, on_request);
    curl_easy_setopt(e, CURLOPT_PREREQDATA, x);
    curl_easy_setopt(e, CURLOPT_ERRORBUFFER, x->reply.error);
    curl_easy_setopt(e, CURLOPT_PRIVATE, x);
    if (x->deadline_ns) {
        uint64_t now = clock_mono_ns();
        uint64_t left = x->deadline_ns > now ? (x->deadline_ns - now) / NSEC_PER_MSEC + 1 : 1;
        curl_easy_setopt(e, CURLOPT_TIMEOUT_MS, (long)MIN(left, (uint64_t)G_MAXINT));
    }
}

/* x is neither queued nor active any more, unless the hook submits it again. */
static void finish(struct http *h, struct http_exchange *x)
{
    mutex_lock(&h->lock);
    assert(x->state != QUEUED);
    x->state = IDLE;
    if (x->cancelled) {
        g_queue_unlink(&h->cancels, &x->cancel_link);
        x->cancelled = false;
    }
    mutex_unlock(&h->lock);
    x->hooks->done(x);
}

/* Takes an active exchange off the multi handle, and its easy handle back. */
static void detach(struct http *h, struct http_exchange *x, CURLcode code)
{
    x->reply.curl = (int)code;
    x->reply.sent = x->reply.sends > 0 && x->sent_off == body_size(x);
    if (x->method && (strcmp(x->method, "PUT") == 0 || strcmp(x->method, "POST") == 0)) {
        x->reply.bytes = x->sent_off;
    }
    if (x->full && x->reply.err == 0) {
        x->reply.curl = CURLE_OK; /* we hung up, having got what we wanted */
    }
    curl_multi_remove_handle(h->multi, x->easy);
    curl_easy_reset(x->easy);
    g_ptr_array_add(h->idle_easy, x->easy);
    x->easy = NULL;
    g_queue_unlink(&h->active, &x->link);
    h->n_active[x->prio]--;
}

static void start(struct http *h, struct http_exchange *x)
{
    int r = x->hooks->prepare(x);
    if (r < 0) {
        x->reply.err = r;
        finish(h, x);
        return;
    }
    x->easy = h->idle_easy->len ? g_ptr_array_steal_index_fast(h->idle_easy, h->idle_easy->len - 1)
                                : curl_easy_init();
    if (x->easy == NULL) {
        x->reply.err = -ENOMEM;
        finish(h, x);
        return;
    }
    set_exchange(h, x);
    x->moved_ns = clock_mono_ns();
    g_queue_push_tail_link(&h->active, &x->link);
    h->n_active[x->prio]++;
    CURLMcode m = curl_multi_add_handle(h->multi, x->easy);
    if (m != CURLM_OK) {
        x->reply.err = -EIO;
        detach(h, x, CURLE_FAILED_INIT);
        finish(h, x);
    }
}

/* Scheduling */

/* The next exchange that may have a connection now, taken off its queue; NULL = none. */
static struct http_exchange *pick_locked(struct http *h)
{
    const unsigned *n = h->n_active;
    unsigned all = h->params.connections, floor = all >= 2 ? MAX(1, all / 4) : 0;
    unsigned spare = all >= 4 ? MAX(1, all / 8) : 0;
    unsigned reads = n[STORE_PRIO_DEMAND] + n[STORE_PRIO_META] + n[STORE_PRIO_AHEAD];
    if (reads + n[STORE_PRIO_UPLOAD] >= all) {
        return NULL;
    }
    for (int p = 0; p < STORE_PRIO_COUNT; p++) {
        bool room = p == STORE_PRIO_UPLOAD  ? n[p] < all - floor
                    : p == STORE_PRIO_AHEAD ? reads < all - floor - spare
                                            : reads < all - floor;
        GList *l = room ? g_queue_pop_head_link(&h->queue[p]) : NULL;
        if (l) {
            struct http_exchange *x = l->data;
            x->state = ACTIVE;
            return x;
        }
    }
    return NULL;
}

static void start_queued(struct http *h)
{
    for (;;) {
        mutex_lock(&h->lock);
        struct http_exchange *x = pick_locked(h);
        mutex_unlock(&h->lock);
        if (x == NULL) {
            return;
        }
        start(h, x);
    }
}

static void end_cancelled(struct http *h)
{
    for (;;) {
        mutex_lock(&h->lock);
        GList *l = g_queue_peek_head_link(&h->cancels);
        struct http_exchange *x = l ? l->data : NULL;
        if (x && x->state == QUEUED) {
            g_queue_unlink(&h->queue[x->prio], &x->link);
            x->state = ACTIVE; /* ours alone from here on */
        }
        mutex_unlock(&h->lock);
        if (x == NULL) {
            return;
        }
        x->reply.err = -ECANCELED;
        if (x->easy) {
            detach(h, x, CURLE_OK);
        }
        finish(h, x);
    }
}

/* Ends what waited for a connection until its deadline passed. */
static void end_overdue(struct http *h)
{
    uint64_t now = clock_mono_ns();
    GQueue overdue = G_QUEUE_INIT;
    mutex_lock(&h->lock);
    if (now >= h->queue_deadline_ns) {
        h->queue_deadline_ns = UINT64_MAX;
        for (int p = 0; p < STORE_PRIO_COUNT; p++) {
            for (GList *l = h->queue[p].head, *next; l; l = next) {
                struct http_exchange *x = l->data;
                next = l->next;
                if (x->deadline_ns && x->deadline_ns <= now) {
                    g_queue_unlink(&h->queue[p], l);
                    g_queue_push_tail_link(&overdue, l);
                    x->state = ACTIVE;
                } else if (x->deadline_ns) {
                    h->queue_deadline_ns = MIN(h->queue_deadline_ns, x->deadline_ns);
                }
            }
        }
    }
    mutex_unlock(&h->lock);
    for (GList *l; (l = g_queue_pop_head_link(&overdue));) {
        struct http_exchange *x = l->data;
        x->reply.err = -ETIMEDOUT;
        finish(h, x);
    }
}

static uint64_t stall_tick_ns(const struct http *h)
{
    return CLAMP(h->params.stall_timeout_ns / 4, 10 * NSEC_PER_MSEC, NSEC_PER_SEC);
}

/* curl's own low-speed check averages over seconds and also fails what is merely slow: this one
 * asks whether any byte moved. */
static void end_stalled(struct http *h)
{
    uint64_t now = clock_mono_ns();
    if (now < h->next_stall_check_ns) {
        return;
    }
    h->next_stall_check_ns = now + stall_tick_ns(h);
    for (GList *l = h->active.head, *next; l; l = next) {
        struct http_exchange *x = l->data;
        next = l->next;
        if (x->reply.sends == 0) {
            continue; /* connecting has its own limit */
        }
        curl_off_t up = 0;
        curl_easy_getinfo(x->easy, CURLINFO_SIZE_UPLOAD_T, &up);
        uint64_t moved = x->received + (uint64_t)up;
        if (moved != x->moved) {
            x->moved = moved;
            x->moved_ns = now;
        } else if (now - x->moved_ns >= h->params.stall_timeout_ns) {
            x->reply.stalled = true;
            detach(h, x, CURLE_OPERATION_TIMEDOUT);
            finish(h, x);
        }
    }
}

static void end_finished(struct http *h)
{
    int left;
    CURLMsg *m;
    while ((m = curl_multi_info_read(h->multi, &left))) {
        if (m->msg != CURLMSG_DONE) {
            continue;
        }
        struct http_exchange *x = NULL;
        CURLcode code = m->data.result;
        curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &x);
        detach(h, x, code);
        finish(h, x);
    }
}

/* How long the engine may sleep, in ms: new work wakes it. */
static int poll_time(struct http *h)
{
    uint64_t now = clock_mono_ns(), until = UINT64_MAX;
    if (h->active.length > 0) {
        until = h->next_stall_check_ns;
    }
    mutex_lock(&h->lock);
    until = MIN(until, h->queue_deadline_ns);
    mutex_unlock(&h->lock);
    if (until <= now) {
        return 0;
    }
    return (int)MIN((until - now) / NSEC_PER_MSEC + 1, IDLE_POLL_MS);
}

/* Forgets the wakeups so far; false when the engine is to stop. */
static bool keep_running(struct http *h)
{
    mutex_lock(&h->lock);
    h->woken = false;
    bool stop = h->stop;
    mutex_unlock(&h->lock);
    return !stop;
}

static void *run(void *arg)
{
    struct http *h = arg;
    while (keep_running(h)) {
        int running;
        end_cancelled(h);
        end_overdue(h);
        start_queued(h);
        curl_multi_perform(h->multi, &running);
        end_finished(h);
        end_stalled(h);
        start_queued(h); /* on what has just come free, without a sleep in between */
        curl_multi_poll(h->multi, NULL, 0, poll_time(h), NULL);
    }
    return NULL;
}

/* The face */

static void wake(struct http *h, bool needed)
{
    if (needed) {
        curl_multi_wakeup(h->multi);
    }
}

void http_submit(struct http *h, struct http_exchange *x)
{
    x->link = (GList){.data = x};
    x->cancel_link = (GList){.data = x};
    x->moved_ns = 0;
    mutex_lock(&h->lock);
    assert(x->state == IDLE && !h->stop);
    x->state = QUEUED;
    x->cancelled = false;
    g_queue_push_tail_link(&h->queue[x->prio], &x->link);
    if (x->deadline_ns) {
        h->queue_deadline_ns = MIN(h->queue_deadline_ns, x->deadline_ns);
    }
    bool needed = !h->woken;
    h->woken = true;
    mutex_unlock(&h->lock);
    wake(h, needed);
}

void http_cancel(struct http *h, struct http_exchange *x)
{
    mutex_lock(&h->lock);
    bool needed = false;
    if (x->state != IDLE && !x->cancelled) {
        x->cancelled = true;
        g_queue_push_tail_link(&h->cancels, &x->cancel_link);
        needed = !h->woken;
        h->woken = true;
    }
    mutex_unlock(&h->lock);
    wake(h, needed);
}

static void free_easy(gpointer e)
{
    curl_easy_cleanup(e);
}

static void destroy(struct http *h)
{
    g_ptr_array_unref(h->idle_easy);
    if (h->multi) {
        curl_multi_cleanup(h->multi);
    }
    mutex_fini(&h->lock);
    g_free(h->ca_file);
    g_free(h);
}

int http_new(const struct http_params *p, struct http **ret)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, curl_init_once);

    struct http *h = g_new0(struct http, 1);
    h->params = *p;
    h->ca_file = g_strdup(p->ca_file);
    h->queue_deadline_ns = UINT64_MAX;
    h->idle_easy = g_ptr_array_new_with_free_func(free_easy);
    mutex_init(&h->lock, RANK_LEAF);
    h->multi = curl_multi_init();
    if (h->multi == NULL) {
        destroy(h);
        return -ENOMEM;
    }
    curl_multi_setopt(h->multi, CURLMOPT_PIPELINING, (long)CURLPIPE_NOTHING);
    curl_multi_setopt(h->multi, CURLMOPT_MAXCONNECTS, (long)p->connections);
    int r = thread_start(&h->thread, "http", run, h);
    if (r < 0) {
        destroy(h);
        return r;
    }
    *ret = h;
    return 0;
}

void http_free(struct http *h)
{
    if (h == NULL) {
        return;
    }
    mutex_lock(&h->lock);
    for (int i = 0; i < STORE_PRIO_COUNT; i++) {
        assert(h->queue[i].length == 0);
    }
    h->stop = true;
    mutex_unlock(&h->lock);
    wake(h, true);
    pthread_join(h->thread, NULL);
    assert(h->active.length == 0);
    destroy(h);
}
