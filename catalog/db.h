/* SPDX-License-Identifier: Apache-2.0
 *
 * db: what the catalog's own files share: its connections, cached statements, transactions. Private
 * to catalog/.
 */
#pragma once
#include "base/mutex.h"
#include "base/sqlite.h"
#include "catalog/catalog.h"
#include <stdatomic.h>

/* A connection and the statements prepared on it. */
struct conn {
    struct mutex
        lock; /* RANK_CATALOG; held across SQLite calls. Two conns' locks are never held together */
    sqlite3 *db;       /* by lock; NULL = this catalog has no such connection */
    GHashTable *stmts; /* by lock; SQL text (its address) → sqlite3_stmt* */
};

struct catalog {
    char *path;         /* immutable */
    bool read_only;     /* immutable */
    struct conn writer; /* db is NULL when read_only */
    struct conn reader;
    atomic_bool damaged; /* SQLite found damage at run time: the file is set aside when we close */
    struct mutex pend_lock; /* RANK_LEAF */
    GHashTable *pending;    /* by pend_lock; struct pending* set of attributes not written yet */
    GHashTable *flushing;   /* by pend_lock; those being written; the set itself changes under
                               writer.lock only */
};

/* Locks cn and finds or prepares the statement for sql, a string that lives on. 0: the caller ends
 * with conn_release(). On failure nothing is held. */
int conn_acquire(struct catalog *c, struct conn *cn, const char *sql, sqlite3_stmt **ret);
void conn_release(struct conn *cn, sqlite3_stmt *st);

/* Inside a transaction (writer's lock held): a cached statement, reset and without bindings. */
int write_stmt(struct catalog *c, const char *sql, sqlite3_stmt **ret);
/* Steps a statement that yields no row or whose rows do not matter, and resets it. 0 or -errno. */
int write_done(struct catalog *c, sqlite3_stmt *st);

/* Begins a write transaction, pending attributes included; durable: synced when write_end()
 * returns. On failure nothing is held. -EROFS when the catalog is read-only. */
int write_begin(struct catalog *c, bool durable);
/* The same while the writer's lock is held already. */
int write_begin_locked(struct catalog *c, bool durable);
/* Commits when r ≥ 0, else rolls back; unlocks. Returns r, or the commit's error. */
int write_end(struct catalog *c, int r);
/* Another connection that only reads; the caller's own. */
int reader_open(struct catalog *c, sqlite3 **ret);
/* Remembers damage; returns r. */
int catalog_check(struct catalog *c, int r);

void bind_name(sqlite3_stmt *st, int first, const char *bucket,
               const char *key);                        /* two parameters */
void bind_text(sqlite3_stmt *st, int i, const char *s); /* NULL → NULL */
/* The row id of bucket/key, made if absent. In a transaction. */
int file_make(struct catalog *c, const char *bucket, const char *key, int64_t *ret);

/* attrs.c */
GHashTable *pending_new(void);
int pending_write(struct catalog *c); /* in a transaction */
void pending_written(struct catalog *c);

/* SQL shared by videos.c and query.c: the columns video_from_row() reads, in its order. f = files,
 * v = videos. */
#define VIDEO_COLUMNS                                                                              \
    "v.is_media, f.uuid, v.container, v.duration, v.bit_rate, v.codec, v.width, v.height, "        \
    "v.frame_rate, v.rotation, v.audio_codec, v.creation_time"
#define VIDEO_COLUMN_COUNT 12
void video_from_row(sqlite3_stmt *st, struct video *ret);
