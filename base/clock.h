/* SPDX-License-Identifier: Apache-2.0
 *
 * clock: times as nanoseconds in 64 bits. "mono" is CLOCK_MONOTONIC (deadlines, latencies), "real"
 * is CLOCK_REALTIME since the epoch (what files carry). Never fails; only clock_sleep() blocks.
 */
#pragma once
#include <stdint.h>
#include <time.h>

#define NSEC_PER_SEC 1000000000ULL
#define NSEC_PER_MSEC 1000000ULL

uint64_t clock_mono_ns(void);
int64_t clock_real_ns(void);
/* Blocks for that long, whatever signals arrive. For who asks another process again and again; within one, wait for a condition. */
void clock_sleep(uint64_t ns);
struct timespec clock_timespec(int64_t ns);
int64_t clock_from_timespec(struct timespec ts);
