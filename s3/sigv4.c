/* SPDX-License-Identifier: Apache-2.0
 *
 * sigv4: see sigv4.h. No state but the caller's key cache; any thread. Secrets and what is derived
 * from them are wiped before the memory is given back.
 */
#include "s3/sigv4.h"

#include <assert.h>
#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <string.h>

static bool is_unreserved(unsigned char c)
{
    return g_ascii_isalnum(c) || c == '-' || c == '.' || c == '_' || c == '~';
}

void sigv4_encode(GString *to, const char *s, size_t n, bool keep_slash)
{
    static const char hex[] = "0123456789ABCDEF";
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        if (is_unreserved(c) || (keep_slash && c == '/')) {
            g_string_append_c(to, (char)c);
        } else {
            const char enc[3] = {'%', hex[c >> 4], hex[c & 15]};
            g_string_append_len(to, enc, 3);
        }
    }
}

static int compare_strings(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Sorted by encoded name, then encoded value. '=' sorts above some unreserved bytes, so pairs are
 * joined by \1 (never part of an encoded string) to be sorted, and by '=' afterwards. */
char *sigv4_query(const struct sigv4_pair *params, size_t n)
{
    g_autoptr(GPtrArray) list = g_ptr_array_new_with_free_func(g_free);
    for (size_t i = 0; i < n; i++) {
        GString *s = g_string_new(NULL);
        const char *value = params[i].value ? params[i].value : "";
        sigv4_encode(s, params[i].name, strlen(params[i].name), false);
        g_string_append_c(s, '\1');
        sigv4_encode(s, value, strlen(value), false);
        g_ptr_array_add(list, g_string_free(s, FALSE));
    }
    g_ptr_array_sort(list, compare_strings);
    GString *out = g_string_new(NULL);
    for (guint i = 0; i < list->len; i++) {
        g_string_append_printf(out, "%s%s", i ? "&" : "", (const char *)list->pdata[i]);
    }
    g_strdelimit(out->str, "\1", '=');
    return g_string_free(out, FALSE);
}

void sigv4_time(time_t t, char buf[static SIGV4_TIME_SIZE])
{
    struct tm tm;
    gmtime_r(&t, &tm);
    size_t n = strftime(buf, SIGV4_TIME_SIZE, "%Y%m%dT%H%M%SZ", &tm);
    assert(n == SIGV4_TIME_SIZE - 1);
    (void)n;
}

static void to_hex(const uint8_t *in, size_t n, char *out)
{
    static const char hex[] = "0123456789abcdef";
    for (size_t i = 0; i < n; i++) {
        out[2 * i] = hex[in[i] >> 4];
        out[2 * i + 1] = hex[in[i] & 15];
    }
    out[2 * n] = '\0';
}

void sigv4_sha256_hex(const void *data, size_t n, char hex[static SIGV4_SHA256_HEX_SIZE])
{
    uint8_t md[32];
    unsigned len = sizeof md;
    if (EVP_Digest(data, n, md, &len, EVP_sha256(), NULL) != 1) {
        memset(md, 0, sizeof md); /* a signature that the server refuses */
    }
    to_hex(md, sizeof md, hex);
}

/* Blanks at the ends go, runs of blanks within become one space. */
static void append_trimmed(GString *to, const char *v)
{
    bool gap = false, any = false;
    for (; *v; v++) {
        if (*v == ' ' || *v == '\t') {
            gap = true;
            continue;
        }
        if (gap && any) {
            g_string_append_c(to, ' ');
        }
        gap = false;
        any = true;
        g_string_append_c(to, *v);
    }
}

struct header {
    char *name; /* lower case */
    const char *value;
    size_t index;
};

static int compare_headers(const void *a, const void *b)
{
    const struct header *x = a, *y = b;
    int r = strcmp(x->name, y->name);
    if (r != 0) {
        return r;
    }
    return x->index < y->index ? -1 : x->index > y->index; /* same name: as sent */
}

char *sigv4_canonical(const struct sigv4_input *in, char **ret_signed_headers)
{
    struct header *h = g_new0(struct header, in->n_headers + 1);
    for (size_t i = 0; i < in->n_headers; i++) {
        h[i] = (struct header){g_ascii_strdown(in->headers[i].name, -1), in->headers[i].value, i};
    }
    qsort(h, in->n_headers, sizeof *h, compare_headers);

    GString *names = g_string_new(NULL);
    GString *out = g_string_new(NULL);
    g_string_append_printf(out, "%s\n%s\n%s\n", in->method, in->path, in->query);
    for (size_t i = 0; i < in->n_headers; i++) {
        bool again = i > 0 && strcmp(h[i].name, h[i - 1].name) == 0;
        if (again) {
            g_string_truncate(out, out->len - 1);
            g_string_append_c(out, ',');
        } else {
            g_string_append_printf(names, "%s%s", i ? ";" : "", h[i].name);
            g_string_append_printf(out, "%s:", h[i].name);
        }
        append_trimmed(out, h[i].value);
        g_string_append_c(out, '\n');
    }
    g_string_append_printf(out, "\n%s\n%s", names->str, in->payload_hash);
    for (size_t i = 0; i < in->n_headers; i++) {
        g_free(h[i].name);
    }
    g_free(h);
    *ret_signed_headers = g_string_free(names, FALSE);
    return g_string_free(out, FALSE);
}

static int hmac(const void *key, size_t n_key, const char *text, uint8_t out[static 32])
{
    unsigned len = 32;
    return HMAC(EVP_sha256(), key, (int)n_key, (const uint8_t *)text, strlen(text), out, &len)
               ? 0
               : -EIO;
}

static bool key_fits(const struct sigv4_key *k, const struct sigv4_input *in)
{
    return k->set && strncmp(k->date, in->time, 8) == 0 && strcmp(k->region, in->region) == 0 &&
           strcmp(k->service, in->service) == 0;
}

static int derive_key(const struct sigv4_input *in, struct sigv4_key *k)
{
    char date[9];
    g_strlcpy(date, in->time, sizeof date);
    g_autofree char *first = g_strconcat("AWS4", in->secret_key, NULL);
    uint8_t tmp[32];
    int r = hmac(first, strlen(first), date, tmp);
    if (r == 0) {
        r = hmac(tmp, sizeof tmp, in->region, k->key);
    }
    if (r == 0) {
        r = hmac(k->key, sizeof k->key, in->service, tmp);
    }
    if (r == 0) {
        r = hmac(tmp, sizeof tmp, "aws4_request", k->key);
    }
    OPENSSL_cleanse(first, strlen(first));
    OPENSSL_cleanse(tmp, sizeof tmp);
    g_strlcpy(k->date, date, sizeof k->date);
    k->set = g_strlcpy(k->region, in->region, sizeof k->region) < sizeof k->region &&
             g_strlcpy(k->service, in->service, sizeof k->service) < sizeof k->service;
    return r;
}

int sigv4_sign(const struct sigv4_input *in, struct sigv4_key *cache, char **ret_authorization)
{
    struct sigv4_key local = {.set = false};
    struct sigv4_key *k = cache ? cache : &local;
    if (!key_fits(k, in)) {
        k->set = false;
        int r = derive_key(in, k);
        if (r < 0) {
            sigv4_key_wipe(k);
            return r;
        }
    }

    g_autofree char *names = NULL;
    g_autofree char *canonical = sigv4_canonical(in, &names);
    char hash[SIGV4_SHA256_HEX_SIZE];
    sigv4_sha256_hex(canonical, strlen(canonical), hash);
    g_autofree char *scope =
        g_strdup_printf("%.8s/%s/%s/aws4_request", in->time, in->region, in->service);
    g_autofree char *to_sign =
        g_strdup_printf("AWS4-HMAC-SHA256\n%s\n%s\n%s", in->time, scope, hash);

    uint8_t mac[32];
    char signature[SIGV4_SHA256_HEX_SIZE];
    int r = hmac(k->key, sizeof k->key, to_sign, mac);
    sigv4_key_wipe(&local);
    if (r < 0) {
        return r;
    }
    to_hex(mac, sizeof mac, signature);
    *ret_authorization =
        g_strdup_printf("AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=%s, Signature=%s",
                        in->access_key, scope, names, signature);
    return 0;
}

void sigv4_key_wipe(struct sigv4_key *k)
{
    OPENSSL_cleanse(k, sizeof *k);
}
