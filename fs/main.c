/* SPDX-License-Identifier: Apache-2.0
 *
 * main: see cli.c.
 */
#include "fs/cli.h"

int main(int argc, char **argv)
{
    return cli_main(argc, argv);
}
