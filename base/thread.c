/* SPDX-License-Identifier: Apache-2.0
 *
 * thread: see thread.h. No state, no locks.
 */
#include "base/thread.h"

#include <assert.h>
#include <signal.h>
#include <string.h>

int thread_start(pthread_t *ret, const char *name, void *(*fn)(void *arg), void *arg)
{
    assert(strlen(name) <= 15);
    sigset_t all, old;
    sigfillset(&all);
    int r = pthread_sigmask(SIG_SETMASK, &all, &old); /* the new thread inherits it */
    if (r)
        return -r;
    r = pthread_create(ret, NULL, fn, arg);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (r)
        return -r;
    pthread_setname_np(*ret, name); /* for ps and gdb only: may fail */
    return 0;
}
