/* SPDX-License-Identifier: Apache-2.0
 *
 * cli_discard: `mlopsfs discard`: has daemons throw away what was written and is not in the bucket. One thread.
 */
#include "base/log.h"
#include "fs/cli.h"

static int discard_one(const char *path)
{
    g_autofree char *mountpoint = NULL, *below = NULL;
    int code = cli_find_mount(path, &mountpoint, &below);

    if (code != CLI_OK)
        return code;
    if (!*below) {
        log_error("%s is a mount point: say which files in it", path);
        return CLI_USAGE;
    }
    return cli_control_exit(mountpoint, cli_drain(mountpoint, "discard", below));
}

int cli_discard(int argc, char **argv)
{
    g_auto(GStrv) rest = NULL;
    int code = CLI_OK;
    const GOptionEntry entries[] = {
        {G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &rest, NULL, NULL},
        {NULL},
    };

    if (!cli_parse(argc, argv, entries, "PATH...",
                   "Throws away what was written to the file PATH in a mount and is not in the bucket, for good and without\n"
                   "asking. The file is what the bucket has then; one that is not in the bucket is gone. What is in the\n"
                   "bucket is never touched. Programs that have the file open get ESTALE when they read, write or sync it, until they open it again.",
                   NULL))
        return CLI_USAGE;
    if (!rest) {
        log_error("discard takes files in a mount, such as: mlopsfs discard /mnt/videos/clip.mp4");
        return CLI_USAGE;
    }
    for (char **path = rest; *path; path++) {
        int one = discard_one(*path);

        code = MAX(code, one);
    }
    return code;
}
