/* SPDX-License-Identifier: Apache-2.0
 *
 * seal: the content of a file as of one moment, and its record in the journal, which survives this
 * process. A close records a seal; a commit takes one, records it and publishes it. Also the uploads
 * of a file, which the record of a seal may refer to. Nothing here waits for the network.
 */
#pragma once
#include "cache/commit.h"

struct journal_part;
struct journal_upload;

/* Fills in the sealed part of c: pins what is staged now. */
void seal_take_locked(struct commit *c);
void seal_clear(struct commit *c);

/* The journal has what the file is now. */
bool seal_is_recorded_locked(const struct cache_file *f);
/* What is sealed in c was recorded by a close, with the UUID of the request that was to follow: c is that. Once for each record. */
void seal_reuse_locked(struct commit *c);
/* Records it, in place of earlier ones of the file; without effect when there is nothing to commit. Disk. 0 or -errno (logged). */
int seal_record(struct commit *c);
/* What was recorded up to generation gen is in the bucket, or is to be forgotten; so is the upload (NULL: none), which was completed.
 * Disk; no lock held. 0, or -errno (logged): it is still known. */
int seal_forget(struct cache_file *f, uint64_t gen, const char *upload_id);
/* Before that: what is recorded of a later generation, and refers to an upload that is an object now, is recorded anew, over that object.
 * By the commit itself. As above. */
int seal_renew(struct cache_file *f, uint64_t gen, const char *upload_id);

/* Brings the staged bytes of the recorded seal to the disk and marks it as synced; so a seal that takes its place meanwhile. What an older
 * seal refers to is appended to `old` (struct staging_pin*): file_pin_free() it once the journal is on the disk too. Disk; no lock held. 0 or
 * -errno. */
int seal_sync(struct cache_file *f, GPtrArray *old);

/* Before MPU_CREATE is requested, and so that nothing that it makes is ever left behind. Disk. 0 or -errno (logged): no request. */
int seal_upload_intended(struct cache_file *f, const char *bucket, const char *key, const char *uuid);
/* What came of it, for the u that was intended (u->file and u->id are filled in here). Disk. 0: the upload is recorded; -errno: there
 * is none, or it could not be recorded (logged), and is ended in the background. */
int seal_upload_created(struct cache_file *f, struct journal_upload *u, const struct store_result *res);
/* Records a draft of the file, if it has unsealed bytes. What the draft refers to is not kept for it: pins would take room from who writes.
 * Disk, no lock held. */
void seal_draft(struct cache_file *f);

/* An upload of the file was created (u->file is filled in here). Disk. Failures are logged: nobody would end it after a crash. */
void seal_upload(struct cache_file *f, struct journal_upload *u);
/* Parts of it. 0 or -errno (logged). */
int seal_upload_parts(struct cache_file *f, const char *upload_id, const struct journal_part *parts, size_t n);
/* It was completed or aborted. */
void seal_upload_ended(struct cache_file *f, const char *upload_id);
