/* SPDX-License-Identifier: Apache-2.0
 *
 * stream: the upload of a file while it is written. It belongs to its file; all functions are
 * called under the file's lock and do not block. Parts are cut where the schedule of plan.h says,
 * or earlier when staging is full; each goes up as soon as it is wholly written, from a snapshot.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "cache/plan.h"
#include "s3/store.h"

struct cache_file;
struct journal_upload;
struct stream;

/* The content of [off, off+n) changed by a write: moves the cursor, marks parts stale, and submits
 * the parts that are complete now. */
void stream_wrote_locked(struct cache_file *f, uint64_t off, uint64_t n);
/* The file was cut or grown to size (before the map is). */
void stream_truncated_locked(struct cache_file *f, uint64_t size);
/* Submits what is complete (also after a commit, during which nothing is submitted). */
void stream_advance_locked(struct cache_file *f);
/* Ends the part at the cursor now. False when it is too small, or the file is not streamed. */
bool stream_cut_short_locked(struct cache_file *f);
/* Turns acknowledged parts into PUNCHED and drops their staging. Returns whether there were any. */
bool stream_punch_locked(struct cache_file *f);
enum stream_end {
    STREAM_ABORT,
    STREAM_COMPLETED, /* there is nothing to abort */
    STREAM_LEAVE,     /* the next mount goes on with it */
};
/* Takes the stream from the file and ends its upload when its last request has ended. No-op without a stream. */
void stream_detach_locked(struct cache_file *f, enum stream_end how);
/* Makes the file's stream of an upload that an earlier process began, as far as its parts can be used. */
void stream_restore_locked(struct cache_file *f, const struct journal_upload *u);

/* For the committer. Sealed: nothing is submitted or punched until unsealed. */
void stream_seal_locked(struct cache_file *f);
void stream_unseal_locked(struct cache_file *f);
/* Some part is not what the server says it was: those that are still staged go up again. */
void stream_distrust_locked(struct cache_file *f);
bool stream_idle_locked(const struct stream *s);   /* no request under way */
int stream_error(const struct stream *s);          /* of its last failed request; 0 */
const char *stream_upload_id(const struct stream *s); /* NULL: there is none */
const char *stream_uuid(const struct stream *s);
const struct store_headers *stream_headers(const struct stream *s);
GHashTable *stream_tags(const struct stream *s); /* that its upload was created with; NULL: none */
uint64_t stream_bytes(const struct stream *s); /* of parts that are there and not stale */
size_t stream_parts(const struct stream *s, struct plan_done **ret_done); /* g_free */
/* Whether the upload was created with_checksums (s3/store.h). */
bool stream_with_checksums(const struct stream *s);
struct store_checksum stream_part_checksum(const struct stream *s, unsigned number);
const char *stream_part_etag(const struct stream *s, unsigned number); /* NULL: it did not go up */
