/* SPDX-License-Identifier: Apache-2.0
 *
 * advice: see advice.h. Pure.
 */
#include "fs/advice.h"

#include <errno.h>

const char *advice_for(int err)
{
    switch (err) {
    case -ESTALE:
        return "somebody else has changed the object meanwhile, and theirs was not overwritten. What was written here is still in the "
               "mount: copy it elsewhere while it can be read; then remove it or run `mlopsfs discard`, which leave theirs, or write it "
               "whole again, which replaces theirs";
    case -EACCES:
    case -EPERM:
        return "the server refuses it: check the credentials and the bucket's policy, and try again; it stays in the mount meanwhile";
    case -ENOSPC:
    case -EDQUOT:
        return "there is no room for it: make some, and try again; it stays in the mount meanwhile";
    case -EFBIG:
        return "it is larger than an object can be, or more of it than holes_max was never written and would be sent as zeros: truncate it, "
               "or mount with a larger holes_max; it stays in the mount meanwhile";
    default:
        return "it could not be stored: the log says more. It stays in the mount: try again, or copy it elsewhere";
    }
}
