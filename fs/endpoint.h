/* SPDX-License-Identifier: Apache-2.0
 *
 * endpoint: the server's URL, checked and written in one way, and the name under which this machine
 * remembers a server. Pure but for the links that endpoint_identity() resolves.
 */
#pragma once

struct config;

/* "HTTP://Host:80/" is "http://host": scheme and host in lower case, no port that the scheme implies, no slash at the end. 0, or
 * -EINVAL with *ret_why: a sentence without anything of text that could be a secret. The caller frees both. */
int endpoint_normalize(const char *text, char **ret, char **ret_why);

/* What the catalog and the staging files of this server are kept under: the same for every spelling of it. Amazon's own hosts are one
 * server; of a local store it is the directory without symbolic links, once it exists. c: after config_finish(). The caller frees. */
char *endpoint_identity(const struct config *c);
