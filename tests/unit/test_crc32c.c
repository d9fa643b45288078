/* SPDX-License-Identifier: Apache-2.0
 *
 * base/crc32c against the vectors of RFC 3720, and its shortcuts against the long way.
 */
#include <glib.h>
#include <string.h>

#include "base/crc32c.h"
#include "tests/lib/seed.h"

/* RFC 3720, B.4 (its bytes are in the order of the wire), and the usual check value. */
static void test_vectors(void)
{
    static const uint8_t pdu[48] = {0x01, 0xc0, 0, 0, 0, 0, 0, 0, 0,    0, 0, 0,    0, 0, 0, 0,
                                    0x14, 0,    0, 0, 0, 0, 4, 0, 0,    0, 0, 0x14, 0, 0, 0, 0x18,
                                    0x28, 0,    0, 0, 0, 0, 0, 0, 0x02, 0, 0, 0,    0, 0, 0, 0};
    uint8_t buf[32];
    memset(buf, 0, sizeof(buf));
    g_assert_cmphex(crc32c(0, buf, 32), ==, 0x8a9136aa);
    memset(buf, 0xff, sizeof(buf));
    g_assert_cmphex(crc32c(0, buf, 32), ==, 0x62a8ab43);
    for (unsigned i = 0; i < 32; i++)
        buf[i] = (uint8_t)i;
    g_assert_cmphex(crc32c(0, buf, 32), ==, 0x46dd794e);
    for (unsigned i = 0; i < 32; i++)
        buf[i] = (uint8_t)(31 - i);
    g_assert_cmphex(crc32c(0, buf, 32), ==, 0x113fdb5c);
    g_assert_cmphex(crc32c(0, pdu, sizeof(pdu)), ==, 0xd9963a56);
    g_assert_cmphex(crc32c(0, "123456789", 9), ==, 0xe3069283);
    g_assert_cmphex(crc32c(0, NULL, 0), ==, 0);
}

/* In pieces, combined from pieces, over runs of zeros: always the same. */
static void test_pieces(void)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed((guint32)test_seed());
    g_autofree uint8_t *buf = g_malloc0(300000);
    for (size_t i = 0; i < 300000; i++)
        buf[i] = (uint8_t)g_rand_int(rand);
    for (int i = 0; i < 2000; i++) {
        size_t n = (size_t)g_rand_int_range(rand, 0, i % 2 ? 300000 : 100);
        size_t k = (size_t)g_rand_int_range(rand, 0, (gint32)n + 1);
        uint32_t a = crc32c(0, buf, k), b = crc32c(0, buf + k, n - k), all = crc32c(0, buf, n);
        g_assert_cmphex(crc32c(a, buf + k, n - k), ==, all);
        g_assert_cmphex(crc32c_combine(a, b, n - k), ==, all);
    }
    for (size_t n = 0; n < 300000; n = n * 3 / 2 + 1) {
        g_autofree uint8_t *zeros = g_malloc0(n + 1);
        uint32_t a = crc32c(0, buf, 77);
        g_assert_cmphex(crc32c_zeros(a, n), ==, crc32c(a, zeros, n));
        g_assert_cmphex(crc32c_zeros(0, n), ==, crc32c(0, zeros, n));
    }
}

/* Lengths that no buffer has: a run in two halves is one run. */
static void test_long(void)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed((guint32)test_seed());
    for (int i = 0; i < 1000; i++) {
        uint64_t n =
            ((uint64_t)g_rand_int(rand) << 32 | g_rand_int(rand)) >> g_rand_int_range(rand, 1, 40);
        uint64_t k = n / 3;
        uint32_t a = g_rand_int(rand);
        g_assert_cmphex(crc32c_zeros(crc32c_zeros(a, k), n - k), ==, crc32c_zeros(a, n));
        g_assert_cmphex(crc32c_combine(a, crc32c_zeros(0, n), n), ==, crc32c_zeros(a, n));
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/crc32c/vectors", test_vectors);
    g_test_add_func("/crc32c/pieces", test_pieces);
    g_test_add_func("/crc32c/long", test_long);
    return g_test_run();
}
