/* SPDX-License-Identifier: Apache-2.0
 *
 * recover: what earlier mounts of the bucket sealed and could not bring into it, because they were
 * killed or the server was away. The files get their names back, are read as they were sealed, and
 * are committed in the background. One whose key no path of this mount can carry, or whose name
 * another one took, is committed all the same, and tried again as others are.
 */
#pragma once
#include "fs/fs.h"

/* Before the first request. Blocks on the disk. What cannot be recovered is logged, and stays. */
void recover_run(struct fs *fs);
