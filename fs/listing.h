/* SPDX-License-Identifier: Apache-2.0
 *
 * listing: what one directory of the bucket held when it was last listed, plus our own changes
 * since. It answers readdir, lookups and misses as long as it is fresh. Refcounted, thread-safe;
 * its lock is a leaf.
 */
#pragma once
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#include "s3/store.h"

struct cancel;
struct listing;

struct listing_entry {
    char *name;   /* one path component */
    char *etag;   /* NULL for a directory */
    char *storage_class;
    uint64_t size;
    int64_t mtime_ns;
    bool is_dir;  /* a prefix, or a bucket; hides an object of the same name */
};

struct listing *listing_new(void); /* to be loaded; until then our own changes can be noted in it already */
struct listing *listing_new_empty(void); /* of a directory just made: complete, fresh */
/* Lists bucket/prefix (prefix "" or ending in "/") into a new listing; bucket NULL = the buckets. Names that no path can carry (empty, ".",
 * "..", longer than 255 bytes) are left out, and those that were noted meanwhile stay as noted: the reply may be older. marker: whether the
 * object `prefix` itself exists. 0 or the store's -errno; -EINTR; -E2BIG when there are more than max_pages (0: any number). Once. Blocks on the store. */
int listing_load(struct listing *l, struct store *s, const char *bucket, const char *prefix, unsigned max_pages, struct cancel *cancel,
                 bool *ret_marker);
unsigned listing_pages(const struct listing *l); /* replies it was made of */
struct listing *listing_ref(struct listing *l);
void listing_unref(struct listing *l); /* NULL is fine */
uint64_t listing_time_ns(const struct listing *l); /* mono: when its first request was sent */

/* Our own change. etag NULL with is_dir false: created, not yet committed. mtime_ns: the object's, by the server's clock; 0 = not known. */
void listing_put(struct listing *l, const char *name, bool is_dir, const char *etag, uint64_t size, int64_t mtime_ns);
void listing_remove(struct listing *l, const char *name);
/* A copy of the entry (listing_entry_free), or NULL. */
struct listing_entry *listing_find(struct listing *l, const char *name);
/* Copies of all, sorted by name; frees its elements. */
GPtrArray *listing_entries(struct listing *l);
void listing_entry_free(struct listing_entry *e);
/* Whether any path can carry this name. */
bool listing_name_valid(const char *name, size_t n);
