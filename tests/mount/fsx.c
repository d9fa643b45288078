/* SPDX-License-Identifier: Apache-2.0
 *
 * fsx: random operations on files of a directory, compared all along with copies in memory: in the manner of the fsx of
 * others. Everything that a file system does with the bytes of a file: reads and writes at any offset, appends through several handles,
 * truncates both ways, holes, shared mappings, fsync, close, rename and unlink while open, copy_file_range, fallocate where it is.
 *     fsx [-N operations] [-S seed] [-f files] [-l bytes] [-s directory] DIRECTORY
 * -f: files at the same time (3); -l: size of the first at most (1 MiB), the others have a quarter. -s: a directory for copies: at the end the
 * content of each file is written there, and when it has some at the beginning, that is what the files must contain.
 * A failure prints the last operations, and where bytes differ. One thread. What is unlinked or renamed over while it is open goes on as a ghost.
 */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define HANDLES 4
#define GHOSTS 2
#define FILES_MAX 8
#define LOG_LINES 64
#define LOG_WIDTH 120
#define SPAN_MAX (256 << 10)
struct handle {
    int fd; /* -1: none */
    int flags;
};

struct file {
    char *path; /* NULL: a ghost, or none */
    uint8_t *want;
    uint64_t size, max;
    struct handle handles[HANDLES];
    uint8_t *map; /* shared and writable, of max bytes rounded up; NULL */
    bool there;
};

struct fsx {
    uint64_t state, op;
    const char *dir, *shadow;
    unsigned n_files;
    struct file files[FILES_MAX + GHOSTS]; /* the last: ghosts */
    uint8_t *buf;
    char log[LOG_LINES][LOG_WIDTH];
    bool no_fallocate, no_punch, no_map;
};

/* ---- randomness, log, failure ---- */

static uint64_t next(struct fsx *x) /* splitmix64 */
{
    uint64_t z = (x->state += 0x9e3779b97f4a7c15U);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31);
}

static uint64_t below(struct fsx *x, uint64_t n)
{
    return n ? next(x) % n : 0;
}

static bool chance(struct fsx *x, unsigned percent)
{
    return below(x, 100) < percent;
}

static void fill(struct fsx *x, uint8_t *p, uint64_t n)
{
    for (uint64_t i = 0; i < n; i += 8) {
        uint64_t v = next(x);
        memcpy(p + i, &v, MIN(8, n - i));
    }
}

static void G_GNUC_PRINTF(3, 4) say(struct fsx *x, const struct file *f, const char *format, ...)
{
    char *line = x->log[x->op % LOG_LINES];
    va_list args;
    int n = snprintf(line, LOG_WIDTH, "%7" PRIu64 " %s%td (%" PRIu64 "): ", x->op, f->path ? "f" : "ghost ", f - x->files, f->size);
    va_start(args, format);
    vsnprintf(line + n, LOG_WIDTH - (size_t)n, format, args);
    va_end(args);
}

static void G_GNUC_NORETURN G_GNUC_PRINTF(2, 3) die(struct fsx *x, const char *format, ...)
{
    va_list args;
    for (uint64_t n = x->op < LOG_LINES - 1 ? 0 : x->op - (LOG_LINES - 1); n <= x->op; n++)
        printf("%s\n", x->log[n % LOG_LINES]);
    printf("fsx: operation %" PRIu64 ": ", x->op);
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    printf("\n");
    exit(1);
}

static void check(struct fsx *x, bool good, const char *call)
{
    if (!good)
        die(x, "%s: %s", call, strerror(errno));
}

static void compare(struct fsx *x, const char *how, const uint8_t *got, const uint8_t *want, uint64_t off, uint64_t n)
{
    uint64_t first = 0, last = n;
    if (memcmp(got, want, n) == 0)
        return;
    while (got[first] == want[first])
        first++;
    while (got[last - 1] == want[last - 1])
        last--;
    die(x, "%s of %" PRIu64 "..%" PRIu64 " differs in %" PRIu64 "..%" PRIu64 ": got %02x %02x.., wanted %02x %02x..", how, off, off + n,
        off + first, off + last, got[first], got[MIN(first + 1, n - 1)], want[first], want[MIN(first + 1, n - 1)]);
}

/* ---- model ---- */

static void model_size(struct file *f, uint64_t size)
{
    if (size > f->size)
        memset(f->want + f->size, 0, size - f->size);
    f->size = size;
}

static void model_write(struct file *f, uint64_t off, const uint8_t *data, uint64_t n)
{
    if (off + n > f->size)
        model_size(f, off + n);
    memcpy(f->want + off, data, n);
}

static uint64_t some_length(struct fsx *x, uint64_t most)
{
    static const uint64_t scales[] = {1, 100, 4096, 4096, 20000, 65536, 131072, SPAN_MAX};
    uint64_t n = 1 + below(x, scales[below(x, G_N_ELEMENTS(scales))]);
    return MIN(n, most);
}

/* Often at the end, or at a page. */
static uint64_t some_offset(struct fsx *x, uint64_t end, uint64_t size)
{
    uint64_t off = chance(x, 20) ? MIN(size, end) : below(x, end + 1);
    return chance(x, 30) ? off & ~(uint64_t)4095 : off;
}

/* ---- handles ---- */

static bool can_write(const struct handle *h)
{
    return h->fd >= 0 && (h->flags & O_ACCMODE) != O_RDONLY;
}

static bool can_read(const struct handle *h)
{
    return h->fd >= 0 && (h->flags & O_ACCMODE) != O_WRONLY;
}

static struct handle *pick(struct fsx *x, struct file *f, bool (*fits)(const struct handle *h))
{
    unsigned first = (unsigned)below(x, HANDLES);
    for (unsigned i = 0; i < HANDLES; i++) {
        struct handle *h = &f->handles[(first + i) % HANDLES];
        if (fits(h))
            return h;
    }
    return NULL;
}

static bool any(const struct handle *h)
{
    return h->fd >= 0;
}

static bool is_free(const struct handle *h)
{
    return !any(h);
}

static void unmap(struct fsx *x, struct file *f)
{
    if (f->map)
        check(x, munmap(f->map, f->max) == 0, "munmap");
    f->map = NULL;
}

static void open_one(struct fsx *x, struct file *f, int flags)
{
    struct handle *h = pick(x, f, is_free);
    if (!h)
        return;
    h->fd = open(f->path, flags | O_CLOEXEC, 0644);
    check(x, h->fd >= 0, "open");
    h->flags = flags;
}

static void close_one(struct fsx *x, struct handle *h)
{
    int r = close(h->fd);
    h->fd = -1;
    check(x, r == 0, "close");
}

static void close_all(struct fsx *x, struct file *f)
{
    unmap(x, f);
    for (unsigned i = 0; i < HANDLES; i++)
        if (f->handles[i].fd >= 0)
            close_one(x, &f->handles[i]);
}

/* A name without a file gets one; a file without a handle too, mostly. */
static void make_ready(struct fsx *x, struct file *f)
{
    static const int modes[] = {O_RDWR, O_RDWR, O_RDWR | O_APPEND, O_WRONLY, O_RDONLY};
    if (f->path && !f->there) {
        f->there = true;
        f->size = 0;
        open_one(x, f, O_RDWR | O_CREAT | (chance(x, 50) ? O_EXCL : 0));
    } else if (f->path && !pick(x, f, any) && chance(x, 80)) {
        open_one(x, f, modes[below(x, G_N_ELEMENTS(modes))]);
    }
}

/* ---- operations: each does nothing where it cannot be done ---- */

static void do_read(struct fsx *x, struct file *f)
{
    struct handle *h = pick(x, f, can_read);
    if (!h)
        return;
    uint64_t off = some_offset(x, f->size, f->size), n = some_length(x, SPAN_MAX), want = MIN(n, f->size - off), got = 0;
    say(x, f, "read %" PRIu64 "..%" PRIu64, off, off + n);
    while (got < n) {
        ssize_t r = pread(h->fd, x->buf + got, n - got, (off_t)(off + got));
        check(x, r >= 0, "pread");
        if (r == 0)
            break;
        got += (size_t)r;
    }
    if (got != want)
        die(x, "read %" PRIu64 " bytes, wanted %" PRIu64, got, want);
    compare(x, "read", x->buf, f->want + off, off, got);
}

static void do_write(struct fsx *x, struct file *f)
{
    struct handle *h = pick(x, f, can_write);
    if (!h)
        return;
    bool append = h->flags & O_APPEND;
    uint64_t off = append ? f->size : some_offset(x, chance(x, 70) ? MIN(f->size + 10000, f->max - 1) : f->max - 1, f->size);
    uint64_t n = some_length(x, f->max - MIN(off, f->max));
    if (n == 0)
        return;
    say(x, f, "%s %" PRIu64 "..%" PRIu64, append ? "append" : "write", off, off + n);
    fill(x, x->buf, n);
    ssize_t r = append ? write(h->fd, x->buf, n) : pwrite(h->fd, x->buf, n, (off_t)off);
    if (r != (ssize_t)n)
        die(x, "write returned %zd of %" PRIu64 ": %s", r, n, strerror(errno));
    model_write(f, off, x->buf, n);
}

/* From the beginning to some length, in order: the way of files that are streamed. */
static void do_rewrite(struct fsx *x, struct file *f)
{
    int fd = f->path ? open(f->path, O_WRONLY | O_TRUNC | O_CLOEXEC) : -1;
    uint64_t size = below(x, f->max + 1), off = 0;
    if (!f->path)
        return;
    say(x, f, "rewrite with %" PRIu64, size);
    check(x, fd >= 0, "open");
    model_size(f, 0);
    while (off < size) {
        uint64_t n = MIN(SPAN_MAX, size - off);
        fill(x, x->buf, n);
        check(x, write(fd, x->buf, n) == (ssize_t)n, "write");
        model_write(f, off, x->buf, n);
        off += n;
    }
    check(x, close(fd) == 0, "close");
}

static void do_truncate(struct fsx *x, struct file *f)
{
    struct handle *h = pick(x, f, can_write);
    uint64_t more = f->size + below(x, 9000);
    uint64_t sizes[] = {0, below(x, f->max + 1), below(x, f->size + 1), f->size, MIN(f->max, more)};
    uint64_t size = sizes[below(x, G_N_ELEMENTS(sizes))];
    if (f->path && (!h || chance(x, 40))) {
        say(x, f, "truncate to %" PRIu64, size);
        check(x, truncate(f->path, (off_t)size) == 0, "truncate");
    } else if (h) {
        say(x, f, "ftruncate to %" PRIu64, size);
        check(x, ftruncate(h->fd, (off_t)size) == 0, "ftruncate");
    } else {
        return;
    }
    model_size(f, size);
}

static void do_map(struct fsx *x, struct file *f)
{
    struct handle *h = pick(x, f, any);
    if (f->map || !h || (h->flags & O_ACCMODE) != O_RDWR || x->no_map)
        return;
    say(x, f, "mmap");
    void *p = mmap(NULL, f->max, PROT_READ | PROT_WRITE, MAP_SHARED, h->fd, 0);
    x->no_map = p == MAP_FAILED && errno == ENODEV;
    check(x, p != MAP_FAILED || x->no_map, "mmap");
    f->map = x->no_map ? NULL : p;
}

static void do_use_map(struct fsx *x, struct file *f)
{
    if (chance(x, 4))
        unmap(x, f);
    do_map(x, f);
    if (!f->map || f->size == 0)
        return;
    uint64_t off = below(x, f->size), n = some_length(x, f->size - off);
    bool read = chance(x, 40), sync = !read && chance(x, 25);
    say(x, f, "%s %" PRIu64 "..%" PRIu64 " of the mapping%s", read ? "read" : "write", off, off + n, sync ? ", msync" : "");
    if (read) {
        compare(x, "a mapping's read", f->map + off, f->want + off, off, n);
        return;
    }
    fill(x, x->buf, n);
    memcpy(f->map + off, x->buf, n);
    model_write(f, off, x->buf, n);
    if (sync)
        check(x, msync(f->map, f->size, MS_SYNC) == 0, "msync");
}

static void do_fsync(struct fsx *x, struct file *f)
{
    struct handle *h = pick(x, f, any);
    say(x, f, "fsync");
    check(x, !h || (chance(x, 50) ? fsync(h->fd) : fdatasync(h->fd)) == 0, "fsync");
}

static void do_open(struct fsx *x, struct file *f)
{
    static const int modes[] = {O_RDWR, O_RDWR, O_RDWR | O_APPEND, O_WRONLY | O_APPEND, O_WRONLY, O_RDONLY, O_RDWR | O_TRUNC};
    int flags = modes[below(x, G_N_ELEMENTS(modes))];
    if (!f->path || !pick(x, f, is_free) || ((flags & O_TRUNC) && chance(x, 50)))
        return;
    say(x, f, "open%s%s", flags & O_APPEND ? " to append" : "", flags & O_TRUNC ? " truncating" : "");
    open_one(x, f, flags);
    if (flags & O_TRUNC)
        model_size(f, 0);
}

static void do_close(struct fsx *x, struct file *f)
{
    struct handle *h = pick(x, f, any);
    say(x, f, "close");
    if (h)
        close_one(x, h);
}

static void do_reopen(struct fsx *x, struct file *f)
{
    if (!f->path)
        return;
    say(x, f, "reopen");
    close_all(x, f);
    open_one(x, f, O_RDWR);
}

/* The name has no file now. */
static void leave(struct file *f, uint8_t *want)
{
    f->want = want;
    f->map = NULL;
    f->size = 0;
    f->there = false;
    for (unsigned i = 0; i < HANDLES; i++)
        f->handles[i].fd = -1;
}

/* The file that a name loses goes on without one. */
static void make_ghost(struct fsx *x, struct file *f)
{
    struct file *g = &x->files[FILES_MAX + below(x, GHOSTS)];
    uint8_t *want = g->want;
    close_all(x, g);
    *g = *f; /* all buffers have room for the biggest */
    g->path = NULL;
    leave(f, want);
}

static void do_unlink(struct fsx *x, struct file *f)
{
    if (!f->path)
        return;
    say(x, f, "unlink");
    check(x, unlink(f->path) == 0, "unlink");
    if (access(f->path, F_OK) == 0)
        die(x, "it is there still");
    make_ghost(x, f);
}

static void do_rename(struct fsx *x, struct file *f)
{
    g_autofree char *moved = f->path ? g_strconcat(f->path, ".moved", NULL) : NULL;
    if (!f->path)
        return;
    say(x, f, "rename and back");
    check(x, rename(f->path, moved) == 0, "rename");
    if (chance(x, 50))
        do_read(x, f);
    if (access(f->path, F_OK) == 0)
        die(x, "it is at its old name still");
    check(x, rename(moved, f->path) == 0, "rename back");
}

static void do_rename_over(struct fsx *x, struct file *f)
{
    struct file *to = &x->files[below(x, x->n_files)];
    if (!f->path || to == f || !to->there || to->max < f->size)
        return;
    say(x, f, "rename over f%td (%" PRIu64 ")", to - x->files, to->size);
    check(x, rename(f->path, to->path) == 0, "rename");
    unmap(x, f); /* it has f's length */
    make_ghost(x, to);
    struct file old = *to;
    *to = *f;
    to->path = old.path;
    to->max = old.max;
    leave(f, old.want);
}

static void do_chmod(struct fsx *x, struct file *f)
{
    say(x, f, "chmod");
    check(x, !f->path || chmod(f->path, chance(x, 50) ? 0600 : 0644) == 0, "chmod");
}

static void do_copy_range(struct fsx *x, struct file *f)
{
    struct file *from = &x->files[below(x, x->n_files)];
    struct handle *in = pick(x, from, can_read), *out = pick(x, f, can_write);
    if (!in || !out || (out->flags & O_APPEND) || from->size == 0)
        return;
    uint64_t off = below(x, from->size), to = some_offset(x, f->max - 1, f->size);
    uint64_t n = some_length(x, MIN(from->size - off, f->max - to)), done = 0;
    if (from == f && off < to + n && to < off + n)
        return; /* not within itself */
    say(x, f, "copy_file_range of f%td, %" PRIu64 "..%" PRIu64 " to %" PRIu64, from - x->files, off, off + n, to);
    while (done < n) {
        loff_t a = (loff_t)(off + done), b = (loff_t)(to + done);
        ssize_t r = copy_file_range(in->fd, &a, out->fd, &b, n - done, 0);
        check(x, r > 0, "copy_file_range");
        done += (uint64_t)r;
    }
    memcpy(x->buf, from->want + off, n);
    model_write(f, to, x->buf, n);
}

static void do_fallocate(struct fsx *x, struct file *f)
{
    struct handle *h = pick(x, f, can_write);
    bool punch = chance(x, 50);
    if (!h || (punch ? x->no_punch : x->no_fallocate))
        return;
    uint64_t off = below(x, f->max), n = some_length(x, f->max - off);
    say(x, f, "%s %" PRIu64 "..%" PRIu64, punch ? "punch" : "fallocate", off, off + n);
    int r = fallocate(h->fd, punch ? FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE : 0, (off_t)off, (off_t)n);
    if (r < 0 && errno == EOPNOTSUPP) {
        *(punch ? &x->no_punch : &x->no_fallocate) = true;
        return;
    }
    check(x, r == 0, "fallocate");
    if (!punch && off + n > f->size)
        model_size(f, off + n);
    else if (punch && off < f->size)
        memset(f->want + off, 0, MIN(n, f->size - off));
}

static const struct {
    void (*run)(struct fsx *x, struct file *f);
    unsigned weight;
} ops[] = {
    {do_read, 270}, {do_write, 270}, {do_truncate, 70}, {do_use_map, 140}, {do_fsync, 20},
    {do_open, 50}, {do_close, 50}, {do_reopen, 10}, {do_rename, 6}, {do_rename_over, 3}, {do_unlink, 4}, {do_chmod, 6},
    {do_copy_range, 30}, {do_fallocate, 20}, {do_rewrite, 3},
};

/* ---- the whole ---- */

static void check_size(struct fsx *x, const char *who, off_t size, const struct file *f)
{
    if ((uint64_t)size != f->size)
        die(x, "%s says %jd bytes, wanted %" PRIu64, who, (intmax_t)size, f->size);
}

static void check_sizes(struct fsx *x, struct file *f)
{
    struct stat st;
    struct handle *h = pick(x, f, any);
    if (h) {
        check(x, fstat(h->fd, &st) == 0, "fstat");
        check_size(x, "fstat", st.st_size, f);
        check_size(x, "lseek", lseek(h->fd, 0, SEEK_END), f);
    }
    if (f->path && chance(x, 10)) {
        check(x, stat(f->path, &st) == 0, "stat");
        check_size(x, "stat", st.st_size, f);
    }
}

static void check_all(struct fsx *x, struct file *f, const char *when)
{
    int fd = open(f->path, O_RDONLY | O_CLOEXEC);
    say(x, f, "read all %s", when);
    check(x, fd >= 0, "open");
    for (uint64_t off = 0, n = 1; n > 0; off += n) {
        ssize_t r = pread(fd, x->buf, SPAN_MAX, (off_t)off);
        check(x, r >= 0, "pread");
        n = (uint64_t)r;
        if (off + n > f->size || (n == 0 && off != f->size))
            die(x, "%s: it ends at %" PRIu64 " or later, wanted %" PRIu64, f->path, off + n, f->size);
        compare(x, f->path, x->buf, f->want + off, off, n);
    }
    close(fd);
}

static void one(struct fsx *x)
{
    unsigned sum = 0, n = 0;
    struct file *f = chance(x, 8) ? &x->files[FILES_MAX + below(x, GHOSTS)] : &x->files[below(x, x->n_files)];
    for (unsigned i = 0; i < G_N_ELEMENTS(ops); i++)
        sum += ops[i].weight;
    uint64_t k = below(x, sum);
    *x->log[x->op % LOG_LINES] = '\0';
    while (k >= ops[n].weight)
        k -= ops[n++].weight;
    make_ready(x, f);
    ops[n].run(x, f);
    if (f->there || !f->path)
        check_sizes(x, f);
}

static char *shadow_of(const struct fsx *x, const struct file *f)
{
    return g_strdup_printf("%s/f%td", x->shadow, f - x->files);
}

static void load(struct fsx *x, struct file *f)
{
    g_autofree char *path = shadow_of(x, f), *data = NULL;
    gsize n = 0;
    if (!g_file_get_contents(path, &data, &n, NULL) || n > f->max)
        return;
    f->there = true;
    model_write(f, 0, (const uint8_t *)data, n);
    check_all(x, f, "at the beginning");
}

static void init_file(struct fsx *x, unsigned n, uint64_t max)
{
    struct file *f = &x->files[n];
    f->path = n < FILES_MAX ? g_strdup_printf("%s/f%u", x->dir, n) : NULL;
    f->max = n == 0 ? max : max / 4;
    leave(f, g_malloc0(max + 8));
    if (f->path && x->shadow)
        load(x, f);
}

static void run(struct fsx *x, uint64_t operations)
{
    for (x->op = 1; x->op <= operations; x->op++)
        one(x);
    for (unsigned n = 0; n < x->n_files; n++) {
        make_ready(x, &x->files[n]);
        close_all(x, &x->files[n]);
        check_all(x, &x->files[n], "at the end");
        g_autofree char *path = x->shadow ? shadow_of(x, &x->files[n]) : NULL;
        if (path && !g_file_set_contents(path, (const char *)x->files[n].want, (gssize)x->files[n].size, NULL))
            die(x, "cannot write %s", path);
    }
}

int main(int argc, char **argv)
{
    static struct fsx whole; /* LeakSanitizer watches this program too, and finds what a static refers to */
    struct fsx *x = &whole;
    uint64_t operations = 10000, seed = (uint64_t)g_get_real_time(), max = 1 << 20;
    int c;
    x->n_files = 3;
    while ((c = getopt(argc, argv, "N:S:f:l:s:")) != -1) {
        switch (c) {
        case 'N': operations = strtoull(optarg, NULL, 10); break;
        case 'S': seed = strtoull(optarg, NULL, 10); break;
        case 'f': x->n_files = CLAMP((unsigned)strtoul(optarg, NULL, 10), 1, FILES_MAX); break;
        case 'l': max = MAX(strtoull(optarg, NULL, 10), 16384); break;
        case 's': x->shadow = optarg; break;
        default: return 2;
        }
    }
    if (optind != argc - 1)
        return fputs("fsx: which directory?\n", stderr), 2;
    printf("fsx: seed %" PRIu64 ", %" PRIu64 " operations\n", seed, operations);
    fflush(stdout);
    x->state = seed;
    x->dir = argv[optind];
    x->buf = g_malloc(MAX(max, SPAN_MAX) + 8);
    for (unsigned n = 0; n < FILES_MAX + GHOSTS; n++)
        init_file(x, n, max);
    run(x, operations);
    return 0;
}
