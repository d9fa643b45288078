/* SPDX-License-Identifier: Apache-2.0
 *
 * cli_status: `mlopsfs status`: what the daemons say. One thread.
 */
#include <errno.h>

#include "base/log.h"
#include "fs/cli.h"
#include "fs/control.h"
#include "fs/mountinfo.h"

static void list_mounts(void)
{
    g_autoptr(GPtrArray) list = mountinfo_list(NULL);

    for (guint i = 0; i < list->len; i++) {
        const struct mountinfo *m = list->pdata[i];
        pid_t pid;
        g_autofree char *state = control_pid(m->mountpoint, &pid) == 0
                                     ? g_strdup_printf("serving, process %d", (int)pid)
                                     : g_strdup("no daemon answers");
        g_autofree char *line = g_strdup_printf("%s on %s: %s", m->source, m->mountpoint, state);
        cli_print_line(stdout, line);
    }
}

int cli_status(int argc, char **argv)
{
    g_auto(GStrv) rest = NULL;
    g_autofree char *mountpoint = NULL;
    const GOptionEntry entries[] = {
        {G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &rest, NULL, NULL},
        {NULL},
    };

    if (!cli_parse(argc, argv, entries, "[MNT]",
                   "Tells what the mount MNT is doing. Without MNT: which mounts there are.", NULL))
        return CLI_USAGE;
    if (!rest) {
        list_mounts();
        return CLI_OK;
    }
    if (g_strv_length(rest) != 1) {
        log_error("status takes one mount point at most");
        return CLI_USAGE;
    }
    int code = cli_find_mount(rest[0], &mountpoint, NULL);
    if (code != CLI_OK)
        return code;
    return cli_control_exit(mountpoint,
                            control_call(mountpoint, "status", NULL, cli_print_line, stdout));
}
