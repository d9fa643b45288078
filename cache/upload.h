/* SPDX-License-Identifier: Apache-2.0
 *
 * upload: requests that carry (or copy) the bytes of files, and the queue that lets so many of
 * them into the store at a time, first come first served across files: so many parts, copies and big
 * PUTs, and sixteen times as many PUTs of up to 1 MiB, which big ones do not keep waiting.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "cache/staging.h"
#include "s3/store.h"

struct extents;
struct upload_queue;

enum upload_state { UPLOAD_IDLE, UPLOAD_QUEUED, UPLOAD_SENT };

struct upload {
    struct store_request req; /* filled by the caller but for source, done and ctx */
    /* Exactly once, on a store thread, no lock held; must not block. */
    void (*done)(struct upload *u);
    void *ctx;
    /* private */
    struct extents *map; /* content of [off, off+size of the body) */
    uint64_t off;
    struct staging_pin staged, fetched;
    bool damaged; /* what arrived was not what was sent, as often as was tried */
    struct upload_queue *queue;
    enum upload_state state; /* the queue's lock */
    struct upload *prev, *next;
    uint64_t weight;
};

struct upload_queue *upload_queue_new(struct store *store, unsigned max);
void upload_queue_free(struct upload_queue *q); /* nothing is under way */
uint64_t upload_queue_bytes(struct upload_queue *q); /* of bodies queued and sent, not yet done */

/* The body: the bytes of map (taken over; STAGED and FETCHED extents only, and ZERO) in [off,
 * off+len). Pins the staging files (each may be NULL). */
void upload_set_body(struct upload *u, struct extents *map, uint64_t off, uint64_t len,
                     struct staging *staged, struct staging *fetched);
/* The body's CRC32C goes with it, for a server that takes it (s3/store.h). It is that of the bytes
 * when they came into staging, combined when the request is sent, on the store's thread, which may
 * touch the disk; mostly that needs not. The request fails with -EIO when staging is damaged. */
void upload_send_checksum(struct upload *u);
/* Never blocks, never runs done inline. */
void upload_submit(struct upload_queue *q, struct upload *u);
/* While done has not run: true when u was still queued (done will never run), else asks the store
 * to end it soon. */
bool upload_cancel(struct upload *u);
/* The synchronous face. Returns req.res.err. */
int upload_run(struct upload_queue *q, struct upload *u);
/* Frees what u holds (may close or unlink staging: disk). Where a body was refused as damaged, looks
 * who did it, and logs that. */
void upload_clear(struct upload *u);
