/* SPDX-License-Identifier: Apache-2.0
 *
 * credentials: who we are to the server. Secrets are never logged and are wiped on clear.
 */
#pragma once
#include <stdbool.h>

struct s3_credentials {
    bool anonymous; /* requests are not signed */
    char *access_key, *secret_key, *session_token;
    const char *origin; /* where they came from, for messages: "S3_ACCESS_KEY", "profile default", … static */
};

struct s3_credentials_params {
    bool anonymous;         /* asked for: nothing is looked up */
    const char *profile;    /* NULL = AWS_PROFILE, else "default" */
    const char *conf_path;  /* our configuration file; NULL = none */
    const char *conf_access_key, *conf_secret_key; /* what that file says; NULL = nothing */
};

/* Looks in this order: S3_ACCESS_KEY + S3_SECRET_KEY; AWS_ACCESS_KEY_ID + AWS_SECRET_ACCESS_KEY (+ AWS_SESSION_TOKEN);
 * the profile in AWS_SHARED_CREDENTIALS_FILE or ~/.aws/credentials; the configuration file, refused
 * with -EPERM when anyone but its owner can read it. -ENOENT when nothing is found; -EINVAL when half of a pair is set. Each is logged with what to do. */
int s3_credentials_load(const struct s3_credentials_params *p, struct s3_credentials *ret);
void s3_credentials_clear(struct s3_credentials *c);
