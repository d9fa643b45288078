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
#include "s3/http_exchange.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/thread.h"

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

/* Starting and ending a transfer */

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
    bool whole = x->whole || http_exchange_body_size(x) == 0;
    x->reply.sent = x->reply.sends > 1 || (x->reply.sends > 0 && whole);
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
    http_exchange_setup(x, &h->params, h->ca_file);
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
        if (x->patient && !x->begun && x->sent_off == http_exchange_body_size(x)) {
            x->moved_ns = now;
            continue;
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
