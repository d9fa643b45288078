/* SPDX-License-Identifier: Apache-2.0
 *
 * fake_store: a store in memory for the tests of the layers above: objects with bytes, ETag and
 * headers; every request ends on the store's own thread, in an order that a seeded generator
 * chooses among those that wait. Conditions (if_match, if_none_match, from_if_match) hold on every
 * verb. Checksums are looked at as strictly as any server does: a wrong one, one missing or one too many
 * where an upload was created with_checksums or not, is refused. A hook sees each request before it runs and may fail, hold or drop bytes of it.
 *
 * Buckets need not be created; LIST knows prefix, delimiter, start_after, token and max_keys;
 * TAGS_*, BUCKETS and BUCKET_* are minimal. GET fills res.object before it delivers the body.
 */
#pragma once
#include "s3/store.h"

struct fake_store;

/* What a hook decides. */
enum fake_action {
    FAKE_GO,         /* run it */
    FAKE_FAIL,       /* do not run it; the hook has filled req->res (store_result_fail) */
    FAKE_FAIL_AFTER, /* run it, then replace the result by what the hook has put in req->res */
    FAKE_HOLD,       /* keep it under way until fake_store_release() or store_cancel() */
};

struct fake_params {
    uint64_t seed;
    struct store_caps *caps; /* NULL = all true but list_meta. A checksum that they do not allow is an error */
    /* Called on the store's thread, no lock held, once per request (held ones are not shown again).
     * For a GET it may set *cut to the number of body bytes after which the connection breaks:
     * the result is then -EIO, RETRY, with res.object filled. */
    enum fake_action (*hook)(void *ctx, struct store_request *req, uint64_t *cut);
    void *ctx;
    size_t chunk; /* largest piece handed to a sink; 0 = random up to 64 KiB */
};

struct store *fake_store_new(const struct fake_params *p);
/* Below: s is what fake_store_new() returned (not a decorator above it). Thread-safe. */

/* Stores bytes under a new ETag, which it returns (the caller frees). */
char *fake_store_put(struct store *s, const char *bucket, const char *key, const void *bytes,
                     size_t n);
void fake_store_delete(struct store *s, const char *bucket, const char *key);
/* A copy of the object's bytes and, if wanted, its attributes (the caller clears); NULL if absent.
 */
GBytes *fake_store_get(struct store *s, const char *bucket, const char *key,
                       struct store_object *ret_object);
size_t
fake_store_uploads(struct store *s); /* multipart uploads that are neither complete nor aborted */

/* Makes them older. */
void fake_store_age_uploads(struct store *s, uint64_t ns);
/* By so much its clock is ahead of ours from now on; and whether MPU_LIST tells it. */
void fake_store_set_clock(struct store *s, int64_t ahead_ns, bool tells);

/* Lets every held request run (it does not pass the hook again). */
void fake_store_release(struct store *s);
/* Waits until no request is under way (held ones are). */
void fake_store_wait_idle(struct store *s);
/* Waits until n requests are held. */
void fake_store_wait_held(struct store *s, unsigned n);
/* Requests submitted so far. */
uint64_t fake_store_count(struct store *s, enum store_verb verb);
