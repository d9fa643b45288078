/* SPDX-License-Identifier: Apache-2.0
 *
 * gate: a counter that threads of a test wait for.
 */
#pragma once
#include "base/mutex.h"

struct gate {
    struct mutex lock;
    struct cond changed;
    unsigned n; /* lock */
};

void gate_init(struct gate *g);
void gate_fini(struct gate *g);
void gate_add(struct gate *g);
void gate_wait(struct gate *g, unsigned n); /* until it has been added to n times */
