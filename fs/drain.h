/* SPDX-License-Identifier: Apache-2.0
 *
 * drain: brings what is uncommitted into the bucket, with progress for people.
 */
#pragma once
#include <stdbool.h>
#include <stdio.h>

#include "fs/fs.h"

#define DRAIN_FAILED "failed " /* no line of progress begins so */

/* Commits every uncommitted file below the path `below` ("" = all), or with closed_only those that nobody has open (what an open file's
 * writer has not closed is not ours to publish). Writes progress lines, then a line for each file that failed: DRAIN_FAILED, its path
 * with the mount point, and what happened and what helps. 0 or the first -errno. Blocks until each has been tried once; ends early when out's reader is gone (ferror). */
int drain_run(struct fs *fs, const char *below, bool closed_only, FILE *out);
/* At the end of the mount, after a last drain_run(): lets go of everything; what is lost is logged by path. No handle is open any more. */
void drain_last(struct fs *fs);
