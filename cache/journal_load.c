/* SPDX-License-Identifier: Apache-2.0
 *
 * journal_load: what an instance has recorded, read again, see journal.h. Threads: the one that adopts it; `lock` covers the connection.
 *
 * A row that cannot be read keeps only what belongs to it from being of use: a seal, and the others of its file with it, is set apart; so is
 * one whose bytes are in an upload that nothing can be added to. A draft is left out.
 */
#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "cache/extents.h"
#include "cache/journal_pack.h"
#include "cache/journal_private.h"

static char *column_text(sqlite3_stmt *st, int n)
{
    return g_strdup((const char *)sqlite3_column_text(st, n));
}

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
    g_ptr_array_unref(c->damaged);
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
    u->damaged = journal_unpack_headers(sqlite3_column_blob(st, 5), (size_t)sqlite3_column_bytes(st, 5), &u->headers) < 0;
    return 0;
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
    /* Without its headers it still tells whose an object is; the next commit brings them. */
    if (journal_unpack_headers(sqlite3_column_blob(st, 8), (size_t)sqlite3_column_bytes(st, 8), &a->headers) < 0)
        log_warning("%s/%s: the attributes of a request for it are damaged in the journal", a->bucket, a->key);
    return 0;
}

/* What nobody can put together again without the upload's headers. */
static bool is_cut_off(const struct journal_seal *s)
{
    return s->upload && s->upload->damaged && extents_has(s->map, 0, UINT64_MAX, EXTENT_PUNCHED);
}

static int load_seal(sqlite3_stmt *st, struct journal_content *c)
{
    struct journal_seal *s = g_new0(struct journal_seal, 1);
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
    g_ptr_array_add(r == 0 && !is_cut_off(s) ? c->seals : c->damaged, s);
    return 0;
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

static bool is_damaged(const struct journal_content *c, uint64_t file)
{
    for (guint i = 0; i < c->damaged->len; i++)
        if (((const struct journal_seal *)c->damaged->pdata[i])->file == file)
            return true;
    return false;
}

/* An older seal in place of one that cannot be read would be a step back that nobody was told of. */
static void set_apart(struct journal_content *c)
{
    for (guint i = c->seals->len; i-- > 0;)
        if (is_damaged(c, ((const struct journal_seal *)c->seals->pdata[i])->file))
            g_ptr_array_add(c->damaged, g_ptr_array_steal_index(c->seals, i));
}

/* Nothing is added to it. */
static void leave_damaged_uploads(struct journal_content *c)
{
    for (guint i = 0; i < c->seals->len; i++) {
        struct journal_seal *s = c->seals->pdata[i];
        if (s->upload && s->upload->damaged)
            s->upload = NULL;
    }
}

int journal_load(struct journal *j, struct journal_content **ret)
{
    struct journal_content *c = g_new0(struct journal_content, 1);
    c->seals = g_ptr_array_new_with_free_func(seal_free);
    c->damaged = g_ptr_array_new_with_free_func(seal_free);
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
    if (r == 0) {
        set_apart(c);
        leave_damaged_uploads(c);
    } else {
        journal_content_free(c);
        c = NULL;
    }
    *ret = c;
    return r;
}
