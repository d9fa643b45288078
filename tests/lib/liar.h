/* SPDX-License-Identifier: Apache-2.0
 *
 * liar: a small HTTP/1.1 server on loopback that says what a test tells it to, true or not. One
 * thread of its own. Requests are answered by the first step left whose `match` begins the request
 * line; a request without a step gets 599.
 */
#pragma once
#include <glib.h>
#include <stdbool.h>

struct cancel;
struct liar;

struct liar_step {
    const char *match;   /* "PUT /b/k"; NULL = any request */
    char *reply;         /* raw bytes, owned by the liar from liar_add() on; NULL = none */
    bool close;          /* close the connection after the reply */
    bool hang;           /* never reply, keep the connection */
    bool early;          /* do not wait for the request's body */
    bool stay;           /* the step serves any number of requests */
    bool deaf;           /* nobody listens from here on */
    struct cancel *fire; /* when the request has come */
};

struct liar *liar_new(void);
void liar_free(struct liar *l);
const char *liar_url(const struct liar *l); /* "http://127.0.0.1:PORT" */
void liar_add(struct liar *l, struct liar_step step);
/* A reply with Content-Length; headers: "Name: value\r\n…" or "". */
char *liar_reply(int status, const char *headers, const char *body);
/* Adds a step that replies to any request. */
void liar_say(struct liar *l, int status, const char *headers, const char *body);

unsigned liar_accepts(struct liar *l);  /* connections so far */
unsigned liar_requests(struct liar *l); /* requests so far */
/* Waits until n requests have come. */
void liar_wait_requests(struct liar *l, unsigned n);
/* Head and body of the i-th request; caller frees. */
char *liar_request(struct liar *l, unsigned i);
/* A listening socket on loopback; the caller closes it. */
int liar_listen(int *ret_port);
/* A port on which nobody listens. */
int liar_dead_port(void);
