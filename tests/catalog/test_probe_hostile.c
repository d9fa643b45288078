/* SPDX-License-Identifier: Apache-2.0
 *
 * probe_run against helpers that crash, hang, lie and ask for too much.
 */
#include "tests/catalog/probe_fixture.h"
#include <math.h>

/* ---- hostile helpers ---- */

#define MSG_READ(n, o)                                                                             \
    {                                                                                              \
        .type = PROBE_READ, .len = (n), .off = (o)                                                 \
    }

/* A helper that sends `bytes` and then runs `then` in a shell. */
static char *fake_helper(const struct env *e, const char *name, const void *bytes, size_t n,
                         const char *before, const char *then)
{
    g_autofree char *file = g_strconcat(e->dir, "/", name, ".bytes", NULL);
    g_assert_true(g_file_set_contents(file, bytes ? bytes : "", (gssize)n, NULL));
    char *path = g_strconcat(e->dir, "/", name, ".sh", NULL);
    g_autofree char *script = g_strdup_printf(
        "#!/bin/sh\nPATH=/usr/bin:/bin\nB='%s'\n%s\ncat \"$B\" >&3\n%s\n", file, before, then);
    g_assert_true(g_file_set_contents(path, script, -1, NULL));
    g_assert_cmpint(g_chmod(path, 0700), ==, 0);
    return path;
}

static void hostile_case(const struct env *e, const char *name, const void *bytes, size_t n,
                         const char *before, const char *then, uint64_t timeout_ms, int expected)
{
    g_autofree char *path = fake_helper(e, name, bytes, n, before, then);
    static char data[4096];
    struct source s = {.data = data, .size = sizeof(data)};
    struct video v;
    const struct probe_params p = {
        .helper = path, .timeout_ns = timeout_ms * NSEC_PER_MSEC, .read_max = 1 << 20};
    int fds = open_fds();
    g_test_message("%s", name);
    g_assert_cmpint(run(&p, &s, "a.mp4", &v), ==, expected);
    assert_clean(fds);
}

static void hostile_message(const struct env *e, const char *name, struct probe_msg m)
{
    hostile_case(e, name, &m, sizeof(m), "", "kill -STOP $$", 0, -EPROTO);
}

static void test_hostile(gconstpointer env)
{
    const struct env *e = env;
    const struct probe_msg ok = MSG_READ(4096, 0),
                           facts = {PROBE_FACTS, sizeof(struct probe_facts), 0};
    hostile_case(e, "exits", NULL, 0, "exit 0", "", 0, -EPROTO);
    hostile_case(e, "no-sandbox", NULL, 0, "exit 77", "", 0, -EPROTO);
    hostile_case(e, "crashes", NULL, 0, "kill -SEGV $$", "", 0, -EPROTO);
    hostile_case(e, "hangs", NULL, 0, "kill -STOP $$", "", 300, -ETIMEDOUT);
    hostile_case(e, "hangs-after", &ok, sizeof(ok), "", "kill -STOP $$", 300, -ETIMEDOUT);
    hostile_case(e, "half-message", &ok, 7, "", "kill -SEGV $$", 0, -EPROTO);
    hostile_case(e, "half-message-hangs", &ok, 7, "", "kill -STOP $$", 300, -ETIMEDOUT);
    hostile_case(e, "facts-cut", &facts, sizeof(facts), "", "exit 0", 0, -EPROTO);
    hostile_case(e, "facts-late", &facts, sizeof(facts), "", "kill -STOP $$", 300, -ETIMEDOUT);
    hostile_case(e, "hangs-up", NULL, 0, "exec 3>&-", "kill -STOP $$", 0, -EPROTO);
    hostile_case(e, "garbage", NULL, 0, "head -c 100000 /dev/zero >&3", "kill -STOP $$", 0,
                 -EPROTO);

    hostile_message(e, "past-end", (struct probe_msg)MSG_READ(1, 4096));
    hostile_message(e, "across-end", (struct probe_msg)MSG_READ(4096, 1));
    hostile_message(e, "wraps", (struct probe_msg)MSG_READ(100, UINT64_MAX - 50));
    hostile_message(e, "nothing", (struct probe_msg)MSG_READ(0, 0));
    hostile_message(e, "huge", (struct probe_msg)MSG_READ(UINT32_MAX, 0));
    hostile_message(e, "unknown", (struct probe_msg){.type = 99, .len = 16});
    hostile_message(e, "facts-huge", (struct probe_msg){.type = PROBE_FACTS, .len = UINT32_MAX});
    hostile_message(e, "facts-off", (struct probe_msg){PROBE_FACTS, sizeof(struct probe_facts), 1});
}

static void test_greedy(gconstpointer env)
{
    const struct env *e = env;
    /* 300 times 4 KiB is more than the 1 MiB it may have, whether it takes the answers or not. */
    struct probe_msg many[300];
    for (size_t i = 0; i < G_N_ELEMENTS(many); i++)
        many[i] = (struct probe_msg)MSG_READ(4096, 0);
    hostile_case(e, "greedy-takes", many, sizeof(many), "cat <&3 >/dev/null &", "wait", 0, -EPROTO);
    hostile_case(e, "greedy-leaves", many, sizeof(many), "", "kill -STOP $$", 300, -ETIMEDOUT);
}

static void test_lies(gconstpointer env)
{
    const struct env *e = env;
    struct {
        struct probe_msg m;
        struct probe_facts f;
    } all = {{PROBE_FACTS, sizeof(struct probe_facts), 0},
             {.is_media = 1,
              .width = -5,
              .height = INT32_MAX,
              .rotation = 45,
              .duration = NAN,
              .frame_rate = INFINITY,
              .bit_rate = INT64_MIN}};
    memset(all.f.container, 0xff, PROBE_STRING);
    memcpy(all.f.codec, "a\nb\xc3\xa9\x01", 7);
    memset(all.f.audio_codec, 'x', PROBE_STRING);
    /* It waits for the question, as one that works does: who is gone before it is asked has said nothing. */
    g_autofree char *path = fake_helper(e, "lies", &all, sizeof(all), "head -c 1 <&3 >/dev/null", "exit 0");
    struct source s = {.data = "x", .size = 1};
    struct video v;
    g_assert_cmpint(run(&(struct probe_params){.helper = path}, &s, "a", &v), ==, 0);
    g_assert_true(v.is_media);
    g_assert_true(g_utf8_validate(v.container, -1, NULL));
    g_assert_cmpuint(strlen(v.container), ==, 63);
    g_assert_cmpstr(v.codec, ==, "a?b\xc3\xa9?");
    g_assert_cmpuint(strlen(v.audio_codec), ==, 63);
    g_assert_cmpstr(v.creation_time, ==, "");
    g_assert_cmpfloat(v.duration, ==, -1);
    g_assert_cmpfloat(v.frame_rate, ==, 0);
    g_assert_cmpint(v.bit_rate, ==, 0);
    g_assert_cmpint(v.width, ==, 0);
    g_assert_cmpint(v.height, ==, 0);
    g_assert_cmpint(v.rotation, ==, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    struct env env;
    env_make(&env);
    g_test_add_data_func("/probe/hostile", &env, test_hostile);
    g_test_add_data_func("/probe/greedy", &env, test_greedy);
    g_test_add_data_func("/probe/lies", &env, test_lies);
    int r = g_test_run();
    env_clear(&env);
    return r;
}
