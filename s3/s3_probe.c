/* SPDX-License-Identifier: Apache-2.0
 *
 * s3_probe: finds out by trying what the server at hand honours: servers take conditions that they do
 * not honour without a word. What is tried is s3_trial.c.
 *
 * A probe is a number of trials, each on a key of its own and a job of its own, since what counts
 * is the round trips until the last one has its answer. They clean up after that, while who asked
 * goes on; the last one to end also removes what killed processes have left, and frees the probe.
 * Threads: a trial is its job's alone; what they share is under the probe's lock.
 *
 * Where a trial needs an upload, an object is put under its key as well, first, though nobody waits
 * for that before the upload is created: a process that is killed leaves both, and the object is how
 * the next probe finds them. Each looks for what others have left OLD_NS ago; whoever still probes is
 * younger than that.
 */
#include <errno.h>
#include <string.h>
#include <uuid/uuid.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/workq.h"
#include "s3/s3_probe.h"

#define PROBE_NAME ".mlopsfs-probe-"
#define PROBE_NAME_MAX (sizeof PROBE_NAME + 2 + 36)
#define OLD_NS (15 * 60 * (int64_t)NSEC_PER_SEC)

/* ---- cleaning up ---- */

/* 0 or -errno: some may be left. */
static int abort_upload(struct probe *p, const char *key, const char *upload_id)
{
    struct store_request req = s3_probe_request(p, STORE_MPU_ABORT, key);
    req.upload_id = upload_id;
    int r = store_run(p->store, &req, NULL);
    store_request_clear(&req);
    return r == -ENOENT ? 0 : r;
}

static int end_uploads(struct probe *p, const char *key)
{
    struct store_request list = s3_probe_request(p, STORE_MPU_LIST, NULL);
    list.prefix = key;
    int r = store_run(p->store, &list, NULL);
    for (guint i = 0; list.res.entries && i < list.res.entries->len; i++) {
        const struct store_entry *e = list.res.entries->pdata[i];
        if (strcmp(e->key, key) == 0 && e->upload_id) {
            int one = abort_upload(p, key, e->upload_id);
            r = r < 0 ? r : one;
        }
    }
    store_request_clear(&list);
    return r;
}

static int remove_object(struct probe *p, const char *key)
{
    struct store_request req = s3_probe_request(p, STORE_DELETE, key);
    int r = store_run(p->store, &req, NULL);
    store_request_clear(&req);
    return r;
}

/* The object goes last, and stays where an upload may be left that is found by it. */
static void clean_up(struct trial *t)
{
    struct probe *p = t->probe;
    if (!t->tried) {
        return;
    }
    if (t->upload_id) {
        t->upload_doubtful = abort_upload(p, t->key, t->upload_id) < 0 || t->upload_doubtful;
    }
    bool stays = t->upload_doubtful && end_uploads(p, t->key) < 0;
    if (stays) {
        log_debug("an upload of the probe's may be left of s3://%s/%s: a later probe ends it", p->bucket, t->key);
    } else if (remove_object(p, t->key) < 0 && t->there) {
        mutex_lock(&p->lock);
        p->left++;
        mutex_unlock(&p->lock);
    }
}

/* What other probes have left. */
static void remove_leftovers(struct probe *p)
{
    g_autofree char *names = g_strconcat(p->prefix, PROBE_NAME, NULL);
    struct store_request list = s3_probe_request(p, STORE_LIST, NULL);
    list.prefix = names;
    store_run(p->store, &list, NULL);
    for (guint i = 0; list.res.entries && i < list.res.entries->len; i++) {
        const struct store_entry *e = list.res.entries->pdata[i];
        if (!g_str_has_prefix(e->key, names) || e->mtime_ns == 0 || clock_real_ns() - e->mtime_ns < OLD_NS) {
            continue;
        }
        if (end_uploads(p, e->key) == 0) { /* first: the object is how they are found */
            (void)remove_object(p, e->key);
        }
    }
    store_request_clear(&list);
}

/* ---- the probe ---- */

static void probe_unref(struct probe *p)
{
    mutex_lock(&p->lock);
    bool last = --p->refs == 0;
    mutex_unlock(&p->lock);
    if (!last) {
        return;
    }
    if (p->left > 0) {
        log_warning("cannot remove %u objects s3://%s/%s" PROBE_NAME "* of trying out what the server can do", p->left,
                    p->bucket, p->prefix);
    }
    if (!p->passing && !p->incomplete && !p->refusal[0]) {
        remove_leftovers(p);
    }
    for (unsigned i = 0; i < TRIALS; i++) {
        g_free(p->trials[i].key);
        g_free(p->trials[i].upload_id);
    }
    cond_fini(&p->changed);
    mutex_fini(&p->lock);
    g_free(p->bucket);
    g_free(p->prefix);
    g_free(p);
}

static void trial_job(void *arg)
{
    struct trial *t = arg;
    struct probe *p = t->probe;
    t->try(t);
    mutex_lock(&p->lock);
    p->trying--;
    cond_signal(&p->changed);
    mutex_unlock(&p->lock);
    clean_up(t);
    probe_unref(p);
}

static struct probe *probe_new(struct s3 *s3, const char *bucket)
{
    G_STATIC_ASSERT(TRIALS <= 10); /* a digit each: PROBE_NAME_MAX */
    struct probe *p = g_new0(struct probe, 1);
    char id[37];
    uuid_t uuid;
    uuid_generate_random(uuid);
    uuid_unparse_lower(uuid, id);
    p->store = &s3->store;
    p->bucket = g_strdup(bucket);
    p->prefix = g_strdup(s3->probe_prefix);
    mutex_init(&p->lock, RANK_LEAF);
    cond_init(&p->changed);
    p->trying = TRIALS;
    p->refs = TRIALS + 1;
    for (unsigned i = 0; i < TRIALS; i++) {
        p->trials[i].probe = p;
        p->trials[i].try = s3_tries[i];
        p->trials[i].key = g_strdup_printf("%s" PROBE_NAME "%u-%s", p->prefix, i, id);
    }
    return p;
}

static void merge(const struct probe *p, struct store_caps *ret)
{
    bool refuses = false;
    for (unsigned i = 0; i < TRIALS; i++) {
        const struct store_caps *c = &p->trials[i].caps;
        ret->put_if |= c->put_if;
        ret->copy_if |= c->copy_if;
        ret->delete_if |= c->delete_if;
        ret->complete_if |= c->complete_if;
        ret->copy_part |= c->copy_part;
        ret->checksum |= c->checksum;
        ret->checksum_part |= c->checksum_part;
        ret->checksum_mpu |= c->checksum_mpu;
        ret->copy_into_checksum_mpu |= c->copy_into_checksum_mpu;
        ret->head_tags |= c->head_tags;
        refuses |= p->trials[i].refuses;
    }
    ret->checksum_mpu &= refuses;
    ret->copy_into_checksum_mpu &= ret->copy_part && ret->checksum_mpu;
}

static void warn_refused(const struct probe *p)
{
    log_warning("not permitted to try out what the server can do (%s): what could not be tried of "
                "conditional writes, copying by parts and checksums counts as missing; to change "
                "that, permit putting, copying and deleting s3://%s/%s" PROBE_NAME "*",
                p->refusal, p->bucket, p->prefix);
}

enum s3_probed s3_probe(struct s3 *s3, struct workq *jobs, const char *bucket, struct store_caps *ret)
{
    *ret = (struct store_caps){0};
    if (strlen(s3->probe_prefix) + PROBE_NAME_MAX > STORE_KEY_MAX) {
        log_debug("no room for the name of a probe: no capabilities");
        return S3_PROBED;
    }
    struct probe *p = probe_new(s3, bucket);
    for (unsigned i = 0; i < TRIALS; i++) {
        workq_push(jobs, trial_job, &p->trials[i]);
    }
    mutex_lock(&p->lock);
    while (p->trying > 0) {
        cond_wait(&p->changed, &p->lock);
    }
    bool passing = p->passing, limited = p->incomplete || p->refusal[0];
    mutex_unlock(&p->lock);
    if (!passing) {
        merge(p, ret);
        if (p->refusal[0]) {
            warn_refused(p);
        }
    }
    g_autofree char *names = store_caps_print(ret);
    log_debug("capabilities in %s:%s%s", bucket, names, passing ? " (not sure)" : "");
    probe_unref(p);
    return passing ? S3_PROBED_NOTHING : limited ? S3_PROBED_BUCKET : S3_PROBED;
}
