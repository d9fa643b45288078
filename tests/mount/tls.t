#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# HTTPS against a server whose certificate comes from a CA of our own; another CA is refused.
. "$(dirname "$0")/../lib/tap.sh"
. "$TOP/tests/lib/servers.sh"
. "$TOP/tests/lib/mount.sh"
needs_mount
[ "$MLOPSFS_STORE" = minio ] || skip_all "tried with MLOPSFS_STORE=minio"
make_ca "$T/ca" || bail_out "no certificate"
make_ca "$T/other" || bail_out "no certificate"
start_minio --tls "$T/ca/certs"
S3_CURL_CA=$T/ca/ca.pem
export S3_BUCKET=testbucket
s3_mb
SOURCE=s3://testbucket
mnt_up "ca_file=$T/ca/ca.pem" || bail_out "no mount over TLS"
gen 1 20000000 >"$MNT/f"
is "$(s3_sha f)" "$(gen_sha 1 20000000)" "written"
mnt_again "ca_file=$T/ca/ca.pem"
is "$(sha "$MNT/f")" "$(gen_sha 1 20000000)" "read"
mnt_down
for o in "ca_file=$T/other/ca.pem" ""; do
    timeout 60 "$MLOPSFS_BIN" mount -o "cache_dir=$T/cache,op_timeout=5s${o:+,$o}" "$SOURCE" "$MNT" >"$T/out" 2>"$T/err"
    rc=$?
    is "$rc" 3 "with ${o:+another CA}${o:-the CAs of the system}: exit code"
    like "$(<"$T/err")" "certificate|[Cc][Aa]" "it says that the certificate is why: $(<"$T/err")"
    is "$(wc -l <"$T/err")" 1 "in one line"
    mnt_is_mounted && fail "it is mounted"
done
export AWS_CA_BUNDLE=$T/ca/ca.pem
mnt_up || fail "AWS_CA_BUNDLE names the CA"
is "$(sha "$MNT/f")" "$(gen_sha 1 20000000)" "read with the CA of AWS_CA_BUNDLE"
mnt_down
"$MLOPSFS_BIN" mount -o "cache_dir=$T/cache,ca_file=$T/none.pem" "$SOURCE" "$MNT" >"$T/out" 2>"$T/err"
like "$?:$(<"$T/err")" "^1:.*none.pem" "a ca_file that is not there is named"
done_testing
