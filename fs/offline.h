/* SPDX-License-Identifier: Apache-2.0
 *
 * offline: `mlopsfs sync s3://BUCKET`: brings into the bucket what mounts that have ended left, without a mount.
 */
#pragma once

struct config;

/* Adopts every journal of the configured bucket that no mount holds, and tries to commit each file once. line() gets progress, and
 * then a line for each file that failed: DRAIN_FAILED (fs/drain.h), its name in the bucket, and why. What is not in the bucket stays where
 * it was. Returns an exit code of fs/mount.h: 0 when nothing is left; blocks on the server. One thread: nothing else of the file system
 * runs in this process. */
int offline_sync(const struct config *c, void (*line)(void *ctx, const char *text), void *ctx);
/* Waits for what other processes have sealed by now, mounts that are ending or that are not ours, until it is in the bucket or given up.
 * Then says what is left of ended ones. line() and the exit code as above. */
int offline_wait(const struct config *c, void (*line)(void *ctx, const char *text), void *ctx);
/* Before a mount: umount(8) returns before the daemon has ended, which may yet be bringing there what was closed, and what the new mount shows
 * is the bucket. Waits for what other processes have sealed by now, but not longer than 5 s: they may be mounts that go on. */
void offline_settle(const struct config *c);
