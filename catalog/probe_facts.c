/* SPDX-License-Identifier: Apache-2.0
 *
 * probe_facts: judges what a helper process says. Pure functions; the helper may be in the hands of
 * whoever made the file it parsed.
 */
#include "catalog/probe.h"
#include "catalog/probe_proto.h"
#include <errno.h>
#include <math.h>
#include <string.h>

#define SIDE_MAX 1000000 /* pixels */
#define SECONDS_MAX 1e10 /* three hundred years */
#define FRAME_RATE_MAX 1e6
#define BIT_RATE_MAX 1000000000000000LL

int probe_msg_check(const struct probe_msg *m, struct probe_limits *limits)
{
    switch (m->type) {
    case PROBE_FACTS:
        return m->len == sizeof(struct probe_facts) && m->off == 0 ? 0 : -EPROTO;
    case PROBE_READ:
        if (m->len == 0 || m->len > PROBE_CHUNK || m->off >= limits->size ||
            m->len > limits->size - m->off || m->len > limits->left)
            return -EPROTO;
        limits->left -= m->len;
        return 0;
    default:
        return -EPROTO;
    }
}

/* Valid UTF-8 without control characters; what is not becomes "?". */
static void text_decode(char to[VIDEO_TEXT], const char from[PROBE_STRING])
{
    g_autofree char *raw = g_strndup(from, PROBE_STRING - 1);
    /* May lengthen the text: U+FFFD is three bytes. */
    g_autofree char *valid = g_utf8_make_valid(raw, -1);
    for (char *p = valid; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = '?';
    size_t n = strlen(valid);
    if (n > VIDEO_TEXT - 1) {
        n = VIDEO_TEXT - 1;
        while (n > 0 && ((unsigned char)valid[n] & 0xc0) == 0x80)
            n--; /* not within a character */
    }
    memcpy(to, valid, n);
    to[n] = 0;
}

static double real_decode(double v, double max, double unknown)
{
    return isfinite(v) && v > 0 && v <= max ? v : unknown;
}

static int64_t int_decode(int64_t v, int64_t max)
{
    return v > 0 && v <= max ? v : 0;
}

void probe_facts_decode(const struct probe_facts *f, struct video *ret)
{
    *ret = (struct video){.is_media = f->is_media == 1, .duration = -1};
    if (!ret->is_media)
        return;
    text_decode(ret->container, f->container);
    text_decode(ret->codec, f->codec);
    text_decode(ret->audio_codec, f->audio_codec);
    text_decode(ret->creation_time, f->creation_time);
    ret->duration = f->duration == 0 ? 0 : real_decode(f->duration, SECONDS_MAX, -1);
    ret->bit_rate = int_decode(f->bit_rate, BIT_RATE_MAX);
    if (!ret->codec[0])
        return;
    ret->width = (int)int_decode(f->width, SIDE_MAX);
    ret->height = (int)int_decode(f->height, SIDE_MAX);
    ret->frame_rate = real_decode(f->frame_rate, FRAME_RATE_MAX, 0);
    if (f->rotation == 90 || f->rotation == 180 || f->rotation == 270)
        ret->rotation = f->rotation;
}
