/* SPDX-License-Identifier: Apache-2.0
 *
 * control: a mounted daemon's Unix socket, by which the command line asks it for its status and
 * tells it to drain. One socket per mount point, in a directory only its owner can enter:
 * /run/mlopsfs (root), $XDG_RUNTIME_DIR/mlopsfs, /run/user/UID/mlopsfs or ~/.cache/mlopsfs/run, the first that can be had; its name is a hash of the
 * absolute mount point. One request per connection: a line "COMMAND[ ARG]"; the reply streams until the
 * daemon closes, its last line "OK" or "ERR text".
 */
#pragma once
#include <stdbool.h>
#include <stdio.h>
#include <sys/types.h>

struct control;

/* Runs on one of control's threads, for several connections at once; writes reply lines, which the client sees line by line;
 * 0 → "OK", -errno → "ERR strerror"; -EREMOTEIO: the lines have said what failed → "ERR ". May block; a client that is gone shows as ferror(reply). arg is "" when there is none. */
typedef int control_handler(void *ctx, const char *command, const char *arg, FILE *reply);

/* mountpoint: absolute. A stale socket is replaced. 0 or -errno, logged. */
int control_new(const char *mountpoint, control_handler *handler, void *ctx, struct control **ret);
void control_free(struct control *c); /* removes the socket, waits for handlers under way; NULL is fine */
/* The client's side: sends a command to the daemon of this mount point and hands every reply line (without newline) to line().
 * 0, -ENOENT when no daemon serves this mount point, -ECOMM when it went away, or what the daemon answered (-EREMOTEIO; its text, if it has one, is logged). */
int control_call(const char *mountpoint, const char *command, const char *arg, void (*line)(void *ctx, const char *text), void *ctx);
/* The daemon's process id, as the kernel tells it. 0 or -ENOENT. */
int control_pid(const char *mountpoint, pid_t *ret);
