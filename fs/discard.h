/* SPDX-License-Identifier: Apache-2.0
 *
 * discard: gives up what was written to a file and is not in the bucket.
 */
#pragma once
#include <stdio.h>

#include "fs/fs.h"

/* path: below the mount point. The name is looked up anew afterwards: it is what the bucket has, if anything. Handles of the file get
 * ESTALE. Writes a line that says what was done, or one that begins with DRAIN_FAILED (fs/drain.h) and says why not. 0, also when there
 * was nothing to discard, or -errno. Waits for a commit under way. */
int discard_run(struct fs *fs, const char *path, FILE *out);
