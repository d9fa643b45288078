/* SPDX-License-Identifier: Apache-2.0
 *
 * seed: see seed.h. No state.
 */
#include "tests/lib/seed.h"

#include <glib.h>
#include <stdlib.h>

uint64_t test_seed(void)
{
    const char *text = g_getenv("MLOPSFS_SEED");
    uint64_t seed = text ? strtoull(text, NULL, 10) : g_random_int();
    seed = seed ? seed : 1;
    g_test_message("MLOPSFS_SEED=%" G_GUINT64_FORMAT, seed);
    return seed;
}

uint64_t test_random(uint64_t *state)
{
    uint64_t x = *state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return x * 0x2545F4914F6CDD1DULL;
}
