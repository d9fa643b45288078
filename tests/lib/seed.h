/* SPDX-License-Identifier: Apache-2.0
 *
 * seed: where randomized tests get their seed: MLOPSFS_SEED, else a new one; printed either way.
 */
#pragma once
#include <stdint.h>

uint64_t test_seed(void);
/* xorshift64*; *state must not be 0. */
uint64_t test_random(uint64_t *state);
