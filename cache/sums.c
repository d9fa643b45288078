/* SPDX-License-Identifier: Apache-2.0
 *
 * sums: see sums.h. Runs lie in sorted arrays, one for each REGION of the staging file that has
 * any: staging is used from its end on and given back anywhere, so that one array would be moved
 * about all the time, and a tree would cost more than the runs.
 *
 * Threads: any. `lock` is a leaf and not held while the disk works: who has read a run looks again
 * whether it is still the same, and starts anew if not. A run only ever shrinks, or grows by a
 * neighbour, so that one that looks the same is the same.
 * Invariant: the runs of a region are ascending, disjoint, and each within one block.
 */
#include "cache/sums.h"

#include <assert.h>
#include <errno.h>
#include <glib.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "base/log.h"
#include "base/mutex.h"

#define REGION (1ULL << 20)

struct sums {
    int fd;
    struct mutex lock;
    GHashTable *regions; /* lock: off / REGION → GArray of struct sum */
};

struct sums *sums_new(int fd)
{
    struct sums *s = g_new0(struct sums, 1);
    s->fd = fd;
    mutex_init(&s->lock, RANK_LEAF);
    s->regions =
        g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, (GDestroyNotify)g_array_unref);
    return s;
}

void sums_free(struct sums *s)
{
    if (!s)
        return;
    g_hash_table_unref(s->regions);
    mutex_fini(&s->lock);
    g_free(s);
}

static uint64_t end_of(const struct sum *x)
{
    return x->off + x->len;
}

/* ---- the arrays ---- */

static GArray *region_locked(const struct sums *s, uint64_t off)
{
    uint64_t number = off / REGION;
    return g_hash_table_lookup(s->regions, &number);
}

static struct sum *nth(const GArray *runs, guint i)
{
    return &g_array_index(runs, struct sum, i);
}

/* The first run that ends after off, or how many there are. */
static guint search(const GArray *runs, uint64_t off)
{
    guint lo = 0, hi = runs->len;
    while (lo < hi) {
        guint mid = lo + (hi - lo) / 2;
        if (end_of(nth(runs, mid)) > off)
            hi = mid;
        else
            lo = mid + 1;
    }
    return lo;
}

static bool joins(const struct sum *a, const struct sum *b)
{
    return end_of(a) == b->off && a->at + a->len == b->at && !a->bad && !b->bad &&
           a->off / SUMS_BLOCK == b->off / SUMS_BLOCK;
}

static void join(GArray *runs, guint i)
{
    struct sum *a = nth(runs, i), *b = nth(runs, i + 1);
    a->crc = crc32c_combine(a->crc, b->crc, b->len);
    a->len += b->len;
    g_array_remove_index(runs, i + 1);
}

static void add_locked(struct sums *s, const struct sum *run)
{
    assert(run->len > 0 && run->off / SUMS_BLOCK == (end_of(run) - 1) / SUMS_BLOCK);
    GArray *runs = region_locked(s, run->off);
    if (!runs) {
        uint64_t *number = g_new(uint64_t, 1);
        *number = run->off / REGION;
        runs = g_array_new(FALSE, FALSE, sizeof(struct sum));
        g_hash_table_insert(s->regions, number, runs);
    }
    guint i = search(runs, run->off);
    assert(i == runs->len || nth(runs, i)->off >= end_of(run));
    g_array_insert_val(runs, i, *run);
    if (i + 1 < runs->len && joins(nth(runs, i), nth(runs, i + 1)))
        join(runs, i);
    if (i > 0 && joins(nth(runs, i - 1), nth(runs, i)))
        join(runs, i - 1);
}

static void remove_locked(struct sums *s, uint64_t off)
{
    GArray *runs = region_locked(s, off);
    g_array_remove_index(runs, search(runs, off));
    if (runs->len > 0)
        return;
    uint64_t number = off / REGION;
    g_hash_table_remove(s->regions, &number);
}

/* The first run of off's block that ends after off and begins before end. */
static bool next_locked(const struct sums *s, uint64_t off, uint64_t end, struct sum *ret)
{
    const GArray *runs = region_locked(s, off);
    guint i = runs ? search(runs, off) : 0;
    if (!runs || i == runs->len)
        return false;
    *ret = *nth(runs, i);
    return ret->off < end && ret->off / SUMS_BLOCK == off / SUMS_BLOCK;
}

static bool find(struct sums *s, uint64_t off, struct sum *ret)
{
    mutex_lock(&s->lock);
    bool found = next_locked(s, off, off + 1, ret);
    mutex_unlock(&s->lock);
    return found;
}

static bool is_there_locked(const struct sums *s, const struct sum *x)
{
    struct sum now;
    return next_locked(s, x->off, x->off + 1, &now) && now.off == x->off && now.len == x->len &&
           now.crc == x->crc && now.bad == x->bad;
}

/* ---- computing ---- */

unsigned sums_compute(uint64_t off, uint64_t at, const void *buf, size_t n,
                      struct sum runs[static SUMS_RUNS])
{
    assert(n > 0 && n <= SUMS_FILL);
    const char *p = buf;
    unsigned count = 0;
    while (n > 0) {
        size_t k = (size_t)MIN(n, SUMS_BLOCK - off % SUMS_BLOCK);
        runs[count++] =
            (struct sum){.off = off, .at = at, .len = (uint32_t)k, .crc = crc32c(0, p, k)};
        p += k;
        off += k;
        at += k;
        n -= k;
    }
    return count;
}

void sums_enter(struct sums *s, const struct sum *runs, unsigned n)
{
    mutex_lock(&s->lock);
    for (unsigned i = 0; i < n; i++)
        add_locked(s, &runs[i]);
    mutex_unlock(&s->lock);
}

/* ---- parts of runs ---- */

static int read_run(const struct sums *s, const struct sum *x, char *buf)
{
    for (size_t got = 0; got < x->len;) {
        ssize_t r = pread(s->fd, buf + got, x->len - got, (off_t)(x->off + got));
        if (r < 0 && errno == EINTR)
            continue;
        if (r <= 0)
            return r < 0 ? -errno : -EIO;
        got += (size_t)r;
    }
    return 0;
}

static int damaged(const struct sum *x)
{
    return log_error_errno(-EIO,
                           "staged bytes are damaged: %u bytes at offset %" G_GUINT64_FORMAT
                           " of a file in staging are not what was written there; they are not "
                           "uploaded; check this machine's disk and memory",
                           (unsigned)x->len, x->off);
}

/* Reads a whole run: 0 when it is what it was, -EIO when it is not, -EAGAIN when there is no such
 * run any more. */
static int verify(struct sums *s, const struct sum *x, char *buf)
{
    int r = x->bad ? -EIO : read_run(s, x, buf);
    bool good = r == 0 && crc32c(0, buf, x->len) == x->crc;
    mutex_lock(&s->lock);
    bool there = is_there_locked(s, x);
    mutex_unlock(&s->lock);
    if (!there)
        return -EAGAIN;
    return good ? 0 : damaged(x);
}

int sums_crc(struct sums *s, uint64_t off, uint64_t n, uint32_t *ret)
{
    g_autofree char *buf = NULL;
    uint32_t crc = 0;
    while (n > 0) {
        struct sum x;
        if (!find(s, off, &x))
            return log_error_errno(-EIO, "no CRC is kept of staged bytes at %" G_GUINT64_FORMAT,
                                   off);
        uint64_t skip = off - x.off, k = MIN(n, x.len - skip);
        uint32_t part = x.crc;
        if (x.bad || k < x.len) {
            buf = buf ? buf : g_malloc(SUMS_BLOCK);
            int r = verify(s, &x, buf);
            if (r == -EAGAIN)
                continue;
            if (r < 0)
                return r;
            part = crc32c(0, buf + skip, k);
        }
        crc = crc32c_combine(crc, part, k);
        off += k;
        n -= k;
    }
    *ret = crc;
    return 0;
}

int sums_get(struct sums *s, uint64_t off, uint64_t n, GArray *into)
{
    uint64_t end = off + n;
    while (off < end) {
        struct sum x;
        if (!find(s, off, &x))
            return -EIO;
        struct sum run = {.off = off, .at = x.at + (off - x.off), .crc = x.crc};
        run.len = (uint32_t)(MIN(end, end_of(&x)) - off);
        if (x.bad || run.len < x.len) {
            int r = sums_crc(s, run.off, run.len, &run.crc);
            if (r < 0)
                return r;
        }
        g_array_append_val(into, run);
        off += run.len;
    }
    return 0;
}

int sums_verify(struct sums *s, uint64_t off, uint64_t n)
{
    g_autofree char *buf = g_malloc(SUMS_BLOCK);
    uint64_t end = off + n;
    while (off < end) {
        struct sum x;
        if (!find(s, off, &x))
            return -EIO;
        int r = verify(s, &x, buf);
        if (r == 0)
            off = end_of(&x);
        else if (r != -EAGAIN)
            return r;
    }
    return 0;
}

/* What remains of x outside of [off, end), of bytes at buf (bad: damaged ones). */
static void keep_rest_locked(struct sums *s, const struct sum *x, uint64_t off, uint64_t end,
                             const char *buf, bool bad)
{
    remove_locked(s, x->off);
    if (x->off < off) {
        struct sum left = {.off = x->off, .at = x->at, .len = (uint32_t)(off - x->off), .bad = bad};
        left.crc = bad ? 0 : crc32c(0, buf, left.len);
        add_locked(s, &left);
    }
    if (end < end_of(x)) {
        uint64_t skip = end - x->off;
        struct sum right = {
            .off = end, .at = x->at + skip, .len = (uint32_t)(x->len - skip), .bad = bad};
        right.crc = bad ? 0 : crc32c(0, buf + skip, right.len);
        add_locked(s, &right);
    }
}

/* Cuts the first run that there is in [off, end), of one block. False when there is none. */
static bool cut_first(struct sums *s, uint64_t off, uint64_t end, char *buf)
{
    struct sum x;
    mutex_lock(&s->lock);
    bool found = next_locked(s, off, end, &x);
    bool whole = found && x.off >= off && end_of(&x) <= end;
    if (whole)
        remove_locked(s, x.off);
    mutex_unlock(&s->lock);
    if (!found || whole)
        return found;
    int r = verify(s, &x, buf);
    mutex_lock(&s->lock);
    if (r != -EAGAIN && is_there_locked(s, &x))
        keep_rest_locked(s, &x, off, end, buf, r < 0);
    mutex_unlock(&s->lock);
    return true;
}

void sums_cut(struct sums *s, uint64_t off, uint64_t n)
{
    g_autofree char *buf = g_malloc(SUMS_BLOCK);
    uint64_t end = off + n;
    while (off < end) {
        uint64_t stop = MIN(end, (off / SUMS_BLOCK + 1) * SUMS_BLOCK);
        while (cut_first(s, off, stop, buf))
            ;
        off = stop;
    }
}
