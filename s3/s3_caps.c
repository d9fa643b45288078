/* SPDX-License-Identifier: Apache-2.0
 *
 * s3_caps: what the server at hand honours, for who asks: found out once (s3_probe.c), and kept.
 *
 * Threads: the first caller of s3_caps_get() that names a bucket probes there, others wait for it;
 * caps_lock is not held meanwhile. An answer is kept for good, for all buckets: they are one
 * server's. Where probing is not permitted, or no object can be put, that counts for the bucket
 * alone. A probe that failed for a passing reason (a timeout, 503) assumes nothing and is run again
 * at the next call.
 */
#include "base/log.h"
#include "base/workq.h"
#include "s3/s3_op.h"

#define AT_ONCE 16

/* Where the probes' trials run, and clean up after the answer. Its maker is the one that probes. */
static struct workq *jobs(struct s3 *s3)
{
    if (!s3->caps_jobs) {
        int r = workq_new("capabilities", AT_ONCE, &s3->caps_jobs);
        if (r < 0) {
            log_error_errno(r, "cannot find out what the server can do");
        }
    }
    return s3->caps_jobs;
}

void s3_caps_get(struct store *s, const char *bucket, struct store_caps *ret)
{
    struct s3 *s3 = (struct s3 *)s;
    mutex_lock(&s3->caps_lock);
    while (s3->caps_probing && bucket) {
        cond_wait(&s3->caps_changed, &s3->caps_lock);
    }
    const struct store_caps *limited = bucket ? g_hash_table_lookup(s3->caps_limited, bucket) : NULL;
    if (s3->caps_known || limited || !bucket) {
        *ret = limited && !s3->caps_known ? *limited : s3->caps;
        mutex_unlock(&s3->caps_lock);
        return;
    }
    s3->caps_probing = true;
    mutex_unlock(&s3->caps_lock);

    struct workq *q = jobs(s3);
    *ret = (struct store_caps){0};
    enum s3_probed probed = q ? s3_probe(s3, q, bucket, ret) : S3_PROBED_NOTHING;

    mutex_lock(&s3->caps_lock);
    if (probed == S3_PROBED) {
        s3->caps = *ret;
        s3->caps_known = true;
    } else if (probed == S3_PROBED_BUCKET) {
        g_hash_table_replace(s3->caps_limited, g_strdup(bucket), g_memdup2(ret, sizeof *ret));
    }
    s3->caps_probing = false;
    cond_broadcast(&s3->caps_changed);
    mutex_unlock(&s3->caps_lock);
}
