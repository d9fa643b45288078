/* SPDX-License-Identifier: Apache-2.0
 *
 * store_s3 and TLS, with a CA of the test's own: which servers are trusted, also through a proxy. The
 * server is a small one here.
 */
#include <errno.h>
#include <glib/gstdio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/thread.h"
#include "s3/store_s3.h"
#include "tests/lib/liar.h"

#define ETAG "ETag: \"e1\"\r\n"

static int sink_write(void *ctx, uint64_t off, const void *buf, size_t n)
{
    return 0;
}

struct tls_server {
    SSL_CTX *ctx;
    int fd, port;
    unsigned connections;
    bool proxy; /* is asked to CONNECT first */
    pthread_t thread;
};

static void proxy_talk(int fd)
{
    static const char yes[] = "HTTP/1.1 200 Connection established\r\nX-Proxy: yes\r\n\r\n";
    g_autoptr(GString) head = g_string_new(NULL);
    char c;
    while (!g_str_has_suffix(head->str, "\r\n\r\n") && recv(fd, &c, 1, 0) == 1) {
        g_string_append_c(head, c);
    }
    g_assert_true(g_str_has_prefix(head->str, "CONNECT s3.test:443 "));
    g_assert_cmpint(send(fd, yes, sizeof yes - 1, MSG_NOSIGNAL), ==, sizeof yes - 1);
}

static void tls_talk(struct tls_server *t, int fd)
{
    SSL *ssl = SSL_new(t->ctx);
    char buf[4096];
    SSL_set_fd(ssl, fd);
    if (SSL_accept(ssl) == 1 && SSL_read(ssl, buf, sizeof buf) > 0) {
        g_autofree char *reply = liar_reply(200, ETAG "Connection: close\r\n", "tls!");
        SSL_write(ssl, reply, (int)strlen(reply));
        SSL_shutdown(ssl);
    }
    ERR_clear_error();
    SSL_free(ssl);
}

static void *tls_run(void *arg)
{
    struct tls_server *t = arg;
    for (unsigned i = 0; i < t->connections; i++) {
        int fd = accept(t->fd, NULL, NULL);
        g_assert_cmpint(fd, >=, 0);
        if (t->proxy) {
            proxy_talk(fd);
        }
        tls_talk(t, fd);
        close(fd);
    }
    return NULL;
}

/* A certificate for 127.0.0.1 if san, signed by ca (NULL: by itself). */
static X509 *make_cert(EVP_PKEY *key, const char *name, X509 *ca, EVP_PKEY *ca_key, const char *san)
{
    X509 *x = X509_new();
    X509_set_version(x, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(x), ca ? 2 : 1);
    X509_gmtime_adj(X509_getm_notBefore(x), -3600);
    X509_gmtime_adj(X509_getm_notAfter(x), 3600);
    X509_set_pubkey(x, key);
    X509_NAME *n = X509_get_subject_name(x);
    X509_NAME_add_entry_by_txt(n, "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1, 0);
    X509_set_issuer_name(x, ca ? X509_get_subject_name(ca) : n);
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, ca ? ca : x, x, NULL, NULL, 0);
    X509_EXTENSION *e =
        san ? X509V3_EXT_conf_nid(NULL, &ctx, NID_subject_alt_name, san)
            : X509V3_EXT_conf_nid(NULL, &ctx, NID_basic_constraints, "critical,CA:TRUE");
    X509_add_ext(x, e, -1);
    X509_EXTENSION_free(e);
    g_assert_cmpint(X509_sign(x, ca_key ? ca_key : key, EVP_sha256()), >, 0);
    return x;
}

static void write_pem(const char *path, X509 *x)
{
    FILE *f = fopen(path, "w");
    g_assert_nonnull(f);
    g_assert_cmpint(PEM_write_X509(f, x), ==, 1);
    fclose(f);
}

static void tls_get(const char *url, const char *ca_file, int err, enum store_class cls)
{
    char access[] = "AKID", secret[] = "secret";
    const struct s3_credentials c = {.access_key = access, .secret_key = secret};
    const struct store_s3_params p = {.endpoint = url, .credentials = &c, .connections = 1, .ca_file = ca_file};
    struct store_request get = {.verb = STORE_GET, .bucket = "b", .key = "k", .sink = {.write = sink_write}};
    struct store *s;
    g_assert_cmpint(store_s3_new(&p, &s), ==, 0);
    int r = store_run(s, &get, NULL);
    g_test_message("%s", get.res.detail);
    g_assert_cmpint(r, ==, err);
    g_assert_cmpint(get.res.cls, ==, cls);
    if (err == -EKEYREJECTED) {
        g_assert_nonnull(strstr(get.res.detail, "certificate is not trusted"));
    }
    store_request_clear(&get);
    store_free(s);
}

static void test_tls(void)
{
    EVP_PKEY *ca_key = EVP_EC_gen("P-256"), *other_key = EVP_EC_gen("P-256"),
             *key = EVP_EC_gen("P-256");
    X509 *ca = make_cert(ca_key, "Test CA", NULL, NULL, NULL);
    X509 *other = make_cert(other_key, "Test CA", NULL, NULL, NULL); /* same name, another key */
    X509 *cert = make_cert(key, "server", ca, ca_key, "IP:127.0.0.1");
    X509 *elsewhere = make_cert(key, "server", ca, ca_key, "DNS:elsewhere.example");
    g_autofree char *dir = g_dir_make_tmp("tls-XXXXXX", NULL);
    g_autofree char *ca_file = g_build_filename(dir, "ca.pem", NULL);
    g_autofree char *other_file = g_build_filename(dir, "other.pem", NULL);
    write_pem(ca_file, ca);
    write_pem(other_file, other);

    X509 *const certs[] = {cert, elsewhere};
    for (size_t i = 0; i < G_N_ELEMENTS(certs); i++) {
        struct tls_server t = {.ctx = SSL_CTX_new(TLS_server_method()),
                               .connections = i == 0 ? 3 : 1};
        g_assert_cmpint(SSL_CTX_use_certificate(t.ctx, certs[i]), ==, 1);
        g_assert_cmpint(SSL_CTX_use_PrivateKey(t.ctx, key), ==, 1);
        t.fd = liar_listen(&t.port);
        g_assert_cmpint(thread_start(&t.thread, "tls", tls_run, &t), ==, 0);
        g_autofree char *url = g_strdup_printf("https://127.0.0.1:%d", t.port);
        if (i == 0) {
            tls_get(url, ca_file, 0, STORE_CLASS_OK);
            tls_get(url, other_file, -EKEYREJECTED, STORE_CLASS_FATAL);
            tls_get(url, NULL, -EKEYREJECTED, STORE_CLASS_FATAL); /* no public CA signed it */
        } else {
            tls_get(url, ca_file, -EKEYREJECTED, STORE_CLASS_FATAL); /* right CA, another host */
        }
        pthread_join(t.thread, NULL);
        close(t.fd);
        SSL_CTX_free(t.ctx);
    }
    g_unlink(ca_file);
    g_unlink(other_file);
    g_rmdir(dir);
    X509_free(ca);
    X509_free(other);
    X509_free(cert);
    X509_free(elsewhere);
    EVP_PKEY_free(ca_key);
    EVP_PKEY_free(other_key);
    EVP_PKEY_free(key);
}

/* What the proxy says is not taken for the server's reply. */
static void test_tls_by_proxy(void)
{
    g_autofree char *dir = g_dir_make_tmp("mlopsfs-proxy-XXXXXX", NULL);
    g_autofree char *ca_file = g_build_filename(dir, "ca.pem", NULL);
    EVP_PKEY *ca_key = EVP_EC_gen("P-256"), *key = EVP_EC_gen("P-256");
    X509 *ca = make_cert(ca_key, "test CA", NULL, NULL, NULL);
    X509 *cert = make_cert(key, "s3", ca, ca_key, "DNS:s3.test");
    write_pem(ca_file, ca);
    struct tls_server t = {.ctx = SSL_CTX_new(TLS_server_method()), .connections = 1, .proxy = true};
    g_assert_cmpint(SSL_CTX_use_certificate(t.ctx, cert), ==, 1);
    g_assert_cmpint(SSL_CTX_use_PrivateKey(t.ctx, key), ==, 1);
    t.fd = liar_listen(&t.port);
    g_autofree char *proxy = g_strdup_printf("http://127.0.0.1:%d", t.port);
    g_unsetenv("no_proxy");
    g_unsetenv("NO_PROXY");
    g_setenv("https_proxy", proxy, TRUE);
    g_assert_cmpint(thread_start(&t.thread, "tls", tls_run, &t), ==, 0);
    tls_get("https://s3.test", ca_file, 0, STORE_CLASS_OK);
    pthread_join(t.thread, NULL);
    g_unsetenv("https_proxy");
    close(t.fd);
    SSL_CTX_free(t.ctx);
    g_unlink(ca_file);
    g_rmdir(dir);
    X509_free(ca);
    X509_free(cert);
    EVP_PKEY_free(ca_key);
    EVP_PKEY_free(key);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/store-s3-tls/trust", test_tls);
    g_test_add_func("/store-s3-tls/by-proxy", test_tls_by_proxy);
    return g_test_run();
}
