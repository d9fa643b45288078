/* SPDX-License-Identifier: Apache-2.0
 *
 * listing: see listing.h. A hash of names under one leaf lock; loading happens before the listing is
 * shared, so no lock is held across requests.
 */
#include "fs/listing.h"

#include <limits.h>
#include <string.h>

#include "base/clock.h"
#include "base/mutex.h"

struct listing {
    int refs; /* atomic */
    uint64_t time_ns; /* immutable once shared */
    struct mutex lock;
    GHashTable *names; /* lock: name (the entry's own) → entry */
};

void listing_entry_free(struct listing_entry *e)
{
    if (!e)
        return;
    g_free(e->name);
    g_free(e->etag);
    g_free(e->storage_class);
    g_free(e);
}

static void free_entry(gpointer p)
{
    listing_entry_free(p);
}

static struct listing_entry *entry_copy(const struct listing_entry *e)
{
    struct listing_entry *c = g_new(struct listing_entry, 1);

    *c = *e;
    c->name = g_strdup(e->name);
    c->etag = g_strdup(e->etag);
    c->storage_class = g_strdup(e->storage_class);
    return c;
}

struct listing *listing_new_empty(void)
{
    struct listing *l = g_new0(struct listing, 1);

    l->refs = 1;
    l->time_ns = clock_mono_ns();
    mutex_init(&l->lock, RANK_LEAF);
    l->names = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, free_entry);
    return l;
}

struct listing *listing_ref(struct listing *l)
{
    __atomic_add_fetch(&l->refs, 1, __ATOMIC_RELAXED);
    return l;
}

void listing_unref(struct listing *l)
{
    if (!l || __atomic_sub_fetch(&l->refs, 1, __ATOMIC_ACQ_REL))
        return;
    g_hash_table_unref(l->names);
    mutex_fini(&l->lock);
    g_free(l);
}

uint64_t listing_time_ns(const struct listing *l)
{
    return l->time_ns;
}

bool listing_name_valid(const char *name, size_t n)
{
    return n > 0 && n <= NAME_MAX && !memchr(name, '/', n) && !(n == 1 && name[0] == '.') &&
           !(n == 2 && name[0] == '.' && name[1] == '.');
}

static void put_locked(struct listing *l, struct listing_entry *e)
{
    struct listing_entry *old = g_hash_table_lookup(l->names, e->name);

    if (old && old->is_dir && !e->is_dir) { /* the directory hides the object */
        listing_entry_free(e);
        return;
    }
    g_hash_table_replace(l->names, e->name, e);
}

void listing_put(struct listing *l, const char *name, bool is_dir, const char *etag, uint64_t size, int64_t mtime_ns)
{
    struct listing_entry *e = g_new0(struct listing_entry, 1);

    e->name = g_strdup(name);
    e->etag = g_strdup(etag);
    e->is_dir = is_dir;
    e->size = size;
    e->mtime_ns = mtime_ns;
    mutex_lock(&l->lock);
    put_locked(l, e);
    mutex_unlock(&l->lock);
}

void listing_remove(struct listing *l, const char *name)
{
    mutex_lock(&l->lock);
    g_hash_table_remove(l->names, name);
    mutex_unlock(&l->lock);
}

struct listing_entry *listing_find(struct listing *l, const char *name)
{
    struct listing_entry *e;

    mutex_lock(&l->lock);
    e = g_hash_table_lookup(l->names, name);
    if (e)
        e = entry_copy(e);
    mutex_unlock(&l->lock);
    return e;
}

static int by_name(gconstpointer a, gconstpointer b)
{
    const struct listing_entry *const *x = a, *const *y = b;

    return strcmp((*x)->name, (*y)->name);
}

GPtrArray *listing_entries(struct listing *l)
{
    GPtrArray *a;
    GHashTableIter it;
    gpointer p;

    mutex_lock(&l->lock);
    a = g_ptr_array_new_full(g_hash_table_size(l->names), free_entry);
    g_hash_table_iter_init(&it, l->names);
    while (g_hash_table_iter_next(&it, NULL, &p))
        g_ptr_array_add(a, entry_copy(p));
    mutex_unlock(&l->lock);
    g_ptr_array_sort(a, by_name);
    return a;
}

/* One page of LIST or BUCKETS into the listing. */
static void add_page(struct listing *l, GPtrArray *entries, const char *prefix, bool buckets, bool *marker)
{
    size_t skip = strlen(prefix);

    for (guint i = 0; entries && i < entries->len; i++) {
        const struct store_entry *s = entries->pdata[i];
        const char *name = s->key + skip;
        size_t n;
        struct listing_entry *e;

        if (strncmp(s->key, prefix, skip) != 0)
            continue; /* a server that lists what was not asked for */
        if (!*name) {
            *marker = true;
            continue;
        }
        n = strlen(name);
        if (s->is_prefix && name[n - 1] == '/')
            n--;
        if (!listing_name_valid(name, n))
            continue;
        e = g_new0(struct listing_entry, 1);
        e->name = g_strndup(name, n);
        e->is_dir = s->is_prefix || buckets;
        e->etag = e->is_dir ? NULL : g_strdup(s->etag);
        e->storage_class = g_strdup(s->storage_class);
        e->size = s->size;
        e->mtime_ns = s->mtime_ns;
        put_locked(l, e); /* not shared yet: no lock needed */
    }
}

int listing_load(struct store *s, const char *bucket, const char *prefix, struct cancel *cancel, struct listing **ret, bool *ret_marker)
{
    struct listing *l = listing_new_empty();
    g_autofree char *token = NULL;
    int r;

    *ret_marker = false;
    do {
        _cleanup_request_ struct store_request q = {
            .verb = bucket ? STORE_LIST : STORE_BUCKETS,
            .prio = STORE_PRIO_META,
            .bucket = bucket,
            .prefix = prefix,
            .delimiter = "/",
            .token = token,
        };

        r = store_run(s, &q, cancel);
        if (r < 0)
            break;
        add_page(l, q.res.entries, bucket ? prefix : "", !bucket, ret_marker);
        g_free(token);
        token = g_steal_pointer(&q.res.token);
    } while (token);
    if (r < 0) {
        listing_unref(l);
        return r;
    }
    *ret = l;
    return 0;
}
