/* SPDX-License-Identifier: Apache-2.0
 *
 * sigv4 against what AWS publishes: cases of the Signature Version 4 test suite (the header-auth
 * ones that do not rely on path normalization, which S3 does not do), and the worked examples of
 * the S3 API reference, "Signature Calculations for the Authorization Header".
 */
#include "s3/sigv4.h"

#include <stdio.h>
#include <string.h>

#define MAX_PAIRS 6

struct vector {
    const char *name, *method, *path; /* path: unencoded */
    struct sigv4_pair params[MAX_PAIRS];
    struct sigv4_pair headers[MAX_PAIRS];
    const char *body;
    const char *canonical_query; /* NULL = not looked at */
    const char *signed_headers;
    const char *signature;
};

#define HOST                                                                                       \
    {                                                                                              \
        "Host", "example.amazonaws.com"                                                            \
    }
#define DATE                                                                                       \
    {                                                                                              \
        "X-Amz-Date", "20150830T123600Z"                                                           \
    }
#define UNRESERVED "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

static const struct vector suite[] = {
    {"get-vanilla",
     "GET",
     "/",
     {},
     {HOST, DATE},
     "",
     "",
     "host;x-amz-date",
     "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},
    {"get-vanilla-query-order-key-case",
     "GET",
     "/",
     {{"Param2", "value2"}, {"Param1", "value1"}},
     {DATE, HOST},
     "",
     "Param1=value1&Param2=value2",
     "host;x-amz-date",
     "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"},
    {"get-vanilla-empty-query-key",
     "GET",
     "/",
     {{"Param1", "value1"}},
     {HOST, DATE},
     "",
     "Param1=value1",
     "host;x-amz-date",
     "a67d582fa61cc504c4bae71f336f98b97f1ea3c7a6bfe1b6e45aec72011b9aeb"},
    {"get-vanilla-query-order-key",
     "GET",
     "/",
     {{"Param1", "value2"}, {"Param1", "Value1"}},
     {HOST, DATE},
     "",
     "Param1=Value1&Param1=value2",
     "host;x-amz-date",
     "eedbc4e291e521cf13422ffca22be7d2eb8146eecf653089df300a15b2382bd1"},
    {"get-vanilla-query-unreserved",
     "GET",
     "/",
     {{UNRESERVED, UNRESERVED}},
     {HOST, DATE},
     "",
     UNRESERVED "=" UNRESERVED,
     "host;x-amz-date",
     "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197"},
    {"get-vanilla-utf8-query",
     "GET",
     "/",
     {{"\xe1\x88\xb4", "bar"}},
     {HOST, DATE},
     "",
     "%E1%88%B4=bar",
     "host;x-amz-date",
     "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04"},
    {"get-unreserved",
     "GET",
     "/" UNRESERVED,
     {},
     {HOST, DATE},
     "",
     "",
     "host;x-amz-date",
     "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f"},
    {"get-utf8",
     "GET",
     "/\xe1\x88\xb4",
     {},
     {HOST, DATE},
     "",
     "",
     "host;x-amz-date",
     "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85"},
    {"get-space",
     "GET",
     "/example space/",
     {},
     {HOST, DATE},
     "",
     "",
     "host;x-amz-date",
     "652487583200325589f1fba4c7e578f72c47cb61beeca81406b39ddec1366741"},
    {"get-header-key-duplicate",
     "GET",
     "/",
     {},
     {HOST, {"My-Header1", "value2"}, {"My-Header1", "value2"}, {"My-Header1", "value1"}, DATE},
     "",
     "",
     "host;my-header1;x-amz-date",
     "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea"},
    {"get-header-value-order",
     "GET",
     "/",
     {},
     {HOST,
      {"My-Header1", "value4"},
      {"My-Header1", "value1"},
      {"My-Header1", "value3"},
      {"My-Header1", "value2"},
      DATE},
     "",
     "",
     "host;my-header1;x-amz-date",
     "08c7e5a9acfcfeb3ab6b2185e75ce8b1deb5e634ec47601a50643f830c755c01"},
    {"get-header-value-trim",
     "GET",
     "/",
     {},
     {HOST, {"My-Header1", " value1"}, {"My-Header2", " \"a   b   c\""}, DATE},
     "",
     "",
     "host;my-header1;my-header2;x-amz-date",
     "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736"},
    {"post-vanilla",
     "POST",
     "/",
     {},
     {HOST, DATE},
     "",
     "",
     "host;x-amz-date",
     "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"},
    {"post-vanilla-query",
     "POST",
     "/",
     {{"Param1", "value1"}},
     {HOST, DATE},
     "",
     "Param1=value1",
     "host;x-amz-date",
     "28038455d6de14eafc1f9222cf5aa6f1a96197d7deb8263271d420d138af7f11"},
    {"post-header-key-sort",
     "POST",
     "/",
     {},
     {HOST, {"My-Header1", "value1"}, DATE},
     "",
     "",
     "host;my-header1;x-amz-date",
     "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c"},
    {"post-header-value-case",
     "POST",
     "/",
     {},
     {HOST, {"My-Header1", "VALUE1"}, DATE},
     "",
     "",
     "host;my-header1;x-amz-date",
     "cdbc9802e29d2942e5e10b5bccfdd67c5f22c7c4e8ae67b53629efa58b974b7d"},
    {"post-sts-header-before",
     "POST",
     "/",
     {},
     {HOST,
      DATE,
      {"X-Amz-Security-Token",
       "AQoDYXdzEPT//////////"
       "wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8"
       "YUuwthAx7mSEI/qkPpKPi/"
       "kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6"
       "q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+"
       "scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJ"
       "abIQwj2ICCR/oLxBA=="}},
     "",
     "",
     "host;x-amz-date;x-amz-security-token",
     "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead"},
    {"post-x-www-form-urlencoded",
     "POST",
     "/",
     {},
     {{"Content-Type", "application/x-www-form-urlencoded"}, HOST, DATE},
     "Param1=value1",
     "",
     "content-type;host;x-amz-date",
     "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a"},
    {"post-x-www-form-urlencoded-parameters",
     "POST",
     "/",
     {},
     {{"Content-Type", "application/x-www-form-urlencoded; charset=utf8"}, HOST, DATE},
     "Param1=value1",
     "",
     "content-type;host;x-amz-date",
     "1a72ec8f64bd914b0e42e42607c7fbce7fb2c7465f63e3092b3b0d39fa77a6fe"},
};

#undef HOST
#undef DATE
#define HOST                                                                                       \
    {                                                                                              \
        "host", "examplebucket.s3.amazonaws.com"                                                   \
    }
#define DATE                                                                                       \
    {                                                                                              \
        "x-amz-date", "20130524T000000Z"                                                           \
    }
#define EMPTY                                                                                      \
    {                                                                                              \
        "x-amz-content-sha256", SIGV4_EMPTY_SHA256                                                 \
    }

static const struct vector s3_examples[] = {
    {"s3-get-object",
     "GET",
     "/test.txt",
     {},
     {HOST, {"Range", "bytes=0-9"}, EMPTY, DATE},
     "",
     "",
     "host;range;x-amz-content-sha256;x-amz-date",
     "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"},
    {"s3-put-object",
     "PUT",
     "/test$file.text",
     {},
     {HOST,
      {"Date", "Fri, 24 May 2013 00:00:00 GMT"},
      {"x-amz-storage-class", "REDUCED_REDUNDANCY"},
      {"x-amz-content-sha256", "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072"},
      DATE},
     "Welcome to Amazon S3.",
     "",
     "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
     "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"},
    {"s3-get-bucket-lifecycle",
     "GET",
     "/",
     {{"lifecycle", NULL}},
     {HOST, EMPTY, DATE},
     "",
     "lifecycle=",
     "host;x-amz-content-sha256;x-amz-date",
     "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"},
    {"s3-list-objects",
     "GET",
     "/",
     {{"prefix", "J"}, {"max-keys", "2"}},
     {HOST, EMPTY, DATE},
     "",
     "max-keys=2&prefix=J",
     "host;x-amz-content-sha256;x-amz-date",
     "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"},
};

static size_t count_pairs(const struct sigv4_pair *p)
{
    size_t n = 0;
    while (n < MAX_PAIRS && p[n].name != NULL) {
        n++;
    }
    return n;
}

static void check(const struct vector *v, const struct sigv4_input *keys, struct sigv4_key *cache)
{
    char hash[SIGV4_SHA256_HEX_SIZE];
    sigv4_sha256_hex(v->body, strlen(v->body), hash);
    g_autoptr(GString) path = g_string_new(NULL);
    sigv4_encode(path, v->path, strlen(v->path), true);
    g_autofree char *query = sigv4_query(v->params, count_pairs(v->params));

    struct sigv4_input in = *keys;
    in.method = v->method;
    in.path = path->str;
    in.query = query;
    in.headers = v->headers;
    in.n_headers = count_pairs(v->headers);
    in.payload_hash = hash;

    if (v->canonical_query != NULL) {
        g_assert_cmpstr(query, ==, v->canonical_query);
    }
    g_autofree char *names = NULL;
    g_autofree char *canonical = sigv4_canonical(&in, &names);
    g_assert_cmpstr(names, ==, v->signed_headers);
    g_assert_true(g_str_has_suffix(canonical, hash));

    g_autofree char *auth = NULL;
    g_assert_cmpint(sigv4_sign(&in, cache, &auth), ==, 0);
    g_autofree char *want = g_strdup_printf(
        "AWS4-HMAC-SHA256 Credential=%s/%.8s/us-east-1/%s/aws4_request, "
        "SignedHeaders=%s, Signature=%s",
        keys->access_key, keys->time, keys->service, v->signed_headers, v->signature);
    g_assert_cmpstr(auth, ==, want);
}

static const struct sigv4_input suite_keys = {
    .access_key = "AKIDEXAMPLE",
    .secret_key = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
    .region = "us-east-1",
    .service = "service",
    .time = "20150830T123600Z",
};

static const struct sigv4_input s3_keys = {
    .access_key = "AKIAIOSFODNN7EXAMPLE",
    .secret_key = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    .region = "us-east-1",
    .service = "s3",
    .time = "20130524T000000Z",
};

static void test_suite_case(gconstpointer data)
{
    check(data, &suite_keys, NULL);
}

static void test_s3_case(gconstpointer data)
{
    check(data, &s3_keys, NULL);
}

/* The published canonical request of the S3 GET example, byte for byte. */
static void test_canonical(void)
{
    const struct vector *v = &s3_examples[0];
    struct sigv4_input in = s3_keys;
    in.method = v->method;
    in.path = "/test.txt";
    in.query = "";
    in.headers = v->headers;
    in.n_headers = count_pairs(v->headers);
    in.payload_hash = SIGV4_EMPTY_SHA256;
    g_autofree char *names = NULL;
    g_autofree char *canonical = sigv4_canonical(&in, &names);
    g_assert_cmpstr(canonical, ==,
                    "GET\n/test.txt\n\nhost:examplebucket.s3.amazonaws.com\nrange:bytes=0-9\n"
                    "x-amz-content-sha256:" SIGV4_EMPTY_SHA256 "\nx-amz-date:20130524T000000Z\n\n"
                    "host;range;x-amz-content-sha256;x-amz-date\n" SIGV4_EMPTY_SHA256);
    char hash[SIGV4_SHA256_HEX_SIZE];
    sigv4_sha256_hex(canonical, strlen(canonical), hash);
    g_assert_cmpstr(hash, ==, "7344ae5b7ee6c3e7e6b0fe0640412a37625d1fbfff95c48bbb2dc43964946972");
}

/* A key derived for one day, region or service is not used for another. */
static void test_key_cache(void)
{
    struct sigv4_key cache = {.set = false};
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < G_N_ELEMENTS(s3_examples); i++) {
            check(&s3_examples[i], &s3_keys, &cache);
        }
        struct sigv4_input other = s3_keys;
        other.region = "eu-central-1";
        other.method = "GET", other.path = "/", other.query = "",
        other.payload_hash = SIGV4_UNSIGNED;
        g_autofree char *cached = NULL, *fresh = NULL;
        g_assert_cmpint(sigv4_sign(&other, &cache, &cached), ==, 0);
        g_assert_cmpint(sigv4_sign(&other, NULL, &fresh), ==, 0);
        g_assert_cmpstr(cached, ==, fresh);
        other.time = "20130525T000000Z";
        g_autofree char *next_cached = NULL, *next_fresh = NULL;
        g_assert_cmpint(sigv4_sign(&other, &cache, &next_cached), ==, 0);
        g_assert_cmpint(sigv4_sign(&other, NULL, &next_fresh), ==, 0);
        g_assert_cmpstr(next_cached, ==, next_fresh);
        g_assert_cmpstr(next_cached, !=, cached);
    }
    sigv4_key_wipe(&cache);
    g_assert_false(cache.set);
}

static void test_encode(void)
{
    static const struct {
        const char *in, *path, *query;
    } rows[] = {
        {"a/b", "a/b", "a%2Fb"},
        {"a b+c", "a%20b%2Bc", "a%20b%2Bc"},
        {"/..//./", "/..//./", "%2F..%2F%2F.%2F"},
        {"\x01\x7f\xff", "%01%7F%FF", "%01%7F%FF"},
        {"%41", "%2541", "%2541"},
        {"!'()*;:@&=$,?#[]", "%21%27%28%29%2A%3B%3A%40%26%3D%24%2C%3F%23%5B%5D",
         "%21%27%28%29%2A%3B%3A%40%26%3D%24%2C%3F%23%5B%5D"},
    };
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        g_autoptr(GString) p = g_string_new(NULL);
        g_autoptr(GString) q = g_string_new(NULL);
        sigv4_encode(p, rows[i].in, strlen(rows[i].in), true);
        sigv4_encode(q, rows[i].in, strlen(rows[i].in), false);
        g_assert_cmpstr(p->str, ==, rows[i].path);
        g_assert_cmpstr(q->str, ==, rows[i].query);
    }
}

/* Sorted by name first: "a" before "a-b" and "a.b" though '=' sorts above '-' and '.'. */
static void test_query_order(void)
{
    const struct sigv4_pair params[] = {
        {"a-b", "1"}, {"a", "9"}, {"a.b", "2"}, {"uploads", NULL}, {"A", "3"}};
    g_autofree char *q = sigv4_query(params, G_N_ELEMENTS(params));
    g_assert_cmpstr(q, ==, "A=3&a=9&a-b=1&a.b=2&uploads=");
}

static void test_time(void)
{
    char buf[SIGV4_TIME_SIZE];
    sigv4_time(1440938160, buf);
    g_assert_cmpstr(buf, ==, "20150830T123600Z");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(suite); i++) {
        g_autofree char *name = g_strconcat("/sigv4/suite/", suite[i].name, NULL);
        g_test_add_data_func(name, &suite[i], test_suite_case);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(s3_examples); i++) {
        g_autofree char *name = g_strconcat("/sigv4/s3/", s3_examples[i].name, NULL);
        g_test_add_data_func(name, &s3_examples[i], test_s3_case);
    }
    g_test_add_func("/sigv4/canonical", test_canonical);
    g_test_add_func("/sigv4/key-cache", test_key_cache);
    g_test_add_func("/sigv4/encode", test_encode);
    g_test_add_func("/sigv4/query-order", test_query_order);
    g_test_add_func("/sigv4/time", test_time);
    return g_test_run();
}
