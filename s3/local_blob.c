/* SPDX-License-Identifier: Apache-2.0
 *
 * local_blob: store_local's files of bytes, blobs/ID in hex. Any thread; no lock: a blob is written
 * by one request, entered in the index, and from then on only read until it is removed.
 *
 * Invariants: an id is used once in the life of a process. A file that no segment of the index
 * names is garbage: of a crash, or of a request that is still writing it.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "s3/local.h"

#define NAME_LEN 17 /* 16 digits, NUL */

struct local_blobs {
    int fd;
    bool durable;
    _Atomic uint64_t last_id;
};

static void blob_name(uint64_t id, char ret[NAME_LEN])
{
    snprintf(ret, NAME_LEN, "%016" PRIx64, id);
}

static bool name_blob(const char *name, uint64_t *ret)
{
    if (strlen(name) != NAME_LEN - 1 || strspn(name, "0123456789abcdef") != NAME_LEN - 1) {
        return false;
    }
    *ret = g_ascii_strtoull(name, NULL, 16);
    return true;
}

void local_hex(const unsigned char *p, size_t n, char *ret)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < n; i++) {
        ret[2 * i] = digits[p[i] >> 4];
        ret[2 * i + 1] = digits[p[i] & 15];
    }
    ret[2 * n] = '\0';
}

void local_blobs_reserve(struct local_blobs *b, uint64_t id)
{
    if (id > atomic_load(&b->last_id)) { /* only while the store opens: nobody else counts */
        atomic_store(&b->last_id, id);
    }
}

static int note_id(void *ctx, uint64_t id)
{
    local_blobs_reserve(ctx, id);
    return 0;
}

int local_blobs_open(int dir_fd, bool durable, struct local_blobs **ret)
{
    if (mkdirat(dir_fd, "blobs", 0700) < 0 && errno != EEXIST) {
        return -errno;
    }
    int fd = openat(dir_fd, "blobs", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return -errno;
    }
    if (durable && fsync(dir_fd) < 0) {
        int r = -errno;
        close(fd);
        return r;
    }
    struct local_blobs *b = g_new0(struct local_blobs, 1);
    b->fd = fd;
    b->durable = durable;
    int r = local_blobs_foreach(b, note_id, b);
    if (r < 0) {
        local_blobs_free(b);
        return r;
    }
    *ret = b;
    return 0;
}

void local_blobs_free(struct local_blobs *b)
{
    if (b == NULL) {
        return;
    }
    close(b->fd);
    g_free(b);
}

int local_blobs_foreach(struct local_blobs *b, int (*fn)(void *ctx, uint64_t id), void *ctx)
{
    int fd = openat(b->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return -errno;
    }
    DIR *d = fdopendir(fd);
    if (d == NULL) {
        int r = -errno;
        close(fd);
        return r;
    }
    int r = 0;
    struct dirent *e;
    while (r >= 0 && (errno = 0, e = readdir(d)) != NULL) {
        uint64_t id;
        if (name_blob(e->d_name, &id)) {
            r = fn(ctx, id);
        }
    }
    if (r >= 0 && errno != 0) {
        r = -errno;
    }
    closedir(d);
    return r;
}

int local_blob_remove(struct local_blobs *b, uint64_t id)
{
    char name[NAME_LEN];
    blob_name(id, name);
    return unlinkat(b->fd, name, 0) < 0 ? -errno : 0;
}

int local_blob_open(struct local_blobs *b, uint64_t id, int *ret_fd)
{
    char name[NAME_LEN];
    blob_name(id, name);
    int fd = openat(b->fd, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return errno == ENOENT ? -EIO : -errno; /* the index promised it */
    }
    *ret_fd = fd;
    return 0;
}

int local_blob_pread(int fd, void *buf, size_t n, uint64_t off)
{
    char *p = buf;
    while (n > 0) {
        ssize_t k = pread(fd, p, n, (off_t)off);
        if (k < 0 && errno == EINTR) {
            continue;
        }
        if (k <= 0) {
            return k < 0 ? -errno : -EIO;
        }
        p += k;
        n -= (size_t)k;
        off += (uint64_t)k;
    }
    return 0;
}

int local_blob_writer_init(struct local_blob_writer *w, struct local_blobs *b)
{
    *w = (struct local_blob_writer){.blobs = b, .fd = -1, .md5 = EVP_MD_CTX_new()};
    if (w->md5 == NULL || EVP_DigestInit_ex(w->md5, EVP_md5(), NULL) != 1) {
        return -ENOMEM;
    }
    return 0;
}

static int writer_open(struct local_blob_writer *w)
{
    char name[NAME_LEN];
    w->id = atomic_fetch_add(&w->blobs->last_id, 1) + 1;
    blob_name(w->id, name);
    w->fd = openat(w->blobs->fd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    return w->fd < 0 ? -errno : 0;
}

int local_blob_write(struct local_blob_writer *w, const void *buf, size_t n)
{
    if (w->fd < 0 && n > 0) {
        int r = writer_open(w);
        if (r < 0) {
            return r;
        }
    }
    if (EVP_DigestUpdate(w->md5, buf, n) != 1) {
        return -EIO;
    }
    w->crc32c = crc32c(w->crc32c, buf, n);
    const char *p = buf;
    while (n > 0) {
        ssize_t k = write(w->fd, p, n);
        if (k < 0 && errno == EINTR) {
            continue;
        }
        if (k < 0) {
            return -errno;
        }
        p += k;
        n -= (size_t)k;
        w->size += (uint64_t)k;
    }
    return 0;
}

int local_blob_writer_seal(struct local_blob_writer *w, char ret_etag[LOCAL_ETAG_LEN])
{
    unsigned char md[EVP_MAX_MD_SIZE];
    if (EVP_DigestFinal_ex(w->md5, md, NULL) != 1) {
        return -EIO;
    }
    local_hex(md, LOCAL_MD5_LEN, ret_etag);
    if (w->fd >= 0 && w->blobs->durable && (fdatasync(w->fd) < 0 || fsync(w->blobs->fd) < 0)) {
        return -errno;
    }
    return 0;
}

void local_blob_writer_fini(struct local_blob_writer *w)
{
    EVP_MD_CTX_free(w->md5);
    if (w->fd < 0) {
        return;
    }
    close(w->fd);
    if (!w->kept) {
        (void)local_blob_remove(w->blobs, w->id); /* else the next open does */
    }
}
