/* SPDX-License-Identifier: Apache-2.0
 *
 * retry: a decorator that repeats what may be repeated. Full-jitter exponential backoff
 * (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog 2015), Retry-After honoured,
 * until the deadline. A GET that broke after k bytes resumes at byte k under If-Match of the first
 * reply's ETag. Only STORE_CLASS_RETRY is repeated; a conditional write with unknown outcome
 * comes back AMBIGUOUS at once.
 */
#pragma once
#include "s3/store.h"

struct store_retry_params {
    uint64_t op_timeout_ns; /* deadline for requests that name none; 0 = 120 s. Past it: -ETIMEDOUT (or the last error when there is one) */
    uint64_t base_ns;       /* first backoff's upper bound; 0 = 50 ms */
    uint64_t cap_ns;        /* largest backoff; 0 = 5 s */
    uint64_t seed;          /* of the jitter; 0 = random */
    /* Tests: sees each wait that was decided on and may shorten it. NULL = none. On any thread, no lock held. */
    void (*backoff)(void *ctx, const struct store_request *req, uint64_t *delay_ns);
    void *ctx;
};

/* Owns `below`. Never fails but by abort on out of memory; -errno when its timer thread cannot start (then below is not owned). */
int store_retry_new(struct store *below, const struct store_retry_params *p, struct store **ret);
