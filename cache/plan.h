/* SPDX-License-Identifier: Apache-2.0
 *
 * plan: what a commit has to do, as a pure function of what the file is. No I/O, no lock.
 *
 * The schedule of part sizes. Part n (from 1) of an upload whose first part has P bytes has
 *     P · 2^((n−1)/1000) bytes (integer division), 5 GiB at most;
 * with P = 16 MiB the 10,000 parts that S3 allows hold 15.9 TiB, more than the 5 TiB that an object
 * may have. A part may be cut shorter (never below 5 MiB) when staging is full; so the schedule
 * is a ceiling.
 */
#pragma once
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include "s3/store.h"

struct extents;

#define PLAN_PART_SIZE (16ULL << 20) /* P */

struct plan_limits {
    uint64_t part_size; /* P; also the most that goes up as one PUT */
    uint64_t part_min;  /* every part but the last has at least so many bytes */
    uint64_t part_max;  /* and none more */
    uint64_t copy_max;  /* most bytes of one COPY or COPY_PART */
    uint64_t fetch_max; /* most bytes of the base that one part may have to fetch; ≥ 2 × part_min */
    unsigned parts_max;
    uint64_t holes_max; /* most bytes that nobody has written, and that are stored as zeros all the same */
    uint64_t size_max; /* what the schedule can hold; an object's most, at most */
};

/* S3's limits, and no limit of holes. part_size 0: PLAN_PART_SIZE. */
void plan_limits_init(struct plan_limits *l, uint64_t part_size, uint64_t fetch_max);
uint64_t plan_part_size(const struct plan_limits *l, unsigned number);

/* A part that a stream has already uploaded. They begin at 0 and follow one another. */
struct plan_done {
    uint64_t off, len;
    bool stale; /* rewritten since: must go up again */
};

struct plan_input {
    const struct extents *map; /* sealed content; its size is the file's */
    bool has_base;             /* map's BASE refers to it */
    uint64_t base_size;
    bool data_dirty, headers_dirty, moved; /* moved: the target is not the base's key */
    bool guarded;  /* the target's state must be a condition and COPY cannot carry it */
    bool copy_part; /* the server has MPU_COPY_PART */
    const struct plan_done *done;
    size_t n_done;
};

enum plan_kind { PLAN_NOTHING, PLAN_COPY, PLAN_PUT, PLAN_MULTIPART };
enum plan_how {
    PLAN_KEEP,   /* done[number-1] as it is */
    PLAN_UPLOAD, /* from staging; BASE inside is fetched first */
    PLAN_COPY_PART,
};

struct plan_part {
    unsigned number; /* 1.. without gap */
    enum plan_how how;
    uint64_t off, len;
};

struct plan {
    enum plan_kind kind;
    GArray *parts; /* struct plan_part, MULTIPART only; else NULL */
};

/* 0, or -EFBIG when the content cannot be cut into parts_max parts, or has more than holes_max ZERO bytes. */
int plan_make(const struct plan_input *in, const struct plan_limits *l, struct plan *ret);
void plan_clear(struct plan *p);
#define _cleanup_plan_ __attribute__((cleanup(plan_clear)))
