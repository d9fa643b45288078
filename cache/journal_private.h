/* SPDX-License-Identifier: Apache-2.0
 *
 * journal_private: what journal.c (instances), journal_rows.c (what they record) and journal_load.c (what is read again) share.
 */
#pragma once
#include <stdatomic.h>

#include "base/mutex.h"
#include "base/sqlite.h"
#include "cache/journal.h"

struct journal {
    char *parent, *dir;
    int lock_fd;
    int sync_err;   /* lock: of the first journal_sync() that failed */
    bool same_boot; /* constant once it is open: see journal_is_of_this_boot() */
    atomic_uint_fast64_t number;
    struct mutex lock;
    sqlite3 *db;            /* lock */
    GHashTable *statements; /* lock: SQL text (its address) → sqlite3_stmt* */
    struct mutex queue_lock;
    bool led;               /* queue_lock: somebody makes what was queued */
    GPtrArray *queue;       /* queue_lock: struct journal_change* that wait */
};

/* Makes changes by statements of j's connection, within lock and a transaction. More than once if need be. 0 or -errno: all is taken back. */
typedef int journal_op(struct journal *j, const void *arg);
/* Has op(j, arg) made in a transaction, which may be others' as well, and waits for it: 0 or -errno, and then nothing is changed. No lock held; disk. */
int journal_change(struct journal *j, journal_op *op, const void *arg);

enum { FLAG_DATA = 1, FLAG_HEADERS = 2, FLAG_MOVED = 4 }; /* of a row of seals or attempts */

/* Buckets and keys are blobs: any bytes. NULL stays NULL. */
void journal_bind(sqlite3_stmt *st, int n, const char *text);
char *journal_column(sqlite3_stmt *st, int n); /* g_free */

/* journal_intents.c; lock, or a connection of one's own. */
int journal_delete_intent(sqlite3 *db, const char *uuid);
int journal_lose_intents(sqlite3 *db, const char *uuid); /* NULL: all */
int journal_count_live_intents(sqlite3 *db, const char *bucket, const char *key, int *ret);
int journal_add_upload_ids(sqlite3 *db, const char *bucket, const char *key, GHashTable *to);
