/* SPDX-License-Identifier: Apache-2.0
 *
 * fault: a decorator for tests that makes requests fail as servers and networks do: a timeout,
 * a reset before or (for writes) after the server acted, 500, 503 with Retry-After, and a GET body cut or
 * reset in the middle. Only when it is named: flip, a bit of the body of a PUT or MPU_PART changed on its way. It reports exactly what store_s3 would for that fault (errno, class, AMBIGUOUS
 * for conditional writes). Configured by text, also from the mount option `fault` in debug use:
 *     "rate=0.05,seed=42[,verbs=GET+PUT][,kinds=timeout+reset+500+503+cut+flip][,delay_ms=30]"
 */
#pragma once
#include "s3/store.h"

/* 0; -EINVAL (logged) for a spec that does not parse. Owns below on success. */
int store_fault_new(struct store *below, const char *spec, struct store **ret);
/* Faults injected so far. */
uint64_t store_fault_count(struct store *s);
