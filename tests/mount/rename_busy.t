#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A directory is renamed while files below it are written, made and removed: nothing of that is lost.
. "$(dirname "$0")/../lib/tap.sh"
. "$TOP/tests/lib/servers.sh"
. "$TOP/tests/lib/mount.sh"
needs_mount
[ "$MLOPSFS_STORE" = local ] || skip_all "tried with a local store, whose delays are injected"
store_up
mnt_up || bail_out "no mount"
mkdir -p "$MNT/z/sub"
for i in {1..200}; do echo "old$i" >"$MNT/z/sub/k$i"; done
# Every request takes 60 ms, and what was listed stays known, so that all of it falls into the middle of the rename.
mnt_again dir_ttl=30s attr_ttl=30s 'fault=rate=0\,seed=1\,delay_ms=60'
ls "$MNT/z/sub" >/dev/null
mv "$MNT/z" "$MNT/y" 2>"$T/mv.err" &
mv=$!
copying() { [ "$(mnt_sum "requests")" -gt 60 ]; }
wait_until 60 copying
ok $? "the rename is under way"
written=0
echo NEW 2>/dev/null >"$MNT/z/sub/k1" && written=1
made=0
echo created 2>/dev/null >"$MNT/z/sub/new" && made=1
removed=0
rm "$MNT/z/sub/k2" 2>/dev/null && removed=1
appended=0
echo more 2>/dev/null >>"$MNT/z/sub/k199" && appended=1
diag "written $written, made $made, removed $removed, appended $appended"
wait $mv
is "$?:$(<"$T/mv.err")" "0:" "the rename succeeds"
mnt_again
is "$(ls "$MNT")" y "only the new name is there"
is "$(cat "$MNT/y/sub/k1")" "$([ $written = 1 ] && echo NEW || echo old1)" "what was written and closed meanwhile is there"
is "$(cat "$MNT/y/sub/new" 2>/dev/null)" "$([ $made = 1 ] && echo created)" "so is a file that was made"
is "$(cat "$MNT/y/sub/k199")" "$(echo old199; [ $appended = 0 ] || echo more)" "and what was appended"
is "$(cat "$MNT/y/sub/k2" 2>/dev/null)" "$([ $removed = 1 ] || echo old2)" "what was removed stays removed"
is "$(ls "$MNT/y/sub" | wc -l)" $((200 + made - removed)) "nothing else came or went"
done_testing
