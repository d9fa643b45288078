/* SPDX-License-Identifier: Apache-2.0
 *
 * retry_rig: retry above stats above the fake store, for the tests of s3/retry. A script says what
 * becomes of each attempt; waits between attempts are seen, noted, and made nothing.
 */
#pragma once
#include "base/clock.h"
#include "base/mutex.h"
#include "s3/retry.h"
#include "s3/stats.h"
#include "tests/lib/fake_store.h"

#define HOUR (3600 * NSEC_PER_SEC)

struct rig;

/* What the fake does with attempt number n (from 0) of the test's request. */
typedef enum fake_action (*script_fn)(struct rig *rig, unsigned n, struct store_request *req,
                                      uint64_t *cut);

struct rig {
    struct store *fake, *stats, *store;
    script_fn script;
    void *arg;
    bool keep_delay;                  /* the hook leaves waits as they are */
    void (*on_wait)(struct rig *rig); /* called before each wait, no lock held */
    struct store_retry_params params;

    struct mutex lock;
    struct cond changed;
    unsigned attempts, waits; /* lock */
    uint64_t delays[64];      /* lock: of the first waits */
};

void rig_init_with(struct rig *rig, script_fn script, uint64_t seed, struct store_retry_params p);
/* The same in two steps, so that a test can put a layer of its own above rig->stats. */
void rig_init_above(struct rig *rig, script_fn script, uint64_t seed, struct store_retry_params p);
void rig_finish_init(struct rig *rig, struct store *below);
void rig_init(struct rig *rig, script_fn script);
void rig_fini(struct rig *rig);
void rig_wait_waits(struct rig *rig, unsigned n);
uint64_t rig_requests(struct rig *rig, enum store_verb v);
enum fake_action rig_fail_503(struct store_request *req);
enum fake_action rig_lose_reply(struct store_request *req);
struct store_request rig_head_request(void);
