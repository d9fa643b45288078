/* SPDX-License-Identifier: Apache-2.0
 *
 * s3_op: what the parts of store_s3 share. Private to s3/store_s3.c, s3_request.c, s3_reply.c,
 * s3_parse.c, s3_date.c, s3_caps.c, s3_probe.c and s3_trial.c.
 *
 * An s3_op is one request on its way: one HTTP exchange after the other until the request is done
 * (pages of a listing, a bucket found in another region, a corrected clock). It is touched by the
 * engine's thread alone, but for `cancelled`.
 */
#pragma once
#include "base/mutex.h"
#include "s3/credentials.h"
#include "s3/errors.h"
#include "s3/http.h"
#include "s3/sigv4.h"
#include "s3/store_s3.h"

struct s3 {
    struct store store;
    struct http *http;

    /* fixed at open */
    char *scheme; /* "http" or "https" */
    char *host;   /* with the port where it is not the scheme's own; NULL = s3.REGION + suffix */
    char *aws_suffix; /* ".amazonaws.com": regional hosts are made of it; else NULL */
    char *region;
    enum s3_addressing addressing;
    bool on_aws;
    struct s3_credentials credentials;
    char *probe_prefix;

    /* engine thread */
    GHashTable *regions; /* bucket → region, where it is not the default */
    int64_t skew_s;      /* the server's clock minus ours */
    struct sigv4_key key;

    struct mutex
        lock; /* requests' `layer` and ops' `cancelled`, against cancel racing completion */

    struct mutex caps_lock;
    struct cond caps_changed;
    bool caps_known, caps_probing; /* caps_lock, as caps */
    struct store_caps caps;
    struct workq *caps_jobs; /* made and used by the one that probes; NULL before */
    GHashTable *caps_limited; /* caps_lock: bucket → struct store_caps, where it could not be tried */
};

struct s3_op {
    struct http_exchange x; /* first */
    struct s3 *s3;
    struct store_request *req;
    bool conditional; /* a write whose repetition is not harmless: see s3/errors.h */
    bool cancelled;   /* s3->lock */

    bool moved, clock_set; /* has followed a region, has corrected the clock */
    bool classless;        /* the server does not know the storage class: it is left out */
    char *region;          /* what the exchange was signed for */
    const char *why;       /* a sentence for x.reply.err, from prepare or begin; static */
    enum store_class why_cls;
    struct store_checksum checksum; /* sent with the body */
    char *marker, *upload_marker;   /* where the next page begins; NULL = first */
    GPtrArray
        *single; /* DELETE_MANY: keys that XML cannot hold (the request's), deleted one by one */
    guint next_single; /* the one that the exchange deletes, plus 1; 0 = the exchange is the POST */
};

/* s3_request.c: http_hooks.prepare. */
int s3_request_prepare(struct http_exchange *x);

/* s3_reply.c: http_hooks.begin. */
int s3_reply_begin(struct http_exchange *x);
/* Digests the reply into req->res. True when the op needs another exchange. */
bool s3_reply_digest(struct s3_op *op);

/* Notes a key that DELETE_MANY could not delete; the first one's error becomes the request's. */
void s3_deleted_failed(struct s3_op *op, const char *key, int status, const char *code,
                       const char *message);

/* s3_parse.c: replies' bodies. 0 or -EBADMSG. */
struct s3_error {
    char code[48], message[96], region[64];
};
/* False when the body is no <Error> document. */
bool s3_parse_error(const GString *body, struct s3_error *ret);
int s3_parse_list(struct s3_op *op, const GString *body);
int s3_parse_buckets(struct s3_op *op, const GString *body);
/* *ret_more: there is another page, from op->marker (and upload_marker) on. */
int s3_parse_uploads(struct s3_op *op, const GString *body, bool *ret_more);
int s3_parse_parts(struct s3_op *op, const GString *body, bool *ret_more);
int s3_parse_upload_id(struct s3_op *op, const GString *body);
int s3_parse_etag(struct s3_op *op, const GString *body); /* of COPY, MPU_COPY_PART, MPU_COMPLETE */
/* MPU_COPY_PART: the part's CRC32C, where the reply has one. */
void s3_parse_copied_checksum(struct s3_op *op, const GString *body);
int s3_parse_tags(struct s3_op *op, const GString *body);
int s3_parse_deleted(struct s3_op *op, const GString *body);
char *s3_unquote_etag(const char *etag);
int64_t s3_parse_iso8601(const char *s); /* ns since the epoch; 0 when it does not parse */

/* s3_date.c: store_object.settled, of an object with that Last-Modified in this reply. */
bool s3_date_settled(const struct http_reply *r, int64_t mtime_ns);
/* The server's clock, as the reply tells it. */
void s3_date_clock(const struct http_reply *r, struct store_result *res);

/* s3_probe.c: tries out what the server honours, on objects of its own in the bucket. Blocks on the network, not under a lock; what it has
 * put is removed by jobs that go on after it. */
enum s3_probed { S3_PROBED, S3_PROBED_BUCKET, S3_PROBED_NOTHING }; /* for whom the answer may be kept */
struct workq;
enum s3_probed s3_probe(struct s3 *s3, struct workq *jobs, const char *bucket, struct store_caps *ret);

/* s3_caps.c: store_ops.caps. */
void s3_caps_get(struct store *s, const char *bucket, struct store_caps *ret);
