/* SPDX-License-Identifier: Apache-2.0
 *
 * fake_verbs: what the requests of fake_store do. Threads: the fake's own; its lock is not held
 * while a sink or a source runs. Bytes are unreferenced under the lock, where ThreadSanitizer sees
 * the order.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "base/crc32c.h"
#include "tests/lib/fake.h"

char *fake_name(const char *bucket, const char *key)
{
    return g_strdup_printf("%s/%s", bucket, key);
}

void fake_object_free(void *p)
{
    struct object *o = p;
    g_bytes_unref(o->bytes);
    store_object_clear(&o->attr);
    if (o->tags)
        g_hash_table_unref(o->tags);
    g_free(o);
}

void fake_upload_free(void *p)
{
    struct upload *u = p;
    g_free(u->name);
    store_headers_clear(&u->headers);
    if (u->tags)
        g_hash_table_unref(u->tags);
    g_free(u->storage_class);
    g_hash_table_unref(u->parts);
    g_free(u);
}

static int no_such(struct store_result *res, const char *code)
{
    store_result_fail(res, -ENOENT, STORE_CLASS_FATAL, code, "not there");
    res->http_status = 404;
    return -ENOENT;
}

static int conflict(struct store_result *res)
{
    store_result_fail(res, -ESTALE, STORE_CLASS_CONFLICT, "PreconditionFailed", "condition failed");
    res->http_status = 412;
    return -ESTALE;
}

static int invalid(struct store_result *res, const char *code)
{
    store_result_fail(res, -EINVAL, STORE_CLASS_FATAL, code, "malformed");
    res->http_status = 400;
    return -EINVAL;
}

struct object *fake_find_locked(struct fake_store *f, const char *bucket, const char *key)
{
    g_autofree char *name = fake_name(bucket, key);
    return g_tree_lookup(f->objects, name);
}

struct object *fake_object_new_locked(struct fake_store *f, GBytes *bytes,
                                      const struct store_headers *headers)
{
    struct object *o = g_new0(struct object, 1);
    o->bytes = g_bytes_ref(bytes);
    o->attr.size = g_bytes_get_size(bytes);
    o->attr.etag = g_strdup_printf("etag-%" G_GUINT64_FORMAT, ++f->serial);
    o->attr.mtime_ns = clock_real_ns();
    store_headers_copy(&o->attr.headers, headers);
    return o;
}

static GHashTable *tags_copy(GHashTable *from)
{
    GHashTable *copy = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    GHashTableIter it;
    gpointer name, value;
    if (from) {
        g_hash_table_iter_init(&it, from);
        while (g_hash_table_iter_next(&it, &name, &value))
            g_hash_table_replace(copy, g_strdup(name), g_strdup(value));
    }
    return copy;
}

/* if_match and if_none_match against what is there. */
static int check_locked(struct fake_store *f, struct store_request *req)
{
    struct object *o = fake_find_locked(f, req->bucket, req->key);
    if (req->if_none_match && o)
        return conflict(&req->res);
    if (req->if_match && (!o || strcmp(o->attr.etag, req->if_match) != 0))
        return conflict(&req->res);
    return 0;
}

static void store_locked(struct fake_store *f, struct store_request *req, GBytes *bytes,
                         const struct store_headers *headers, GHashTable *tags,
                         const char *storage_class)
{
    struct object *o = fake_object_new_locked(f, bytes, headers);
    o->tags = tags_copy(tags);
    o->attr.storage_class = g_strdup(storage_class);
    g_tree_replace(f->objects, fake_name(req->bucket, req->key), o);
    req->res.object.etag = g_strdup(o->attr.etag);
}

/* The verbs */

static void deliver(struct fake_store *f, struct item *it, GBytes *bytes)
{
    struct store_request *req = it->req;
    uint64_t size = g_bytes_get_size(bytes), off = req->range.set ? req->range.off : 0;
    uint64_t end = req->range.set && req->range.len ? MIN(size, off + req->range.len) : size;
    if (req->range.set && off >= size) {
        store_object_clear(&req->res.object);
        store_result_fail(&req->res, -ERANGE, STORE_CLASS_FATAL, "InvalidRange", "past the end");
        return;
    }
    const char *data = g_bytes_get_data(bytes, NULL);
    while (off < end) {
        if (req->res.bytes == it->cut)
            break;
        uint64_t n = f->p.chunk;
        if (!n) {
            mutex_lock(&f->lock);
            n = 1 + fake_random_below_locked(f, 65536);
            mutex_unlock(&f->lock);
        }
        n = MIN(n, MIN(end - off, it->cut - req->res.bytes));
        int r = req->sink.write(req->sink.ctx, off, data + off, n);
        if (r < 0) {
            store_result_fail(&req->res, r, STORE_CLASS_FATAL, NULL, "sink failed");
            return;
        }
        off += n;
        req->res.bytes += n;
    }
    if (req->res.bytes == it->cut)
        store_result_fail(&req->res, -EIO, STORE_CLASS_RETRY, NULL, "cut");
}

static void run_get(struct fake_store *f, struct item *it)
{
    struct store_request *req = it->req;
    mutex_lock(&f->lock);
    struct object *o = fake_find_locked(f, req->bucket, req->key);
    if (!o || (req->if_match && strcmp(o->attr.etag, req->if_match) != 0)) {
        if (o)
            conflict(&req->res);
        else
            no_such(&req->res, "NoSuchKey");
        mutex_unlock(&f->lock);
        return;
    }
    store_object_copy(&req->res.object, &o->attr);
    if (req->verb == STORE_HEAD && (!o->tags || g_hash_table_size(o->tags) == 0))
        req->res.object.untagged_ns = clock_mono_ns();
    GBytes *bytes = g_bytes_ref(o->bytes);
    mutex_unlock(&f->lock);
    if (req->verb == STORE_GET)
        deliver(f, it, bytes);
    mutex_lock(&f->lock);
    g_bytes_unref(bytes);
    mutex_unlock(&f->lock);
}

/* The whole body of a request, or NULL with res filled. */
static GBytes *read_source(struct store_request *req)
{
    size_t size = req->source.size;
    g_autofree char *buf = g_malloc(size + 1);
    for (size_t off = 0; off < size;) {
        size_t n = MIN(size - off, (size_t)65536);
        ssize_t r = req->source.read(req->source.ctx, off, buf + off, n);
        if (r < 0) {
            store_result_fail(&req->res, (int)r, STORE_CLASS_FATAL, NULL, "source failed");
            return NULL;
        }
        assert((size_t)r == n);
        off += n;
    }
    req->res.bytes = size;
    return g_bytes_new_take(g_steal_pointer(&buf), size);
}

static uint32_t crc_of(GBytes *bytes)
{
    gsize n;
    const void *data = g_bytes_get_data(bytes, &n);
    return crc32c(0, data, n);
}

/* The checksum that came with a body; allowed: whether the server takes one there. */
static bool check_digest(struct store_request *req, GBytes *bytes, bool allowed)
{
    const struct store_source *source = &req->source;
    uint32_t crc = 0;
    if (!source->checksum)
        return true;
    int r = source->checksum(source->ctx, &crc);
    if (r < 0) {
        store_result_fail(&req->res, r, STORE_CLASS_FATAL, NULL, "source failed");
    } else if (!allowed) {
        invalid(&req->res, "InvalidRequest");
    } else if (crc != crc_of(bytes)) {
        store_result_fail(&req->res, -EIO, STORE_CLASS_RETRY, "BadDigest", "damaged on its way");
        req->res.http_status = 400;
    }
    req->res.checksum = (struct store_checksum){.set = req->res.err == 0, .crc32c = crc};
    return req->res.err == 0;
}

static void run_put(struct fake_store *f, struct store_request *req)
{
    g_autoptr(GBytes) bytes = read_source(req);
    if (!bytes || !check_digest(req, bytes, f->caps.checksum))
        return;
    mutex_lock(&f->lock);
    if (check_locked(f, req) == 0)
        store_locked(f, req, bytes, req->headers, req->tags, req->storage_class);
    mutex_unlock(&f->lock);
}

static void run_delete(struct fake_store *f, struct store_request *req)
{
    mutex_lock(&f->lock);
    if (req->verb == STORE_DELETE_MANY) {
        for (size_t i = 0; i < req->n_keys; i++) {
            g_autofree char *name = fake_name(req->bucket, req->keys[i]);
            g_tree_remove(f->objects, name);
        }
    } else if (check_locked(f, req) == 0) {
        g_autofree char *name = fake_name(req->bucket, req->key);
        g_tree_remove(f->objects, name);
    }
    mutex_unlock(&f->lock);
}

/* The source of a copy, or NULL with res filled. */
static struct object *copy_source_locked(struct fake_store *f, struct store_request *req)
{
    struct object *o = fake_find_locked(f, req->from_bucket, req->from_key);
    if (!o)
        no_such(&req->res, "NoSuchKey");
    else if (req->from_if_match && strcmp(o->attr.etag, req->from_if_match) != 0)
        conflict(&req->res);
    else
        return o;
    return NULL;
}

static void run_copy(struct fake_store *f, struct store_request *req)
{
    mutex_lock(&f->lock);
    struct object *o = copy_source_locked(f, req);
    if (o && check_locked(f, req) == 0) {
        struct store_headers headers;
        store_headers_copy(&headers, req->replace_headers ? req->headers : &o->attr.headers);
        g_autoptr(GBytes) bytes = g_bytes_ref(o->bytes);
        store_locked(f, req, bytes, &headers, o->tags, req->storage_class);
        store_headers_clear(&headers);
    }
    mutex_unlock(&f->lock);
}

struct list {
    struct store_request *req;
    char *base;        /* "bucket/" */
    const char *after; /* key or common prefix to go on after; NULL = from the start */
    bool after_prefix;
    unsigned max;
};

static int list_visit(void *name_, void *value, void *ctx)
{
    struct list *l = ctx;
    const char *name = name_, *prefix = l->req->prefix ? l->req->prefix : "";
    const struct object *o = value;
    if (!g_str_has_prefix(name, l->base))
        return 0;
    const char *key = name + strlen(l->base);
    if (!g_str_has_prefix(key, prefix))
        return 0;
    if (l->after &&
        (strcmp(key, l->after) <= 0 || (l->after_prefix && g_str_has_prefix(key, l->after))))
        return 0;
    GPtrArray *out = l->req->res.entries;
    struct store_entry *last = out->len ? out->pdata[out->len - 1] : NULL;
    const char *slash = l->req->delimiter ? strchr(key + strlen(prefix), '/') : NULL;
    g_autofree char *shown = slash ? g_strndup(key, (gsize)(slash - key) + 1) : g_strdup(key);
    if (slash && last && last->is_prefix && strcmp(last->key, shown) == 0)
        return 0;
    if (out->len == l->max) {
        l->req->res.token = g_strconcat(last->is_prefix ? "P" : "K", last->key, NULL);
        return 1;
    }
    struct store_entry *e = store_entry_new(shown);
    if (slash) {
        e->is_prefix = true;
    } else {
        e->etag = g_strdup(o->attr.etag);
        e->size = o->attr.size;
        e->mtime_ns = o->attr.mtime_ns;
    }
    g_ptr_array_add(out, e);
    return 0;
}

static void entry_free(void *e)
{
    store_entry_free(e);
}

static void run_list(struct fake_store *f, struct store_request *req)
{
    struct list l = {.req = req, .base = fake_name(req->bucket, "")};
    l.max = req->max_keys ? req->max_keys : STORE_LIST_MAX;
    l.after = req->token ? req->token + 1 : req->start_after;
    l.after_prefix = req->token && req->token[0] == 'P';
    req->res.entries = g_ptr_array_new_with_free_func(entry_free);
    mutex_lock(&f->lock);
    g_tree_foreach(f->objects, list_visit, &l);
    mutex_unlock(&f->lock);
    g_free(l.base);
}

/* Multipart */

static struct upload *find_upload_locked(struct fake_store *f, struct store_request *req)
{
    g_autofree char *name = fake_name(req->bucket, req->key);
    struct upload *u = g_hash_table_lookup(f->uploads, req->upload_id);
    if (u && strcmp(u->name, name) == 0)
        return u;
    no_such(&req->res, "NoSuchUpload");
    return NULL;
}

static void run_mpu_create(struct fake_store *f, struct store_request *req)
{
    struct upload *u = g_new0(struct upload, 1);
    u->name = fake_name(req->bucket, req->key);
    store_headers_copy(&u->headers, req->headers);
    u->tags = tags_copy(req->tags);
    u->storage_class = g_strdup(req->storage_class);
    u->parts = g_hash_table_new_full(NULL, NULL, NULL, fake_object_free);
    u->with_checksums = req->with_checksums;
    mutex_lock(&f->lock);
    assert(!u->with_checksums || f->caps.checksum_mpu);
    u->initiated_ns = (int64_t)clock_real_ns() + f->ahead_ns;
    req->res.upload_id = g_strdup_printf("upload-%" G_GUINT64_FORMAT, ++f->serial);
    g_hash_table_replace(f->uploads, g_strdup(req->res.upload_id), u);
    mutex_unlock(&f->lock);
}

static void add_part_locked(struct fake_store *f, struct store_request *req, GBytes *bytes)
{
    struct upload *u = find_upload_locked(f, req);
    if (!u)
        return;
    struct object *part = fake_object_new_locked(f, bytes, NULL);
    bool copied = req->verb == STORE_MPU_COPY_PART;
    if (u->with_checksums) {
        if (copied && f->caps.copy_into_checksum_mpu)
            req->res.checksum = (struct store_checksum){.set = true, .crc32c = crc_of(bytes)};
        part->checksum = req->res.checksum;
    }
    if ((u->with_checksums && !part->checksum.set) ||
        (!u->with_checksums && req->res.checksum.set && !f->caps.checksum_part)) {
        invalid(&req->res, "InvalidRequest");
        fake_object_free(part);
        return;
    }
    g_hash_table_replace(u->parts, GUINT_TO_POINTER(req->part_number), part);
    req->res.object.etag = g_strdup(part->attr.etag);
}

static void run_mpu_part(struct fake_store *f, struct store_request *req)
{
    g_autoptr(GBytes) bytes = NULL;
    if (req->verb == STORE_MPU_PART) {
        bytes = read_source(req);
        if (!bytes || !check_digest(req, bytes, f->caps.checksum_part || f->caps.checksum_mpu))
            return;
    }
    mutex_lock(&f->lock);
    if (req->verb == STORE_MPU_COPY_PART) {
        struct object *o = copy_source_locked(f, req);
        uint64_t size = o ? g_bytes_get_size(o->bytes) : 0;
        uint64_t off = req->range.set ? req->range.off : 0;
        uint64_t len = req->range.set && req->range.len ? req->range.len : size - MIN(off, size);
        if (o && off + len <= size)
            bytes = g_bytes_new_from_bytes(o->bytes, off, len);
        else if (o)
            invalid(&req->res, "InvalidRange");
    }
    if (bytes)
        add_part_locked(f, req, bytes);
    mutex_unlock(&f->lock);
}

static void run_mpu_complete(struct fake_store *f, struct store_request *req)
{
    mutex_lock(&f->lock);
    struct upload *u = find_upload_locked(f, req);
    g_autoptr(GByteArray) all = g_byte_array_new();
    for (size_t i = 0; u && i < req->n_parts; i++) {
        const struct store_part *want = &req->parts[i];
        struct object *part = g_hash_table_lookup(u->parts, GUINT_TO_POINTER(want->number));
        if (!part || strcmp(part->attr.etag, want->etag) != 0 ||
            part->checksum.set != want->checksum.set ||
            (part->checksum.set && part->checksum.crc32c != want->checksum.crc32c)) {
            invalid(&req->res, "InvalidPart");
            u = NULL;
        } else if (i + 1 < req->n_parts && part->attr.size < STORE_PART_MIN) {
            invalid(&req->res, "EntityTooSmall");
            u = NULL;
        } else {
            gsize n;
            const guint8 *data = g_bytes_get_data(part->bytes, &n);
            if (n)
                g_byte_array_append(all, data, (guint)n);
        }
    }
    if (u && check_locked(f, req) == 0) {
        g_autoptr(GBytes) bytes = g_byte_array_free_to_bytes(g_steal_pointer(&all));
        store_locked(f, req, bytes, &u->headers, u->tags, u->storage_class);
        g_hash_table_remove(f->uploads, req->upload_id);
    }
    mutex_unlock(&f->lock);
}

static void run_mpu_abort(struct fake_store *f, struct store_request *req)
{
    mutex_lock(&f->lock);
    g_hash_table_remove(f->uploads, req->upload_id);
    mutex_unlock(&f->lock);
}

static int compare_parts(const void *a, const void *b)
{
    const struct store_part *const *pa = a, *const *pb = b;
    return (*pa)->number < (*pb)->number ? -1 : 1;
}

static void part_free(void *p)
{
    store_part_free(p);
}

static void run_mpu_list_parts(struct fake_store *f, struct store_request *req)
{
    mutex_lock(&f->lock);
    struct upload *u = find_upload_locked(f, req);
    if (u) {
        req->res.parts = g_ptr_array_new_with_free_func(part_free);
        GHashTableIter it;
        gpointer number, part;
        g_hash_table_iter_init(&it, u->parts);
        while (g_hash_table_iter_next(&it, &number, &part)) {
            const struct object *o = part;
            g_ptr_array_add(req->res.parts,
                            store_part_new(GPOINTER_TO_UINT(number), o->attr.size, o->attr.etag));
        }
        g_ptr_array_sort(req->res.parts, compare_parts);
    }
    mutex_unlock(&f->lock);
}

static void run_mpu_list(struct fake_store *f, struct store_request *req)
{
    g_autofree char *base = fake_name(req->bucket, req->prefix ? req->prefix : "");
    req->res.entries = g_ptr_array_new_with_free_func(entry_free);
    mutex_lock(&f->lock);
    GHashTableIter it;
    gpointer id, value;
    g_hash_table_iter_init(&it, f->uploads);
    while (g_hash_table_iter_next(&it, &id, &value)) {
        const struct upload *u = value;
        if (!g_str_has_prefix(u->name, base))
            continue;
        struct store_entry *e = store_entry_new(u->name + strlen(req->bucket) + 1);
        e->upload_id = g_strdup(id);
        e->mtime_ns = u->initiated_ns;
        g_ptr_array_add(req->res.entries, e);
    }
    req->res.clock_known = !f->mute;
    req->res.clock_ahead_ns = f->mute ? 0 : f->ahead_ns;
    mutex_unlock(&f->lock);
}

static void run_tags(struct fake_store *f, struct store_request *req)
{
    mutex_lock(&f->lock);
    struct object *o = fake_find_locked(f, req->bucket, req->key);
    if (!o) {
        no_such(&req->res, "NoSuchKey");
        mutex_unlock(&f->lock);
        return;
    }
    GHashTable *copy = tags_copy(req->verb == STORE_TAGS_PUT ? req->tags : o->tags);
    if (req->verb == STORE_TAGS_PUT) {
        g_clear_pointer(&o->tags, g_hash_table_unref);
        o->tags = copy;
    } else {
        req->res.tags = copy;
    }
    mutex_unlock(&f->lock);
}

void fake_run_verb(struct fake_store *f, struct item *it)
{
    struct store_request *req = it->req;
    switch (req->verb) {
    case STORE_HEAD:
    case STORE_GET:
        run_get(f, it);
        break;
    case STORE_PUT:
        run_put(f, req);
        break;
    case STORE_DELETE:
    case STORE_DELETE_MANY:
        run_delete(f, req);
        break;
    case STORE_COPY:
        run_copy(f, req);
        break;
    case STORE_LIST:
        run_list(f, req);
        break;
    case STORE_MPU_CREATE:
        run_mpu_create(f, req);
        break;
    case STORE_MPU_PART:
    case STORE_MPU_COPY_PART:
        run_mpu_part(f, req);
        break;
    case STORE_MPU_COMPLETE:
        run_mpu_complete(f, req);
        break;
    case STORE_MPU_ABORT:
        run_mpu_abort(f, req);
        break;
    case STORE_MPU_LIST_PARTS:
        run_mpu_list_parts(f, req);
        break;
    case STORE_MPU_LIST:
        run_mpu_list(f, req);
        break;
    case STORE_TAGS_GET:
    case STORE_TAGS_PUT:
        run_tags(f, req);
        break;
    default: /* buckets are always there */
        req->res.entries = g_ptr_array_new_with_free_func(entry_free);
        break;
    }
}
