/* SPDX-License-Identifier: Apache-2.0
 *
 * commit: one attempt to make a sealed content the object of its key. The committer seals and
 * installs; publish.c executes.
 */
#pragma once
#include "cache/file.h"
#include "cache/journal.h"
#include "cache/staging.h"

struct commit {
    struct cache_file *file;
    struct cache *cache;
    struct store_caps caps;

    /* sealed: constant while it runs */
    uint64_t gen;
    uint64_t staged_end; /* STAGED below it is this commit's or older */
    struct extents *map;
    struct store_headers headers; /* COMMIT_META is uuid */
    char *bucket, *key, *expect;
    struct file_base *base;
    bool data_dirty, headers_dirty, moved;
    bool base_gone; /* its bytes are not to be had from the server; perhaps they are cached */
    uint64_t untagged_ns; /* of the base */
    struct staging *staging;
    uint64_t staging_number;
    struct staging_pin pin;
    struct staging_pin *record_pin; /* the file's, once the seal is recorded */
    char uuid[37];
    bool by_close; /* taken by a close, for the next commit */
    bool recorded; /* by a close, with uuid */
    GPtrArray *earlier;    /* struct journal_attempt*: of what was requested before */
    struct stream *stream; /* the file's, sealed; NULL */
    struct journal_upload upload; /* its, as it is when the seal is taken */
    struct plan_done *done;
    size_t n_done;

    /* while it runs */
    struct plan plan;
    GHashTable *tags;         /* the base's, which the object is to have; NULL: none */
    const char *storage_class; /* the base's, likewise; NULL: the default */
    struct reader *reader; /* of the base, when its bytes are needed */
    unsigned under_way;    /* the file's lock */
    int err;               /* the file's lock: of the first part that failed */
    enum store_class cls;  /* the file's lock: its class */

    struct multi *multi;     /* while its upload is completed */
    struct attempt *attempt; /* the request that was made last; NULL */
    bool unconditional;      /* the server refuses conditions */

    /* what it came to */
    struct store_object now;
    bool stream_completed; /* the stream's upload became the object, with its headers */
    bool stream_lost;      /* the server does not know the upload any more, or must forget it */
    bool parts_invalid;    /* it does, but not all of its parts */
    bool late;             /* an earlier attempt's: gen, staged_end, data_dirty are that one's */
    bool nothing;          /* there was nothing to do */
};

/* Plans and runs. 0 (now is the object), -ESTALE when someone else changed the object or the base
 * is gone, else -errno. Blocks on the network. */
int publish(struct commit *c);
