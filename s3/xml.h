/* SPDX-License-Identifier: Apache-2.0
 *
 * xml: reading the small XML documents that S3 replies with, and writing the ones it takes. Built
 * for hostile input: document types and entities are refused, depth and text are bounded, unknown
 * elements are skipped. Pure; no I/O.
 */
#pragma once
#include <glib.h>
#include <stdbool.h>
#include <stddef.h>

#define XML_DEPTH_MAX 16
#define XML_TEXT_MAX (64u << 10) /* bytes of text in one element */

/* Handlers get names without namespace prefix. path is the element's place,
 * "ListBucketResult/Contents/Key". */
struct xml_handlers {
    void (*start)(void *ctx, const char *path); /* may be NULL */
    void (*end)(void *ctx, const char *path,
                const char *text); /* text: what lies directly in the element, never NULL */
};

/* 0; -EBADMSG when it is not well formed, ends early, is empty, or breaks a limit. White space
 * before the document is skipped. */
int xml_parse(const char *data, size_t n, const struct xml_handlers *h, void *ctx);

/* True when every byte of s can stand in an XML 1.0 document (valid UTF-8, no control characters
 * but tab, LF, CR). */
bool xml_can_hold(const char *s);
/* Appends <name>text</name>, escaped; text must be xml_can_hold(). */
void xml_append(GString *to, const char *name, const char *text);
