/* SPDX-License-Identifier: Apache-2.0
 *
 * crc32c: the CRC-32C of Castagnoli (RFC 3720, appendix B.4), as S3 and iSCSI use it. Pure; any
 * thread. The CRC of no bytes is 0, and crc32c(crc32c(0, a), b) is that of a followed by b.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>

/* Goes on from the CRC of what came before (0 at the start). */
uint32_t crc32c(uint32_t crc, const void *p, size_t n);
/* The CRC of a followed by b, from those of the two and b's length in bytes: O(log len). */
uint32_t crc32c_combine(uint32_t crc_a, uint32_t crc_b, uint64_t len_b);
/* Goes on over n zero bytes: O(log n). */
uint32_t crc32c_zeros(uint32_t crc, uint64_t n);
