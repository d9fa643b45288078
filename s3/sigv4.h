/* SPDX-License-Identifier: Apache-2.0
 *
 * sigv4: AWS Signature Version 4 in an Authorization header (Amazon S3 API reference,
 * "Authenticating Requests"; AWS general reference, "Signature Version 4 signing process").
 * Pure functions: no clock, no I/O.
 */
#pragma once
#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#define SIGV4_UNSIGNED "UNSIGNED-PAYLOAD"
#define SIGV4_EMPTY_SHA256 "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define SIGV4_TIME_SIZE 17 /* "20130524T000000Z" and its NUL */
#define SIGV4_SHA256_HEX_SIZE 65

struct sigv4_pair {
    const char *name, *value;
};

struct sigv4_input {
    const char *method;
    const char
        *path; /* as it stands in the request line: starts with '/', encoded once (sigv4_encode) */
    const char *query; /* canonical (sigv4_query); "" if none */
    const struct sigv4_pair
        *headers; /* all that is to be signed, host and x-amz-date among them; any order and case */
    size_t n_headers;
    const char *payload_hash; /* hex SHA-256 of the body, or SIGV4_UNSIGNED */
    const char *access_key, *secret_key;
    const char *region, *service;
    const char *time; /* sigv4_time() */
};

/* A derived signing key that is reused while day and region stay the same. Zero it at first, wipe
 * it (sigv4_key_wipe) at last. */
struct sigv4_key {
    char date[9];
    char region[64];
    char service[16];
    uint8_t key[32];
    bool set;
};

/* Appends s, n bytes, with all but A-Z a-z 0-9 - . _ ~ as %XX; keep_slash leaves '/' as it is
 * (paths). */
void sigv4_encode(GString *to, const char *s, size_t n, bool keep_slash);
/* The canonical query string of these names and values (NULL value = ""), sorted, encoded. Also
 * what goes on the wire. */
char *sigv4_query(const struct sigv4_pair *params, size_t n);
void sigv4_time(time_t t, char buf[static SIGV4_TIME_SIZE]);
void sigv4_sha256_hex(const void *data, size_t n, char hex[static SIGV4_SHA256_HEX_SIZE]);
/* The canonical request; ret_signed_headers gets "host;x-amz-date". Caller frees both. */
char *sigv4_canonical(const struct sigv4_input *in, char **ret_signed_headers);
/* The value of the Authorization header; caller frees. cache may be NULL. 0, or -EIO when the
 * crypto library fails. */
int sigv4_sign(const struct sigv4_input *in, struct sigv4_key *cache, char **ret_authorization);
void sigv4_key_wipe(struct sigv4_key *k);
