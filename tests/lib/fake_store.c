/* SPDX-License-Identifier: Apache-2.0
 *
 * fake_store: see fake_store.h. Threads: one of its own runs every request. One lock; it is not
 * held while the hook, a sink, a source or `done` runs.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/thread.h"
#include "tests/lib/fake.h"

uint64_t fake_random_below_locked(struct fake_store *f, uint64_t n)
{
    f->prng ^= f->prng >> 12;
    f->prng ^= f->prng << 25;
    f->prng ^= f->prng >> 27;
    return f->prng * 0x2545F4914F6CDD1DULL % n;
}

static int compare_names(const void *a, const void *b, void *ctx)
{
    return strcmp(a, b);
}

/* Requests */

static void finish(struct fake_store *f, struct item *it)
{
    struct store_request *req = it->req;
    mutex_lock(&f->lock);
    req->layer = NULL;
    f->under_way--;
    cond_broadcast(&f->changed);
    mutex_unlock(&f->lock);
    g_free(it);
    store_complete(req);
}

/* False when the hook wants the request held. */
static bool show(struct fake_store *f, struct item *it)
{
    struct store_request *req = it->req;
    it->cut = UINT64_MAX;
    it->action = f->p.hook ? f->p.hook(f->p.ctx, req, &it->cut) : FAKE_GO;
    if (it->action == FAKE_FAIL_AFTER)
        store_result_move(&it->planned, &req->res);
    mutex_lock(&f->lock);
    it->shown = true;
    bool hold = it->action == FAKE_HOLD && !it->cancelled;
    if (hold) {
        it->held = true;
        g_ptr_array_add(f->held, it);
        cond_broadcast(&f->changed);
    }
    mutex_unlock(&f->lock);
    return !hold;
}

static void process(struct fake_store *f, struct item *it, bool cancelled)
{
    struct store_request *req = it->req;
    if (!cancelled && !it->shown && !show(f, it))
        return;
    if (cancelled)
        store_result_fail(&req->res, -ECANCELED, STORE_CLASS_FATAL, NULL, "cancelled");
    else if (it->action != FAKE_FAIL)
        fake_run_verb(f, it);
    if (!cancelled && it->action == FAKE_FAIL_AFTER)
        store_result_move(&req->res, &it->planned);
    finish(f, it);
}

static void *fake_thread(void *arg)
{
    struct fake_store *f = arg;
    mutex_lock(&f->lock);
    while (!f->stop) {
        if (f->queue->len == 0) {
            cond_wait(&f->wake, &f->lock);
            continue;
        }
        guint i = (guint)fake_random_below_locked(f, f->queue->len);
        struct item *it = g_ptr_array_remove_index_fast(f->queue, i);
        bool cancelled = it->cancelled;
        mutex_unlock(&f->lock);
        process(f, it, cancelled);
        mutex_lock(&f->lock);
    }
    mutex_unlock(&f->lock);
    return NULL;
}

static void fake_submit(struct store *s, struct store_request *req)
{
    struct fake_store *f = (struct fake_store *)s;
    struct item *it = g_new0(struct item, 1);
    it->req = req;
    mutex_lock(&f->lock);
    req->layer = it;
    f->counts[req->verb]++;
    f->under_way++;
    g_ptr_array_add(f->queue, it);
    cond_signal(&f->wake);
    mutex_unlock(&f->lock);
}

static void requeue_locked(struct fake_store *f, struct item *it)
{
    it->held = false;
    g_ptr_array_add(f->queue, it);
    cond_signal(&f->wake);
}

static void fake_cancel(struct store *s, struct store_request *req)
{
    struct fake_store *f = (struct fake_store *)s;
    mutex_lock(&f->lock);
    struct item *it = req->layer;
    if (it) {
        it->cancelled = true;
        if (it->held) {
            g_ptr_array_remove_fast(f->held, it);
            requeue_locked(f, it);
        }
    }
    mutex_unlock(&f->lock);
}

static void fake_caps(struct store *s, const char *bucket, struct store_caps *ret)
{
    *ret = ((struct fake_store *)s)->caps;
}

static void fake_destroy(struct store *s)
{
    struct fake_store *f = (struct fake_store *)s;
    mutex_lock(&f->lock);
    assert(f->under_way == 0);
    f->stop = true;
    cond_signal(&f->wake);
    mutex_unlock(&f->lock);
    pthread_join(f->thread, NULL);
    g_ptr_array_unref(f->queue);
    g_ptr_array_unref(f->held);
    g_tree_unref(f->objects);
    g_hash_table_unref(f->uploads);
    cond_fini(&f->wake);
    cond_fini(&f->changed);
    mutex_fini(&f->lock);
    g_free(f);
}

static const struct store_ops fake_ops = {
    .name = "fake",
    .submit = fake_submit,
    .cancel = fake_cancel,
    .caps = fake_caps,
    .destroy = fake_destroy,
};

struct store *fake_store_new(const struct fake_params *p)
{
    struct fake_store *f = g_new0(struct fake_store, 1);
    f->store.ops = &fake_ops;
    f->p = *p;
    f->caps = p->caps ? *p->caps
                      : (struct store_caps){.put_if = true,
                                            .complete_if = true,
                                            .copy_if = true,
                                            .delete_if = true,
                                            .copy_part = true,
                                            .checksum = true,
                                            .checksum_part = true,
                                            .checksum_mpu = true,
                                            .copy_into_checksum_mpu = true,
                                            .head_tags = true};
    f->prng = p->seed * 0x9E3779B97F4A7C15ULL | 1;
    f->queue = g_ptr_array_new();
    f->held = g_ptr_array_new();
    f->objects = g_tree_new_full(compare_names, NULL, g_free, fake_object_free);
    f->uploads = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, fake_upload_free);
    mutex_init(&f->lock, RANK_ENGINE);
    cond_init(&f->wake);
    cond_init(&f->changed);
    int r = thread_start(&f->thread, "fake-store", fake_thread, f);
    if (r < 0)
        g_error("cannot start a thread: %s", g_strerror(-r));
    return &f->store;
}

/* The test's side */

char *fake_store_put(struct store *s, const char *bucket, const char *key, const void *bytes,
                     size_t n)
{
    struct fake_store *f = (struct fake_store *)s;
    g_autoptr(GBytes) b = g_bytes_new(bytes, n);
    mutex_lock(&f->lock);
    struct object *o = fake_object_new_locked(f, b, NULL);
    g_tree_replace(f->objects, fake_name(bucket, key), o);
    char *etag = g_strdup(o->attr.etag);
    mutex_unlock(&f->lock);
    return etag;
}

void fake_store_delete(struct store *s, const char *bucket, const char *key)
{
    struct fake_store *f = (struct fake_store *)s;
    g_autofree char *name = fake_name(bucket, key);
    mutex_lock(&f->lock);
    g_tree_remove(f->objects, name);
    mutex_unlock(&f->lock);
}

GBytes *fake_store_get(struct store *s, const char *bucket, const char *key,
                       struct store_object *ret_object)
{
    struct fake_store *f = (struct fake_store *)s;
    mutex_lock(&f->lock);
    struct object *o = fake_find_locked(f, bucket, key);
    gsize n = 0;
    const void *data = o ? g_bytes_get_data(o->bytes, &n) : NULL;
    GBytes *bytes = o ? g_bytes_new(data, n) : NULL;
    if (o && ret_object)
        store_object_copy(ret_object, &o->attr);
    mutex_unlock(&f->lock);
    return bytes;
}

size_t fake_store_uploads(struct store *s)
{
    struct fake_store *f = (struct fake_store *)s;
    mutex_lock(&f->lock);
    size_t n = g_hash_table_size(f->uploads);
    mutex_unlock(&f->lock);
    return n;
}

void fake_store_age_uploads(struct store *s, uint64_t ns)
{
    struct fake_store *f = (struct fake_store *)s;
    GHashTableIter it;
    gpointer upload;
    mutex_lock(&f->lock);
    g_hash_table_iter_init(&it, f->uploads);
    while (g_hash_table_iter_next(&it, NULL, &upload))
        ((struct upload *)upload)->initiated_ns -= (int64_t)ns;
    mutex_unlock(&f->lock);
}

void fake_store_set_clock(struct store *s, int64_t ahead_ns, bool tells)
{
    struct fake_store *f = (struct fake_store *)s;
    mutex_lock(&f->lock);
    f->ahead_ns = ahead_ns;
    f->mute = !tells;
    mutex_unlock(&f->lock);
}

void fake_store_release(struct store *s)
{
    struct fake_store *f = (struct fake_store *)s;
    mutex_lock(&f->lock);
    while (f->held->len)
        requeue_locked(f, g_ptr_array_remove_index(f->held, 0));
    mutex_unlock(&f->lock);
}

void fake_store_wait_held(struct store *s, unsigned n)
{
    struct fake_store *f = (struct fake_store *)s;
    mutex_lock(&f->lock);
    while (f->held->len < n)
        cond_wait(&f->changed, &f->lock);
    mutex_unlock(&f->lock);
}

void fake_store_wait_idle(struct store *s)
{
    struct fake_store *f = (struct fake_store *)s;
    mutex_lock(&f->lock);
    while (f->under_way > 0)
        cond_wait(&f->changed, &f->lock);
    mutex_unlock(&f->lock);
}

uint64_t fake_store_count(struct store *s, enum store_verb verb)
{
    struct fake_store *f = (struct fake_store *)s;
    mutex_lock(&f->lock);
    uint64_t n = f->counts[verb];
    mutex_unlock(&f->lock);
    return n;
}
