/* SPDX-License-Identifier: Apache-2.0
 *
 * clock: see clock.h. No state, no threads, no locks.
 */
#include "base/clock.h"

#include <errno.h>

uint64_t clock_mono_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
}

int64_t clock_real_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return clock_from_timespec(ts);
}

void clock_sleep(uint64_t ns)
{
    struct timespec rest = {.tv_sec = (time_t)(ns / NSEC_PER_SEC), .tv_nsec = (long)(ns % NSEC_PER_SEC)};
    while (clock_nanosleep(CLOCK_MONOTONIC, 0, &rest, &rest) == EINTR)
        ;
}

struct timespec clock_timespec(int64_t ns)
{
    int64_t sec = ns / (int64_t)NSEC_PER_SEC, rest = ns % (int64_t)NSEC_PER_SEC;
    if (rest < 0) { /* before the epoch: tv_nsec stays positive */
        sec--;
        rest += (int64_t)NSEC_PER_SEC;
    }
    return (struct timespec){.tv_sec = (time_t)sec, .tv_nsec = (long)rest};
}

int64_t clock_from_timespec(struct timespec ts)
{
    int64_t ns;
    /* Times come from users (utimensat): saturate rather than overflow. */
    if (__builtin_mul_overflow((int64_t)ts.tv_sec, (int64_t)NSEC_PER_SEC, &ns) ||
        __builtin_add_overflow(ns, (int64_t)ts.tv_nsec, &ns))
        return ts.tv_sec < 0 ? INT64_MIN : INT64_MAX;
    return ns;
}
