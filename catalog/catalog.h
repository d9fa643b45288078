/* SPDX-License-Identifier: Apache-2.0
 *
 * catalog: a SQLite database of what the bucket does not tell cheaply: attributes of objects,
 * the users' own extended attributes, and facts of videos. One per endpoint; the rows carry the bucket.
 * Everything here is addressed by bucket and key; facts of content also by ETag. Attributes and
 * facts are a cache (may be dropped and learnt again); UUIDs and users' xattrs are data.
 *
 * Thread-safe: one write connection behind one lock (rank catalog), one read connection behind
 * another; calls block on the local disk only. WAL: other processes may read (mlopsfs query).
 */
#pragma once
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include "s3/store.h"

struct catalog;

/* Opens, creates or migrates. A damaged database is set aside (renamed *.damaged-TIME, logged) and a new one made. 0 or -errno, logged. */
int catalog_open(const char *path, bool read_only, struct catalog **ret);
void catalog_close(struct catalog *c); /* NULL is fine */

/* ---- attributes per object state (headers, size, mtime) ---- */
/* What is known of the state that ETag and date (of a listing; to the second where either has no more) tell. -ENOENT when unknown, and always
 * when the date is 0. The ETag alone does not do: other headers on the same bytes keep it. */
int catalog_attrs_get(struct catalog *c, const char *bucket, const char *key, const char *etag, int64_t mtime_ns, struct store_object *ret);
/* Replaces what is known of older states; not synced: a cache. One that is not settled is noted, but no get ever returns it. */
int catalog_attrs_put(struct catalog *c, const char *bucket, const char *key, const struct store_object *o);

/* ---- names ---- */
/* Object bucket/key, or with tree everything below the prefix key (which ends in "/"), is now called to_bucket/to_key.
 * Rows of what was there are dropped. One transaction. */
int catalog_rename(struct catalog *c, const char *bucket, const char *key, const char *to_bucket, const char *to_key, bool tree);
int catalog_forget(struct catalog *c, const char *bucket, const char *key); /* deleted: all rows of it */

/* ---- users' extended attributes: durable (synced) when the call returns ---- */
int catalog_xattr_get(struct catalog *c, const char *bucket, const char *key, const char *name, GBytes **ret); /* -ENODATA */
/* flags as in setxattr(2): XATTR_CREATE → -EEXIST, XATTR_REPLACE → -ENODATA */
int catalog_xattr_set(struct catalog *c, const char *bucket, const char *key, const char *name, const void *value, size_t n, int flags);
int catalog_xattr_remove(struct catalog *c, const char *bucket, const char *key, const char *name); /* -ENODATA */
int catalog_xattr_list(struct catalog *c, const char *bucket, const char *key, GPtrArray **ret); /* char* names, sorted; empty array if none */

/* ---- videos ---- */
/* Facts; 0, "" or -1 where said = unknown. Text is valid UTF-8, at most VIDEO_TEXT-1 bytes. */
#define VIDEO_TEXT 64
struct video {
    char uuid[37];             /* stays with the file through rename and new versions */
    bool is_media;             /* false: probed, and not media; nothing else is set (uuid neither) */
    char container[VIDEO_TEXT];/* libavformat's short name, e.g. "mov,mp4,m4a,3gp,3g2,mj2" → "mp4" */
    double duration;           /* seconds, < 0 unknown */
    int64_t bit_rate;          /* bits per second, 0 unknown */
    char codec[VIDEO_TEXT];    /* first video stream that is no cover picture; "" = audio only */
    int width, height;
    double frame_rate;
    int rotation;              /* degrees clockwise to show it upright: 0, 90, 180, 270 */
    char audio_codec[VIDEO_TEXT];
    char creation_time[VIDEO_TEXT]; /* as in the file, ISO 8601; "" unknown */
};
/* The facts of this version; -ENOENT when this version was never probed. */
int catalog_video_get(struct catalog *c, const char *bucket, const char *key, const char *etag, struct video *ret);
/* Stores facts; fills v->uuid: the file's old one, or a new one (uuid_generate) when it is media and has none. Durable. */
int catalog_video_put(struct catalog *c, const char *bucket, const char *key, const char *etag, uint64_t size, struct video *v);
/* The object was copied onto itself (new headers, same bytes) and its ETag changed with it: the facts stay true. No row: 0. */
int catalog_version_moved(struct catalog *c, const char *bucket, const char *key, const char *from_etag, const char *to_etag);
/* A fact as extended attribute text: name without "user.video."; -ENODATA when unknown. Caller frees. Pure. */
int video_fact(const struct video *v, const char *name, char **ret);
extern const char *const video_fact_names[]; /* NULL-terminated */
bool video_name_is_media(const char *name, const char *content_type); /* by extension or type (content_type may be NULL) */

/* ---- query ---- */
struct query_row {
    const char *bucket, *key;
    uint64_t size;
    const struct video *video;
};
/* Every video (media object whose facts are known) for which all conditions hold, ordered by bucket and key.
 * A condition is FIELD OP VALUE, OP one of = != < <= > >= ~ (~: glob as in SQLite's GLOB); fields: the names in video_fact_names, and
 * bucket, key, name, size. Values are bound, never pasted. VALUE of duration may carry s/m/h, of size K/M/G/T (powers of 1,024). Facts of a
 * version that is known to be replaced do not count. -EINVAL with *ret_error
 * set (caller frees) to a sentence that names the faulty condition. each: nonzero stops. */
int catalog_query(struct catalog *c, const char *const *conditions, size_t n, int (*each)(void *ctx, const struct query_row *row), void *ctx, char **ret_error);
