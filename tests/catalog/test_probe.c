/* SPDX-License-Identifier: Apache-2.0
 *
 * probe_run: real media made by ffmpeg (skipped where there is none), broken and hostile files, the
 * sandbox. Needs mlopsfs-probe beside the tests' folder, or MLOPSFS_PROBE.
 */
#include "tests/catalog/probe_fixture.h"
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

/* ---- real media ---- */

#define VIDEO "-f lavfi -i testsrc=size=320x240:rate=30000/1001:duration=2 "
#define AUDIO "-f lavfi -i sine=frequency=440:duration=2 "
#define H264 "-c:v libx264 -preset ultrafast -pix_fmt yuv420p "

struct media {
    const char *name, *args; /* ffmpeg's */
    const char *container, *codec, *audio;
    double duration; /* about */
    int rotation, max_reads;
    const char *created;
};

static const struct media media[] = {
    {"end.mp4", VIDEO AUDIO H264 "-c:a aac -metadata creation_time=2024-05-06T07:08:09Z", "mp4",
     "h264", "aac", 2, 0, 1, "2024-05-06T07:08:09.000000Z"},
    {"fast.mp4", VIDEO AUDIO H264 "-c:a aac -movflags +faststart", "mp4", "h264", "aac", 2, 0, 1,
     ""},
    {"frag.mp4", VIDEO H264 "-movflags frag_keyframe+empty_moov", "mp4", "h264", "", 2, 0, 2, ""},
    {"clip.mov", VIDEO AUDIO H264 "-c:a aac", "mov", "h264", "aac", 2, 0, 1, ""},
    /* Some twelve megabytes, the index last: the head, the tail and little else. */
    {"big.mov",
     "-f lavfi -i testsrc=size=320x240:rate=40:duration=2 -c:v rawvideo -pix_fmt uyvy422", "mov",
     "rawvideo", "", 2, 0, 3, ""},
    {"clip.mkv", VIDEO AUDIO H264 "-c:a aac", "matroska", "h264", "aac", 2, 0, 2, ""},
    {"clip.webm", VIDEO AUDIO "-c:v libvpx -deadline realtime -c:a libopus", "webm", "vp8", "opus",
     2, 0, 2, ""},
    {"clip.ts", VIDEO AUDIO H264 "-c:a aac", "mpegts", "h264", "aac", 2, 0, 6, ""},
    {"clip.avi", VIDEO AUDIO "-c:v mpeg4 -c:a mp3", "avi", "mpeg4", "mp3", 2, 0, 4, ""},
    {"song.mp3", AUDIO "-c:a mp3", "mp3", "", "mp3", 2, 0, 2, ""},
    {"song.wav", AUDIO, "wav", "", "pcm_s16le", 2, 0, 2, ""},
    {"song.m4a", AUDIO "-c:a aac", "mp4", "", "aac", 2, 0, 1, ""},
    /* A name that says nothing, and one that lies. */
    {"plain", VIDEO H264 "-f mp4", "mp4", "h264", "", 2, 0, 1, ""},
    {"liar.mp3", VIDEO H264 "-f matroska", "matroska", "h264", "", 2, 0, 2, ""},
};

static bool ffmpeg(const char *args, const char *out)
{
    g_autofree char *cmd = g_strdup_printf("ffmpeg -nostdin -v error -y %s '%s'", args, out);
    int status;
    return g_spawn_command_line_sync(cmd, NULL, NULL, &status, NULL) && status == 0;
}

static void check_media(const struct env *e, const struct media *m)
{
    g_autofree char *path = in_dir(e, m->name);
    g_autofree char *data = NULL;
    struct source s = {0};
    struct video v;
    if (!ffmpeg(m->args, path)) {
        g_test_message("this ffmpeg cannot make %s", m->name);
        return;
    }
    g_assert_true(g_file_get_contents(path, &data, &s.size, NULL));
    s.data = data;
    g_test_message("%s", m->name);
    const struct probe_params p = {.helper = e->helper};
    g_assert_cmpint(run(&p, &s, m->name, &v), ==, 0);
    g_assert_true(v.is_media);
    g_assert_cmpstr(v.uuid, ==, "");
    g_assert_cmpstr(v.container, ==, m->container);
    g_assert_cmpstr(v.codec, ==, m->codec);
    g_assert_cmpstr(v.audio_codec, ==, m->audio);
    g_assert_cmpfloat_with_epsilon(v.duration, m->duration, 0.15);
    g_assert_cmpint(v.bit_rate, >, 0);
    g_assert_cmpfloat_with_epsilon((double)v.bit_rate, (double)s.size * 8 / v.duration,
                                   (double)s.size);
    g_assert_cmpint(v.rotation, ==, m->rotation);
    g_assert_cmpstr(v.creation_time, ==, m->created);
    g_assert_cmpint(s.reads, <=, m->max_reads);
    if (m->codec[0]) {
        g_assert_cmpint(v.width, ==, 320);
        g_assert_cmpint(v.height, ==, 240);
        g_assert_cmpfloat_with_epsilon(v.frame_rate, strcmp(m->name, "big.mov") ? 29.97 : 40, 0.01);
    } else {
        g_assert_cmpint(v.width | v.height, ==, 0);
        g_assert_cmpfloat(v.frame_rate, ==, 0);
    }
}

static void test_media(gconstpointer env)
{
    const struct env *e = env;
    if (!e->ffmpeg) {
        g_test_skip("no ffmpeg");
        return;
    }
    int fds = open_fds();
    for (size_t i = 0; i < G_N_ELEMENTS(media); i++)
        check_media(e, &media[i]);
    assert_clean(fds);
}

/* The main clip, or a skip. */
static char *clip(const struct env *e, gsize *n)
{
    g_autofree char *path = in_dir(e, "clip-base.mp4");
    char *data = NULL;
    if (!e->ffmpeg ||
        (!g_file_test(path, G_FILE_TEST_EXISTS) && !ffmpeg(VIDEO AUDIO H264 "-c:a aac", path)) ||
        !g_file_get_contents(path, &data, n, NULL)) {
        g_test_skip("no ffmpeg");
        return NULL;
    }
    return data;
}

/* The display matrix of the first track is 36 bytes in tkhd; these are the four that turn. */
static void test_rotation(gconstpointer env)
{
    static const int32_t one = 0x10000;
    static const struct {
        int32_t a, b, c, d;
        int rotation;
    } cases[] = {{one, 0, 0, one, 0},
                 {0, one, -one, 0, 90}, /* as a phone held upright writes it */
                 {-one, 0, 0, -one, 180},
                 {0, -one, one, 0, 270}};
    const struct env *e = env;
    gsize n;
    g_autofree char *data = clip(e, &n);
    if (!data)
        return;
    char *tkhd = memmem(data, n, "tkhd", 4);
    g_assert_nonnull(tkhd);
    char *matrix = tkhd + 4 + 40; /* version 0: flags, times, ids, duration, reserved, layer … */
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        const int32_t m[] = {cases[i].a, cases[i].b, 0, cases[i].c, cases[i].d, 0};
        for (size_t k = 0; k < G_N_ELEMENTS(m); k++) {
            uint32_t be = GUINT32_TO_BE((uint32_t)m[k]);
            memcpy(matrix + 4 * k, &be, 4);
        }
        struct source s = {.data = data, .size = n};
        struct video v;
        g_assert_cmpint(run(&(struct probe_params){.helper = e->helper}, &s, "a.mp4", &v), ==, 0);
        g_assert_true(v.is_media);
        g_assert_cmpint(v.rotation, ==, cases[i].rotation);
        g_assert_cmpint(v.width, ==, 320);
    }
}

/* ---- files that are no media, or no longer ---- */

static void check_none(const struct env *e, const char *name, const char *data, gsize n)
{
    struct source s = {.data = data, .size = n};
    struct video v;
    g_test_message("%s", name);
    g_assert_cmpint(run(&(struct probe_params){.helper = e->helper}, &s, name, &v), ==, 0);
    g_assert_false(v.is_media);
    g_assert_cmpstr(v.uuid, ==, "");
    g_assert_cmpstr(v.container, ==, "");
}

static void test_no_media(gconstpointer env)
{
    const struct env *e = env;
    int fds = open_fds();
    check_none(e, "empty.mp4", "", 0);
    check_none(e, "one.mp4", "x", 1);
    static const char text[] = "This is a text that someone named like a video.\n";
    check_none(e, "text.mp4", text, sizeof(text) - 1);
    check_none(e, "text.mp3", text, sizeof(text) - 1);
    check_none(e, "text.ts", text, sizeof(text) - 1);
    g_autofree char *zero = g_malloc0(700000);
    check_none(e, "zero.mkv", zero, 700000);
    gsize n;
    g_autofree char *data = clip(e, &n);
    if (data) {
        check_none(e, "truncated.mp4", data, n / 2); /* the index was last */
        check_none(e, "header.mp4", data, 40);
    }
    assert_clean(fds);
}

/* A list of real, playable files: opening one would yield facts. */
static void test_playlists(gconstpointer env)
{
    const struct env *e = env;
    gsize n;
    g_autofree char *data = clip(e, &n);
    if (!data)
        return;
    g_autofree char *ts = in_dir(e, "segment.ts");
    g_assert_true(ffmpeg(VIDEO H264, ts));
    g_autofree char *hls =
        g_strdup_printf("#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXTINF:2.0,\n"
                        "file://%s\n#EXTINF:2.0,\n%s\n#EXT-X-ENDLIST\n",
                        ts, ts);
    g_autofree char *concat = g_strdup_printf("ffconcat version 1.0\nfile %s\n", ts);
    g_autofree char *dash = g_strdup_printf(
        "<?xml version=\"1.0\"?><MPD xmlns=\"urn:mpeg:dash:schema:mpd:2011\" type=\"static\">"
        "<Period><AdaptationSet mimeType=\"video/mp4\"><Representation id=\"1\">"
        "<BaseURL>file://%s/clip-base.mp4</BaseURL></Representation></AdaptationSet></Period>"
        "</MPD>",
        e->dir);
    check_none(e, "list.m3u8", hls, strlen(hls));
    check_none(e, "list.mp4", hls, strlen(hls));
    static const char passwd[] = "#EXTM3U\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n";
    check_none(e, "passwd.m3u8", passwd, sizeof(passwd) - 1);
    check_none(e, "list.ffconcat", concat, strlen(concat));
    check_none(e, "list.mpd", dash, strlen(dash));
    /* Names are names: not a protocol, a path or an option. */
    struct source s = {.data = data, .size = n};
    struct video v;
    static const char *const names[] = {
        "file:/etc/passwd", "concat:a|b", "http://127.0.0.1:1/a.mp4", "pipe:3", "", NULL,
        "%d.jpg",           "a\xff\n.mp4"};
    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        g_assert_cmpint(run(&(struct probe_params){.helper = e->helper}, &s, names[i], &v), ==, 0);
        g_assert_cmpstr(v.codec, ==, "h264");
    }
    g_autofree char *longest = g_strnfill(3000, 'n');
    memcpy(longest + 2996, ".mp4", 4);
    g_assert_cmpint(run(&(struct probe_params){.helper = e->helper}, &s, longest, &v), ==, 0);
    g_assert_cmpstr(v.codec, ==, "h264");
}

/* ---- random damage ---- */

struct fuzz {
    const struct env *e;
    const char *data[3];
    gsize size[3];
    uint32_t seed;
    int variants;
    atomic_int next, facts, nothing, errors;
};

static void fuzz_damage(GRand *rand, char *data, gsize *n)
{
    for (int k = g_rand_int_range(rand, 1, 40); k > 0; k--) {
        gsize at = (gsize)g_rand_int_range(rand, 0, (gint32)*n);
        switch (g_rand_int_range(rand, 0, 4)) {
        case 0:
            data[at] = (char)g_rand_int(rand);
            break;
        case 1:
            data[at] ^= (char)(1 << g_rand_int_range(rand, 0, 8));
            break;
        case 2: /* sizes and counts */
            memset(data + at, g_rand_boolean(rand) ? 0xff : 0, MIN(4, *n - at));
            break;
        default: /* the head and the tail matter most */
            at = g_rand_boolean(rand) ? at % 512 : *n - 1 - at % MIN(3000, *n);
            data[MIN(at, *n - 1)] = (char)g_rand_int(rand);
        }
    }
    if (g_rand_int_range(rand, 0, 5) == 0)
        *n = (gsize)g_rand_int_range(rand, 1, (gint32)*n);
}

static void fuzz_one(struct fuzz *f, int i)
{
    GRand *rand = g_rand_new_with_seed(f->seed + (uint32_t)i);
    size_t which = (size_t)i % G_N_ELEMENTS(f->data);
    gsize n = f->size[which];
    g_autofree char *data = g_memdup2(f->data[which], n);
    fuzz_damage(rand, data, &n);
    g_rand_free(rand);
    struct source s = {.data = data, .size = n};
    struct video v;
    int r = run(&(struct probe_params){.helper = f->e->helper}, &s, "a.mp4", &v);
    if (r == -EPROTO || r == -ETIMEDOUT) {
        atomic_fetch_add(&f->errors, 1);
        return;
    }
    g_assert_cmpint(r, ==, 0);
    atomic_fetch_add(v.is_media ? &f->facts : &f->nothing, 1);
    g_assert_true(g_utf8_validate(v.container, -1, NULL) && g_utf8_validate(v.codec, -1, NULL) &&
                  g_utf8_validate(v.creation_time, -1, NULL));
    g_assert_true(isfinite(v.duration) && isfinite(v.frame_rate));
    g_assert_true(v.width >= 0 && v.height >= 0 && v.bit_rate >= 0 && v.rotation % 90 == 0);
}

static void *fuzz_main(void *arg)
{
    struct fuzz *f = arg;
    int i;
    while ((i = atomic_fetch_add(&f->next, 1)) < f->variants)
        fuzz_one(f, i);
    return NULL;
}

static void test_damage(gconstpointer env)
{
    const struct env *e = env;
    const char *seed = getenv("MLOPSFS_SEED"), *variants = getenv("MLOPSFS_VARIANTS");
    struct fuzz f = {.e = e,
                     .seed = seed ? (uint32_t)strtoul(seed, NULL, 0) : (uint32_t)clock_real_ns(),
                     .variants = variants ? atoi(variants) : 150};
    g_autofree char *mp4 = clip(e, &f.size[0]);
    if (!mp4)
        return;
    g_autofree char *mkv_path = in_dir(e, "damage.mkv"), *ts_path = in_dir(e, "damage.ts");
    g_autofree char *mkv = NULL, *ts = NULL;
    g_assert_true(ffmpeg(VIDEO AUDIO H264 "-c:a aac", mkv_path));
    g_assert_true(ffmpeg(VIDEO AUDIO H264 "-c:a aac", ts_path));
    g_assert_true(g_file_get_contents(mkv_path, &mkv, &f.size[1], NULL));
    g_assert_true(g_file_get_contents(ts_path, &ts, &f.size[2], NULL));
    f.data[0] = mp4;
    f.data[1] = mkv;
    f.data[2] = ts;
    g_test_message("MLOPSFS_SEED=%u MLOPSFS_VARIANTS=%d", f.seed, f.variants);
    int fds = open_fds();
    pthread_t threads[3];
    for (size_t i = 0; i < G_N_ELEMENTS(threads); i++)
        g_assert_cmpint(pthread_create(&threads[i], NULL, fuzz_main, &f), ==, 0);
    for (size_t i = 0; i < G_N_ELEMENTS(threads); i++)
        pthread_join(threads[i], NULL);
    g_test_message("%d with facts, %d without, %d helpers died", atomic_load(&f.facts),
                   atomic_load(&f.nothing), atomic_load(&f.errors));
    assert_clean(fds);
}

/* ---- the sandbox, seen from outside ---- */

static bool status_has(const char *status, const char *line)
{
    g_autofree char *whole = g_strconcat("\n", line, "\n", NULL);
    return strstr(status, whole) != NULL;
}

static void check_limits(const char *pid)
{
    g_autofree char *path = g_build_filename("/proc", pid, "limits", NULL), *limits = NULL;
    if (!g_file_get_contents(path, &limits, NULL, NULL))
        return; /* only root may look into it */
    g_assert_nonnull(strstr(limits, "\nMax file size             0 "));
    g_assert_nonnull(strstr(limits, "\nMax core file size        0 "));
    g_assert_nonnull(strstr(limits, "\nMax open files            4 "));
    g_assert_null(strstr(limits, "\nMax address space         unlimited"));
    g_assert_nonnull(strstr(limits, "\nMax cpu time              21 "));
}

/* Runs while the helper waits for its first bytes. */
static void look_at_helper(void)
{
    int found = 0;
    g_autofree char *parent = g_strdup_printf("PPid:\t%d", getpid());
    GDir *d = g_dir_open("/proc", 0, NULL);
    const char *pid;
    while ((pid = g_dir_read_name(d))) {
        g_autofree char *path = g_build_filename("/proc", pid, "status", NULL);
        g_autofree char *status = NULL;
        if (!g_ascii_isdigit(pid[0]) || !g_file_get_contents(path, &status, NULL, NULL) ||
            !status_has(status, parent))
            continue;
        found++;
        g_assert_true(status_has(status, "Seccomp:\t2"));
        g_assert_true(status_has(status, "NoNewPrivs:\t1"));
        check_limits(pid);
        g_autofree char *fd4 = g_build_filename("/proc", pid, "fd", "4", NULL);
        g_assert_cmpint(access(fd4, F_OK), !=, 0);
        g_autofree char *environ_path = g_build_filename("/proc", pid, "environ", NULL);
        g_autofree char *environ_data = NULL;
        gsize n;
        if (g_file_get_contents(environ_path, &environ_data, &n, NULL))
            g_assert_cmpstr(environ_data, ==, "LC_ALL=C");
    }
    g_dir_close(d);
    g_assert_cmpint(found, ==, 1);
}

static void test_sandbox(gconstpointer env)
{
    const struct env *e = env;
    /* Something it could inherit, were it not careful. */
    int stray = open("/dev/null", O_RDONLY);
    int stray2 = fcntl(stray, F_DUPFD, 4);
    struct source s = {.data = "0123456789", .size = 10, .on_read = look_at_helper};
    struct video v;
    g_assert_cmpint(run(&(struct probe_params){.helper = e->helper}, &s, "a.mp4", &v), ==, 0);
    g_assert_cmpint(s.reads, >, 0);
    close(stray);
    close(stray2);
}

/* ---- the caller's side of the contract ---- */

static void test_source_fails(gconstpointer env)
{
    const struct env *e = env;
    const struct probe_params p = {.helper = e->helper};
    int fds = open_fds();
    struct video v;
    struct source s = {.data = "0123456789", .size = 10, .fail = -ESTALE};
    g_assert_cmpint(run(&p, &s, "a.mp4", &v), ==, -ESTALE);
    s.fail = 3; /* fewer than asked for */
    g_assert_cmpint(run(&p, &s, "a.mp4", &v), ==, -EIO);
    g_assert_cmpint(run(&(struct probe_params){.helper = "/nonexistent/probe"}, &s, "a", &v), ==,
                    -ENOENT);
    g_assert_cmpint(run(&(struct probe_params){.helper = e->dir}, &s, "a", &v), ==, -EACCES);
    /* An empty file needs no helper. */
    s.size = 0;
    g_assert_cmpint(run(&(struct probe_params){.helper = "/nonexistent/probe"}, &s, "a", &v), ==,
                    0);
    g_assert_false(v.is_media);
    assert_clean(fds);
}

static void test_limits(gconstpointer env)
{
    const struct env *e = env;
    gsize n;
    g_autofree char *data = clip(e, &n);
    if (!data)
        return;
    struct source s = {.data = data, .size = n};
    struct video v;
    /* It may ask for nothing: no facts. */
    struct probe_params p = {.helper = e->helper, .read_max = 1};
    g_assert_cmpint(run(&p, &s, "a.mp4", &v), ==, 0);
    g_assert_false(v.is_media);
    g_assert_cmpint(s.reads, ==, 0);
    /* Beyond the end of time. */
    p = (struct probe_params){.helper = e->helper, .timeout_ns = 1};
    g_assert_cmpint(run(&p, &s, "a.mp4", &v), ==, -ETIMEDOUT);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    struct env env;
    env_make(&env);
    g_test_add_data_func("/probe/media", &env, test_media);
    g_test_add_data_func("/probe/rotation", &env, test_rotation);
    g_test_add_data_func("/probe/no-media", &env, test_no_media);
    g_test_add_data_func("/probe/playlists", &env, test_playlists);
    g_test_add_data_func("/probe/sandbox", &env, test_sandbox);
    g_test_add_data_func("/probe/source-fails", &env, test_source_fails);
    g_test_add_data_func("/probe/limits", &env, test_limits);
    g_test_add_data_func("/probe/damage", &env, test_damage);
    int r = g_test_run();
    env_clear(&env);
    return r;
}
