#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The command line: help, refusals and their exit codes, finding the mount that is meant, query's output.
. "$(dirname "$0")/../lib/tap.sh"
. "$TOP/tests/lib/servers.sh"
. "$TOP/tests/lib/mount.sh"
needs_mount
bin=$MLOPSFS_BIN

# says CODE REGEX NAME ARGUMENT…: that exit code, and one line on stderr that matches.
says() {
    local code=$1 text=$2 name=$3 rc
    shift 3
    within 60 "$bin" "$@" >"$T/out" 2>"$T/err" </dev/null
    rc=$?
    is "$rc:$(wc -l <"$T/err")" "$code:1" "$name: exit code, and one line"
    like "$(<"$T/err")" "$text" "$name: says why"
}

# ---- without a mount ----
cmd_ok "--help" "$bin" --help
for c in mount umount status sync discard recover query scan; do
    like "$("$bin" --help)" "mlopsfs $c" "--help names $c"
    help=$("$bin" $c --help 2>"$T/err")
    is "$?:$(<"$T/err")" "0:" "$c --help succeeds"
    like "$help" "mlopsfs $c" "$c --help says how to call it"
done
help=$("$bin" mount --help)
for o in $(sed -n 's/^#\([a-z_]*\) =.*/\1/p' "$TOP/mlopsfs.conf"); do
    like "$help" "  $o=" "mount --help explains $o"
done
like "$("$bin" --version)" '^mlopsfs [0-9]+\.[0-9]+\.[0-9]+$' "--version"
is "$("$bin" --dump-conf)" "$(<"$TOP/mlopsfs.conf")" "mlopsfs.conf is the table's"
"$bin" >"$T/out" 2>"$T/err"
is "$?" 1 "no arguments"
says 1 '"warm"; there are: mount, umount, status, sync, discard, recover, query, scan' "a subcommand that there is not" warm
says 1 "discard takes files" "discard of nothing" discard
says 1 "-x" "an option that there is not" umount -x
says 1 "umount takes one mount point" "umount of nothing" umount
says 1 "umount takes one mount point" "umount of two" umount a b
says 1 "status takes one" "status of two" status a b
says 1 "sync takes one" "sync of two" sync a b
says 1 "are for sync of a source" "sync of a path with options" sync -o disk=1G "$T"
says 1 "read_only is on" "sync of a source, read-only" sync -o "read_only,cache_dir=$T/cache" "local:$T/store"
says 1 "nonsense" "sync of a source with an option that there is not" sync -o nonsense=1 "local:$T/store"
says 1 "recover takes nothing" "recover of what is no word of its" recover save
says 5 "nothing called \"x\"" "recover of what there is not" recover -o "cache_dir=$T/cache" discard x
says 1 "scan takes files or directories" "scan of nothing" scan
says 1 "where shall s3://b be mounted" "a source alone" mount s3://b
says 1 "mount takes a source and a directory" "three operands" mount a b c
says 1 "everyone on this machine can read a command line" "a secret on the command line" mount -o secret_key=abc local:x "$MNT"
unlike "$(<"$T/err")" "abc" "which is not repeated"
says 1 "S3_BUCKET" "no source, and no S3_BUCKET" mount "$MNT"
says 4 "$T/none" "a mount point that is not there" mount "local:$T/store" "$T/none"
says 4 "No such file" "umount of what is not there" umount "$T/none"
says 4 "not mounted by mlopsfs" "umount of a plain directory" umount "$T"
says 4 "not mounted by mlopsfs" "scan of one" scan "$T"
says 1 "exclude each other" "two formats" query --json --table
says 5 "cannot read the catalog" "a catalog that is not there" query --catalog "$T/none.db"
echo "this is no database, and it is long enough to be looked at closely by anyone" >"$T/text.db"
within 60 "$bin" query --catalog "$T/text.db" >"$T/out" 2>"$T/err"
is "$?" 5 "a catalog that is none"
is "$(<"$T/text.db")" "this is no database, and it is long enough to be looked at closely by anyone" "is left as it is"
ln -s "$bin" "$T/mount.mlopsfs"
bin=$T/mount.mlopsfs says 1 "takes a source and a directory" "mount(8)'s helper with one operand" s3://b
bin=$T/mount.mlopsfs says 1 "nonsense" "mount(8)'s helper, checking only" -f s3://b "$MNT" -o nonsense=1

# ---- with mounts ----
SOURCE=local:$T/store
mnt_up || bail_out "no mount"
like "$("$bin" status)" "local:$T/store on $MNT: serving, process $(mnt_pid)" "status lists it"
cmd_ok "status of it" "$bin" status "$MNT"
cmd_ok "sync of a path in it" "$bin" sync "$MNT/."
cmd_ok "sync from inside, without a path" env -C "$MNT" "$bin" sync
says 4 "$MNT/sub is not a mount point; it lies in the mount $MNT|No such file" "umount of something in it" umount "$MNT/sub"
ln -s "$MNT" "$T/link"
cmd_ok "status by a symbolic link" "$bin" status "$T/link"
is "$("$bin" query "$MNT" --json)" "[]" "nothing to query yet"
like "$("$bin" query "$MNT")" "^PATH +DURATION +CODEC" "but a table has its head"

if have ffmpeg; then
    ffmpeg -nostdin -v error -f lavfi -i testsrc2=size=64x48:rate=10 -t 2 -c:v mpeg4 "$T/v.mp4"
    odd=$'a "b"\\\n\xff\x01.mp4'
    mkdir -p "$MNT/deep/er"
    cp "$T/v.mp4" "$MNT/$odd"
    cp "$T/v.mp4" "$MNT/deep/er/名前.mp4"
    cp "$T/v.mp4" "$MNT/plain.mp4"
    echo no video >"$MNT/fake.mov"
    echo text >"$MNT/note.txt"
    like "$("$bin" scan "$MNT" 2>&1)" "^4 files looked into, 3 of them media, 0 failed$" "scan looks into what has a media name"
    like "$("$bin" scan "$MNT/deep" "$MNT/plain.mp4" 2>&1)" "^2 files looked into, 2 of them media, 0 failed$" "scan of parts"
    is "$("$bin" query "$MNT" --json | python3 -c '
import json, sys
for v in json.load(sys.stdin):
    print(ascii(v["path"][len(sys.argv[1]) + 1:]), v["codec"], v["width"], v["height"], v["frame_rate"], v["duration"], v["audio_codec"], len(v["uuid"]))' "$MNT")" \
        "'a \"b\"\\\\\\n\\ufffd\\x01.mp4' mpeg4 64 48 10 2 None 36
'deep/er/\\u540d\\u524d.mp4' mpeg4 64 48 10 2 None 36
'plain.mp4' mpeg4 64 48 10 2 None 36" "JSON that parses, whatever the names are"
    is "$("$bin" query "$MNT" | python3 -c '
import sys
rows = sys.stdin.buffer.read().decode().split("\n")
at = rows[0].index("UUID")
print(len(rows), any(ord(c) < 32 for r in rows for c in r), [r[at - 2:at] + r[at:at + 36].count("-") * "-" for r in rows if r.isascii()][1:-1])')" \
        "5 False ['  ----']" "a table: a line for each, no control characters, columns aligned"
    is "$(cd "$MNT/deep" && "$bin" query 'key~deep/*' --json | grep -c '"uuid"')" 1 "query of the mount around the working directory"
    like "$("$bin" query "$MNT" 'colour=red' 2>&1)" "colour" "a field that there is not"
    is "$("$bin" query "$MNT" 'duration<1' --json)" "[]" "no match"
    catalog=$(find "$T/cache" -name catalog.db)
    is "$("$bin" query --catalog "$catalog" 'name=plain.mp4' --json | python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["path"])')" "data/plain.mp4" "a catalog without a mount"
else
    skip "scan and query" "no ffmpeg"
fi

# A second mount: which one is meant must be said, unless one is inside it.
mkdir "$T/mnt2"
cmd_ok "a second mount" "$bin" mount -o "cache_dir=$T/cache2" "local:$T/store2" "$T/mnt2"
if [ "$(id -u)" = 0 ] && have unshare; then
    # Other tests have mounts, too: they are left out.
    unmounted_others() {
        unshare -m --propagation private bash -c 'awk "/ - fuse\\.mlopsfs / { print \$5 }" /proc/self/mountinfo | while IFS= read -r m; do
            case $m in "$0"/*) ;; *) umount -l "$m" ;; esac
        done; exec "$@"' "$T" "$@"
    }
    dirty() { for m in "$MNT" "$T/mnt2"; do "$bin" status "$m" | grep '^dirty_files'; done; }
    . "$TOP/tests/crash/writers.sh"
    writer open "$bin" go.one
    MNT=$T/mnt2 writer open "$bin" go.two
    is "$(dirty)" $'dirty_files 1\ndirty_files 1' "both have something to bring"
    cmd_ok "sync of no one in particular" within 100 unmounted_others "$bin" sync
    is "$(dirty)" $'dirty_files 0\ndirty_files 0' "is sync of all"
    end_writers
else
    skip "sync of all mounts" "not root"
fi
cmd_ok "but from inside one" env -C "$T/mnt2" "$bin" sync
cmd_ok "umount of the second" "$bin" umount "$T/mnt2"
if [ "$(id -u)" = 0 ] && have setpriv; then
    chmod 711 "$T"
    install -m 755 "$bin" "$T/mlopsfs"
    setpriv --reuid 65534 --regid 65534 --clear-groups env XDG_RUNTIME_DIR= "$T/mlopsfs" status "$MNT" >"$T/out" 2>&1
    is "$?" 4 "another user gets no answer"
fi
mnt_down
ok $? "umount"
is "$("$bin" status | grep -cF "$T/")" 0 "status lists nothing any more"
done_testing
