/* SPDX-License-Identifier: Apache-2.0
 *
 * http_exchange: what the engine (http.c) needs of an exchange beyond http.h.
 */
#pragma once
#include "s3/http.h"

/* Sets all options of x->easy, fresh from curl_easy_reset() or new. ca_file NULL = the system's. */
void http_exchange_setup(struct http_exchange *x, const struct http_params *p, const char *ca_file);
uint64_t http_exchange_body_size(const struct http_exchange *x); /* bytes that it sends */
