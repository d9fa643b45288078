/* SPDX-License-Identifier: Apache-2.0
 *
 * s3_parse: the XML documents that S3 replies with, into results. Nothing in them is trusted:
 * numbers are checked, what is missing is an error where the rest of the program relies on it.
 * Runs on the engine's thread; no state, no locks.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "s3/s3_op.h"
#include "s3/xml.h"

char *s3_unquote_etag(const char *etag)
{
    size_t n = strlen(etag);
    if (n >= 2 && etag[0] == '"' && etag[n - 1] == '"') {
        return g_strndup(etag + 1, n - 2);
    }
    return g_strdup(etag);
}

int64_t s3_parse_iso8601(const char *s)
{
    struct tm tm = {0};
    int n = 0;
    if (sscanf(s, "%4d-%2d-%2dT%2d:%2d:%2d%n", &tm.tm_year, &tm.tm_mon, &tm.tm_mday, &tm.tm_hour,
               &tm.tm_min, &tm.tm_sec, &n) != 6) {
        return 0;
    }
    tm.tm_year -= 1900;
    tm.tm_mon -= 1;
    int64_t ns = 0, unit = (int64_t)NSEC_PER_SEC;
    if (s[n] == '.') {
        for (n++; g_ascii_isdigit(s[n]) && unit >= 10; n++) {
            unit /= 10;
            ns += (s[n] - '0') * unit;
        }
    }
    return (int64_t)timegm(&tm) * (int64_t)NSEC_PER_SEC + ns;
}

static bool parse_uint(const char *s, uint64_t max, uint64_t *ret)
{
    return g_ascii_isdigit(*s) && g_ascii_string_to_unsigned(s, 10, 0, max, ret, NULL);
}

static int parse_body(const GString *body, const struct xml_handlers *h, void *ctx)
{
    return body ? xml_parse(body->str, body->len, h, ctx) : -EBADMSG;
}

/* <Error> */

static void error_end(void *ctx, const char *path, const char *text)
{
    struct s3_error *e = ctx;
    if (strcmp(path, "Error/Code") == 0) {
        g_strlcpy(e->code, text, sizeof e->code);
    } else if (strcmp(path, "Error/Message") == 0) {
        g_strlcpy(e->message, text, sizeof e->message);
    } else if (strcmp(path, "Error/Region") == 0) {
        g_strlcpy(e->region, text, sizeof e->region);
    }
}

bool s3_parse_error(const GString *body, struct s3_error *ret)
{
    static const struct xml_handlers h = {.end = error_end};
    memset(ret, 0, sizeof *ret);
    return parse_body(body, &h, ret) == 0 && ret->code[0] != '\0';
}

/* Lists: LIST, MPU_LIST and BUCKETS have entries in one element each, and know whether more follow.
 */

struct list {
    const char *root, *item;
    struct s3_op *op;
    GPtrArray *entries;
    struct store_entry *cur;
    bool seen_root, encoded, truncated, bad;
    char *next, *next_upload;
};

/* Keys come url-encoded where the server says so, since XML cannot hold all of them. */
static char *decode(struct list *l, const char *text)
{
    if (!l->encoded) {
        return g_strdup(text);
    }
    GString *s = g_string_sized_new(strlen(text));
    for (const char *p = text; *p; p++) {
        if (*p == '+') {
            g_string_append_c(s, ' ');
        } else if (*p == '%' && g_ascii_isxdigit(p[1]) && g_ascii_isxdigit(p[2])) {
            char c = (char)(g_ascii_xdigit_value(p[1]) << 4 | g_ascii_xdigit_value(p[2]));
            if (c == '\0') {
                l->bad = true;
            } else {
                g_string_append_c(s, c);
            }
            p += 2;
        } else {
            g_string_append_c(s, *p);
        }
    }
    return g_string_free(s, FALSE);
}

static void list_start(void *ctx, const char *path)
{
    struct list *l = ctx;
    if (strcmp(path, l->root) == 0) {
        l->seen_root = true;
    } else if (strcmp(path, l->item) == 0) {
        store_entry_free(l->cur);
        l->cur = store_entry_new("");
    } else if (strcmp(path, "ListBucketResult/CommonPrefixes") == 0) {
        store_entry_free(l->cur);
        l->cur = store_entry_new("");
        l->cur->is_prefix = true;
    }
}

static void list_item(struct list *l, const char *name, const char *text)
{
    struct store_entry *e = l->cur;
    if (strcmp(name, "Key") == 0 || strcmp(name, "Prefix") == 0 || strcmp(name, "Name") == 0) {
        g_free(e->key);
        e->key = g_strdup(text);
    } else if (strcmp(name, "ETag") == 0) {
        g_free(e->etag);
        e->etag = s3_unquote_etag(text);
    } else if (strcmp(name, "Size") == 0) {
        l->bad |= !parse_uint(text, G_MAXINT64, &e->size);
    } else if (strcmp(name, "LastModified") == 0 || strcmp(name, "Initiated") == 0 ||
               strcmp(name, "CreationDate") == 0) {
        e->mtime_ns = s3_parse_iso8601(text);
    } else if (strcmp(name, "StorageClass") == 0 && *text && strcmp(text, "STANDARD") != 0) {
        g_free(e->storage_class);
        e->storage_class = g_strdup(text);
    } else if (strcmp(name, "UploadId") == 0) {
        g_free(e->upload_id);
        e->upload_id = g_strdup(text);
    }
}

static void list_end(void *ctx, const char *path, const char *text)
{
    struct list *l = ctx;
    size_t root = strlen(l->root), item = strlen(l->item);
    static const char prefixes[] = "ListBucketResult/CommonPrefixes";
    bool is_item = strcmp(path, l->item) == 0 || strcmp(path, prefixes) == 0;
    if (is_item && l->cur) {
        l->bad |= l->cur->key[0] == '\0';
        g_ptr_array_add(l->entries, g_steal_pointer(&l->cur));
    } else if (l->cur && g_str_has_prefix(path, l->item) && path[item] == '/') {
        list_item(l, path + item + 1, text);
    } else if (l->cur && g_str_has_prefix(path, prefixes) && path[sizeof prefixes - 1] == '/') {
        list_item(l, path + sizeof prefixes, text);
    } else if (g_str_has_prefix(path, l->root) && path[root] == '/') {
        const char *name = path + root + 1;
        if (strcmp(name, "IsTruncated") == 0) {
            l->truncated = strcmp(text, "true") == 0;
        } else if (strcmp(name, "EncodingType") == 0) {
            l->encoded = strcmp(text, "url") == 0;
        } else if (strcmp(name, "NextContinuationToken") == 0 ||
                   strcmp(name, "NextKeyMarker") == 0) {
            g_free(l->next);
            l->next = g_strdup(text);
        } else if (strcmp(name, "NextUploadIdMarker") == 0) {
            g_free(l->next_upload);
            l->next_upload = g_strdup(text);
        }
    }
}

static int compare_entries(const void *a, const void *b)
{
    const struct store_entry *x = *(const struct store_entry *const *)a,
                             *y = *(const struct store_entry *const *)b;
    int r = strcmp(x->key, y->key);
    return r ? r : g_strcmp0(x->upload_id, y->upload_id);
}

/* Adds the page's entries to the result. Whether keys are encoded may be said after them: they are
 * decoded last. */
static int parse_list(struct list *l, const GString *body)
{
    static const struct xml_handlers h = {.start = list_start, .end = list_end};
    struct store_result *res = &l->op->req->res;
    if (res->entries == NULL) {
        res->entries = g_ptr_array_new_with_free_func((GDestroyNotify)store_entry_free);
    }
    guint first = res->entries->len;
    l->entries = res->entries;
    int r = parse_body(body, &h, l);
    store_entry_free(l->cur);
    for (guint i = first; i < res->entries->len; i++) {
        struct store_entry *e = res->entries->pdata[i];
        char *key = decode(l, e->key);
        g_free(e->key);
        e->key = key;
    }
    if (r == 0 &&
        (l->bad || !l->seen_root || (l->truncated && (l->next == NULL || *l->next == '\0')))) {
        r = -EBADMSG;
    }
    return r;
}

int s3_parse_list(struct s3_op *op, const GString *body)
{
    struct list l = {.root = "ListBucketResult", .item = "ListBucketResult/Contents", .op = op};
    int r = parse_list(&l, body);
    if (r == 0 && l.truncated) {
        if (op->req->token && strcmp(op->req->token, l.next) == 0) {
            r = -EBADMSG; /* would be asked for for ever */
        } else {
            op->req->res.token = g_steal_pointer(&l.next);
        }
    }
    if (r == 0) {
        g_ptr_array_sort(op->req->res.entries, compare_entries);
    }
    g_free(l.next);
    g_free(l.next_upload);
    return r;
}

int s3_parse_buckets(struct s3_op *op, const GString *body)
{
    struct list l = {.root = "ListAllMyBucketsResult",
                     .item = "ListAllMyBucketsResult/Buckets/Bucket",
                     .op = op};
    int r = parse_list(&l, body);
    if (r == 0) {
        g_ptr_array_sort(op->req->res.entries, compare_entries);
    }
    g_free(l.next);
    g_free(l.next_upload);
    return r;
}

int s3_parse_uploads(struct s3_op *op, const GString *body, bool *ret_more)
{
    struct list l = {.root = "ListMultipartUploadsResult",
                     .item = "ListMultipartUploadsResult/Upload",
                     .op = op};
    int r = parse_list(&l, body);
    *ret_more = false;
    if (r == 0 && l.truncated) {
        char *next = decode(&l, l.next);
        bool again = op->marker && strcmp(op->marker, next) == 0 &&
                     g_strcmp0(op->upload_marker, l.next_upload) == 0;
        g_free(op->marker);
        g_free(op->upload_marker);
        op->marker = next;
        op->upload_marker = g_steal_pointer(&l.next_upload);
        r = again ? -EBADMSG : 0;
        *ret_more = true;
    }
    if (r == 0 && !*ret_more) {
        g_ptr_array_sort(op->req->res.entries, compare_entries);
    }
    g_free(l.next);
    g_free(l.next_upload);
    return r;
}

/* Parts */

/* Base64 of four bytes, big end first. "…-3" is the checksum of an object's parts' checksums. */
static struct store_checksum parse_checksum(const char *text)
{
    gsize n = 0;
    g_autofree guchar *bytes = strlen(text) == 8 ? g_base64_decode(text, &n) : NULL;
    uint32_t be;
    if (n != sizeof be) {
        return (struct store_checksum){0};
    }
    memcpy(&be, bytes, sizeof be);
    return (struct store_checksum){.set = true, .crc32c = GUINT32_FROM_BE(be)};
}

struct parts {
    GPtrArray *parts;
    uint64_t number, size;
    struct store_checksum checksum;
    char *etag, *next;
    bool seen_root, truncated, bad;
};

static void parts_start(void *ctx, const char *path)
{
    struct parts *p = ctx;
    if (strcmp(path, "ListPartsResult") == 0) {
        p->seen_root = true;
    } else if (strcmp(path, "ListPartsResult/Part") == 0) {
        p->number = p->size = 0;
        p->checksum.set = false;
        g_clear_pointer(&p->etag, g_free);
    }
}

static void parts_end(void *ctx, const char *path, const char *text)
{
    struct parts *p = ctx;
    if (strcmp(path, "ListPartsResult/Part/PartNumber") == 0) {
        p->bad |= !parse_uint(text, STORE_PARTS_MAX, &p->number);
    } else if (strcmp(path, "ListPartsResult/Part/Size") == 0) {
        p->bad |= !parse_uint(text, G_MAXINT64, &p->size);
    } else if (strcmp(path, "ListPartsResult/Part/ETag") == 0) {
        g_free(p->etag);
        p->etag = s3_unquote_etag(text);
    } else if (strcmp(path, "ListPartsResult/Part/ChecksumCRC32C") == 0) {
        p->checksum = parse_checksum(text);
    } else if (strcmp(path, "ListPartsResult/Part") == 0) {
        const struct store_part *last = p->parts->len ? p->parts->pdata[p->parts->len - 1] : NULL;
        if (p->number == 0 || p->etag == NULL || (last && p->number <= last->number)) {
            p->bad = true;
            return;
        }
        struct store_part *part = store_part_new((unsigned)p->number, p->size, p->etag);
        part->checksum = p->checksum;
        g_ptr_array_add(p->parts, part);
    } else if (strcmp(path, "ListPartsResult/IsTruncated") == 0) {
        p->truncated = strcmp(text, "true") == 0;
    } else if (strcmp(path, "ListPartsResult/NextPartNumberMarker") == 0) {
        g_free(p->next);
        p->next = g_strdup(text);
    }
}

int s3_parse_parts(struct s3_op *op, const GString *body, bool *ret_more)
{
    static const struct xml_handlers h = {.start = parts_start, .end = parts_end};
    struct store_result *res = &op->req->res;
    if (res->parts == NULL) {
        res->parts = g_ptr_array_new_with_free_func((GDestroyNotify)store_part_free);
    }
    guint before = res->parts->len;
    struct parts p = {.parts = res->parts};
    int r = parse_body(body, &h, &p);
    *ret_more = p.truncated;
    if (r == 0 &&
        (p.bad || !p.seen_root || (p.truncated && (p.next == NULL || res->parts->len == before)))) {
        r = -EBADMSG;
    }
    if (r == 0 && p.truncated) {
        g_free(op->marker);
        op->marker = g_steal_pointer(&p.next);
    }
    g_free(p.etag);
    g_free(p.next);
    return r;
}

/* One value out of a document */

struct value {
    const char *const *roots; /* NULL-terminated */
    const char *name;
    char *text;
};

static void value_end(void *ctx, const char *path, const char *text)
{
    struct value *v = ctx;
    for (const char *const *root = v->roots; *root; root++) {
        size_t n = strlen(*root);
        if (strncmp(path, *root, n) == 0 && path[n] == '/' && strcmp(path + n + 1, v->name) == 0) {
            g_free(v->text);
            v->text = g_strdup(text);
        }
    }
}

static int parse_value(const GString *body, const char *const *roots, const char *name, char **ret)
{
    static const struct xml_handlers h = {.end = value_end};
    struct value v = {.roots = roots, .name = name};
    int r = parse_body(body, &h, &v);
    if (r == 0 && (v.text == NULL || *v.text == '\0')) {
        r = -EBADMSG;
    }
    if (r < 0) {
        g_free(v.text);
        return r;
    }
    *ret = v.text;
    return 0;
}

int s3_parse_upload_id(struct s3_op *op, const GString *body)
{
    static const char *const roots[] = {"InitiateMultipartUploadResult", NULL};
    return parse_value(body, roots, "UploadId", &op->req->res.upload_id);
}

int s3_parse_etag(struct s3_op *op, const GString *body)
{
    static const char *const roots[] = {"CopyObjectResult", "CopyPartResult",
                                        "CompleteMultipartUploadResult", NULL};
    g_autofree char *etag = NULL;
    int r = parse_value(body, roots, "ETag", &etag);
    if (r == 0) {
        op->req->res.object.etag = s3_unquote_etag(etag);
    }
    return r;
}

void s3_parse_copied_checksum(struct s3_op *op, const GString *body)
{
    static const char *const roots[] = {"CopyPartResult", NULL};
    g_autofree char *text = NULL;
    if (parse_value(body, roots, "ChecksumCRC32C", &text) == 0) {
        op->req->res.checksum = parse_checksum(text);
    }
}

/* Tags */

struct tags {
    GHashTable *table;
    char *key, *value;
    bool seen_root;
};

static void tags_start(void *ctx, const char *path)
{
    struct tags *t = ctx;
    t->seen_root |= strcmp(path, "Tagging") == 0;
}

static void tags_end(void *ctx, const char *path, const char *text)
{
    struct tags *t = ctx;
    if (strcmp(path, "Tagging/TagSet/Tag/Key") == 0) {
        g_free(t->key);
        t->key = g_strdup(text);
    } else if (strcmp(path, "Tagging/TagSet/Tag/Value") == 0) {
        g_free(t->value);
        t->value = g_strdup(text);
    } else if (strcmp(path, "Tagging/TagSet/Tag") == 0 && t->key) {
        char *value = t->value ? g_steal_pointer(&t->value) : g_strdup("");
        g_hash_table_replace(t->table, g_steal_pointer(&t->key), value);
    }
}

int s3_parse_tags(struct s3_op *op, const GString *body)
{
    static const struct xml_handlers h = {.start = tags_start, .end = tags_end};
    struct tags t = {.table = op->req->res.tags};
    int r = parse_body(body, &h, &t);
    g_free(t.key);
    g_free(t.value);
    return r == 0 && !t.seen_root ? -EBADMSG : r;
}

/* DELETE_MANY: in quiet mode only failures are told. */

struct deleted {
    struct s3_op *op;
    char *key;
    char code[48], message[96];
    bool seen_root;
};

static void deleted_start(void *ctx, const char *path)
{
    struct deleted *d = ctx;
    if (strcmp(path, "DeleteResult") == 0) {
        d->seen_root = true;
    } else if (strcmp(path, "DeleteResult/Error") == 0) {
        g_clear_pointer(&d->key, g_free);
        d->code[0] = d->message[0] = '\0';
    }
}

static void deleted_end(void *ctx, const char *path, const char *text)
{
    struct deleted *d = ctx;
    if (strcmp(path, "DeleteResult/Error/Key") == 0) {
        g_free(d->key);
        d->key = g_strdup(text);
    } else if (strcmp(path, "DeleteResult/Error/Code") == 0) {
        g_strlcpy(d->code, text, sizeof d->code);
    } else if (strcmp(path, "DeleteResult/Error/Message") == 0) {
        g_strlcpy(d->message, text, sizeof d->message);
    } else if (strcmp(path, "DeleteResult/Error") == 0 && strcmp(d->code, "NoSuchKey") != 0) {
        s3_deleted_failed(d->op, d->key ? d->key : "", 400, d->code[0] ? d->code : "InternalError",
                          d->message);
    }
}

int s3_parse_deleted(struct s3_op *op, const GString *body)
{
    static const struct xml_handlers h = {.start = deleted_start, .end = deleted_end};
    struct deleted d = {.op = op};
    int r = parse_body(body, &h, &d);
    g_free(d.key);
    return r == 0 && !d.seen_root ? -EBADMSG : r;
}
