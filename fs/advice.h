/* SPDX-License-Identifier: Apache-2.0
 *
 * advice: why a file is not in the bucket, and what helps, for people.
 */
#pragma once

/* One sentence or two without the errno's own text; err is what the commit came to. */
const char *advice_for(int err);
