/* SPDX-License-Identifier: Apache-2.0
 *
 * conformance_deviations: where servers are known not to be like S3. A row names a server, a case,
 * and a piece of what the case then finds. A case that fails otherwise fails; one that passes fails
 * too, until its row is removed. Verified with MinIO at commit
 * 7aac2a2c5b7c of 2026-02-12 and versitygw v1.8.0 (POSIX back end).
 */
#include "tests/lib/conformance.h"

static const struct conf_deviation rows[] = {
    /* MinIO keeps a key as a path, cleaned as Go's path.Clean does, in valid UTF-8. */
    {"minio", "key/invalid-utf8", "SignatureDoesNotMatch"},
    {"minio", "key/truncated-utf8", "SignatureDoesNotMatch"},
    {"minio", "key/double-slash", "XMinioInvalidObjectName"},
    {"minio", "key/leading-slash", "LIST does not have the key"},
    {"minio", "key/leading-slashes", "XMinioInvalidObjectName"},
    {"minio", "key/slash-alone", "XMinioInvalidObjectName"},
    {"minio", "key/trailing-slashes", "XMinioInvalidObjectName"},
    {"minio", "key/dot", "XMinioInvalidResourceName"},
    {"minio", "key/dot-dot", "XMinioInvalidResourceName"},
    {"minio", "key/dot-inside", "XMinioInvalidResourceName"},
    {"minio", "key/dot-dot-inside", "XMinioInvalidResourceName"},
    {"minio", "key/dot-dot-first", "XMinioInvalidResourceName"},
    {"minio", "key/1024-bytes", "XMinioInvalidObjectName"},
    {"minio", "key/300-bytes-segment", "XMinioInvalidObjectName"},
    {"minio", "list/double-slash", "XMinioInvalidObjectName"},
    {"minio", "list/double-slash-below", "XMinioInvalidObjectName"},
    /* Keys below a key can be put and read, and are not listed. */
    {"minio", "list/beside", "got \"a\\na-x\\na0\""},
    {"minio", "list/beside-delimiter", "got \"a\\na-x\\na0\""},
    {"minio", "list/beside-prefix", "got \"\""},
    /* A page that ends with a marker: the next one leaves out what sorts before "d__XLDIR__". */
    {"minio", "list/marker-delimiter",
     "pages of 1: expected \"d-x\\nd/*\\nd0\", got \"d-x\\nd/*\""},
    {"minio", "list/marker-is-prefix", "pages of 1: expected \"d/\\nd/1\\nd/e/*\", got \"d/\""},
    /* Conditions that it takes no notice of. */
    {"minio", "if/delete-mismatch", "expected ESTALE CONFLICT, got 0 OK 204"},
    {"minio", "if/copy-none-match", "expected EEXIST CONFLICT, got 0 OK 200"},
    {"minio", "if/copy-mismatch", "expected ESTALE CONFLICT, got 0 OK 200"},
    {"minio", "caps/copy-if", "the probe does not find it"},
    {"minio", "caps/delete-if", "the probe does not find it"},
    /* A part that is copied has no checksum, and an upload with checksums takes no such part. */
    {"minio", "caps/copy-into-checksum-mpu", "the probe does not find it"},
    {"minio", "checksum/copied", "InvalidArgument"},
    {"minio", "checksum/copied-range", "InvalidArgument"},
    {"minio", "multipart/garbage-upload-id", "XMinioInvalidResourceName"},
    {"minio", "multipart/list-uploads-prefix", "0 uploads below the prefix"}, /* only a whole key */
    {"minio", "tags/unicode", "InvalidTag"},
    /* A copy that carries the headers carries the class too, unless it is given another. */
    {"minio", "kept/copy-default", "the class is REDUCED_REDUNDANCY"},

    /* versitygw's back end is a file system: a key is a path, and is cleaned. */
    {"versitygw", "key/double-slash", "LIST does not have the key"},
    {"versitygw", "key/leading-slash", "LIST does not have the key"},
    {"versitygw", "key/leading-slashes", "LIST does not have the key"},
    {"versitygw", "key/trailing-slashes", "LIST does not have the key"},
    {"versitygw", "key/dot-inside", "LIST does not have the key"},
    {"versitygw", "key/dot-dot-inside", "LIST does not have the key"},
    {"versitygw", "key/slash-alone", "EINVAL FATAL 400"},
    {"versitygw", "key/dot", "EINVAL FATAL 400"},
    {"versitygw", "key/dot-dot", "EINVAL FATAL 400"},
    {"versitygw", "key/dot-dot-first", "EINVAL FATAL 400"},
    {"versitygw", "key/1024-bytes", "KeyTooLongError"},
    {"versitygw", "key/300-bytes-segment", "ExistingObjectIsDirectory"},
    {"versitygw", "key/beside-children", "ObjectParentIsFile"},
    {"versitygw", "key/marker-with-bytes", "DirectoryObjectContainsData"},
    {"versitygw", "key/distinct", "ObjectParentIsFile"},
    {"versitygw", "list/beside", "ObjectParentIsFile"},
    {"versitygw", "list/beside-delimiter", "ObjectParentIsFile"},
    {"versitygw", "list/beside-prefix", "ObjectParentIsFile"},
    {"versitygw", "list/double-slash", "got \"d/1\\nd/x\""},
    {"versitygw", "list/double-slash-below", "got \"\""},
    /* It ignores encoding-type=url, and XML cannot carry these bytes. */
    {"versitygw", "key/invalid-utf8", "LIST gave a key without the prefix"},
    {"versitygw", "key/truncated-utf8", "LIST gave a key without the prefix"},
    {"versitygw", "key/control-01", "LIST gave a key without the prefix"},
    {"versitygw", "key/control-1f", "LIST gave a key without the prefix"},
    /* Conditions that it takes no notice of. */
    {"versitygw", "if/copy-none-match", "expected EEXIST CONFLICT, got 0 OK 200"},
    {"versitygw", "if/copy-mismatch", "expected ESTALE CONFLICT, got 0 OK 200"},
    {"versitygw", "caps/copy-if", "the probe does not find it"},
    /* A self-copy that replaces the headers keeps those that are not named. */
    {"versitygw", "copy/self-replace", "the headers are not the new ones: text/x-second, fr"},
    /* The checksum of a part copied from a range is said to be that of the whole source. */
    {"versitygw", "caps/copy-into-checksum-mpu", "the probe does not find it"},
    {"versitygw", "checksum/copied-range", "the reply tells another checksum"},
    /* Its date is that of the bytes: s3_date.c knows it by name. */
    {"versitygw", "copy/self-date", "the date stays"},
    {"versitygw", "bucket/name-two-dots", "got 0 OK 200"},
    /* It has one storage class, and takes no notice of others. */
    {"versitygw", "kept/put-class", "the class is STANDARD"},
    {"versitygw", "kept/upload-class", "the class is STANDARD"},
    {"versitygw", "kept/copy-class", "the class is STANDARD"},
    {"versitygw", "kept/eleven", "got 0 OK 200"}, /* it counts the tags of TAGS_PUT only */
    /* A body that breaks off is taken for a whole one, once the connection is gone. */
    {"versitygw", "put/source-error", "expected 3 bytes", true},
    {"versitygw", "async/cancel-put", "expected 3 bytes", true},
    {"versitygw", "async/cancel-part", "the part is there", true},
    /* Bytes and attributes of an object that is being overwritten are read one after the other. */
    {"versitygw", "async/versions-do-not-mix", "one version's ETag with another's bytes", true},
    /* An unknown access key is 404, not 403: HEAD cannot tell it from an absent object. */
    {"versitygw", "endpoint/bad-access-key-head", "got ENOENT FATAL 404"},
};

const struct conf_deviation *conf_deviation(const char *server, const char *name)
{
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        if (strcmp(rows[i].server, server) == 0 && strcmp(rows[i].name, name) == 0) {
            return &rows[i];
        }
    }
    return NULL;
}

bool conf_deviation_rows_exist(GArray *cases)
{
    bool all = true;
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        bool found = false;
        for (guint k = 0; k < cases->len; k++) {
            found =
                found || strcmp(g_array_index(cases, struct conf_case, k).name, rows[i].name) == 0;
        }
        if (!found) {
            g_test_message("the table of deviations names %s, which is no case", rows[i].name);
            all = false;
        }
    }
    return all;
}
