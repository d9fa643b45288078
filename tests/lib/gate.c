/* SPDX-License-Identifier: Apache-2.0
 *
 * gate: see gate.h.
 */
#include "tests/lib/gate.h"

void gate_init(struct gate *g)
{
    mutex_init(&g->lock, RANK_LEAF);
    cond_init(&g->changed);
    g->n = 0;
}

void gate_fini(struct gate *g)
{
    cond_fini(&g->changed);
    mutex_fini(&g->lock);
}

void gate_add(struct gate *g)
{
    mutex_lock(&g->lock);
    g->n++;
    cond_broadcast(&g->changed);
    mutex_unlock(&g->lock);
}

void gate_wait(struct gate *g, unsigned n)
{
    mutex_lock(&g->lock);
    while (g->n < n)
        cond_wait(&g->changed, &g->lock);
    mutex_unlock(&g->lock);
}
