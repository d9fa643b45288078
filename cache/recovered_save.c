/* SPDX-License-Identifier: Apache-2.0
 *
 * recovered_save: the content of an entry, as a file again. What is ours goes run by run, each under the CRC32C that was
 * taken when its bytes came in: what the disk has not got any more becomes a hole, and is reported. No state.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "cache/extents.h"
#include "cache/recovered.h"
#include "cache/recovered_private.h"
#include "cache/sums.h"

struct save {
    const struct recovered *r;
    int data, fd, base;
    char *buf; /* SUMS_BLOCK */
    struct recovered_report *report;
};

static void note(GArray *ranges, uint64_t off, uint64_t len)
{
    struct recovered_range *last = ranges->len ? &g_array_index(ranges, struct recovered_range, ranges->len - 1) : NULL;
    struct recovered_range range = {off, len};
    if (last && last->off + last->len == off)
        last->len += len;
    else
        g_array_append_val(ranges, range);
}

/* How many of the n bytes there are. */
static ssize_t read_whole(int fd, char *buf, size_t n, uint64_t off)
{
    size_t got = 0;
    while (got < n) {
        ssize_t r = pread(fd, buf + got, n - got, (off_t)(off + got));
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0)
            return -errno;
        if (r == 0)
            break;
        got += (size_t)r;
    }
    return (ssize_t)got;
}

static int write_whole(int fd, const char *buf, size_t n, uint64_t off)
{
    while (n > 0) {
        ssize_t r = pwrite(fd, buf, n, (off_t)off);
        if (r < 0 && errno == EINTR)
            continue;
        if (r <= 0)
            return r < 0 ? -errno : -EIO;
        buf += r;
        off += (uint64_t)r;
        n -= (size_t)r;
    }
    return 0;
}

/* The run that begins at or after off. */
static const struct sum *find_run(const GArray *sums, uint64_t off)
{
    guint low = 0, high = sums->len;
    while (low < high) {
        guint mid = low + (high - low) / 2;
        if (g_array_index(sums, struct sum, mid).off < off)
            low = mid + 1;
        else
            high = mid;
    }
    return low < sums->len ? &g_array_index(sums, struct sum, low) : NULL;
}

static int save_staged(struct save *s, const struct extent *x)
{
    for (uint64_t at = 0; at < x->len;) {
        const struct sum *run = find_run(s->r->sums, x->src + at);
        uint64_t left = x->len - at, gap = run ? MIN(run->off - (x->src + at), left) : left;
        if (gap > 0 || run->len > left) { /* nothing vouches for these */
            uint64_t n = gap > 0 ? gap : left;
            note(s->report->lost, x->off + at, n);
            at += n;
            continue;
        }
        ssize_t got = read_whole(s->data, s->buf, run->len, run->off);
        if (got == (ssize_t)run->len && crc32c(0, s->buf, run->len) == run->crc) {
            int r = write_whole(s->fd, s->buf, run->len, x->off + at);
            if (r < 0)
                return r;
        } else {
            note(s->report->lost, x->off + at, run->len);
        }
        at += run->len;
    }
    return 0;
}

static int save_base(struct save *s, const struct extent *x)
{
    if (s->base < 0) {
        note(s->report->base, x->off, x->len);
        return 0;
    }
    for (uint64_t at = 0; at < x->len;) {
        size_t n = (size_t)MIN(x->len - at, SUMS_BLOCK);
        ssize_t got = read_whole(s->base, s->buf, n, x->off + at);
        if (got != (ssize_t)n)
            return got < 0 ? (int)got : -ENODATA;
        int r = write_whole(s->fd, s->buf, n, x->off + at);
        if (r < 0)
            return r;
        at += n;
    }
    return 0;
}

int recovered_save(const struct recovered *r, const char *dir, int fd, int base_fd, struct recovered_report *ret)
{
    g_autofree char *path = recovered_path(dir, r->id, RECOVERED_DATA);
    g_autofree char *buf = g_malloc(SUMS_BLOCK);
    *ret = (struct recovered_report){.lost = g_array_new(FALSE, FALSE, sizeof(struct recovered_range)),
                                     .base = g_array_new(FALSE, FALSE, sizeof(struct recovered_range))};
    struct save s = {.r = r, .fd = fd, .base = base_fd, .buf = buf, .report = ret};
    s.data = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (s.data < 0)
        return -errno;
    struct extent x;
    int e = 0;
    for (uint64_t off = 0; e == 0 && extents_next(r->map, off, &x); off = x.off + x.len) {
        if (x.kind == EXTENT_STAGED)
            e = save_staged(&s, &x);
        else if (x.kind == EXTENT_BASE)
            e = save_base(&s, &x);
        else if (x.kind == EXTENT_PUNCHED)
            note(ret->lost, x.off, x.len);
    }
    close(s.data);
    struct stat st;
    if (e == 0 && (fstat(fd, &st) < 0 || ((uint64_t)st.st_size != r->size && ftruncate(fd, (off_t)r->size) < 0)))
        e = -errno;
    return e;
}

void recovered_report_clear(struct recovered_report *r)
{
    g_clear_pointer(&r->lost, g_array_unref);
    g_clear_pointer(&r->base, g_array_unref);
}
