/* SPDX-License-Identifier: Apache-2.0
 *
 * conformance: what the cases of the suite are written with. One thread runs the cases; done
 * callbacks run on the store's threads and touch a batch only, under its lock.
 */
#include "tests/lib/conformance.h"

#include <stdlib.h>
#include <unistd.h>

#include "base/mutex.h"

void conf_add(GArray *cases, const char *name, void (*run)(struct conf *c, const void *arg),
              const void *arg)
{
    struct conf_case x = {.name = g_intern_string(name), .run = run, .arg = arg};
    g_array_append_val(cases, x);
}

void conf_add_network(GArray *cases, const char *name, void (*run)(struct conf *c, const void *arg))
{
    struct conf_case x = {.name = g_intern_string(name), .run = run, .network = true};
    g_array_append_val(cases, x);
}

bool conf_fail(struct conf *c, const char *fmt, ...)
{
    if (c->failure == NULL) {
        va_list ap;
        va_start(ap, fmt);
        c->failure = g_strdup_vprintf(fmt, ap);
        va_end(ap);
    }
    return false;
}

char *conf_show(const char *key)
{
    if (key == NULL) {
        return g_strdup("(null)");
    }
    g_autofree char *s = g_strescape(key, NULL);
    return strlen(s) > 80 ? g_strdup_printf("%.60s… (%zu bytes)", s, strlen(key))
                          : g_steal_pointer(&s);
}

char *conf_key(struct conf *c, const char *suffix)
{
    return g_strdup_printf("%s/%s", c->name, suffix);
}

static const char *class_name(enum store_class cls)
{
    static const char *const names[] = {
        [STORE_CLASS_OK] = "OK",
        [STORE_CLASS_RETRY] = "RETRY",
        [STORE_CLASS_AUTH] = "AUTH",
        [STORE_CLASS_CONFLICT] = "CONFLICT",
        [STORE_CLASS_AMBIGUOUS] = "AMBIGUOUS",
        [STORE_CLASS_FATAL] = "FATAL",
    };
    return names[cls];
}

static const char *error_name(int err)
{
    return err == 0 ? "0" : strerrorname_np(-err);
}

int conf_run(struct conf *c, struct store_request *req)
{
    if (req->bucket == NULL && req->verb != STORE_BUCKETS) {
        req->bucket = c->bucket;
    }
    return store_run(c->store, req, NULL);
}

bool conf_expect(struct conf *c, struct store_request *req, int err, enum store_class cls)
{
    conf_run(c, req);
    if (req->res.err == err && req->res.cls == cls) {
        return true;
    }
    g_autofree char *key = conf_show(req->key);
    return conf_fail(c, "%s %s: expected %s %s, got %s %s %d %s (%s)", store_verb_name(req->verb),
                     key, error_name(err), class_name(cls), error_name(req->res.err),
                     class_name(req->res.cls), req->res.http_status, req->res.code,
                     req->res.detail);
}

bool conf_ok(struct conf *c, struct store_request *req)
{
    return conf_expect(c, req, 0, STORE_CLASS_OK);
}

bool conf_expect_code(struct conf *c, struct store_request *req, int err, enum store_class cls,
                      const char *code)
{
    if (!conf_expect(c, req, err, cls)) {
        return false;
    }
    return strcmp(req->res.code, code) == 0 ||
           conf_fail(c, "%s: expected code %s, got %s", store_verb_name(req->verb), code,
                     req->res.code);
}

/* ---- bytes ---- */

static uint64_t mix(uint64_t x) /* splitmix64's finalizer */
{
    x += 0x9e3779b97f4a7c15ULL;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
}

void conf_pattern_fill(uint64_t seed, uint64_t off, void *buf, size_t n)
{
    guint8 *p = buf;
    while (n > 0) {
        uint64_t word = GUINT64_TO_LE(mix(seed * 0x100000001b3ULL + off / 8));
        size_t skip = off % 8, k = MIN(n, 8 - skip);
        memcpy(p, (const guint8 *)&word + skip, k);
        p += k;
        off += k;
        n -= k;
    }
}

GBytes *conf_pattern(uint64_t seed, size_t n)
{
    guint8 *p = g_malloc(n + 1);
    conf_pattern_fill(seed, 0, p, n);
    return g_bytes_new_take(p, n);
}

char *conf_md5(GBytes *b)
{
    return g_compute_checksum_for_bytes(G_CHECKSUM_MD5, b);
}

static ssize_t memory_read(void *ctx, uint64_t off, void *buf, size_t n)
{
    struct conf_memory *m = ctx;
    memcpy(buf, m->data + off, n);
    return (ssize_t)n;
}

struct store_source conf_source(struct conf_memory *m, const void *data, size_t n)
{
    *m = (struct conf_memory){.data = data, .n = n};
    return (struct store_source){.read = memory_read, .ctx = m, .size = n};
}

static ssize_t pattern_read(void *ctx, uint64_t off, void *buf, size_t n)
{
    struct conf_pattern_source *p = ctx;
    conf_pattern_fill(p->seed, off, buf, n);
    return (ssize_t)n;
}

struct store_source conf_source_pattern(struct conf_pattern_source *p, uint64_t seed, uint64_t n)
{
    p->seed = seed;
    return (struct store_source){.read = pattern_read, .ctx = p, .size = n};
}

static int sink_write(void *ctx, uint64_t off, const void *buf, size_t n)
{
    struct conf_sink *s = ctx;
    s->disorder = s->disorder || off != s->next;
    s->next = off + n;
    g_byte_array_append(s->bytes, buf, (guint)n);
    return 0;
}

struct store_sink conf_sink(struct conf_sink *s, uint64_t off)
{
    *s = (struct conf_sink){.bytes = g_byte_array_new(), .next = off};
    return (struct store_sink){.write = sink_write, .ctx = s};
}

void conf_sink_clear(struct conf_sink *s)
{
    g_clear_pointer(&s->bytes, g_byte_array_unref);
}

/* ---- objects ---- */

bool conf_put(struct conf *c, const char *key, const void *data, size_t n, char **ret_etag)
{
    struct conf_memory m;
    REQUEST(r, .verb = STORE_PUT, .key = key, .source = conf_source(&m, data, n));
    if (!conf_ok(c, &r)) {
        return false;
    }
    if (r.res.object.etag == NULL || r.res.object.etag[0] == '\0' ||
        strchr(r.res.object.etag, '"') != NULL) {
        return conf_fail(c, "PUT gave the ETag %s", r.res.object.etag);
    }
    if (ret_etag != NULL) {
        *ret_etag = g_steal_pointer(&r.res.object.etag);
    }
    return true;
}

bool conf_put_text(struct conf *c, const char *key, const char *text)
{
    return conf_put(c, key, text, strlen(text), NULL);
}

bool conf_is(struct conf *c, const char *key, const void *data, size_t n)
{
    _cleanup_sink_ struct conf_sink sink;
    REQUEST(r, .verb = STORE_GET, .key = key, .sink = conf_sink(&sink, 0));
    if (!conf_ok(c, &r)) {
        return false;
    }
    g_autofree char *show = conf_show(key);
    if (sink.disorder) {
        return conf_fail(c, "GET %s: bytes came out of order", show);
    }
    if (sink.bytes->len != n || r.res.object.size != n || r.res.bytes != n) {
        return conf_fail(c,
                         "GET %s: expected %zu bytes, got %u; object.size %" G_GUINT64_FORMAT
                         ", bytes %" G_GUINT64_FORMAT,
                         show, n, sink.bytes->len, r.res.object.size, r.res.bytes);
    }
    if (n > 0 && memcmp(sink.bytes->data, data, n) != 0) {
        return conf_fail(c, "GET %s: other bytes", show);
    }
    return true;
}

bool conf_is_text(struct conf *c, const char *key, const char *text)
{
    return conf_is(c, key, text, strlen(text));
}

bool conf_is_bytes(struct conf *c, const char *key, GBytes *b)
{
    gsize n;
    const void *p = g_bytes_get_data(b, &n);
    return conf_is(c, key, p, n);
}

bool conf_absent(struct conf *c, const char *key)
{
    REQUEST(r, .verb = STORE_HEAD, .key = key);
    return conf_expect(c, &r, -ENOENT, STORE_CLASS_FATAL);
}

bool conf_etag(struct conf *c, const char *key, char **ret)
{
    REQUEST(r, .verb = STORE_HEAD, .key = key);
    if (!conf_ok(c, &r)) {
        return false;
    }
    *ret = g_steal_pointer(&r.res.object.etag);
    return true;
}

bool conf_delete(struct conf *c, const char *key)
{
    REQUEST(r, .verb = STORE_DELETE, .key = key);
    return conf_ok(c, &r);
}

/* ---- multipart ---- */

bool conf_mpu_create(struct conf *c, const char *key, char **ret_id)
{
    REQUEST(r, .verb = STORE_MPU_CREATE, .key = key);
    if (!conf_ok(c, &r)) {
        return false;
    }
    if (r.res.upload_id == NULL || r.res.upload_id[0] == '\0') {
        return conf_fail(c, "MPU_CREATE gave no upload id");
    }
    *ret_id = g_steal_pointer(&r.res.upload_id);
    return true;
}

bool conf_mpu_part(struct conf *c, const char *key, const char *id, unsigned number, GBytes *b,
                   struct store_part *ret)
{
    gsize n;
    const void *p = g_bytes_get_data(b, &n);
    struct conf_memory m;
    REQUEST(r, .verb = STORE_MPU_PART, .key = key, .upload_id = id, .part_number = number,
            .source = conf_source(&m, p, n));
    if (!conf_ok(c, &r)) {
        return false;
    }
    g_autofree char *md5 = conf_md5(b);
    if (g_strcmp0(md5, r.res.object.etag) != 0) {
        return conf_fail(c, "part %u: ETag %s is not the MD5 %s", number, r.res.object.etag, md5);
    }
    if (ret != NULL) {
        g_free(ret->etag);
        *ret = (struct store_part){
            .number = number, .size = n, .etag = g_steal_pointer(&r.res.object.etag)};
    }
    return true;
}

bool conf_mpu_complete(struct conf *c, const char *key, const char *id, struct store_part *parts,
                       size_t n, char **ret_etag)
{
    REQUEST(r, .verb = STORE_MPU_COMPLETE, .key = key, .upload_id = id, .parts = parts,
            .n_parts = n);
    if (!conf_ok(c, &r)) {
        return false;
    }
    if (ret_etag != NULL) {
        *ret_etag = g_steal_pointer(&r.res.object.etag);
    }
    return true;
}

bool conf_mpu_abort(struct conf *c, const char *key, const char *id)
{
    REQUEST(r, .verb = STORE_MPU_ABORT, .key = key, .upload_id = id);
    return conf_ok(c, &r);
}

/* ---- listings ---- */

bool conf_list(struct conf *c, const struct store_request *like, GPtrArray **ret)
{
    g_autoptr(GPtrArray) lines = g_ptr_array_new_with_free_func(g_free);
    g_autofree char *token = NULL;
    for (unsigned page = 0;; page++) {
        REQUEST(r, .verb = STORE_LIST, .bucket = like->bucket, .prefix = like->prefix,
                .delimiter = like->delimiter, .start_after = like->start_after,
                .max_keys = like->max_keys, .token = token);
        if (!conf_ok(c, &r)) {
            return false;
        }
        unsigned max = like->max_keys > 0 ? like->max_keys : STORE_LIST_MAX;
        if (r.res.entries == NULL || r.res.entries->len > max) {
            return conf_fail(c, "LIST: more entries than asked for");
        }
        for (guint i = 0; i < r.res.entries->len; i++) {
            const struct store_entry *e = r.res.entries->pdata[i];
            g_ptr_array_add(lines, g_strdup_printf("%s%s", e->key, e->is_prefix ? "*" : ""));
            if (e->is_prefix == (e->etag != NULL)) {
                return conf_fail(c, "LIST: an entry's ETag: %s %s", e->key, e->etag);
            }
        }
        if (page > 10000) {
            return conf_fail(c, "LIST: pages without end");
        }
        g_free(token);
        token = g_steal_pointer(&r.res.token);
        if (token == NULL) {
            break;
        }
    }
    *ret = g_steal_pointer(&lines);
    return true;
}

bool conf_list_is(struct conf *c, const struct store_request *like, const char *strip,
                  const char *expected)
{
    g_autoptr(GPtrArray) lines = NULL;
    if (!conf_list(c, like, &lines)) {
        return false;
    }
    g_autoptr(GString) all = g_string_new(NULL);
    for (guint i = 0; i < lines->len; i++) {
        const char *line = lines->pdata[i];
        if (!g_str_has_prefix(line, strip)) {
            return conf_fail(c, "LIST: %s is not below %s", line, strip);
        }
        g_string_append_printf(all, "%s%s", i > 0 ? "\n" : "", line + strlen(strip));
    }
    if (strcmp(all->str, expected) == 0) {
        return true;
    }
    g_autofree char *got = g_strescape(all->str, NULL);
    g_autofree char *want = g_strescape(expected, NULL);
    return conf_fail(c, "LIST in pages of %u: expected \"%s\", got \"%s\"",
                     like->max_keys > 0 ? like->max_keys : STORE_LIST_MAX, want, got);
}

/* ---- buckets ---- */

char *conf_bucket_name(void)
{
    g_autofree char *uuid = g_uuid_string_random();
    return g_strdup_printf("conf-%.23s", uuid);
}

char *conf_bucket_new(struct conf *c)
{
    g_autofree char *name = conf_bucket_name();
    REQUEST(r, .verb = STORE_BUCKET_CREATE, .bucket = name);
    return conf_ok(c, &r) ? g_steal_pointer(&name) : NULL;
}

/* One walk over what is listed, as a server may list what it cannot delete. */
static void remove_listed(struct conf *c, const char *bucket)
{
    g_autofree char *token = NULL;
    do {
        REQUEST(l, .verb = STORE_LIST, .bucket = bucket, .token = token);
        if (conf_run(c, &l) != 0 || l.res.entries->len == 0) {
            return;
        }
        g_autoptr(GPtrArray) keys = g_ptr_array_new();
        for (guint i = 0; i < l.res.entries->len; i++) {
            g_ptr_array_add(keys, ((struct store_entry *)l.res.entries->pdata[i])->key);
        }
        REQUEST(d, .verb = STORE_DELETE_MANY, .bucket = bucket,
                .keys = (const char *const *)keys->pdata, .n_keys = keys->len);
        if (conf_run(c, &d) != 0) {
            return;
        }
        g_free(token);
        token = g_steal_pointer(&l.res.token);
    } while (token != NULL);
}

void conf_bucket_remove(struct conf *c, const char *bucket)
{
    REQUEST(u, .verb = STORE_MPU_LIST, .bucket = bucket);
    if (conf_run(c, &u) == 0) {
        for (guint i = 0; i < u.res.entries->len; i++) {
            const struct store_entry *e = u.res.entries->pdata[i];
            REQUEST(a, .verb = STORE_MPU_ABORT, .bucket = bucket, .key = e->key,
                    .upload_id = e->upload_id);
            conf_run(c, &a);
        }
    }
    /* Again: some servers list keys below a key only when that is gone. */
    REQUEST(r, .verb = STORE_BUCKET_DELETE, .bucket = bucket);
    for (unsigned i = 0; i < 4; i++) {
        remove_listed(c, bucket);
        if (conf_run(c, &r) != -ENOTEMPTY) {
            break;
        }
    }
    if (r.res.err != 0) {
        conf_fail(c, "the bucket %s could not be removed: %s %s", bucket, error_name(r.res.err),
                  r.res.code);
    }
}

/* ---- batches ---- */

struct slot {
    struct store_request req;
    struct conf_batch *batch;
    unsigned done; /* batch->lock */
};

struct conf_batch {
    struct conf *conf;
    size_t n;
    struct slot *slots;
    struct mutex lock;
    struct cond changed;
    size_t under_way; /* lock */
};

struct conf_batch *conf_batch_new(struct conf *c, size_t n)
{
    struct conf_batch *b = g_new0(struct conf_batch, 1);
    b->conf = c;
    b->n = n;
    b->slots = g_new0(struct slot, n);
    mutex_init(&b->lock, RANK_LEAF);
    cond_init(&b->changed);
    return b;
}

struct store_request *conf_batch_get(struct conf_batch *b, size_t i)
{
    return &b->slots[i].req;
}

static void batch_done(struct store_request *req)
{
    struct slot *s = req->ctx;
    struct conf_batch *b = s->batch;
    mutex_lock(&b->lock);
    s->done++;
    b->under_way--;
    cond_broadcast(&b->changed);
    mutex_unlock(&b->lock);
}

void conf_batch_run(struct conf_batch *b, size_t width)
{
    for (size_t i = 0; i < b->n; i++) {
        struct slot *s = &b->slots[i];
        s->batch = b;
        s->req.done = batch_done;
        s->req.ctx = s;
        if (s->req.bucket == NULL) {
            s->req.bucket = b->conf->bucket;
        }
        mutex_lock(&b->lock);
        while (b->under_way >= width) {
            cond_wait(&b->changed, &b->lock);
        }
        b->under_way++;
        mutex_unlock(&b->lock);
        store_submit(b->conf->store, &s->req);
    }
    mutex_lock(&b->lock);
    while (b->under_way > 0) {
        cond_wait(&b->changed, &b->lock);
    }
    mutex_unlock(&b->lock);
}

unsigned conf_batch_done(struct conf_batch *b, size_t i)
{
    mutex_lock(&b->lock);
    unsigned n = b->slots[i].done;
    mutex_unlock(&b->lock);
    return n;
}

void conf_batch_free(struct conf_batch *b)
{
    for (size_t i = 0; i < b->n; i++) {
        store_request_clear(&b->slots[i].req);
    }
    cond_fini(&b->changed);
    mutex_fini(&b->lock);
    g_free(b->slots);
    g_free(b);
}
