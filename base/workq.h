/* SPDX-License-Identifier: Apache-2.0
 *
 * workq: a queue of jobs and the threads that run them, first come first served. Threads start when
 * needed, up to max_threads, and stay. Jobs may block and may push further jobs.
 */
#pragma once

struct workq;

/* name: thread name, at most 15 bytes. 0 or -errno. */
int workq_new(const char *name, unsigned max_threads, struct workq **ret);
/* Runs what is queued (also what those jobs push), then joins the threads. */
void workq_free(struct workq *q);
/* Never blocks; aborts on out of memory like GLib. */
void workq_push(struct workq *q, void (*fn)(void *arg), void *arg);
