/* SPDX-License-Identifier: Apache-2.0
 *
 * staging: see staging.h. Threads: any. `lock` ranks just above the leaves, since the budget's own
 * lock is one; it is not held while the disk works: a reserved range is filled by its owner alone,
 * and a page is punched only after the map says that nobody can refer to it, and after the CRCs
 * of its bytes have been cut away.
 *
 * Invariants (lock):
 *   charged = page size × pages that [0, end) touches, less those punched
 *   dead    = ranges given up for good, merged; every whole page inside one is punched (or being
 *             punched by the thread in staging_reclaim)
 *   garbage = ranges dropped, in the order of their stamps, that a pin may still refer to
 */
#include "cache/staging.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/budget.h"
#include "base/log.h"
#include "base/mutex.h"
#include "cache/sums.h"

#define PAGE 4096ULL
#define RANK_STAGING ((enum mutex_rank)(RANK_LEAF - 5))
/* Below so much garbage punching is not worth its system calls. */
#define RECLAIM_MIN (1ULL << 20)

struct range {
    uint64_t off, end;
    uint64_t stamp; /* garbage: the newest ticket when it was dropped */
};

struct staging {
    atomic_uint refs;
    int fd;
    struct sums *sums; /* of what is filled and not buried */
    char *path; /* NULL: it has no name */
    atomic_int sync_err; /* of the first sync that failed */
    atomic_bool kept;
    struct staging_spares *spares; /* where its file goes; NULL: nowhere */
    uint64_t number;               /* there */
    struct budget *budget;
    struct mutex lock;
    uint64_t end;        /* lock */
    uint64_t live;       /* lock */
    uint64_t charged;    /* lock */
    uint64_t tickets;    /* lock */
    GQueue garbage;      /* lock: struct range* */
    uint64_t n_garbage;  /* lock: bytes in it */
    GTree *dead;         /* lock: struct range* (key and value) by off */
    struct staging_pin *oldest, *newest; /* lock */
};

static uint64_t page_up(uint64_t n)
{
    return (n + PAGE - 1) & ~(PAGE - 1);
}

static uint64_t page_down(uint64_t n)
{
    return n & ~(PAGE - 1);
}

static int range_compare(gconstpointer a, gconstpointer b, gpointer data)
{
    const struct range *x = a, *y = b;
    return x->off < y->off ? -1 : x->off > y->off;
}

static int open_unnamed(const char *dir)
{
    int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd >= 0)
        return fd;
    if (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL)
        return -errno;
    /* A file system without O_TMPFILE. */
    g_autofree char *path = g_build_filename(dir, ".staging-XXXXXX", NULL);
    fd = mkostemp(path, O_CLOEXEC);
    if (fd < 0)
        return -errno;
    if (unlink(path) < 0)
        log_warning_errno(-errno, "cannot unlink %s", path);
    return fd;
}

static struct staging *staging_of(int fd, const char *path, struct budget *budget)
{
    struct staging *s = g_new0(struct staging, 1);
    atomic_init(&s->refs, 1);
    atomic_init(&s->sync_err, 0);
    atomic_init(&s->kept, false);
    s->fd = fd;
    s->path = g_strdup(path);
    s->sums = sums_new(fd);
    s->budget = budget;
    mutex_init(&s->lock, RANK_STAGING);
    g_queue_init(&s->garbage);
    s->dead = g_tree_new_full(range_compare, NULL, NULL, g_free);
    return s;
}

int staging_new(const char *dir, struct budget *budget, struct staging **ret)
{
    int fd = open_unnamed(dir);
    if (fd < 0)
        return fd;
    *ret = staging_of(fd, NULL, budget);
    return 0;
}

int staging_create(const char *path, struct budget *budget, struct staging **ret)
{
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return -errno;
    *ret = staging_of(fd, path, budget);
    return 0;
}

int staging_open(const char *path, struct budget *budget, struct staging **ret)
{
    struct stat st;
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return -errno;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        close(fd);
        return -EUCLEAN;
    }
    struct staging *s = staging_of(fd, path, budget);
    s->end = s->live = (uint64_t)st.st_size;
    s->charged = page_up(s->end);
    budget_force(budget, s->charged);
    *ret = s;
    return 0;
}

/* ---- spares ---- */

struct spare {
    int fd;
    char *path;
    uint64_t number;
};

struct staging_spares {
    unsigned max;
    struct mutex lock; /* leaf */
    GArray *files;     /* lock: struct spare */
};

struct staging_spares *staging_spares_new(unsigned max)
{
    struct staging_spares *sp = g_new0(struct staging_spares, 1);
    sp->max = max;
    sp->files = g_array_new(FALSE, FALSE, sizeof(struct spare));
    mutex_init(&sp->lock, RANK_LEAF);
    return sp;
}

static bool get_spare(struct staging_spares *sp, struct spare *ret)
{
    mutex_lock(&sp->lock);
    guint n = sp->files->len;
    if (n > 0) {
        *ret = g_array_index(sp->files, struct spare, n - 1);
        g_array_set_size(sp->files, n - 1);
    }
    mutex_unlock(&sp->lock);
    return n > 0;
}

static void remove_file(const char *path, int fd)
{
    if (unlink(path) < 0)
        log_warning_errno(-errno, "cannot remove %s", path);
    close(fd);
}

void staging_spares_free(struct staging_spares *sp)
{
    struct spare f;
    if (!sp)
        return;
    while (get_spare(sp, &f)) {
        remove_file(f.path, f.fd);
        g_free(f.path);
    }
    g_array_unref(sp->files);
    mutex_fini(&sp->lock);
    g_free(sp);
}

int staging_spares_take(struct staging_spares *sp, struct budget *budget, struct staging **ret, uint64_t *ret_number)
{
    struct spare f;
    if (!get_spare(sp, &f))
        return -ENOENT;
    *ret = staging_of(f.fd, f.path, budget);
    *ret_number = f.number;
    g_free(f.path);
    return 0;
}

void staging_reuse(struct staging *s, struct staging_spares *sp, uint64_t number)
{
    s->spares = sp;
    s->number = number;
}

/* False: it has to be removed. Takes fd and path over. */
static bool put_spare(struct staging *s)
{
    struct staging_spares *sp = s->spares;
    if (!sp || ftruncate(s->fd, 0) < 0)
        return false;
    mutex_lock(&sp->lock);
    bool room = sp->files->len < sp->max;
    if (room)
        g_array_append_vals(sp->files, &(struct spare){s->fd, s->path, s->number}, 1);
    mutex_unlock(&sp->lock);
    return room;
}

/* Closes the file and decides what becomes of it. */
static void end_file(struct staging *s)
{
    if (s->path && !atomic_load(&s->kept)) {
        if (put_spare(s))
            return;
        remove_file(s->path, s->fd);
    } else {
        close(s->fd);
    }
    g_free(s->path);
}

void staging_keep(struct staging *s, bool keep)
{
    atomic_store(&s->kept, keep);
}

struct staging *staging_ref(struct staging *s)
{
    atomic_fetch_add(&s->refs, 1);
    return s;
}

void staging_unref(struct staging *s)
{
    if (!s || atomic_fetch_sub(&s->refs, 1) != 1)
        return;
    assert(!s->oldest);
    sums_free(s->sums);
    end_file(s);
    if (s->charged > 0)
        budget_give(s->budget, s->charged);
    g_queue_clear_full(&s->garbage, g_free);
    g_tree_destroy(s->dead);
    mutex_fini(&s->lock);
    g_free(s);
}

int staging_reserve(struct staging *s, size_t n, uint64_t *ret_off)
{
    assert(n > 0);
    mutex_lock(&s->lock);
    uint64_t more = page_up(s->end + n) - page_up(s->end);
    if (more > 0 && !budget_try(s->budget, more)) {
        mutex_unlock(&s->lock);
        return more > budget_limit(s->budget) ? -EMSGSIZE : -EAGAIN;
    }
    *ret_off = s->end;
    s->end += n;
    s->live += n;
    s->charged += more;
    mutex_unlock(&s->lock);
    return 0;
}

static int write_all(int fd, uint64_t off, const void *buf, size_t n)
{
    const char *p = buf;
    while (n > 0) {
        ssize_t r = pwrite(fd, p, n, (off_t)off);
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return errno == EDQUOT ? -ENOSPC : -errno;
        if (r == 0)
            return -EIO;
        p += r;
        off += (uint64_t)r;
        n -= (size_t)r;
    }
    return 0;
}

int staging_fill(struct staging *s, uint64_t off, uint64_t at, const void *buf, size_t n)
{
    const char *p = buf;
    while (n > 0) {
        struct sum runs[SUMS_RUNS];
        size_t k = (size_t)MIN(n, SUMS_FILL);
        unsigned count = sums_compute(off, at, p, k, runs);
        int r = write_all(s->fd, off, p, k);
        if (r < 0)
            return r;
        sums_enter(s->sums, runs, count);
        p += k;
        off += k;
        at += k;
        n -= k;
    }
    return 0;
}

int staging_sums(struct staging *s, uint64_t off, uint64_t n, GArray *into)
{
    return sums_get(s->sums, off, n, into);
}

void staging_restore(struct staging *s, const struct sum *runs, unsigned n)
{
    sums_enter(s->sums, runs, n);
}

int staging_crc(struct staging *s, uint64_t off, uint64_t n, uint32_t *ret)
{
    return sums_crc(s->sums, off, n, ret);
}

int staging_verify(struct staging *s, uint64_t off, uint64_t n)
{
    return sums_verify(s->sums, off, n);
}

int staging_sync(struct staging *s)
{
    s->spares = NULL; /* a record that was synced may come back with a power cut: its file must then be gone, not another's */
    int r = atomic_load(&s->sync_err);
    while (r == 0 && fdatasync(s->fd) < 0)
        if (errno != EINTR)
            r = -errno;
    if (r < 0) /* the kernel tells of it once, and takes the pages for clean */
        atomic_store(&s->sync_err, r);
    return r;
}

int staging_read(struct staging *s, uint64_t off, void *buf, size_t n)
{
    char *p = buf;
    while (n > 0) {
        ssize_t r = pread(s->fd, p, n, (off_t)off);
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return -errno;
        if (r == 0)
            return -EIO; /* the file is shorter than what was filled */
        p += r;
        off += (uint64_t)r;
        n -= (size_t)r;
    }
    return 0;
}

void staging_drop(struct staging *s, uint64_t off, uint64_t n)
{
    mutex_lock(&s->lock);
    assert(n <= s->live && off + n <= s->end);
    s->live -= n;
    s->n_garbage += n;
    struct range *last = g_queue_peek_tail(&s->garbage);
    if (last && last->end == off && last->stamp == s->tickets) {
        last->end += n;
    } else {
        struct range *r = g_new(struct range, 1);
        *r = (struct range){.off = off, .end = off + n, .stamp = s->tickets};
        g_queue_push_tail(&s->garbage, r);
    }
    mutex_unlock(&s->lock);
}

uint64_t staging_end(struct staging *s)
{
    mutex_lock(&s->lock);
    uint64_t n = s->end;
    mutex_unlock(&s->lock);
    return n;
}

void staging_pin(struct staging *s, struct staging_pin *pin)
{
    staging_ref(s);
    mutex_lock(&s->lock);
    *pin = (struct staging_pin){.s = s, .ticket = ++s->tickets, .prev = s->newest};
    if (s->newest)
        s->newest->next = pin;
    else
        s->oldest = pin;
    s->newest = pin;
    mutex_unlock(&s->lock);
}

void staging_unpin(struct staging_pin *pin)
{
    struct staging *s = pin->s;
    if (!s)
        return;
    mutex_lock(&s->lock);
    if (pin->prev)
        pin->prev->next = pin->next;
    else
        s->oldest = pin->next;
    if (pin->next)
        pin->next->prev = pin->prev;
    else
        s->newest = pin->prev;
    mutex_unlock(&s->lock);
    pin->s = NULL;
    staging_unref(s);
}

bool staging_wants_reclaim(struct staging *s)
{
    mutex_lock(&s->lock);
    bool yes = s->n_garbage >= MAX(s->live, RECLAIM_MIN);
    mutex_unlock(&s->lock);
    return yes;
}

static uint64_t whole_pages(uint64_t off, uint64_t end, uint64_t *ret_off)
{
    uint64_t from = page_up(off), to = page_down(end);
    *ret_off = from;
    return to > from ? to - from : 0;
}

/* Enters a range into the dead ones. The pages that are wholly dead only now: at most one run,
 * since a dead neighbour's own whole pages are punched already and lie at its far side. */
static uint64_t bury_locked(struct staging *s, uint64_t off, uint64_t end, uint64_t *ret_off)
{
    struct range key = {.off = off};
    uint64_t ignored, had_before = 0, had_after = 0, start = off, stop = end;
    GTreeNode *above = g_tree_lower_bound(s->dead, &key);
    GTreeNode *below = above ? g_tree_node_previous(above) : g_tree_node_last(s->dead);
    struct range *after = above ? g_tree_node_value(above) : NULL;
    struct range *before = below ? g_tree_node_value(below) : NULL;
    if (after && after->off == end) {
        had_after = whole_pages(after->off, after->end, &ignored);
        stop = after->end;
        g_tree_remove(s->dead, after);
    }
    if (before && before->end == off) {
        had_before = whole_pages(before->off, before->end, &ignored);
        start = before->off;
        before->end = stop;
    } else {
        struct range *r = g_new0(struct range, 1);
        r->off = start;
        r->end = stop;
        g_tree_insert(s->dead, r, r);
    }
    uint64_t all = whole_pages(start, stop, ret_off);
    *ret_off += had_before;
    return all - had_before - had_after;
}

static bool pop_buriable(struct staging *s, struct range *ret)
{
    mutex_lock(&s->lock);
    struct range *r = g_queue_peek_head(&s->garbage);
    bool may = r && !(s->oldest && s->oldest->ticket <= r->stamp);
    if (may) {
        g_queue_pop_head(&s->garbage);
        s->n_garbage -= r->end - r->off;
        *ret = *r;
        g_free(r);
    }
    mutex_unlock(&s->lock);
    return may;
}

uint64_t staging_reclaim(struct staging *s)
{
    uint64_t given = 0;
    struct range r;
    while (pop_buriable(s, &r)) {
        /* Before it counts as dead: from then on somebody else may punch what it touches. */
        sums_cut(s->sums, r.off, r.end - r.off);
        uint64_t off;
        mutex_lock(&s->lock);
        uint64_t n = bury_locked(s, r.off, r.end, &off);
        s->charged -= n;
        mutex_unlock(&s->lock);
        if (n == 0)
            continue;
        /* Should punching fail, the budget counts less than the disk holds, until the file goes. */
        if (fallocate(s->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)n) < 0)
            log_debug_errno(-errno, "cannot punch %" G_GUINT64_FORMAT " staged bytes", n);
        budget_give(s->budget, n);
        given += n;
    }
    return given;
}

uint64_t staging_live(struct staging *s)
{
    mutex_lock(&s->lock);
    uint64_t n = s->live;
    mutex_unlock(&s->lock);
    return n;
}

uint64_t staging_charged(struct staging *s)
{
    mutex_lock(&s->lock);
    uint64_t n = s->charged;
    mutex_unlock(&s->lock);
    return n;
}

int staging_fd(const struct staging *s)
{
    return s->fd;
}
