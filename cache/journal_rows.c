/* SPDX-License-Identifier: Apache-2.0
 *
 * journal_rows: what an instance records, see journal.h. Threads: any; each change goes through journal_change().
 *
 * Invariants: a file has at most one seal that is not synced, and at most one that is, which is the older one, and one draft, which is
 * newer; an attempt belongs to a file with a seal; parts belong to an upload.
 */
#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "cache/extents.h"
#include "cache/journal_pack.h"
#include "cache/journal_private.h"

#define PUT_PART "INSERT OR REPLACE INTO parts(upload, number, off, len, etag, crc) VALUES(?,?,?,?,?,?)"

/* ---- statements ---- */

static void bind_packed(sqlite3_stmt *st, int n, GBytes *take)
{
    gsize size;
    const void *data = g_bytes_get_data(take, &size);
    sqlite3_bind_blob(st, n, data ? data : "", (int)size, SQLITE_TRANSIENT);
    g_bytes_unref(take);
}

static int run(sqlite3_stmt *st)
{
    int r = db_step(st);
    return MIN(r, 0);
}

/* Prepared once; borrowed. */
static int statement(struct journal *j, const char *sql, sqlite3_stmt **ret)
{
    return db_prepare_kept(j->db, j->statements, sql, ret);
}

/* A statement with one file number. */
static int run_number(struct journal *j, const char *sql, uint64_t n)
{
    sqlite3_stmt *st;
    int r = statement(j, sql, &st);
    if (r < 0)
        return r;
    sqlite3_bind_int64(st, 1, (sqlite3_int64)n);
    return run(st);
}

/* ---- records ---- */

static int flags_of(const struct journal_seal *s)
{
    return (s->data_dirty ? FLAG_DATA : 0) | (s->headers_dirty ? FLAG_HEADERS : 0) | (s->moved ? FLAG_MOVED : 0);
}

static int put_seal(struct journal *j, const struct journal_seal *s)
{
    sqlite3_stmt *st;
    int r = statement(j,
                       "INSERT OR REPLACE INTO seals(file, staging, gen, bucket, key, expect, base, map, headers, flags, uuid, upload,"
                       " staged_end, sums, synced) VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,0)", &st);
    if (r < 0)
        return r;
    sqlite3_bind_int64(st, 1, (sqlite3_int64)s->file);
    sqlite3_bind_int64(st, 2, (sqlite3_int64)s->staging);
    sqlite3_bind_int64(st, 3, (sqlite3_int64)s->gen);
    journal_bind(st, 4, s->bucket);
    journal_bind(st, 5, s->key);
    sqlite3_bind_text(st, 6, s->expect, -1, SQLITE_STATIC);
    if (s->has_base)
        bind_packed(st, 7, journal_pack_base(s));
    bind_packed(st, 8, journal_pack_map(s->map));
    bind_packed(st, 9, journal_pack_headers(&s->headers));
    sqlite3_bind_int(st, 10, flags_of(s));
    sqlite3_bind_text(st, 11, s->uuid, -1, SQLITE_STATIC);
    sqlite3_bind_text(st, 12, s->upload ? s->upload->uuid : s->uuid, -1, SQLITE_STATIC);
    sqlite3_bind_int64(st, 13, (sqlite3_int64)s->staged_end);
    bind_packed(st, 14, journal_pack_sums(s->sums));
    return run(st);
}

static int put_attempt(struct journal *j, const struct journal_attempt *a)
{
    sqlite3_stmt *st;
    int r = statement(j, "INSERT OR REPLACE INTO attempts(file, gen, uuid, size, staged_end, flags, bucket, key, headers)"
                         " VALUES(?,?,?,?,?,?,?,?,?)", &st);
    if (r < 0)
        return r;
    sqlite3_bind_int64(st, 1, (sqlite3_int64)a->file);
    sqlite3_bind_int64(st, 2, (sqlite3_int64)a->gen);
    sqlite3_bind_text(st, 3, a->uuid, -1, SQLITE_STATIC);
    sqlite3_bind_int64(st, 4, (sqlite3_int64)a->size);
    sqlite3_bind_int64(st, 5, (sqlite3_int64)a->staged_end);
    sqlite3_bind_int(st, 6, a->data_dirty ? FLAG_DATA : 0);
    journal_bind(st, 7, a->bucket);
    journal_bind(st, 8, a->key);
    bind_packed(st, 9, journal_pack_headers(&a->headers));
    return run(st);
}

struct upload_row {
    const struct journal_upload *u;
    bool doubtful;
};

static int put_upload(struct journal *j, const void *arg)
{
    const struct upload_row *row = arg;
    const struct journal_upload *u = row->u;
    sqlite3_stmt *st;
    int r = statement(j, "INSERT INTO uploads(id, file, bucket, key, uuid, headers, checksums) VALUES(?,?,?,?,?,?,?)", &st);
    if (r < 0)
        return r;
    sqlite3_bind_text(st, 1, u->id, -1, SQLITE_STATIC);
    sqlite3_bind_int64(st, 2, (sqlite3_int64)u->file);
    journal_bind(st, 3, u->bucket);
    journal_bind(st, 4, u->key);
    sqlite3_bind_text(st, 5, u->uuid, -1, SQLITE_STATIC);
    bind_packed(st, 6, journal_pack_headers(&u->headers));
    sqlite3_bind_int(st, 7, u->with_checksums);
    r = run(st);
    if (r < 0)
        return r;
    return row->doubtful ? journal_lose_intents(j->db, u->uuid) : journal_delete_intent(j->db, u->uuid);
}

int journal_upload(struct journal *j, const struct journal_upload *u, bool doubtful)
{
    return journal_change(j, put_upload, &(struct upload_row){u, doubtful});
}

static int put_part(sqlite3_stmt *st, const char *upload_id, const struct journal_part *p)
{
    sqlite3_reset(st);
    sqlite3_bind_text(st, 1, upload_id, -1, SQLITE_STATIC);
    sqlite3_bind_int64(st, 2, p->number);
    sqlite3_bind_int64(st, 3, (sqlite3_int64)p->off);
    sqlite3_bind_int64(st, 4, (sqlite3_int64)p->len);
    sqlite3_bind_text(st, 5, p->etag, -1, SQLITE_STATIC);
    if (p->checksum.set)
        sqlite3_bind_int64(st, 6, p->checksum.crc32c);
    else
        sqlite3_bind_null(st, 6);
    return run(st);
}

struct part_rows {
    const char *upload_id;
    const struct journal_part *parts;
    size_t n;
};

static int put_parts(struct journal *j, const void *arg)
{
    const struct part_rows *rows = arg;
    sqlite3_stmt *st;
    int r = statement(j, PUT_PART, &st);
    for (size_t i = 0; r == 0 && i < rows->n; i++)
        r = put_part(st, rows->upload_id, &rows->parts[i]);
    return r;
}

int journal_parts(struct journal *j, const char *upload_id, const struct journal_part *parts, size_t n)
{
    return journal_change(j, put_parts, &(struct part_rows){upload_id, parts, n});
}

/* ---- seals ---- */

static int put_earlier(struct journal *j, const struct journal_seal *s)
{
    int r = run_number(j, "DELETE FROM attempts WHERE file = ?", s->file);
    for (guint i = 0; r == 0 && s->earlier && i < s->earlier->len; i++)
        r = put_attempt(j, s->earlier->pdata[i]);
    return r;
}

static int put_attempts(struct journal *j, const struct journal_seal *s)
{
    struct journal_attempt a = {
        .file = s->file,
        .gen = s->gen,
        .staged_end = s->staged_end,
        .size = extents_size(s->map),
        .bucket = s->bucket,
        .key = s->key,
        .data_dirty = s->data_dirty,
        .headers = s->headers,
    };
    g_strlcpy(a.uuid, s->uuid, sizeof(a.uuid));
    int r = put_attempt(j, &a);
    if (r < 0 || !s->upload)
        return r;
    a.headers = s->upload->headers;
    g_strlcpy(a.uuid, s->upload->uuid, sizeof(a.uuid));
    return put_attempt(j, &a);
}

/* The upload has these parts and no others. One that could not be recorded has none. */
static int put_upload_parts(sqlite3 *db, const struct journal_upload *u)
{
    g_autoptr(sqlite3_stmt) known = NULL, clear = NULL, put = NULL;
    int r = db_prepare(db, "SELECT 1 FROM uploads WHERE id = ?", &known);
    if (r == 0) {
        sqlite3_bind_text(known, 1, u->id, -1, SQLITE_STATIC);
        r = db_step(known);
    }
    if (r <= 0)
        return r;
    r = db_prepare(db, "DELETE FROM parts WHERE upload = ?", &clear);
    if (r == 0) {
        sqlite3_bind_text(clear, 1, u->id, -1, SQLITE_STATIC);
        r = run(clear);
    }
    if (r == 0)
        r = db_prepare(db, PUT_PART, &put);
    for (guint i = 0; r == 0 && i < u->parts->len; i++)
        r = put_part(put, u->id, u->parts->pdata[i]);
    return r;
}

static int delete_draft(struct journal *j, uint64_t file, uint64_t gen)
{
    sqlite3_stmt *st;
    int r = statement(j, "DELETE FROM drafts WHERE file = ? AND gen <= ?", &st);
    if (r < 0)
        return r;
    sqlite3_bind_int64(st, 1, (sqlite3_int64)file);
    sqlite3_bind_int64(st, 2, (sqlite3_int64)MIN(gen, (uint64_t)INT64_MAX));
    return run(st);
}

struct file_gen {
    uint64_t file, gen;
};

static int undraft(struct journal *j, const void *arg)
{
    const struct file_gen *at = arg;
    return delete_draft(j, at->file, at->gen);
}

int journal_undraft(struct journal *j, uint64_t file, uint64_t gen)
{
    return journal_change(j, undraft, &(struct file_gen){file, gen});
}

static int put_draft(struct journal *j, const void *arg)
{
    const struct journal_seal *s = arg;
    g_autoptr(sqlite3_stmt) st = NULL;
    int r = db_prepare(j->db, "INSERT OR REPLACE INTO drafts(file, staging, gen, taken, bucket, key, base, map, sums)"
                           " VALUES(?,?,?,?,?,?,?,?,?)", &st);
    if (r < 0)
        return r;
    sqlite3_bind_int64(st, 1, (sqlite3_int64)s->file);
    sqlite3_bind_int64(st, 2, (sqlite3_int64)s->staging);
    sqlite3_bind_int64(st, 3, (sqlite3_int64)s->gen);
    sqlite3_bind_int64(st, 4, s->taken_ns);
    journal_bind(st, 5, s->bucket);
    journal_bind(st, 6, s->key);
    if (s->has_base)
        bind_packed(st, 7, journal_pack_base(s));
    bind_packed(st, 8, journal_pack_map(s->map));
    bind_packed(st, 9, journal_pack_sums(s->sums));
    return run(st);
}

int journal_draft(struct journal *j, const struct journal_seal *s)
{
    return journal_change(j, put_draft, s);
}

static int put_whole_seal(struct journal *j, const void *arg)
{
    const struct journal_seal *s = arg;
    int r = put_seal(j, s);
    if (r == 0)
        r = delete_draft(j, s->file, s->gen);
    if (r == 0 && *s->uuid)
        r = put_earlier(j, s);
    if (r == 0 && *s->uuid)
        r = put_attempts(j, s);
    if (r == 0 && s->upload && s->upload->id)
        r = put_upload_parts(j->db, s->upload);
    return r;
}

int journal_seal(struct journal *j, const struct journal_seal *s)
{
    return journal_change(j, put_whole_seal, s);
}

static int put_attempts_of(struct journal *j, const void *arg)
{
    return put_attempts(j, arg);
}

int journal_attempt(struct journal *j, const struct journal_seal *s)
{
    return journal_change(j, put_attempts_of, s);
}

static int mark_synced(struct journal *j, const void *arg)
{
    const struct file_gen *at = arg;
    sqlite3_stmt *st;
    int r = statement(j, "UPDATE OR REPLACE seals SET synced = 1 WHERE file = ? AND gen = ? AND NOT synced", &st);
    if (r < 0)
        return r;
    sqlite3_bind_int64(st, 1, (sqlite3_int64)at->file);
    sqlite3_bind_int64(st, 2, (sqlite3_int64)at->gen);
    return run(st);
}

int journal_mark_synced(struct journal *j, uint64_t file, uint64_t gen)
{
    return journal_change(j, mark_synced, &(struct file_gen){file, gen});
}

static int delete_upload(sqlite3 *db, const char *upload_id)
{
    g_autoptr(sqlite3_stmt) st = NULL;
    int r = db_prepare(db, "DELETE FROM uploads WHERE id = ?", &st);
    if (r < 0)
        return r;
    sqlite3_bind_text(st, 1, upload_id, -1, SQLITE_STATIC);
    return run(st);
}

struct forgotten {
    uint64_t file;
    const char *upload_id;
};

static int forget(struct journal *j, const void *arg)
{
    const struct forgotten *what = arg;
    int r = 0;
    if (what->file)
        r = run_number(j, "DELETE FROM seals WHERE file = ?", what->file);
    if (r == 0 && what->file)
        r = run_number(j, "DELETE FROM attempts WHERE file = ?", what->file);
    if (r == 0 && what->upload_id)
        r = delete_upload(j->db, what->upload_id);
    return r;
}

int journal_forget(struct journal *j, uint64_t file, const char *upload_id)
{
    return journal_change(j, forget, &(struct forgotten){file, upload_id});
}

int journal_upload_ended(struct journal *j, const char *upload_id)
{
    return journal_forget(j, 0, upload_id);
}
