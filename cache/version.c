/* SPDX-License-Identifier: Apache-2.0
 *
 * version: see version.h. Threads: any, under the owner's lock. Invariants: a version in the table
 * is `interned` and found under its name; at most one version of a name is in the table. One that
 * was displaced (another size, or a rename onto its name) lives on until its last reference goes.
 */
#include "cache/version.h"

#include <assert.h>
#include <glib.h>

struct version_table {
    GHashTable *by_name; /* struct version_name* → struct version*; owns neither */
};

static guint name_hash(gconstpointer p)
{
    const struct version_name *n = p;
    return g_str_hash(n->bucket) * 33 * 33 + g_str_hash(n->key) * 33 + g_str_hash(n->etag);
}

static gboolean name_equal(gconstpointer a, gconstpointer b)
{
    const struct version_name *x = a, *y = b;
    return g_str_equal(x->etag, y->etag) && g_str_equal(x->key, y->key) &&
           g_str_equal(x->bucket, y->bucket);
}

static struct version_name *name_new(const char *bucket, const char *key, const char *etag)
{
    struct version_name *n = g_new(struct version_name, 1);
    *n = (struct version_name){
        .refs = 1, .bucket = g_strdup(bucket), .key = g_strdup(key), .etag = g_strdup(etag)};
    return n;
}

struct version_name *version_name_ref(struct version_name *n)
{
    n->refs++;
    return n;
}

void version_name_unref(struct version_name *n)
{
    assert(n->refs > 0);
    if (--n->refs > 0)
        return;
    g_free(n->bucket);
    g_free(n->key);
    g_free(n->etag);
    g_free(n);
}

struct version_table *version_table_new(void)
{
    struct version_table *t = g_new0(struct version_table, 1);
    t->by_name = g_hash_table_new(name_hash, name_equal);
    return t;
}

void version_table_free(struct version_table *t)
{
    if (!t)
        return;
    assert(g_hash_table_size(t->by_name) == 0);
    g_hash_table_unref(t->by_name);
    g_free(t);
}

static void intern(struct version_table *t, struct version *v)
{
    v->interned = true;
    g_hash_table_insert(t->by_name, v->name, v);
}

static void displace(struct version_table *t, struct version *v)
{
    if (v->interned)
        g_hash_table_remove(t->by_name, v->name);
    v->interned = false;
}

struct version *version_find(struct version_table *t, const char *bucket, const char *key,
                             const char *etag)
{
    /* The lookup only reads the strings. */
    union {
        const char *in;
        char *out;
    } b = {bucket}, k = {key}, e = {etag};
    struct version_name n = {.bucket = b.out, .key = k.out, .etag = e.out};
    return g_hash_table_lookup(t->by_name, &n);
}

struct version *version_get(struct version_table *t, const char *bucket, const char *key,
                            const char *etag, uint64_t size)
{
    struct version *v = version_find(t, bucket, key, etag);
    if (v && v->size == size)
        return version_ref(v);
    if (v)
        displace(t, v); /* a server that gives one ETag to two sizes: they share nothing */
    v = g_new0(struct version, 1);
    *v = (struct version){.refs = 1, .name = name_new(bucket, key, etag), .size = size};
    intern(t, v);
    return v;
}

struct version *version_ref(struct version *v)
{
    v->refs++;
    return v;
}

void version_unref(struct version_table *t, struct version *v)
{
    assert(v->refs > 0);
    if (--v->refs > 0)
        return;
    displace(t, v);
    version_name_unref(v->name);
    g_free(v);
}

void version_rename(struct version_table *t, struct version *v, const char *bucket, const char *key,
                    const char *etag)
{
    displace(t, v);
    bool taken = version_find(t, bucket, key, etag) != NULL;
    version_name_unref(v->name);
    v->name = name_new(bucket, key, etag);
    if (!taken)
        intern(t, v);
}
