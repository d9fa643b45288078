/* SPDX-License-Identifier: Apache-2.0
 *
 * log: where messages for people go. Levels are syslog(3)'s: LOG_ERR, LOG_WARNING, LOG_NOTICE,
 * LOG_INFO, LOG_DEBUG. Until log_to_syslog() or log_to_file(), messages go to stderr as
 * "mlopsfs: text". Log a failure once, where its context (which path, which bucket, what to do) is known.
 * Never pass a secret, a signature or an Authorization header.
 *
 * The target and the level are the process's only mutable file-scope state: they are set by main
 * before the first thread starts and only read after that.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <syslog.h>

void log_set_level(int max_level);
int log_get_level(void);
/* From here on messages go to syslog(3) with the given identity (a string that lives on). */
void log_to_syslog(const char *ident);
/* From here on messages go to the end of this file, with a time stamp. 0 or -errno; does not change the target on failure. */
int log_to_file(const char *path);

/* Writes one message; r is 0 or a negative errno whose text is appended as ": text". Returns r, so
 * that callers write `return log_error_errno(r, "cannot open %s", path)`. Thread-safe; may block on
 * the log's own file only. */
int log_message(int level, int r, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#define log_error_errno(r, ...) log_message(LOG_ERR, (r), __VA_ARGS__)
#define log_warning_errno(r, ...) log_message(LOG_WARNING, (r), __VA_ARGS__)
#define log_debug_errno(r, ...) log_message(LOG_DEBUG, (r), __VA_ARGS__)
#define log_error(...) ((void)log_message(LOG_ERR, 0, __VA_ARGS__))
#define log_warning(...) ((void)log_message(LOG_WARNING, 0, __VA_ARGS__))
#define log_notice(...) ((void)log_message(LOG_NOTICE, 0, __VA_ARGS__))
#define log_info(...) ((void)log_message(LOG_INFO, 0, __VA_ARGS__))
#define log_debug(...) ((void)log_message(LOG_DEBUG, 0, __VA_ARGS__))
