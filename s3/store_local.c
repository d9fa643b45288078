/* SPDX-License-Identifier: Apache-2.0
 *
 * store_local: see store_local.h; s3/local.h tells how it is cut.
 *
 * Threads: each request is one job on a work queue; `done` runs there, with no lock held. The index
 * has its own lock, which is never held while a body streams: PUT writes its blob first and then
 * enters it, GET pins the body it found and then reads. cancel() sets a flag that a job looks at
 * before it starts and between two pieces of a body. The store's own lock is a leaf.
 */
#include "s3/store_local.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/workq.h"
#include "s3/local.h"

#define PIECE (1U << 20)
#define DEFAULT_THREADS 8

struct store_local {
    struct store store;
    int dir_fd; /* holds the flock */
    struct local_blobs *blobs;
    struct local_index *index;
    struct workq *workq;
    struct mutex lock;
    GHashTable *jobs; /* lock; the requests under way → struct job, for cancel() */
};

struct job {
    struct store_local *st;
    struct store_request *req;
    atomic_bool cancelled;
};

/* ---- bodies ---- */

static int check_cancelled(struct job *job)
{
    return atomic_load_explicit(&job->cancelled, memory_order_relaxed) ? -ECANCELED : 0;
}

/* What the source says of its bytes, once all are written. */
static int check_digest(struct store_request *req, const struct local_blob_writer *w)
{
    const struct store_source *src = &req->source;
    uint32_t crc;
    if (src->checksum == NULL) {
        return 0;
    }
    int r = src->checksum(src->ctx, &crc);
    if (r < 0) {
        return r;
    }
    req->res.checksum = (struct store_checksum){.set = true, .crc32c = crc};
    return crc == w->crc32c ? 0 : local_fail(req, LOCAL_BAD_DIGEST);
}

static int write_source(struct job *job, struct local_blob_writer *w)
{
    const struct store_source *src = &job->req->source;
    g_autofree char *buf = g_malloc(CLAMP(src->size, 1, PIECE));
    uint64_t off = 0;
    while (off < src->size) {
        int r = check_cancelled(job);
        if (r < 0) {
            return r;
        }
        ssize_t n = src->read(src->ctx, off, buf, (size_t)MIN(src->size - off, PIECE));
        if (n <= 0) {
            return n < 0 ? (int)n : -EIO;
        }
        r = local_blob_write(w, buf, (size_t)n);
        if (r < 0) {
            return r;
        }
        off += (uint64_t)n;
    }
    return check_digest(job->req, w);
}

/* Calls fn with the view's bytes, in order; off counts in the body. */
static int view_foreach(struct job *job, const struct local_view *v,
                        int (*fn)(void *ctx, uint64_t off, const void *buf, size_t n), void *ctx)
{
    g_autofree char *buf = g_malloc(CLAMP(v->len, 1, PIECE));
    uint64_t off = v->off, end = v->off + v->len;
    int r = 0;
    for (guint i = 0; r == 0 && i < v->segments->len; i++) {
        const struct local_segment *s = &g_array_index(v->segments, struct local_segment, i);
        if (off < s->start || off >= s->start + s->len) {
            return -EUCLEAN; /* the segments do not join */
        }
        int fd;
        r = local_blob_open(job->st->blobs, s->blob, &fd);
        if (r < 0) {
            return r;
        }
        uint64_t stop = MIN(s->start + s->len, end);
        while (r == 0 && off < stop) {
            size_t n = (size_t)MIN(stop - off, PIECE);
            r = check_cancelled(job);
            if (r == 0) {
                r = local_blob_pread(fd, buf, n, s->off + (off - s->start));
            }
            if (r == 0) {
                r = fn(ctx, off, buf, n);
            }
            off += n;
        }
        close(fd);
    }
    return r == 0 && off != end ? -EUCLEAN : r;
}

/* ---- verbs that move bytes ---- */

static int to_sink(void *ctx, uint64_t off, const void *buf, size_t n)
{
    struct store_request *req = ctx;
    int r = req->sink.write(req->sink.ctx, off, buf, n);
    if (r == 0) {
        req->res.bytes += n;
    }
    return r;
}

static int verb_get(struct job *job)
{
    _cleanup_view_ struct local_view v = {0};
    int r = local_object_get(job->st->index, job->req, &v);
    return r < 0 ? r : view_foreach(job, &v, to_sink, job->req);
}

static int verb_head(struct job *job)
{
    return local_object_get(job->st->index, job->req, NULL);
}

static int verb_put(struct job *job)
{
    struct store_request *req = job->req;
    g_autoptr(GBytes) headers = NULL;
    char etag[LOCAL_ETAG_LEN];
    int r = local_pack_headers(req, req->headers, &headers);
    if (r == 0) {
        r = local_object_put_check(job->st->index, req);
    }
    if (r < 0) {
        return r;
    }
    struct local_blob_writer w;
    r = local_blob_writer_init(&w, job->st->blobs);
    if (r == 0) {
        r = write_source(job, &w);
    }
    if (r == 0) {
        r = local_blob_writer_seal(&w, etag);
    }
    if (r == 0) {
        r = local_object_put(job->st->index, req, headers, etag, &w);
    }
    local_blob_writer_fini(&w);
    return r;
}

static int verb_mpu_part(struct job *job)
{
    struct store_request *req = job->req;
    char etag[LOCAL_ETAG_LEN];
    int r = local_mpu_part_check(job->st->index, req);
    if (r < 0) {
        return r;
    }
    struct local_blob_writer w;
    r = local_blob_writer_init(&w, job->st->blobs);
    if (r == 0) {
        r = write_source(job, &w);
    }
    if (r == 0) {
        r = local_blob_writer_seal(&w, etag);
    }
    if (r == 0) {
        r = local_mpu_part(job->st->index, req, etag, &w, NULL);
    }
    local_blob_writer_fini(&w);
    return r;
}

struct digest {
    EVP_MD_CTX *md5;
    uint32_t crc32c;
};

static int to_digest(void *ctx, uint64_t off, const void *buf, size_t n)
{
    struct digest *d = ctx;
    d->crc32c = crc32c(d->crc32c, buf, n);
    return EVP_DigestUpdate(d->md5, buf, n) == 1 ? 0 : -EIO;
}

/* The bytes are shared, and read only for the part's ETag. */
static int verb_mpu_copy_part(struct job *job)
{
    struct store_request *req = job->req;
    _cleanup_view_ struct local_view v = {0};
    unsigned char md[EVP_MAX_MD_SIZE];
    char etag[LOCAL_ETAG_LEN];
    int r = local_mpu_part_check(job->st->index, req);
    if (r == 0) {
        r = local_object_view_source(job->st->index, req, &v);
    }
    if (r < 0) {
        return r;
    }
    struct digest d = {.md5 = EVP_MD_CTX_new()};
    r = d.md5 != NULL && EVP_DigestInit_ex(d.md5, EVP_md5(), NULL) == 1 ? 0 : -ENOMEM;
    if (r == 0) {
        r = view_foreach(job, &v, to_digest, &d);
    }
    if (r == 0) {
        r = EVP_DigestFinal_ex(d.md5, md, NULL) == 1 ? 0 : -EIO;
    }
    EVP_MD_CTX_free(d.md5);
    if (r < 0) {
        return r;
    }
    req->res.checksum = (struct store_checksum){.set = true, .crc32c = d.crc32c};
    local_hex(md, LOCAL_MD5_LEN, etag);
    return local_mpu_part(job->st->index, req, etag, NULL, &v);
}

/* ---- verbs that only touch the index ---- */

static int verb_copy(struct job *job)
{
    g_autoptr(GBytes) headers = NULL;
    if (job->req->replace_headers) {
        int r = local_pack_headers(job->req, job->req->headers, &headers);
        if (r < 0) {
            return r;
        }
    }
    return local_object_copy(job->st->index, job->req, headers);
}

static int verb_mpu_create(struct job *job)
{
    g_autoptr(GBytes) headers = NULL;
    int r = local_pack_headers(job->req, job->req->headers, &headers);
    return r < 0 ? r : local_mpu_create(job->st->index, job->req, headers);
}

static int verb_bucket_create(struct job *job)
{
    return local_bucket_create(job->st->index, job->req, job->req->bucket);
}

struct verb {
    int (*job)(struct job *job);
    int (*index)(struct local_index *ix, struct store_request *req);
};

static const struct verb verbs[STORE_VERB_COUNT] = {
    [STORE_HEAD] = {.job = verb_head},
    [STORE_GET] = {.job = verb_get},
    [STORE_PUT] = {.job = verb_put},
    [STORE_DELETE] = {.index = local_object_delete},
    [STORE_DELETE_MANY] = {.index = local_object_delete_many},
    [STORE_COPY] = {.job = verb_copy},
    [STORE_LIST] = {.index = local_list_objects},
    [STORE_BUCKETS] = {.index = local_bucket_list},
    [STORE_BUCKET_CREATE] = {.job = verb_bucket_create},
    [STORE_BUCKET_DELETE] = {.index = local_bucket_delete},
    [STORE_MPU_CREATE] = {.job = verb_mpu_create},
    [STORE_MPU_PART] = {.job = verb_mpu_part},
    [STORE_MPU_COPY_PART] = {.job = verb_mpu_copy_part},
    [STORE_MPU_COMPLETE] = {.index = local_mpu_complete},
    [STORE_MPU_ABORT] = {.index = local_mpu_abort},
    [STORE_MPU_LIST_PARTS] = {.index = local_mpu_list_parts},
    [STORE_MPU_LIST] = {.index = local_list_uploads},
    [STORE_TAGS_GET] = {.index = local_object_tags_get},
    [STORE_TAGS_PUT] = {.index = local_object_tags_put},
};

/* ---- the store ---- */

static void job_run(void *arg)
{
    struct job *job = arg;
    struct store_request *req = job->req;
    const struct verb *v = &verbs[req->verb];
    int r = check_cancelled(job);
    if (r == 0) {
        r = v->job != NULL ? v->job(job) : v->index(job->st->index, req);
    }
    if (r == 0) {
        if (req->verb == STORE_PUT || req->verb == STORE_MPU_PART) {
            req->res.bytes = req->source.size;
        }
    } else if (req->res.err == 0) {
        /* No S3 error of its own: the disk, the source or the sink, or a cancel. */
        store_result_fail(&req->res, r, STORE_CLASS_FATAL, r == -ECANCELED ? NULL : "InternalError",
                          "%s: %s", store_verb_name(req->verb), g_strerror(-r));
    }
    mutex_lock(&job->st->lock);
    g_hash_table_remove(job->st->jobs, req); /* from here on a cancel() finds nothing */
    mutex_unlock(&job->st->lock);
    g_free(job);
    store_complete(req);
}

static void local_submit(struct store *s, struct store_request *req)
{
    struct store_local *st = (struct store_local *)s;
    struct job *job = g_new0(struct job, 1);
    job->st = st;
    job->req = req;
    mutex_lock(&st->lock);
    g_hash_table_insert(st->jobs, req, job);
    mutex_unlock(&st->lock);
    workq_push(st->workq, job_run, job);
}

static void local_cancel(struct store *s, struct store_request *req)
{
    struct store_local *st = (struct store_local *)s;
    mutex_lock(&st->lock);
    struct job *job = g_hash_table_lookup(st->jobs, req);
    if (job != NULL) {
        atomic_store_explicit(&job->cancelled, true, memory_order_relaxed);
    }
    mutex_unlock(&st->lock);
}

static void local_caps(struct store *s, const char *bucket, struct store_caps *ret)
{
    *ret = (struct store_caps){.put_if = true,
                               .complete_if = true,
                               .copy_if = true,
                               .delete_if = true,
                               .copy_part = true,
                               .checksum = true,
                               .checksum_part = true,
                               .checksum_mpu = true,
                               .copy_into_checksum_mpu = true,
                               .head_tags = true};
}

static void local_destroy(struct store *s)
{
    struct store_local *st = (struct store_local *)s;
    workq_free(st->workq);
    local_index_close(st->index);
    local_blobs_free(st->blobs);
    if (st->dir_fd >= 0) {
        close(st->dir_fd);
    }
    mutex_fini(&st->lock);
    g_hash_table_unref(st->jobs);
    g_free(st);
}

static const struct store_ops local_ops = {
    .name = "local",
    .submit = local_submit,
    .cancel = local_cancel,
    .caps = local_caps,
    .destroy = local_destroy,
};

/* Opens the directory, creates it if need be, and keeps others out. */
static int open_directory(const char *path, int *ret_fd)
{
    if (mkdir(path, 0700) < 0 && errno != EEXIST) {
        return log_error_errno(-errno, "cannot create the store's directory %s", path);
    }
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return log_error_errno(-errno, "cannot open the store's directory %s", path);
    }
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        int r = errno == EWOULDBLOCK ? -EBUSY : -errno;
        close(fd);
        return log_error_errno(r, "the store in %s is in use by another process", path);
    }
    *ret_fd = fd;
    return 0;
}

static int create_bucket(struct store_local *st, const char *name)
{
    struct store_request req = {.verb = STORE_BUCKET_CREATE, .bucket = name};
    int r = local_bucket_create(st->index, &req, name);
    store_result_clear(&req.res);
    return r == -EEXIST ? 0 : r;
}

static int open_parts(struct store_local *st, const struct store_local_params *p)
{
    int r = open_directory(p->path, &st->dir_fd);
    if (r < 0) {
        return r;
    }
    r = local_blobs_open(st->dir_fd, p->durable, &st->blobs);
    if (r < 0) {
        return log_error_errno(r, "cannot open the folder blobs in %s", p->path);
    }
    g_autofree char *db = g_build_filename(p->path, "index.db", NULL);
    r = local_index_open(db, p->durable, st->blobs, &st->index);
    if (r < 0) {
        return log_error_errno(r, "cannot open the store's index %s", db);
    }
    r = p->bucket != NULL ? create_bucket(st, p->bucket) : 0;
    if (r < 0) {
        return log_error_errno(r, "cannot create the bucket \"%s\"", p->bucket);
    }
    r = workq_new("store-local", p->threads > 0 ? p->threads : DEFAULT_THREADS, &st->workq);
    return r < 0 ? log_error_errno(r, "cannot start the store's threads") : 0;
}

int store_local_new(const struct store_local_params *p, struct store **ret)
{
    struct store_local *st = g_new0(struct store_local, 1);
    st->store.ops = &local_ops;
    st->dir_fd = -1;
    st->jobs = g_hash_table_new(NULL, NULL);
    mutex_init(&st->lock, RANK_LEAF);
    int r = open_parts(st, p);
    if (r < 0) {
        local_destroy(&st->store);
        return r;
    }
    *ret = &st->store;
    return 0;
}
