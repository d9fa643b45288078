/* SPDX-License-Identifier: Apache-2.0
 *
 * store: the contract between the layers, checked where requests pass (store_submit, store_cancel,
 * store_complete), the synchronous face (store_run), and what requests and results are made of.
 *
 * A request's `state` goes IDLE → UNDER_WAY (submit) → ENDED (complete) → UNDER_WAY …; it is
 * changed atomically, so that a second completion is caught whichever threads race. The checks
 * stay in release builds: they cost nothing beside a request, and a request that ends twice would
 * otherwise be someone's freed memory.
 *
 * A layer's cancel may be called while the layer is inside store_complete() for that request, as
 * the caller cannot know yet: layers look the request up under their lock and ignore it then.
 */
#include "s3/store.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cancel.h"
#include "base/mutex.h"

enum { STATE_IDLE = 0, STATE_UNDER_WAY = 0x5d0b, STATE_ENDED = 0x5d0c };

static const char *const verb_names[STORE_VERB_COUNT] = {
    [STORE_HEAD] = "HEAD",
    [STORE_GET] = "GET",
    [STORE_PUT] = "PUT",
    [STORE_DELETE] = "DELETE",
    [STORE_DELETE_MANY] = "DELETE_MANY",
    [STORE_COPY] = "COPY",
    [STORE_LIST] = "LIST",
    [STORE_BUCKETS] = "BUCKETS",
    [STORE_BUCKET_CREATE] = "BUCKET_CREATE",
    [STORE_BUCKET_DELETE] = "BUCKET_DELETE",
    [STORE_MPU_CREATE] = "MPU_CREATE",
    [STORE_MPU_PART] = "MPU_PART",
    [STORE_MPU_COPY_PART] = "MPU_COPY_PART",
    [STORE_MPU_COMPLETE] = "MPU_COMPLETE",
    [STORE_MPU_ABORT] = "MPU_ABORT",
    [STORE_MPU_LIST_PARTS] = "MPU_LIST_PARTS",
    [STORE_MPU_LIST] = "MPU_LIST",
    [STORE_TAGS_GET] = "TAGS_GET",
    [STORE_TAGS_PUT] = "TAGS_PUT",
};

const char *store_verb_name(enum store_verb v)
{
    return (unsigned)v < STORE_VERB_COUNT ? verb_names[v] : "?";
}

/* The contract */

static _Noreturn void breach(const char *what, const struct store_request *req)
{
    fprintf(stderr, "store: contract broken by %s: %s\n", store_verb_name(req->verb), what);
    abort();
}

#define CONTRACT(cond, req)                                                                        \
    do {                                                                                           \
        if (!(cond))                                                                               \
            breach(#cond, (req));                                                                  \
    } while (0)

static bool verb_has_key(enum store_verb v)
{
    return v != STORE_LIST && v != STORE_BUCKETS && v != STORE_BUCKET_CREATE &&
           v != STORE_BUCKET_DELETE && v != STORE_DELETE_MANY && v != STORE_MPU_LIST;
}

static bool verb_has_upload(enum store_verb v)
{
    return v == STORE_MPU_PART || v == STORE_MPU_COPY_PART || v == STORE_MPU_COMPLETE ||
           v == STORE_MPU_ABORT || v == STORE_MPU_LIST_PARTS;
}

static bool key_valid(const char *key)
{
    return key && *key && strnlen(key, STORE_KEY_MAX + 1) <= STORE_KEY_MAX;
}

static void check_conditions(const struct store_request *req)
{
    enum store_verb v = req->verb;
    CONTRACT(!(req->if_match && req->if_none_match), req);
    if (req->if_match)
        CONTRACT(v == STORE_GET || v == STORE_HEAD || v == STORE_PUT || v == STORE_DELETE ||
                     v == STORE_MPU_COMPLETE || v == STORE_COPY,
                 req);
    if (req->if_none_match)
        CONTRACT(v == STORE_PUT || v == STORE_MPU_COMPLETE || v == STORE_COPY, req);
    if (req->range.set) {
        CONTRACT(v == STORE_GET || v == STORE_MPU_COPY_PART, req);
        CONTRACT(req->range.len <= UINT64_MAX - req->range.off, req);
    }
}

static void check_source(const struct store_request *req)
{
    CONTRACT(req->source.read || req->source.size == 0, req);
    CONTRACT(req->source.size <= STORE_PART_MAX, req);
}

static void check_complete(const struct store_request *req)
{
    CONTRACT(req->parts && req->n_parts >= 1 && req->n_parts <= STORE_PARTS_MAX, req);
    unsigned last = 0;
    for (size_t i = 0; i < req->n_parts; i++) {
        CONTRACT(req->parts[i].number > last && req->parts[i].etag, req);
        last = req->parts[i].number;
    }
    CONTRACT(last <= STORE_PARTS_MAX, req);
}

static void check_verb(const struct store_request *req)
{
    switch (req->verb) {
    case STORE_GET:
        CONTRACT(req->sink.write, req);
        break;
    case STORE_PUT:
        check_source(req);
        break;
    case STORE_DELETE_MANY:
        CONTRACT(req->keys && req->n_keys >= 1 && req->n_keys <= STORE_LIST_MAX, req);
        for (size_t i = 0; i < req->n_keys; i++)
            CONTRACT(key_valid(req->keys[i]), req);
        break;
    case STORE_COPY:
        CONTRACT(req->from_bucket && *req->from_bucket && key_valid(req->from_key), req);
        break;
    case STORE_LIST:
        CONTRACT(req->max_keys <= STORE_LIST_MAX, req);
        CONTRACT(!req->delimiter || strcmp(req->delimiter, "/") == 0, req);
        break;
    case STORE_MPU_PART:
        check_source(req);
        CONTRACT(req->part_number >= 1 && req->part_number <= STORE_PARTS_MAX, req);
        break;
    case STORE_MPU_COPY_PART:
        CONTRACT(req->from_bucket && *req->from_bucket && key_valid(req->from_key), req);
        CONTRACT(req->part_number >= 1 && req->part_number <= STORE_PARTS_MAX, req);
        break;
    case STORE_MPU_COMPLETE:
        check_complete(req);
        break;
    default:
        break;
    }
}

static void check_request(const struct store_request *req)
{
    CONTRACT((unsigned)req->verb < STORE_VERB_COUNT, req);
    CONTRACT((unsigned)req->prio < STORE_PRIO_COUNT, req);
    CONTRACT(req->done, req);
    if (req->verb != STORE_BUCKETS)
        CONTRACT(req->bucket && *req->bucket, req);
    if (verb_has_key(req->verb))
        CONTRACT(key_valid(req->key), req);
    if (verb_has_upload(req->verb))
        CONTRACT(req->upload_id && *req->upload_id, req);
    check_conditions(req);
    check_verb(req);
}

void store_submit(struct store *s, struct store_request *req)
{
    check_request(req);
    int before = __atomic_exchange_n(&req->state, STATE_UNDER_WAY, __ATOMIC_ACQ_REL);
    CONTRACT(before == STATE_IDLE || before == STATE_ENDED, req);
    store_result_clear(&req->res);
    req->layer = NULL;
    s->ops->submit(s, req);
}

void store_cancel(struct store *s, struct store_request *req)
{
    int state = __atomic_load_n(&req->state, __ATOMIC_ACQUIRE);
    CONTRACT(state == STATE_UNDER_WAY || state == STATE_ENDED, req);
    if (state == STATE_UNDER_WAY)
        s->ops->cancel(s, req);
}

void store_complete(struct store_request *req)
{
    assert(req->res.err <= 0);
    assert((req->res.err == 0) == (req->res.cls == STORE_CLASS_OK));
    int before = __atomic_exchange_n(&req->state, STATE_ENDED, __ATOMIC_ACQ_REL);
    CONTRACT(before == STATE_UNDER_WAY, req);
    req->done(req);
}

void store_get_caps(struct store *s, const char *bucket, struct store_caps *ret)
{
    *ret = (struct store_caps){0};
    s->ops->caps(s, bucket, ret);
}

static const struct {
    const char *name;
    size_t offset;
} cap_names[] = {
    {"put_if", offsetof(struct store_caps, put_if)},
    {"complete_if", offsetof(struct store_caps, complete_if)},
    {"copy_if", offsetof(struct store_caps, copy_if)},
    {"delete_if", offsetof(struct store_caps, delete_if)},
    {"copy_part", offsetof(struct store_caps, copy_part)},
    {"list_meta", offsetof(struct store_caps, list_meta)},
    {"checksum", offsetof(struct store_caps, checksum)},
    {"checksum_part", offsetof(struct store_caps, checksum_part)},
    {"checksum_mpu", offsetof(struct store_caps, checksum_mpu)},
    {"copy_into_checksum_mpu", offsetof(struct store_caps, copy_into_checksum_mpu)},
    {"head_tags", offsetof(struct store_caps, head_tags)},
};
static_assert(G_N_ELEMENTS(cap_names) == sizeof(struct store_caps) / sizeof(bool),
              "each capability has a name");

bool store_caps_parse(const char *text, struct store_caps *ret, char **ret_unknown)
{
    *ret = (struct store_caps){0};
    *ret_unknown = NULL;
    if (strcmp(text, "none") == 0)
        return true;
    g_auto(GStrv) words = g_strsplit_set(text, ",: ", -1);
    for (char **w = words; *w; w++) {
        size_t i = 0;
        while (i < G_N_ELEMENTS(cap_names) && strcmp(cap_names[i].name, *w) != 0)
            i++;
        if (i < G_N_ELEMENTS(cap_names)) {
            *(bool *)((char *)ret + cap_names[i].offset) = true;
        } else if (**w) {
            *ret_unknown = g_strdup(*w);
            return false;
        }
    }
    return true;
}

char *store_caps_print(const struct store_caps *caps)
{
    GString *s = g_string_new(NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(cap_names); i++)
        if (*(const bool *)((const char *)caps + cap_names[i].offset))
            g_string_append_printf(s, " %s", cap_names[i].name);
    return g_string_free(s, FALSE);
}

char *store_caps_names(void)
{
    GString *s = g_string_new(cap_names[0].name);
    for (size_t i = 1; i < G_N_ELEMENTS(cap_names); i++)
        g_string_append_printf(s, "%s%s", i + 1 < G_N_ELEMENTS(cap_names) ? ", " : " and ",
                               cap_names[i].name);
    return g_string_free(s, FALSE);
}

void store_free(struct store *s)
{
    if (s)
        s->ops->destroy(s);
}

/* The synchronous face */

struct run {
    struct mutex lock;
    struct cond changed;
    bool done;       /* lock */
    bool fired;      /* lock: the cancel token has */
    bool cancelling; /* lock: store_cancel() runs; done waits, so that cancel stays legal */
};

static void run_done(struct store_request *req)
{
    struct run *run = req->ctx;
    mutex_lock(&run->lock);
    while (run->cancelling)
        cond_wait(&run->changed, &run->lock);
    run->done = true;
    cond_broadcast(&run->changed); /* under the lock: run is gone right after it */
    mutex_unlock(&run->lock);
}

static void run_fired(void *ctx)
{
    struct run *run = ctx;
    mutex_lock(&run->lock);
    run->fired = true;
    cond_broadcast(&run->changed);
    mutex_unlock(&run->lock);
}

/* True if it asked for cancellation. */
static bool run_wait(struct run *run, struct store *s, struct store_request *req)
{
    bool asked = false;
    mutex_lock(&run->lock);
    while (!run->done) {
        if (!run->fired || asked) {
            cond_wait(&run->changed, &run->lock);
            continue;
        }
        /* The waiter cancels, not the firing thread: no lock may be held across the store. */
        asked = run->cancelling = true;
        mutex_unlock(&run->lock);
        store_cancel(s, req);
        mutex_lock(&run->lock);
        run->cancelling = false;
        cond_broadcast(&run->changed);
    }
    mutex_unlock(&run->lock);
    return asked;
}

int store_run(struct store *s, struct store_request *req, struct cancel *cancel)
{
    if (cancel_fired(cancel)) {
        store_result_clear(&req->res);
        store_result_fail(&req->res, -EINTR, STORE_CLASS_FATAL, NULL, "interrupted");
        return -EINTR;
    }
    struct run run = {0};
    mutex_init(&run.lock, RANK_LEAF);
    cond_init(&run.changed);
    req->done = run_done;
    req->ctx = &run;
    store_submit(s, req);
    struct cancel_watch watch = {.fired = run_fired, .ctx = &run};
    cancel_watch(cancel, &watch);
    bool asked = run_wait(&run, s, req);
    cancel_unwatch(cancel, &watch);
    cond_fini(&run.changed);
    mutex_fini(&run.lock);
    /* What ended by itself before the cancellation reached it keeps its result. */
    if (asked && req->res.err == -ECANCELED)
        req->res.err = -EINTR;
    return req->res.err;
}

bool store_refused_digest(const struct store_result *res)
{
    return res->err < 0 && (strcmp(res->code, "BadDigest") == 0 ||
                            strcmp(res->code, "XAmzContentChecksumMismatch") == 0 ||
                            strcmp(res->code, "XAmzContentSHA256Mismatch") == 0);
}

/* Requests and results */

void store_request_clear(struct store_request *req)
{
    CONTRACT(__atomic_load_n(&req->state, __ATOMIC_ACQUIRE) != STATE_UNDER_WAY, req);
    store_result_clear(&req->res);
}

void store_result_clear(struct store_result *res)
{
    store_object_clear(&res->object);
    if (res->entries)
        g_ptr_array_unref(res->entries);
    if (res->parts)
        g_ptr_array_unref(res->parts);
    if (res->failed)
        g_ptr_array_unref(res->failed);
    if (res->tags)
        g_hash_table_unref(res->tags);
    g_free(res->token);
    g_free(res->upload_id);
    memset(res, 0, sizeof(*res));
}

void store_result_move(struct store_result *to, struct store_result *from)
{
    store_result_clear(to);
    memcpy(to, from, sizeof(*to));
    memset(from, 0, sizeof(*from));
}

void store_result_fail(struct store_result *res, int err, enum store_class cls, const char *code,
                       const char *fmt, ...)
{
    assert(err < 0 && cls != STORE_CLASS_OK);
    res->err = err;
    res->cls = cls;
    g_strlcpy(res->code, code ? code : "", sizeof(res->code));
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(res->detail, sizeof(res->detail), fmt, ap);
    va_end(ap);
}

void store_headers_clear(struct store_headers *h)
{
    g_free(h->content_type);
    g_free(h->cache_control);
    g_free(h->content_disposition);
    g_free(h->content_encoding);
    g_free(h->content_language);
    g_free(h->expires);
    if (h->meta)
        g_hash_table_unref(h->meta);
    memset(h, 0, sizeof(*h));
}

static GHashTable *meta_new(void)
{
    return g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
}

void store_headers_copy(struct store_headers *to, const struct store_headers *from)
{
    memset(to, 0, sizeof(*to));
    if (!from)
        return;
    to->content_type = g_strdup(from->content_type);
    to->cache_control = g_strdup(from->cache_control);
    to->content_disposition = g_strdup(from->content_disposition);
    to->content_encoding = g_strdup(from->content_encoding);
    to->content_language = g_strdup(from->content_language);
    to->expires = g_strdup(from->expires);
    if (!from->meta)
        return;
    to->meta = meta_new();
    GHashTableIter it;
    gpointer name, value;
    g_hash_table_iter_init(&it, from->meta);
    while (g_hash_table_iter_next(&it, &name, &value))
        g_hash_table_replace(to->meta, g_strdup(name), g_strdup(value));
}

void store_headers_set_meta(struct store_headers *h, const char *name, const char *value)
{
    g_autofree char *lower = g_ascii_strdown(name, -1);
    if (value) {
        if (!h->meta)
            h->meta = meta_new();
        g_hash_table_replace(h->meta, g_steal_pointer(&lower), g_strdup(value));
    } else if (h->meta) {
        g_hash_table_remove(h->meta, lower);
        if (g_hash_table_size(h->meta) == 0)
            g_clear_pointer(&h->meta, g_hash_table_unref);
    }
}

const char *store_headers_get_meta(const struct store_headers *h, const char *name)
{
    if (!h->meta)
        return NULL;
    g_autofree char *lower = g_ascii_strdown(name, -1);
    return g_hash_table_lookup(h->meta, lower);
}

const char *store_class_kept(const char *storage_class)
{
    static const char *const defaults[] = {"STANDARD", "GLACIER", "DEEP_ARCHIVE", NULL};
    return storage_class && !g_strv_contains(defaults, storage_class) ? storage_class : NULL;
}

bool store_tags_equal(GHashTable *a, GHashTable *b)
{
    guint n = a ? g_hash_table_size(a) : 0;
    if (n != (b ? g_hash_table_size(b) : 0))
        return false;
    GHashTableIter it;
    gpointer name, value;
    if (n > 0)
        g_hash_table_iter_init(&it, a);
    while (n > 0 && g_hash_table_iter_next(&it, &name, &value))
        if (g_strcmp0(g_hash_table_lookup(b, name), value) != 0)
            return false;
    return true;
}

void store_object_clear(struct store_object *o)
{
    g_free(o->etag);
    g_free(o->storage_class);
    g_free(o->version_id);
    store_headers_clear(&o->headers);
    memset(o, 0, sizeof(*o));
}

void store_object_copy(struct store_object *to, const struct store_object *from)
{
    *to = (struct store_object){
        .etag = g_strdup(from->etag),
        .size = from->size,
        .mtime_ns = from->mtime_ns,
        .settled = from->settled,
        .storage_class = g_strdup(from->storage_class),
        .version_id = g_strdup(from->version_id),
        .untagged_ns = from->untagged_ns,
    };
    store_headers_copy(&to->headers, &from->headers);
}

struct store_entry *store_entry_new(const char *key)
{
    struct store_entry *e = g_new0(struct store_entry, 1);
    e->key = g_strdup(key);
    return e;
}

void store_entry_free(struct store_entry *e)
{
    if (!e)
        return;
    g_free(e->key);
    g_free(e->etag);
    g_free(e->storage_class);
    g_free(e->upload_id);
    g_free(e);
}

struct store_part *store_part_new(unsigned number, uint64_t size, const char *etag)
{
    struct store_part *p = g_new0(struct store_part, 1);
    *p = (struct store_part){.number = number, .size = size, .etag = g_strdup(etag)};
    return p;
}

void store_part_free(struct store_part *p)
{
    if (!p)
        return;
    g_free(p->etag);
    g_free(p);
}
