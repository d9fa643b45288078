/* SPDX-License-Identifier: Apache-2.0
 *
 * recovered: what was written and cannot become an object by itself, kept for the user to look at:
 * bytes that no close or fsync had sealed when the process was killed, sealed ones that cannot be read
 * whole, edits whose base is gone. An entry ID in the directory is two files:
 *
 *   ID.entry  a key file: what it is of, why it is here, where each byte is (as in cache/extents.h)
 *             and the CRC32Cs of those that are ours
 *   ID.data   a staging file, or a copy of what the map refers to, at the same offsets
 *
 * ID.data comes first and goes first: an entry without it is one whose removal was cut short. Who reads or
 * removes an entry has a lock (flock) on ID.entry; an entry never changes.
 *
 * No state, any thread. Everything blocks on the disk.
 */
#pragma once
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

struct extents;
struct journal_seal;

#define RECOVERED_UNSEALED "unsealed"     /* nobody had closed or fsynced it */
#define RECOVERED_UNREADABLE "unreadable" /* it was sealed, and some of it is gone */
#define RECOVERED_CONFLICT "conflict"     /* the version that it changed is gone */

struct recovered {
    char *id;
    int err; /* -errno when the entry cannot be used; then all below may be missing */
    char *origin, *bucket, *key, *why;
    char *base_etag;   /* of the version that BASE in the map is of; NULL: none */
    int64_t time_s;    /* Unix time of the content */
    uint64_t size;     /* of the file */
    uint64_t ours;     /* bytes of it that were written and are here */
    uint64_t elsewhere; /* bytes that were sent to the bucket before, in an upload that never became an object: lost */
    struct extents *map;
    GArray *sums;      /* struct sum */
    int lock_fd;       /* -1: not locked */
};

/* Puts content into dir, which is made if need be. s: its bucket, key, base, map, sums, and taken_ns (0: now) are used; staging: the file
 * that STAGED in the map is in, NULL if there is none any more. With `move` that file goes there, else what the map refers to is copied.
 * id: letters, digits and "-"; the same one again is the same content, and no error. 0 or -errno (not logged). */
int recovered_park(const char *dir, const char *id, const char *staging, bool move, const struct journal_seal *s, const char *origin,
                   const char *why);

/* Every entry of dir, oldest first: struct recovered*, which it frees; those that cannot be read have err. Not locked. 0, also when there
 * is no dir; -errno. */
int recovered_list(const char *dir, GPtrArray **ret);
/* One entry, locked until it is freed: exclusively, or for reading. -ENOENT; -EWOULDBLOCK: somebody reads or removes it; -EUCLEAN: it cannot
 * be read, which is no error with `exclusive`; -errno. */
int recovered_open(const char *dir, const char *id, bool exclusive, struct recovered **ret);
void recovered_free(struct recovered *r); /* NULL is fine */

struct recovered_range {
    uint64_t off, len;
};
struct recovered_report {
    GArray *lost; /* struct recovered_range: ours, and not on the disk as they were, or only in the bucket's upload: holes now */
    GArray *base; /* struct recovered_range: the base version's, of which no file was given: holes now */
};
void recovered_report_clear(struct recovered_report *r);
/* Writes the content to fd, an empty file. base_fd: has the base version's content; -1: its ranges become holes. 0 also when something is
 * lost (see *ret, which the caller clears); -ENODATA: base_fd is too short; else -errno of a write. */
int recovered_save(const struct recovered *r, const char *dir, int fd, int base_fd, struct recovered_report *ret);
/* Removes an entry that was opened exclusively. 0 or -errno. */
int recovered_discard(const struct recovered *r, const char *dir);
