/* SPDX-License-Identifier: Apache-2.0
 *
 * test_conformance: runs the suite on the store that the environment names (tests/lib/
 * conformance_stores.c) and prints TAP. Each run has a bucket of its own, removed at the end.
 * -p /conformance/THEME/CASE runs one.
 */
#include <stdlib.h>

#include "tests/lib/conformance.h"

struct bound {
    struct conf *conf;
    struct conf_case *test;
};

/* A case's finding against the table. */
static void judge(struct conf *c)
{
    const struct conf_deviation *known = conf_deviation(c->server, c->name);
    if (known == NULL) {
        if (c->failure != NULL) {
            g_test_fail_printf("%s: %s", c->name, c->failure);
        }
        return;
    }
    if (c->failure == NULL) {
        if (!known->sometimes) {
            g_test_fail_printf("%s: %s does as S3 does now: remove it from the table of deviations",
                               c->name, c->server);
        }
    } else if (strstr(c->failure, known->found) == NULL) {
        g_test_fail_printf("%s: another deviation than the known one (%s): %s", c->name,
                           known->found, c->failure);
    } else {
        g_test_message("known deviation of %s: %s", c->server, c->failure);
    }
}

static void run_case(gconstpointer data)
{
    const struct bound *b = data;
    struct conf *c = b->conf;
    if (b->test->network && c->endpoint.url == NULL) {
        g_test_skip("only for servers");
        return;
    }
    c->name = b->test->name;
    b->test->run(c, b->test->arg);
    judge(c);
    g_clear_pointer(&c->failure, g_free);
}

static void run_table(gconstpointer data)
{
    GArray *const *cases = data;
    g_assert_true(conf_deviation_rows_exist(*cases));
}

static void remove_tree(const char *path)
{
    g_autoptr(GDir) d = g_dir_open(path, 0, NULL);
    const char *name;
    while (d != NULL && (name = g_dir_read_name(d)) != NULL) {
        g_autofree char *child = g_build_filename(path, name, NULL);
        if (g_file_test(child, G_FILE_TEST_IS_DIR)) {
            remove_tree(child);
        } else {
            (void)remove(child);
        }
    }
    (void)remove(path);
}

static GArray *all_cases(void)
{
    GArray *cases = g_array_new(FALSE, FALSE, sizeof(struct conf_case));
    conf_objects_cases(cases);
    conf_keys_cases(cases);
    conf_conditions_cases(cases);
    conf_multipart_cases(cases);
    conf_copy_cases(cases);
    conf_list_cases(cases);
    conf_delete_cases(cases);
    conf_kept_cases(cases);
    conf_async_cases(cases);
    conf_endpoint_cases(cases);
    conf_checksums_cases(cases);
    return cases;
}

static int start(struct conf *c, const char *dir)
{
    if (conf_store_open(c, dir) < 0) {
        return EXIT_FAILURE;
    }
    c->name = "start";
    c->bucket = conf_bucket_new(c);
    if (c->bucket == NULL) {
        fprintf(stderr, "no bucket: %s\n", c->failure);
        return EXIT_FAILURE;
    }
    store_get_caps(c->store, c->bucket, &c->caps);
    return 0;
}

int main(int argc, char **argv)
{
    g_autoptr(GPtrArray) args = g_ptr_array_new();
    for (int i = 0; i < argc; i++) {
        g_ptr_array_add(args, argv[i]);
    }
    g_ptr_array_insert(args, 1, (char[]){"--tap"});
    int n = (int)args->len;
    g_ptr_array_add(args, NULL);
    char **v = (char **)args->pdata;
    g_test_init(&n, &v, NULL);
    g_test_set_nonfatal_assertions();

    g_autofree char *dir = g_dir_make_tmp("mlopsfs-conformance-XXXXXX", NULL);
    struct conf conf = {0};
    if (dir == NULL || start(&conf, dir) != 0) {
        return EXIT_FAILURE;
    }
    g_autoptr(GArray) cases = all_cases();
    g_autofree struct bound *bounds = g_new0(struct bound, cases->len);
    for (guint i = 0; i < cases->len; i++) {
        bounds[i] =
            (struct bound){.conf = &conf, .test = &g_array_index(cases, struct conf_case, i)};
        g_autofree char *path = g_strdup_printf("/conformance/%s", bounds[i].test->name);
        g_test_add_data_func(path, &bounds[i], run_case);
    }
    g_test_add_data_func("/conformance/deviations", &cases, run_table);
    int r = g_test_run();
    conf_bucket_remove(&conf, conf.bucket);
    if (conf.failure != NULL) {
        fprintf(stderr, "%s\n", conf.failure);
        r = EXIT_FAILURE;
    }
    g_free(conf.failure);
    g_free(conf.bucket);
    store_free(conf.store);
    remove_tree(dir);
    return r;
}
