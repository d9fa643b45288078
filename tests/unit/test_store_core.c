/* SPDX-License-Identifier: Apache-2.0
 *
 * s3/store: the contract's asserts, exactly-once, the synchronous face, copies and moves of what
 * requests carry; s3/stats above the fake store.
 */
#include <errno.h>
#include <glib.h>
#include <string.h>
#include <unistd.h>

#include "base/cancel.h"
#include "base/thread.h"
#include "s3/stats.h"
#include "s3/store.h"
#include "tests/lib/fake_store.h"
#include "tests/lib/seed.h"

struct buffer {
    char *data;
    uint64_t size, from, end; /* end: next offset expected */
};

static int buffer_write(void *ctx, uint64_t off, const void *buf, size_t n)
{
    struct buffer *b = ctx;
    g_assert_cmpuint(off, ==, b->end);
    g_assert_cmpuint(off - b->from + n, <=, b->size);
    memcpy(b->data + (off - b->from), buf, n);
    b->end += n;
    return 0;
}

static ssize_t text_read(void *ctx, uint64_t off, void *buf, size_t n)
{
    memcpy(buf, (const char *)ctx + off, n);
    return (ssize_t)n;
}

static struct store_source text_source(char *text)
{
    return (struct store_source){.read = text_read, .ctx = text, .size = strlen(text)};
}

static struct store_request head_request(void)
{
    return (struct store_request){.verb = STORE_HEAD, .bucket = "b", .key = "k"};
}

/* The contract */

static void no_done(struct store_request *req)
{
}

static void ends_twice(struct store_request *req)
{
    store_complete(req);
}

static void submit_dying(struct store_request req)
{
    struct store *s = fake_store_new(&(struct fake_params){.seed = 1});
    if (!req.done)
        req.done = no_done;
    store_submit(s, &req);
}

static void breach_more(struct store_request *r, int i)
{
    switch (i) {
    case 10:
        r->if_none_match = true; /* on HEAD */
        break;
    case 11:
        r->verb = STORE_COPY; /* from nowhere */
        break;
    case 12:
        r->verb = STORE_PUT;
        r->source.size = 5; /* but nothing to read */
        break;
    default:
        r->done = ends_twice;
        break;
    }
}

static void breach(int i)
{
    char etag[] = "x";
    const struct store_part descending[] = {{.number = 2, .etag = etag},
                                            {.number = 1, .etag = etag}};
    g_autofree char *long_key = g_strnfill(STORE_KEY_MAX + 1, 'k');
    struct store_request r = head_request();
    switch (i) {
    case 0:
        r.verb = STORE_VERB_COUNT;
        break;
    case 1:
        r.bucket = NULL;
        break;
    case 2:
        r.key = "";
        break;
    case 3:
        r.key = long_key;
        break;
    case 4:
        r.verb = STORE_GET; /* no sink */
        break;
    case 5:
        r.verb = STORE_PUT;
        r.if_match = "x";
        r.if_none_match = true;
        break;
    case 6:
        r.verb = STORE_MPU_PART;
        r.upload_id = "u"; /* part 0 */
        break;
    case 7:
        r.verb = STORE_MPU_COMPLETE;
        r.upload_id = "u";
        r.parts = descending;
        r.n_parts = 2;
        break;
    case 8:
        r.verb = STORE_LIST;
        r.delimiter = "-";
        break;
    case 9:
        r.verb = STORE_DELETE_MANY;
        break;
    default:
        breach_more(&r, i);
        break;
    }
    submit_dying(r);
    pause(); /* the last case dies on the store's thread */
}

static const char *const breaches[] = {
    "*contract broken by ?*",
    "*HEAD*bucket*",
    "*HEAD*key_valid*",
    "*HEAD*key_valid*",
    "*GET*sink*",
    "*PUT*if_none_match*",
    "*MPU_PART*part_number*",
    "*COMPLETE*last*",
    "*LIST*delimiter*",
    "*DELETE_MANY*keys*",
    "*HEAD*PUT*",
    "*COPY*from_bucket*",
    "*PUT*source*",
    "*HEAD*before == STATE_UNDER_WAY*",
};

static void test_contract(void)
{
    for (int i = 0; i < (int)G_N_ELEMENTS(breaches); i++) {
        g_autofree char *path = g_strdup_printf("/store/contract/subprocess/%d", i);
        g_test_trap_subprocess(path, 60 * G_USEC_PER_SEC, 0);
        g_test_trap_assert_failed();

        g_test_trap_assert_stderr(breaches[i]);
    }
}

static void run_breach(const void *data)
{
    breach(GPOINTER_TO_INT(data));
}

/* The synchronous face */

static void test_run(void)
{
    struct store *s = fake_store_new(&(struct fake_params){.seed = 1});
    char text[] = "hello, world";
    _cleanup_request_ struct store_request put = {.verb = STORE_PUT, .bucket = "b", .key = "k"};
    put.source = text_source(text);
    g_assert_cmpint(store_run(s, &put, NULL), ==, 0);
    g_assert_nonnull(put.res.object.etag);
    g_assert_cmpint(put.res.cls, ==, STORE_CLASS_OK);

    char got[64];
    struct buffer out = {.data = got, .size = sizeof(got), .from = 7, .end = 7};
    _cleanup_request_ struct store_request get = {.verb = STORE_GET, .bucket = "b", .key = "k"};
    get.range = (struct store_range){.set = true, .off = 7, .len = 100};
    get.sink = (struct store_sink){.write = buffer_write, .ctx = &out};
    g_assert_cmpint(store_run(s, &get, NULL), ==, 0);
    g_assert_cmpuint(get.res.bytes, ==, 5);
    g_assert_cmpuint(get.res.object.size, ==, 12);
    g_assert_cmpmem(got, out.end - 7, "world", 5);

    /* Reuse without clearing: the old result is dropped by submit. */
    out.end = out.from = get.range.off = 0;
    get.if_match = "other";
    g_assert_cmpint(store_run(s, &get, NULL), ==, -ESTALE);
    g_assert_cmpint(get.res.cls, ==, STORE_CLASS_CONFLICT);
    g_assert_null(get.res.object.etag);
    _cleanup_request_ struct store_request missing = head_request();
    missing.key = "nothing";
    g_assert_cmpint(store_run(s, &missing, NULL), ==, -ENOENT);
    g_assert_cmpstr(missing.res.code, ==, "NoSuchKey");
    struct store_caps caps;
    store_get_caps(s, "b", &caps);
    g_assert_true(caps.put_if && !caps.list_meta);
    store_free(s);
    store_free(NULL);
}

static enum fake_action hold_all(void *ctx, struct store_request *req, uint64_t *cut)
{
    return FAKE_HOLD;
}

struct firing {
    struct store *s;
    struct cancel *c;
};

static void *fire_when_held(void *arg)
{
    struct firing *f = arg;
    fake_store_wait_held(f->s, 1);
    cancel_fire(f->c);
    return NULL;
}

static void test_run_cancel(void)
{
    struct store *s = fake_store_new(&(struct fake_params){.seed = 1, .hook = hold_all});
    struct firing f = {.s = s, .c = cancel_new()};
    pthread_t t;
    g_assert_cmpint(thread_start(&t, "fire", fire_when_held, &f), ==, 0);
    _cleanup_request_ struct store_request req = head_request();
    g_assert_cmpint(store_run(s, &req, f.c), ==, -EINTR);
    pthread_join(t, NULL);
    /* Fired already: not even submitted. */
    g_assert_cmpint(store_run(s, &req, f.c), ==, -EINTR);
    g_assert_cmpint(req.res.err, ==, -EINTR);
    g_assert_cmpuint(fake_store_count(s, STORE_HEAD), ==, 1);
    cancel_free(f.c);
    store_free(s);
}

static void *fire_now(void *arg)
{
    cancel_fire(arg);
    return NULL;
}

/* Cancel and completion at the same time, in any order: one result, no trace of the request left.
 */
static void test_run_cancel_race(void)
{
    struct store *s = fake_store_new(&(struct fake_params){.seed = test_seed()});
    g_free(fake_store_put(s, "b", "k", "x", 1));
    for (int i = 0; i < 500; i++) {
        struct cancel *c = cancel_new();
        pthread_t t;
        g_assert_cmpint(thread_start(&t, "fire", fire_now, c), ==, 0);
        struct store_request *req = g_new(struct store_request, 1);
        *req = head_request();
        int r = store_run(s, req, c);
        g_assert_true(r == 0 || r == -EINTR);
        store_request_clear(req);
        g_free(req);
        pthread_join(t, NULL);
        cancel_free(c);
    }
    store_free(s);
}

/* Values */

static void test_headers(void)
{
    _cleanup_headers_ struct store_headers h = {.content_type = g_strdup("video/mp4")};
    g_assert_null(store_headers_get_meta(&h, "uuid"));
    store_headers_set_meta(&h, "Mlopsfs-UUID", "1");
    store_headers_set_meta(&h, "mode", "33188");
    store_headers_set_meta(&h, "mlopsfs-uuid", "2");
    g_assert_cmpuint(g_hash_table_size(h.meta), ==, 2);
    g_assert_cmpstr(store_headers_get_meta(&h, "MLOPSFS-uuid"), ==, "2");
    _cleanup_headers_ struct store_headers copy;
    store_headers_copy(&copy, &h);
    store_headers_set_meta(&h, "mode", NULL);
    store_headers_set_meta(&h, "mlopsfs-uuid", NULL);
    store_headers_set_meta(&h, "absent", NULL);
    g_assert_null(h.meta);
    g_assert_cmpstr(store_headers_get_meta(&copy, "mode"), ==, "33188");
    g_assert_cmpstr(copy.content_type, ==, "video/mp4");
    _cleanup_headers_ struct store_headers empty;
    store_headers_copy(&empty, NULL);
    g_assert_null(empty.content_type);
}

static void test_result(void)
{
    struct store_result a = {0}, b = {0};
    store_result_fail(&a, -EIO, STORE_CLASS_RETRY, NULL, "attempt %d", 3);
    g_assert_cmpstr(a.code, ==, "");
    g_assert_cmpstr(a.detail, ==, "attempt 3");
    g_autofree char *longest = g_strnfill(1000, 'x');
    store_result_fail(&a, -EACCES, STORE_CLASS_AUTH, longest, "%s", longest);
    g_assert_cmpuint(strlen(a.code), ==, sizeof(a.code) - 1);
    g_assert_cmpuint(strlen(a.detail), ==, sizeof(a.detail) - 1);
    a.token = g_strdup("next");
    a.upload_id = g_strdup("upload");
    a.object.etag = g_strdup("etag");
    store_headers_set_meta(&a.object.headers, "n", "v");
    a.tags = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    a.failed = g_ptr_array_new_with_free_func(g_free);
    g_ptr_array_add(a.failed, g_strdup("key"));
    b.token = g_strdup("dropped by move");
    store_result_move(&b, &a);
    g_assert_cmpint(a.err, ==, 0);
    g_assert_null(a.token);
    g_assert_null(a.failed);
    g_assert_cmpstr(b.token, ==, "next");
    g_assert_cmpint(b.err, ==, -EACCES);
    _cleanup_object_ struct store_object o;
    store_object_copy(&o, &b.object);
    store_result_clear(&b);
    g_assert_null(b.object.etag);
    g_assert_cmpstr(o.etag, ==, "etag");
    g_assert_cmpstr(store_headers_get_meta(&o.headers, "N"), ==, "v");
    store_result_clear(&b);
}

static void test_names(void)
{
    for (int v = 0; v < STORE_VERB_COUNT; v++)
        g_assert_cmpuint(strlen(store_verb_name((enum store_verb)v)), >=, 3);
    g_assert_cmpstr(store_verb_name(STORE_MPU_PART), ==, "MPU_PART");
    g_assert_true(store_verb_writes(STORE_TAGS_PUT));
    g_assert_false(store_verb_writes(STORE_MPU_LIST));
    store_entry_free(NULL);
    store_part_free(NULL);
    struct store_part *p = store_part_new(3, 5, "e");
    g_assert_cmpuint(p->number, ==, 3);
    store_part_free(p);
    struct store_entry *e = store_entry_new("k");
    g_assert_cmpstr(e->key, ==, "k");
    store_entry_free(e);
}

/* stats */

static void test_stats(void)
{
    struct store *fake = fake_store_new(&(struct fake_params){.seed = 1});
    struct store *s = store_stats_new(fake);
    char text[] = "0123456789";
    _cleanup_request_ struct store_request put = {.verb = STORE_PUT, .bucket = "b", .key = "k"};
    put.source = text_source(text);
    g_assert_cmpint(store_run(s, &put, NULL), ==, 0);
    char got[16];
    for (int i = 0; i < 3; i++) {
        struct buffer out = {.data = got, .size = sizeof(got), .from = 2, .end = 2};
        _cleanup_request_ struct store_request get = {.verb = STORE_GET, .bucket = "b", .key = "k"};
        get.range = (struct store_range){.set = true, .off = 2, .len = 4};
        get.sink = (struct store_sink){.write = buffer_write, .ctx = &out};
        g_assert_cmpint(store_run(s, &get, NULL), ==, 0);
        g_assert_cmpmem(got, 4, "2345", 4);
        g_assert_cmpstr(get.res.object.etag, ==, put.res.object.etag);
    }
    _cleanup_request_ struct store_request head = head_request();
    head.key = "absent";
    g_assert_cmpint(store_run(s, &head, NULL), ==, -ENOENT);
    struct store_stats n;
    store_stats_get(s, &n);
    g_assert_cmpuint(n.requests[STORE_PUT], ==, 1);
    g_assert_cmpuint(n.requests[STORE_GET], ==, 3);
    g_assert_cmpuint(n.requests[STORE_HEAD], ==, 1);
    g_assert_cmpuint(n.errors[STORE_HEAD], ==, 1);
    g_assert_cmpuint(n.errors[STORE_GET], ==, 0);
    g_assert_cmpuint(n.bytes_out, ==, 10);
    g_assert_cmpuint(n.bytes_in, ==, 12);
    g_assert_cmpuint(n.in_flight, ==, 0);
    g_assert_cmpuint(n.latency_ns, >, 0);
    struct store_caps caps;
    store_get_caps(s, "b", &caps);
    g_assert_true(caps.copy_part);
    store_free(s);
}

static void test_stats_cancel(void)
{
    struct store *fake = fake_store_new(&(struct fake_params){.seed = 1, .hook = hold_all});
    struct store *s = store_stats_new(fake);
    struct firing f = {.s = fake, .c = cancel_new()};
    pthread_t t;
    g_assert_cmpint(thread_start(&t, "fire", fire_when_held, &f), ==, 0);
    _cleanup_request_ struct store_request req = head_request();
    g_assert_cmpint(store_run(s, &req, f.c), ==, -EINTR);
    pthread_join(t, NULL);
    struct store_stats n;
    store_stats_get(s, &n);
    g_assert_cmpuint(n.errors[STORE_HEAD], ==, 1);
    g_assert_cmpuint(n.in_flight, ==, 0);
    cancel_free(f.c);
    store_free(s);
}

/* The fake itself: others' tests lean on it. */

static unsigned list_all(struct store *s, const char *prefix, const char *delimiter, unsigned max,
                         GString *keys)
{
    g_autofree char *token = NULL;
    unsigned pages = 0;
    do {
        _cleanup_request_ struct store_request l = {.verb = STORE_LIST, .bucket = "b"};
        l.prefix = prefix;
        l.delimiter = delimiter;
        l.max_keys = max;
        l.token = token;
        g_assert_cmpint(store_run(s, &l, NULL), ==, 0);
        for (guint i = 0; i < l.res.entries->len; i++) {
            struct store_entry *e = l.res.entries->pdata[i];
            g_string_append_printf(keys, "%s ", e->key);
        }
        g_free(token);
        token = g_steal_pointer(&l.res.token);
        pages++;
    } while (token);
    return pages;
}

static void test_fake_list(void)
{
    struct store *s = fake_store_new(&(struct fake_params){.seed = 1});
    static const char *const keys[] = {"a", "a/b", "a/c/d", "b/x", "b/y", "b0", "c"};
    for (size_t i = 0; i < G_N_ELEMENTS(keys); i++)
        g_free(fake_store_put(s, "b", keys[i], "x", 1));
    g_free(fake_store_put(s, "bb", "other", "x", 1));
    for (unsigned max = 0; max <= 3; max++) {
        g_autoptr(GString) all = g_string_new(NULL), top = g_string_new(NULL);
        unsigned pages = list_all(s, NULL, NULL, max, all);
        g_assert_cmpstr(all->str, ==, "a a/b a/c/d b/x b/y b0 c ");
        g_assert_cmpuint(pages, ==, max ? (7 + max - 1) / max : 1);
        list_all(s, NULL, "/", max, top);
        g_assert_cmpstr(top->str, ==, "a a/ b/ b0 c ");
        g_string_truncate(top, 0);
        list_all(s, "a/", "/", max, top);
        g_assert_cmpstr(top->str, ==, "a/b a/c/ ");
    }
    store_free(s);
}

static void test_fake_multipart(void)
{
    struct store *s = fake_store_new(&(struct fake_params){.seed = 1});
    g_autofree char *big = g_strnfill(STORE_PART_MIN, 'p');
    char end[] = "end";
    _cleanup_request_ struct store_request create = {
        .verb = STORE_MPU_CREATE, .bucket = "b", .key = "k"};
    g_assert_cmpint(store_run(s, &create, NULL), ==, 0);
    struct store_part parts[2] = {{.number = 1}, {.number = 2}};
    for (unsigned i = 0; i < 2; i++) {
        _cleanup_request_ struct store_request part = {
            .verb = STORE_MPU_PART, .bucket = "b", .key = "k"};
        part.upload_id = create.res.upload_id;
        part.part_number = i + 1;
        part.source = text_source(i ? end : big);
        g_assert_cmpint(store_run(s, &part, NULL), ==, 0);
        parts[i].etag = g_strdup(part.res.object.etag);
    }
    g_assert_cmpuint(fake_store_uploads(s), ==, 1);
    g_assert_null(fake_store_get(s, "b", "k", NULL));
    _cleanup_request_ struct store_request complete = {
        .verb = STORE_MPU_COMPLETE, .bucket = "b", .key = "k", .if_none_match = true};
    complete.upload_id = create.res.upload_id;
    complete.parts = parts;
    complete.n_parts = 2;
    g_assert_cmpint(store_run(s, &complete, NULL), ==, 0);
    g_assert_cmpint(store_run(s, &complete, NULL), ==, -ENOENT);
    g_assert_cmpuint(fake_store_uploads(s), ==, 0);
    g_autoptr(GBytes) got = fake_store_get(s, "b", "k", NULL);
    g_assert_cmpuint(g_bytes_get_size(got), ==, STORE_PART_MIN + 3);
    g_free(parts[0].etag);
    g_free(parts[1].etag);
    store_free(s);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/store/contract", test_contract);
    for (int i = 0; i < (int)G_N_ELEMENTS(breaches); i++) {
        g_autofree char *path = g_strdup_printf("/store/contract/subprocess/%d", i);
        g_test_add_data_func(path, GINT_TO_POINTER(i), run_breach);
    }
    g_test_add_func("/store/run", test_run);
    g_test_add_func("/store/run/cancel", test_run_cancel);
    g_test_add_func("/store/run/cancel-race", test_run_cancel_race);
    g_test_add_func("/store/headers", test_headers);
    g_test_add_func("/store/result", test_result);
    g_test_add_func("/store/names", test_names);
    g_test_add_func("/stats/counts", test_stats);
    g_test_add_func("/stats/cancel", test_stats_cancel);
    g_test_add_func("/fake/list", test_fake_list);
    g_test_add_func("/fake/multipart", test_fake_multipart);
    return g_test_run();
}
