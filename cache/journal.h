/* SPDX-License-Identifier: Apache-2.0
 *
 * journal: the durable record of what was sealed and is not yet in the bucket. An instance is one
 * mount's: a directory with a lock (flock), a database, and the staging files that its records
 * refer to. It outlives a mount that was killed, and is adopted by the next one of its bucket.
 *
 * A seal says what is to become the object of a key: where its bytes are, its headers, the version
 * it replaces, and the UUIDs by which the object is known as ours if the request's reply was lost.
 * An upload is a multipart upload of ours that was not completed or aborted yet. An intent is one
 * whose creation was about to be requested, and whose id is not known: not yet, or (lost) never.
 *
 * A record that was written survives the process; power is another matter: the last ones may be
 * missing, and what a seal refers to may not have reached the disk, or may be gone though it is
 * still here. So a seal is marked as synced once its bytes are on the disk, and the last one that was
 * stays beside a newer one that is not. After another start of the machine CRCs decide between them.
 *
 * A draft says what an open file was at some moment between two seals: nobody was told that it is
 * kept, so it never becomes an object, but is offered to the user after a crash (recovered.h).
 *
 * Thread-safe. Every function blocks on the disk; none waits for the network. Errors are 0 or
 * -errno (-ENOSPC, -EIO, -EUCLEAN: the database is damaged), not logged unless said.
 */
#pragma once
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include "s3/store.h"

struct extents;
struct journal;

/* A part of an upload: its place in the content, and its ETag, NULL while its bytes are not there. */
struct journal_part {
    unsigned number;
    uint64_t off, len;
    const char *etag;
    struct store_checksum checksum;
};

struct journal_upload {
    uint64_t file; /* whose it is */
    const char *bucket, *key, *id;
    char uuid[37]; /* that its object will carry */
    bool with_checksums; /* it was created so (s3/store.h) */
    bool damaged;        /* loaded: its headers cannot be read, so that nothing can be added to it */
    struct store_headers headers;
    GPtrArray *parts; /* struct journal_part*, ascending without gap from part 1; of a seal, or loaded */
};

struct journal_attempt;

struct journal_seal {
    uint64_t file;    /* one seal a file */
    uint64_t staging; /* journal_staging_path()'s number; 0: no byte is staged */
    uint64_t gen;     /* rises with every seal of the file */
    uint64_t staged_end; /* what is staged below it is of this seal or an earlier one */
    char *bucket, *key;
    char *expect; /* ETag of the version it replaces; NULL: none; "*": any */
    bool has_base; /* BASE in the map is of this version */
    char *base_bucket, *base_key;
    struct store_object base; /* etag, size, mtime, headers */
    struct extents *map;
    GArray *sums; /* struct sum: of all STAGED in map; loaded: in order of their offsets */
    struct store_headers headers;
    bool data_dirty, headers_dirty, moved;
    bool synced;   /* loaded: what it refers to was on the disk when it was marked so */
    char uuid[37]; /* of the object, if it is not made by an upload; "": no request goes with the seal */
    const struct journal_upload *upload; /* that has parts of it, or NULL. To record it, uuid and headers, and id (or NULL) and parts
                                          * will do; in loaded seals it is one of the uploads */
    int64_t taken_ns;                    /* of a draft: real time */
    GPtrArray *earlier; /* to record it: struct journal_attempt*, what was requested before and may yet turn out; NULL: none */
};

/* What a request for a file may have left in the bucket: as in cache/outcome.c. */
struct journal_attempt {
    uint64_t file, gen, staged_end, size;
    char *bucket, *key;
    char uuid[37];
    bool data_dirty;
    struct store_headers headers;
};

struct journal_intent {
    uint64_t file;
    char *bucket, *key;
    char uuid[37];   /* of the upload, had it been recorded */
    int64_t time_ns; /* real: the creation was requested after it */
    int64_t lost_ns; /* real: it was given up, and may yet have an effect; 0: it is on its way */
};

struct journal_content {
    GPtrArray *seals;    /* struct journal_seal*; of a file the newest, and after it, if there is an older one, the last that was synced */
    GPtrArray *damaged;  /* struct journal_seal*: those that cannot be read, of which only file, staging, bucket and key are told, and the others
                          * of their files. They, their staged bytes and their uploads are to stay as they are */
    GPtrArray *drafts;   /* struct journal_seal*, of which only file, staging, gen, bucket, key, base, map, sums and taken_ns are told */
    GPtrArray *uploads;  /* struct journal_upload* */
    GPtrArray *attempts; /* struct journal_attempt*, those of a file in the order of their seals */
};

/* A new instance below dir (exists), for a mount of bucket (NULL: of all buckets). */
int journal_new(const char *dir, const char *bucket, struct journal **ret);
/* Opens every instance below dir that nobody holds and that was a mount of this bucket (NULL: of
 * any), and holds it. Empty ones are removed. Damaged ones are logged and left where they are.
 * *ret: struct journal*, the caller frees each. */
int journal_adopt(const char *dir, const char *bucket, GPtrArray **ret);
/* Adds what instances below dir have sealed for mounts of this bucket (NULL: of any), as "INSTANCE/FILE/GENERATION" → "BUCKET/KEY" (g_malloc):
 * to `held` where a process holds the instance, else to `left`. Disk. 0 or -errno. */
int journal_list_seals(const char *dir, const char *bucket, GHashTable *held, GHashTable *left);
void journal_free(struct journal *j);

const char *journal_dir(const struct journal *j);
/* All that was ever recorded was so since this machine started: what it refers to is there. */
bool journal_is_of_this_boot(const struct journal *j);
/* A number that no file or staging file of this instance has had. Never 0. Does not block. */
uint64_t journal_number(struct journal *j);
/* A name for this content of the file that no other content has, also none of other instances. g_free. */
char *journal_record_id(const struct journal *j, uint64_t file, uint64_t gen, int64_t taken_ns);
char *journal_staging_path(const struct journal *j, uint64_t staging); /* g_free */

/* Records a seal, in place of the file's last one and of a draft that is not newer, and (uuid is not "") what its request may leave in
 * the bucket, in place of all but the earlier ones. The parts are those of its upload, and no others. At once, or not at all. */
int journal_seal(struct journal *j, const struct journal_seal *s);
/* The file's seal, of this generation, refers to what is on the disk: it takes the place of the last one marked so. Else it has no effect. */
int journal_mark_synced(struct journal *j, uint64_t file, uint64_t gen);
/* All that is recorded is on the disk: waits for that. */
int journal_sync(struct journal *j);
/* Records a draft, in place of the file's last one. What it refers to may go without its leave: its sums tell. */
int journal_draft(struct journal *j, const struct journal_seal *s);
/* The file's draft, if it is not of a later generation than gen, is of no use any more. */
int journal_undraft(struct journal *j, uint64_t file, uint64_t gen);
/* journal_seal() without the seal: a newer one is there. */
int journal_attempt(struct journal *j, const struct journal_seal *s);
/* The file's content (0: no file's) is in the bucket, or is to be forgotten: so are its seal and attempts. The upload (NULL: none)
 * was completed. */
int journal_forget(struct journal *j, uint64_t file, const char *upload_id);
/* Before a creation is requested: records that an upload of this uuid may be there from now on. */
int journal_intent(struct journal *j, const struct journal_intent *i);
/* It had no effect, or what it may have had is dealt with. */
int journal_intent_ended(struct journal *j, const char *uuid);
/* Nobody waits any more for what came of it (uuid NULL: of any). Those that were lost before stay as they are. */
int journal_intent_lost(struct journal *j, const char *uuid);
/* *ret: struct journal_intent*, those that are lost. Caller unrefs. */
int journal_lost(struct journal *j, GPtrArray **ret);
/* The ids of the uploads of this key that any instance below dir knows, whoever holds it: char*, caller unrefs. -EAGAIN: an upload
 * of it is being created, by us or another process. */
int journal_known_uploads(const char *dir, const char *bucket, const char *key, GHashTable **ret);
/* The upload of an intent was created: records it in its place. doubtful: the intent stays as well, lost, since it may have made
 * another one. */
int journal_upload(struct journal *j, const struct journal_upload *u, bool doubtful);
/* Records parts of an upload, in place of those with the same numbers. */
int journal_parts(struct journal *j, const char *upload_id, const struct journal_part *parts, size_t n);
/* The upload was completed, or aborted. */
int journal_upload_ended(struct journal *j, const char *upload_id);

GPtrArray *journal_parts_new(void);                    /* of struct journal_part*, which it frees */
void journal_upload_clear(struct journal_upload *u);   /* frees what it holds, not u */
GPtrArray *journal_attempts_new(void);                 /* of struct journal_attempt*, which it frees */
/* All that is recorded. 0 or -errno: nothing of it can be read; free with journal_content_free(). */
int journal_load(struct journal *j, struct journal_content **ret);
void journal_content_free(struct journal_content *c);

static inline void journal_contentp_free(struct journal_content **c)
{
    journal_content_free(*c);
}
#define _cleanup_journal_content_ __attribute__((cleanup(journal_contentp_free)))
