/* SPDX-License-Identifier: Apache-2.0
 *
 * mountinfo: what of ours is mounted, as the kernel tells it.
 */
#pragma once
#include <glib.h>
#include <stdbool.h>
#include <sys/types.h>

struct mountinfo {
    char *mountpoint, *source;
    char *dev; /* "major:minor" */
    uid_t uid; /* who mounted it */
    char *place; /* where it is mounted, as "major:minor:path" in the parent's file system: the same in each copy of the parent; "" if not seen */
    char *peers; /* the parent's propagation: "shared:1 master:2"; "" = private */
};

/* Every mount of type fuse.mlopsfs that this process sees, in order of mounting: struct mountinfo*, frees its elements.
 * text: in the format of /proc/self/mountinfo; NULL: that file. Never NULL; empty when nothing can be read. */
GPtrArray *mountinfo_list(const char *text);
/* Whether an unmount of ours takes m along, of another mount namespace. It does where m is mounted in a copy of ours's parent that hears of
 * what happens there; a volume of a container is mounted elsewhere, and goes on whatever its own propagation is. */
bool mountinfo_follows(const struct mountinfo *m, const struct mountinfo *ours);
/* The innermost of them that contains the absolute path; the last mounted one where several lie on another. NULL if none. */
const struct mountinfo *mountinfo_find(const GPtrArray *list, const char *path);
/* The type of the last file system of any kind that is mounted at exactly path ("fuse.s3fs"); text as above. The caller frees; NULL if none. */
char *mountinfo_type(const char *text, const char *path);
