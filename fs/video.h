/* SPDX-License-Identifier: Apache-2.0
 *
 * video: the facts of a file's present version, from the catalog or by probing it now.
 */
#pragma once
#include "catalog/catalog.h"
#include "fs/inode.h"

struct cancel;
struct fs;

/* Whether the facts are worth asking for: a committed regular file whose name or content type is media. Does not block. */
bool video_likely(struct inode *i);
/* -ENODATA: no media, or not committed yet. Else -errno of the probe. Blocks: probes when this version was never probed. */
int video_facts(struct fs *fs, struct inode *i, struct cancel *cancel, struct video *ret);
/* A commit of ours made a new version of i: probes it in the background when it looks like media. Does not block. */
void video_written(struct fs *fs, struct inode *i);
