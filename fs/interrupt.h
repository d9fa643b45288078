/* SPDX-License-Identifier: Apache-2.0
 *
 * interrupt: what to make of the kernel's INTERRUPT. It comes once per request, for any signal. One that should
 * end the wait does; others (SIGCHLD, a runtime's SIGURG) must not make close(2) or stat(2) fail with EINTR,
 * which few programs expect; but a fatal one may follow, of which the kernel says nothing. So a request
 * that was interrupted is looked at again, twice a second, until it ends.
 */
#pragma once
#include <fuse_lowlevel.h>
#include <stdbool.h>

struct interrupts;

/* Embedded in a request under way. */
struct interrupt {
    fuse_req_t req;
    void (*give_up)(void *ctx); /* ends the wait; must not reply. Called perhaps more than once, never after interrupt_forget() */
    void *ctx;
    struct interrupt *prev, *next; /* private */
    bool listed;                   /* private */
};

int interrupts_new(struct interrupts **ret); /* 0 or -errno */
void interrupts_free(struct interrupts *l);  /* no request is under way */
/* From the INTERRUPT callback of i->req (which keeps the request alive meanwhile). */
void interrupt_came(struct interrupts *l, struct interrupt *i);
/* Before the reply, after the callback was unregistered. */
void interrupt_forget(struct interrupts *l, struct interrupt *i);
