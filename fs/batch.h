/* SPDX-License-Identifier: Apache-2.0
 *
 * batch: several store requests at once, synchronously.
 */
#pragma once
#include <stddef.h>

#include "s3/store.h"

struct cancel;

/* Submits reqs[0..n), at most `parallel` at a time, and waits for all. Overrides done and ctx. Each result is in its request. With
 * stop_on_error nothing more is submitted after the first failure; what was not submitted then has res.err -ECANCELED. When cancel fires,
 * what is under way is cancelled. 0, or the first error in order of completion; -EINTR. */
int batch_run(struct store *s, struct store_request *reqs, size_t n, unsigned parallel, bool stop_on_error, struct cancel *cancel);
