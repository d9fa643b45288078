/* SPDX-License-Identifier: Apache-2.0
 *
 * readahead: what to fetch before it is asked for, as a pure function of the reads and the
 * measurements it was told of. No clock, no I/O, no allocation; the caller serializes.
 *
 * A reader has up to four cursors, each a place where someone reads forward. A cursor is
 * sequential once a second read continued its first one, reads up to 1 MiB out of order and small
 * gaps included; a file read from byte 0 gets a small window at once. The window doubles with what
 * was consumed up to 2 × rate × duration of one GET, as measured, within the given cap.
 * Backward and random reads get nothing.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#define READAHEAD_CURSORS 4
#define READAHEAD_PENDING 8
#define READAHEAD_FETCHES 16
#define READAHEAD_SLACK (UINT64_C(1) << 20) /* bytes out of order that still count as in order */
#define READAHEAD_WINDOW_MAX (UINT64_C(64) << 20)    /* bytes */
#define READAHEAD_WINDOW_STEADY (UINT64_C(16) << 20) /* bytes: reached without any measurement */

struct readahead_range {
    uint64_t off, end; /* bytes [off, end) of the object */
};

struct readahead_cursor {
    uint64_t start, frontier; /* it has read [start, frontier), more or less */
    uint64_t ahead;           /* asked for up to here; of no meaning below frontier */
    uint64_t window;          /* bytes kept asked for beyond frontier; 0: not sequential */
    uint64_t grown_at;        /* frontier when the window last changed */
    uint64_t born, used;      /* ticks; used 0: the cursor is free */
    unsigned advances;        /* reads in order, the first one included */
    unsigned backs;           /* reads that ended where the run began */
    bool from_zero;
    unsigned n_pending, skipped; /* reads beyond the frontier: ranges, ascending; how many reads */
    struct readahead_range pending[READAHEAD_PENDING];
};

struct readahead {
    uint64_t size; /* of the object */
    uint64_t tick;
    struct readahead_cursor cursors[READAHEAD_CURSORS];
    /* Consumption: bytes in order since rate_from, and the decaying maximum in bytes per second. */
    uint64_t rate_from, rate_bytes, rate;
    /* The store: least time to the first byte, least time per MiB after it, since when. */
    uint64_t first_ns, mib_ns, measured_at;
};

struct readahead_plan {
    struct readahead_range fetch[READAHEAD_FETCHES]; /* one GET each, ascending */
    unsigned n_fetch;
    struct readahead_range drop[READAHEAD_CURSORS]; /* no longer wanted, if nobody waits for it */
    unsigned n_drop;
    unsigned cursor; /* that fetch is for */
    bool sequential; /* the read belongs to a sequential cursor */
};

void readahead_init(struct readahead *ra, uint64_t size);
/* A read of [off, end), not empty, within the object, at now_ns. cap: the largest window, bytes. */
void readahead_note(struct readahead *ra, uint64_t off, uint64_t end, uint64_t now_ns, uint64_t cap,
                    struct readahead_plan *ret);
/* Of the last plan, nothing from `off` on was fetched. */
void readahead_denied(struct readahead *ra, unsigned cursor, uint64_t off);
/* A GET of this reader brought `bytes`: the first after first_ns, the last after total_ns. */
void readahead_fetched(struct readahead *ra, uint64_t bytes, uint64_t first_ns, uint64_t total_ns,
                       uint64_t now_ns);
