/* SPDX-License-Identifier: Apache-2.0
 *
 * keep: what a commit keeps of its base beside bytes and headers: tags and storage class. A COPY
 * keeps the tags by itself; a PUT or an upload is given them, so they are read first, unless the
 * server has told lately that there are none.
 */
#pragma once
#include "cache/commit.h"

/* Before the plan is carried out: reads what it must carry. 0, or -errno when the tags could not be
 * read and may be there. Blocks on the network. */
int keep_find(struct commit *c);
/* Enters it into a PUT, COPY or MPU_CREATE. */
void keep_in(const struct commit *c, struct store_request *req);
/* The object is there: what is known of it. */
void keep_result(struct commit *c);
/* After it: tags that were changed since the stream's upload was created. Blocks on the network. */
void keep_late(struct commit *c);

/* Whether a version of an object in the bucket may have tags that must be read. */
bool keep_asks(struct cache *c, const char *bucket, bool head_tags, uint64_t untagged_ns);
/* What a TAGS_GET came to. 0 and *ret_tags (NULL: none, or the bucket does not let us see them),
 * or -errno. */
int keep_tags(struct cache *c, struct store_request *req, GHashTable **ret_tags);
