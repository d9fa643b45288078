/* SPDX-License-Identifier: Apache-2.0
 *
 * libFuzzer: the input is query conditions, one per line. Every one yields rows or a sentence.
 * Built by tests/fuzz/run, which names the database.
 */
#include "catalog/catalog.h"
#undef NDEBUG
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerInitialize(int *argc, char ***argv);

/* libFuzzer offers no other place for what lives as long as the process. */
static struct catalog *catalog;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    const char *path = getenv("MLOPSFS_FUZZ_DB");
    if (!path)
        abort();
    struct video v = {.is_media = true, .duration = 2, .codec = "h264", .width = 320};
    if (catalog_open(path, false, &catalog) < 0 ||
        catalog_video_put(catalog, "b", "d/a.mp4", "e", 5, &v) < 0)
        abort();
    return 0;
}

static int each(void *ctx, const struct query_row *row)
{
    assert(strcmp(row->key, "d/a.mp4") == 0);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    g_autofree char *text = g_strndup((const char *)data, n);
    g_auto(GStrv) lines = g_strsplit(text, "\n", 8);
    g_autofree char *error = NULL;
    int r = catalog_query(catalog, (const char *const *)lines, g_strv_length(lines), each, NULL,
                          &error);
    assert(r == (error ? -EINVAL : 0));
    return 0;
}
