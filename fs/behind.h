/* SPDX-License-Identifier: Apache-2.0
 *
 * behind: operations that must run to their end once begun, for callers that may stop waiting.
 */
#pragma once

struct cancel;
struct workq;

/* Runs fn(arg) on q and waits for it: its result. When cancel fires, returns -EINTR at once and fn goes on; so fn may only use what arg owns.
 * drop(arg) is called when nobody needs it any more: after fn, on either thread. */
int behind_run(struct workq *q, int (*fn)(void *arg), void (*drop)(void *arg), void *arg, struct cancel *cancel);
