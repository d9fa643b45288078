/* SPDX-License-Identifier: Apache-2.0
 *
 * probe_proto: what probe.c (the parent) and mlopsfs-probe (the helper) say to each other over a
 * stream socket, the helper's descriptor 3. Structs travel as they lie in memory: both ends are
 * built together, and the first message says for which layout.
 *
 *     parent → helper   struct probe_hello, once
 *     helper → parent   struct probe_msg READ; the parent answers with exactly `len` bytes
 *     helper → parent   struct probe_msg FACTS, followed by struct probe_facts; the last message
 *
 * The parent trusts nothing: probe_msg_check() and probe_facts_decode() (probe_facts.c) say what
 * holds.
 */
#pragma once
#include <stdint.h>

#define PROBE_FD 3
#define PROBE_MAGIC 0x31505250u  /* "PRP1": changes with any layout below */
#define PROBE_CHUNK (256u << 10) /* the helper reads aligned chunks of this size */
#define PROBE_NAME 16
#define PROBE_STRING 64

/* Exit status: this system lets no sandbox be made, so nothing was parsed. */
#define PROBE_EXIT_SANDBOX 77

enum probe_type { PROBE_READ = 1, PROBE_FACTS = 2 };

struct probe_hello {
    uint32_t magic;
    uint32_t cpu_seconds;
    uint64_t size;         /* the object's */
    uint64_t read_max;     /* bytes that may be asked for in all */
    uint64_t memory;       /* bytes of address space beyond what the program itself has mapped */
    char name[PROBE_NAME]; /* "media" and perhaps an extension; NUL-terminated */
};

struct probe_msg {
    uint32_t type; /* enum probe_type */
    uint32_t len;  /* READ: bytes; FACTS: sizeof(struct probe_facts) */
    uint64_t off;  /* READ: offset in the object; FACTS: 0 */
};

struct probe_facts {
    uint32_t is_media;
    int32_t width, height, rotation;
    double duration, frame_rate;
    int64_t bit_rate;
    char container[PROBE_STRING], codec[PROBE_STRING], audio_codec[PROBE_STRING];
    char creation_time[PROBE_STRING];
};

struct probe_params;
struct probe_source;
struct video;

/* What the helper may still ask for. */
struct probe_limits {
    uint64_t size, left;
};

/* 0 when this message is allowed now; takes its bytes from limits->left. Else -EPROTO. */
int probe_msg_check(const struct probe_msg *m, struct probe_limits *limits);
/* Facts from the wire, whatever they are, as a struct video that keeps its promises. */
void probe_facts_decode(const struct probe_facts *f, struct video *ret);
/* The parent's side of the conversation on a non-blocking socket: 0, -ETIMEDOUT, -EPROTO (the peer
 * hung up or talked nonsense), -errno of the source. */
int probe_talk(int fd, const struct probe_params *p, const struct probe_source *src,
               uint64_t deadline_ns, struct video *ret);
