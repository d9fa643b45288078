/* SPDX-License-Identifier: Apache-2.0
 *
 * recovered_private: what recovered.c (entries) and recovered_save.c (their contents) share.
 */
#pragma once

#define RECOVERED_ENTRY ".entry"
#define RECOVERED_DATA ".data"

char *recovered_path(const char *dir, const char *id, const char *suffix); /* g_free */
