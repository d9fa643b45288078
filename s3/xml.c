/* SPDX-License-Identifier: Apache-2.0
 *
 * xml: see xml.h. One expat parser per call, no state beside it; any thread.
 *
 * Invariant: path[0..len) holds the names of the open elements joined by '/', and starts[depth]
 * where the innermost one begins. Elements deeper than XML_DEPTH_MAX end the parse: S3 has none.
 */
#include "s3/xml.h"

#include <errno.h>
#include <expat.h>
#include <stdio.h>
#include <string.h>

struct state {
    const struct xml_handlers *h;
    void *ctx;
    XML_Parser parser;
    GString *path;
    GString *text[XML_DEPTH_MAX]; /* of the open element at each depth */
    size_t cut[XML_DEPTH_MAX];    /* path's length before that element */
    int depth;
    bool bad;
};

static void refuse(struct state *s)
{
    s->bad = true;
    XML_StopParser(s->parser, XML_FALSE);
}

static void XMLCALL on_doctype(void *data, const XML_Char *name, const XML_Char *sysid,
                               const XML_Char *pubid, int internal)
{
    refuse(data);
}

static void XMLCALL on_start(void *data, const XML_Char *name, const XML_Char **attrs)
{
    struct state *s = data;
    const char *colon = strchr(name, ':');
    if (s->bad) {
        return;
    }
    if (s->depth == XML_DEPTH_MAX || strlen(name) > 256) {
        refuse(s);
        return;
    }
    s->cut[s->depth] = s->path->len;
    if (s->text[s->depth] == NULL) {
        s->text[s->depth] = g_string_new(NULL);
    }
    g_string_truncate(s->text[s->depth], 0);
    s->depth++;
    if (s->path->len > 0) {
        g_string_append_c(s->path, '/');
    }
    g_string_append(s->path, colon ? colon + 1 : name);
    if (s->h->start) {
        s->h->start(s->ctx, s->path->str);
    }
}

static void XMLCALL on_end(void *data, const XML_Char *name)
{
    struct state *s = data;
    if (s->bad) {
        return;
    }
    s->depth--;
    s->h->end(s->ctx, s->path->str, s->text[s->depth]->str);
    g_string_truncate(s->path, s->cut[s->depth]);
}

static void XMLCALL on_text(void *data, const XML_Char *text, int n)
{
    struct state *s = data;
    if (s->bad || s->depth == 0) {
        return;
    }
    GString *t = s->text[s->depth - 1];
    if (t->len + (size_t)n > XML_TEXT_MAX) {
        refuse(s);
        return;
    }
    g_string_append_len(t, text, n);
}

int xml_parse(const char *data, size_t n, const struct xml_handlers *h, void *ctx)
{
    while (n > 0 &&
           g_ascii_isspace(*data)) { /* keep-alive blanks; an XML declaration must come first */
        data++;
        n--;
    }
    if (n == 0 || n > G_MAXINT) {
        return -EBADMSG;
    }
    struct state s = {
        .h = h, .ctx = ctx, .parser = XML_ParserCreate(NULL), .path = g_string_new(NULL)};
    XML_SetUserData(s.parser, &s);
    XML_SetElementHandler(s.parser, on_start, on_end);
    XML_SetCharacterDataHandler(s.parser, on_text);
    XML_SetStartDoctypeDeclHandler(s.parser, on_doctype);
    bool ok = XML_Parse(s.parser, data, (int)n, 1) == XML_STATUS_OK && !s.bad;
    XML_ParserFree(s.parser);
    g_string_free(s.path, TRUE);
    for (int i = 0; i < XML_DEPTH_MAX; i++) {
        if (s.text[i]) {
            g_string_free(s.text[i], TRUE);
        }
    }
    return ok ? 0 : -EBADMSG;
}

bool xml_can_hold(const char *s)
{
    if (!g_utf8_validate(s, -1, NULL)) {
        return false;
    }
    for (const char *p = s; *p; p += g_utf8_skip[(unsigned char)*p]) {
        gunichar c = g_utf8_get_char(p);
        if ((c < 0x20 && c != '\t' && c != '\n' && c != '\r') || c == 0xfffe || c == 0xffff) {
            return false;
        }
    }
    return true;
}

void xml_append(GString *to, const char *name, const char *text)
{
    g_string_append_printf(to, "<%s>", name);
    for (const char *p = text; *p; p++) {
        switch (*p) {
        case '&':
            g_string_append(to, "&amp;");
            break;
        case '<':
            g_string_append(to, "&lt;");
            break;
        case '>':
            g_string_append(to, "&gt;");
            break;
        case '"':
            g_string_append(to, "&quot;");
            break;
        case '\t':
        case '\n':
        case '\r': /* a parser would make a line feed of it */
            g_string_append_printf(to, "&#%d;", *p);
            break;
        default:
            g_string_append_c(to, *p);
        }
    }
    g_string_append_printf(to, "</%s>", name);
}
