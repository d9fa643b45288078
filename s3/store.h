/* SPDX-License-Identifier: Apache-2.0
 *
 * store: an object store behind one asynchronous interface. Buckets hold objects; an object has a
 * key (any bytes but NUL, 1 to 1,024 of them), a body, headers and an ETag that names one version
 * of it. Semantics are Amazon S3's (API reference 2006-03-01), whoever implements them.
 *
 * One request type carries every verb. The caller owns the request and everything it points to,
 * and leaves all of it alone from store_submit() until `done` runs. `done` runs exactly once per
 * submitted request, never inside store_submit(), on a thread of the store's, with no lock held: it
 * must not block on the store (it may submit). From then on the caller may free or reuse the
 * request; what is in `res` belongs to the request until store_request_clear().
 *
 * Layers, from the top: retry → stats → fault (tests) → store_s3 or store_local. A decorator submits a request
 * of its own to the layer below, and moves the result up.
 */
#pragma once
#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cancel;
struct store;

#define STORE_KEY_MAX 1024
#define STORE_PART_MIN (5ULL << 20)  /* every part but the last */
#define STORE_PART_MAX (5ULL << 30)  /* also the most one PUT or COPY takes */
#define STORE_PARTS_MAX 10000
#define STORE_OBJECT_MAX (5ULL << 40)
#define STORE_LIST_MAX 1000          /* entries per LIST page, keys per DELETE_MANY */

enum store_verb {
    STORE_HEAD,           /* → res.object */
    STORE_GET,            /* range → sink; → res.object (headers as in HEAD, size = whole object's), also when the body broke off */
    STORE_PUT,            /* source, headers, if_match/if_none_match → res.object.etag */
    STORE_DELETE,         /* if_match; deleting what is absent succeeds, as in S3 */
    STORE_DELETE_MANY,    /* keys → res.failed: those that could not be deleted */
    STORE_COPY,           /* from_bucket/from_key, from_if_match, replace_headers → res.object.etag */
    STORE_LIST,           /* prefix, delimiter, start_after, token, max_keys → res.entries, res.token */
    STORE_BUCKETS,        /* → res.entries (key = name, mtime) */
    STORE_BUCKET_CREATE,
    STORE_BUCKET_DELETE,  /* -ENOTEMPTY */
    STORE_MPU_CREATE,     /* headers → res.upload_id */
    STORE_MPU_PART,       /* upload_id, part_number, source → res.object.etag */
    STORE_MPU_COPY_PART,  /* upload_id, part_number, from_*, range → res.object.etag */
    STORE_MPU_COMPLETE,   /* upload_id, parts, if_match/if_none_match → res.object.etag */
    STORE_MPU_ABORT,      /* upload_id; absent succeeds */
    STORE_MPU_LIST_PARTS, /* upload_id → res.parts, all pages; absent: -ENOENT */
    STORE_MPU_LIST,       /* prefix → res.entries (key, upload_id, mtime = initiated), all pages */
    STORE_TAGS_GET,       /* → res.tags */
    STORE_TAGS_PUT,       /* tags (replaces the set; empty removes it) */
    STORE_VERB_COUNT
};

/* Order in which queued requests get a connection; uploads keep a floor of connections. */
enum store_prio { STORE_PRIO_DEMAND, STORE_PRIO_META, STORE_PRIO_AHEAD, STORE_PRIO_UPLOAD, STORE_PRIO_COUNT };

/* What a caller, or the retry layer, may do about a failure. */
enum store_class {
    STORE_CLASS_OK,
    STORE_CLASS_RETRY,     /* passing: the same request may succeed later, and did not take effect or is harmless to repeat */
    STORE_CLASS_AUTH,      /* credentials or permission; repeating does not help */
    STORE_CLASS_CONFLICT,  /* a condition (if_*) did not hold */
    STORE_CLASS_AMBIGUOUS, /* a conditional write whose outcome is unknown: ask by HEAD, never repeat blindly */
    STORE_CLASS_FATAL,     /* everything else; repeating does not help */
};

/* System and user headers of an object. NULL = absent. All owned by the struct. */
struct store_headers {
    char *content_type, *cache_control, *content_disposition, *content_encoding, *content_language, *expires;
    GHashTable *meta; /* x-amz-meta-*: lower-case name without the prefix → value, char* both; NULL = none */
};

struct store_object {
    char *etag;        /* without its quotes; opaque */
    uint64_t size;     /* bytes */
    int64_t mtime_ns;  /* Last-Modified, real time; 0 = not known */
    bool settled;      /* HEAD, GET: etag and mtime_ns together are this state's alone, bytes and headers: any later change gets
                        * another mtime, as a listing shows too. False: not known, or changed too shortly before */
    char *storage_class; /* NULL = STANDARD */
    char *version_id;  /* NULL where the bucket has no versions */
    uint64_t untagged_ns; /* mono: when a reply to HEAD counted no tags, which means that there are none where caps.head_tags; 0 = not asked, or some */
    struct store_headers headers;
};

struct store_entry {
    char *key;         /* LIST: whole key (not relative to prefix); common prefixes end in the delimiter */
    char *etag;        /* NULL for a common prefix */
    char *storage_class;
    char *upload_id;   /* MPU_LIST only */
    uint64_t size;
    int64_t mtime_ns;
    bool is_prefix;
};

/* A CRC32C (base/crc32c.h), where one is known. */
struct store_checksum {
    bool set;
    uint32_t crc32c;
};

struct store_part {
    unsigned number; /* 1..10000 */
    uint64_t size;
    char *etag;      /* owned */
    /* MPU_COMPLETE of an upload created with_checksums: what MPU_PART or MPU_COPY_PART had in res.checksum, for every part;
     * of another upload: never set. MPU_LIST_PARTS: what the server tells. */
    struct store_checksum checksum;
};

struct store_result {
    int err; /* 0 or -errno: see s3/errors.h for the table */
    enum store_class cls;
    int http_status;       /* 0 when there was no reply, or the store speaks no HTTP */
    char code[48];         /* S3 error code, "" if none */
    char detail[160];      /* a sentence for the log; no secrets */
    uint64_t retry_after_ns;
    uint64_t bytes;        /* body bytes delivered to the sink, or taken from the source and acknowledged */
    struct store_checksum checksum; /* PUT, MPU_PART: what was sent along; MPU_COPY_PART: what the reply says, if it does */
    struct store_object object;
    GPtrArray *entries;    /* struct store_entry*, in byte order of keys, frees its elements */
    char *token;           /* LIST: pass in the next request; NULL on the last page */
    char *upload_id;
    bool doubtful;         /* MPU_CREATE, by the retry layer: an attempt before may have made another upload, whose id is lost */
    bool clock_known;      /* MPU_LIST: whether clock_ahead_ns is */
    int64_t clock_ahead_ns; /* so much the server's clock, by which uploads were initiated, is ahead of ours (to the second, not above) */
    GPtrArray *parts;      /* struct store_part* ascending, frees its elements */
    GHashTable *tags;      /* char* → char* */
    GPtrArray *failed;     /* DELETE_MANY: char* keys that are still there; err tells of the first */
};

/* Body of PUT and MPU_PART. read() fills buf with n bytes of the body from offset off (0 ≤ off, off+n ≤ size): n or
 * -errno. Called on store threads, any offset, again after a retry; bytes must stay the same till done; must not block on the network.
 * checksum(), where there is one, gives the CRC32C of the whole body: 0, or -errno which ends the request with it. It is sent
 * along, and a server that has caps.checksum (PUT), caps.checksum_part or (created with_checksums) caps.checksum_mpu (MPU_PART)
 * refuses bytes that differ: -EIO, RETRY, store_refused_digest(). Only for such servers: others may refuse the header, or not look.
 * Called as read() is, once for each time that the request is sent. */
struct store_source {
    ssize_t (*read)(void *ctx, uint64_t off, void *buf, size_t n);
    void *ctx;
    uint64_t size;
    int (*checksum)(void *ctx, uint32_t *ret_crc32c); /* NULL: none is sent */
};

/* Body of GET. write() takes n bytes that lie at offset off of the *object*: 0, or -errno which ends the request with it.
 * Calls come in ascending order without gap or overlap from range.off. Runs on a store thread; copies and enqueues, never blocks. */
struct store_sink {
    int (*write)(void *ctx, uint64_t off, const void *buf, size_t n);
    void *ctx;
};

struct store_range {
    uint64_t off, len; /* len 0 = to the end */
    bool set;          /* false = the whole object */
};

struct store_request {
    enum store_verb verb;
    enum store_prio prio;
    uint64_t deadline_ns; /* mono; 0 = the retry layer's default */
    const char *bucket, *key;
    struct store_range range;          /* GET, MPU_COPY_PART. A GET wholly past the end: -ERANGE; partly past it: what there is */
    uint64_t expect_size;              /* GET: the whole object's, 0 = not known. A server's reply of another size: -ESTALE,
                                        * CONFLICT before any byte reaches the sink */
    const char *if_match;              /* ETag: GET, HEAD, PUT, DELETE, MPU_COMPLETE. PUT on an absent key: CONFLICT */
    bool if_none_match;                /* "*": only if the key is absent: PUT, MPU_COMPLETE */
    struct store_source source;
    struct store_sink sink;
    const struct store_headers *headers; /* PUT, MPU_CREATE; COPY with replace_headers */
    bool replace_headers;                /* COPY: headers replace the source's (else all are carried over) */
    bool with_checksums;                 /* MPU_CREATE: every MPU_PART will have a checksum, and COMPLETE those of all parts. Needs
                                          * caps.checksum_mpu, and for MPU_COPY_PART into it caps.copy_into_checksum_mpu */
    const char *from_bucket, *from_key, *from_if_match;
    const char *prefix, *delimiter, *start_after, *token; /* NULL = none; delimiter "/" or NULL. token wins over start_after */
    unsigned max_keys;                   /* 0 = STORE_LIST_MAX */
    const char *const *keys;             /* DELETE_MANY: n_keys ≤ STORE_LIST_MAX */
    size_t n_keys;
    const char *upload_id;
    unsigned part_number;
    const struct store_part *parts;      /* MPU_COMPLETE: ascending */
    size_t n_parts;
    GHashTable *tags;                    /* TAGS_PUT; PUT, MPU_CREATE: the object's (NULL = none). A COPY has its source's */
    const char *storage_class;           /* PUT, MPU_CREATE, COPY: NULL = the server's default. One that the server does not
                                          * know is left out, as by a server that has no classes */

    void (*done)(struct store_request *req); /* required */
    void *ctx;                               /* the caller's */

    struct store_result res;
    void *layer;  /* private to the layer the request was submitted to */
    int state;    /* private: the contract's (s3/store.c) */
};

struct store_caps {
    bool put_if;      /* PUT honours if_match / if_none_match */
    bool complete_if; /* MPU_COMPLETE does */
    bool copy_if;     /* COPY honours *destination* conditions */
    bool delete_if;   /* DELETE honours if_match */
    bool copy_part;   /* MPU_COPY_PART works */
    bool list_meta;   /* LIST can carry user metadata (MinIO's extension) */
    bool checksum;      /* PUT takes a CRC32C, and refuses a body that has another one */
    bool checksum_part; /* so does MPU_PART into an upload that was not created with_checksums */
    bool checksum_mpu;  /* so does MPU_PART into one that was, and COMPLETE takes the parts' */
    bool copy_into_checksum_mpu; /* MPU_COPY_PART works there too, and COMPLETE with what its reply says */
    bool head_tags;   /* HEAD counts the object's tags */
};

struct store_ops {
    const char *name;
    void (*submit)(struct store *s, struct store_request *req);
    /* Asks that req end soon, with -ECANCELED unless it is done anyway; done still runs, once. Called only after
     * submit has returned and before done has (the caller's guarantee); so it may come while the layer is inside
     * store_complete() for req: a layer looks req up under its own lock, and ignores what it has ended. Never
     * blocks, never runs done inline; takes locks of rank ENGINE and above only. */
    void (*cancel)(struct store *s, struct store_request *req);
    void (*caps)(struct store *s, const char *bucket, struct store_caps *ret); /* see store_get_caps() */
    void (*destroy)(struct store *s); /* no request is under way; also destroys the layer below */
};

/* Implementations embed this as their first member. */
struct store {
    const struct store_ops *ops;
};

/* Checks the contract (verb's fields present, sizes in range), then hands req on. Aborts on a breach: it is a bug, not data. */
void store_submit(struct store *s, struct store_request *req);
void store_cancel(struct store *s, struct store_request *req);
/* What the server honours: found out in `bucket`, which blocks, by the first call that can, and then known for all buckets.
 * bucket NULL: what is known so far; never blocks. */
void store_get_caps(struct store *s, const char *bucket, struct store_caps *ret);
/* A list of capabilities' names (separated by commas, colons or spaces), or "none". False: *ret_unknown is the word that is no name (caller frees). */
bool store_caps_parse(const char *text, struct store_caps *ret, char **ret_unknown);
char *store_caps_print(const struct store_caps *caps); /* names after a space each; caller frees */
char *store_caps_names(void);                          /* all of them, "a, b and c"; caller frees */
void store_free(struct store *s); /* NULL is fine */
/* Ends a request in an implementation or decorator: checks exactly-once, then runs done. */
void store_complete(struct store_request *req);

/* The synchronous face: submits, waits, returns req->res.err. Overrides done and ctx. When `cancel` fires: cancels, waits for done, -EINTR. */
int store_run(struct store *s, struct store_request *req, struct cancel *cancel);
/* Whether a request failed since the bytes that arrived were not those that were meant. */
bool store_refused_digest(const struct store_result *res);

/* Frees what res holds and zeroes it; the request may then be reused. */
void store_request_clear(struct store_request *req);
void store_result_clear(struct store_result *res);
void store_result_move(struct store_result *to, struct store_result *from);
/* Sets err, cls, code (NULL = "") and detail (printf). */
void store_result_fail(struct store_result *res, int err, enum store_class cls, const char *code, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));

void store_headers_clear(struct store_headers *h);
void store_headers_copy(struct store_headers *to, const struct store_headers *from); /* to is overwritten, not freed; from NULL = empty */
void store_headers_set_meta(struct store_headers *h, const char *name, const char *value); /* value NULL removes */
const char *store_headers_get_meta(const struct store_headers *h, const char *name);      /* NULL if absent */
/* What a new version of an object of this class is to be stored as: NULL (the default) for STANDARD, and for the archives,
 * since what was just written must be readable. */
const char *store_class_kept(const char *storage_class);
bool store_tags_equal(GHashTable *a, GHashTable *b); /* NULL = none */
void store_object_clear(struct store_object *o);
void store_object_copy(struct store_object *to, const struct store_object *from);
struct store_entry *store_entry_new(const char *key);
void store_entry_free(struct store_entry *e);
struct store_part *store_part_new(unsigned number, uint64_t size, const char *etag);
void store_part_free(struct store_part *p);
const char *store_verb_name(enum store_verb v); /* "HEAD", "MPU_PART", … */
static inline bool store_verb_writes(enum store_verb v) /* changes the bucket */
{
    return v != STORE_HEAD && v != STORE_GET && v != STORE_LIST && v != STORE_BUCKETS && v != STORE_MPU_LIST_PARTS &&
           v != STORE_MPU_LIST && v != STORE_TAGS_GET;
}

#define _cleanup_request_ __attribute__((cleanup(store_request_clear)))
#define _cleanup_headers_ __attribute__((cleanup(store_headers_clear)))
#define _cleanup_object_ __attribute__((cleanup(store_object_clear)))
