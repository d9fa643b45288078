/* SPDX-License-Identifier: Apache-2.0
 *
 * retry: a decorator that repeats what may be repeated. Full-jitter exponential backoff
 * (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog 2015), Retry-After honoured,
 * until the deadline. A GET that broke after k bytes resumes at byte k under If-Match of the first
 * reply's ETag. Only STORE_CLASS_RETRY is repeated; a conditional write with unknown outcome
 * comes back AMBIGUOUS at once.
 * A body that arrived damaged (store_refused_digest) is sent four times, and then given up with -EIO; so is what a server says is a
 * directory (-EISDIR, then FATAL): servers that keep objects as files say so while another request for the key is at work.
 *
 * A request's own deadline holds as it is. One without ends with -ETIMEDOUT (or the last error when
 * there is one)
 *  - after op_timeout; or, when it carries a body (PUT, MPU_PART, GET), as soon as no byte of it has
 *    moved for op_timeout, and at the latest after op_timeout and what the body takes at 64 KiB/s
 *    (a GET to an unknown end: as for 5 GiB);
 *  - COPY, MPU_COPY_PART, MPU_COMPLETE, where a server may work in silence, after op_timeout and ten
 *    minutes; they are not repeated once op_timeout has passed between their attempts.
 */
#pragma once
#include "s3/store.h"

struct store_retry_params {
    uint64_t op_timeout_ns; /* 0 = 120 s; see below */
    uint64_t base_ns;       /* first backoff's upper bound; 0 = 50 ms */
    uint64_t cap_ns;        /* largest backoff; 0 = 5 s */
    uint64_t seed;          /* of the jitter; 0 = random */
    /* Tests: sees each wait that was decided on and may shorten it. NULL = none. On any thread, no lock held. */
    void (*backoff)(void *ctx, const struct store_request *req, uint64_t *delay_ns);
    void *ctx;
};

/* Owns `below`. Never fails but by abort on out of memory; -errno when its timer thread cannot start (then below is not owned). */
int store_retry_new(struct store *below, const struct store_retry_params *p, struct store **ret);
