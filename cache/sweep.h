/* SPDX-License-Identifier: Apache-2.0
 *
 * sweep: ends multipart uploads of ours that belong to nothing: those whose id is known, and those
 * whose creation was never answered, which are looked for (journal.h: lost intents). In the
 * background, on a thread of its own, again and again until the server has answered; what is left
 * when the mount ends is the next one's.
 */
#pragma once

struct cache;
struct journal;
struct sweep;

int sweep_new(struct cache *c, struct sweep **ret); /* -errno */
/* Nothing is asked for any more. Does first what was asked for and not tried yet; blocks on the network for that. NULL is fine. */
void sweep_free(struct sweep *s);
/* Ends this upload, and then its record in the journal, or (uuid not NULL) its intent's. Never blocks. */
void sweep_upload(struct sweep *s, struct journal *j, const char *bucket, const char *key, const char *id, const char *uuid);
/* There are lost intents: looks for what they have left; never blocks. Soon, or after sweep_upload_ended(). */
void sweep_lost(struct sweep *s);
void sweep_lost_later(struct sweep *s);
void sweep_upload_ended(struct sweep *s);
