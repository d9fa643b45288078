/* SPDX-License-Identifier: Apache-2.0
 *
 * fake: what the two halves of fake_store share: fake_store.c runs requests, fake_verbs.c knows
 * what they do.
 */
#pragma once
#include <pthread.h>

#include "base/mutex.h"
#include "tests/lib/fake_store.h"

struct object {
    GBytes *bytes;
    struct store_object attr;
    GHashTable *tags;
    struct store_checksum checksum; /* a part's, of an upload with_checksums */
};

struct upload {
    char *name; /* bucket/key */
    int64_t initiated_ns;
    struct store_headers headers;
    bool with_checksums;
    GHashTable *tags;
    char *storage_class;
    GHashTable *parts; /* number → struct object */
};

/* A request under way. */
struct item {
    struct store_request *req;
    bool cancelled; /* lock */
    bool shown;     /* lock: the hook has seen it */
    bool held;      /* lock */
    enum fake_action action;
    uint64_t cut;
    struct store_result planned; /* FAKE_FAIL_AFTER */
};

struct fake_store {
    struct store store;
    struct fake_params p;
    struct store_caps caps;
    pthread_t thread;
    struct mutex lock;
    struct cond wake, changed;
    bool stop;
    GPtrArray *queue, *held; /* struct item */
    unsigned under_way;
    uint64_t counts[STORE_VERB_COUNT];
    GTree *objects;      /* "bucket/key" → struct object */
    GHashTable *uploads; /* id → struct upload */
    uint64_t serial;     /* of ETags and upload ids */
    int64_t ahead_ns;    /* its clock, of ours */
    bool mute;           /* it does not tell its clock */
    uint64_t prng;
};

/* fake_verbs.c */
struct object *fake_find_locked(struct fake_store *f, const char *bucket, const char *key);
struct object *fake_object_new_locked(struct fake_store *f, GBytes *bytes,
                                      const struct store_headers *headers);
void fake_object_free(void *object);
void fake_upload_free(void *upload);
char *fake_name(const char *bucket, const char *key);
void fake_run_verb(struct fake_store *f, struct item *it);
/* fake_store.c */
uint64_t fake_random_below_locked(struct fake_store *f, uint64_t n);
