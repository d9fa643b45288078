/* SPDX-License-Identifier: Apache-2.0
 *
 * s3_date: whether Last-Modified tells one state of an object from the next. An ETag is of the bytes:
 * a copy of an object onto itself with other headers, and the same bytes put again, keep it. The date
 * changes then, but it has whole seconds. So, as git does with its index, an object is believed to be
 * told by its date only if the second is over when the server answers, by the server's own clock.
 *
 * Pure. A server that keeps the date when only headers change is known by its name: no request that
 * must fail could show it, and one that succeeds would have to wait a second for an object of its own.
 * The conformance suite (copy/self-date) finds such servers.
 */
#include <curl/curl.h>

#include "base/clock.h"
#include "s3/s3_op.h"

#define SETTLED_AFTER 2 /* seconds; two, because the nodes of a server may differ, and round differently */

static bool keeps_dates(const char *server)
{
    static const char *const known[] = {
        "VERSITYGW", /* the date is the file's mtime, the headers are its extended attributes */
    };
    for (size_t i = 0; server && i < G_N_ELEMENTS(known); i++) {
        if (g_ascii_strncasecmp(server, known[i], strlen(known[i])) == 0) {
            return true;
        }
    }
    return false;
}

bool s3_date_settled(const struct http_reply *r, int64_t mtime_ns)
{
    const char *date = http_header(r, "date");
    if (mtime_ns <= 0 || date == NULL || keeps_dates(http_header(r, "server"))) {
        return false;
    }
    time_t now = curl_getdate(date, NULL);
    return now > 0 && (int64_t)now - mtime_ns / (int64_t)NSEC_PER_SEC >= SETTLED_AFTER;
}

void s3_date_clock(const struct http_reply *r, struct store_result *res)
{
    const char *date = http_header(r, "date");
    time_t now = date ? curl_getdate(date, NULL) : -1;
    res->clock_known = now > 0;
    res->clock_ahead_ns = now > 0 ? (int64_t)now * (int64_t)NSEC_PER_SEC - (int64_t)clock_real_ns() : 0;
}
