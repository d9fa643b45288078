/* SPDX-License-Identifier: Apache-2.0
 *
 * draft: what an open file has that no close or fsync has sealed is recorded in the journal now and
 * then, so that a kill loses little of it: the next mount offers it to the user (recovered.h). A file
 * that is written and closed within a second costs nothing; drafts of all files together take a
 * twentieth of one thread's time at most, so the more there is to say, the rarer it is said.
 */
#pragma once
#include <stdint.h>

struct cache_file;
struct drafter;

/* pause_ns: from the first write after a draft to the next draft; 0 = 1 s. Starts a thread. 0 or -errno. */
int drafter_new(uint64_t pause_ns, struct drafter **ret);
/* Joins the thread. No file is left. NULL is fine. */
void drafter_free(struct drafter *d);

/* The file's content changed. Does not block. */
void draft_want_locked(struct cache_file *f);
/* The file's last user is gone: no draft begins any more. */
void draft_cancel_locked(struct cache_file *f);
