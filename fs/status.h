/* SPDX-License-Identifier: Apache-2.0
 *
 * status: what a mounted daemon answers on its control socket: status, sync, drain, catalog.
 */
#pragma once
#include <stdio.h>

/* A control_handler; ctx is the struct fs. */
int status_handle(void *ctx, const char *command, const char *arg, FILE *reply);
