/* SPDX-License-Identifier: Apache-2.0
 *
 * journal_rows: what an instance records, see journal.h. Threads: any; `lock` covers the connection and is held across SQLite.
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

enum { FLAG_DATA = 1, FLAG_HEADERS = 2, FLAG_MOVED = 4 };

/* ---- statements ---- */

static void bind_packed(sqlite3_stmt *st, int n, GBytes *take)
{
    gsize size;
    const void *data = g_bytes_get_data(take, &size);
    sqlite3_bind_blob(st, n, data ? data : "", (int)size, SQLITE_TRANSIENT);
    g_bytes_unref(take);
}

static char *column_text(sqlite3_stmt *st, int n)
{
    return g_strdup((const char *)sqlite3_column_text(st, n));
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

static int run_text(struct journal *j, const char *sql)
{
    sqlite3_stmt *st;
    int r = statement(j, sql, &st);
    return r < 0 ? r : run(st);
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

static int begin(struct journal *j)
{
    mutex_lock(&j->lock);
    return run_text(j, "BEGIN IMMEDIATE");
}

/* Ends what begin() began: r is what came of it. */
static int end(struct journal *j, int r)
{
    if (r == 0)
        r = run_text(j, "COMMIT");
    if (r < 0 && !sqlite3_get_autocommit(j->db))
        (void)db_exec(j->db, "ROLLBACK");
    mutex_unlock(&j->lock);
    return r;
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

int journal_upload(struct journal *j, const struct journal_upload *u, bool doubtful)
{
    g_autoptr(sqlite3_stmt) st = NULL;
    int r = begin(j);
    if (r == 0)
        r = db_prepare(j->db, "INSERT INTO uploads(id, file, bucket, key, uuid, headers, checksums)"
                              " VALUES(?,?,?,?,?,?,?)", &st);
    if (r == 0) {
        sqlite3_bind_text(st, 1, u->id, -1, SQLITE_STATIC);
        sqlite3_bind_int64(st, 2, (sqlite3_int64)u->file);
        journal_bind(st, 3, u->bucket);
        journal_bind(st, 4, u->key);
        sqlite3_bind_text(st, 5, u->uuid, -1, SQLITE_STATIC);
        bind_packed(st, 6, journal_pack_headers(&u->headers));
        sqlite3_bind_int(st, 7, u->with_checksums);
        r = run(st);
    }
    g_clear_pointer(&st, sqlite3_finalize);
    if (r == 0)
        r = doubtful ? journal_lose_intents(j->db, u->uuid) : journal_delete_intent(j->db, u->uuid);
    return end(j, r);
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

int journal_parts(struct journal *j, const char *upload_id, const struct journal_part *parts, size_t n)
{
    g_autoptr(sqlite3_stmt) st = NULL;
    int r = begin(j);
    if (r == 0)
        r = db_prepare(j->db, PUT_PART, &st);
    for (size_t i = 0; r == 0 && i < n; i++)
        r = put_part(st, upload_id, &parts[i]);
    g_clear_pointer(&st, sqlite3_finalize);
    return end(j, r);
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

int journal_undraft(struct journal *j, uint64_t file, uint64_t gen)
{
    int r = begin(j);
    if (r == 0)
        r = delete_draft(j, file, gen);
    return end(j, r);
}

static int put_draft(sqlite3 *db, const struct journal_seal *s)
{
    g_autoptr(sqlite3_stmt) st = NULL;
    int r = db_prepare(db, "INSERT OR REPLACE INTO drafts(file, staging, gen, taken, bucket, key, base, map, sums)"
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
    int r = begin(j);
    if (r == 0)
        r = put_draft(j->db, s);
    return end(j, r);
}

int journal_seal(struct journal *j, const struct journal_seal *s)
{
    int r = begin(j);
    if (r == 0)
        r = put_seal(j, s);
    if (r == 0)
        r = delete_draft(j, s->file, s->gen);
    if (r == 0 && *s->uuid)
        r = put_earlier(j, s);
    if (r == 0 && *s->uuid)
        r = put_attempts(j, s);
    if (r == 0 && s->upload && s->upload->id)
        r = put_upload_parts(j->db, s->upload);
    return end(j, r);
}

int journal_attempt(struct journal *j, const struct journal_seal *s)
{
    int r = begin(j);
    if (r == 0)
        r = put_attempts(j, s);
    return end(j, r);
}

int journal_mark_synced(struct journal *j, uint64_t file, uint64_t gen)
{
    sqlite3_stmt *st;
    mutex_lock(&j->lock);
    int r = statement(j, "UPDATE OR REPLACE seals SET synced = 1 WHERE file = ? AND gen = ? AND NOT synced", &st);
    if (r == 0) {
        sqlite3_bind_int64(st, 1, (sqlite3_int64)file);
        sqlite3_bind_int64(st, 2, (sqlite3_int64)gen);
        r = run(st);
    }
    mutex_unlock(&j->lock);
    return r;
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

int journal_forget(struct journal *j, uint64_t file, const char *upload_id)
{
    int r = begin(j);
    if (r == 0 && file)
        r = run_number(j, "DELETE FROM seals WHERE file = ?", file);
    if (r == 0 && file)
        r = run_number(j, "DELETE FROM attempts WHERE file = ?", file);
    if (r == 0 && upload_id)
        r = delete_upload(j->db, upload_id);
    return end(j, r);
}

int journal_upload_ended(struct journal *j, const char *upload_id)
{
    return journal_forget(j, 0, upload_id);
}

/* ---- loading ---- */

/* What is loaded is owned; who records only lends. */
static void free_string(const char *s)
{
    g_free((gpointer)(uintptr_t)s);
}

static void part_free(void *p)
{
    struct journal_part *part = p;
    free_string(part->etag);
    g_free(part);
}

GPtrArray *journal_parts_new(void)
{
    return g_ptr_array_new_with_free_func(part_free);
}

void journal_upload_clear(struct journal_upload *u)
{
    free_string(u->bucket);
    free_string(u->key);
    free_string(u->id);
    store_headers_clear(&u->headers);
    if (u->parts)
        g_ptr_array_unref(u->parts);
}

static void upload_free(void *p)
{
    journal_upload_clear(p);
    g_free(p);
}

static void attempt_free(void *p)
{
    struct journal_attempt *a = p;
    g_free(a->bucket);
    g_free(a->key);
    store_headers_clear(&a->headers);
    g_free(a);
}

GPtrArray *journal_attempts_new(void)
{
    return g_ptr_array_new_with_free_func(attempt_free);
}

static void seal_free(void *p)
{
    struct journal_seal *s = p;
    g_free(s->bucket);
    g_free(s->key);
    g_free(s->expect);
    g_free(s->base_bucket);
    g_free(s->base_key);
    store_object_clear(&s->base);
    extents_free(s->map);
    if (s->sums)
        g_array_unref(s->sums);
    store_headers_clear(&s->headers);
    g_free(s);
}

void journal_content_free(struct journal_content *c)
{
    if (!c)
        return;
    g_ptr_array_unref(c->seals);
    g_ptr_array_unref(c->drafts);
    g_ptr_array_unref(c->uploads);
    g_ptr_array_unref(c->attempts);
    g_free(c);
}

/* Steps through a query; one() takes a row: 0 or -errno. */
static int each(struct journal *j, const char *sql, int (*one)(sqlite3_stmt *st, struct journal_content *c),
                struct journal_content *c)
{
    g_autoptr(sqlite3_stmt) st = NULL;
    int r = db_prepare(j->db, sql, &st);
    while (r == 0 && (r = db_step(st)) > 0)
        r = one(st, c);
    return r;
}

static int load_upload(sqlite3_stmt *st, struct journal_content *c)
{
    struct journal_upload *u = g_new0(struct journal_upload, 1);
    u->parts = journal_parts_new();
    g_ptr_array_add(c->uploads, u);
    u->id = column_text(st, 0);
    u->file = (uint64_t)sqlite3_column_int64(st, 1);
    u->bucket = journal_column(st, 2);
    u->key = journal_column(st, 3);
    g_strlcpy(u->uuid, (const char *)sqlite3_column_text(st, 4), sizeof(u->uuid));
    u->with_checksums = sqlite3_column_int(st, 6);
    return journal_unpack_headers(sqlite3_column_blob(st, 5), (size_t)sqlite3_column_bytes(st, 5), &u->headers);
}

static struct journal_upload *upload_by_id(const struct journal_content *c, const char *id)
{
    for (guint i = 0; i < c->uploads->len; i++) {
        struct journal_upload *u = c->uploads->pdata[i];
        if (strcmp(u->id, id) == 0)
            return u;
    }
    return NULL;
}

static struct journal_upload *upload_by_uuid(const struct journal_content *c, const char *uuid)
{
    for (guint i = 0; i < c->uploads->len; i++) {
        struct journal_upload *u = c->uploads->pdata[i];
        if (strcmp(u->uuid, uuid) == 0)
            return u;
    }
    return NULL;
}

static int load_part(sqlite3_stmt *st, struct journal_content *c)
{
    struct journal_upload *u = upload_by_id(c, (const char *)sqlite3_column_text(st, 0));
    struct journal_part *p = g_new0(struct journal_part, 1);
    p->number = (unsigned)sqlite3_column_int(st, 1);
    p->off = (uint64_t)sqlite3_column_int64(st, 2);
    p->len = (uint64_t)sqlite3_column_int64(st, 3);
    p->etag = column_text(st, 4);
    p->checksum.set = sqlite3_column_type(st, 5) != SQLITE_NULL;
    p->checksum.crc32c = (uint32_t)sqlite3_column_int64(st, 5);
    const struct journal_part *last = u && u->parts->len ? u->parts->pdata[u->parts->len - 1] : NULL;
    /* Only what has no gap is of use. */
    if (u && p->number == u->parts->len + 1 && p->off == (last ? last->off + last->len : 0) && p->len > 0)
        g_ptr_array_add(u->parts, p);
    else
        part_free(p);
    return 0;
}

static int load_attempt(sqlite3_stmt *st, struct journal_content *c)
{
    struct journal_attempt *a = g_new0(struct journal_attempt, 1);
    a->file = (uint64_t)sqlite3_column_int64(st, 0);
    a->gen = (uint64_t)sqlite3_column_int64(st, 1);
    g_strlcpy(a->uuid, (const char *)sqlite3_column_text(st, 2), sizeof(a->uuid));
    a->size = (uint64_t)sqlite3_column_int64(st, 3);
    a->staged_end = (uint64_t)sqlite3_column_int64(st, 4);
    a->data_dirty = sqlite3_column_int(st, 5) & FLAG_DATA;
    a->bucket = journal_column(st, 6);
    a->key = journal_column(st, 7);
    g_ptr_array_add(c->attempts, a);
    return journal_unpack_headers(sqlite3_column_blob(st, 8), (size_t)sqlite3_column_bytes(st, 8), &a->headers);
}

static int load_seal(sqlite3_stmt *st, struct journal_content *c)
{
    struct journal_seal *s = g_new0(struct journal_seal, 1);
    g_ptr_array_add(c->seals, s);
    s->file = (uint64_t)sqlite3_column_int64(st, 0);
    s->staging = (uint64_t)sqlite3_column_int64(st, 1);
    s->gen = (uint64_t)sqlite3_column_int64(st, 2);
    s->bucket = journal_column(st, 3);
    s->key = journal_column(st, 4);
    s->expect = column_text(st, 5);
    int flags = sqlite3_column_int(st, 9);
    s->data_dirty = flags & FLAG_DATA;
    s->headers_dirty = flags & FLAG_HEADERS;
    s->moved = flags & FLAG_MOVED;
    g_strlcpy(s->uuid, (const char *)sqlite3_column_text(st, 10), sizeof(s->uuid));
    s->upload = upload_by_uuid(c, (const char *)sqlite3_column_text(st, 11));
    s->staged_end = (uint64_t)sqlite3_column_int64(st, 12);
    s->synced = sqlite3_column_int(st, 14);
    int r = journal_unpack_map(sqlite3_column_blob(st, 7), (size_t)sqlite3_column_bytes(st, 7), &s->map);
    if (r == 0)
        r = journal_unpack_sums(sqlite3_column_blob(st, 13), (size_t)sqlite3_column_bytes(st, 13), &s->sums);
    if (r == 0)
        r = journal_unpack_headers(sqlite3_column_blob(st, 8), (size_t)sqlite3_column_bytes(st, 8), &s->headers);
    if (r == 0 && sqlite3_column_type(st, 6) != SQLITE_NULL)
        r = journal_unpack_base(sqlite3_column_blob(st, 6), (size_t)sqlite3_column_bytes(st, 6), s);
    return r;
}

static int load_draft(sqlite3_stmt *st, struct journal_content *c)
{
    struct journal_seal *s = g_new0(struct journal_seal, 1);
    g_ptr_array_add(c->drafts, s);
    s->file = (uint64_t)sqlite3_column_int64(st, 0);
    s->staging = (uint64_t)sqlite3_column_int64(st, 1);
    s->gen = (uint64_t)sqlite3_column_int64(st, 2);
    s->taken_ns = sqlite3_column_int64(st, 3);
    s->bucket = journal_column(st, 4);
    s->key = journal_column(st, 5);
    s->data_dirty = true;
    int r = journal_unpack_map(sqlite3_column_blob(st, 7), (size_t)sqlite3_column_bytes(st, 7), &s->map);
    if (r == 0)
        r = journal_unpack_sums(sqlite3_column_blob(st, 8), (size_t)sqlite3_column_bytes(st, 8), &s->sums);
    if (r == 0 && sqlite3_column_type(st, 6) != SQLITE_NULL)
        r = journal_unpack_base(sqlite3_column_blob(st, 6), (size_t)sqlite3_column_bytes(st, 6), s);
    if (r < 0) { /* no reason to do without the seals */
        log_warning_errno(r, "%s/%s: what was being written to it before a crash is damaged in the journal", s->bucket, s->key);
        g_ptr_array_set_size(c->drafts, (int)c->drafts->len - 1);
    }
    return 0;
}

int journal_load(struct journal *j, struct journal_content **ret)
{
    struct journal_content *c = g_new0(struct journal_content, 1);
    c->seals = g_ptr_array_new_with_free_func(seal_free);
    c->drafts = g_ptr_array_new_with_free_func(seal_free);
    c->uploads = g_ptr_array_new_with_free_func(upload_free);
    c->attempts = journal_attempts_new();
    mutex_lock(&j->lock);
    int r = each(j, "SELECT id, file, bucket, key, uuid, headers, checksums FROM uploads", load_upload, c);
    if (r == 0)
        r = each(j, "SELECT upload, number, off, len, etag, crc FROM parts ORDER BY upload, number", load_part, c);
    if (r == 0)
        r = each(j, "SELECT file, gen, uuid, size, staged_end, flags, bucket, key, headers FROM attempts"
                    " ORDER BY file, gen", load_attempt, c);
    if (r == 0)
        r = each(j, "SELECT file, staging, gen, bucket, key, expect, base, map, headers, flags, uuid, upload, staged_end,"
                    " sums, synced FROM seals ORDER BY file, synced", load_seal, c);
    if (r == 0)
        r = each(j, "SELECT file, staging, gen, taken, bucket, key, base, map, sums FROM drafts ORDER BY file", load_draft, c);
    mutex_unlock(&j->lock);
    if (r < 0) {
        journal_content_free(c);
        c = NULL;
    }
    *ret = c;
    return r;
}
