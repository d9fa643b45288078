/* SPDX-License-Identifier: Apache-2.0
 *
 * mutex: pthread mutexes that know their rank. The design's order of locks is
 *     namespace → inode → handle → block shard → commit queue → catalog → engine queue → leaf
 * A thread takes locks in rising rank only; debug builds (without NDEBUG) keep the ranks that each
 * thread holds and abort on an inversion or on taking the same rank twice. Condition variables are
 * made on CLOCK_MONOTONIC. GLib's own locks are not used: ThreadSanitizer cannot see them.
 */
#pragma once
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

enum mutex_rank {
    RANK_NAMESPACE = 10,
    RANK_INODE = 20,
    RANK_FILE = 30,   /* cache: one file's dirty state */
    RANK_READER = 35, /* cache: one handle's cursors */
    RANK_BLOCK = 40,
    RANK_COMMIT = 50,
    RANK_CATALOG = 60,
    RANK_ENGINE = 70,
    RANK_LEAF = 80, /* takes no other lock while held: budgets, queues, counters */
};

struct mutex {
    pthread_mutex_t m;
    enum mutex_rank rank;
};

void mutex_init(struct mutex *m, enum mutex_rank rank);
void mutex_fini(struct mutex *m);
void mutex_lock(struct mutex *m);
void mutex_unlock(struct mutex *m);
/* Debug builds abort unless this thread holds m. */
void mutex_assert_held(const struct mutex *m);

struct cond {
    pthread_cond_t c;
};

void cond_init(struct cond *c);
void cond_fini(struct cond *c);
void cond_wait(struct cond *c, struct mutex *m);
/* True when signalled (or spuriously woken), false when mono_deadline_ns has passed. 0 = no deadline. */
bool cond_wait_until(struct cond *c, struct mutex *m, uint64_t mono_deadline_ns);
void cond_signal(struct cond *c);
void cond_broadcast(struct cond *c);
