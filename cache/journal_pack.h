/* SPDX-License-Identifier: Apache-2.0
 *
 * journal_pack: what a journal's blobs hold, as GVariants: checked as a whole when read, so that
 * damage is -EUCLEAN and never a wrong map. Pure.
 */
#pragma once
#include <glib.h>
#include "cache/journal.h"

GBytes *journal_pack_headers(const struct store_headers *h);
GBytes *journal_pack_map(const struct extents *e);
GBytes *journal_pack_sums(const GArray *sums);
GBytes *journal_pack_base(const struct journal_seal *s);
/* n bytes at data, copied. 0 or -EUCLEAN; on failure *ret is empty. */
int journal_unpack_headers(const void *data, size_t n, struct store_headers *ret);
int journal_unpack_map(const void *data, size_t n, struct extents **ret);
/* Ascending, disjoint, each within one block. */
int journal_unpack_sums(const void *data, size_t n, GArray **ret);
int journal_unpack_base(const void *data, size_t n, struct journal_seal *s);
