/* SPDX-License-Identifier: Apache-2.0
 *
 * version: object versions, interned: one struct per (bucket, key, ETag), so that whoever opens the
 * version again finds its blocks. All functions are called under the lock of the block pool that
 * owns the table; nothing blocks.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

/* What a GET needs to name the version. Immutable and refcounted: a GET under way keeps the name
 * it was started with when the version is renamed. */
struct version_name {
    unsigned refs;
    char *bucket, *key, *etag;
};

struct version {
    unsigned refs;             /* readers, blocks and GETs */
    struct version_name *name; /* changes by version_rename() only */
    uint64_t size;             /* bytes */
    bool interned;             /* in the table */
};

struct version_table;

struct version_table *version_table_new(void);
void version_table_free(struct version_table *t); /* no version is left */

/* The version of that name and size; a new reference. */
struct version *version_get(struct version_table *t, const char *bucket, const char *key,
                            const char *etag, uint64_t size);
/* NULL when the table has none; no reference is taken. */
struct version *version_find(struct version_table *t, const char *bucket, const char *key,
                             const char *etag);
struct version *version_ref(struct version *v);
void version_unref(struct version_table *t, struct version *v);
/* Gives v another name. It leaves the table when the table has a version of that name. */
void version_rename(struct version_table *t, struct version *v, const char *bucket, const char *key,
                    const char *etag);

struct version_name *version_name_ref(struct version_name *n);
void version_name_unref(struct version_name *n);
