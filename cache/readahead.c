/* SPDX-License-Identifier: Apache-2.0
 *
 * readahead: see readahead.h. Threads and locks: none of its own.
 *
 * Sizing follows BBR (Cardwell et al., "BBR: Congestion-Based Congestion Control", ACM Queue 2016):
 * what must be in flight is the rate that was reached times the least delay seen, twice that for
 * growth; delay that only comes from too much in flight does not ask for more.
 *
 * Invariants: start <= frontier; pending ranges are ascending, disjoint, and begin behind frontier.
 */
#include "cache/readahead.h"

#include <assert.h>
#include <string.h>

#define KIB (UINT64_C(1) << 10)
#define MIB (UINT64_C(1) << 20)
#define ALIGN (128 * KIB)
#define GET_MAX (8 * MIB)
#define WINDOW_FIRST (256 * KIB)
#define RATE_SPAN_NS UINT64_C(20000000)       /* one sample of the rate takes at least so long */
#define RATE_IDLE_NS UINT64_C(1000000000)     /* a longer pause says nothing about the rate */
#define MEASURE_LIFE_NS UINT64_C(10000000000) /* then minima start anew */
#define SKIPS_MAX 4      /* reads beyond a gap that nobody fills, after which it is left behind */
#define SCATTERED_MAX 16 /* the same for a stream whose reads there have gaps between them, too */
#define SETTLED 4        /* reads in order that make a new place the one that matters */

static inline uint64_t min64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline uint64_t max64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static inline uint64_t clamp64(uint64_t x, uint64_t lo, uint64_t hi)
{
    return x < lo ? lo : x > hi ? hi : x;
}

void readahead_init(struct readahead *ra, uint64_t size)
{
    memset(ra, 0, sizeof(*ra));
    ra->size = size;
}

/* ---- measurements ---- */

void readahead_fetched(struct readahead *ra, uint64_t bytes, uint64_t first_ns, uint64_t total_ns,
                       uint64_t now_ns)
{
    if (bytes < ALIGN || total_ns < first_ns)
        return;
    uint64_t mib_ns = (uint64_t)((double)(total_ns - first_ns) * (double)MIB / (double)bytes);
    bool fresh = ra->measured_at != 0 && now_ns - ra->measured_at < MEASURE_LIFE_NS;
    if (!fresh)
        ra->measured_at = now_ns ? now_ns : 1;
    if (!fresh || first_ns < ra->first_ns)
        ra->first_ns = first_ns;
    if (!fresh || mib_ns < ra->mib_ns)
        ra->mib_ns = mib_ns;
}

static void rate_note(struct readahead *ra, uint64_t bytes, uint64_t now_ns)
{
    uint64_t span = now_ns - ra->rate_from;
    if (ra->rate_from == 0 || span > RATE_IDLE_NS) {
        ra->rate_from = now_ns ? now_ns : 1;
        ra->rate_bytes = 0;
        return;
    }
    ra->rate_bytes += bytes;
    if (span < RATE_SPAN_NS)
        return;
    uint64_t rate = (uint64_t)((double)ra->rate_bytes * 1e9 / (double)span);
    ra->rate = max64(rate, ra->rate - ra->rate / 8);
    ra->rate_from = now_ns;
    ra->rate_bytes = 0;
}

static uint64_t get_size(uint64_t window)
{
    if (window < MIB) /* a first guess: one GET */
        return max64((window + ALIGN - 1) / ALIGN * ALIGN, ALIGN);
    if (window < 4 * MIB)
        return clamp64(window / 2, ALIGN, MIB);
    return clamp64(window / 4 / ALIGN * ALIGN, MIB, GET_MAX);
}

static uint64_t window_target(const struct readahead *ra, const struct readahead_cursor *c,
                              uint64_t cap)
{
    uint64_t max = clamp64(cap, ALIGN, READAHEAD_WINDOW_MAX);
    uint64_t want = READAHEAD_WINDOW_STEADY;
    if (ra->rate && ra->measured_at) {
        double get_ns = (double)ra->first_ns +
                        (double)ra->mib_ns * (double)get_size(c->window * 2) / (double)MIB;
        want = max64(want, (uint64_t)min64((uint64_t)(2e-9 * (double)ra->rate * get_ns), max));
    }
    return min64(want, max);
}

/* ---- which cursor a read belongs to ---- */

enum match { MATCH_NONE, MATCH_BACKWARD, MATCH_AGAIN, MATCH_JUMP, MATCH_BEYOND, MATCH_NEXT };

static enum match cursor_match(const struct readahead_cursor *c, uint64_t off, uint64_t end)
{
    if (c->used == 0)
        return MATCH_NONE;
    if (off <= c->frontier) {
        bool near = c->frontier - off <= READAHEAD_SLACK;
        if (near && off >= c->start)
            return end > c->frontier ? MATCH_NEXT : MATCH_AGAIN;
        if (off < c->start && end >= c->start && c->start - off <= READAHEAD_SLACK)
            return MATCH_BACKWARD;
        return MATCH_NONE;
    }
    if (off - c->frontier <= READAHEAD_SLACK)
        return MATCH_BEYOND;
    return c->window && off < c->ahead ? MATCH_JUMP : MATCH_NONE;
}

static void cursor_start(struct readahead *ra, struct readahead_cursor *c, uint64_t off,
                         uint64_t end)
{
    *c = (struct readahead_cursor){
        .start = off,
        .frontier = end,
        .grown_at = end,
        .born = ra->tick,
        .advances = 1,
        .from_zero = off == 0,
    };
}

static void plan_drop(struct readahead *ra, struct readahead_cursor *c, struct readahead_plan *plan)
{
    if (c->ahead > c->frontier) {
        bool shared = false; /* another cursor reads just there */
        for (unsigned i = 0; i < READAHEAD_CURSORS; i++) {
            const struct readahead_cursor *o = &ra->cursors[i];
            shared |=
                o != c && o->used && o->start < c->ahead && o->frontier + o->window > c->frontier;
        }
        if (!shared)
            plan->drop[plan->n_drop++] = (struct readahead_range){c->frontier, c->ahead};
    }
    c->ahead = 0;
    c->window = 0;
    c->advances = 1;
    c->from_zero = false;
}

static struct readahead_cursor *cursor_new(struct readahead *ra, uint64_t off, uint64_t end,
                                           struct readahead_plan *plan)
{
    struct readahead_cursor *c = &ra->cursors[0];
    for (unsigned i = 1; i < READAHEAD_CURSORS; i++)
        if (ra->cursors[i].used < c->used)
            c = &ra->cursors[i];
    if (c->used)
        plan_drop(ra, c, plan);
    cursor_start(ra, c, off, end);
    return c;
}

/* ---- moving a cursor ---- */

static void pending_remove(struct readahead_cursor *c, unsigned i)
{
    c->n_pending--;
    memmove(&c->pending[i], &c->pending[i + 1], (c->n_pending - i) * sizeof(c->pending[0]));
}

/* Takes in what was read beyond the frontier before the frontier came there. */
static void pending_absorb(struct readahead_cursor *c)
{
    while (c->n_pending && c->pending[0].off <= c->frontier) {
        c->frontier = max64(c->frontier, c->pending[0].end);
        pending_remove(c, 0);
    }
    if (c->n_pending == 0)
        c->skipped = 0;
}

/* False when there are more pieces than a disordered stream has. */
static bool pending_add(struct readahead_cursor *c, uint64_t off, uint64_t end)
{
    unsigned i = 0;
    while (i < c->n_pending && c->pending[i].end < off)
        i++;
    if (i < c->n_pending && c->pending[i].off <= end) {
        c->pending[i].off = min64(c->pending[i].off, off);
        c->pending[i].end = max64(c->pending[i].end, end);
        while (i + 1 < c->n_pending && c->pending[i + 1].off <= c->pending[i].end) {
            c->pending[i].end = max64(c->pending[i].end, c->pending[i + 1].end);
            pending_remove(c, i + 1);
        }
        return true;
    }
    if (c->n_pending == READAHEAD_PENDING)
        return false;
    memmove(&c->pending[i + 1], &c->pending[i], (c->n_pending - i) * sizeof(c->pending[0]));
    c->pending[i] = (struct readahead_range){off, end};
    c->n_pending++;
    return true;
}

static void cursor_beyond(struct readahead *ra, struct readahead_cursor *c, uint64_t off,
                          uint64_t end)
{
    bool fits = pending_add(c, off, end);
    if (fits && ++c->skipped < SKIPS_MAX)
        return;
    if (fits && c->n_pending <= 2) { /* they go on in order behind a gap that nobody wants */
        c->frontier = c->pending[0].end;
        pending_remove(c, 0);
        pending_absorb(c);
        c->skipped = 0;
        c->advances++;
        return;
    }
    if (fits && c->window && c->skipped < SCATTERED_MAX)
        return; /* a stream in disorder; the gaps may close yet */
    /* Scattered about: this is no stream. What was asked for ahead is kept, not extended. */
    uint64_t ahead = c->ahead;
    cursor_start(ra, c, off, end);
    c->from_zero = false;
    c->ahead = ahead;
}

static void cursor_move(struct readahead *ra, struct readahead_cursor *c, enum match m,
                        uint64_t off, uint64_t end)
{
    switch (m) {
    case MATCH_NEXT:
        c->frontier = end;
        c->advances++;
        pending_absorb(c);
        break;
    case MATCH_BEYOND:
        cursor_beyond(ra, c, off, end);
        break;
    case MATCH_JUMP: /* a skip within what is on its way already */
        c->start = off;
        c->frontier = c->grown_at = end;
        c->n_pending = c->skipped = 0;
        c->advances = 1;
        c->from_zero = false;
        break;
    case MATCH_BACKWARD:
        c->start = off;
        c->backs++;
        break;
    case MATCH_AGAIN:
    case MATCH_NONE:
        break;
    }
}

/* ---- the window ---- */

static bool is_sequential(const struct readahead_cursor *c)
{
    return c->advances >= 2 || c->from_zero;
}

static void window_update(const struct readahead *ra, struct readahead_cursor *c, uint64_t len,
                          uint64_t cap)
{
    if (c->window == 0) {
        if (c->from_zero && c->advances == 1)
            c->window = clamp64(2 * len, 512 * KIB, max64(len, MIB)) - len;
        else
            c->window = clamp64(2 * (c->frontier - c->start), WINDOW_FIRST, MIB);
        c->grown_at = c->frontier;
    }
    uint64_t target = window_target(ra, c, cap);
    if (c->frontier - c->grown_at >= c->window / 2 && c->advances >= 2) {
        c->window = max64(c->window * 2, WINDOW_FIRST);
        c->grown_at = c->frontier;
    }
    c->window = min64(c->window, target);
}

static void plan_fetch(const struct readahead *ra, struct readahead_cursor *c,
                       struct readahead_plan *plan)
{
    uint64_t want = min64(c->frontier + c->window, ra->size);
    bool dry = c->ahead <= c->frontier;
    uint64_t lo = dry ? c->frontier : c->ahead, get = get_size(c->window);
    while (lo < want && plan->n_fetch < READAHEAD_FETCHES) {
        uint64_t end = (lo + get) / ALIGN * ALIGN;
        if (end > want) {
            /* Less than a whole GET: worth it at the end of the object, or when nothing is under
             * way. */
            if (want < ra->size && (!dry || plan->n_fetch))
                break;
            end = min64((want + ALIGN - 1) / ALIGN * ALIGN, ra->size);
        }
        if (end < ra->size && ra->size - end < get / 4 && want == ra->size)
            end = ra->size;
        plan->fetch[plan->n_fetch++] = (struct readahead_range){lo, end};
        lo = end;
    }
    if (plan->n_fetch)
        c->ahead = lo;
}

/* Those that were not read from since c began are places left behind, once c goes on and on. */
static void drop_rivals(struct readahead *ra, struct readahead_cursor *c,
                        struct readahead_plan *plan)
{
    if (c->advances != SETTLED)
        return;
    for (unsigned i = 0; i < READAHEAD_CURSORS; i++) {
        struct readahead_cursor *o = &ra->cursors[i];
        if (o != c && o->used && o->used < c->born)
            plan_drop(ra, o, plan);
    }
}

void readahead_note(struct readahead *ra, uint64_t off, uint64_t end, uint64_t now_ns, uint64_t cap,
                    struct readahead_plan *ret)
{
    assert(off < end && end <= ra->size);
    ret->n_fetch = ret->n_drop = 0;
    ra->tick++;
    struct readahead_cursor *c = NULL;
    enum match best = MATCH_NONE;
    for (unsigned i = 0; i < READAHEAD_CURSORS; i++) {
        enum match m = cursor_match(&ra->cursors[i], off, end);
        if (m > best) {
            best = m;
            c = &ra->cursors[i];
        }
    }
    uint64_t before = 0;
    if (c) {
        before = c->frontier;
        cursor_move(ra, c, best, off, end);
    } else {
        c = cursor_new(ra, off, end, ret);
    }
    c->used = ra->tick;
    uint64_t gain = before && c->frontier > before && best != MATCH_JUMP ? c->frontier - before : 0;
    rate_note(ra, gain, now_ns);
    ret->cursor = (unsigned)(c - ra->cursors);
    ret->sequential = is_sequential(c);
    if (!ret->sequential)
        return;
    drop_rivals(ra, c, ret);
    window_update(ra, c, end - off, cap);
    plan_fetch(ra, c, ret);
}

void readahead_denied(struct readahead *ra, unsigned cursor, uint64_t off)
{
    struct readahead_cursor *c = &ra->cursors[cursor];
    c->ahead = min64(c->ahead, off);
}
