/* SPDX-License-Identifier: Apache-2.0
 *
 * file: what a cache and its files are, for the .c files of the write side only (cache.h is the
 * face). See writer.c for the states of a file.
 */
#pragma once
#include <glib.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include "base/cancel.h"
#include "base/mutex.h"
#include "cache/cache.h"
#include "cache/extents.h"
#include "cache/plan.h"
#include "cache/staging.h"

struct drafter;
struct journal;
struct journal_seal;
struct stream;
struct sweep;
struct upload_queue;

/* User metadata that names the commit which wrote an object: x-amz-meta-mlopsfs-commit. */
#define COMMIT_META "mlopsfs-commit"

struct cache {
    struct store *store;
    char *dir;
    void (*committed)(void *owner, const struct store_object *now, bool same_content);
    struct plan_limits limits;
    uint64_t untagged_ttl_ns;
    uint64_t settle_ns;
    enum cache_conflict on_conflict;
    void (*parted)(void *owner, const char *bucket, const char *key);
    char *bucket;             /* NULL: of all */
    struct journal *journal;
    struct local_sync *local_sync;
    GPtrArray *adopted;       /* lock: struct journal*; grows in cache_adopt() alone */
    struct drafter *drafter;
    char *recovered, *origin; /* recovered NULL: what is not sealed is not kept */
    unsigned parked;          /* by cache_adopt() */
    atomic_flag caps_asked;   /* what the server honours is being found out, or was */
    struct workq *deliver;    /* completions */
    struct workq *committers; /* commits: they block on the network */
    struct sweep *sweep;      /* ends uploads that belong to nothing */
    struct workq *janitor;    /* what must not run on a store's thread: disk work, last references */
    struct read_cache *readers;
    struct budget *disk;    /* staging of files */
    struct staging_spares *spares; /* of journal */
    struct budget *reserve; /* scratch of commits, so that a full staging can always be emptied */
    struct upload_queue *uploads;

    struct mutex lock;   /* rank above commit; takes no other */
    struct cond changed; /* lock: events, n_files */
    uint64_t events;     /* lock: rises when space was given back or work has ended */
    bool squeezing;      /* lock: a thread is in cache_squeeze() */
    unsigned work;       /* lock: commits and streamed parts under way, which will free space */
    unsigned n_files;    /* lock: that are not freed yet */
    GQueue streams;      /* lock: cache_file* that have a stream */
    GHashTable *tagless; /* lock: set of buckets' names where tags cannot be read */
    uint64_t dirty_files, sealed_files, drafted_files, commits, commit_errors, conflicts; /* lock */
};

/* A committed version. Immutable, refcounted. */
struct file_base {
    atomic_uint refs;
    char *bucket, *key;
    struct store_object object;
};

struct file_base *file_base_new(const char *bucket, const char *key, const struct store_object *o);
struct file_base *file_base_ref(struct file_base *b);
void file_base_unref(struct file_base *b); /* NULL is fine */

enum commit_state { COMMIT_IDLE, COMMIT_QUEUED, COMMIT_RUNNING };

struct cache_file {
    struct cache *cache;
    atomic_uint refs; /* the users' */
    atomic_uint life; /* users as one, handles' reads, a commit, each stream */
    struct mutex lock;
    struct cond changed; /* lock: any of the states below */

    /* all below: lock */
    void *owner;
    bool dead;    /* no user is left: owner must not be called */
    bool calling; /* committed() runs */
    bool orphan;
    bool discarded; /* an orphan without content */
    bool counted; /* among the cache's dirty files */

    char *bucket, *key, *expect; /* where the next commit goes */
    struct file_base *base;      /* NULL: never committed */
    struct extents *map;         /* its size is the file's */
    struct store_headers headers;
    uint64_t untagged_ns;    /* as in struct store_object, of the base */
    uint64_t commits_begun;
    struct staging *staging; /* NULL until the first write */

    struct journal *journal; /* constant: the one that has its records */
    uint64_t number;         /* in the journal */
    uint64_t staging_number; /* of staging */
    bool recording;          /* one record at a time */
    bool recorded;           /* the journal has a seal of it */
    uint64_t recorded_gen;   /* of this generation */
    char *recorded_uuid;     /* as the request that the next commit is to make, by a close and nothing since; NULL */
    struct staging_pin *recorded_pin; /* what the recorded seal refers to; NULL: nothing staged */
    bool recorded_synced;    /* it would survive a power cut */
    struct staging_pin *synced_pin; /* what an older seal refers to, which does while the recorded one does not; NULL */
    GList sync_link;         /* local_sync's lock; so is: */
    bool sync_listed;
    bool kept;               /* what is uncommitted is the next mount's */
    bool draft_wanted;       /* the drafter has the file in its queue */
    bool drafted;            /* the journal has a draft of it */
    uint64_t drafted_gen;    /* of this generation */
    GList draft_link;        /* the drafter's lock */

    bool data_dirty, headers_dirty, moved;
    uint64_t gen; /* rises with every change */
    uint64_t data_gen, headers_gen, emptied_gen; /* gen of the last change of that kind */

    bool writing;                  /* one write, truncate or fetch at a time */
    bool reserved;                 /* the writer is filling [res_off, res_off+res_len) … */
    uint64_t res_off, res_len, res_src; /* … whose bytes go to res_src in staging */

    bool fresh;      /* no byte comes from a base: may be streamed */
    bool spilled;    /* its base was streamed: it is published again when staging is full */
    uint64_t cursor; /* fresh: [0, cursor) was written without gap */
    struct stream *stream;

    enum commit_state commit;
    uint64_t sealed_gen; /* while RUNNING */
    uint64_t sent;       /* while RUNNING: bytes of the content that the bucket has */
    bool publishing;     /* a sealed content is on its way: neither installed yet nor refused */
    GPtrArray *attempts; /* outcome.c: changed by the running commit alone; NULL: none */
    GQueue waiters;      /* struct waiter* */
    uint64_t failed_gen; /* generation of the last commit that failed; 0 = none */
    bool conflict;       /* a commit met someone else's version, and none has succeeded since */
    bool stays;          /* such a commit fails, whatever the cache does else: its name is about to be changed */
    bool base_gone;      /* the server has the base's bytes no more */
    unsigned writers;    /* who have it open for writing */
    uint64_t err_seq;    /* rises with every failed commit */
    int err;             /* the last one's */
};

/* cache.c */
void cache_event(struct cache *c);      /* somebody who waits for room may look again */
void cache_work_begin(struct cache *c);
void cache_work_end(struct cache *c);   /* also an event */
uint64_t cache_events(struct cache *c, unsigned *ret_work);
/* Waits until cache_events() is no longer `seen`. 0 or -EINTR. */
int cache_wait_event(struct cache *c, uint64_t seen, struct cancel *cancel);
/* Gives back the garbage of s, or else, if told so, what streams of any file have uploaded. Returns
 * the bytes, and makes it an event. No lock held; disk. */
uint64_t cache_squeeze(struct cache *c, struct staging *s, bool streams);

/* file.c */
struct cache_file *file_hold(struct cache_file *f); /* life */
bool file_hold_living(struct cache_file *f);        /* unless it is being freed */
void file_release(struct cache_file *f);            /* may free: disk */
void file_release_later(struct cache_file *f);      /* on the janitor */
struct extents *file_map_new(struct cache_file *f); /* whose displaced bytes are dropped from staging */
static inline bool file_dirty_locked(const struct cache_file *f)
{
    return !f->orphan && (f->data_dirty || f->headers_dirty || f->moved);
}
void file_count_locked(struct cache_file *f); /* after a change of what dirty depends on */
bool headers_equal(const struct store_headers *a, const struct store_headers *b); /* but for COMMIT_META */
/* Fired by a cancel token: wakes those who wait on `changed`. ctx is the file. */
void file_wake(void *ctx);
/* Waits for a change. 0 or -EINTR. The token is watched with file_wake(). */
int file_wait_locked(struct cache_file *f, struct cancel *cancel);
/* Waits for the turn to change the content; file_leave_locked() ends it. */
int file_enter_locked(struct cache_file *f, struct cancel *cancel);
void file_leave_locked(struct cache_file *f);
/* The file's staging, made if need be (unlocks for it). Only within file_enter. */
int file_staging_locked(struct cache_file *f, struct staging **ret);
/* What was written is content now. */
void file_data_changed_locked(struct cache_file *f);
/* The journal has a seal of the file, or has none any more. */
void file_recorded_locked(struct cache_file *f, bool recorded);
/* The same of a draft. */
void file_drafted_locked(struct cache_file *f, bool drafted);
/* Unpins and frees; NULL is fine. Disk. */
void file_pin_free(struct staging_pin *pin);
/* Nothing of it is committed any more, by whatever mount; its upload is aborted. No commit is under way. Unlocks; disk. */
int file_discard_locked(struct cache_file *f);
/* A new one without content or owner. */
struct cache_file *file_new(struct cache *c, struct journal *j, uint64_t number, const char *bucket, const char *key);

/* writer.c */
/* Brings the base's bytes that the map still refers to into staging. Within file_enter. -ESTALE also
 * when a commit replaced the base meanwhile. */
int writer_fetch_base_locked(struct cache_file *f, struct cancel *cancel);

/* committer.c */
struct waiter;
void committer_start_locked(struct cache_file *f);
/* Asks for a commit of everything up to now; w is told on the deliver queue. h may be NULL. */
void committer_wait_locked(struct cache_file *f, struct cache_handle *h, struct cache_wait *w);
/* Only for the end of the commit that is RUNNING. */
void committer_wait_running_locked(struct cache_file *f, struct cache_wait *w);
bool committer_unwait_locked(struct cache_file *f, struct cache_wait *w);
/* The error of a commit that the handle's user was not told yet. */
int committer_unseen_locked(struct cache_handle *h);
/* The same, waiting. 0, what kept the commit, or -EINTR. */
int committer_publish_locked(struct cache_file *f, struct cancel *cancel);

/* handle.c */
struct cache_handle {
    struct cache_file *file;
    uint64_t err_seen;  /* file's lock */
    struct view *view;  /* file's lock: the reader of the base as of the last read */
};
