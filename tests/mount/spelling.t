#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# One store, spelled in several ways, has one catalog: users' attributes and videos' UUIDs are there whichever was used.
. "$(dirname "$0")/../lib/tap.sh"
. "$TOP/tests/lib/servers.sh"
. "$TOP/tests/lib/mount.sh"
needs_mount
have setfattr && have getfattr || skip_all "no attr"
store_up
mnt_up || bail_out "no mount"
echo x >"$MNT/f"
head -c 1000 /dev/zero >"$MNT/v.mp4" # no video, but a UUID is made for what is asked
cmd_ok "an attribute of the user's" setfattr -n user.project -v alpha "$MNT/f"
uuid=$(getfattr --only-values -n user.video.uuid "$MNT/v.mp4" 2>/dev/null)
same() { # NAME
    is "$(getfattr --only-values -n user.project "$MNT/f" 2>/dev/null)" alpha "$1: the attribute"
    is "$(getfattr --only-values -n user.video.uuid "$MNT/v.mp4" 2>/dev/null)" "$uuid" "$1: the UUID"
    is "$(find "$T/cache" -name catalog.db | wc -l)" 1 "$1: one catalog"
}
if [ "$MLOPSFS_STORE" = local ]; then
    ln -s store "$T/link"
    ln -s . "$T/here"
    for s in "local:$T/link" "local:$T/here/store" "local:$T//here/./store/"; do
        mnt_down
        SOURCE=$s
        mnt_up || bail_out "no mount of $s"
        same "${s//"$T"/DIR}"
    done
else
    plain=$S3_ENDPOINT
    for e in "$plain/" "${plain/http/HTTP}" "$plain"; do
        mnt_down
        export S3_ENDPOINT=$e
        mnt_up || bail_out "no mount from $e"
        same "$e"
    done
    for e in localhost LocalHost; do # says nothing of 127.0.0.1
        mnt_down
        export S3_ENDPOINT=http://$e:$server_port
        mnt_up || bail_out "no mount from $S3_ENDPOINT"
        is "$(find "$T/cache" -name catalog.db | wc -l)" 2 "$e is another name, but the same in every case of letters"
    done
    export S3_ENDPOINT=$plain
fi
mnt_down
ok $? "umount"
done_testing
