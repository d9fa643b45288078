#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# s3:// as the source: every bucket is a directory.
. "$(dirname "$0")/../lib/tap.sh"
. "$TOP/tests/lib/servers.sh"
. "$TOP/tests/lib/mount.sh"
needs_mount
needs_foreign
store_up
s3_mb second-bucket
S3_BUCKET=second-bucket s3_text dir/file content
unset S3_BUCKET
SOURCE=s3://
mnt_up attr_ttl=0s dir_ttl=0s || bail_out "no mount of s3://"
is "$(ls "$MNT" | tr '\n' ' ')" "second-bucket testbucket " "every bucket is listed"
is "$(stat -c %F "$MNT/testbucket")" directory "as a directory"
is "$(cat "$MNT/second-bucket/dir/file")" content "with its objects"
cmd_ok "write into one" bash -c "echo x >'$MNT/testbucket/f'"
is "$(S3_BUCKET=testbucket s3_get f)" x "it is there"
cmd_ok "cp between buckets" cp -r "$MNT/second-bucket/dir" "$MNT/testbucket/"
cmd_ok "mv between buckets" mv "$MNT/testbucket/f" "$MNT/second-bucket/g"
is "$(S3_BUCKET=second-bucket s3_get g)" x "it moved"
cmd_fails "it is gone from the other" stat "$MNT/testbucket/f"
errno_is ENOENT "a bucket that is not there" ls "$MNT/no-such-bucket"
cmd_fails "mkdir at the top is refused" mkdir "$MNT/third"
cmd_fails "rmdir too" rmdir "$MNT/testbucket"
cmd_fails "a file at the top is refused" touch "$MNT/file"
cmd_fails "a bucket cannot be renamed" mv "$MNT/testbucket" "$MNT/other"
is "$(s3_buckets | tr '\n' ' ')" "second-bucket testbucket " "no bucket came or went"
cmd_ok "df" df "$MNT"
cmd_ok "find" find "$MNT"
s3_mb by-another
is "$(ls "$MNT" | tr '\n' ' ')" "by-another second-bucket testbucket " "a bucket that another client made"
mnt_again attr_ttl=0s dir_ttl=0s allow_bucket_ops=on
cmd_ok "with allow_bucket_ops mkdir makes a bucket" mkdir "$MNT/third"
like "$(s3_buckets)" third "it is there"
cmd_ok "write into it" bash -c "echo y >'$MNT/third/f'"
errno_is ENOTEMPTY "rmdir of a bucket that is not empty" rmdir "$MNT/third"
is "$(cat "$MNT/third/f")" y "nothing happened to it"
rm "$MNT/third/f"
cmd_ok "rmdir of an empty bucket" rmdir "$MNT/third"
unlike "$(s3_buckets)" third "it is gone"
errno_is EEXIST "mkdir of one that is there" mkdir "$MNT/testbucket"
cmd_fails "mkdir of a name that no bucket may have" mkdir "$MNT/No Such Name"
is "$(ls "$MNT" | tr '\n' ' ')" "by-another second-bucket testbucket " "the list is right again"
done_testing
