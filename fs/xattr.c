/* SPDX-License-Identifier: Apache-2.0
 *
 * xattr: see xattr.h. No state; inode fields are copied under the inode's lock.
 */
#include "fs/xattr.h"

#include <errno.h>
#include <string.h>

#include "cache/cache.h"
#include "catalog/catalog.h"
#include "fs/advice.h"
#include "fs/namespace.h"
#include "fs/tags.h"
#include "fs/video.h"

#define VIDEO "user.video."
#define S3 "user.s3."
#define TAG "user.s3.tag."

enum kind { KIND_VIDEO, KIND_TAG, KIND_S3, KIND_USER, KIND_NONE };

static enum kind kind_of(const char *name)
{
    return g_str_has_prefix(name, VIDEO) ? KIND_VIDEO
           : g_str_has_prefix(name, TAG) ? KIND_TAG
           : g_str_has_prefix(name, S3)  ? KIND_S3
           : g_str_has_prefix(name, "user.") ? KIND_USER
                                             : KIND_NONE;
}

static int get_video(struct fs *fs, struct inode *i, const char *fact, struct cancel *cancel, char **ret)
{
    struct video v;
    int r;

    if (!g_strv_contains(video_fact_names, fact))
        return -ENODATA;
    r = video_facts(fs, i, cancel, &v);
    if (r == 0)
        r = video_fact(&v, fact, ret);
    if ((r == -ENODATA || r == -EPROTO || r == -ETIMEDOUT) && fs->probe_helper && video_likely(i)) {
        *ret = g_strdup(""); /* it may have been listed before the file was probed: getfattr -d must not fail on it */
        r = 0;
    }
    return r;
}

/* As in user.s3.state. g_free. */
static char *state_of(struct cache_file *f)
{
    struct cache_file_state st;

    cache_file_get_state(f, &st);
    switch (st.state) {
    case CACHE_CLEAN:
        break;
    case CACHE_DIRTY:
        return g_strdup("dirty");
    case CACHE_UPLOADING:
        return g_strdup_printf("uploading %u%%", st.total ? (unsigned)((double)st.done / (double)st.total * 100) : 0);
    case CACHE_FAILED:
        return g_strdup_printf("failed: %s (%s)", advice_for(st.err), g_strerror(-st.err));
    }
    return g_strdup("clean");
}

static const char *const s3_names[] = {"bucket", "content_type", "etag", "key", "state", "storage_class", NULL};

static int get_s3(struct inode *i, const char *bucket, const char *key, const char *name, char **ret)
{
    g_autofree char *own = NULL;
    const char *value = NULL;

    mutex_lock(&i->lock);
    if (!strcmp(name, "etag"))
        value = i->etag;
    else if (!strcmp(name, "key"))
        value = key;
    else if (!strcmp(name, "bucket"))
        value = bucket;
    else if (!strcmp(name, "content_type"))
        value = i->headers.content_type;
    else if (!strcmp(name, "storage_class"))
        value = i->etag ? (i->storage_class ? i->storage_class : "STANDARD") : NULL;
    else if (!strcmp(name, "state") && !i->is_dir)
        value = own = i->file ? state_of(i->file) : g_strdup("clean");
    *ret = g_strdup(value);
    mutex_unlock(&i->lock);
    return *ret ? 0 : -ENODATA;
}

/* The object that carries i's attributes; buckets and the root of all of them have none. */
static int object_of(struct inode *i, char **ret_bucket, char **ret_key)
{
    int r = inode_attached(i) ? inode_key(i, ret_bucket, ret_key) : -ESTALE; /* its name may be another's by now */

    if (r == 0 && !*ret_bucket)
        *ret_bucket = g_strdup(""); /* rows of the catalog only: no request names this bucket */
    return r;
}

int xattr_get(struct fs *fs, struct inode *i, const char *name, struct cancel *cancel, GBytes **ret)
{
    g_autofree char *bucket = NULL, *key = NULL, *text = NULL;
    int r = object_of(i, &bucket, &key);

    if (r < 0)
        return r;
    switch (kind_of(name)) {
    case KIND_VIDEO:
        r = get_video(fs, i, name + strlen(VIDEO), cancel, &text);
        break;
    case KIND_S3:
        r = get_s3(i, bucket, key, name + strlen(S3), &text);
        break;
    case KIND_TAG:
        r = *key && *bucket ? tags_value(fs, bucket, key, name + strlen(TAG), cancel, &text) : -ENODATA;
        break;
    case KIND_USER:
        return catalog_xattr_get(fs->catalog, bucket, key, name, ret);
    case KIND_NONE:
        return g_str_has_prefix(name, "system.") ? -EOPNOTSUPP : -ENODATA;
    }
    if (r == 0) {
        size_t n = strlen(text);

        *ret = g_bytes_new_take(g_steal_pointer(&text), n);
    }
    return r;
}

int xattr_set(struct fs *fs, struct inode *i, const char *name, const void *value, size_t n, int flags, struct cancel *cancel)
{
    g_autofree char *bucket = NULL, *key = NULL, *text = NULL;
    int r = object_of(i, &bucket, &key);

    if (r < 0)
        return r;
    switch (kind_of(name)) {
    case KIND_VIDEO:
    case KIND_S3:
        return 0; /* computed: what a copy brings along is ignored */
    case KIND_TAG:
        if (!*key || !*bucket)
            return -EOPNOTSUPP;
        if (memchr(value, 0, n))
            return -EINVAL;
        text = g_strndup(value, n);
        return tags_set(fs, i, bucket, key, name + strlen(TAG), text, flags, cancel);
    case KIND_USER:
        return catalog_xattr_set(fs->catalog, bucket, key, name, value, n, flags);
    case KIND_NONE:
        break;
    }
    return -EOPNOTSUPP;
}

int xattr_remove(struct fs *fs, struct inode *i, const char *name, struct cancel *cancel)
{
    g_autofree char *bucket = NULL, *key = NULL;
    int r = object_of(i, &bucket, &key);

    if (r < 0)
        return r;
    switch (kind_of(name)) {
    case KIND_VIDEO:
    case KIND_S3:
        return 0; /* as setting: rsync -X removes what its source has not */
    case KIND_TAG:
        return *key && *bucket ? tags_set(fs, i, bucket, key, name + strlen(TAG), NULL, 0, cancel) : -ENODATA;
    case KIND_USER:
        return catalog_xattr_remove(fs->catalog, bucket, key, name);
    case KIND_NONE:
        break;
    }
    return -EOPNOTSUPP;
}

static void add(GString *to, const char *prefix, const char *name)
{
    g_string_append(to, prefix);
    g_string_append_len(to, name, (gssize)strlen(name) + 1);
}

/* The facts that this version has, or, while it was never probed, all that a video may have. */
static void list_video(struct fs *fs, struct inode *i, const char *bucket, const char *key, GString *to)
{
    g_autofree char *etag = NULL;
    struct video v;
    int r;

    if (!fs->probe_helper || !video_likely(i))
        return;
    mutex_lock(&i->lock);
    etag = g_strdup(i->etag);
    mutex_unlock(&i->lock);
    r = catalog_video_get(fs->catalog, bucket, key, etag, &v);
    if (r == 0 && !v.is_media)
        return;
    for (const char *const *n = video_fact_names; *n; n++) {
        g_autofree char *text = NULL;

        if (r < 0 || video_fact(&v, *n, &text) == 0)
            add(to, VIDEO, *n);
    }
}

int xattr_list(struct fs *fs, struct inode *i, GString **ret)
{
    g_autofree char *bucket = NULL, *key = NULL;
    g_autoptr(GString) names = g_string_new(NULL);
    g_autoptr(GPtrArray) own = NULL;
    int r = object_of(i, &bucket, &key);

    if (r == 0)
        r = catalog_xattr_list(fs->catalog, bucket, key, &own);
    if (r < 0)
        return r;
    for (const char *const *n = s3_names; *n; n++) {
        g_autofree char *text = NULL;

        if (*bucket && get_s3(i, bucket, key, *n, &text) == 0)
            add(names, S3, *n);
    }
    list_video(fs, i, bucket, key, names);
    for (guint n = 0; n < own->len; n++)
        add(names, "", own->pdata[n]);
    *ret = g_steal_pointer(&names);
    return 0;
}
