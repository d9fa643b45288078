/* SPDX-License-Identifier: Apache-2.0
 *
 * libFuzzer: the input (after a byte of choice) is all that a helper process ever says.
 * probe_talk() must end by itself with facts that keep their promises, or an errno. Built by
 * tests/fuzz/run.
 */
#include "base/clock.h"
#include "catalog/probe.h"
#include "catalog/probe_proto.h"
#undef NDEBUG
#include <assert.h>
#include <errno.h>
#include <math.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define OBJECT_SIZE 8192

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static ssize_t source_read(void *ctx, void *buf, size_t n, uint64_t off)
{
    assert(n > 0 && off < OBJECT_SIZE && n <= OBJECT_SIZE - off);
    memset(buf, 'x', n);
    return (ssize_t)n;
}

static void check(const struct video *v)
{
    assert(v->uuid[0] == 0);
    assert(g_utf8_validate(v->container, -1, NULL) && strlen(v->container) < VIDEO_TEXT);
    assert(g_utf8_validate(v->codec, -1, NULL) && strlen(v->codec) < VIDEO_TEXT);
    assert(g_utf8_validate(v->audio_codec, -1, NULL) && strlen(v->audio_codec) < VIDEO_TEXT);
    assert(g_utf8_validate(v->creation_time, -1, NULL) && strlen(v->creation_time) < VIDEO_TEXT);
    assert(isfinite(v->duration) && isfinite(v->frame_rate) && v->frame_rate >= 0);
    assert(v->width >= 0 && v->height >= 0 && v->bit_rate >= 0);
    assert(v->rotation >= 0 && v->rotation < 360 && v->rotation % 90 == 0);
    assert(v->is_media || (!v->container[0] && !v->codec[0] && v->duration < 0));
    for (size_t i = 0; video_fact_names[i]; i++) {
        g_autofree char *text = NULL;
        int r = video_fact(v, video_fact_names[i], &text);
        assert(r == 0 || r == -ENODATA);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
        return 0;
    /* Half of the inputs are facts, without the need to guess the header. */
    static const struct probe_msg facts = {PROBE_FACTS, sizeof(struct probe_facts), 0};
    if (n > 0 && (data[0] & 1))
        (void)!send(fds[1], &facts, sizeof(facts), MSG_DONTWAIT | MSG_NOSIGNAL);
    /* What fits without a reader on the other side; then it hangs up. */
    (void)!send(fds[1], data + (n > 0), n - (n > 0), MSG_DONTWAIT | MSG_NOSIGNAL);
    shutdown(fds[1], SHUT_WR);
    const struct probe_source src = {source_read, NULL, OBJECT_SIZE, "fuzz.mp4"};
    const struct probe_params p = {.read_max = 65536}; /* fits the socket's buffer too */
    struct video v;
    int r = probe_talk(fds[0], &p, &src, clock_mono_ns() + 10 * NSEC_PER_SEC, &v);
    assert(r == 0 || r == -EPROTO);
    if (r == 0)
        check(&v);
    close(fds[0]);
    close(fds[1]);
    return 0;
}
