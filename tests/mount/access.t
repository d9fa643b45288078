#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Who may: where the bucket's name, the server and the credentials come from; mounts that may only read; rights that are lost.
. "$(dirname "$0")/../lib/tap.sh"
. "$TOP/tests/lib/servers.sh"
. "$TOP/tests/lib/mount.sh"
needs_mount
[ "$MLOPSFS_STORE" = minio ] || skip_all "tried with MLOPSFS_STORE=minio"
store_up
s3_text file content
s3_text dir/file deep
o="commit=close,cache_dir=$T/cache,attr_ttl=0s,dir_ttl=0s"
endpoint=$S3_ENDPOINT access=$S3_ACCESS_KEY secret=$S3_SECRET_KEY

# serves NAME COMMAND…: the command mounts, what is mounted is the bucket, and it can be written to.
serves() {
    local name=$1 n
    shift
    n=$((tap_count + 1))
    cmd_ok "$name: mount" "$@" || return
    is "$(cat "$MNT/file"):$(cat "$MNT/dir/file")" "content:deep" "$name: reads"
    cmd_ok "$name: writes" bash -c "echo $n >'$MNT/written'"
    is "$(s3_get written)" "$n" "$name: into the bucket"
    cmd_ok "$name: umount" "$MLOPSFS_BIN" umount "$MNT"
}
# refused CODE REGEX NAME COMMAND…
refused() {
    local code=$1 text=$2 name=$3
    shift 3
    timeout -k 5 100 "$@" >"$T/out" 2>"$T/err" </dev/null
    is "$?" "$code" "$name: exit code"
    like "$(<"$T/err")" "$text" "$name: says why"
    unlike "$(<"$T/err")" "$secret" "$name: not the secret"
    if mnt_is_mounted; then fail "$name: something is mounted"; umount -l "$MNT"; fi
}

# ---- where it is said ----
plain=(env -u S3_ENDPOINT -u S3_ACCESS_KEY -u S3_SECRET_KEY -u S3_BUCKET)
serves "the bucket from S3_BUCKET" "$MLOPSFS_BIN" mount -o "$o" "$MNT"
refused 1 "S3_BUCKET" "no bucket at all" env -u S3_BUCKET "$MLOPSFS_BIN" mount -o "$o" "$MNT"
# Not on a command line.
aws() (
    unset S3_ENDPOINT S3_ACCESS_KEY S3_SECRET_KEY S3_BUCKET
    export AWS_ACCESS_KEY_ID=$access AWS_SECRET_ACCESS_KEY=$secret
    env "$@"
)
serves "AWS's names" aws AWS_ENDPOINT_URL="$endpoint" "$MLOPSFS_BIN" mount -o "$o" "$SOURCE" "$MNT"
serves "AWS_ENDPOINT_URL_S3 before AWS_ENDPOINT_URL" aws AWS_ENDPOINT_URL=http://127.0.0.1:1 AWS_ENDPOINT_URL_S3="$endpoint" \
    "$MLOPSFS_BIN" mount -o "$o" "$SOURCE" "$MNT"
serves "S3_* before AWS's" env AWS_ACCESS_KEY_ID=other AWS_SECRET_ACCESS_KEY=other AWS_ENDPOINT_URL=http://127.0.0.1:1 "$MLOPSFS_BIN" mount -o "$o" "$SOURCE" "$MNT"
serves "the endpoint as an option" aws "$MLOPSFS_BIN" mount -o "$o,endpoint=$endpoint" "$SOURCE" "$MNT"
cat >"$T/credentials" <<INI
[default]
aws_access_key_id = unknownunknown
aws_secret_access_key = wrongwrongwrong

[video]
aws_access_key_id = $access
aws_secret_access_key = $secret
INI
chmod 600 "$T/credentials"
file=("${plain[@]}" AWS_SHARED_CREDENTIALS_FILE="$T/credentials" AWS_ENDPOINT_URL="$endpoint")
serves "a profile, by option" "${file[@]}" "$MLOPSFS_BIN" mount -o "$o,profile=video" "$SOURCE" "$MNT"
serves "a profile, by AWS_PROFILE" "${file[@]}" AWS_PROFILE=video "$MLOPSFS_BIN" mount -o "$o" "$SOURCE" "$MNT"
refused 2 "profile|key|credentials" "the profile that has wrong keys" "${file[@]}" "$MLOPSFS_BIN" mount -o "$o" "$SOURCE" "$MNT"
refused 2 "nobody" "a profile that is not there" "${file[@]}" "$MLOPSFS_BIN" mount -o "$o,profile=nobody" "$SOURCE" "$MNT"
mkdir "$HOME/.aws"
cp "$T/credentials" "$HOME/.aws/credentials"
serves "a profile in ~/.aws" "${plain[@]}" AWS_ENDPOINT_URL="$endpoint" "$MLOPSFS_BIN" mount -o "$o,profile=video" "$SOURCE" "$MNT"
rm -r "$HOME/.aws"

# ---- anonymous ----
policy() { # ACTION…: what everyone may do
    local a actions=''
    for a; do actions+="${actions:+,}\"s3:$a\""; done
    printf '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":["*"]},"Action":[%s],"Resource":["arn:aws:s3:::%s","arn:aws:s3:::%s/*"]}]}' \
        "$actions" "$S3_BUCKET" "$S3_BUCKET" >"$T/policy"
    s3_curl "$S3_BUCKET?policy=" -f -X PUT --data-binary "@$T/policy" || bail_out "cannot set a policy"
}
# errno of writing a file: open, write and close, each with its own
cat >"$T/write.py" <<'PY'
import errno, os, sys
step = "open"
try:
    f = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR, 0o644)
    step = "write"
    os.write(f, b"bytes")
    step = "close"
    os.close(f)
    print("fine")
except OSError as e:
    print(step, errno.errorcode[e.errno])
PY
put() { timeout 100 python3 "$T/write.py" "$MNT/$1"; }
anonymous() { "${plain[@]}" "$MLOPSFS_BIN" mount -o "$o,endpoint=$endpoint,anonymous" "$SOURCE" "$MNT"; }
refused 2 "testbucket" "anonymous, and nobody may" "${plain[@]}" "$MLOPSFS_BIN" mount -o "$o,endpoint=$endpoint,anonymous" "$SOURCE" "$MNT"
reading=(ListBucket GetBucketLocation GetObject GetObjectTagging)
writing=(PutObject DeleteObject AbortMultipartUpload ListMultipartUploadParts)
policy "${reading[@]}"
cmd_ok "anonymous, and everyone may read: mount" anonymous
is "$(cat "$MNT/file"):$(cat "$MNT/dir/file"):$(ls "$MNT" | tr '\n' ' ')" "content:deep:dir file written " "it reads and lists"
errno_is EACCES "cp onto it" timeout 100 cp "$T/policy" "$MNT/new"
is "$(put new2)" "close EACCES" "close says EACCES"
is "$(put file)" "close EACCES" "of an overwrite, too"
errno_is EACCES "rm" timeout 100 rm -f "$MNT/file"
errno_is EACCES "mkdir" timeout 100 mkdir "$MNT/newdir"
errno_is EACCES "mv" timeout 100 mv "$MNT/dir/file" "$MNT/dir/file2"
is "$(s3_ls | tr '\n' ' '):$(s3_get file)" "dir/file file written :content" "nothing has changed in the bucket"
cmd_ok "it still reads" cmp <(printf deep) "$MNT/dir/file"
pid=$("$MLOPSFS_BIN" status "$MNT" | sed -n 's/^pid //p')
like "$pid" "^[0-9]+$" "status names its process"
cmd_ok "detach" umount -l "$MNT"

# ---- rights that come and go under a mount ----
wait_until 60 tap_gone "$pid"
ok $? "its daemon ends"
policy "${reading[@]}" "${writing[@]}"
cmd_ok "everyone may write: mount" anonymous
is "$(put mine):$(s3_get mine)" "fine:bytes" "it writes"
policy "${reading[@]}"
lost() { [ "$(put other)" = "close EACCES" ]; }
wait_until 30 lost
is "$(put mine)" "close EACCES" "the right to write is taken away: close says EACCES"
is "$(cat "$MNT/file")" bytesnt "reads go on; what could not be written by the mount before, this one has brought there"
policy ListBucket
errno_is EACCES "the right to read is taken away: a read" timeout 100 cat "$MNT/dir/file"
cmd_ok "status answers" "$MLOPSFS_BIN" status "$MNT"
policy "${reading[@]}" "${writing[@]}"
returned() { [ "$(put third)" = fine ]; }
wait_until 30 returned
is "$(cat "$MNT/dir/file"):$(put fourth):$(s3_get fourth)" "deep:fine:bytes" "the rights are back, and all works again"
timeout 100 "$MLOPSFS_BIN" sync "$MNT" >"$T/out" 2>&1
diag "sync: $? $(<"$T/out")"
cmd_ok "umount" timeout 100 "$MLOPSFS_BIN" umount "$MNT"
is "$(s3_get mine)$(s3_get other)" "bytesbytes" "what could not be written then is in the bucket now"
done_testing
