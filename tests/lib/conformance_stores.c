/* SPDX-License-Identifier: Apache-2.0
 *
 * conformance_stores: which store the suite runs on. S3_ENDPOINT, S3_ACCESS_KEY, S3_SECRET_KEY (and
 * S3_REGION) choose a server, MLOPSFS_SERVER its name in the table of deviations; without
 * S3_ENDPOINT it is store_local in a directory.
 */
#include <stdlib.h>

#include "s3/store_local.h"
#include "s3/store_s3.h"
#include "tests/lib/conformance.h"

struct store *conf_store_on(const struct conf_endpoint *e)
{
    struct s3_credentials cred = {.anonymous = e->access_key == NULL,
                                  .access_key = g_strdup(e->access_key),
                                  .secret_key = g_strdup(e->secret_key),
                                  .origin = "the suite"};
    struct store_s3_params p = {.endpoint = e->url,
                                .region = e->region,
                                .credentials = &cred};
    struct store *s = NULL;
    int r = store_s3_new(&p, &s);
    s3_credentials_clear(&cred);
    return r < 0 ? NULL : s;
}

int conf_store_open(struct conf *c, const char *local_path)
{
    c->endpoint = (struct conf_endpoint){.url = getenv("S3_ENDPOINT"),
                                         .region = getenv("S3_REGION"),
                                         .access_key = getenv("S3_ACCESS_KEY"),
                                         .secret_key = getenv("S3_SECRET_KEY")};
    if (c->endpoint.url == NULL) {
        c->server = "local";
        return store_local_new(&(struct store_local_params){.path = local_path}, &c->store);
    }
    const char *server = getenv("MLOPSFS_SERVER");
    c->server = server != NULL ? server : "other";
    c->store = conf_store_on(&c->endpoint);
    return c->store != NULL ? 0 : -EINVAL;
}
