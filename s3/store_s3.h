/* SPDX-License-Identifier: Apache-2.0
 *
 * store_s3: a store on an S3-compatible server over HTTP(S). One engine thread drives libcurl's
 * multi interface; request bodies are sent UNSIGNED-PAYLOAD under SigV4. Capabilities are probed
 * once, by the first store_get_caps() that names a bucket, with small objects in it whose keys are probe_prefix, ".mlopsfs-probe-"
 * and a UUID, and that it removes, unless `caps` is given. A bucket where that is not permitted has none; others are still tried.
 */
#pragma once
#include "s3/credentials.h"
#include "s3/store.h"

enum s3_addressing { S3_ADDRESSING_AUTO, S3_ADDRESSING_PATH, S3_ADDRESSING_VIRTUAL };

struct store_s3_params {
    const char *endpoint; /* "http[s]://host[:port]"; NULL = https://s3.REGION.amazonaws.com */
    const char *region;   /* NULL = "us-east-1"; a redirect or error that names another region is followed */
    enum s3_addressing addressing; /* AUTO: virtual on amazonaws.com for names that are DNS labels, else path */
    const struct s3_credentials *credentials; /* copied; anonymous when it says so */
    const char *ca_file;  /* NULL = the system's CAs */
    const char *probe_prefix; /* begins the probes' keys; NULL = "" */
    const struct store_caps *caps; /* override; NULL = probe */
    unsigned connections; /* at most this many at once; 0 = 32 */
    uint64_t connect_timeout_ns; /* 0 = 10 s */
    uint64_t stall_timeout_ns;   /* no byte either way for so long ends an attempt as RETRY, but not
                                * while a server copies or completes; 0 = 30 s */
};

/* 0; -EINVAL for a malformed endpoint, region or ca_file, -EACCES for credentials that are none, others when ca_file cannot be read (logged). Does not talk to the server. */
int store_s3_new(const struct store_s3_params *p, struct store **ret);
