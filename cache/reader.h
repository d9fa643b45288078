/* SPDX-License-Identifier: Apache-2.0
 *
 * reader: bytes of immutable object versions, through a block cache and read-ahead.
 *
 * A read_cache holds blocks of any number of object versions within a fixed arena of memory. A
 * reader is one open handle's view of one version: it carries the cursors that read-ahead learns
 * from. Every GET carries If-Match with the version's ETag, so bytes of two versions never mix: an
 * object that changed gives -ESTALE to reads whose bytes are not cached.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct store;
struct workq;
struct read_cache;
struct reader;

struct read_cache_params {
    struct store *store;   /* borrowed, outlives the cache */
    struct workq *deliver; /* borrowed: completions that do not happen inline run there */
    uint64_t memory;       /* bytes of block arena; at least 8 MiB. Blocks, and nothing else, count here */
};

/* 0 or -errno (-ENOMEM, -EINVAL). */
int read_cache_new(const struct read_cache_params *p, struct read_cache **ret);
/* All readers are gone. Cancels read-ahead under way and waits for it. */
void read_cache_free(struct read_cache *rc);

struct read_cache_stats {
    uint64_t hits, misses;        /* blocks */
    uint64_t bytes_fetched;       /* from the store */
    uint64_t bytes_served;        /* to readers */
    uint64_t blocks, blocks_max;  /* in use, capacity */
    uint64_t gets;                /* GETs issued */
};
void read_cache_get_stats(struct read_cache *rc, struct read_cache_stats *ret);

/* The object version bucket/key@etag of `size` bytes. Strings are copied. Never fails, never blocks. Thread-safe. */
struct reader *reader_new(struct read_cache *rc, const char *bucket, const char *key, const char *etag, uint64_t size);
/* No read of it is under way. Drops its read-ahead; its cached blocks stay for the next reader of the same version. */
void reader_free(struct reader *r);

struct reader_op {
    uint64_t off; /* bytes from the start of the object */
    size_t len;   /* bytes; off+len may pass the end, then the result is short */
    /* Exactly once. err 0: iov covers what was read (n_iov 0 at the end of file), valid until done returns. err:
     * -ESTALE object changed or is gone; -EINTR cancelled; -EACCES, -EIO, -ETIMEDOUT. No lock is held. May run inside
     * reader_read() (all cached), else on the deliver queue; must not free the reader inside reader_read(). */
    void (*done)(struct reader_op *op, int err, const struct iovec *iov, int n_iov);
    void *ctx;    /* the caller's */
    void *layer;  /* private */
};

/* Starts a read; never blocks. Up to 4 MiB. */
void reader_read(struct reader *r, struct reader_op *op);
/* Ends a read that is under way with -EINTR soon. The caller guarantees that done has not returned yet. */
void reader_cancel(struct reader *r, struct reader_op *op);
/* Blocks until n = min(len, size-off) bytes are in buf: n, or -errno (as above; -EINTR when cancel fires). */
struct cancel;
ssize_t reader_pread(struct reader *r, void *buf, size_t len, uint64_t off, struct cancel *cancel);
/* The bytes of bucket/key@from are those of bucket/key2@to (a metadata-only copy of ours): cached blocks move to the new version. */
void read_cache_alias(struct read_cache *rc, const char *from_bucket, const char *from_key, const char *from_etag,
                      const char *to_bucket, const char *to_key, const char *to_etag);
