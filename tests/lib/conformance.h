/* SPDX-License-Identifier: Apache-2.0
 *
 * conformance: one suite for every store. A case is a function that talks to the store and records
 * at most one failure: the first thing that was not as S3 has it. The harness (conformance.c)
 * compares that with the table of known deviations (conformance_deviations.c): a deviation
 * that is not in the table fails, and so does a row whose deviation has vanished.
 *
 * Cases share one fresh bucket and use keys under their own name, so that any of them runs alone.
 */
#pragma once
#include <errno.h>
#include <glib.h>
#include <stdio.h>
#include <string.h>

#include "s3/store.h"

#define MIB (1ULL << 20)

struct conf_endpoint {
    const char *url, *region, *access_key, *secret_key;
};

struct conf {
    struct store *store;
    const char *server; /* local, minio, versitygw, other */
    char *bucket;
    struct store_caps caps;
    struct conf_endpoint endpoint; /* url NULL: not over the network */
    const char *name;              /* of the case that runs */
    char *failure;                 /* what it found; NULL = nothing */
};

struct conf_case {
    const char *name; /* "theme/what" */
    void (*run)(struct conf *c, const void *arg);
    const void *arg;
    bool network; /* only for stores with an endpoint */
};

/* One list of cases per file; the names are built once and live on. */
void conf_add(GArray *cases, const char *name, void (*run)(struct conf *c, const void *arg),
              const void *arg);
void conf_add_network(GArray *cases, const char *name,
                      void (*run)(struct conf *c, const void *arg));
void conf_objects_cases(GArray *cases);
void conf_keys_cases(GArray *cases);
void conf_conditions_cases(GArray *cases);
void conf_multipart_cases(GArray *cases);
void conf_copy_cases(GArray *cases);
void conf_list_cases(GArray *cases);
void conf_delete_cases(GArray *cases);
void conf_kept_cases(GArray *cases);
void conf_async_cases(GArray *cases);
void conf_endpoint_cases(GArray *cases);
void conf_checksums_cases(GArray *cases);

/* What a server is known to do otherwise. */
struct conf_deviation {
    const char *server, *name;
    const char *found; /* a piece of the failure's text */
    bool sometimes;    /* a race within the server: now and then it does it right */
};
const struct conf_deviation *conf_deviation(const char *server, const char *name); /* NULL: none */
/* Rows of the table that name a case that is not there are a mistake. */
bool conf_deviation_rows_exist(GArray *cases);

/* Fills store, server and endpoint with what the environment names; else a local store in the path.
 */
int conf_store_open(struct conf *c, const char *local_path);
/* Another store on an endpoint, with other keys (NULL access_key: anonymous). */
struct store *conf_store_on(const struct conf_endpoint *e);

/* Records a failure unless one is there; returns false. */
bool conf_fail(struct conf *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define EXPECT(c, cond, ...)                                                                       \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            conf_fail(c, __VA_ARGS__);                                                             \
            return;                                                                                \
        }                                                                                          \
    } while (0)
/* For helpers that record the failure themselves. */
#define TRY(expr)                                                                                  \
    do {                                                                                           \
        if (!(expr))                                                                               \
            return;                                                                                \
    } while (0)

#define REQUEST(name, ...) _cleanup_request_ struct store_request name = {__VA_ARGS__}

/* Runs it in the suite's bucket unless it names one. */
int conf_run(struct conf *c, struct store_request *req);
/* Runs it: it must end with this errno and class. */
bool conf_expect(struct conf *c, struct store_request *req, int err, enum store_class cls);
bool conf_ok(struct conf *c, struct store_request *req);
/* Like conf_expect, and the S3 code must be this one. */
bool conf_expect_code(struct conf *c, struct store_request *req, int err, enum store_class cls,
                      const char *code);
/* "CASE/suffix": a key of this case's own. Freed by the caller. */
char *conf_key(struct conf *c, const char *suffix);

/* Bytes that depend on the seed and their place. */
void conf_pattern_fill(uint64_t seed, uint64_t off, void *buf, size_t n);
GBytes *conf_pattern(uint64_t seed, size_t n);
char *conf_md5(GBytes *b);

struct conf_memory {
    const guint8 *data;
    size_t n;
};
struct store_source conf_source(struct conf_memory *m, const void *data,
                                size_t n); /* m lives as long */

struct conf_pattern_source {
    uint64_t seed;
};
struct store_source conf_source_pattern(struct conf_pattern_source *p, uint64_t seed, uint64_t n);

/* A sink that keeps the bytes and checks the order in which they come. */
struct conf_sink {
    GByteArray *bytes;
    uint64_t next; /* the offset that must come; set to range.off */
    bool disorder;
};
struct store_sink conf_sink(struct conf_sink *s, uint64_t off);
void conf_sink_clear(struct conf_sink *s);
#define _cleanup_sink_ __attribute__((cleanup(conf_sink_clear)))

bool conf_put(struct conf *c, const char *key, const void *data, size_t n, char **ret_etag);
bool conf_put_text(struct conf *c, const char *key, const char *text);
bool conf_is(struct conf *c, const char *key, const void *data, size_t n);
bool conf_is_text(struct conf *c, const char *key, const char *text);
bool conf_is_bytes(struct conf *c, const char *key, GBytes *b);
bool conf_absent(struct conf *c, const char *key);
bool conf_etag(struct conf *c, const char *key, char **ret);
bool conf_delete(struct conf *c, const char *key);

bool conf_mpu_create(struct conf *c, const char *key, char **ret_id);
bool conf_mpu_part(struct conf *c, const char *key, const char *id, unsigned number, GBytes *b,
                   struct store_part *ret);
bool conf_mpu_complete(struct conf *c, const char *key, const char *id, struct store_part *parts,
                       size_t n, char **ret_etag);
bool conf_mpu_abort(struct conf *c, const char *key, const char *id);

/* All pages of a listing, as text: keys, and common prefixes with a '*' behind. */
bool conf_list(struct conf *c, const struct store_request *like, GPtrArray **ret);
/* The listing is exactly these lines (one string, '\n' between), below the case's own prefix. */
bool conf_list_is(struct conf *c, const struct store_request *like, const char *strip,
                  const char *expected);

/* A bucket of the case's own; conf_bucket_remove() empties it. */
char *conf_bucket_new(struct conf *c);
void conf_bucket_remove(struct conf *c, const char *bucket);
char *conf_bucket_name(void);

/* Many requests at once: submit, then wait for all. */
struct conf_batch;
struct conf_batch *conf_batch_new(struct conf *c, size_t n);
struct store_request *conf_batch_get(struct conf_batch *b, size_t i);
/* The requests' done and ctx are the batch's. At most `width` under way at once. */
void conf_batch_run(struct conf_batch *b, size_t width);
/* How often request i's done ran. */
unsigned conf_batch_done(struct conf_batch *b, size_t i);
void conf_batch_free(struct conf_batch *b);

char *conf_show(const char *key); /* printable */
