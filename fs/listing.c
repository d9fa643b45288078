/* SPDX-License-Identifier: Apache-2.0
 *
 * listing: see listing.h. A hash of names under one leaf lock, which is not held across requests: what
 * is noted while a listing is loaded goes before what the replies say.
 */
#include "fs/listing.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "base/clock.h"
#include "base/mutex.h"

struct listing {
    int refs; /* atomic */
    uint64_t time_ns; /* immutable */
    unsigned pages;   /* immutable once loaded */
    struct mutex lock;
    GHashTable *names; /* lock: name (the entry's own) → entry */
    GHashTable *noted; /* lock: while it is loaded, names that we changed; else NULL */
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

struct listing *listing_new(void)
{
    struct listing *l = listing_new_empty();

    l->noted = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
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
    if (l->noted)
        g_hash_table_unref(l->noted);
    mutex_fini(&l->lock);
    g_free(l);
}

uint64_t listing_time_ns(const struct listing *l)
{
    return l->time_ns;
}

unsigned listing_pages(const struct listing *l)
{
    return l->pages;
}

bool listing_name_valid(const char *name, size_t n)
{
    return n > 0 && n <= NAME_MAX && !memchr(name, '/', n) && !(n == 1 && name[0] == '.') &&
           !(n == 2 && name[0] == '.' && name[1] == '.');
}

static void note_locked(struct listing *l, const char *name)
{
    if (l->noted)
        g_hash_table_add(l->noted, g_strdup(name));
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
    note_locked(l, name);
    put_locked(l, e);
    mutex_unlock(&l->lock);
}

void listing_remove(struct listing *l, const char *name)
{
    mutex_lock(&l->lock);
    note_locked(l, name);
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
static void add_page_locked(struct listing *l, GPtrArray *entries, const char *prefix, bool buckets, bool *marker)
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
        if (g_hash_table_contains(l->noted, e->name)) {
            listing_entry_free(e);
            continue;
        }
        e->is_dir = s->is_prefix || buckets;
        e->etag = e->is_dir ? NULL : g_strdup(s->etag);
        e->storage_class = g_strdup(s->storage_class);
        e->size = s->size;
        e->mtime_ns = s->mtime_ns;
        put_locked(l, e);
    }
}

int listing_load(struct listing *l, struct store *s, const char *bucket, const char *prefix, unsigned max_pages, struct cancel *cancel,
                 bool *ret_marker)
{
    g_autofree char *token = NULL;
    int r = 0;

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

        r = max_pages && l->pages == max_pages ? -E2BIG : store_run(s, &q, cancel);
        if (r < 0)
            break;
        l->pages++;
        mutex_lock(&l->lock);
        add_page_locked(l, q.res.entries, bucket ? prefix : "", !bucket, ret_marker);
        mutex_unlock(&l->lock);
        g_free(token);
        token = g_steal_pointer(&q.res.token);
    } while (token);
    mutex_lock(&l->lock);
    g_clear_pointer(&l->noted, g_hash_table_unref);
    mutex_unlock(&l->lock);
    return r;
}
