/* SPDX-License-Identifier: Apache-2.0
 *
 * opened: what must be ended when the mount ends before the kernel has let go of it (a signal to the
 * daemon, a lazy unmount): open handles, and parked requests.
 */
#pragma once
#include <stdbool.h>

struct opened_list;

/* Embedded in what is registered. */
struct opened {
    void (*end)(struct opened *o);
    struct opened *prev, *next; /* the list's */
};

struct opened_list *opened_list_new(void);
void opened_list_free(struct opened_list *l); /* empty */
void opened_add(struct opened_list *l, struct opened *o);
void opened_remove(struct opened_list *l, struct opened *o);
/* For what ends by itself once told: calls end() of all under the list's lock (so no item can have finished its opened_remove() yet;
 * end() only cancels), then waits until all are removed. Nothing is added any more. */
void opened_cancel_all(struct opened_list *l);
/* For what nobody else will end any more: removes each and calls its end(), with no lock held. */
void opened_close_all(struct opened_list *l);
