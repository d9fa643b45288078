/* SPDX-License-Identifier: Apache-2.0
 *
 * mount: one mounted file system from birth to death: builds the stack (store, catalog, cache,
 * namespace, FUSE session) in order, serves, and takes it down in reverse order.
 */
#pragma once
#include "fs/config.h"

/* Mounts and serves until unmounted or SIGTERM/SIGINT/SIGHUP. Unless c->foreground: forks; the parent returns 0 only when the
 * mount answers requests, or the child's exit code after it has printed why. The process must have no threads yet.
 * Returns an exit code: 0; 1 usage or configuration; 2 credentials or permission; 3 bucket or endpoint; 4 mount point; 5 other. */
int mount_run(struct config *c);
/* Whether path is a mount point of ours: 1; of ours but its daemon is dead (ENOTCONN): 2; not: 0; -errno. path is absolute. */
int mount_state(const char *path);
