/* SPDX-License-Identifier: Apache-2.0
 *
 * outcome: what became of the requests that make an object appear. An attempt is one such request
 * with what it carried; it stays with its file while its outcome is unknown, however many commits
 * fail meanwhile. An object that turns up with the UUID and size of an attempt is our own, and is
 * installed as if that commit had succeeded then.
 */
#pragma once
#include "cache/commit.h"

/* So often a request whose outcome is unknown is made. */
#define OUTCOME_ATTEMPTS 6

/* Looks whether an earlier attempt was successful after all. 0: no; 1: yes, c is that commit now;
 * else -errno, also (with stream_lost) when the stream was tried as another content. */
int outcome_settle_earlier(struct commit *c);
/* Before a request that is the i-th (from 0): waits when it repeats one, and asks whether the key is as
 * expected unless the server surely looks itself. 0, 1 (c has succeeded), -ESTALE or -errno. */
int outcome_ready(struct commit *c, unsigned i, bool server_looks);
/* The request is about to be made: it carries this UUID and these headers. */
void outcome_begin(struct commit *c, const char *uuid, const struct store_headers *headers);
/* How it ended. 0: the object is there; -EAGAIN: to be made again; else -errno. */
int outcome_end(struct commit *c, const struct store_request *req);
/* The commit has ended with r: forgets an attempt that surely had no effect. */
void outcome_close(struct commit *c, int r);

/* The file has an attempt of unknown outcome with that UUID. */
bool outcome_open_locked(const struct cache_file *f, const char *uuid);
/* An earlier process made it, and may not have learnt how it ended. Attempts are restored in their order. */
struct journal_attempt;
void outcome_restore_locked(struct cache_file *f, const struct journal_attempt *from);
/* What may yet turn out to have become the object, for the journal: struct journal_attempt*. Caller unrefs. */
GPtrArray *outcome_attempts_locked(const struct cache_file *f);
/* All are known to be history. */
void outcome_forget_locked(struct cache_file *f);
