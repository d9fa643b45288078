/* SPDX-License-Identifier: Apache-2.0
 *
 * conflict: what becomes of a commit that met someone else's version: cache_params.on_conflict.
 */
#pragma once
#include "cache/commit.h"

/* One for each commit, across its repetitions. */
struct conflict {
    unsigned tries, names; /* so often it was tried again; so many names beside */
    /* Where the file goes unless it is stored beside it; key NULL: it still goes there. */
    char *key, *expect;
    bool moved;
    bool reverted;
};

/* The commit has come to -ESTALE. 0: the file has another expectation or target, and is to be committed again; -ESTALE: nothing can be
 * done about it (its own bytes of the version that is gone are needed, say); else what kept us from looking. Blocks on the network. */
int conflict_resolve(struct commit *c, struct conflict *k);
/* The commit has failed: the file goes where it went. */
void conflict_revert_locked(struct cache_file *f, struct conflict *k);
/* After that: says so, and has the journal know. With -ESTALE theirs stays, and ours could not be stored beside it; it stays
 * staged. Disk. */
void conflict_failed(struct commit *c, struct conflict *k, int err);
/* It has succeeded, before committed(): tells whoever must know when it was stored beside. */
void conflict_tell(struct commit *c, struct conflict *k);
/* k is at its end: frees what it holds. */
void conflict_clear(struct conflict *k);

/* The key of the n-th try (from 0) to store key beside itself: "name (conflict 2026-11-23 14-05-09).ext", local time. g_free. */
char *conflict_key(const char *key, int64_t real_ns, unsigned n);
