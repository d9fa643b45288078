/* SPDX-License-Identifier: Apache-2.0
 *
 * journal_intents: the uploads whose id an instance does not know, see journal.h. Threads: any;
 * `lock` covers the connection and is held across SQLite.
 *
 * Invariant: an upload of ours in the bucket, whose creation was requested by us, is in the table
 * of uploads, or has an intent.
 */
#include <errno.h>

#include "base/clock.h"
#include "cache/journal_private.h"

static int run(sqlite3_stmt *st)
{
    int r = db_step(st);
    return MIN(r, 0);
}

int journal_delete_intent(sqlite3 *db, const char *uuid)
{
    g_autoptr(sqlite3_stmt) st = NULL;
    int r = db_prepare(db, "DELETE FROM intents WHERE uuid = ?", &st);
    if (r < 0)
        return r;
    sqlite3_bind_text(st, 1, uuid, -1, SQLITE_STATIC);
    return run(st);
}

int journal_lose_intents(sqlite3 *db, const char *uuid)
{
    g_autoptr(sqlite3_stmt) st = NULL;
    int r = db_prepare(db, "UPDATE intents SET lost = ?1 WHERE lost = 0 AND (?2 IS NULL OR uuid = ?2)", &st);
    if (r < 0)
        return r;
    sqlite3_bind_int64(st, 1, clock_real_ns());
    sqlite3_bind_text(st, 2, uuid, -1, SQLITE_STATIC);
    return run(st);
}

int journal_intent(struct journal *j, const struct journal_intent *i)
{
    g_autoptr(sqlite3_stmt) st = NULL;
    mutex_lock(&j->lock);
    int r = db_prepare(j->db, "INSERT INTO intents(uuid, file, bucket, key, time, lost) VALUES(?,?,?,?,?,?)", &st);
    if (r == 0) {
        sqlite3_bind_text(st, 1, i->uuid, -1, SQLITE_STATIC);
        sqlite3_bind_int64(st, 2, (sqlite3_int64)i->file);
        journal_bind(st, 3, i->bucket);
        journal_bind(st, 4, i->key);
        sqlite3_bind_int64(st, 5, i->time_ns);
        sqlite3_bind_int64(st, 6, i->lost_ns);
        r = run(st);
    }
    g_clear_pointer(&st, sqlite3_finalize);
    mutex_unlock(&j->lock);
    return r;
}

int journal_intent_ended(struct journal *j, const char *uuid)
{
    mutex_lock(&j->lock);
    int r = journal_delete_intent(j->db, uuid);
    mutex_unlock(&j->lock);
    return r;
}

int journal_intent_lost(struct journal *j, const char *uuid)
{
    mutex_lock(&j->lock);
    int r = journal_lose_intents(j->db, uuid);
    mutex_unlock(&j->lock);
    return r;
}

static void intent_free(void *p)
{
    struct journal_intent *i = p;
    g_free(i->bucket);
    g_free(i->key);
    g_free(i);
}

int journal_lost(struct journal *j, GPtrArray **ret)
{
    g_autoptr(sqlite3_stmt) st = NULL;
    *ret = g_ptr_array_new_with_free_func(intent_free);
    mutex_lock(&j->lock);
    int r = db_prepare(j->db, "SELECT uuid, file, bucket, key, time, lost FROM intents WHERE lost != 0", &st);
    while (r == 0 && (r = db_step(st)) > 0) {
        struct journal_intent *i = g_new0(struct journal_intent, 1);
        g_strlcpy(i->uuid, (const char *)sqlite3_column_text(st, 0), sizeof(i->uuid));
        i->file = (uint64_t)sqlite3_column_int64(st, 1);
        i->bucket = journal_column(st, 2);
        i->key = journal_column(st, 3);
        i->time_ns = sqlite3_column_int64(st, 4);
        i->lost_ns = sqlite3_column_int64(st, 5);
        g_ptr_array_add(*ret, i);
        r = 0;
    }
    g_clear_pointer(&st, sqlite3_finalize);
    mutex_unlock(&j->lock);
    if (r < 0)
        g_clear_pointer(ret, g_ptr_array_unref);
    return r;
}

int journal_count_live_intents(sqlite3 *db, const char *bucket, const char *key, int *ret)
{
    g_autoptr(sqlite3_stmt) st = NULL;
    int r = db_prepare(db, "SELECT count(*) FROM intents WHERE bucket = ? AND key = ? AND lost = 0", &st);
    if (r < 0)
        return r;
    journal_bind(st, 1, bucket);
    journal_bind(st, 2, key);
    r = db_step(st);
    *ret = r > 0 ? sqlite3_column_int(st, 0) : 0;
    return MIN(r, 0);
}

int journal_add_upload_ids(sqlite3 *db, const char *bucket, const char *key, GHashTable *to)
{
    g_autoptr(sqlite3_stmt) st = NULL;
    int r = db_prepare(db, "SELECT id FROM uploads WHERE bucket = ? AND key = ?", &st);
    if (r < 0)
        return r;
    journal_bind(st, 1, bucket);
    journal_bind(st, 2, key);
    while ((r = db_step(st)) > 0)
        g_hash_table_add(to, g_strdup((const char *)sqlite3_column_text(st, 0)));
    return r;
}
