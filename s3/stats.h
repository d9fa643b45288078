/* SPDX-License-Identifier: Apache-2.0
 *
 * stats: a decorator that counts, per verb, true requests, failures, bytes and latency. It lies
 * directly above the store that does the work, under retry, so that every attempt counts.
 */
#pragma once
#include "s3/store.h"

struct store_stats {
    uint64_t requests[STORE_VERB_COUNT], errors[STORE_VERB_COUNT];
    uint64_t bytes_in, bytes_out;
    uint64_t in_flight;
    uint64_t latency_ns; /* exponentially weighted mean from submit to done */
};

struct store *store_stats_new(struct store *below); /* owns below */
void store_stats_get(struct store *s, struct store_stats *ret); /* s from store_stats_new; never blocks long */
/* While quiet, a failure that the server explains is not logged: for a caller who says it himself. */
void store_stats_set_quiet(struct store *s, bool quiet);
