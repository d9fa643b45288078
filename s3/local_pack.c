/* SPDX-License-Identifier: Apache-2.0
 *
 * local_pack: the small formats of store_local: headers and tags as the index keeps them, the rules
 * for names, and S3's errors. Pure; any thread.
 *
 * A set of pairs is stored as name NUL value NUL …; system headers under their HTTP names, user
 * metadata under "x-amz-meta-" + name. Neither can hold a NUL.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "s3/local.h"

#define META_PREFIX "x-amz-meta-"
#define META_MAX 2048 /* bytes of user metadata, names and values */
#define TAGS_MAX 10
#define TAG_KEY_MAX 128
#define TAG_VALUE_MAX 256

struct error_row {
    const char *code, *text;
    int err;
    enum store_class cls;
};

static const struct error_row errors[] = {
    [LOCAL_NO_SUCH_BUCKET] = {"NoSuchBucket", "no such bucket", ENOENT, STORE_CLASS_FATAL},
    [LOCAL_NO_SUCH_KEY] = {"NoSuchKey", "no such key", ENOENT, STORE_CLASS_FATAL},
    [LOCAL_NO_SUCH_UPLOAD] = {"NoSuchUpload", "no such upload", ENOENT, STORE_CLASS_FATAL},
    [LOCAL_PRECONDITION_FAILED] = {"PreconditionFailed", "the ETag is another one", ESTALE,
                                   STORE_CLASS_CONFLICT},
    [LOCAL_EXISTS] = {"PreconditionFailed", "the key exists", EEXIST, STORE_CLASS_CONFLICT},
    [LOCAL_MATCH_NO_KEY] = {"NoSuchKey", "no such key, though an ETag was asked for", ESTALE,
                            STORE_CLASS_CONFLICT},
    [LOCAL_INVALID_RANGE] = {"InvalidRange", "the range lies past the end", ERANGE,
                             STORE_CLASS_FATAL},
    [LOCAL_INVALID_ARGUMENT] = {"InvalidArgument", "an argument is not valid", EINVAL,
                                STORE_CLASS_FATAL},
    [LOCAL_INVALID_REQUEST] = {"InvalidRequest", "the request makes no sense", EINVAL,
                               STORE_CLASS_FATAL},
    [LOCAL_INVALID_BUCKET_NAME] = {"InvalidBucketName", "the bucket's name is not valid", EINVAL,
                                   STORE_CLASS_FATAL},
    [LOCAL_INVALID_PART] = {"InvalidPart", "a part is missing or has another ETag", EINVAL,
                            STORE_CLASS_FATAL},
    [LOCAL_INVALID_TAG] = {"InvalidTag", "a tag is too long, or there are too many", EINVAL,
                           STORE_CLASS_FATAL},
    [LOCAL_PART_TOO_SMALL] = {"EntityTooSmall", "a part other than the last is below 5 MiB", EINVAL,
                              STORE_CLASS_FATAL},
    [LOCAL_TOO_LARGE] = {"EntityTooLarge", "the body is too large", EFBIG, STORE_CLASS_FATAL},
    [LOCAL_METADATA_TOO_LARGE] = {"MetadataTooLarge", "more than 2 KiB of user metadata", E2BIG,
                                  STORE_CLASS_FATAL},
    [LOCAL_BUCKET_EXISTS] = {"BucketAlreadyOwnedByYou", "the bucket exists", EEXIST,
                             STORE_CLASS_FATAL},
    [LOCAL_BUCKET_NOT_EMPTY] = {"BucketNotEmpty", "the bucket is not empty", ENOTEMPTY,
                                STORE_CLASS_FATAL},
    [LOCAL_BAD_DIGEST] = {"BadDigest", "the body is not the one whose CRC32C was sent", EIO,
                          STORE_CLASS_RETRY},
};

int local_fail(struct store_request *req, enum local_error e)
{
    const struct error_row *r = &errors[e];
    store_result_fail(&req->res, -r->err, r->cls, r->code, "%s", r->text);
    return -r->err;
}

static void pack_pair(GByteArray *a, const char *prefix, const char *name, const char *value)
{
    g_byte_array_append(a, (const guint8 *)prefix, (guint)strlen(prefix));
    g_byte_array_append(a, (const guint8 *)name, (guint)strlen(name) + 1);
    g_byte_array_append(a, (const guint8 *)value, (guint)strlen(value) + 1);
}

/* The next pair of data[*pos .. n); false at the end, and where the bytes are not pairs. */
static bool unpack_pair(const char *data, size_t n, size_t *pos, const char **ret_name,
                        const char **ret_value)
{
    if (*pos >= n) {
        return false;
    }
    const char *name = data + *pos;
    const char *end = memchr(name, '\0', n - *pos);
    if (end == NULL) {
        return false;
    }
    const char *value = end + 1;
    end = memchr(value, '\0', (size_t)(data + n - value));
    if (end == NULL) {
        return false;
    }
    *pos = (size_t)(end + 1 - data);
    *ret_name = name;
    *ret_value = value;
    return true;
}

GBytes *local_pack_tags(GHashTable *tags)
{
    GByteArray *a = g_byte_array_new();
    if (tags != NULL) {
        GHashTableIter it;
        gpointer k, v;
        g_hash_table_iter_init(&it, tags);
        while (g_hash_table_iter_next(&it, &k, &v)) {
            pack_pair(a, "", k, v);
        }
    }
    return g_byte_array_free_to_bytes(a);
}

GHashTable *local_unpack_tags(const void *data, size_t n)
{
    GHashTable *tags = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    const char *name, *value;
    size_t pos = 0;
    while (unpack_pair(data, n, &pos, &name, &value)) {
        g_hash_table_insert(tags, g_strdup(name), g_strdup(value));
    }
    return tags;
}

int local_check_tags(struct store_request *req, GHashTable *tags)
{
    if (tags == NULL) {
        return 0;
    }
    if (g_hash_table_size(tags) > TAGS_MAX) {
        return local_fail(req, LOCAL_INVALID_TAG);
    }
    GHashTableIter it;
    gpointer k, v;
    g_hash_table_iter_init(&it, tags);
    while (g_hash_table_iter_next(&it, &k, &v)) {
        if (!g_utf8_validate(k, -1, NULL) || !g_utf8_validate(v, -1, NULL) || *(char *)k == '\0' ||
            g_utf8_strlen(k, -1) > TAG_KEY_MAX || g_utf8_strlen(v, -1) > TAG_VALUE_MAX) {
            return local_fail(req, LOCAL_INVALID_TAG);
        }
    }
    return 0;
}

int local_pack_kept(struct store_request *req, GBytes **ret_tags, char **ret_class)
{
    const char *class = req->storage_class;
    for (const char *p = class; p != NULL && *p != '\0'; p++) {
        if (!g_ascii_isalnum(*p) && *p != '_' && *p != '-') {
            return local_fail(req, LOCAL_INVALID_ARGUMENT);
        }
    }
    int r = local_check_tags(req, req->tags);
    if (r == 0) {
        *ret_tags = local_pack_tags(req->tags);
        *ret_class = g_strdup(g_strcmp0(class, "STANDARD") != 0 ? class : NULL);
    }
    return r;
}

/* What HTTP can carry as a field's value. */
static bool value_valid(const char *v)
{
    for (; *v != '\0'; v++) {
        unsigned char c = (unsigned char)*v;
        if ((c < 0x20 && c != '\t') || c == 0x7f) {
            return false;
        }
    }
    return true;
}

static bool name_valid(const char *name)
{
    if (*name == '\0') {
        return false;
    }
    for (; *name != '\0'; name++) {
        if (!g_ascii_isalnum(*name) && strchr("!#$%&'*+-.^_`|~", *name) == NULL) {
            return false;
        }
    }
    return true;
}

static int pack_meta(struct store_request *req, GHashTable *meta, GByteArray *a)
{
    GHashTableIter it;
    gpointer k, v;
    size_t total = 0;
    g_hash_table_iter_init(&it, meta);
    while (g_hash_table_iter_next(&it, &k, &v)) {
        if (!name_valid(k) || !value_valid(v)) {
            return local_fail(req, LOCAL_INVALID_ARGUMENT);
        }
        total += strlen(k) + strlen(v);
        g_autofree char *lower = g_ascii_strdown(k, -1);
        pack_pair(a, META_PREFIX, lower, v);
    }
    return total > META_MAX ? local_fail(req, LOCAL_METADATA_TOO_LARGE) : 0;
}

int local_pack_headers(struct store_request *req, const struct store_headers *h, GBytes **ret)
{
    static const struct store_headers none = {0};
    if (h == NULL) {
        h = &none;
    }
    g_autoptr(GByteArray) a = g_byte_array_new();
    const struct {
        const char *name, *value;
    } system[] = {
        {"content-type", h->content_type != NULL ? h->content_type : "binary/octet-stream"},
        {"cache-control", h->cache_control},
        {"content-disposition", h->content_disposition},
        {"content-encoding", h->content_encoding},
        {"content-language", h->content_language},
        {"expires", h->expires},
    };
    for (size_t i = 0; i < G_N_ELEMENTS(system); i++) {
        if (system[i].value == NULL) {
            continue;
        }
        if (!value_valid(system[i].value)) {
            return local_fail(req, LOCAL_INVALID_ARGUMENT);
        }
        pack_pair(a, "", system[i].name, system[i].value);
    }
    int r = h->meta != NULL ? pack_meta(req, h->meta, a) : 0;
    if (r < 0) {
        return r;
    }
    *ret = g_byte_array_free_to_bytes(g_steal_pointer(&a));
    return 0;
}

void local_unpack_headers(const void *data, size_t n, struct store_headers *ret)
{
    const struct {
        const char *name;
        char **slot;
    } system[] = {
        {"content-type", &ret->content_type},
        {"cache-control", &ret->cache_control},
        {"content-disposition", &ret->content_disposition},
        {"content-encoding", &ret->content_encoding},
        {"content-language", &ret->content_language},
        {"expires", &ret->expires},
    };
    const char *name, *value;
    size_t pos = 0;
    while (unpack_pair(data, n, &pos, &name, &value)) {
        if (g_str_has_prefix(name, META_PREFIX)) {
            store_headers_set_meta(ret, name + strlen(META_PREFIX), value);
            continue;
        }
        for (size_t i = 0; i < G_N_ELEMENTS(system); i++) {
            if (strcmp(name, system[i].name) == 0 && *system[i].slot == NULL) {
                *system[i].slot = g_strdup(value);
            }
        }
    }
}

/* Amazon S3 user guide, "General purpose bucket naming rules". */
bool local_bucket_name_valid(const char *name)
{
    size_t n = strlen(name);
    if (n < 3 || n > 63 || !g_ascii_isalnum(name[0]) || !g_ascii_isalnum(name[n - 1])) {
        return false;
    }
    for (const char *p = name; *p != '\0'; p++) {
        if (!g_ascii_islower(*p) && !g_ascii_isdigit(*p) && *p != '-' && *p != '.') {
            return false;
        }
    }
    struct in_addr ip;
    return strstr(name, "..") == NULL && inet_pton(AF_INET, name, &ip) != 1;
}
