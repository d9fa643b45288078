/* SPDX-License-Identifier: Apache-2.0
 *
 * endpoint: see endpoint.h. No state, no locks.
 */
#include "fs/endpoint.h"

#include <curl/curl.h>
#include <errno.h>
#include <glib.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "fs/config.h"

#define FORM "it takes http://host[:port] or https://host[:port]"

/* NULL when the URL has no such part. */
static char *part(CURLU *u, CURLUPart which, unsigned flags)
{
    char *text = NULL, *copy;

    if (curl_url_get(u, which, &text, flags) != CURLUE_OK)
        return NULL;
    copy = g_strdup(text);
    curl_free(text);
    return copy;
}

static int refuse(char **ret_why, const char *why)
{
    *ret_why = g_strdup(why);
    return -EINVAL;
}

static int take(CURLU *u, char **ret, char **ret_why)
{
    g_autofree char *scheme = part(u, CURLUPART_SCHEME, 0), *host = part(u, CURLUPART_HOST, 0);
    g_autofree char *path = part(u, CURLUPART_PATH, 0), *query = part(u, CURLUPART_QUERY, 0);
    g_autofree char *fragment = part(u, CURLUPART_FRAGMENT, 0);
    g_autofree char *port = part(u, CURLUPART_PORT, CURLU_NO_DEFAULT_PORT);

    if (!scheme || (strcmp(scheme, "http") != 0 && strcmp(scheme, "https") != 0) || !host || !*host)
        return refuse(ret_why, FORM);
    if ((path && strcmp(path, "/") != 0) || query || fragment)
        return refuse(ret_why, FORM ", and nothing after that: a bucket is named by s3://BUCKET");
    if (port && strtoul(port, NULL, 10) == 0)
        return refuse(ret_why, FORM ", with a port from 1 to 65535");
    g_autofree char *lower = g_ascii_strdown(host, -1);
    *ret = g_strconcat(scheme, "://", lower, port ? ":" : "", port, NULL);
    return 0;
}

int endpoint_normalize(const char *text, char **ret, char **ret_why)
{
    CURLU *u;
    int r;

    *ret = *ret_why = NULL;
    if (strchr(text, '@')) /* before anything else looks at it */
        return refuse(ret_why, "a user name or a password does not belong into it; keys have places of their own: "
                               "see CREDENTIALS in mlopsfs(1)");
    u = curl_url();
    if (!u)
        return refuse(ret_why, "no memory");
    if (curl_url_set(u, CURLUPART_URL, text, 0) == CURLUE_OK)
        r = take(u, ret, ret_why);
    else
        r = refuse(ret_why, FORM);
    curl_url_cleanup(u);
    return r;
}

/* s3.amazonaws.com and s3.REGION.amazonaws.com show the same buckets. */
static bool is_amazon(const char *endpoint)
{
    const char *host = strstr(endpoint, "://") + 3;
    size_t n = strlen(host), tail = strlen(".amazonaws.com");

    if (n < tail || strcmp(host + n - tail, ".amazonaws.com") != 0)
        return false;
    g_autofree char *name = g_strndup(host, n - tail);
    return strcmp(name, "s3") == 0 || (g_str_has_prefix(name, "s3.") && !strchr(name + 3, '.'));
}

char *endpoint_identity(const struct config *c)
{
    if (c->kind == CONFIG_LOCAL) {
        char *real = realpath(c->local_path, NULL);
        char *copy = g_strdup(real ? real : c->local_path);

        free(real);
        return copy;
    }
    return g_strdup(!c->endpoint || is_amazon(c->endpoint) ? "Amazon S3" : c->endpoint);
}
