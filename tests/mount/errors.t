#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What a mount says and returns when it cannot be: one clear sentence, the right exit code, no secret.
# And what happens when the server goes away under a mount that is up.
. "$(dirname "$0")/../lib/tap.sh"
. "$TOP/tests/lib/servers.sh"
. "$TOP/tests/lib/mount.sh"
needs_mount
needs_foreign
store_up

# refused CODE REGEX NAME COMMAND…: exactly one line on stderr, nothing on stdout, and nothing is mounted.
refused() {
    local code=$1 text=$2 name=$3 rc err
    shift 3
    timeout -k 5 100 "$@" >"$T/out" 2>"$T/err" </dev/null
    rc=$?
    err=$(<"$T/err")
    like "$rc" "^($code)\$" "$name: exit code $code"
    like "$err" "$text" "$name: says why"
    is "$(wc -l <"$T/err"):$(wc -c <"$T/out")" "1:0" "$name: in one line, on stderr"
    [ "$(wc -l <"$T/err")" = 1 ] || diag "$err"
    if grep -qF -e "$S3_SECRET_KEY" "$T/err" "$T/out"; then fail "$name: the secret is shown"; fi
    if mnt_is_mounted; then
        fail "$name: something is mounted"
        umount -l "$MNT"
    fi
}
o="cache_dir=$T/cache,op_timeout=3s"
for f in "" -f; do
    n=${f:+ ($f)}
    refused 3 "no-such-bucket" "a missing bucket$n" "$MLOPSFS_BIN" mount $f -o "$o" s3://no-such-bucket "$MNT"
    refused 2 "S3_SECRET_KEY|secret|signature|credentials" "a wrong secret$n" env S3_SECRET_KEY=wrongwrongwrong "$MLOPSFS_BIN" mount $f -o "$o" "$SOURCE" "$MNT"
    refused 2 "S3_ACCESS_KEY|access key|credentials" "an unknown access key$n" env S3_ACCESS_KEY=unknownunknown "$MLOPSFS_BIN" mount $f -o "$o" "$SOURCE" "$MNT"
    refused 3 "127.0.0.1:1" "a dead endpoint$n" env S3_ENDPOINT=http://127.0.0.1:1 "$MLOPSFS_BIN" mount $f -o "$o" "$SOURCE" "$MNT"
    refused 3 "nowhere.invalid" "an endpoint that has no address$n" env S3_ENDPOINT=http://nowhere.invalid "$MLOPSFS_BIN" mount $f -o "$o" "$SOURCE" "$MNT"
    refused 4 "$T/missing" "a mount point that is not there$n" "$MLOPSFS_BIN" mount $f -o "$o" "$SOURCE" "$T/missing"
    : >"$T/file"
    refused 4 "$T/file" "a mount point that is a file$n" "$MLOPSFS_BIN" mount $f -o "$o" "$SOURCE" "$T/file"
done
refused 2 "S3_ACCESS_KEY|credentials" "no credentials at all" env -u S3_ACCESS_KEY -u S3_SECRET_KEY "$MLOPSFS_BIN" mount -o "$o" "$SOURCE" "$MNT"
refused 2 "S3_SECRET_KEY" "half a pair" env -u S3_SECRET_KEY "$MLOPSFS_BIN" mount -o "$o" "$SOURCE" "$MNT"
refused 1 "memroy.*memory" "an option that there is not" "$MLOPSFS_BIN" mount -o "$o,memroy=1G" "$SOURCE" "$MNT"
refused 1 "memory" "a value that is none" "$MLOPSFS_BIN" mount -o "$o,memory=lots" "$SOURCE" "$MNT"
refused 1 "memory" "a value too small" "$MLOPSFS_BIN" mount -o "$o,memory=1K" "$SOURCE" "$MNT"
refused 1 "s3x:" "a source that is none" "$MLOPSFS_BIN" mount -o "$o" s3x://bucket "$MNT"
refused 1 "" "no arguments" "$MLOPSFS_BIN" mount
refused 1 "mout" "a subcommand that there is not" "$MLOPSFS_BIN" mout
refused 1 "bogus" "a flag that there is not" "$MLOPSFS_BIN" mount --bogus "$SOURCE" "$MNT"
for e in 'not a url' ftp://x host:9000 http:// http://h/path http://h:0 'http://h?x=1'; do
    refused 1 "endpoint.*http://host" "endpoint=$e" "$MLOPSFS_BIN" mount -o "$o,endpoint=$e" "$SOURCE" "$MNT"
    unlike "$(<"$T/err")" "Invalid argument" "endpoint=$e: in words of its own"
done
refused 1 "endpoint.*password" "an endpoint with credentials" env S3_ENDPOINT="http://me:$S3_SECRET_KEY@127.0.0.1:1" "$MLOPSFS_BIN" mount -o "$o" "$SOURCE" "$MNT"
refused 1 "region" "a region that is none" "$MLOPSFS_BIN" mount -o "$o,region=a b" "$SOURCE" "$MNT"
refused 1 "$T/none.pem" "a ca_file that is not there" "$MLOPSFS_BIN" mount -o "$o,ca_file=$T/none.pem" "$SOURCE" "$MNT"
for p in ../x a//b a/./b //; do
    refused 1 "prefix" "a prefix that is no path, $p" "$MLOPSFS_BIN" mount -o "$o" "$SOURCE/$p" "$MNT"
done
refused 3 "InvalidBucketName.*check the bucket's name" "a bucket that the server does not take" "$MLOPSFS_BIN" mount -o "$o" s3://A_B "$MNT"
printf '[mlopsfs]\nmemory = 256M\ncolour = red\n' >"$T/bad.conf"
refused 1 "bad.conf.*colour" "a configuration line that is none" env MLOPSFS_CONF="$T/bad.conf" "$MLOPSFS_BIN" mount -o "$o" "$SOURCE" "$MNT"
printf '[mlopsfs]\nmemory = 256M\nthis is nonsense\n' >"$T/bad.conf"
refused 1 "bad.conf" "a configuration file that is none" env MLOPSFS_CONF="$T/bad.conf" "$MLOPSFS_BIN" mount -o "$o" "$SOURCE" "$MNT"
refused 1 "$T/none.conf" "a configuration file that is not there" "$MLOPSFS_BIN" mount -c "$T/none.conf" -o "$o" "$SOURCE" "$MNT"
printf '[mlopsfs]\naccess_key = %s\nsecret_key = %s\n' "$S3_ACCESS_KEY" "$S3_SECRET_KEY" >"$T/open.conf"
chmod 644 "$T/open.conf"
refused 2 "open.conf" "a secret in a file that others can read" env -u S3_ACCESS_KEY -u S3_SECRET_KEY MLOPSFS_CONF="$T/open.conf" "$MLOPSFS_BIN" mount -o "$o" "$SOURCE" "$MNT"
chmod 600 "$T/open.conf"
cmd_ok "in one that only its owner can read, it serves" env -u S3_ACCESS_KEY -u S3_SECRET_KEY MLOPSFS_CONF="$T/open.conf" "$MLOPSFS_BIN" mount -o "$o" "$SOURCE" "$MNT"
cmd_ok "umount" "$MLOPSFS_BIN" umount "$MNT"
if have setpriv && [ "$(id -u)" = 0 ]; then
    mkdir "$T/rootonly" && chmod 755 "$T/rootonly" && chmod 711 "$T" && mkdir -m 777 "$T/cacheu"
    # the program itself must be within the other user's reach
    install -m 755 "$MLOPSFS_BIN" "$T/mlopsfs"
    refused 4 "$T/rootonly" "a mount point one may not write to" setpriv --reuid 65534 --regid 65534 --clear-groups \
        env XDG_RUNTIME_DIR= "$T/mlopsfs" mount -o "cache_dir=$T/cacheu" "$SOURCE" "$T/rootonly"
fi
: >"$T/notdir"
refused "1|5" "$T/notdir" "a cache directory that is a file" "$MLOPSFS_BIN" mount -o "cache_dir=$T/notdir" "$SOURCE" "$MNT"
for c in umount status sync query; do
    "$MLOPSFS_BIN" $c "$MNT" >"$T/out" 2>"$T/err"
    is "$?:$(wc -l <"$T/err")" "4:1" "$c of what is no mount: exit code 4 and a sentence: $(<"$T/err")"
done
cmd_ok "--help" "$MLOPSFS_BIN" --help
cmd_ok "mount --help" "$MLOPSFS_BIN" mount --help
cmd_ok "--version" "$MLOPSFS_BIN" --version

# ---- at run time ----
gen 5 6000000 >"$T/six"
s3_put six "$T/six"
s3_text small content
mnt_up "op_timeout=3s" attr_ttl=0s dir_ttl=0s || bail_out "no mount"
is "$(cat "$MNT/small")" content "the mount is up"
exec {w}>"$MNT/unsent"
echo bytes >&"$w"
if [ "$MLOPSFS_STORE" = minio ]; then
    stop_server "$server_pid"
    cmd_fails "server gone: a read fails" timeout 60 cat "$MNT/six"
    errno_is EIO "server gone: a write fails" timeout 60 cp "$T/file" "$MNT/lost"
    cmd_fails "server gone: ls fails" timeout 60 ls "$MNT/sub"
    cmd_fails "server gone: mkdir fails" timeout 60 mkdir "$MNT/newdir"
    cmd_fails "server gone: rename fails" timeout 60 mv "$MNT/small" "$MNT/small2"
    cmd_fails "server gone: unlink fails" timeout 60 rm "$MNT/small"
    cmd_ok "server gone: status answers" timeout 60 "$MLOPSFS_BIN" status "$MNT"
    eval "minio_at '$server_port' $w>&-" || bail_out "minio does not come back"
    is "$(timeout 100 cat "$MNT/small")" content "server back: reads work"
    is "$(sha "$MNT/six")" "$(sha "$T/six")" "server back: all the bytes"
    cmd_ok "server back: writes work" bash -c "echo y >'$MNT/found' && [ \"\$(cat '$MNT/found')\" = y ]"
    exec {w}>&-
    is "$(s3_get unsent)" bytes "what was written before and closed after is in the bucket"
else
    exec {w}>&-
    skip "the server goes away" "tried with minio"
fi
# Wrong from outside, right afterwards.
s3_rm small
errno_is ENOENT "an object that is deleted" cat "$MNT/small"
s3_text small again
is "$(cat "$MNT/small")" again "and that comes back"
mnt_down
ok $? "umount"
unlike "$(cat "$T"/*.log 2>/dev/null | grep -F "$S3_SECRET_KEY")" "." "no secret in any log"
mnt_up log_level=debug || bail_out "no mount"
echo x >"$MNT/x"; cat "$MNT/x" >/dev/null; ls -l "$MNT" >/dev/null
mnt_down
unlike "$(grep -aiE "authorization:|signature=[0-9a-f]" "$T"/mount.log; grep -aF "$S3_SECRET_KEY" "$T"/mount.log)" "." "nor a signature, even when everything is logged"
done_testing
