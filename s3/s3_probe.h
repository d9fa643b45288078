/* SPDX-License-Identifier: Apache-2.0
 *
 * s3_probe: what s3_probe.c (a probe's life) and s3_trial.c (what it tries) share. Private to them.
 */
#pragma once
#include "base/mutex.h"
#include "s3/s3_op.h"

struct trial {
    struct probe *probe;
    void (*try)(struct trial *t);
    char *key;
    bool tried;             /* a request was made */
    bool there;             /* so is an object of ours */
    char *upload_id;        /* of an upload that was neither completed nor aborted; NULL */
    bool upload_doubtful;   /* there may be another one */
    struct store_caps caps; /* what it has found; the others stay false */
    bool refuses;           /* a part with the checksum of another one, in an upload created for checksums */
};

#define TRIALS 10

struct probe {
    struct store *store;
    char *bucket, *prefix;
    struct mutex lock;
    struct cond changed;  /* trying */
    unsigned trying;      /* lock: trials without an answer */
    unsigned refs;        /* lock: trials that have not ended, and who asked */
    bool passing;         /* lock: something failed that may work later: nothing more is tried */
    bool incomplete;      /* lock: an object that a trial needs cannot be put into this bucket */
    char refusal[48];     /* lock: the answer to what is not permitted first; "" = none */
    unsigned left;        /* lock: objects that could not be removed */
    struct trial trials[TRIALS];
};

/* s3_trial.c: each blocks on the network, and leaves an object and perhaps an upload under its key. */
extern void (*const s3_tries[TRIALS])(struct trial *t);
/* A request of the probe's, with a body of one byte. */
struct store_request s3_probe_request(const struct probe *p, enum store_verb verb, const char *key);
