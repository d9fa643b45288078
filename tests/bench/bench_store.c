/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_store: what the wire layer costs by itself. Against the server in S3_ENDPOINT (with
 * S3_ACCESS_KEY, S3_SECRET_KEY, S3_BUCKET), for each of PUT and GET: `jobs` requests of `mib` MiB
 * each, `width` of them at a time, `rounds` rounds. Prints GB/s and CPU seconds of this process
 * per GiB, median of the rounds.
 *
 *     bench_store [rounds [jobs [mib [width]]]]        (5 64 16 8)
 */
#include <glib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "base/mutex.h"
#include "s3/store_s3.h"

struct bench {
    struct store *store;
    const char *bucket;
    char *data; /* one object's bytes */
    uint64_t size;
    unsigned jobs, width;

    struct mutex lock;
    struct cond changed;
    unsigned next, done, failed; /* lock */
};

struct slot {
    struct bench *b;
    struct store_request req;
    char *buf, key[32];
    enum store_verb verb;
};

static ssize_t source_read(void *ctx, uint64_t off, void *buf, size_t n)
{
    memcpy(buf, ((struct bench *)ctx)->data + off, n);
    return (ssize_t)n;
}

static int sink_write(void *ctx, uint64_t off, const void *buf, size_t n)
{
    memcpy(((struct slot *)ctx)->buf + off, buf, n);
    return 0;
}

static void slot_go(struct slot *s, unsigned job);

static void slot_done(struct store_request *req)
{
    struct slot *s = req->ctx;
    struct bench *b = s->b;
    if (req->res.err < 0) {
        fprintf(stderr, "%s\n", req->res.detail);
    }
    mutex_lock(&b->lock);
    b->failed += req->res.err < 0;
    b->done++;
    bool more = b->next < b->jobs;
    unsigned job = more ? b->next++ : 0;
    cond_broadcast(&b->changed);
    mutex_unlock(&b->lock);
    if (more) {
        slot_go(s, job);
    }
}

static void slot_go(struct slot *s, unsigned job)
{
    struct bench *b = s->b;
    store_request_clear(&s->req);
    snprintf(s->key, sizeof s->key, "bench-%u", job);
    s->req = (struct store_request){
        .verb = s->verb,
        .prio = s->verb == STORE_PUT ? STORE_PRIO_UPLOAD : STORE_PRIO_DEMAND,
        .bucket = b->bucket,
        .key = s->key,
        .source = {.read = source_read, .ctx = b, .size = b->size},
        .sink = {.write = sink_write, .ctx = s},
        .range = {.off = 0, .len = b->size, .set = s->verb == STORE_GET},
        .done = slot_done,
        .ctx = s,
    };
    store_submit(b->store, &s->req);
}

static double cpu_seconds(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void run_round(struct bench *b, enum store_verb verb, double *ret_gbs, double *ret_cpu)
{
    struct slot *slots = g_new0(struct slot, b->width);
    for (unsigned i = 0; i < b->width; i++) {
        slots[i] = (struct slot){.b = b, .verb = verb, .buf = g_malloc0(b->size)};
    }
    double cpu = cpu_seconds();
    uint64_t t = clock_mono_ns();
    b->done = 0;
    b->next = b->width;
    for (unsigned i = 0; i < b->width; i++) {
        slot_go(&slots[i], i);
    }
    mutex_lock(&b->lock);
    while (b->done < b->jobs) {
        cond_wait(&b->changed, &b->lock);
    }
    mutex_unlock(&b->lock);
    double bytes = (double)b->size * b->jobs;
    *ret_gbs = bytes / (double)(clock_mono_ns() - t);
    *ret_cpu = (cpu_seconds() - cpu) / (bytes / (1 << 30));
    for (unsigned i = 0; i < b->width; i++) {
        store_request_clear(&slots[i].req);
        g_free(slots[i].buf);
    }
    g_free(slots);
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void run_verb(struct bench *b, enum store_verb verb, unsigned rounds)
{
    g_autofree double *gbs = g_new(double, rounds), *cpu = g_new(double, rounds);
    for (unsigned i = 0; i < rounds; i++) {
        run_round(b, verb, &gbs[i], &cpu[i]);
    }
    qsort(gbs, rounds, sizeof *gbs, compare_doubles);
    qsort(cpu, rounds, sizeof *cpu, compare_doubles);
    printf("%-4s %.2f GB/s  %.2f CPU s/GiB\n", store_verb_name(verb), gbs[rounds / 2],
           cpu[rounds / 2]);
}

static unsigned argument(int argc, char **argv, int i, unsigned standard)
{
    unsigned long v = i < argc ? strtoul(argv[i], NULL, 10) : standard;
    return v >= 1 && v <= 100000 ? (unsigned)v : standard;
}

int main(int argc, char **argv)
{
    const struct s3_credentials c = {.access_key = getenv("S3_ACCESS_KEY"),
                                     .secret_key = getenv("S3_SECRET_KEY")};
    const struct store_s3_params p = {
        .endpoint = getenv("S3_ENDPOINT"), .credentials = &c, .ca_file = getenv("CA_FILE")};
    unsigned rounds = argument(argc, argv, 1, 5);
    struct bench b = {
        .bucket = getenv("S3_BUCKET"),
        .jobs = argument(argc, argv, 2, 64),
        .size = (uint64_t)argument(argc, argv, 3, 16) << 20,
        .width = argument(argc, argv, 4, 8),
    };
    if (b.bucket == NULL || b.jobs < b.width || store_s3_new(&p, &b.store) < 0) {
        fprintf(stderr,
                "set S3_ENDPOINT, S3_ACCESS_KEY, S3_SECRET_KEY and S3_BUCKET; jobs >= width\n");
        return 1;
    }
    mutex_init(&b.lock, RANK_LEAF);
    cond_init(&b.changed);
    b.data = g_malloc(b.size);
    memset(b.data, 'x', b.size);
    run_verb(&b, STORE_PUT, rounds);
    run_verb(&b, STORE_GET, rounds);
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    printf("peak RSS %ld MiB, of which %llu MiB are the requests' own buffers\n",
           u.ru_maxrss / 1024, (unsigned long long)((b.width + 1) * b.size >> 20));
    store_free(b.store);
    g_free(b.data);
    cond_fini(&b.changed);
    mutex_fini(&b.lock);
    return b.failed > 0;
}
