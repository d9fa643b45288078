/* SPDX-License-Identifier: Apache-2.0
 *
 * inode: see inode.h. Thread-safe. One lock (rank namespace) guards the tree: ids, names, parents,
 * children, lookup and pin counts. It is held for hash table work only, never across I/O. Each
 * inode's own lock guards its attributes.
 *
 * Invariants, under the table lock:
 *   - an inode is in `ids` from birth to death; attached ⇔ parent->children[name] == inode
 *   - a child pins its parent until the child dies
 *   - an inode dies exactly when nlookup == 0 and pins == 0 (children pin it); the root never does
 */
#include "fs/inode.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "fs/listing.h"

struct inode_table {
    struct mutex lock;
    GHashTable *ids;  /* nodeid → inode; lock */
    GHashTable *inos; /* ino → inode: those in use; lock */
    uint64_t next_id; /* lock; ids are never used again, so generations stay 0 */
    struct inode *root;
    char *bucket, *prefix; /* immutable */
    struct fs *fs;         /* immutable */
};

struct fs *inode_fs(const struct inode *i)
{
    return i->table->fs;
}

static uint64_t fnv1a(uint64_t h, const char *s)
{
    for (; *s; s++)
        h = (h ^ (unsigned char)*s) * 0x100000001b3ULL;
    return h;
}

uint64_t inode_ino_for(const char *bucket, const char *key)
{
    uint64_t h = fnv1a(0xcbf29ce484222325ULL, bucket ? bucket : "");
    size_t n = strlen(key);
    g_autofree char *bare = NULL;

    if (n && key[n - 1] == '/') /* a directory's name, with or without its slash */
        key = bare = g_strndup(key, n - 1);
    h = fnv1a((h ^ '/') * 0x100000001b3ULL, key);
    return h <= INODE_ROOT ? h + 2 : h;
}

static struct inode *inode_new_locked(struct inode_table *t, struct inode *parent, const char *name, bool is_dir, uint64_t ino)
{
    struct inode *i = g_new0(struct inode, 1);

    i->nodeid = t->next_id++;
    while (ino == 0 || g_hash_table_contains(t->inos, &ino))
        ino++;
    i->ino = ino;
    i->is_dir = is_dir;
    i->table = t;
    i->parent = parent;
    i->name = g_strdup(name);
    i->pins = 1;
    mutex_init(&i->lock, RANK_INODE);
    if (parent)
        parent->pins++;
    g_hash_table_insert(t->ids, &i->nodeid, i);
    g_hash_table_insert(t->inos, &i->ino, i);
    return i;
}

static void inode_free(struct inode *i)
{
    assert(!i->file);
    if (i->children)
        g_hash_table_unref(i->children);
    listing_unref(i->listing);
    store_headers_clear(&i->headers);
    mutex_fini(&i->lock);
    g_free(i->storage_class);
    g_free(i->etag);
    g_free(i->target);
    g_free(i->name);
    g_free(i);
}

static void detach_locked(struct inode *i)
{
    if (!i->attached)
        return;
    assert(g_hash_table_lookup(i->parent->children, i->name) == i);
    g_hash_table_remove(i->parent->children, i->name);
    i->attached = false;
}

static void attach_locked(struct inode *i)
{
    struct inode *old;

    if (!i->parent->children)
        i->parent->children = g_hash_table_new(g_str_hash, g_str_equal);
    old = g_hash_table_lookup(i->parent->children, i->name);
    if (old)
        detach_locked(old);
    g_hash_table_insert(i->parent->children, i->name, i);
    i->attached = true;
}

/* Takes the dying (an inode, then perhaps its parents) out of the tables and chains them through
 * `parent`, for inode_free() outside the lock. */
static struct inode *reap_locked(struct inode *i)
{
    struct inode *dead = NULL;

    while (i && !i->nlookup && !i->pins && i != i->table->root) {
        struct inode *parent = i->parent;

        detach_locked(i);
        g_hash_table_remove(i->table->ids, &i->nodeid);
        g_hash_table_remove(i->table->inos, &i->ino);
        i->parent = dead;
        dead = i;
        assert(parent->pins);
        parent->pins--;
        i = parent;
    }
    return dead;
}

static void free_chain(struct inode *dead)
{
    while (dead) {
        struct inode *next = dead->parent;

        inode_free(dead);
        dead = next;
    }
}

struct inode_table *inode_table_new(struct fs *fs, const char *bucket, const char *prefix)
{
    struct inode_table *t = g_new0(struct inode_table, 1);

    mutex_init(&t->lock, RANK_NAMESPACE);
    t->ids = g_hash_table_new(g_int64_hash, g_int64_equal);
    t->inos = g_hash_table_new(g_int64_hash, g_int64_equal);
    t->next_id = INODE_ROOT;
    t->fs = fs;
    t->bucket = g_strdup(bucket);
    t->prefix = g_strdup(prefix ? prefix : "");
    t->root = inode_new_locked(t, NULL, "", true, INODE_ROOT);
    return t;
}

void inode_table_free(struct inode_table *t)
{
    GHashTableIter it;
    gpointer p;

    if (!t)
        return;
    g_hash_table_iter_init(&it, t->ids);
    while (g_hash_table_iter_next(&it, NULL, &p))
        inode_free(p);
    g_hash_table_unref(t->ids);
    g_hash_table_unref(t->inos);
    mutex_fini(&t->lock);
    g_free(t->bucket);
    g_free(t->prefix);
    g_free(t);
}

struct inode *inode_pin(struct inode *i)
{
    mutex_lock(&i->table->lock);
    i->pins++;
    mutex_unlock(&i->table->lock);
    return i;
}

struct inode *inode_root(struct inode_table *t)
{
    return inode_pin(t->root);
}

struct inode *inode_get(struct inode_table *t, uint64_t nodeid)
{
    struct inode *i;

    mutex_lock(&t->lock);
    i = g_hash_table_lookup(t->ids, &nodeid);
    if (i)
        i->pins++;
    mutex_unlock(&t->lock);
    return i;
}

struct inode *inode_child(struct inode *parent, const char *name)
{
    struct inode *i = NULL;

    mutex_lock(&parent->table->lock);
    if (parent->children)
        i = g_hash_table_lookup(parent->children, name);
    if (i)
        i->pins++;
    mutex_unlock(&parent->table->lock);
    return i;
}

struct inode *inode_add(struct inode *parent, const char *name, bool is_dir)
{
    g_autofree char *bucket = NULL, *key = NULL;
    struct inode_table *t = parent->table;
    uint64_t ino = 2;
    struct inode *i;

    if (inode_child_key(parent, name, false, &bucket, &key) == 0)
        ino = inode_ino_for(bucket, key);
    mutex_lock(&t->lock);
    i = inode_new_locked(t, parent, name, is_dir, ino);
    attach_locked(i);
    mutex_unlock(&t->lock);
    return i;
}

void inode_put(struct inode *i)
{
    struct inode_table *t;
    struct inode *dead;

    if (!i)
        return;
    t = i->table;
    mutex_lock(&t->lock);
    assert(i->pins);
    i->pins--;
    dead = reap_locked(i);
    mutex_unlock(&t->lock);
    free_chain(dead);
}

void inode_detach(struct inode *i)
{
    mutex_lock(&i->table->lock);
    detach_locked(i);
    mutex_unlock(&i->table->lock);
}

void inode_move(struct inode *i, struct inode *parent, const char *name)
{
    struct inode_table *t = i->table;
    struct inode *old_parent, *dead;

    mutex_lock(&t->lock);
    detach_locked(i);
    old_parent = i->parent;
    parent->pins++;
    i->parent = parent;
    g_free(i->name);
    i->name = g_strdup(name);
    attach_locked(i);
    old_parent->pins--;
    dead = reap_locked(old_parent);
    mutex_unlock(&t->lock);
    free_chain(dead);
}

void inode_looked_up(struct inode *i)
{
    mutex_lock(&i->table->lock);
    i->nlookup++;
    mutex_unlock(&i->table->lock);
}

void inode_forget(struct inode_table *t, uint64_t nodeid, uint64_t n)
{
    struct inode *i, *dead = NULL;

    mutex_lock(&t->lock);
    i = g_hash_table_lookup(t->ids, &nodeid);
    if (i) {
        i->nlookup -= MIN(n, i->nlookup);
        dead = reap_locked(i);
    }
    mutex_unlock(&t->lock);
    free_chain(dead);
}

bool inode_attached(struct inode *i)
{
    bool attached;

    mutex_lock(&i->table->lock);
    attached = i->attached || i == i->table->root;
    mutex_unlock(&i->table->lock);
    return attached;
}

char *inode_name(struct inode *i)
{
    char *name;

    mutex_lock(&i->table->lock);
    name = g_strdup(i->name);
    mutex_unlock(&i->table->lock);
    return name;
}

bool inode_parent(struct inode *i, struct inode **ret, char **ret_name)
{
    bool attached;

    mutex_lock(&i->table->lock);
    attached = i->attached;
    if (attached) {
        i->parent->pins++;
        *ret = i->parent;
        *ret_name = g_strdup(i->name);
    }
    mutex_unlock(&i->table->lock);
    return attached;
}

uint64_t inode_count(struct inode_table *t)
{
    uint64_t n;

    mutex_lock(&t->lock);
    n = g_hash_table_size(t->ids);
    mutex_unlock(&t->lock);
    return n;
}

static void put_element(gpointer p)
{
    inode_put(p);
}

static void collect_locked(struct inode *dir, bool deep, GPtrArray *to)
{
    GHashTableIter it;
    gpointer p;

    if (!dir->children)
        return;
    g_hash_table_iter_init(&it, dir->children);
    while (g_hash_table_iter_next(&it, NULL, &p)) {
        struct inode *i = p;

        i->pins++;
        g_ptr_array_add(to, i);
        if (deep)
            collect_locked(i, deep, to);
    }
}

GPtrArray *inode_children(struct inode *dir, bool deep)
{
    GPtrArray *a = g_ptr_array_new_with_free_func(put_element);

    mutex_lock(&dir->table->lock);
    collect_locked(dir, deep, a);
    mutex_unlock(&dir->table->lock);
    return a;
}

GPtrArray *inode_all(struct inode_table *t)
{
    GPtrArray *a = g_ptr_array_new_with_free_func(put_element);
    GHashTableIter it;
    gpointer p;

    mutex_lock(&t->lock);
    g_hash_table_iter_init(&it, t->ids);
    while (g_hash_table_iter_next(&it, NULL, &p)) {
        ((struct inode *)p)->pins++;
        g_ptr_array_add(a, p);
    }
    mutex_unlock(&t->lock);
    return a;
}

/* ---- keys ---- */

/* Appends the path of i below the root, each component followed by "/". */
static void path_locked(const struct inode *i, GString *to)
{
    if (!i->parent)
        return;
    path_locked(i->parent, to);
    g_string_append(to, i->name);
    g_string_append_c(to, '/');
}

/* Splits a path that has its bucket as first component when the mount shows all buckets. */
static int split_key(const struct inode_table *t, GString *path, char **ret_bucket, char **ret_key)
{
    *ret_bucket = NULL;
    *ret_key = NULL;
    if (t->bucket) {
        if (strlen(t->prefix) + path->len > STORE_KEY_MAX)
            return -ENAMETOOLONG;
        *ret_bucket = g_strdup(t->bucket);
        *ret_key = g_strconcat(t->prefix, path->str, NULL);
        return 0;
    }
    const char *slash = strchr(path->str, '/');

    if (!slash) { /* the root itself (""), or a bucket's name */
        *ret_key = g_strdup(path->str);
        return 0;
    }
    if (strlen(slash + 1) > STORE_KEY_MAX)
        return -ENAMETOOLONG;
    *ret_bucket = g_strndup(path->str, (size_t)(slash - path->str));
    *ret_key = g_strdup(slash + 1);
    return 0;
}

int inode_key(struct inode *i, char **ret_bucket, char **ret_key)
{
    g_autoptr(GString) path = g_string_new(NULL);

    mutex_lock(&i->table->lock);
    path_locked(i, path);
    mutex_unlock(&i->table->lock);
    if (!i->is_dir)
        g_string_truncate(path, path->len - 1);
    return split_key(i->table, path, ret_bucket, ret_key);
}

int inode_child_key(struct inode *dir, const char *name, bool is_dir, char **ret_bucket, char **ret_key)
{
    g_autoptr(GString) path = g_string_new(NULL);

    mutex_lock(&dir->table->lock);
    path_locked(dir, path);
    mutex_unlock(&dir->table->lock);
    g_string_append(path, name);
    if (is_dir && !(inode_is_bucket_root(dir)))
        g_string_append_c(path, '/');
    return split_key(dir->table, path, ret_bucket, ret_key);
}

char *inode_path(struct inode *i)
{
    g_autoptr(GString) path = g_string_new(NULL);

    mutex_lock(&i->table->lock);
    path_locked(i, path);
    mutex_unlock(&i->table->lock);
    if (path->len)
        g_string_truncate(path, path->len - 1);
    return g_string_free(g_steal_pointer(&path), FALSE);
}

bool inode_is_bucket_root(struct inode *i)
{
    return i == i->table->root && !i->table->bucket;
}
