/* SPDX-License-Identifier: Apache-2.0
 *
 * fetch: see fetch.h. Threads: store threads run the sink and done; any thread makes, submits and
 * cancels GETs. Lock: the pool's; the sink copies without it, into pages that its GET owns.
 *
 * Invariants:
 *  1. A page that is claimed belongs to exactly one GET; pages before `settled` have been handed
 *     over (filled), and their block may be another one's since: it is not looked at again.
 *  2. A GET lives while the submitter or the store has it: two references. store_cancel() is called
 *     only after store_submit() returned and before done took the lock.
 *  3. A request carries If-Match, so the bytes are those of the version, or there are none.
 */
#include "cache/fetch.h"

#include <assert.h>
#include <errno.h>
#include <glib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"

#define FETCH_SLOTS ((unsigned)(FETCH_MAX >> BLOCK_SHIFT) + 1)

struct fetch_slot {
    struct block *block; /* NULL: none of its pages is ours */
    block_pages own;
};

struct fetch {
    struct store_request req;
    struct fetch_set *set;
    enum fetch_kind kind;
    struct version *version;          /* a reference */
    struct version_name *name;        /* a reference: the request's strings */
    uint64_t off, end;                /* constant: bytes of the object */
    uint64_t pos;                     /* store thread: next byte to come */
    uint64_t begun_ns, first_ns;      /* constant from submission; store thread */
    uint64_t settled;                 /* lock: bytes before it are handed over */
    void *owner;                      /* lock */
    unsigned refs;                    /* lock */
    bool submitted, cancelled, ended; /* lock */
    unsigned made;                    /* constant: blocks made for it */
    struct fetch *prev, *next;        /* lock: the set's list */
    struct fetch *todo_next;
    uint64_t first_block; /* constant */
    unsigned n_slots;     /* constant */
    struct fetch_slot slots[];
};

struct fetch_set {
    struct fetch_params p; /* constant */
    unsigned made_max;     /* constant: most blocks made ahead and not there yet */
    struct fetch *all;     /* lock, as all below */
    struct cond gone;      /* all changed to NULL */
    unsigned made;
    struct fetch_stats stats;
};

struct fetch_set *fetch_set_new(const struct fetch_params *p)
{
    struct fetch_set *s = g_new0(struct fetch_set, 1);
    s->p = *p;
    /* What is made ahead leaves room for the largest single read, and half of the arena besides. */
    unsigned n = block_pool_capacity(p->pool);
    s->made_max = MIN(n / 2, n - BLOCKS_MIN / 2 - 2);
    cond_init(&s->gone);
    return s;
}

static void fetch_cancel_locked(struct fetch *f)
{
    if (f->cancelled || f->ended)
        return;
    f->cancelled = true;
    if (f->submitted)
        store_cancel(f->set->p.store, &f->req);
}

void fetch_set_free(struct fetch_set *s)
{
    if (!s)
        return;
    block_pool_lock(s->p.pool);
    for (struct fetch *f = s->all; f; f = f->next)
        fetch_cancel_locked(f);
    while (s->all)
        block_pool_wait(s->p.pool, &s->gone);
    block_pool_unlock(s->p.pool);
    cond_fini(&s->gone);
    g_free(s);
}

static void fetch_unref_locked(struct fetch *f)
{
    assert(f->refs > 0);
    if (--f->refs > 0)
        return;
    struct fetch_set *s = f->set;
    if (f->prev)
        f->prev->next = f->next;
    else
        s->all = f->next;
    if (f->next)
        f->next->prev = f->prev;
    version_name_unref(f->name);
    version_unref(block_pool_versions(s->p.pool), f->version);
    store_request_clear(&f->req);
    g_free(f);
    if (!s->all)
        cond_broadcast(&s->gone);
}

/* ---- the store's side ---- */

/* Copies [off, off+n) into the pages we own; others hold the same bytes already, or will. */
static void scatter(struct fetch *f, uint64_t off, const unsigned char *buf, size_t n)
{
    while (n > 0) {
        uint64_t index = off >> BLOCK_SHIFT, in = off & (BLOCK_SIZE - 1);
        const struct fetch_slot *s = &f->slots[index - f->first_block];
        size_t k = MIN(n, BLOCK_SIZE - in);
        block_pages span = block_span(index, off, off + k);
        if ((s->own & span) != span) {
            k = MIN(k, BLOCK_PAGE - (in & (BLOCK_PAGE - 1)));
            span = block_span(index, off, off + k);
        }
        if (s->own & span)
            memcpy(s->block->data + in, buf, k);
        off += k;
        buf += k;
        n -= k;
    }
}

static void fill_locked(struct fetch *f, uint64_t to, struct block_wait **woken)
{
    for (uint64_t at = f->settled; at < to;) {
        uint64_t index = at >> BLOCK_SHIFT, next = (index + 1) << BLOCK_SHIFT;
        const struct fetch_slot *s = &f->slots[index - f->first_block];
        block_pages own = s->own & block_span(index, at, to);
        if (own)
            block_fill(f->set->p.pool, s->block, own, woken);
        at = next;
    }
    f->settled = to;
}

static int fetch_write(void *ctx, uint64_t off, const void *buf, size_t n)
{
    struct fetch *f = ctx;
    struct fetch_set *s = f->set;
    if (off != f->pos || n > f->end - f->pos)
        return -EIO; /* more than we asked for, or something else */
    if (f->first_ns == 0)
        f->first_ns = clock_mono_ns();
    scatter(f, off, buf, n);
    f->pos += n;
    uint64_t to = f->pos == f->end ? f->end : f->pos & ~(BLOCK_PAGE - 1);

    struct fetch_todo todo;
    struct block_wait *woken = NULL;
    fetch_todo_init(&todo);
    block_pool_lock(s->p.pool);
    s->stats.bytes += n;
    if (to > f->settled) {
        fill_locked(f, to, &woken);
        s->p.woken(s->p.ctx, woken, 0, &todo);
    }
    block_pool_unlock(s->p.pool);
    fetch_todo_run(s, &todo);
    return 0;
}

/* What a failed GET means to those who need its bytes. */
static int fetch_error(const struct fetch *f)
{
    const struct store_result *res = &f->req.res;
    if (res->err == 0) {
        if (f->pos == f->end && res->object.size == f->version->size)
            return 0;
        log_warning("%s/%s: the server sent %" G_GUINT64_FORMAT " bytes of %" G_GUINT64_FORMAT
                    ", of an object of %" G_GUINT64_FORMAT " bytes",
                    f->name->bucket, f->name->key, f->pos - f->off, f->end - f->off,
                    res->object.size);
        return -EIO;
    }
    if (res->cls == STORE_CLASS_CONFLICT || res->err == -ENOENT)
        return -ESTALE;
    if (f->kind == FETCH_DEMAND && res->err != -ECANCELED)
        log_warning_errno(res->err, "%s/%s: cannot read at %" G_GUINT64_FORMAT ": %s",
                          f->name->bucket, f->name->key, f->pos, res->detail);
    if (res->err == -EACCES || res->err == -ETIMEDOUT)
        return res->err;
    return -EIO;
}

/* Whether those who wait should try another GET before they fail. */
static bool fetch_is_void(const struct fetch *f, int err)
{
    return f->cancelled || f->name != f->version->name ||
           (f->kind == FETCH_AHEAD && err != -ETIMEDOUT);
}

static void fetch_done(struct store_request *req)
{
    struct fetch *f = req->ctx;
    struct fetch_set *s = f->set;
    struct fetch_todo todo;
    struct block_wait *woken = NULL;
    fetch_todo_init(&todo);
    uint64_t now = clock_mono_ns();
    int err = fetch_error(f);

    block_pool_lock(s->p.pool);
    f->ended = true;
    for (unsigned i = 0; i < f->n_slots; i++) {
        const struct fetch_slot *slot = &f->slots[i];
        uint64_t index = f->first_block + i;
        block_pages left = slot->own & block_span(index, f->settled, f->end);
        if (left)
            block_drop(s->p.pool, slot->block, left, &woken);
    }
    s->made -= f->made;
    if (err == 0 && f->owner)
        s->p.measured(s->p.ctx, f->owner, f->end - f->off, f->first_ns - f->begun_ns,
                      now - f->begun_ns);
    s->p.woken(s->p.ctx, woken, err != 0 && fetch_is_void(f, err) ? -EAGAIN : err, &todo);
    block_pool_unlock(s->p.pool);
    fetch_todo_run(s, &todo);

    block_pool_lock(s->p.pool);
    fetch_unref_locked(f);
    block_pool_unlock(s->p.pool);
}

/* ---- making GETs ---- */

/* A run of blocks on its way to become a GET. */
struct run {
    uint64_t off, end; /* first and last missing byte so far; off == end: nothing yet */
    uint64_t first_block;
    unsigned n_slots, made;
    struct fetch_slot slots[FETCH_SLOTS];
};

static void run_end(struct fetch_set *s, struct run *r, void *owner, struct version *v,
                    enum fetch_kind kind, struct fetch_todo *todo)
{
    if (r->off == r->end)
        return;
    size_t slots_size = r->n_slots * sizeof(r->slots[0]);
    struct fetch *f = g_malloc0(sizeof(*f) + slots_size);
    memcpy(f->slots, r->slots, slots_size);
    f->n_slots = r->n_slots;
    f->first_block = r->first_block;
    f->made = r->made;
    f->set = s;
    f->kind = kind;
    f->version = version_ref(v);
    f->name = version_name_ref(v->name);
    f->off = f->pos = f->settled = r->off;
    f->end = r->end;
    f->owner = owner;
    f->refs = 2;
    f->next = s->all;
    if (f->next)
        f->next->prev = f;
    s->all = f;
    s->stats.gets++;
    f->req = (struct store_request){
        .verb = STORE_GET,
        .prio = kind == FETCH_DEMAND ? STORE_PRIO_DEMAND : STORE_PRIO_AHEAD,
        .bucket = f->name->bucket,
        .key = f->name->key,
        .if_match = f->name->etag,
        .range = {.off = f->off, .len = f->end - f->off, .set = true},
        .expect_size = v->size,
        .sink = {.write = fetch_write, .ctx = f},
        .done = fetch_done,
        .ctx = f,
    };
    *todo->submit_tail = f;
    todo->submit_tail = &f->todo_next;
    r->off = r->end = 0;
    r->n_slots = r->made = 0;
}

/* Adds the pages `missing` of block b, which lie at or behind the run's end. */
static void run_add(struct run *r, struct block *b, block_pages missing, uint64_t size, bool made)
{
    uint64_t start = b->index << BLOCK_SHIFT;
    uint64_t lo = start + ((uint64_t)__builtin_ctz(missing) << BLOCK_PAGE_SHIFT);
    uint64_t hi = start + ((uint64_t)(32 - __builtin_clz(missing)) << BLOCK_PAGE_SHIFT);
    if (r->off == r->end) {
        r->off = lo;
        r->first_block = b->index;
    }
    r->end = MIN(hi, size);
    while (r->n_slots <= b->index - r->first_block)
        r->slots[r->n_slots++] = (struct fetch_slot){0};
    r->slots[b->index - r->first_block] = (struct fetch_slot){.block = b, .own = missing};
    r->made += made;
}

static bool may_make(const struct fetch_set *s)
{
    return s->made < s->made_max && block_pool_room(s->p.pool) > BLOCKS_MIN / 2;
}

uint64_t fetch_range_locked(struct fetch_set *s, void *owner, struct version *v, uint64_t off,
                            uint64_t end, enum fetch_kind kind, struct fetch_todo *todo)
{
    struct run run = {0};
    end = MIN(end, v->size);
    for (uint64_t at = off; at < end;) {
        uint64_t index = at >> BLOCK_SHIFT;
        struct block *b = block_find(s->p.pool, v, index);
        bool make = !b;
        if (make) {
            b = may_make(s) ? block_make(s->p.pool, v, index) : NULL;
            if (!b) {
                end = at;
                break;
            }
            block_expect(b);
            s->made++;
        }
        block_pages missing = block_span(index, at, end) & ~(b->valid | b->fetching);
        if (missing) {
            uint64_t lo =
                (index << BLOCK_SHIFT) + ((uint64_t)__builtin_ctz(missing) << BLOCK_PAGE_SHIFT);
            if (run.off != run.end && (lo - run.end > FETCH_GAP_MAX ||
                                       index - run.first_block >= FETCH_MAX >> BLOCK_SHIFT))
                run_end(s, &run, owner, v, kind, todo);
            run_add(&run, b, missing, v->size, make);
            block_claim(s->p.pool, b, missing);
        }
        if (make)
            block_unpin(s->p.pool, b);
        at = (index + 1) << BLOCK_SHIFT;
    }
    run_end(s, &run, owner, v, kind, todo);
    return end;
}

/* ---- cancelling ---- */

static bool fetch_awaited(const struct fetch *f)
{
    for (unsigned i = 0; i < f->n_slots; i++) {
        block_pages left = f->slots[i].own & block_span(f->first_block + i, f->settled, f->end);
        if (left && block_awaited(f->slots[i].block, left))
            return true;
    }
    return false;
}

void fetch_cancel_idle_locked(struct fetch_set *s, const void *owner, uint64_t off, uint64_t end,
                              uint64_t left, bool demand_only)
{
    for (struct fetch *f = s->all; f; f = f->next)
        if (f->owner == owner && !f->ended && f->off >= off && f->end <= end &&
            f->end - f->settled > left && !(demand_only && f->kind != FETCH_DEMAND) &&
            !fetch_awaited(f))
            fetch_cancel_locked(f);
}

void fetch_disown_locked(struct fetch_set *s, const void *owner)
{
    for (struct fetch *f = s->all; f; f = f->next)
        if (f->owner == owner)
            f->owner = NULL;
}

/* ---- todo ---- */

void fetch_todo_init(struct fetch_todo *todo)
{
    *todo = (struct fetch_todo){.submit_tail = &todo->submit};
}

bool fetch_todo_empty(const struct fetch_todo *todo)
{
    return !todo->submit && !todo->ready;
}

void fetch_todo_run(struct fetch_set *s, struct fetch_todo *todo)
{
    struct fetch *next = todo->submit;
    if (todo->ready)
        s->p.complete(s->p.ctx, todo->ready);
    for (struct fetch *f = next; f; f = next) {
        next = f->todo_next;
        f->begun_ns = clock_mono_ns();
        store_submit(s->p.store, &f->req);
        block_pool_lock(s->p.pool);
        f->submitted = true;
        if (f->cancelled && !f->ended)
            store_cancel(s->p.store, &f->req);
        struct block_pool *pool = s->p.pool;
        fetch_unref_locked(f);
        block_pool_unlock(pool);
    }
}
/* A snapshot. */
void fetch_get_stats_locked(const struct fetch_set *s, struct fetch_stats *ret)
{
    *ret = s->stats;
}
