/* SPDX-License-Identifier: Apache-2.0
 *
 * budget: a counted ceiling in bytes, shared by those who draw on it (memory, staging disk).
 * Thread-safe; its lock is a leaf.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct budget;
struct cancel;

struct budget *budget_new(uint64_t limit);
void budget_free(struct budget *b); /* all of it must have been given back */
bool budget_try(struct budget *b, uint64_t n);
/* Waits until n bytes fit. 0; -EINTR when cancelled; -ETIMEDOUT at mono_deadline_ns (0 = none);
 * -EMSGSIZE at once when n exceeds the limit itself. */
int budget_take(struct budget *b, uint64_t n, struct cancel *cancel, uint64_t mono_deadline_ns);
/* Takes n whether they fit or not: what is there already. */
void budget_force(struct budget *b, uint64_t n);
void budget_give(struct budget *b, uint64_t n);
uint64_t budget_used(struct budget *b);
uint64_t budget_limit(const struct budget *b);
