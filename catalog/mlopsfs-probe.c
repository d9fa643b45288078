/* SPDX-License-Identifier: Apache-2.0
 *
 * mlopsfs-probe: the helper that parses media. A program of its own, started by probe.c for one
 * file: descriptor 3 is a socket to the parent, which serves byte ranges and takes the facts.
 *
 * Threads: one. Order matters: hello, limits, sandbox; only then is a byte of the file looked at.
 * From there on the process can read and write its socket, ask for memory and exit; anything else
 * kills it. Nested opens (playlists, references) are refused by libavformat before it comes to
 * that.
 */
#include "catalog/probe_proto.h"
#include <errno.h>
#include <fcntl.h>
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/display.h>
#include <math.h>
#include <seccomp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define CACHE_CHUNKS 16
#define AVIO_BUFFER (32 << 10)
/* What the packet scan may look at, where the header does not tell enough. */
#define SCAN_BYTES "4000000"
#define SCAN_MICROSECONDS "4000000"

/* No playlist, no image sequence, no format that names other files. */
static const char formats[] =
    "aac,ac3,aiff,amr,ape,asf,au,avi,av1,caf,dts,dv,eac3,flac,flv,h264,hevc,ivf,m4v,matroska,webm,"
    "mov,mp4,m4a,3gp,3g2,mj2,mp3,mpeg,mpegts,mpegvideo,mxf,nut,obu,ogg,rm,tta,w64,wav,wv,"
    "yuv4mpegpipe";

/* ---- the parent's bytes ---- */

struct chunk {
    uint64_t off, used; /* used: a clock of reads, 0 = empty */
    size_t n;
    uint8_t data[PROBE_CHUNK];
};

struct remote {
    uint64_t size, left, pos, clock;
    struct chunk *chunks; /* CACHE_CHUNKS */
};

/* Without the parent there is nothing left to do. */
static void transfer(bool out, void *buf, size_t n)
{
    char *p = buf;
    while (n > 0) {
        ssize_t k = out ? send(PROBE_FD, p, n, MSG_NOSIGNAL) : recv(PROBE_FD, p, n, 0);
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0)
            _exit(1);
        p += k;
        n -= (size_t)k;
    }
}

static struct chunk *chunk_get(struct remote *r, uint64_t off)
{
    struct chunk *victim = &r->chunks[0];
    for (size_t i = 0; i < CACHE_CHUNKS; i++) {
        struct chunk *c = &r->chunks[i];
        if (c->used && c->off == off) {
            c->used = ++r->clock;
            return c;
        }
        if (c->used < victim->used)
            victim = c;
    }
    uint64_t n = r->size - off < PROBE_CHUNK ? r->size - off : PROBE_CHUNK;
    if (n > r->left)
        return NULL;
    r->left -= n;
    struct probe_msg m = {.type = PROBE_READ, .len = (uint32_t)n, .off = off};
    transfer(true, &m, sizeof(m));
    transfer(false, victim->data, n);
    victim->off = off;
    victim->n = n;
    victim->used = ++r->clock;
    return victim;
}

static int remote_read(void *opaque, uint8_t *buf, int size)
{
    struct remote *r = opaque;
    if (r->pos >= r->size)
        return AVERROR_EOF;
    struct chunk *c = chunk_get(r, r->pos - r->pos % PROBE_CHUNK);
    if (!c)
        return AVERROR(EIO);
    size_t skip = (size_t)(r->pos - c->off);
    size_t n = c->n - skip < (size_t)size ? c->n - skip : (size_t)size;
    memcpy(buf, c->data + skip, n);
    r->pos += n;
    return (int)n;
}

static int64_t remote_seek(void *opaque, int64_t offset, int whence)
{
    struct remote *r = opaque;
    whence &= ~AVSEEK_FORCE;
    if (whence == AVSEEK_SIZE)
        return (int64_t)r->size;
    if (whence == SEEK_CUR)
        offset += (int64_t)r->pos;
    else if (whence == SEEK_END)
        offset += (int64_t)r->size;
    else if (whence != SEEK_SET)
        return AVERROR(EINVAL);
    if (offset < 0)
        return AVERROR(EINVAL);
    r->pos = (uint64_t)offset;
    return offset;
}

/* ---- the sandbox ---- */

static uint64_t mapped_now(void)
{
    unsigned long pages = 0;
    FILE *f = fopen("/proc/self/statm", "re");
    if (f) {
        if (fscanf(f, "%lu", &pages) != 1)
            pages = 0;
        fclose(f);
    }
    /* Without /proc: a guess well above what the libraries take. */
    return pages ? (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE) : 1ULL << 30;
}

static int limit(int what, uint64_t value)
{
    struct rlimit l;
    if (getrlimit((__rlimit_resource_t)what, &l) < 0)
        return -1;
    if (l.rlim_max != RLIM_INFINITY && value > l.rlim_max)
        value = l.rlim_max; /* already tighter */
    l.rlim_cur = l.rlim_max = value;
    return setrlimit((__rlimit_resource_t)what, &l);
}

static int limits_set(const struct probe_hello *h)
{
    uint64_t mapped = mapped_now();
    int r = limit(RLIMIT_CORE, 0) | limit(RLIMIT_FSIZE, 0) | limit(RLIMIT_NOFILE, PROBE_FD + 1) |
            limit(RLIMIT_CPU, h->cpu_seconds) | limit(RLIMIT_AS, mapped + h->memory);
    /* Counts the user's processes, root's not at all; only to add to the filter. */
    (void)limit(RLIMIT_NPROC, 0);
    r |= prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) | prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    /* The thread that started us waits for us: it ends early only if its process does. */
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    return r;
}

static int filter_rules(scmp_filter_ctx f)
{
    static const int allowed[] = {
        SCMP_SYS(munmap),       SCMP_SYS(mremap),         SCMP_SYS(brk),
        SCMP_SYS(madvise),      SCMP_SYS(futex),          SCMP_SYS(clock_gettime),
        SCMP_SYS(gettimeofday), SCMP_SYS(time),           SCMP_SYS(getrandom),
        SCMP_SYS(exit),         SCMP_SYS(exit_group),     SCMP_SYS(rt_sigreturn),
        SCMP_SYS(sched_yield),  SCMP_SYS(rt_sigprocmask), SCMP_SYS(sched_getaffinity),
        SCMP_SYS(getpid),       SCMP_SYS(gettid),         SCMP_SYS(restart_syscall),
    };
    /* What libraries try on the way to a fallback: a refusal is enough. */
    static const int refused[] = {
        SCMP_SYS(open),  SCMP_SYS(openat),  SCMP_SYS(access),     SCMP_SYS(faccessat),
        SCMP_SYS(stat),  SCMP_SYS(lstat),   SCMP_SYS(newfstatat), SCMP_SYS(readlink),
        SCMP_SYS(clone), SCMP_SYS(sysinfo), SCMP_SYS(uname),
    };
    static const int on_socket[] = {SCMP_SYS(recvfrom), SCMP_SYS(sendto), SCMP_SYS(read),
                                    SCMP_SYS(write)};
    int r = 0;
    for (size_t i = 0; i < sizeof(allowed) / sizeof(allowed[0]); i++)
        r |= seccomp_rule_add(f, SCMP_ACT_ALLOW, allowed[i], 0);
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
        r |= seccomp_rule_add(f, SCMP_ACT_ERRNO(EACCES), refused[i], 0);
    for (size_t i = 0; i < sizeof(on_socket) / sizeof(on_socket[0]); i++)
        r |= seccomp_rule_add(f, SCMP_ACT_ALLOW, on_socket[i], 1, SCMP_A0(SCMP_CMP_EQ, PROBE_FD));
    r |= seccomp_rule_add(f, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
    /* Memory, but none that holds code and none from a file. */
    r |= seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 2,
                          SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0),
                          SCMP_A3(SCMP_CMP_MASKED_EQ, MAP_ANONYMOUS, MAP_ANONYMOUS));
    r |= seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1,
                          SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
    return r;
}

static int sandbox_enter(void)
{
    scmp_filter_ctx f = seccomp_init(SCMP_ACT_KILL_PROCESS);
    if (!f)
        return -1;
    /* Also threads that a library may have started. */
    int r = seccomp_attr_set(f, SCMP_FLTATR_CTL_TSYNC, 1);
    if (r == 0)
        r = filter_rules(f);
    if (r == 0)
        r = seccomp_load(f);
    seccomp_release(f);
    return r;
}

/* ---- facts ---- */

static int refuse_open(AVFormatContext *s, AVIOContext **pb, const char *url, int flags,
                       AVDictionary **options)
{
    return AVERROR(EACCES);
}

static void text_set(char to[PROBE_STRING], const char *from)
{
    snprintf(to, PROBE_STRING, "%s", from ? from : "");
}

static const char *meta(const AVDictionary *d, const char *name)
{
    const AVDictionaryEntry *e = av_dict_get(d, name, NULL, 0);
    return e ? e->value : NULL;
}

/* The document type lies in the first bytes: element 42 82, its length, its text. */
static bool head_says_webm(struct remote *r)
{
    struct chunk *c = chunk_get(r, 0);
    size_t n = c ? (c->n < 96 ? c->n : 96) : 0;
    return n && memmem(c->data, n, "\x42\x82\x84webm", 7);
}

static void container_set(char to[PROBE_STRING], const AVFormatContext *s, struct remote *r)
{
    const char *format = s->iformat->name;
    if (strncmp(format, "mov,", 4) == 0) {
        const char *brand = meta(s->metadata, "major_brand");
        /* Files older than brands are QuickTime's. */
        if (!brand || strncmp(brand, "qt", 2) == 0)
            text_set(to, "mov");
        else if (strncmp(brand, "3gp", 3) == 0)
            text_set(to, "3gp");
        else if (strncmp(brand, "3g2", 3) == 0)
            text_set(to, "3g2");
        else
            text_set(to, "mp4");
    } else if (strncmp(format, "matroska", 8) == 0) {
        text_set(to, head_says_webm(r) ? "webm" : "matroska");
    } else {
        snprintf(to, PROBE_STRING, "%.*s", (int)strcspn(format, ","), format);
    }
}

static int rotation_of(AVStream *st)
{
    const int32_t *matrix = NULL;
#if LIBAVFORMAT_VERSION_MAJOR >= 61
    const AVPacketSideData *sd = av_packet_side_data_get(
        st->codecpar->coded_side_data, st->codecpar->nb_coded_side_data, AV_PKT_DATA_DISPLAYMATRIX);
    if (sd && sd->size >= 9 * sizeof(int32_t))
        matrix = (const int32_t *)(const void *)sd->data;
#else
    size_t size = 0;
    const uint8_t *data = av_stream_get_side_data(st, AV_PKT_DATA_DISPLAYMATRIX, &size);
    if (data && size >= 9 * sizeof(int32_t))
        matrix = (const int32_t *)(const void *)data;
#endif
    double theta = matrix ? av_display_rotation_get(matrix) : 0; /* anticlockwise */
    if (!isfinite(theta))
        return 0;
    int turns = (int)(theta > 0 ? -theta / 90 - 0.5 : -theta / 90 + 0.5);
    return ((turns % 4 + 4) % 4) * 90;
}

/* "" is for "has no such stream". */
static const char *codec_of(const AVStream *st)
{
    enum AVCodecID id = st->codecpar->codec_id;
    return id == AV_CODEC_ID_NONE ? "unknown" : avcodec_get_name(id);
}

static double rate_of(const AVStream *st)
{
    AVRational r = st->avg_frame_rate.num > 0 && st->avg_frame_rate.den > 0 ? st->avg_frame_rate
                                                                            : st->r_frame_rate;
    return r.num > 0 && r.den > 0 ? av_q2d(r) : 0;
}

/* The first stream of a kind, cover pictures aside. */
static AVStream *stream_of(AVFormatContext *s, enum AVMediaType type)
{
    for (unsigned i = 0; i < s->nb_streams; i++) {
        AVStream *st = s->streams[i];
        if (st->codecpar->codec_type == type && !(st->disposition & AV_DISPOSITION_ATTACHED_PIC))
            return st;
    }
    return NULL;
}

/* True when the index told all: these containers carry it, and a scan would only read packets. */
static bool header_suffices(AVFormatContext *s)
{
    if (strncmp(s->iformat->name, "mov,", 4) != 0 && strncmp(s->iformat->name, "matroska", 8) != 0)
        return false;
    const AVStream *v = stream_of(s, AVMEDIA_TYPE_VIDEO), *a = stream_of(s, AVMEDIA_TYPE_AUDIO);
    if (s->duration <= 0 || (!v && !a) || (a && a->codecpar->codec_id == AV_CODEC_ID_NONE))
        return false;
    return !v ||
           (v->codecpar->codec_id != AV_CODEC_ID_NONE && v->codecpar->width > 0 &&
            v->codecpar->height > 0 && v->avg_frame_rate.num > 0 && v->avg_frame_rate.den > 0);
}

static void facts_set(struct probe_facts *f, AVFormatContext *s, struct remote *r)
{
    AVStream *v = stream_of(s, AVMEDIA_TYPE_VIDEO), *a = stream_of(s, AVMEDIA_TYPE_AUDIO);
    if (!v && !a)
        return;
    f->is_media = 1;
    container_set(f->container, s, r);
    f->duration = s->duration != AV_NOPTS_VALUE ? (double)s->duration / AV_TIME_BASE : -1;
    f->bit_rate = s->bit_rate;
    if (f->bit_rate <= 0 && f->duration > 0)
        f->bit_rate = (int64_t)((double)r->size * 8 / f->duration);
    const char *created = meta(s->metadata, "creation_time");
    if (v) {
        text_set(f->codec, codec_of(v));
        f->width = v->codecpar->width;
        f->height = v->codecpar->height;
        f->frame_rate = rate_of(v);
        f->rotation = rotation_of(v);
        if (!created)
            created = meta(v->metadata, "creation_time");
    }
    if (a)
        text_set(f->audio_codec, codec_of(a));
    text_set(f->creation_time, created);
}

static void probe(struct remote *r, const char *name, struct probe_facts *f)
{
    uint8_t *buffer = av_malloc(AVIO_BUFFER);
    AVIOContext *io =
        buffer ? avio_alloc_context(buffer, AVIO_BUFFER, 0, r, remote_read, NULL, remote_seek)
               : NULL;
    AVFormatContext *s = avformat_alloc_context();
    AVDictionary *options = NULL;
    if (!io || !s)
        return;
    s->pb = io;
    s->flags |= AVFMT_FLAG_CUSTOM_IO;
    s->io_open = refuse_open;
    if (av_dict_set(&options, "format_whitelist", formats, 0) < 0 ||
        av_dict_set(&options, "protocol_whitelist", "none", 0) < 0 ||
        av_dict_set(&options, "probesize", SCAN_BYTES, 0) < 0 ||
        av_dict_set(&options, "analyzeduration", SCAN_MICROSECONDS, 0) < 0)
        return;
    /* On failure s is freed; the process ends soon, so nothing else is. */
    if (avformat_open_input(&s, name, NULL, &options) < 0)
        return;
    if (s->probe_score <= AVPROBE_SCORE_RETRY)
        return; /* a guess at best: text and noise are no media */
    if (!header_suffices(s) && avformat_find_stream_info(s, NULL) < 0)
        return;
    facts_set(f, s, r);
}

int main(void)
{
    static struct probe_hello hello; /* this process has one thread and one job */
    transfer(false, &hello, sizeof(hello));
    if (hello.magic != PROBE_MAGIC)
        return 1;
    hello.name[PROBE_NAME - 1] = 0;
    struct remote r = {.size = hello.size, .left = hello.read_max};
    r.chunks = calloc(CACHE_CHUNKS, sizeof(*r.chunks));
    av_log_set_level(AV_LOG_QUIET);
    if (!r.chunks)
        return 1;
    if (limits_set(&hello) != 0 || sandbox_enter() != 0)
        return PROBE_EXIT_SANDBOX;

    struct probe_msg m = {.type = PROBE_FACTS, .len = sizeof(struct probe_facts)};
    struct probe_facts facts = {.duration = -1};
    probe(&r, hello.name, &facts);
    transfer(true, &m, sizeof(m));
    transfer(true, &facts, sizeof(facts));
    _exit(0);
}
