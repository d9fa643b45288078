/* SPDX-License-Identifier: Apache-2.0
 *
 * handle: open file descriptions and their reads. Threads: reads start on any; they end inline or
 * on the deliver queue. Under the file's lock: which view a handle has, and which parts of a read
 * are under way, so that a cancel never reaches a part that has ended.
 *
 * A read takes a slice of the map. If that is the base alone, it goes on to the reader and the
 * reader's blocks are handed up as they are. Else it is put together in a buffer: staging and
 * zeros at once, the base's parts by one read each. Bytes that only an unfinished upload has are
 * published first. When the base was replaced under a read, it starts again on the new one.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/workq.h"
#include "cache/file.h"
#include "cache/reader.h"
#include "cache/staging.h"

#define ATTEMPTS 16

/* A reader of one base, for as long as a handle or a read uses it. */
struct view {
    atomic_uint refs;
    struct reader *reader;
    struct file_base *base;
};

enum part_state { PART_NEW, PART_STARTED, PART_ENDED };

struct read_part {
    struct reader_op op;
    struct read *read;
    enum part_state state; /* the file's lock */
};

struct read {
    struct cache_handle *handle;
    struct cache_file *file; /* a life reference: the handle may go once done was called */
    struct cache_read *r;
    struct view *view;
    struct staging_pin pin;
    struct extents *map; /* of what is asked */
    uint64_t off;
    size_t n;
    char *buf;
    struct cache_wait wait;  /* while it is published */
    unsigned attempts;
    bool waiting, cancelled; /* the file's lock */
    bool outdated;           /* is to be made again */
    unsigned left;           /* the file's lock: parts not ended, and one for the starter */
    int err;                 /* the file's lock: the first part's that failed */
    unsigned n_parts;
    struct read_part *parts;
};

static struct view *view_ref(struct view *v)
{
    atomic_fetch_add(&v->refs, 1);
    return v;
}

static void view_unref(struct view *v)
{
    if (!v || atomic_fetch_sub(&v->refs, 1) != 1)
        return;
    reader_free(v->reader);
    file_base_unref(v->base);
    g_free(v);
}

/* The handle's view of the base as it is now. What it replaces goes to *ret_old, to be dropped unlocked. */
static struct view *view_get_locked(struct cache_handle *h, struct view **ret_old)
{
    struct cache_file *f = h->file;
    *ret_old = NULL;
    if (!h->view || h->view->base != f->base) {
        *ret_old = h->view;
        struct view *v = g_new0(struct view, 1);
        atomic_init(&v->refs, 1);
        v->base = file_base_ref(f->base);
        v->reader = reader_new(f->cache->readers, v->base->bucket, v->base->key,
                               v->base->object.etag, v->base->object.size);
        h->view = v;
    }
    return view_ref(h->view);
}

struct cache_handle *cache_handle_new(struct cache_file *f)
{
    struct cache_handle *h = g_new0(struct cache_handle, 1);
    h->file = cache_file_ref(f);
    mutex_lock(&f->lock);
    h->err_seen = f->err_seq;
    mutex_unlock(&f->lock);
    return h;
}

void cache_handle_free(struct cache_handle *h)
{
    if (!h)
        return;
    view_unref(h->view);
    cache_file_unref(h->file);
    g_free(h);
}

/* ---- reads ---- */

static void read_start(struct read *rd);

/* Ready to be started again. */
static void read_reset(struct read *rd)
{
    mutex_lock(&rd->file->lock);
    struct read_part *parts = rd->parts;
    rd->parts = NULL;
    rd->n_parts = 0;
    rd->err = 0;
    rd->outdated = false;
    mutex_unlock(&rd->file->lock);
    g_free(parts);
    staging_unpin(&rd->pin);
    extents_free(rd->map);
    rd->map = NULL;
    view_unref(rd->view);
    rd->view = NULL;
    g_free(rd->buf);
    rd->buf = NULL;
}

static void read_end(struct read *rd, int err, const struct iovec *iov, int n_iov)
{
    struct cache_file *f = rd->file;
    rd->r->done(rd->r, err, iov, n_iov);
    read_reset(rd);
    g_free(rd);
    file_release(f);
}

static void read_again(void *arg)
{
    struct read *rd = arg;
    read_reset(rd);
    read_start(rd);
}

static void read_settled(struct cache_wait *w, int err)
{
    struct read *rd = w->ctx;
    mutex_lock(&rd->file->lock);
    rd->waiting = false;
    mutex_unlock(&rd->file->lock);
    read_again(rd); /* whatever the commit came to: if the base is still gone, it says so */
}

/* Whether a read that found its version gone is to be made again: a commit of ours has replaced it,
 * or is about to tell that it did; the same bytes are there under the new one. */
static bool read_outdated(struct read *rd, int err)
{
    struct cache_file *f = rd->file;
    if (err != -ESTALE || ++rd->attempts >= ATTEMPTS)
        return false;
    mutex_lock(&f->lock);
    bool now = f->base != rd->view->base, soon = !now && f->commit == COMMIT_RUNNING;
    rd->outdated = !rd->cancelled && (now || soon);
    mutex_unlock(&f->lock);
    return rd->outdated;
}

/* Makes it again, once nobody uses rd any more. */
static void read_retry(struct read *rd)
{
    struct cache_file *f = rd->file;
    mutex_lock(&f->lock);
    bool wait = !rd->cancelled && f->base == rd->view->base && f->commit == COMMIT_RUNNING;
    if (wait) {
        rd->waiting = true;
        rd->wait = (struct cache_wait){.done = read_settled, .ctx = rd};
        committer_wait_running_locked(f, &rd->wait);
    }
    mutex_unlock(&f->lock);
    if (!wait)
        workq_push(f->cache->deliver, read_again, rd);
}

static void read_finish(struct read *rd, int err, const struct iovec *iov, int n_iov)
{
    if (read_outdated(rd, err))
        read_retry(rd);
    else
        read_end(rd, err, iov, n_iov);
}

/* Takes one from `left`; whoever takes the last one finishes. */
static bool read_leave(struct read *rd, struct read_part *part, int err)
{
    mutex_lock(&rd->file->lock);
    if (part)
        part->state = PART_ENDED;
    if (err < 0 && rd->err == 0)
        rd->err = err;
    bool last = --rd->left == 0;
    mutex_unlock(&rd->file->lock);
    return last;
}

/* After reader_read() returned: a cancel that came before can now be passed on. */
static void part_started(struct read *rd, struct read_part *part)
{
    mutex_lock(&rd->file->lock);
    if (part->state == PART_NEW) {
        part->state = PART_STARTED;
        if (rd->cancelled)
            reader_cancel(rd->view->reader, &part->op);
    }
    mutex_unlock(&rd->file->lock);
}

static void pass_finish(struct read *rd)
{
    struct cache_file *f = rd->file;
    if (rd->outdated) {
        read_retry(rd);
        return;
    }
    read_reset(rd);
    g_free(rd);
    file_release(f);
}

/* The whole answer, as it is. The starter's share of `left` keeps the read until reader_read() has
 * returned; so an inline answer is given from here, and the last one to leave frees. */
static void pass_done(struct reader_op *op, int err, const struct iovec *iov, int n_iov)
{
    struct read_part *part = op->ctx;
    struct read *rd = part->read;
    struct cache_file *f = rd->file;
    mutex_lock(&f->lock);
    part->state = PART_ENDED;
    mutex_unlock(&f->lock);
    if (!read_outdated(rd, err))
        rd->r->done(rd->r, err, iov, n_iov);
    if (read_leave(rd, NULL, 0))
        pass_finish(rd);
}

static void read_pass(struct read *rd)
{
    struct cache_file *f = rd->file;
    struct read_part *part = rd->parts = g_new0(struct read_part, 1);
    rd->n_parts = 1;
    rd->left = 2;
    part->read = rd;
    part->op = (struct reader_op){.off = rd->off, .len = rd->n, .done = pass_done, .ctx = part};
    mutex_unlock(&f->lock);
    reader_read(rd->view->reader, &part->op);
    part_started(rd, part);
    if (read_leave(rd, NULL, 0))
        pass_finish(rd);
}

static void parts_finish(struct read *rd)
{
    struct iovec iov = {.iov_base = rd->buf, .iov_len = rd->n};
    if (rd->err < 0)
        read_finish(rd, rd->err, NULL, 0);
    else
        read_finish(rd, 0, &iov, 1);
}

static void part_done(struct reader_op *op, int err, const struct iovec *iov, int n_iov)
{
    struct read_part *part = op->ctx;
    struct read *rd = part->read;
    char *to = rd->buf + (op->off - rd->off);
    size_t got = 0;
    for (int i = 0; err == 0 && i < n_iov; i++) {
        memcpy(to + got, iov[i].iov_base, iov[i].iov_len);
        got += iov[i].iov_len;
    }
    if (err == 0 && got != op->len)
        err = -EIO;
    if (read_leave(rd, part, err))
        parts_finish(rd);
}

/* Local bytes at once, on this thread. */
static int read_local(struct read *rd)
{
    struct extent x;
    for (uint64_t off = rd->off; extents_next(rd->map, off, &x); off = x.off + x.len) {
        char *to = rd->buf + (x.off - rd->off);
        int r = 0;
        if (x.kind == EXTENT_ZERO)
            memset(to, 0, x.len);
        else if (x.kind == EXTENT_STAGED)
            r = staging_read(rd->pin.s, x.src, to, x.len);
        if (r < 0)
            return r;
    }
    return 0;
}

static unsigned parts_make(struct read *rd)
{
    struct extent x;
    struct read_part *parts = g_new0(struct read_part, extents_count(rd->map));
    unsigned n = 0;
    for (uint64_t off = rd->off; extents_next(rd->map, off, &x); off = x.off + x.len) {
        if (x.kind != EXTENT_BASE)
            continue;
        struct read_part *part = &parts[n++];
        part->read = rd;
        part->op = (struct reader_op){.off = x.off, .len = x.len, .done = part_done, .ctx = part};
    }
    mutex_lock(&rd->file->lock);
    rd->parts = parts;
    rd->n_parts = n;
    rd->left = n + 1;
    mutex_unlock(&rd->file->lock);
    return n;
}

/* Puts the answer together. Called unlocked. */
static void read_assemble(struct read *rd)
{
    rd->buf = g_malloc(rd->n);
    int r = read_local(rd);
    if (r < 0) {
        read_end(rd, r, NULL, 0);
        return;
    }
    unsigned n = parts_make(rd);
    for (unsigned i = 0; i < n; i++) {
        reader_read(rd->view->reader, &rd->parts[i].op);
        part_started(rd, &rd->parts[i]);
    }
    if (read_leave(rd, NULL, 0))
        parts_finish(rd);
}

static void read_published(struct cache_wait *w, int err)
{
    struct read *rd = w->ctx;
    mutex_lock(&rd->file->lock);
    rd->waiting = false;
    if (rd->cancelled)
        err = -EINTR;
    mutex_unlock(&rd->file->lock);
    if (err < 0)
        read_end(rd, err, NULL, 0);
    else
        read_start(rd);
}

static void read_start(struct read *rd)
{
    struct cache_handle *h = rd->handle;
    struct cache_file *f = rd->file;
    struct view *old = NULL;
    mutex_lock(&f->lock);
    uint64_t size = extents_size(f->map), off = rd->r->off;
    rd->off = off;
    rd->n = off < size ? (size_t)MIN(rd->r->len, size - off) : 0;
    if (rd->cancelled || f->discarded || rd->n == 0) {
        int err = rd->cancelled ? -EINTR : f->discarded ? -ESTALE : 0;
        mutex_unlock(&f->lock);
        read_end(rd, err, NULL, 0);
        return;
    }
    if (extents_has(f->map, off, rd->n, EXTENT_PUNCHED)) {
        rd->waiting = true;
        rd->wait = (struct cache_wait){.done = read_published, .ctx = rd};
        committer_wait_locked(f, NULL, &rd->wait);
        mutex_unlock(&f->lock);
        return;
    }
    struct extent x;
    bool found = extents_next(f->map, off, &x);
    assert(found);
    (void)found;
    bool pass = x.kind == EXTENT_BASE && x.len >= rd->n;
    if (pass || extents_has(f->map, off, rd->n, EXTENT_BASE))
        rd->view = view_get_locked(h, &old);
    if (pass) {
        read_pass(rd); /* unlocks */
    } else {
        rd->map = extents_slice(f->map, off, rd->n);
        if (f->staging)
            staging_pin(f->staging, &rd->pin);
        mutex_unlock(&f->lock);
        read_assemble(rd);
    }
    view_unref(old);
}

void cache_read(struct cache_handle *h, struct cache_read *r)
{
    struct read *rd = g_new0(struct read, 1);
    rd->handle = h;
    rd->file = file_hold(h->file);
    rd->r = r;
    r->layer = rd;
    read_start(rd);
}

void cache_read_cancel(struct cache_handle *h, struct cache_read *r)
{
    struct read *rd = r->layer;
    struct cache_file *f = h->file;
    mutex_lock(&f->lock);
    rd->cancelled = true;
    bool mine = rd->waiting && committer_unwait_locked(f, &rd->wait);
    for (unsigned i = 0; i < rd->n_parts; i++)
        if (rd->parts[i].state == PART_STARTED)
            reader_cancel(rd->view->reader, &rd->parts[i].op);
    if (mine)
        rd->waiting = false;
    mutex_unlock(&f->lock);
    if (mine)
        workq_push(f->cache->deliver, read_again, rd); /* which finds it cancelled */
}

/* ---- the synchronous face ---- */

struct pread {
    struct cache_read read;
    struct cache_handle *handle;
    struct mutex lock;
    struct cond changed;
    bool done; /* lock */
    char *buf;
    ssize_t result; /* lock */
};

static void pread_done(struct cache_read *r, int err, const struct iovec *iov, int n_iov)
{
    struct pread *p = r->ctx;
    size_t n = 0;
    for (int i = 0; err == 0 && i < n_iov; i++) {
        memcpy(p->buf + n, iov[i].iov_base, iov[i].iov_len);
        n += iov[i].iov_len;
    }
    mutex_lock(&p->lock);
    p->result = err < 0 ? err : (ssize_t)n;
    p->done = true;
    cond_signal(&p->changed);
    mutex_unlock(&p->lock);
}

static void pread_cancelled(void *ctx)
{
    struct pread *p = ctx;
    mutex_lock(&p->lock);
    if (!p->done) /* done takes the lock before it returns: the read is still there */
        cache_read_cancel(p->handle, &p->read);
    mutex_unlock(&p->lock);
}

ssize_t cache_pread(struct cache_handle *h, void *buf, size_t len, uint64_t off,
                    struct cancel *cancel)
{
    struct pread p = {.handle = h, .buf = buf};
    struct cancel_watch watch = {.fired = pread_cancelled, .ctx = &p};
    p.read = (struct cache_read){.off = off, .len = len, .done = pread_done, .ctx = &p};
    mutex_init(&p.lock, RANK_INODE); /* outside all that cancelling takes */
    cond_init(&p.changed);
    cache_read(h, &p.read);
    cancel_watch(cancel, &watch);
    mutex_lock(&p.lock);
    while (!p.done)
        cond_wait(&p.changed, &p.lock);
    mutex_unlock(&p.lock);
    cancel_unwatch(cancel, &watch);
    cond_fini(&p.changed);
    mutex_fini(&p.lock);
    return p.result;
}
