/* SPDX-License-Identifier: Apache-2.0
 *
 * timerq: one thread that calls functions at their time. Entries are embedded in the caller's
 * struct; the queue does not touch an entry before timerq_add() nor after its fn was called or
 * timerq_remove() returned true.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct timerq;

struct timer {
    void (*fn)(void *arg); /* on the queue's thread, no lock held; must not block for long */
    void *arg;
    uint64_t due_ns; /* private: mono */
    size_t pos;      /* private: 1-based place in the heap, 0 = not queued */
};

/* name: thread name, at most 15 bytes. 0 or -errno. */
int timerq_new(const char *name, struct timerq **ret);
void timerq_free(struct timerq *q); /* nothing is queued; joins the thread */
/* Calls t->fn once, at due_ns (mono; past = at once) or a little later. t must not be queued.
 * Never blocks. */
void timerq_add(struct timerq *q, struct timer *t, uint64_t due_ns);
/* True: t was queued, now is not, and its fn will not be called for it. False: it was not queued;
 * its fn may be running or about to. Never blocks. */
bool timerq_remove(struct timerq *q, struct timer *t);
