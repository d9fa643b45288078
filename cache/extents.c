/* SPDX-License-Identifier: Apache-2.0
 *
 * extents: see extents.h. A balanced tree of extents ordered by offset. Threads: none of its own.
 * Invariants: extents cover [0, size) exactly; none is empty; no two neighbours continue each
 * other (extents_check()).
 */
#include "cache/extents.h"

#include <assert.h>
#include <glib.h>

struct extents {
    GTree *tree; /* struct extent* (key and value are the same) by off */
    uint64_t size;
    extents_dropped *dropped;
    void *dropped_ctx;
};

static int extent_compare(gconstpointer a, gconstpointer b, gpointer data)
{
    const struct extent *x = a, *y = b;
    return x->off < y->off ? -1 : x->off > y->off;
}

struct extents *extents_new(void)
{
    struct extents *e = g_new0(struct extents, 1);
    e->tree = g_tree_new_full(extent_compare, NULL, NULL, g_free);
    return e;
}

void extents_free(struct extents *e)
{
    if (!e)
        return;
    g_tree_destroy(e->tree);
    g_free(e);
}

uint64_t extents_size(const struct extents *e)
{
    return e->size;
}

size_t extents_count(const struct extents *e)
{
    return (size_t)g_tree_nnodes(e->tree);
}

void extents_on_dropped(struct extents *e, extents_dropped *dropped, void *ctx)
{
    e->dropped = dropped;
    e->dropped_ctx = ctx;
}

static bool has_src(enum extent_kind kind)
{
    return kind == EXTENT_STAGED || kind == EXTENT_FETCHED;
}

static bool continues(const struct extent *a, const struct extent *b)
{
    return a->off + a->len == b->off && a->kind == b->kind &&
           (!has_src(a->kind) || a->src + a->len == b->src);
}

/* The node of the extent that contains off; NULL past the end. */
static GTreeNode *node_at(const struct extents *e, uint64_t off)
{
    if (off >= e->size)
        return NULL;
    struct extent key = {.off = off};
    GTreeNode *above = g_tree_upper_bound(e->tree, &key);
    GTreeNode *node = above ? g_tree_node_previous(above) : g_tree_node_last(e->tree);
    assert(node);
    return node;
}

static struct extent *node_extent(GTreeNode *node)
{
    return node ? g_tree_node_value(node) : NULL;
}

static void insert(struct extents *e, uint64_t off, uint64_t len, enum extent_kind kind,
                   uint64_t src)
{
    struct extent *x = g_new(struct extent, 1);
    *x = (struct extent){.off = off, .len = len, .kind = kind, .src = src};
    g_tree_insert(e->tree, x, x);
}

static void drop(struct extents *e, const struct extent *x, uint64_t off, uint64_t len)
{
    if (e->dropped && x->kind == EXTENT_STAGED)
        e->dropped(e->dropped_ctx, x->src + (off - x->off), len);
}

/* Makes an extent begin at off (if one contains it). */
static void split(struct extents *e, uint64_t off)
{
    struct extent *x = node_extent(node_at(e, off));
    if (!x || x->off == off)
        return;
    uint64_t head = off - x->off;
    insert(e, off, x->len - head, x->kind, has_src(x->kind) ? x->src + head : 0);
    x->len = head;
}

/* Takes [off, end) out of the map; the hole is the caller's to fill. */
static void clear(struct extents *e, uint64_t off, uint64_t end)
{
    split(e, off);
    split(e, end);
    for (;;) {
        struct extent key = {.off = off};
        struct extent *x = node_extent(g_tree_lower_bound(e->tree, &key));
        if (!x || x->off >= end)
            return;
        drop(e, x, x->off, x->len);
        g_tree_remove(e->tree, x);
    }
}

/* Joins the extent that begins at off with the one before it, if they continue each other. */
static void join(struct extents *e, uint64_t off)
{
    if (off == 0 || off >= e->size)
        return;
    struct extent key = {.off = off};
    GTreeNode *node = g_tree_lookup_node(e->tree, &key);
    if (!node)
        return;
    struct extent *x = g_tree_node_value(node);
    struct extent *before = node_extent(g_tree_node_previous(node));
    if (!before || !continues(before, x))
        return;
    before->len += x->len;
    g_tree_remove(e->tree, x);
}

/* The common case: a write that goes on where the last extent ends. */
static bool append(struct extents *e, uint64_t off, uint64_t len, enum extent_kind kind,
                   uint64_t src)
{
    if (off != e->size)
        return false;
    struct extent *last = node_extent(g_tree_node_last(e->tree));
    struct extent x = {.off = off, .len = len, .kind = kind, .src = src};
    if (last && continues(last, &x))
        last->len += len;
    else
        insert(e, off, len, kind, src);
    e->size = off + len;
    return true;
}

void extents_set(struct extents *e, uint64_t off, uint64_t len, enum extent_kind kind, uint64_t src)
{
    assert(len > 0 && off + len > off);
    if (!has_src(kind))
        src = 0;
    if (off > e->size)
        append(e, e->size, off - e->size, EXTENT_ZERO, 0);
    if (append(e, off, len, kind, src))
        return;
    uint64_t end = off + len;
    clear(e, off, MIN(end, e->size));
    insert(e, off, len, kind, src);
    e->size = MAX(e->size, end);
    join(e, off);
    join(e, end);
}

void extents_truncate(struct extents *e, uint64_t size)
{
    if (size > e->size) {
        append(e, e->size, size - e->size, EXTENT_ZERO, 0);
    } else if (size < e->size) {
        clear(e, size, e->size);
        e->size = size;
    }
}

bool extents_next(const struct extents *e, uint64_t off, struct extent *ret)
{
    const struct extent *x = node_extent(node_at(e, off));
    if (!x)
        return false;
    uint64_t skip = off - x->off;
    *ret = (struct extent){.off = off,
                           .len = x->len - skip,
                           .kind = x->kind,
                           .src = has_src(x->kind) ? x->src + skip : 0};
    return true;
}

bool extents_has(const struct extents *e, uint64_t off, uint64_t len, enum extent_kind kind)
{
    struct extent x;
    uint64_t end = off + MIN(len, UINT64_MAX - off);
    for (; off < end && extents_next(e, off, &x); off = x.off + x.len)
        if (x.kind == kind)
            return true;
    return false;
}

uint64_t extents_bytes(const struct extents *e, uint64_t off, uint64_t len, enum extent_kind kind)
{
    struct extent x;
    uint64_t n = 0, end = off + MIN(len, UINT64_MAX - off);
    for (; off < end && extents_next(e, off, &x); off = x.off + x.len)
        if (x.kind == kind)
            n += MIN(x.len, end - x.off);
    return n;
}

struct extents *extents_slice(const struct extents *e, uint64_t off, uint64_t len)
{
    struct extents *s = extents_new();
    struct extent x;
    uint64_t end = off + MIN(len, UINT64_MAX - off);
    for (; off < end && extents_next(e, off, &x); off = x.off + x.len)
        extents_set(s, x.off, MIN(x.len, end - x.off), x.kind, x.src);
    return s;
}

void extents_check(const struct extents *e)
{
    uint64_t at = 0;
    const struct extent *before = NULL;
    bool ok = true;
    for (GTreeNode *n = g_tree_node_first(e->tree); n; n = g_tree_node_next(n)) {
        const struct extent *x = g_tree_node_value(n);
        ok = ok && x->off == at && x->len > 0 && !(before && continues(before, x));
        ok = ok && g_tree_node_key(n) == x && (has_src(x->kind) || x->src == 0);
        at = x->off + x->len;
        before = x;
    }
    if (!ok || at != e->size)
        g_error("extents: broken map (size %" G_GUINT64_FORMAT ")", e->size);
}
