/* SPDX-License-Identifier: Apache-2.0
 *
 * xml: what S3 sends, what a hostile server might, and that what we write can be read back.
 */
#include "s3/xml.h"

#include <errno.h>
#include <string.h>

static void record_start(void *ctx, const char *path)
{
    g_string_append_printf(ctx, "+%s ", path);
}

static void record_end(void *ctx, const char *path, const char *text)
{
    g_string_append_printf(ctx, "%s=[%s] ", path, text);
}

static const struct xml_handlers both = {.start = record_start, .end = record_end};
static const struct xml_handlers ends = {.end = record_end};

static void expect(const char *xml, const struct xml_handlers *h, const char *want)
{
    g_autoptr(GString) got = g_string_new(NULL);
    g_assert_cmpint(xml_parse(xml, strlen(xml), h, got), ==, 0);
    g_assert_cmpstr(got->str, ==, want);
}

static void expect_bad(const char *xml)
{
    g_autoptr(GString) got = g_string_new(NULL);
    g_assert_cmpint(xml_parse(xml, strlen(xml), &ends, got), ==, -EBADMSG);
}

static void test_paths(void)
{
    expect("<A><B>1</B><B>2</B></A>", &both, "+A +A/B A/B=[1] +A/B A/B=[2] A=[] ");
    expect("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<A "
           "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"/>",
           &ends, "A=[] ");
    expect("<ns:A xmlns:ns='x'><ns:B>t</ns:B></ns:A>", &ends, "A/B=[t] A=[] ");
    expect("<A>x<B/>y</A>", &ends, "A/B=[] A=[xy] ");
    expect("<A><![CDATA[<&>]]></A>", &ends, "A=[<&>] ");
    expect("<A>&lt;&amp;&quot;&#13;&#x41;</A>", &ends, "A=[<&\"\rA] ");
    expect("<A><!-- no --><?pi x?>k</A>", &ends, "A=[k] ");
}

static void test_leading_space(void)
{
    g_autoptr(GString) s = g_string_new(NULL);
    for (int i = 0; i < 5000; i++) {
        g_string_append_c(s, " \n\r\t"[i % 4]);
    }
    g_string_append(s, "<?xml version=\"1.0\"?><A>v</A>\n");
    expect(s->str, &ends, "A=[v] ");
}

static void test_malformed(void)
{
    expect_bad("");
    expect_bad("   \n");
    expect_bad("not xml");
    expect_bad("<A>");
    expect_bad("<A></B>");
    expect_bad("<A/><B/>");
    expect_bad("<A>&unknown;</A>");
    expect_bad("<A>\x01</A>");
    expect_bad("<A>&#1;</A>");
    expect_bad("<A>\xff\xfe</A>");
    expect_bad("<!DOCTYPE html><html><body>503</body></html>");
    expect_bad("{\"error\": true}");
}

/* Neither internal expansion nor external references. */
static void test_entities(void)
{
    expect_bad("<!DOCTYPE a [<!ENTITY l \"lol\"><!ENTITY m \"&l;&l;&l;&l;\"><!ENTITY n "
               "\"&m;&m;&m;&m;\">]><a>&n;</a>");
    expect_bad("<!DOCTYPE a [<!ENTITY x SYSTEM \"file:///etc/passwd\">]><a>&x;</a>");
    expect_bad("<!DOCTYPE a SYSTEM \"http://127.0.0.1/x.dtd\"><a/>");
}

static void test_limits(void)
{
    g_autoptr(GString) deep = g_string_new(NULL);
    for (int i = 0; i < 100000; i++) {
        g_string_append(deep, "<a>");
    }
    expect_bad(deep->str);

    g_autoptr(GString) fits = g_string_new(NULL), not = g_string_new(NULL);
    for (int i = 0; i < XML_DEPTH_MAX; i++) {
        g_string_append(fits, "<a>");
        g_string_append(not, "<a>");
    }
    g_string_append(not, "<a></a>");
    for (int i = 0; i < XML_DEPTH_MAX; i++) {
        g_string_append(fits, "</a>");
        g_string_append(not, "</a>");
    }
    g_autoptr(GString) got = g_string_new(NULL);
    g_assert_cmpint(xml_parse(fits->str, fits->len, &ends, got), ==, 0);
    expect_bad(not ->str);

    g_autofree char *text = g_strnfill(XML_TEXT_MAX + 1, 'x');
    g_autofree char *xml = g_strdup_printf("<a>%s</a>", text);
    expect_bad(xml);
    g_autofree char *name = g_strnfill(300, 'n');
    g_autofree char *named = g_strdup_printf("<%s/>", name);
    expect_bad(named);
}

static void test_can_hold(void)
{
    g_assert_true(xml_can_hold(""));
    g_assert_true(xml_can_hold("a\tb\nc\rd <>&\" \xc3\xa9 \xf0\x9f\x8e\xac"));
    g_assert_false(xml_can_hold("\x01"));
    g_assert_false(xml_can_hold("a\x1f"));
    g_assert_false(xml_can_hold("\xff"));
    g_assert_false(xml_can_hold("\xc3"));
    g_assert_false(xml_can_hold("\xef\xbf\xbf"));
}

static void test_round_trip(void)
{
    static const char *const rows[] = {"",       "plain", "<a>&\"'</a>", "tab\tlf\ncr\rend",
                                       " edge ", "]]>",   "\xc3\xa9\x7f"};
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        g_autoptr(GString) xml = g_string_new(NULL);
        xml_append(xml, "Key", rows[i]);
        g_autofree char *want = g_strdup_printf("Key=[%s] ", rows[i]);
        expect(xml->str, &ends, want);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/xml/paths", test_paths);
    g_test_add_func("/xml/leading-space", test_leading_space);
    g_test_add_func("/xml/malformed", test_malformed);
    g_test_add_func("/xml/entities", test_entities);
    g_test_add_func("/xml/limits", test_limits);
    g_test_add_func("/xml/can-hold", test_can_hold);
    g_test_add_func("/xml/round-trip", test_round_trip);
    return g_test_run();
}
