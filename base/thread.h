/* SPDX-License-Identifier: Apache-2.0
 *
 * thread: starting a thread of ours: named, with every signal blocked, so that signals reach the
 * main loop alone.
 */
#pragma once
#include <pthread.h>

/* name: at most 15 bytes. 0 or -errno. The caller joins. */
int thread_start(pthread_t *ret, const char *name, void *(*fn)(void *arg), void *arg);
