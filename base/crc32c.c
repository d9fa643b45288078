/* SPDX-License-Identifier: Apache-2.0
 *
 * crc32c: see crc32c.h. A CRC is a polynomial over GF(2) modulo P = 0x11EDC6F41, here with its bits
 * reversed: bit 31 is x^0. To append n zero bytes is to multiply by x^(8n), done by squares as in
 * zlib's crc32_combine (Mark Adler). ISA-L's function leaves both inversions to its caller.
 */
#include "base/crc32c.h"

#include <isa-l/crc.h>

#define POLYNOMIAL 0x82f63b78U
#define PIECE (1U << 30) /* ISA-L counts in int */
#define SQUARES 31       /* x^(2^31) = x modulo P: from there on they repeat */

/* x^(2^k) modulo P. */
static const uint32_t squares[SQUARES] = {
    0x40000000, 0x20000000, 0x08000000, 0x00800000, 0x00008000, 0x82f63b78, 0x6ea2d55c, 0x18b8ea18,
    0x510ac59a, 0xb82be955, 0xb8fdb1e7, 0x88e56f72, 0x74c360a4, 0xe4172b16, 0x0d65762a, 0x35d73a62,
    0x28461564, 0xbf455269, 0xe2ea32dc, 0xfe7740e6, 0xf946610b, 0x3c204f8f, 0x538586e3, 0x59726915,
    0x734d5309, 0xbc1ac763, 0x7d0722cc, 0xd289cabe, 0xe94ca9bc, 0x05b74f3f, 0xa51e1f42,
};

uint32_t crc32c(uint32_t crc, const void *p, size_t n)
{
    const unsigned char *at = p;
    crc = ~crc;
    while (n > 0) {
        size_t k = n < PIECE ? n : PIECE;
        /* It only reads; older versions do not say so. */
        crc = crc32_iscsi((unsigned char *)(uintptr_t)at, (int)k, crc);
        at += k;
        n -= k;
    }
    return ~crc;
}

static uint32_t multiply(uint32_t a, uint32_t b)
{
    uint32_t product = 0;
    for (; a; a <<= 1) {
        if (a & 0x80000000U)
            product ^= b;
        b = b & 1 ? b >> 1 ^ POLYNOMIAL : b >> 1;
    }
    return product;
}

/* a · x^(8n) */
static uint32_t shift(uint32_t a, uint64_t n)
{
    for (unsigned k = 3; n; n >>= 1, k++) {
        if (n & 1)
            a = multiply(squares[k % SQUARES], a);
    }
    return a;
}

uint32_t crc32c_combine(uint32_t crc_a, uint32_t crc_b, uint64_t len_b)
{
    return shift(crc_a, len_b) ^ crc_b;
}

uint32_t crc32c_zeros(uint32_t crc, uint64_t n)
{
    return ~shift(~crc, n);
}
