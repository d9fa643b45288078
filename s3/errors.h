/* SPDX-License-Identifier: Apache-2.0
 *
 * errors: one table from what came over the wire (HTTP status, S3 error code, curl code) to what
 * the rest of the program knows: an errno and a class. Sources: Amazon S3 API reference, "Error
 * responses"; RFC 9110; libcurl's error codes.
 */
#pragma once
#include "s3/store.h"

struct store_verdict {
    int err; /* 0 or -errno */
    enum store_class cls;
};

/* curl_code: a CURLcode, 0 when a reply was received. status: HTTP status, 0 if none. code: S3 error code or NULL.
 * conditional_write: the request was a PUT or COMPLETE with if_match/if_none_match; what would be RETRY
 * after the request may have reached the server becomes AMBIGUOUS. Pure. */
struct store_verdict store_classify(int curl_code, int status, const char *code, enum store_verb verb, bool conditional_write);
