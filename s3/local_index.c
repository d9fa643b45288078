/* SPDX-License-Identifier: Apache-2.0
 *
 * local_index: store_local's database: which key has which body, and which blobs that is.
 *
 * Threads: any. One connection under one mutex, which is held across SQLite (the exception to "no
 * mutex across the disk"): transactions are short and never run while a body streams.
 *
 * Invariants, at the end of every transaction:
 * - a body's refs is the number of objects and parts that name it;
 * - a body with refs 0 exists only while a reader pins it (or until the next open);
 * - a blob's file exists while a segment names it. It is unlinked after the commit that took the
 *   last one away, so a crash leaves garbage, never a hole.
 */
#include "s3/local.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "base/mutex.h"

/* What keeps a body that nobody refers to any more: its readers. */
struct pin {
    unsigned readers;
    bool dropped; /* the last reference went meanwhile */
};

struct local_index {
    struct local_blobs *blobs;
    struct mutex lock;
    sqlite3 *db;                   /* lock */
    sqlite3_stmt *stmt[SQL_COUNT]; /* lock */
    GHashTable *pins;              /* lock; gint64 body → struct pin */
};

/* Keys are BLOBs, so that their order is memcmp's. */
static const char *const migrations[] = {
    "CREATE TABLE buckets(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, created INTEGER NOT "
    "NULL);"
    "CREATE TABLE bodies(id INTEGER PRIMARY KEY, refs INTEGER NOT NULL);"
    "CREATE INDEX bodies_dead ON bodies(refs) WHERE refs <= 0;"
    "CREATE TABLE segments(body INTEGER NOT NULL, start INTEGER NOT NULL, len INTEGER NOT NULL,"
    " blob INTEGER NOT NULL, off INTEGER NOT NULL, PRIMARY KEY(body, start)) WITHOUT ROWID;"
    "CREATE INDEX segments_blob ON segments(blob);"
    "CREATE TABLE objects(bucket INTEGER NOT NULL, key BLOB NOT NULL, etag TEXT NOT NULL,"
    " size INTEGER NOT NULL, mtime INTEGER NOT NULL, body INTEGER NOT NULL, headers BLOB NOT NULL,"
    " tags BLOB NOT NULL, PRIMARY KEY(bucket, key)) WITHOUT ROWID;"
    "CREATE TABLE uploads(id TEXT PRIMARY KEY, bucket INTEGER NOT NULL, key BLOB NOT NULL,"
    " initiated INTEGER NOT NULL, headers BLOB NOT NULL) WITHOUT ROWID;"
    "CREATE INDEX uploads_key ON uploads(bucket, key, initiated);"
    "CREATE TABLE parts(upload TEXT NOT NULL, number INTEGER NOT NULL, etag TEXT NOT NULL,"
    " size INTEGER NOT NULL, body INTEGER NOT NULL, PRIMARY KEY(upload, number)) WITHOUT ROWID;",
    "ALTER TABLE objects ADD COLUMN class TEXT;"
    "ALTER TABLE uploads ADD COLUMN class TEXT;"
    "ALTER TABLE uploads ADD COLUMN tags BLOB NOT NULL DEFAULT x'';",
};

static const char *const sql[SQL_COUNT] = {
    [SQL_BEGIN] = "BEGIN",
    [SQL_COMMIT] = "COMMIT",
    [SQL_ROLLBACK] = "ROLLBACK",
    [SQL_BUCKET_FIND] = "SELECT id FROM buckets WHERE name = ?1",
    [SQL_BUCKET_ALL] = "SELECT name, created FROM buckets ORDER BY name",
    [SQL_BUCKET_INSERT] = "INSERT INTO buckets(name, created) VALUES(?1, ?2)",
    [SQL_BUCKET_DELETE] = "DELETE FROM buckets WHERE id = ?1",
    [SQL_BODY_INSERT] = "INSERT INTO bodies(refs) VALUES(1)",
    [SQL_BODY_ADD_REFS] = "UPDATE bodies SET refs = refs + ?2 WHERE id = ?1 RETURNING refs",
    [SQL_BODY_REFS] = "SELECT refs FROM bodies WHERE id = ?1",
    [SQL_BODY_DELETE] = "DELETE FROM bodies WHERE id = ?1",
    [SQL_BODY_DEAD] = "SELECT id FROM bodies WHERE refs <= 0",
    [SQL_SEGMENT_INSERT] =
        "INSERT INTO segments(body, start, len, blob, off) VALUES(?1, ?2, ?3, ?4, ?5)",
    [SQL_SEGMENT_SELECT] =
        "SELECT start, len, blob, off FROM segments WHERE body = ?1 AND start < ?3 AND start >="
        " (SELECT MAX(start) FROM segments WHERE body = ?1 AND start <= ?2) ORDER BY start",
    [SQL_SEGMENT_BLOBS] = "SELECT DISTINCT blob FROM segments WHERE body = ?1",
    [SQL_SEGMENT_MOVE] = "UPDATE segments SET body = ?1, start = start + ?2 WHERE body = ?3",
    [SQL_SEGMENT_DELETE] = "DELETE FROM segments WHERE body = ?1",
    [SQL_BLOB_USED] = "SELECT 1 FROM segments WHERE blob = ?1 LIMIT 1",
    [SQL_BLOB_LAST] = "SELECT MAX(blob) FROM segments",
    [SQL_OBJECT_FIND] = "SELECT etag, size, mtime, body, headers, tags, class FROM objects"
                        " WHERE bucket = ?1 AND key = ?2",
    [SQL_OBJECT_STORE] =
        "INSERT OR REPLACE INTO objects(bucket, key, etag, size, mtime, body, headers, tags, class)"
        " VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    [SQL_OBJECT_DELETE] = "DELETE FROM objects WHERE bucket = ?1 AND key = ?2",
    [SQL_OBJECT_TAGS] = "UPDATE objects SET tags = ?3 WHERE bucket = ?1 AND key = ?2",
    [SQL_OBJECT_LIST] =
        "SELECT key, etag, size, mtime, class FROM objects"
        " WHERE bucket = ?1 AND key >= ?2 ORDER BY key",
    [SQL_OBJECT_ANY] = "SELECT 1 FROM objects WHERE bucket = ?1 LIMIT 1",
    [SQL_UPLOAD_FIND] =
        "SELECT headers, tags, class FROM uploads WHERE id = ?1 AND bucket = ?2 AND key = ?3",
    [SQL_UPLOAD_INSERT] =
        "INSERT INTO uploads(id, bucket, key, initiated, headers, tags, class)"
        " VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    [SQL_UPLOAD_DELETE] = "DELETE FROM uploads WHERE id = ?1",
    [SQL_UPLOAD_LIST] = "SELECT key, id, initiated FROM uploads WHERE bucket = ?1 AND key >= ?2"
                        " ORDER BY key, initiated",
    [SQL_UPLOAD_OF_BUCKET] = "SELECT id FROM uploads WHERE bucket = ?1",
    [SQL_PART_FIND] = "SELECT etag, size, body FROM parts WHERE upload = ?1 AND number = ?2",
    [SQL_PART_STORE] =
        "INSERT OR REPLACE INTO parts(upload, number, etag, size, body) VALUES(?1, ?2, ?3, ?4, ?5)",
    [SQL_PART_ALL] = "SELECT number, size, etag, body FROM parts WHERE upload = ?1 ORDER BY number",
    [SQL_PART_DELETE] = "DELETE FROM parts WHERE upload = ?1 AND number = ?2",
    [SQL_PART_DELETE_ALL] = "DELETE FROM parts WHERE upload = ?1",
};

/* ---- transactions ---- */

static void reset_all(struct local_index *ix)
{
    mutex_assert_held(&ix->lock);
    for (size_t i = 0; i < SQL_COUNT; i++) {
        if (sqlite3_stmt_busy(ix->stmt[i])) {
            sqlite3_reset(ix->stmt[i]); /* an open SELECT would keep its snapshot */
        }
    }
}

int local_txn_begin(struct local_index *ix, struct local_txn *ret)
{
    mutex_lock(&ix->lock);
    *ret = (struct local_txn){.ix = ix};
    int r = local_txn_do(local_txn_stmt(ret, SQL_BEGIN));
    if (r < 0) {
        ret->ix = NULL;
        mutex_unlock(&ix->lock);
        return r;
    }
    ret->dead = g_array_new(FALSE, FALSE, sizeof(uint64_t));
    return 0;
}

int local_txn_commit(struct local_txn *t)
{
    struct local_index *ix = t->ix;
    reset_all(ix);
    int r = local_txn_do(local_txn_stmt(t, SQL_COMMIT));
    if (r < 0) {
        return r; /* local_txn_end() rolls back */
    }
    sqlite3_reset(ix->stmt[SQL_COMMIT]);
    t->ix = NULL;
    mutex_unlock(&ix->lock);
    for (guint i = 0; i < t->dead->len; i++) {
        /* One that cannot be removed now is garbage for the next open. */
        (void)local_blob_remove(ix->blobs, g_array_index(t->dead, uint64_t, i));
    }
    g_array_unref(t->dead);
    t->dead = NULL;
    return 0;
}

void local_txn_end(struct local_txn *t)
{
    if (t->ix == NULL) {
        return;
    }
    struct local_index *ix = t->ix;
    reset_all(ix);
    if (!sqlite3_get_autocommit(ix->db)) {
        (void)local_txn_do(local_txn_stmt(t, SQL_ROLLBACK));
        sqlite3_reset(ix->stmt[SQL_ROLLBACK]);
    }
    t->ix = NULL;
    mutex_unlock(&ix->lock);
    g_array_unref(t->dead);
    t->dead = NULL;
}

sqlite3_stmt *local_txn_stmt(struct local_txn *t, enum local_sql which)
{
    sqlite3_stmt *st = t->ix->stmt[which];
    sqlite3_reset(st);
    sqlite3_clear_bindings(st);
    return st;
}

int local_txn_do(sqlite3_stmt *st)
{
    int r = db_step(st);
    sqlite3_reset(st);
    return r < 0 ? r : 0;
}

void local_bind_bytes(sqlite3_stmt *st, int col, const void *p, size_t n)
{
    sqlite3_bind_blob64(st, col, n > 0 ? p : "", n, SQLITE_TRANSIENT);
}

void local_bind_key(sqlite3_stmt *st, int col, const char *key)
{
    local_bind_bytes(st, col, key, strlen(key));
}

void local_bind_text(sqlite3_stmt *st, int col, const char *text)
{
    sqlite3_bind_text(st, col, text, -1, SQLITE_TRANSIENT);
}

void local_bind_bytes_of(sqlite3_stmt *st, int col, GBytes *b)
{
    gsize n = 0;
    const void *p = b != NULL ? g_bytes_get_data(b, &n) : "";
    local_bind_bytes(st, col, p, n);
}

char *local_column_key(sqlite3_stmt *st, int col)
{
    return g_strndup(sqlite3_column_blob(st, col), (gsize)sqlite3_column_bytes(st, col));
}

/* ---- bodies ---- */

int local_body_new(struct local_txn *t, int64_t *ret)
{
    int r = local_txn_do(local_txn_stmt(t, SQL_BODY_INSERT));
    if (r == 0) {
        *ret = sqlite3_last_insert_rowid(t->ix->db);
    }
    return r;
}

int local_body_add(struct local_txn *t, int64_t body, const struct local_segment *s)
{
    sqlite3_stmt *st = local_txn_stmt(t, SQL_SEGMENT_INSERT);
    sqlite3_bind_int64(st, 1, body);
    sqlite3_bind_int64(st, 2, (int64_t)s->start);
    sqlite3_bind_int64(st, 3, (int64_t)s->len);
    sqlite3_bind_int64(st, 4, (int64_t)s->blob);
    sqlite3_bind_int64(st, 5, (int64_t)s->off);
    return local_txn_do(st);
}

static int body_add_refs(struct local_txn *t, int64_t body, int n, int64_t *ret_refs)
{
    sqlite3_stmt *st = local_txn_stmt(t, SQL_BODY_ADD_REFS);
    sqlite3_bind_int64(st, 1, body);
    sqlite3_bind_int(st, 2, n);
    int r = db_step(st);
    if (r <= 0) {
        return r < 0 ? r : -EUCLEAN; /* a row names a body that is not there */
    }
    *ret_refs = sqlite3_column_int64(st, 0);
    sqlite3_reset(st);
    return 0;
}

int local_body_ref(struct local_txn *t, int64_t body)
{
    int64_t refs;
    return body_add_refs(t, body, 1, &refs);
}

static int body_delete(struct local_txn *t, int64_t body)
{
    sqlite3_stmt *st = local_txn_stmt(t, SQL_BODY_DELETE);
    sqlite3_bind_int64(st, 1, body);
    return local_txn_do(st);
}

/* Removes a body's rows, and notes the blobs that nothing else names. */
static int body_drop(struct local_txn *t, int64_t body)
{
    g_autoptr(GArray) blobs = g_array_new(FALSE, FALSE, sizeof(uint64_t));
    sqlite3_stmt *st = local_txn_stmt(t, SQL_SEGMENT_BLOBS);
    sqlite3_bind_int64(st, 1, body);
    int r;
    while ((r = db_step(st)) > 0) {
        uint64_t blob = (uint64_t)sqlite3_column_int64(st, 0);
        g_array_append_val(blobs, blob);
    }
    if (r < 0) {
        return r;
    }
    st = local_txn_stmt(t, SQL_SEGMENT_DELETE);
    sqlite3_bind_int64(st, 1, body);
    r = local_txn_do(st);
    if (r == 0) {
        r = body_delete(t, body);
    }
    for (guint i = 0; r == 0 && i < blobs->len; i++) {
        uint64_t blob = g_array_index(blobs, uint64_t, i);
        st = local_txn_stmt(t, SQL_BLOB_USED);
        sqlite3_bind_int64(st, 1, (int64_t)blob);
        int used = db_step(st);
        if (used == 0) {
            g_array_append_val(t->dead, blob);
        }
        r = used < 0 ? used : 0;
    }
    return r;
}

int local_body_unref(struct local_txn *t, int64_t body)
{
    int64_t refs;
    int r = body_add_refs(t, body, -1, &refs);
    if (r < 0 || refs > 0) {
        return r;
    }
    struct pin *pin = g_hash_table_lookup(t->ix->pins, &body);
    if (pin != NULL) {
        pin->dropped = true; /* should this transaction roll back, the unpinner sees refs > 0 */
        return 0;
    }
    return body_drop(t, body);
}

int local_body_move(struct local_txn *t, int64_t to, uint64_t start, int64_t from)
{
    sqlite3_stmt *st = local_txn_stmt(t, SQL_SEGMENT_MOVE);
    sqlite3_bind_int64(st, 1, to);
    sqlite3_bind_int64(st, 2, (int64_t)start);
    sqlite3_bind_int64(st, 3, from);
    int r = local_txn_do(st);
    return r < 0 ? r : body_delete(t, from);
}

int local_body_view(struct local_txn *t, int64_t body, uint64_t off, uint64_t len,
                    struct local_view *ret)
{
    g_autoptr(GArray) segments = g_array_new(FALSE, FALSE, sizeof(struct local_segment));
    sqlite3_stmt *st = local_txn_stmt(t, SQL_SEGMENT_SELECT);
    sqlite3_bind_int64(st, 1, body);
    sqlite3_bind_int64(st, 2, (int64_t)off);
    sqlite3_bind_int64(st, 3, (int64_t)(off + len));
    int r;
    while ((r = db_step(st)) > 0) {
        struct local_segment s = {.start = (uint64_t)sqlite3_column_int64(st, 0),
                                  .len = (uint64_t)sqlite3_column_int64(st, 1),
                                  .blob = (uint64_t)sqlite3_column_int64(st, 2),
                                  .off = (uint64_t)sqlite3_column_int64(st, 3)};
        g_array_append_val(segments, s);
    }
    if (r < 0) {
        return r;
    }
    struct pin *pin = g_hash_table_lookup(t->ix->pins, &body);
    if (pin == NULL) {
        gint64 *id = g_new(gint64, 1);
        *id = body;
        pin = g_new0(struct pin, 1);
        g_hash_table_insert(t->ix->pins, id, pin);
    }
    pin->readers++;
    *ret = (struct local_view){.index = t->ix,
                               .body = body,
                               .segments = g_steal_pointer(&segments),
                               .off = off,
                               .len = len};
    return 0;
}

/* Its readers are done; a failure here leaves it to the next open. */
static void drop_unpinned(struct local_index *ix, int64_t body)
{
    _cleanup_txn_ struct local_txn t = {0};
    if (local_txn_begin(ix, &t) < 0) {
        return;
    }
    sqlite3_stmt *st = local_txn_stmt(&t, SQL_BODY_REFS);
    sqlite3_bind_int64(st, 1, body);
    if (db_step(st) == 1 && sqlite3_column_int64(st, 0) <= 0 && body_drop(&t, body) == 0) {
        (void)local_txn_commit(&t);
    }
}

void local_view_clear(struct local_view *v)
{
    struct local_index *ix = v->index;
    if (ix == NULL) {
        return;
    }
    mutex_lock(&ix->lock);
    struct pin *pin = g_hash_table_lookup(ix->pins, &v->body);
    assert(pin != NULL && pin->readers > 0);
    bool last = --pin->readers == 0;
    bool drop = last && pin->dropped;
    if (last) {
        g_hash_table_remove(ix->pins, &v->body);
    }
    mutex_unlock(&ix->lock);
    if (drop) {
        drop_unpinned(ix, v->body);
    }
    g_array_unref(v->segments);
    v->index = NULL;
}

/* ---- buckets ---- */

/* 1, 0 when there is none, -errno. */
static int bucket_lookup(struct local_txn *t, const char *name, int64_t *ret)
{
    sqlite3_stmt *st = local_txn_stmt(t, SQL_BUCKET_FIND);
    local_bind_text(st, 1, name);
    int r = db_step(st);
    if (r > 0) {
        *ret = sqlite3_column_int64(st, 0);
    }
    sqlite3_reset(st);
    return r;
}

int local_bucket_find(struct local_txn *t, struct store_request *req, const char *name,
                      int64_t *ret)
{
    int r = bucket_lookup(t, name, ret);
    if (r == 0) {
        return local_fail(req, LOCAL_NO_SUCH_BUCKET);
    }
    return r < 0 ? r : 0;
}

int local_bucket_create(struct local_index *ix, struct store_request *req, const char *name)
{
    if (!local_bucket_name_valid(name)) {
        return local_fail(req, LOCAL_INVALID_BUCKET_NAME);
    }
    _cleanup_txn_ struct local_txn t = {0};
    int64_t id;
    int r = local_txn_begin(ix, &t);
    if (r < 0) {
        return r;
    }
    r = bucket_lookup(&t, name, &id);
    if (r != 0) {
        return r < 0 ? r : local_fail(req, LOCAL_BUCKET_EXISTS);
    }
    sqlite3_stmt *st = local_txn_stmt(&t, SQL_BUCKET_INSERT);
    local_bind_text(st, 1, name);
    sqlite3_bind_int64(st, 2, clock_real_ns());
    r = local_txn_do(st);
    return r < 0 ? r : local_txn_commit(&t);
}

int local_bucket_delete(struct local_index *ix, struct store_request *req)
{
    _cleanup_txn_ struct local_txn t = {0};
    int64_t id;
    int r = local_txn_begin(ix, &t);
    if (r < 0) {
        return r;
    }
    r = local_bucket_find(&t, req, req->bucket, &id);
    if (r < 0) {
        return r;
    }
    sqlite3_stmt *st = local_txn_stmt(&t, SQL_OBJECT_ANY);
    sqlite3_bind_int64(st, 1, id);
    r = db_step(st);
    if (r != 0) {
        return r < 0 ? r : local_fail(req, LOCAL_BUCKET_NOT_EMPTY);
    }
    r = local_mpu_drop_all(&t, id);
    if (r < 0) {
        return r;
    }
    st = local_txn_stmt(&t, SQL_BUCKET_DELETE);
    sqlite3_bind_int64(st, 1, id);
    r = local_txn_do(st);
    return r < 0 ? r : local_txn_commit(&t);
}

int local_bucket_list(struct local_index *ix, struct store_request *req)
{
    _cleanup_txn_ struct local_txn t = {0};
    int r = local_txn_begin(ix, &t);
    if (r < 0) {
        return r;
    }
    g_autoptr(GPtrArray) entries = g_ptr_array_new_with_free_func((GDestroyNotify)store_entry_free);
    sqlite3_stmt *st = local_txn_stmt(&t, SQL_BUCKET_ALL);
    while ((r = db_step(st)) > 0) {
        struct store_entry *e = store_entry_new((const char *)sqlite3_column_text(st, 0));
        e->mtime_ns = sqlite3_column_int64(st, 1);
        g_ptr_array_add(entries, e);
    }
    if (r < 0) {
        return r;
    }
    req->res.entries = g_steal_pointer(&entries);
    return 0;
}

/* ---- open ---- */

static int collect_bodies(struct local_index *ix)
{
    _cleanup_txn_ struct local_txn t = {0};
    int r = local_txn_begin(ix, &t);
    if (r < 0) {
        return r;
    }
    g_autoptr(GArray) dead = g_array_new(FALSE, FALSE, sizeof(int64_t));
    sqlite3_stmt *st = local_txn_stmt(&t, SQL_BODY_DEAD);
    while ((r = db_step(st)) > 0) {
        int64_t id = sqlite3_column_int64(st, 0);
        g_array_append_val(dead, id);
    }
    for (guint i = 0; r == 0 && i < dead->len; i++) {
        r = body_drop(&t, g_array_index(dead, int64_t, i));
    }
    return r < 0 ? r : local_txn_commit(&t);
}

static int collect_blob(void *ctx, uint64_t id)
{
    struct local_txn *t = ctx;
    sqlite3_stmt *st = local_txn_stmt(t, SQL_BLOB_USED);
    sqlite3_bind_int64(st, 1, (int64_t)id);
    int used = db_step(st);
    if (used == 0) {
        g_array_append_val(t->dead, id);
    }
    return used < 0 ? used : 0;
}

/* Before the first request: every file that no segment names is garbage. */
static int collect_blobs(struct local_index *ix)
{
    _cleanup_txn_ struct local_txn t = {0};
    int r = local_txn_begin(ix, &t);
    if (r < 0) {
        return r;
    }
    sqlite3_stmt *st = local_txn_stmt(&t, SQL_BLOB_LAST);
    r = db_step(st);
    if (r > 0) {
        local_blobs_reserve(ix->blobs, (uint64_t)sqlite3_column_int64(st, 0));
        r = local_blobs_foreach(ix->blobs, collect_blob, &t);
    }
    return r < 0 ? r : local_txn_commit(&t);
}

int local_index_open(const char *path, bool durable, struct local_blobs *blobs,
                     struct local_index **ret)
{
    struct local_index *ix = g_new0(struct local_index, 1);
    ix->blobs = blobs;
    ix->pins = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, g_free);
    mutex_init(&ix->lock, RANK_ENGINE);
    int r =
        db_open(path, durable ? DB_SYNC_FULL : 0, migrations, G_N_ELEMENTS(migrations), &ix->db);
    for (size_t i = 0; r >= 0 && i < SQL_COUNT; i++) {
        r = db_prepare(ix->db, sql[i], &ix->stmt[i]);
    }
    if (r >= 0) {
        r = collect_bodies(ix);
    }
    if (r >= 0) {
        r = collect_blobs(ix);
    }
    if (r < 0) {
        local_index_close(ix);
        return r;
    }
    *ret = ix;
    return 0;
}

void local_index_close(struct local_index *ix)
{
    if (ix == NULL) {
        return;
    }
    for (size_t i = 0; i < SQL_COUNT; i++) {
        sqlite3_finalize(ix->stmt[i]);
    }
    db_close(ix->db);
    mutex_fini(&ix->lock);
    g_hash_table_unref(ix->pins);
    g_free(ix);
}
