/* SPDX-License-Identifier: Apache-2.0
 *
 * local: what the files of store_local share. From the top:
 *     store_local.c       open, queue, dispatch, done; the verbs that move bytes
 *     local_object.c      what the index does for objects: put, get, copy, delete, tags
 *     local_multipart.c   uploads and their parts
 *     local_list.c        LIST and MPU_LIST
 *     local_index.c       the database: transactions, buckets, bodies
 *     local_pack.c        headers and tags as stored; names; errors
 *     local_blob.c        files of bytes
 *
 * A blob is an immutable file of bytes. A body is an ordered list of segments (blob, offset,
 * length) and counts who refers to it: objects (a COPY shares the body) and parts of uploads.
 * COMPLETE moves the parts' segments into one body, so that no byte is rewritten.
 */
#pragma once
#include <openssl/evp.h>
#include <stdatomic.h>

#include "base/sqlite.h"
#include "s3/store.h"

/* ---- local_pack.c ---- */

/* The errors of S3 that can reach this store: the contract (s3/store.c) keeps out long keys, parts
 * out of order and the like. */
enum local_error {
    LOCAL_NO_SUCH_BUCKET,
    LOCAL_NO_SUCH_KEY,
    LOCAL_NO_SUCH_UPLOAD,
    LOCAL_PRECONDITION_FAILED,
    LOCAL_EXISTS,       /* if_none_match met a key */
    LOCAL_MATCH_NO_KEY, /* if_match met none */
    LOCAL_INVALID_RANGE,
    LOCAL_INVALID_ARGUMENT,
    LOCAL_INVALID_REQUEST,
    LOCAL_INVALID_BUCKET_NAME,
    LOCAL_INVALID_PART,
    LOCAL_INVALID_TAG,
    LOCAL_PART_TOO_SMALL,
    LOCAL_TOO_LARGE,
    LOCAL_METADATA_TOO_LARGE,
    LOCAL_BUCKET_EXISTS,
    LOCAL_BUCKET_NOT_EMPTY,
    LOCAL_BAD_DIGEST,
};

/* Enters the error into req's result; returns its -errno. */
int local_fail(struct store_request *req, enum local_error e);

/* Name and value pairs in one blob: name NUL value NUL … */
GBytes *local_pack_tags(GHashTable *tags);
GHashTable *local_unpack_tags(const void *data, size_t n); /* char* → char*, owned by the table */
/* Checks the headers too: -E2BIG, -EINVAL, entered into req. */
int local_pack_headers(struct store_request *req, const struct store_headers *h, GBytes **ret);
void local_unpack_headers(const void *data, size_t n, struct store_headers *ret);
int local_check_tags(struct store_request *req, GHashTable *tags);
/* What req gives an object beside its headers: *ret_class is NULL for STANDARD; both the caller's. */
int local_pack_kept(struct store_request *req, GBytes **ret_tags, char **ret_class);
bool local_bucket_name_valid(const char *name);

/* ---- local_blob.c: any thread, no lock ---- */

struct local_blobs;

struct local_blob_writer {
    struct local_blobs *blobs;
    uint64_t id;
    uint64_t size;
    int fd;    /* -1 until the first byte: an empty body has no blob */
    bool kept; /* the index refers to it: do not remove the file */
    uint32_t crc32c;
    EVP_MD_CTX *md5;
};

#define LOCAL_MD5_LEN 16
#define LOCAL_ETAG_LEN 48 /* MD5 in hex, "-10000", NUL */

/* Opens (creates) the folder of blobs. */
int local_blobs_open(int dir_fd, bool durable, struct local_blobs **ret);
void local_blobs_free(struct local_blobs *b);
/* Calls fn with each blob there is. Stops at an error of fn's. */
int local_blobs_foreach(struct local_blobs *b, int (*fn)(void *ctx, uint64_t id), void *ctx);
void local_blobs_reserve(struct local_blobs *b, uint64_t id); /* new ids lie above it */
int local_blob_remove(struct local_blobs *b, uint64_t id);
/* Exactly n bytes from off; -EIO when the file is gone or short. */
int local_blob_open(struct local_blobs *b, uint64_t id, int *ret_fd);
int local_blob_pread(int fd, void *buf, size_t n, uint64_t off);

int local_blob_writer_init(struct local_blob_writer *w, struct local_blobs *b);
int local_blob_write(struct local_blob_writer *w, const void *buf, size_t n);
/* Makes the bytes as durable as asked for, and tells their MD5 in hex. */
int local_blob_writer_seal(struct local_blob_writer *w, char ret_etag[LOCAL_ETAG_LEN]);
void local_blob_writer_fini(struct local_blob_writer *w); /* removes the file unless kept */

void local_hex(const unsigned char *p, size_t n, char *ret); /* ret: 2n + 1 bytes */

/* ---- local_index.c ---- */

struct local_index;

struct local_segment {
    uint64_t start, len; /* in the body */
    uint64_t blob, off;  /* in the blob */
};

/* A part of a body that is being read; the body is pinned until local_view_clear(). */
struct local_view {
    struct local_index *index; /* NULL = nothing pinned */
    int64_t body;
    GArray *segments; /* struct local_segment, those that overlap [off, off + len) */
    uint64_t off, len;
};

/* Names of the prepared statements; see the table in local_index.c. */
enum local_sql {
    SQL_BEGIN,
    SQL_COMMIT,
    SQL_ROLLBACK,
    SQL_BUCKET_FIND,
    SQL_BUCKET_ALL,
    SQL_BUCKET_INSERT,
    SQL_BUCKET_DELETE,
    SQL_BODY_INSERT,
    SQL_BODY_ADD_REFS,
    SQL_BODY_REFS,
    SQL_BODY_DELETE,
    SQL_BODY_DEAD,
    SQL_SEGMENT_INSERT,
    SQL_SEGMENT_SELECT,
    SQL_SEGMENT_BLOBS,
    SQL_SEGMENT_MOVE,
    SQL_SEGMENT_DELETE,
    SQL_BLOB_USED,
    SQL_BLOB_LAST,
    SQL_OBJECT_FIND,
    SQL_OBJECT_STORE,
    SQL_OBJECT_DELETE,
    SQL_OBJECT_TAGS,
    SQL_OBJECT_LIST,
    SQL_OBJECT_ANY,
    SQL_UPLOAD_FIND,
    SQL_UPLOAD_INSERT,
    SQL_UPLOAD_DELETE,
    SQL_UPLOAD_LIST,
    SQL_UPLOAD_OF_BUCKET,
    SQL_PART_FIND,
    SQL_PART_STORE,
    SQL_PART_ALL,
    SQL_PART_DELETE,
    SQL_PART_DELETE_ALL,
    SQL_COUNT
};

/* The database under path. Removes what a crash left behind: bodies and blobs nobody refers to. */
int local_index_open(const char *path, bool durable, struct local_blobs *blobs,
                     struct local_index **ret);
void local_index_close(struct local_index *ix);

/* One transaction; it holds the index's mutex. Leaving its scope uncommitted rolls back. */
struct local_txn {
    struct local_index *ix; /* NULL when over */
    GArray *dead;           /* uint64_t: blobs that lost their last reference */
};
int local_txn_begin(struct local_index *ix, struct local_txn *ret);
int local_txn_commit(struct local_txn *t);
void local_txn_end(struct local_txn *t);
#define _cleanup_txn_ __attribute__((cleanup(local_txn_end)))

/* A prepared statement, reset and without bindings. */
sqlite3_stmt *local_txn_stmt(struct local_txn *t, enum local_sql which);
/* Steps a statement that returns no rows. */
int local_txn_do(sqlite3_stmt *st);
void local_bind_bytes(sqlite3_stmt *st, int col, const void *p, size_t n);
void local_bind_key(sqlite3_stmt *st, int col, const char *key);
void local_bind_text(sqlite3_stmt *st, int col, const char *text);
void local_bind_bytes_of(sqlite3_stmt *st, int col, GBytes *b);
char *local_column_key(sqlite3_stmt *st, int col); /* owned by the caller */

/* The bucket's id; LOCAL_NO_SUCH_BUCKET is entered into req. */
int local_bucket_find(struct local_txn *t, struct store_request *req, const char *name,
                      int64_t *ret);
int local_bucket_create(struct local_index *ix, struct store_request *req, const char *name);
int local_bucket_delete(struct local_index *ix, struct store_request *req);
int local_bucket_list(struct local_index *ix, struct store_request *req);

/* A new, empty body with one reference. */
int local_body_new(struct local_txn *t, int64_t *ret);
int local_body_add(struct local_txn *t, int64_t body, const struct local_segment *s);
int local_body_ref(struct local_txn *t, int64_t body);
/* Gives back a reference; the last one drops the body, now or when its readers are done. */
int local_body_unref(struct local_txn *t, int64_t body);
/* Moves from's segments behind the first `start` bytes of to; from is gone. */
int local_body_move(struct local_txn *t, int64_t to, uint64_t start, int64_t from);
/* Pins the body for reading [off, off + len). */
int local_body_view(struct local_txn *t, int64_t body, uint64_t off, uint64_t len,
                    struct local_view *ret);
void local_view_clear(struct local_view *v); /* takes the index's mutex: not inside a transaction */
#define _cleanup_view_ __attribute__((cleanup(local_view_clear)))

/* ---- local_object.c ---- */

struct local_object {
    char *etag;
    uint64_t size;
    int64_t mtime_ns;
    int64_t body;
    GBytes *headers, *tags; /* packed */
    char *storage_class;    /* NULL = STANDARD */
};
void local_object_clear(struct local_object *o);
#define _cleanup_local_object_ __attribute__((cleanup(local_object_clear)))

/* 1 and *ret filled, 0 when there is none, -errno. */
int local_object_find(struct local_txn *t, int64_t bucket, const char *key,
                      struct local_object *ret);
/* req's if_match and if_none_match against what is there. */
int local_object_check(struct local_txn *t, struct store_request *req, int64_t bucket);
/* Enters o under the key (its body's reference is the row's), dropping what was there. */
int local_object_store(struct local_txn *t, int64_t bucket, const char *key,
                       const struct local_object *o);

/* HEAD and GET: fills req's result; view (NULL for HEAD) pins what range asks for. */
int local_object_get(struct local_index *ix, struct store_request *req, struct local_view *view);
/* May req's body be put there? Before the body is read. */
int local_object_put_check(struct local_index *ix, struct store_request *req);
int local_object_put(struct local_index *ix, struct store_request *req, GBytes *headers,
                     const char *etag, struct local_blob_writer *w);
int local_object_copy(struct local_index *ix, struct store_request *req, GBytes *headers);
int local_object_delete(struct local_index *ix, struct store_request *req);
int local_object_delete_many(struct local_index *ix, struct store_request *req);
int local_object_tags_get(struct local_index *ix, struct store_request *req);
int local_object_tags_put(struct local_index *ix, struct store_request *req);
/* What a MPU_COPY_PART copies: from_*, range. */
int local_object_view_source(struct local_index *ix, struct store_request *req,
                             struct local_view *ret);

/* ---- local_multipart.c ---- */

int local_mpu_create(struct local_index *ix, struct store_request *req, GBytes *headers);
int local_mpu_part_check(struct local_index *ix, struct store_request *req);
/* A part whose bytes are w's, or (w NULL) the view's. */
int local_mpu_part(struct local_index *ix, struct store_request *req, const char *etag,
                   struct local_blob_writer *w, const struct local_view *view);
int local_mpu_complete(struct local_index *ix, struct store_request *req);
int local_mpu_abort(struct local_index *ix, struct store_request *req);
/* Drops an upload and the bodies of what parts it still has. */
int local_mpu_drop(struct local_txn *t, const char *upload_id);
int local_mpu_drop_all(struct local_txn *t, int64_t bucket);
int local_mpu_list_parts(struct local_index *ix, struct store_request *req);

/* ---- local_list.c ---- */

int local_list_objects(struct local_index *ix, struct store_request *req);
int local_list_uploads(struct local_index *ix, struct store_request *req);
