/* SPDX-License-Identifier: Apache-2.0
 *
 * attr: POSIX attributes of a file as they are carried by an object's user metadata, under the names
 * and in the formats that s3fs-fuse uses: mode, uid, gid (decimal), mtime, atime, ctime (seconds,
 * optionally ".nanoseconds"). What an object does not say comes from the mount's defaults. Pure.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "s3/store.h"

struct attr {
    mode_t mode; /* type and permission bits */
    uid_t uid;
    gid_t gid;
    uint64_t size; /* bytes */
    int64_t mtime_ns, atime_ns, ctime_ns; /* real time since the epoch */
};

struct attr_defaults {
    mode_t fmode, dmode; /* permission bits */
    uid_t uid;
    gid_t gid;
};

#define ATTR_DIR_TYPE "application/x-directory"

/* Attributes of an object. is_dir: its key stands for a directory (ends in "/"), whatever its metadata say. */
void attr_from_object(struct attr *a, const struct store_object *o, bool is_dir, const struct attr_defaults *d);
/* Attributes of a directory without a marker, or of anything of which no object tells. */
void attr_default(struct attr *a, bool is_dir, int64_t now_ns, const struct attr_defaults *d);
/* Writes the attributes into h's user metadata; leaves all else in h alone. */
void attr_to_headers(const struct attr *a, struct store_headers *h);
/* Content type by the name's extension; "application/octet-stream" when unknown. Static string. */
const char *attr_content_type(const char *name);
void attr_to_stat(const struct attr *a, uint64_t ino, struct stat *ret);
