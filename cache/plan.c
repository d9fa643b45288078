/* SPDX-License-Identifier: Apache-2.0
 *
 * plan: see plan.h. Threads: none; everything is a function of its arguments.
 *
 * Cutting goes from left to right. A run of BASE bytes of at least `copy_min` is copied by the
 * server; what lies between such runs goes up from staging. Where that is less than a part may
 * have, it takes the missing bytes from the run after it. copy_min starts at the least a part may
 * have; it doubles while the parts are too many, so that islands of changes melt together.
 */
#include "cache/plan.h"

#include <assert.h>
#include <errno.h>

#include "cache/extents.h"

#define PARTS_PER_STEP 1000u

void plan_limits_init(struct plan_limits *l, uint64_t part_size, uint64_t fetch_max)
{
    part_size = part_size ? part_size : PLAN_PART_SIZE;
    *l = (struct plan_limits){
        .part_size = CLAMP(part_size, STORE_PART_MIN, STORE_PART_MAX),
        .part_min = STORE_PART_MIN,
        .part_max = STORE_PART_MAX,
        .copy_max = STORE_PART_MAX,
        .fetch_max = MAX(fetch_max, 2 * STORE_PART_MIN),
        .parts_max = STORE_PARTS_MAX,
        .holes_max = UINT64_MAX,
    };
    for (unsigned n = 1; n <= l->parts_max; n += PARTS_PER_STEP)
        l->size_max += plan_part_size(l, n) * MIN(l->parts_max - n + 1, PARTS_PER_STEP);
    l->size_max = MIN(l->size_max, STORE_OBJECT_MAX);
}

uint64_t plan_part_size(const struct plan_limits *l, unsigned number)
{
    assert(number >= 1);
    unsigned doublings = MIN((number - 1) / PARTS_PER_STEP, 20u);
    uint64_t n = l->part_size;
    while (doublings-- > 0 && n < l->part_max)
        n *= 2;
    return MIN(n, l->part_max);
}

/* Length of the run of BASE bytes that begins at off. */
static uint64_t base_run(const struct extents *map, uint64_t off)
{
    struct extent x;
    if (!extents_next(map, off, &x) || x.kind != EXTENT_BASE)
        return 0;
    return x.len; /* neighbours of one kind are one extent */
}

struct cut {
    const struct plan_input *in;
    const struct plan_limits *l;
    uint64_t size, copy_min;
    GArray *parts;
};

static void add(struct cut *c, enum plan_how how, uint64_t off, uint64_t len)
{
    struct plan_part p = {.number = c->parts->len + 1, .how = how, .off = off, .len = len};
    g_array_append_val(c->parts, p);
}

static bool copyable(const struct cut *c, uint64_t off, uint64_t run)
{
    if (!c->in->copy_part || run == 0)
        return false;
    /* A whole object may be copied as the only part, whatever its size. The tail of one could be,
     * too, but is not worth a request of its own. */
    return run >= c->copy_min || run == c->size;
}

/* How much of a run one COPY_PART takes, leaving nothing behind that is too small for a part. */
static uint64_t copy_len(const struct cut *c, uint64_t run)
{
    if (run <= c->l->copy_max)
        return run;
    uint64_t rest = run - c->l->copy_max;
    return rest < c->l->part_min ? run - c->l->part_min : c->l->copy_max;
}

/* How long the part is that goes up from off. */
static uint64_t upload_len(const struct cut *c, uint64_t off, unsigned number)
{
    uint64_t most = MAX(plan_part_size(c->l, number), c->l->part_min);
    uint64_t at = off, fetched = 0;
    struct extent x;
    while (at - off < most && extents_next(c->in->map, at, &x)) {
        uint64_t n = MIN(x.len, most - (at - off));
        if (x.kind == EXTENT_BASE) {
            uint64_t missing = at - off < c->l->part_min ? c->l->part_min - (at - off) : 0;
            if (copyable(c, x.off, x.len)) {
                if (missing == 0)
                    break;
                if (x.len > missing && x.len - missing >= c->copy_min)
                    return at - off + missing;
            }
            uint64_t room = MAX(c->l->fetch_max - fetched, missing);
            if (n > room)
                return at - off + room;
            fetched += n;
            if (fetched >= c->l->fetch_max && at + n - off >= c->l->part_min)
                return at + n - off;
        }
        at += n;
    }
    return at - off;
}

/* The parts that a stream has uploaded, as far as they are still inside the file. */
static uint64_t cut_done(struct cut *c)
{
    uint64_t at = 0;
    for (size_t i = 0; i < c->in->n_done && at < c->size; i++) {
        const struct plan_done *d = &c->in->done[i];
        assert(d->off == at && d->len > 0);
        uint64_t n = MIN(d->len, c->size - at);
        add(c, d->stale || n < d->len ? PLAN_UPLOAD : PLAN_KEEP, at, n);
        at += n;
    }
    return at;
}

static bool cut_parts(struct cut *c)
{
    g_array_set_size(c->parts, 0);
    uint64_t at = cut_done(c);
    while (at < c->size) {
        if (c->parts->len >= c->l->parts_max)
            return false;
        uint64_t run = base_run(c->in->map, at), n;
        if (copyable(c, at, run)) {
            n = copy_len(c, run);
            add(c, PLAN_COPY_PART, at, n);
        } else {
            n = upload_len(c, at, c->parts->len + 1);
            /* The last part that is allowed takes all that remains. */
            uint64_t rest = c->size - at;
            if (c->parts->len + 1 == c->l->parts_max && rest <= c->l->part_max &&
                extents_bytes(c->in->map, at, rest, EXTENT_BASE) <= c->l->fetch_max)
                n = rest;
            add(c, PLAN_UPLOAD, at, n);
        }
        at += n;
    }
    return true;
}

static int cut_all(const struct plan_input *in, const struct plan_limits *l, GArray **ret)
{
    struct cut c = {.in = in,
                    .l = l,
                    .size = extents_size(in->map),
                    .copy_min = l->part_min,
                    .parts = g_array_new(FALSE, FALSE, sizeof(struct plan_part))};
    while (!cut_parts(&c)) {
        if (c.copy_min > c.size) {
            g_array_unref(c.parts);
            return -EFBIG;
        }
        c.copy_min *= 2;
    }
    *ret = c.parts;
    return 0;
}

static int multipart(const struct plan_input *in, const struct plan_limits *l, struct plan *ret)
{
    GArray *parts = NULL;
    int r = cut_all(in, l, &parts);
    if (r == 0)
        *ret = (struct plan){.kind = PLAN_MULTIPART, .parts = parts};
    return r;
}

int plan_make(const struct plan_input *in, const struct plan_limits *l, struct plan *ret)
{
    uint64_t size = extents_size(in->map);
    *ret = (struct plan){.kind = PLAN_NOTHING};

    if (!in->data_dirty && in->has_base) {
        if (!in->headers_dirty && !in->moved)
            return 0;
        bool by_parts = in->base_size > l->copy_max ||
                        (in->moved && in->guarded && in->copy_part && in->base_size > 0);
        if (by_parts)
            return multipart(in, l, ret);
        if (in->base_size == 0) { /* nothing to copy, and a PUT carries every condition */
            ret->kind = PLAN_PUT;
            return 0;
        }
        ret->kind = PLAN_COPY;
        return 0;
    }
    if (extents_bytes(in->map, 0, size, EXTENT_ZERO) > l->holes_max)
        return -EFBIG;
    /* Bytes that exist only as parts can only become an object by way of them. */
    if (size <= l->part_size && !extents_has(in->map, 0, size, EXTENT_PUNCHED) &&
        extents_bytes(in->map, 0, size, EXTENT_BASE) <= l->fetch_max) {
        ret->kind = PLAN_PUT;
        return 0;
    }
    return multipart(in, l, ret);
}

void plan_clear(struct plan *p)
{
    if (p->parts)
        g_array_unref(p->parts);
    *p = (struct plan){.kind = PLAN_NOTHING};
}
