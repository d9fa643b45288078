/* SPDX-License-Identifier: Apache-2.0
 *
 * http: an engine for HTTP exchanges: one thread drives a curl multi handle with a bounded number
 * of connections, reused from exchange to exchange. It knows requests, replies, bodies and
 * priorities, and nothing of S3.
 *
 * An exchange goes IDLE → QUEUED (http_submit) → ACTIVE (prepare) → IDLE (done). The owner keeps it
 * alive and untouched until `done`; hooks run on the engine's thread with no lock held and must not
 * block. `done` may submit the exchange again (after http_exchange_clear) or free it.
 *
 * Reads (all priorities but UPLOAD) and uploads each leave a quarter of the connections to the
 * other, and read-ahead leaves some to other reads, so that none ever waits for all the others.
 */
#pragma once
#include <curl/curl.h>
#include <glib.h>

#include "s3/store.h"

#define HTTP_BODY_MAX (16u << 20) /* of a reply that is kept in memory */
#define HTTP_HEADERS_MAX (256u << 10)

struct http;
struct http_exchange;

struct http_params {
    unsigned connections;
    uint64_t connect_timeout_ns, stall_timeout_ns;
    const char *ca_file; /* NULL = the system's CAs */
};

struct http_reply {
    int err;    /* -errno that the engine or a hook ended the exchange with; it goes before curl */
    int curl;   /* CURLcode */
    int status; /* 0 = none came */
    bool stalled;  /* curl is CURLE_OPERATION_TIMEDOUT because no byte moved */
    bool overlong; /* err is -EBADMSG because the body was longer than the sink was to get */
    bool sent;     /* the whole request was handed to the network, perhaps more than once: the server
                      may have acted, whatever failed thereafter */
    unsigned
        sends; /* how often: above 1, curl repeated it on a fresh connection after a dead one */
    uint64_t bytes;   /* body bytes given to the sink, or taken from the source */
    GString *headers; /* "name\0value\0…", names in lower case */
    GString *body;    /* what did not go to the sink; NULL if nothing */
    char error[CURL_ERROR_SIZE];
};

struct http_hooks {
    /* Fills method, url, headers and body. -errno ends the exchange with it. */
    int (*prepare)(struct http_exchange *x);
    /* The reply's status and headers are there: may set sink, sink_off, sink_left, sink_stops.
     * -errno ends the exchange. NULL = none */
    int (*begin)(struct http_exchange *x);
    void (*done)(struct http_exchange *x);
};

struct http_exchange {
    const struct http_hooks *hooks;
    enum store_prio prio;
    uint64_t deadline_ns; /* mono, 0 = none */
    bool patient; /* the server may work in silence once it has the request: no stall check then */

    const char *method;                /* static */
    char *url;                         /* owned */
    struct curl_slist *headers;        /* owned */
    const struct store_source *source; /* a streamed body, or */
    GString *body;                     /* one in memory (owned), or neither */

    const struct store_sink *sink; /* NULL: the body is kept in reply.body */
    uint64_t sink_off, sink_left;
    bool sink_stops; /* the exchange ends well when sink_left bytes are there, whatever follows */

    struct http_reply reply;

    /* private to the engine */
    int state;        /* its lock */
    bool cancelled;   /* its lock */
    bool begun, full, whole; /* engine thread, as all below; whole: all of the body was taken once */
    CURL *easy;
    uint64_t sent_off,
        received; /* bytes of the body taken from its source; of the reply, headers included */
    uint64_t moved, moved_ns; /* all bytes both ways when last looked at, and when they last grew */
    GList link, cancel_link;  /* its lock */
};

/* 0 or -errno. Does not talk to anyone. */
int http_new(const struct http_params *p, struct http **ret);
void http_free(struct http *h); /* nothing is under way */
void http_submit(struct http *h, struct http_exchange *x);
/* Ends x soon with -ECANCELED unless it is done first; nothing happens to one that is idle. Never
 * blocks. */
void http_cancel(struct http *h, struct http_exchange *x);
/* Frees what the exchange holds, so that it can be freed or submitted again. */
void http_exchange_clear(struct http_exchange *x);

/* NULL if absent. The first of that name. */
const char *http_header(const struct http_reply *r, const char *name);
/* Steps through name and value: start with *pos = 0; false at the end. */
bool http_header_next(const struct http_reply *r, size_t *pos, const char **ret_name,
                      const char **ret_value);
