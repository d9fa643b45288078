/* SPDX-License-Identifier: Apache-2.0
 *
 * conformance_deviations: where servers are known not to be like S3. A row names a server, a case,
 * and a piece of what the case then finds. A case that fails otherwise fails; one that passes fails
 * too, until its row is removed. Versions: docs of the suite's servers pin them.
 */
#include "tests/lib/conformance.h"

struct row {
    const char *server, *name, *found;
};

static const struct row rows[] = {
    {"none", "put/size-0", "none"},
};

const char *conf_deviation(const char *server, const char *name)
{
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        if (strcmp(rows[i].server, server) == 0 && strcmp(rows[i].name, name) == 0) {
            return rows[i].found;
        }
    }
    return NULL;
}

bool conf_deviation_rows_exist(GArray *cases)
{
    bool all = true;
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        bool found = false;
        for (guint k = 0; k < cases->len; k++) {
            found = found || strcmp(g_array_index(cases, struct conf_case, k).name, rows[i].name) == 0;
        }
        if (!found) {
            g_test_message("the table of deviations names %s, which is no case", rows[i].name);
            all = false;
        }
    }
    return all;
}
