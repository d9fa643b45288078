/* SPDX-License-Identifier: Apache-2.0
 *
 * ops_dir: directories read. An open directory shows one listing: what was there when offset 0 was read,
 * with our uncommitted files. Offsets: 1 ".", 2 "..", 3 + index of the entry; stable until rewound.
 */
#include <errno.h>
#include <string.h>

#include "base/mutex.h"
#include "cache/cache.h"
#include "fs/listing.h"
#include "fs/namespace.h"
#include "fs/opened.h"
#include "fs/ops.h"

struct dir_handle {
    struct opened opened; /* first: see dir_end */
    struct fs *fs;
    struct inode *inode; /* pinned */
    struct mutex lock;   /* leaf; not held while loading */
    GPtrArray *entries;  /* lock: struct listing_entry*, sorted; refcounted as a whole by the array */
    uint64_t time_ns;    /* lock: mono, when they were listed */
};

static void dir_end(struct opened *o)
{
    struct dir_handle *h = (struct dir_handle *)o;

    mutex_lock(&h->lock); /* the last reader let go of it */
    g_clear_pointer(&h->entries, g_ptr_array_unref);
    mutex_unlock(&h->lock);
    mutex_fini(&h->lock);
    inode_put(h->inode);
    g_free(h);
}

void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct call c;
    struct inode *i = op_begin(&c, req, ino);
    struct dir_handle *h;

    if (!i)
        return;
    h = g_new0(struct dir_handle, 1);
    h->opened.end = dir_end;
    h->fs = c.fs;
    h->inode = i;
    mutex_init(&h->lock, RANK_LEAF);
    fi->fh = (uint64_t)(uintptr_t)h;
    opened_add(c.fs->dir_handles, &h->opened);
    if (!reply_open(&c, fi))
        op_releasedir(NULL, ino, fi);
}

void op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct dir_handle *h = (struct dir_handle *)(uintptr_t)fi->fh;

    (void)ino;
    opened_remove(h->fs->dir_handles, &h->opened);
    ns_drop_stale_listing(h->fs, h->inode);
    dir_end(&h->opened);
    if (req)
        reply_parked_err(req, 0);
}

static int by_name(gconstpointer a, gconstpointer b)
{
    const struct listing_entry *const *x = a, *const *y = b;

    return strcmp((*x)->name, (*y)->name);
}

/* Adds children that a listing cannot know: created by us and not in the bucket yet. */
static void add_local(struct inode *dir, GPtrArray *entries)
{
    g_autoptr(GPtrArray) children = inode_children(dir, false);
    g_autoptr(GHashTable) seen = g_hash_table_new(g_str_hash, g_str_equal);
    guint before = entries->len;

    for (guint n = 0; n < before; n++)
        g_hash_table_add(seen, ((struct listing_entry *)entries->pdata[n])->name);
    for (guint n = 0; n < children->len; n++) {
        struct inode *i = children->pdata[n];
        g_autofree char *name = inode_name(i);
        struct listing_entry *e;
        bool local;

        mutex_lock(&i->lock);
        local = i->file && !i->unlinked && !i->etag;
        mutex_unlock(&i->lock);
        if (!local || g_hash_table_contains(seen, name))
            continue;
        e = g_new0(struct listing_entry, 1);
        e->name = g_steal_pointer(&name);
        g_ptr_array_add(entries, e);
    }
    if (entries->len > before)
        g_ptr_array_sort(entries, by_name);
}

static int load(struct call *c, struct dir_handle *h, GPtrArray **ret)
{
    struct listing *l;
    GPtrArray *entries;
    uint64_t time_ns;
    int r = ns_listing(c->fs, h->inode, c->cancel, &l);

    if (r < 0)
        return r;
    entries = listing_entries(l);
    time_ns = listing_time_ns(l);
    listing_unref(l);
    add_local(h->inode, entries);
    mutex_lock(&h->lock);
    if (h->entries)
        g_ptr_array_unref(h->entries);
    h->entries = entries;
    h->time_ns = time_ns;
    *ret = g_ptr_array_ref(entries);
    mutex_unlock(&h->lock);
    return 0;
}

static int get_entries(struct call *c, struct dir_handle *h, off_t off, GPtrArray **ret)
{
    *ret = NULL;
    mutex_lock(&h->lock);
    if (off && h->entries)
        *ret = g_ptr_array_ref(h->entries);
    mutex_unlock(&h->lock);
    return *ret ? 0 : load(c, h, ret);
}

/* One page of replies under construction. */
struct page {
    struct call *call;
    struct inode *dir;
    char *buf;
    size_t size, used;
    uint64_t time_ns; /* when the entries were listed */
    bool plus;
};

static size_t add_plain(struct page *p, const char *name, uint64_t ino, mode_t type, off_t next)
{
    struct stat st = {.st_ino = ino, .st_mode = type};

    if (p->plus) {
        struct fuse_entry_param e = {.attr = st}; /* node id 0: the kernel looks it up when it wants to know more */

        return fuse_add_direntry_plus(p->call->req, p->buf + p->used, p->size - p->used, name, &e, next);
    }
    return fuse_add_direntry(p->call->req, p->buf + p->used, p->size - p->used, name, &st, next);
}

static size_t add_known(struct page *p, const char *name, struct inode *i, off_t next)
{
    struct fuse_entry_param e;
    size_t n;

    reply_fill_entry(p->call->fs, i, &e);
    inode_looked_up(i);
    n = fuse_add_direntry_plus(p->call->req, p->buf + p->used, p->size - p->used, name, &e, next);
    if (n > p->size - p->used)
        inode_forget(p->call->fs->inodes, i->nodeid, 1);
    return n;
}

/* d_type: what is small may be a symlink, whose object only its metadata tells from a file's: unknown, programs then ask. */
static mode_t type_of(const struct listing_entry *e, struct inode *i)
{
    struct attr a;

    if (i && i->is_dir == e->is_dir) {
        ns_attr(i, &a);
        return a.mode & S_IFMT;
    }
    return e->is_dir ? S_IFDIR : e->size > NS_TARGET_MAX ? S_IFREG : 0;
}

/* Bytes the entry takes; more than is left = it does not fit and was not added. */
static size_t add_entry(struct page *p, const struct listing_entry *e, off_t next)
{
    g_autofree char *bucket = NULL, *key = NULL;
    _cleanup_inode_ struct inode *i = NULL;

    if (p->plus && ns_entry(p->call->fs, p->dir, e, p->time_ns, &i) == 0)
        return add_known(p, e->name, i, next);
    i = inode_child(p->dir, e->name);
    if (!i && inode_child_key(p->dir, e->name, e->is_dir, &bucket, &key) < 0)
        return add_plain(p, e->name, 2, type_of(e, NULL), next);
    return add_plain(p, e->name, i ? i->ino : inode_ino_for(bucket, key), type_of(e, i), next);
}

static void fill(struct page *p, GPtrArray *entries, off_t off)
{
    static const char *const dots[] = {".", ".."};
    size_t n;

    for (; off < 2; off++) {
        n = add_plain(p, dots[off], p->dir->ino, S_IFDIR, off + 1);
        if (n > p->size - p->used)
            return;
        p->used += n;
    }
    for (guint at = (guint)(off - 2); at < entries->len; at++) {
        n = add_entry(p, entries->pdata[at], (off_t)at + 3);
        if (n > p->size - p->used)
            return;
        p->used += n;
    }
}

static void read_dir(fuse_req_t req, size_t size, off_t off, struct fuse_file_info *fi, bool plus)
{
    struct dir_handle *h = (struct dir_handle *)(uintptr_t)fi->fh;
    g_autofree char *buf = g_malloc(size);
    GPtrArray *entries;
    struct call c;
    struct page p = {.call = &c, .dir = h->inode, .buf = buf, .size = size, .plus = plus};
    int r;

    call_begin(&c, req);
    r = get_entries(&c, h, off, &entries);
    if (r < 0) {
        reply_err(&c, r);
        return;
    }
    mutex_lock(&h->lock);
    p.time_ns = h->time_ns;
    mutex_unlock(&h->lock);
    fill(&p, entries, off);
    mutex_lock(&h->lock); /* GLib's counts are atomic, but ThreadSanitizer sees only ours */
    g_ptr_array_unref(entries);
    mutex_unlock(&h->lock);
    reply_buf(&c, buf, p.used); /* h may be gone from here on */
}

void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
    (void)ino;
    read_dir(req, size, off, fi, false);
}

void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
    (void)ino;
    read_dir(req, size, off, fi, true);
}

void op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
    struct call c;

    (void)ino, (void)datasync, (void)fi;
    call_begin(&c, req);
    reply_err(&c, 0); /* names are in the bucket when the call that made them returns */
}
