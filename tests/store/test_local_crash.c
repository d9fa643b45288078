/* SPDX-License-Identifier: Apache-2.0
 *
 * test_local_crash: kill -9 against store_local. A child (this program, --child) changes objects at
 * random on several threads and tells through a pipe what it begins and what was acknowledged. The
 * parent kills it after a random number of acknowledgements, opens the store, and holds it to what
 * it was told: each key is as last acknowledged, or as the operation that was under way would have
 * left it; and no blob is there that the index does not name.
 *
 * MLOPSFS_SEED repeats a run, MLOPSFS_CRASH_ROUNDS sets how many kills (25).
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mutex.h"
#include "base/sqlite.h"
#include "s3/store_local.h"
#include "tests/lib/conformance.h"
#include "tests/lib/seed.h"

#define BUCKET "crash"
#define THREADS 4
#define KEYS_PER_THREAD 6
#define KEYS (THREADS * KEYS_PER_THREAD)

/* What an object holds: `size` bytes of a seed's pattern from `off` on. */
struct content {
    uint64_t exists, seed, off, size;
};

/* One write to the pipe; less than PIPE_BUF, so that it is whole. */
struct record {
    uint64_t key, ack; /* ack 0 = begins */
    struct content then;
};

static void key_name(unsigned key, char ret[32])
{
    snprintf(ret, 32, "%s%02u", key % 2 ? "a/b" : "a", key);
}

static void describe(const struct content *x, struct store_headers *h)
{
    g_autofree char *text = g_strdup_printf(
        "%" G_GUINT64_FORMAT "-%" G_GUINT64_FORMAT "-%" G_GUINT64_FORMAT, x->seed, x->off, x->size);
    store_headers_set_meta(h, "content", text);
}

/* ---- the child ---- */

struct worker {
    pthread_t thread;
    struct store *store;
    int pipe;
    unsigned first; /* its keys are first … first + KEYS_PER_THREAD - 1 */
    struct content now[KEYS_PER_THREAD];
    GRand *rand;
};

static ssize_t content_read(void *ctx, uint64_t off, void *buf, size_t n)
{
    const struct content *x = ctx;
    conf_pattern_fill(x->seed, x->off + off, buf, n);
    return (ssize_t)n;
}

static struct store_source content_source(struct content *x)
{
    return (struct store_source){.read = content_read, .ctx = x, .size = x->size};
}

static void tell(struct worker *w, unsigned i, bool ack, const struct content *then)
{
    struct record r = {.key = w->first + i, .ack = ack, .then = *then};
    if (write(w->pipe, &r, sizeof(r)) != sizeof(r)) {
        _exit(3);
    }
}

static void run(struct worker *w, struct store_request *req)
{
    req->bucket = BUCKET;
    if (store_run(w->store, req, NULL) != 0) {
        fprintf(stderr, "child: %s %s: %s\n", store_verb_name(req->verb), req->key,
                req->res.detail);
        _exit(4);
    }
}

static uint64_t some_size(struct worker *w)
{
    switch (g_rand_int_range(w->rand, 0, 8)) {
    case 0:
        return 0;
    case 1:
        return (uint64_t)g_rand_int_range(w->rand, 1 << 20, 3 << 20);
    default:
        return (uint64_t)g_rand_int_range(w->rand, 1, 50000);
    }
}

static void do_put(struct worker *w, const char *key, struct content *then)
{
    _cleanup_headers_ struct store_headers h = {0};
    describe(then, &h);
    REQUEST(r, .verb = STORE_PUT, .key = key, .headers = &h, .source = content_source(then));
    run(w, &r);
}

/* One part, uploaded or copied from a range of `from`; sometimes the upload is left lying. */
static void do_multipart(struct worker *w, const char *key, struct content *then, const char *from,
                         struct store_range range, bool leave)
{
    _cleanup_headers_ struct store_headers h = {0};
    describe(then, &h);
    REQUEST(create, .verb = STORE_MPU_CREATE, .key = key, .headers = &h);
    run(w, &create);
    REQUEST(part, .verb = from != NULL ? STORE_MPU_COPY_PART : STORE_MPU_PART, .key = key,
            .upload_id = create.res.upload_id, .part_number = 7, .from_bucket = BUCKET,
            .from_key = from, .range = range);
    if (from == NULL) {
        part.source = content_source(then);
    }
    run(w, &part);
    if (leave) {
        return;
    }
    struct store_part p = {.number = 7, .etag = part.res.object.etag};
    REQUEST(complete, .verb = STORE_MPU_COMPLETE, .key = key, .upload_id = create.res.upload_id,
            .parts = &p, .n_parts = 1);
    run(w, &complete);
}

static void step(struct worker *w)
{
    unsigned i = (unsigned)g_rand_int_range(w->rand, 0, KEYS_PER_THREAD);
    unsigned from = (unsigned)g_rand_int_range(w->rand, 0, KEYS_PER_THREAD);
    char key[32], source[32];
    key_name(w->first + i, key);
    key_name(w->first + from, source);
    struct content fresh = {.exists = 1, .seed = g_rand_int(w->rand), .size = some_size(w)};
    struct content src = w->now[from], then = fresh;
    int what = g_rand_int_range(w->rand, 0, 10);
    if (what == 0) {
        then = (struct content){0};
        tell(w, i, false, &then);
        REQUEST(r, .verb = STORE_DELETE, .key = key);
        run(w, &r);
    } else if (what <= 2 && src.exists && from != i) {
        then = src;
        tell(w, i, false, &then);
        REQUEST(r, .verb = STORE_COPY, .key = key, .from_bucket = BUCKET, .from_key = source);
        run(w, &r);
    } else if (what <= 4 && src.exists && src.size > 0) {
        uint64_t off = g_rand_int(w->rand) % src.size,
                 n = 1 + g_rand_int(w->rand) % (src.size - off);
        then = (struct content){.exists = 1, .seed = src.seed, .off = src.off + off, .size = n};
        tell(w, i, false, &then);
        do_multipart(w, key, &then, source, (struct store_range){.off = off, .len = n, .set = true},
                     false);
    } else if (what == 5) {
        tell(w, i, false, &then);
        do_multipart(w, key, &then, NULL, (struct store_range){0}, false);
    } else if (what == 6) {
        then = w->now[i]; /* nothing changes */
        tell(w, i, false, &then);
        do_multipart(w, key, &fresh, NULL, (struct store_range){0}, true);
    } else {
        tell(w, i, false, &then);
        do_put(w, key, &then);
    }
    w->now[i] = then;
    tell(w, i, true, &then);
}

static void *worker_main(void *arg)
{
    for (;;) {
        step(arg);
    }
    return NULL;
}

/* --child DIR SEED DURABLE: the state of the keys comes on stdin, records go to stdout. */
static int child_main(char **argv)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    struct content now[KEYS];
    struct store *s;
    if (read(STDIN_FILENO, now, sizeof(now)) != sizeof(now)) {
        return 2;
    }
    struct store_local_params p = {.path = argv[2], .bucket = BUCKET, .durable = argv[4][0] == '1'};
    if (store_local_new(&p, &s) < 0) {
        return 2;
    }
    struct worker workers[THREADS];
    for (unsigned t = 0; t < THREADS; t++) {
        struct worker *w = &workers[t];
        *w = (struct worker){.store = s, .pipe = STDOUT_FILENO, .first = t * KEYS_PER_THREAD};
        memcpy(w->now, &now[w->first], sizeof(w->now));
        w->rand = g_rand_new_with_seed((guint32)g_ascii_strtoull(argv[3], NULL, 10) + t);
        pthread_create(&w->thread, NULL, worker_main, w);
    }
    pthread_join(workers[0].thread, NULL);
    return 2;
}

/* ---- the parent ---- */

struct key_state {
    struct content acked, pending;
    bool under_way;
};

struct parent {
    char *dir;
    struct key_state keys[KEYS];
    GRand *rand;
};

static pid_t spawn_child(struct parent *p, unsigned round, int *ret_out)
{
    int in[2], out[2];
    g_assert_cmpint(pipe2(in, O_CLOEXEC), ==, 0);
    g_assert_cmpint(pipe2(out, O_CLOEXEC), ==, 0);
    g_autofree char *seed = g_strdup_printf("%u", g_rand_int(p->rand));
    char exe[] = "/proc/self/exe", flag[] = "--child", durable[] = "0";
    durable[0] = round % 4 == 3 ? '1' : '0';
    char *argv[] = {exe, flag, p->dir, seed, durable, NULL};
    pid_t pid = fork();
    if (pid == 0) {
        dup2(in[0], STDIN_FILENO);
        dup2(out[1], STDOUT_FILENO);
        execv(exe, argv);
        _exit(5);
    }
    g_assert_cmpint(pid, >, 0);
    close(in[0]);
    close(out[1]);
    struct content now[KEYS];
    for (unsigned i = 0; i < KEYS; i++) {
        now[i] = p->keys[i].acked;
    }
    g_assert_cmpint(write(in[1], now, sizeof(now)), ==, sizeof(now));
    close(in[1]);
    *ret_out = out[0];
    return pid;
}

/* True if there was one. */
static bool next_record(struct parent *p, int fd, bool *ret_ack)
{
    struct record r;
    char *at = (char *)&r;
    size_t have = 0;
    while (have < sizeof(r)) {
        ssize_t n = read(fd, at + have, sizeof(r) - have);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return false;
        }
        have += (size_t)n;
    }
    g_assert_cmpuint(r.key, <, KEYS);
    struct key_state *k = &p->keys[r.key];
    if (r.ack) {
        k->acked = r.then;
    } else {
        k->pending = r.then;
    }
    k->under_way = !r.ack;
    *ret_ack = r.ack;
    return true;
}

/* 0 = the key holds exactly this. */
static int differs(struct store *s, unsigned i, const struct content *x)
{
    char key[32];
    key_name(i, key);
    _cleanup_sink_ struct conf_sink sink;
    REQUEST(r, .verb = STORE_GET, .bucket = BUCKET, .key = key, .sink = conf_sink(&sink, 0));
    int err = store_run(s, &r, NULL);
    if (!x->exists) {
        return err == -ENOENT ? 0 : 1;
    }
    if (err != 0 || sink.bytes->len != x->size || r.res.object.size != x->size) {
        return 2;
    }
    g_autofree guint8 *expected = g_malloc(x->size + 1);
    conf_pattern_fill(x->seed, x->off, expected, x->size);
    if (x->size > 0 && memcmp(expected, sink.bytes->data, x->size) != 0) {
        return 3;
    }
    _cleanup_headers_ struct store_headers h = {0};
    describe(x, &h);
    const char *want = store_headers_get_meta(&h, "content");
    return g_strcmp0(want, store_headers_get_meta(&r.res.object.headers, "content")) == 0 ? 0 : 4;
}

static void verify(struct parent *p, struct store *s)
{
    for (unsigned i = 0; i < KEYS; i++) {
        struct key_state *k = &p->keys[i];
        int acked = differs(s, i, &k->acked);
        if (acked != 0 && k->under_way && differs(s, i, &k->pending) == 0) {
            k->acked = k->pending;
        } else if (acked != 0) {
            g_test_fail_printf("key %u is not as acknowledged (%d)", i, acked);
        }
        k->under_way = false;
    }
}

static int count(sqlite3 *db, const char *sql)
{
    g_autoptr(sqlite3_stmt) st = NULL;
    g_assert_cmpint(db_prepare(db, sql, &st), ==, 0);
    g_assert_cmpint(db_step(st), ==, 1);
    return sqlite3_column_int(st, 0);
}

static int count_blobs(const char *dir)
{
    g_autofree char *path = g_build_filename(dir, "blobs", NULL);
    g_autoptr(GDir) d = g_dir_open(path, 0, NULL);
    int n = 0;
    while (g_dir_read_name(d) != NULL) {
        n++;
    }
    return n;
}

/* The store is closed: files against the index. */
static void verify_blobs(struct parent *p)
{
    g_autofree char *path = g_build_filename(p->dir, "index.db", NULL);
    sqlite3 *db = NULL;
    g_assert_cmpint(sqlite3_open(path, &db), ==, SQLITE_OK);
    g_assert_cmpint(count_blobs(p->dir), ==,
                    count(db, "SELECT COUNT(DISTINCT blob) FROM segments"));
    g_assert_cmpint(
        count(
            db,
            "SELECT COUNT(*) FROM bodies WHERE refs <> (SELECT COUNT(*) FROM objects WHERE body = "
            "bodies.id) + (SELECT COUNT(*) FROM parts WHERE body = bodies.id)"),
        ==, 0);
    g_assert_cmpint(
        count(db, "SELECT COUNT(*) FROM segments WHERE body NOT IN (SELECT id FROM bodies)"), ==,
        0);
    db_close(db);
}

static struct store *open_store(struct parent *p)
{
    struct store *s = NULL;
    g_assert_cmpint(
        store_local_new(&(struct store_local_params){.path = p->dir, .bucket = BUCKET}, &s), ==, 0);
    return s;
}

static void kill_round(struct parent *p, unsigned round)
{
    int fd, status;
    pid_t pid = spawn_child(p, round, &fd);
    int left = g_rand_int_range(p->rand, 1, 150);
    bool ack, more = true;
    while (left > 0 && (more = next_record(p, fd, &ack))) {
        left -= ack;
    }
    kill(pid, SIGKILL);
    while (next_record(p, fd, &ack)) { /* what it still said before it died */
    }
    close(fd);
    g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
    if (!more || !WIFSIGNALED(status)) {
        g_test_fail_printf("the child ended by itself: %d", status);
    }
    struct store *s = open_store(p);
    verify(p, s);
    store_free(s);
    verify_blobs(p);
}

/* Nothing is left of anything: no reference is lost, none too many. */
static void empty_store(struct parent *p)
{
    struct store *s = open_store(p);
    REQUEST(l, .verb = STORE_MPU_LIST, .bucket = BUCKET);
    g_assert_cmpint(store_run(s, &l, NULL), ==, 0);
    g_test_message("%u uploads were left lying", l.res.entries->len);
    for (guint i = 0; i < l.res.entries->len; i++) {
        const struct store_entry *e = l.res.entries->pdata[i];
        REQUEST(a, .verb = STORE_MPU_ABORT, .bucket = BUCKET, .key = e->key,
                .upload_id = e->upload_id);
        g_assert_cmpint(store_run(s, &a, NULL), ==, 0);
    }
    for (unsigned i = 0; i < KEYS; i++) {
        char key[32];
        key_name(i, key);
        REQUEST(d, .verb = STORE_DELETE, .bucket = BUCKET, .key = key);
        g_assert_cmpint(store_run(s, &d, NULL), ==, 0);
    }
    REQUEST(b, .verb = STORE_BUCKET_DELETE, .bucket = BUCKET);
    g_assert_cmpint(store_run(s, &b, NULL), ==, 0);
    store_free(s);
    g_assert_cmpint(count_blobs(p->dir), ==, 0);
    verify_blobs(p);
}

static void remove_store(const char *dir)
{
    static const char *const files[] = {"index.db", "index.db-wal", "index.db-shm", "blobs"};
    for (size_t i = 0; i < G_N_ELEMENTS(files); i++) {
        g_autofree char *path = g_build_filename(dir, files[i], NULL);
        (void)remove(path);
    }
    (void)remove(dir);
}

static void test_kill(void)
{
    struct parent p = {.dir = g_dir_make_tmp("mlopsfs-crash-XXXXXX", NULL)};
    p.rand = g_rand_new_with_seed((guint32)test_seed());
    const char *env = getenv("MLOPSFS_CRASH_ROUNDS");
    unsigned rounds = env != NULL ? (unsigned)atoi(env) : 25;
    for (unsigned i = 0; i < rounds && !g_test_failed(); i++) {
        kill_round(&p, i);
    }
    empty_store(&p);
    remove_store(p.dir);
    g_rand_free(p.rand);
    g_free(p.dir);
}

/* The second to open it is refused, until the first is gone. */
static void test_locked(void)
{
    struct parent p = {.dir = g_dir_make_tmp("mlopsfs-crash-XXXXXX", NULL)};
    struct store *s = open_store(&p), *second = NULL;
    g_assert_cmpint(store_local_new(&(struct store_local_params){.path = p.dir}, &second), ==,
                    -EBUSY);
    store_free(s);
    s = open_store(&p);
    store_free(s);
    remove_store(p.dir);
    g_free(p.dir);
}

/* Files that nobody names are removed; what is not a blob's name is left alone. */
static void test_garbage(void)
{
    struct parent p = {.dir = g_dir_make_tmp("mlopsfs-crash-XXXXXX", NULL)};
    struct store *s = open_store(&p);
    store_free(s);
    g_autofree char *garbage = g_build_filename(p.dir, "blobs", "00000000000000ff", NULL);
    g_autofree char *other = g_build_filename(p.dir, "blobs", "README", NULL);
    g_assert_true(g_file_set_contents(garbage, "x", 1, NULL));
    g_assert_true(g_file_set_contents(other, "x", 1, NULL));
    s = open_store(&p);
    g_assert_false(g_file_test(garbage, G_FILE_TEST_EXISTS));
    g_assert_true(g_file_test(other, G_FILE_TEST_EXISTS));
    store_free(s);
    (void)remove(other);
    remove_store(p.dir);
    g_free(p.dir);
}

static void test_not_a_database(void)
{
    struct parent p = {.dir = g_dir_make_tmp("mlopsfs-crash-XXXXXX", NULL)};
    g_autofree char *db = g_build_filename(p.dir, "index.db", NULL), *junk = g_strnfill(8192, 'j');
    g_assert_true(g_file_set_contents(db, junk, -1, NULL));
    struct store *s = NULL;
    g_assert_cmpint(store_local_new(&(struct store_local_params){.path = p.dir}, &s), ==, -EUCLEAN);
    remove_store(p.dir);
    g_free(p.dir);
}

/* A sink that stops at its first piece until it is told to go on. */
struct stop {
    struct mutex lock;
    struct cond changed;
    bool reached, go, done; /* lock */
    struct conf_sink sink;
    struct store_sink inner;
};

static int stop_write(void *ctx, uint64_t off, const void *buf, size_t n)
{
    struct stop *x = ctx;
    mutex_lock(&x->lock);
    x->reached = true;
    cond_broadcast(&x->changed);
    while (!x->go) {
        cond_wait(&x->changed, &x->lock);
    }
    mutex_unlock(&x->lock);
    return x->inner.write(x->inner.ctx, off, buf, n);
}

static void stop_done(struct store_request *req)
{
    struct stop *x = req->ctx;
    mutex_lock(&x->lock);
    x->reached = x->done = true;
    cond_broadcast(&x->changed);
    mutex_unlock(&x->lock);
}

static void stop_wait(struct stop *x, const bool *what)
{
    mutex_lock(&x->lock);
    while (!*what) {
        cond_wait(&x->changed, &x->lock);
    }
    mutex_unlock(&x->lock);
}

/* Meanwhile the object is overwritten and deleted; the reader has the old bytes, and then nobody.
 */
static void test_reader_pins(void)
{
    struct parent p = {.dir = g_dir_make_tmp("mlopsfs-crash-XXXXXX", NULL)};
    struct store *s = open_store(&p);
    struct content old = {.exists = 1, .seed = 5, .size = 3 * MIB + 5},
                   fresh = {.seed = 6, .size = 10};
    REQUEST(put, .verb = STORE_PUT, .bucket = BUCKET, .key = "k", .source = content_source(&old));
    g_assert_cmpint(store_run(s, &put, NULL), ==, 0);
    struct stop x = {.go = false};
    mutex_init(&x.lock, RANK_LEAF);
    cond_init(&x.changed);
    x.inner = conf_sink(&x.sink, 0);
    REQUEST(get, .verb = STORE_GET, .bucket = BUCKET, .key = "k",
            .sink = {.write = stop_write, .ctx = &x}, .done = stop_done, .ctx = &x);
    store_submit(s, &get);
    stop_wait(&x, &x.reached);
    put.source = content_source(&fresh);
    g_assert_cmpint(store_run(s, &put, NULL), ==, 0);
    REQUEST(del, .verb = STORE_DELETE, .bucket = BUCKET, .key = "k");
    g_assert_cmpint(store_run(s, &del, NULL), ==, 0);
    g_assert_cmpint(count_blobs(p.dir), ==, 1);
    mutex_lock(&x.lock);
    x.go = true;
    cond_broadcast(&x.changed);
    mutex_unlock(&x.lock);
    stop_wait(&x, &x.done);
    g_assert_cmpint(get.res.err, ==, 0);
    g_autoptr(GBytes) expected = conf_pattern(5, old.size);
    g_assert_cmpmem(x.sink.bytes->data, x.sink.bytes->len, g_bytes_get_data(expected, NULL),
                    old.size);
    conf_sink_clear(&x.sink);
    cond_fini(&x.changed);
    mutex_fini(&x.lock);
    store_free(s);
    g_assert_cmpint(count_blobs(p.dir), ==, 0);
    verify_blobs(&p);
    remove_store(p.dir);
    g_free(p.dir);
}

int main(int argc, char **argv)
{
    if (argc == 5 && strcmp(argv[1], "--child") == 0) {
        return child_main(argv);
    }
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/local/locked", test_locked);
    g_test_add_func("/local/garbage", test_garbage);
    g_test_add_func("/local/not-a-database", test_not_a_database);
    g_test_add_func("/local/reader-pins", test_reader_pins);
    g_test_add_func("/local/kill", test_kill);
    return g_test_run();
}
