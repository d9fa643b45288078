/* SPDX-License-Identifier: Apache-2.0
 *
 * cache: the data of files, as the file system sees it. A cache_file is the content of one inode:
 * a committed object version (its base), and what has been written since. It is read and written
 * at any offset through handles; flush publishes it in the bucket as one new object version.
 *
 *   write   appends to staging, and the interval map points there; never touches the base
 *   flush   seals the file as of this moment and commits it: one PUT, a multipart upload (whose
 *           full parts may have gone up while the file was written), or a COPY
 *   commit  is conditional on `expect`: the ETag that the key has, as far as we know, or its absence
 *
 * One commit at a time per file. What a close or fsync has sealed survives the process (journal.h);
 * of what was written after it, the drafts do (draft.h).
 *
 * Thread-safe. Functions that take a cancel may block, and return -EINTR when it fires.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>
#include "s3/store.h"

struct cancel;
struct cache;
struct cache_file;
struct cache_handle;

/* What a commit of written data does that meets someone else's version. */
enum cache_conflict {
    CACHE_CONFLICT_FAIL,      /* -ESTALE; it stays staged */
    CACHE_CONFLICT_KEEP_BOTH, /* theirs stays, ours is stored beside it, and the file is that object from then on */
    CACHE_CONFLICT_OVERWRITE, /* ours replaces theirs */
};

struct cache_params {
    struct store *store;      /* borrowed, outlives the cache */
    const char *dir;          /* of the journals (cache/journal.h), and their staging files; exists; copied */
    const char *recovered;    /* directory for what was not sealed (cache/recovered.h), made when needed; NULL: not kept; copied */
    const char *origin;       /* the server, for people who look there; copied */
    uint64_t draft_ns;        /* so long a file is written to before the journal has a draft of it; 0 = 1 s */
    const char *bucket;       /* whose journals are adopted; NULL: of all; copied */
    uint64_t memory;          /* ceiling for block cache and buffers, bytes */
    uint64_t disk;            /* ceiling for staging, bytes */
    unsigned uploads;         /* parts and big PUTs in flight at most, and sixteen times as many small ones; 0 = 16 */
    uint64_t part_size;       /* first parts' size, bytes; 0 = see cache/plan.h's schedule */
    uint64_t holes_max;       /* most bytes of a file that nobody wrote, which an object has as zeros: a commit of more fails with EFBIG; 0: no limit */
    uint64_t local_sync_ns;   /* so long what was sealed may not be on the disk; 0 = 5 s */
    uint64_t untagged_ttl_ns; /* so long it is believed that an object has no tags; after that a commit that replaces it asks */
    uint64_t settle_ns;       /* so long a request that was given up may still have an effect; 0 = 30 s */
    /* After a commit made `now` the file's base, before flush returns. same_content: only headers or key changed.
     * owner is the file's. No lock held. */
    void (*committed)(void *owner, const struct store_object *now, bool same_content);
    /* The last two fail like the first where ours needs bytes of the version that is gone, and for the name of a rename
     * (cache_file_stay()). Where the object was removed, both store ours under its name. */
    enum cache_conflict on_conflict;
    /* A commit stored the file at key, beside the one it was to have, which is someone else's: before committed() of it. No lock held;
     * may be NULL. */
    void (*parted)(void *owner, const char *bucket, const char *key);
};

int cache_new(const struct cache_params *p, struct cache **ret); /* -errno, logged */
void cache_free(struct cache *c);                                 /* no file is left */

/* Takes over what earlier mounts sealed and did not bring into the bucket. For each file, which is dirty and which nobody else knows
 * yet: adopted() returns whether it took the reference; if not, it is committed in the background. Uploads that belong to nothing
 * are aborted there, also those whose creation was not answered (cache/sweep.h). What was written and not sealed goes to
 * `recovered`; of each such file a line is logged. Blocks on the disk, not on the network; once, before the files are used. */
int cache_adopt(struct cache *c, bool (*adopted)(void *ctx, struct cache_file *f), void *ctx); /* -errno, logged */
/* What other caches in dir have sealed for this bucket (NULL: any) and not brought there, as a set of records (char*, in no form that means
 * anything) → "BUCKET/KEY" (char*): those of processes that run go to `held`, of ended ones to `left`. Disk. 0 or -errno. */
int cache_list_sealed(const char *dir, const char *bucket, GHashTable *held, GHashTable *left);
/* How many files' bytes it could not take over, and has put into `recovered`: unsealed ones, and sealed ones that cannot be read. */
unsigned cache_parked(const struct cache *c);

/* Brings what was sealed to the disk now, so that it survives a power cut too: of f, or (NULL) of all. Blocks on the disk. 0 or -errno, logged. */
int cache_sync_local(struct cache *c, struct cache_file *f);

struct cache_stats {
    uint64_t staged;       /* bytes on disk */
    uint64_t dirty_files;  /* files with uncommitted changes */
    uint64_t sealed_files; /* files that the journal knows: a kill loses nothing of them */
    uint64_t unsynced_files; /* of these, a power cut would take the last seal */
    uint64_t drafted_files; /* files of which it has a draft: a kill leaves what they had then in `recovered` */
    uint64_t uploading;    /* bytes of the commits and streams under way that are not yet in the bucket */
    uint64_t commits, commit_errors;
    uint64_t conflicts; /* files that were stored beside someone else's */
    uint64_t read_hits, read_misses, bytes_fetched;
};
void cache_get_stats(struct cache *c, struct cache_stats *ret);
struct workq *cache_deliver(struct cache *c); /* where parked operations complete; for the caller's own asynchronous work */

/* ---- files ---- */

/* A file at bucket/key. base: the committed version, NULL for a new file, which is dirty from the start (an
 * empty file is an object too). All is copied. owner comes back in committed(), which is not called for NULL. Refcounted, starts at 1. */
struct cache_file *cache_file_new(struct cache *c, const char *bucket, const char *key, const struct store_object *base, void *owner);
struct cache_file *cache_file_ref(struct cache_file *f);
/* The last unref drops what is uncommitted (and aborts its multipart upload, in the background), unless it is kept. */
void cache_file_unref(struct cache_file *f);
/* The mount ends: seals what is uncommitted, so that the next one of this bucket brings it there. Waits for a commit under way.
 * 0, also when nothing is dirty, or -errno: nothing can be kept. Nobody writes any more. */
int cache_file_keep(struct cache_file *f);
/* Copies the content as it is now to `recovered` (cache/recovered.h), where `mlopsfs recover` finds it; why: RECOVERED_CONFLICT, …. The
 * file stays as it is. Blocks on the disk. 0, or -errno (logged); -EOPNOTSUPP: there is no `recovered`. */
int cache_file_park(struct cache_file *f, const char *why);
/* Where its next commit goes, and the version that it replaces there: its ETag, NULL when there is none or it does not matter.
 * g_free them. */
void cache_file_target(struct cache_file *f, char **ret_bucket, char **ret_key, char **ret_etag);
/* The headers of its next commit. Copied. */
void cache_file_headers(struct cache_file *f, struct store_headers *ret);
/* Who gets committed() from now on. */
void cache_file_set_owner(struct cache_file *f, void *owner);

uint64_t cache_file_size(struct cache_file *f);
bool cache_file_dirty(struct cache_file *f);      /* data, headers or key not yet committed */
bool cache_file_data_dirty(struct cache_file *f); /* data not yet committed */
bool cache_file_conflicts(struct cache_file *f);  /* a commit met someone else's version, and none has succeeded since */
bool cache_file_failed(struct cache_file *f);     /* its last commit failed, and nothing was written since */
enum cache_state {
    CACHE_CLEAN,     /* all of it is in the bucket */
    CACHE_DIRTY,     /* some is not */
    CACHE_UPLOADING, /* nor yet, and it is on its way: a commit, or a stream of what is still written */
    CACHE_FAILED,    /* nor, by the last commit; nothing was written since, and none is under way */
};
struct cache_file_state {
    enum cache_state state;
    uint64_t done, total; /* UPLOADING: bytes of the file that the bucket has of the new version, and its size */
    int err;              /* FAILED: -errno; -ESTALE: it met someone else's version, or its base is gone */
};
void cache_file_get_state(struct cache_file *f, struct cache_file_state *ret);
/* Object headers (POSIX attributes among the user metadata) that the next commit writes. Copied. Marks the file dirty, unless they
 * are what the base has. */
void cache_file_set_headers(struct cache_file *f, const struct store_headers *h);
/* The same, as long as it costs nothing: ignored when a multipart upload has fixed the headers already (its creation did), unless
 * headers set since then will be written anyway. Never marks the file dirty. For times that only follow from writing. */
void cache_file_suggest_headers(struct cache_file *f, const struct store_headers *h);
/* Someone else gave the base other headers on the same bytes: they are the base's now, and the next commit starts from them, but for headers
 * set here and not committed yet. Ignored when `now` is not the base's version, and while a commit is on its way, whose result is newer. True: the
 * headers were others indeed. */
bool cache_file_renew_headers(struct cache_file *f, const struct store_object *now);
/* Grows (with zeros) or shrinks. 0, -EFBIG, -EINTR, -ENOSPC, -EIO. Shrinking to 0 forgets the base's bytes without reading them. */
int cache_file_truncate(struct cache_file *f, uint64_t size, struct cancel *cancel);
/* Empties the file, and if a commit of it has met someone else's version, lets the next one replace that, whatever it is. Waits for a commit
 * that is under way. Else as above; -errno: nothing has changed. */
int cache_file_replace(struct cache_file *f, struct cancel *cancel);
/* Whether the file's next commit, and its base if it has one, are at bucket/key. */
bool cache_file_is_at(struct cache_file *f, const char *bucket, const char *key);
/* The file's next commit goes to bucket/key, whose present version is expect (NULL: absent; "*": whatever is there).
 * Waits for a commit under way. The content stays (a clean file's next commit is a COPY of its base at the old key);
 * the old key is not deleted here. */
int cache_file_retarget(struct cache_file *f, const char *bucket, const char *key, const char *expect, struct cancel *cancel);
/* Until it is told otherwise, a commit that meets someone else's version fails: the file must get this name or none. With `stays`
 * waits for a commit under way, after which the file may be at another key. */
void cache_file_stay(struct cache_file *f, bool stays);
/* The object was copied by someone else of ours (a directory rename): base and target become bucket/key with `now`, if the file is clean, no
 * commit is under way, and its base is the version from_etag that was copied; else -EAGAIN, and nothing is changed: retarget and flush it. */
int cache_file_rebase(struct cache_file *f, const char *from_etag, const char *bucket, const char *key, const struct store_object *now);
/* The object's tags are to be changed by requests of the caller's, which a commit under way would undo. Waits for that; *ret_begun goes to
 * cache_file_tags_end(). 0 or -EINTR. */
int cache_file_tags_begin(struct cache_file *f, struct cancel *cancel, uint64_t *ret_begun);
/* They were changed. False: a commit began meanwhile, and may have read them before: change them again. */
bool cache_file_tags_end(struct cache_file *f, uint64_t begun);
/* The name is gone: commits become no-ops that succeed, forever. With fetch_base the base's bytes that are
 * still needed are first brought into staging, so that open handles go on reading after the object is deleted. Waits for a commit under way.
 * What is sealed stays so until cache_file_bury(). */
int cache_file_orphan(struct cache_file *f, bool fetch_base, struct cancel *cancel);
/* After that, and once the object is deleted or another has its name: no replay brings it back. Disk. 0, or -errno: one may. */
int cache_file_bury(struct cache_file *f);
/* Throws away what was written and is not in the bucket: staged bytes, the journal's record, an upload of it. Waits for a commit under
 * way, which may yet bring it there. The file is of no use after that: its handles read, write and flush -ESTALE (the last once each),
 * and who wants the bucket's version makes another. 0; -ENODATA: nothing was uncommitted, and nothing is changed; -EINTR; -errno of the journal: as before. */
int cache_file_discard(struct cache_file *f, struct cancel *cancel);
/* The name stayed after all: what was uncommitted is so again. */
void cache_file_unorphan(struct cache_file *f);

/* ---- handles ---- */

/* One open file description. Holds a reference on the file. */
struct cache_handle *cache_handle_new(struct cache_file *f);
void cache_handle_free(struct cache_handle *h); /* no operation of it is under way */

struct cache_read {
    uint64_t off;
    size_t len; /* at most 4 MiB */
    /* Exactly once, inline or on the deliver queue; iov is valid until it returns; short only at the end of file. */
    void (*done)(struct cache_read *r, int err, const struct iovec *iov, int n_iov);
    void *ctx;
    void *layer; /* private */
};
void cache_read(struct cache_handle *h, struct cache_read *r);        /* never blocks on the network */
void cache_read_cancel(struct cache_handle *h, struct cache_read *r); /* done follows soon, with -EINTR; the caller guarantees it has not returned yet */

/* Blocks until len bytes at off (fewer only at the end of file) are in buf: their number or -errno. */
ssize_t cache_pread(struct cache_handle *h, void *buf, size_t len, uint64_t off, struct cancel *cancel);
/* Writes n bytes at off, or at the end with append (atomically). Blocks only while staging is full and commits or streams
 * under way will free some. Writes all: 0, or -EFBIG, -ENOSPC, -EIO, -EINTR (nothing written). */
int cache_write(struct cache_handle *h, const void *buf, size_t n, uint64_t off, bool append, struct cancel *cancel);

struct cache_wait {
    /* Exactly once unless cancelled; inline (when nothing is dirty) or on the deliver queue. err: what kept the
     * file, or an earlier commit of it, from the bucket; each handle learns of an error once. */
    void (*done)(struct cache_wait *w, int err);
    void *ctx;
    void *layer; /* private */
};
/* Seals and commits what is dirty now; done when the bucket has it. Close and fsync both call it. */
void cache_flush(struct cache_handle *h, struct cache_wait *w);
/* Seals what is dirty in the journal: on return it survives this process, and the next commit or the next mount brings it
 * into the bucket. Blocks on the disk; where bytes are in an unfinished upload only, also until a commit under way has ended.
 * 0, -EINTR, -ENOSPC, -EIO, or what kept an earlier commit from the bucket, once for each handle. */
int cache_seal(struct cache_handle *h, struct cancel *cancel);
/* The same without a handle, which is told of no earlier error. */
int cache_file_seal(struct cache_file *f, struct cancel *cancel);
/* As cache_seal(), and the sealed bytes and their record are on the disk: they survive a power cut too. What is in the bucket by then need
 * not be. */
int cache_seal_synced(struct cache_handle *h, struct cancel *cancel);
/* Stops waiting (the commit goes on): true and done never runs, or false and done has run or is about to. */
bool cache_flush_cancel(struct cache_handle *h, struct cache_wait *w);
/* cache_flush() and its cancelling without a handle: of no earlier error is told. False: there is nothing to commit, and done does not run. With
 * `sealed`, what somebody who has it open for writing has not sealed yet is no business of this commit: -EBUSY, unless others ask for it. */
bool cache_file_flush_start(struct cache_file *f, bool sealed, struct cache_wait *w);
/* One more, or one less, has it open for writing. */
void cache_file_writer(struct cache_file *f, bool more);
bool cache_file_flush_cancel(struct cache_file *f, struct cache_wait *w);
/* The same, synchronously. -EINTR when cancelled (the commit goes on). */
int cache_file_flush(struct cache_file *f, struct cancel *cancel);
