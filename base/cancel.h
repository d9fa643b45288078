/* SPDX-License-Identifier: Apache-2.0
 *
 * cancel: a token that says "whoever waits on behalf of this call should stop". A FUSE interrupt
 * fires it; blocking functions take it as a parameter (NULL = cannot be cancelled) and return
 * -EINTR soon after it fires. One token serves one call; it may have several watchers.
 *
 * cancel_watch() registers a callback that cancel_fire() runs on the firing thread (at once, inside
 * cancel_watch(), when it has fired already). The callback must not block, and must not call
 * cancel_watch/unwatch on this token. After cancel_unwatch() returns, the callback neither runs nor
 * will run.
 */
#pragma once
#include <stdbool.h>

struct cancel;

struct cancel_watch {
    void (*fired)(void *ctx);
    void *ctx;
    struct cancel_watch *next; /* private */
};

struct cancel *cancel_new(void);
void cancel_free(struct cancel *c);
void cancel_fire(struct cancel *c);
bool cancel_fired(const struct cancel *c); /* false for NULL */
void cancel_watch(struct cancel *c, struct cancel_watch *w);   /* no-op for NULL */
void cancel_unwatch(struct cancel *c, struct cancel_watch *w); /* no-op for NULL */
