/* SPDX-License-Identifier: Apache-2.0
 *
 * cli: the command line. cli.c finds the subcommand; each cli_*.c has some. What they share is
 * declared here; nobody else needs it.
 */
#pragma once
#include <glib.h>
#include <stdbool.h>
#include <stdio.h>

struct config;

/* The whole program: an exit code. Called as mount.mlopsfs it is mount(8)'s helper. */
int cli_main(int argc, char **argv);

/* Exit codes, as in fs/mount.h. */
enum cli_exit { CLI_OK = 0, CLI_USAGE = 1, CLI_PERMISSION = 2, CLI_BUCKET = 3, CLI_MOUNTPOINT = 4, CLI_OTHER = 5 };

/* ---- subcommands: argv[0] is the subcommand's name; an exit code ---- */
int cli_mount(int argc, char **argv);
int cli_mount_helper(int argc, char **argv); /* mount.mlopsfs SOURCE MNT [-sfnv] [-o OPTIONS] [-t TYPE] */
int cli_umount(int argc, char **argv);
int cli_status(int argc, char **argv);
int cli_sync(int argc, char **argv);
int cli_recover(int argc, char **argv);
int cli_discard(int argc, char **argv);
int cli_query(int argc, char **argv);
int cli_scan(int argc, char **argv);

/* ---- shared ---- */

/* Parses argv by entries, of which one must be G_OPTION_REMAINING; `--help` prints and exits. usage: "[MNT]", what follows the name;
 * more: what the help ends with, NULL = nothing. False: said why. */
bool cli_parse(int argc, char **argv, const GOptionEntry *entries, const char *usage, const char *summary,
               const char *more);
/* Whether an operand says what to mount, and is no path: s3://…, local:… */
bool cli_is_source(const char *arg);
/* What is to be mounted and how, from all the places where that is said: conf NULL: where it is looked for; options: each as after -o,
 * NULL = none; source NULL: S3_BUCKET. CLI_OK, or an exit code, said why. */
int cli_read_config(struct config *c, const char *conf, char **options, const char *source);
/* The mount of ours that path is in (path NULL: the one that contains the working directory, else the only one). CLI_OK, or an
 * exit code, said why. *ret_below: path below the mount point, "" for the mount point itself; may be NULL. Never touches the mount
 * itself when path is its mount point as the kernel writes it. */
int cli_find_mount(const char *path, char **ret_mountpoint, char **ret_below);
/* Absolute, without symbolic links. 0 or -errno. A dead mount resolves too. */
int cli_resolve(const char *path, char **ret);
/* Has the daemon bring things into the bucket ("sync" or "drain"), or give one up ("discard"): progress goes to stdout, each file that failed to stderr. As
 * control_call. */
int cli_drain(const char *mountpoint, const char *command, const char *arg);
/* A line of that, to be shown: progress is a struct cli_progress. */
void cli_drain_line(void *progress, const char *text);
/* After control_call: what to tell and return. */
int cli_control_exit(const char *mountpoint, int r);
/* Prints one line for people: what a terminal could take for a command is replaced. */
void cli_print_line(void *out, const char *text);

/* A line that is overwritten on a terminal, and lines elsewhere. */
struct cli_progress {
    FILE *out;
    bool terminal, open;
};
void cli_progress_init(struct cli_progress *p, FILE *out);
void cli_progress_line(void *progress, const char *text);
void cli_progress_end(struct cli_progress *p); /* leaves the last line standing */
