#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Another client changes an object: a handle that is open never mixes versions, a new open gives the new bytes.
. "$(dirname "$0")/../lib/tap.sh"
. "$TOP/tests/lib/servers.sh"
. "$TOP/tests/lib/mount.sh"
needs_mount
needs_foreign
store_up
mnt_up attr_ttl=0s dir_ttl=0s || bail_out "no mount"

n=8000000
gen 1 $n >"$T/v1"
gen 2 $n >"$T/v2"
gen 3 $((n / 2)) >"$T/v3"
s3_put obj "$T/v1"
is "$(sha "$MNT/obj")" "$(sha "$T/v1")" "the first version"
for i in 2 1 2 1; do
    s3_put obj "$T/v$i"
    is "$(sha "$MNT/obj")" "$(sha "$T/v$i")" "version $i, of the same size, opened again"
done
s3_put obj "$T/v3"
is "$(sha "$MNT/obj"):$(stat -c %s "$MNT/obj")" "$(sha "$T/v3"):$((n / 2))" "a shorter one"
s3_put obj "$T/v1"
is "$(sha "$MNT/obj"):$(stat -c %s "$MNT/obj")" "$(sha "$T/v1"):$n" "a longer one"

# A handle on the old version. Reads are in 64 KiB, all over the file.
cat >"$T/reader.py" <<'PY'
import errno, os, random, sys
path, old, new = sys.argv[1:4]
old, new = open(old, "rb").read(), open(new, "rb").read()
f = os.open(path, os.O_RDONLY)
assert os.pread(f, 65536, 0) == old[:65536]
print("open", flush=True)
sys.stdin.readline()
r = random.Random(int(os.environ["MLOPSFS_SEED"]))
got = {"old": 0, "ESTALE": 0}
offsets = list(range(0, len(old), 65536))
r.shuffle(offsets)
for off in offsets:
    try:
        data = os.pread(f, 65536, off)
    except OSError as e:
        if e.errno != errno.ESTALE:
            sys.exit("errno %s at %d" % (errno.errorcode[e.errno], off))
        got["ESTALE"] += 1
        continue
    if data == old[off:off + 65536]:
        got["old"] += 1
    elif data == new[off:off + 65536]:
        sys.exit("new bytes at %d through the old handle" % off)
    else:
        sys.exit("mixed bytes at %d" % off)
g = os.open(path, os.O_RDONLY)
data = b""
while True:
    b = os.read(g, 1 << 20)
    if not b: break
    data += b
if data != new:
    sys.exit("a new handle does not give the new version")
print("old %(old)d ESTALE %(ESTALE)d" % got)
PY
mkfifo "$T/go"
old_handle() { # NAME OLD NEW
    rm -f "$T/reader.out"
    python3 "$T/reader.py" "$MNT/obj" "$2" "$3" <"$T/go" >"$T/reader.out" 2>&1 &
    local pid=$!
    exec {go}>"$T/go"
    wait_until 30 grep -q open "$T/reader.out"
    s3_put obj "$3"
    echo >&"$go"
    exec {go}>&-
    wait $pid
    ok $? "$1: no mixed bytes, and a new handle gives the new ones: $(tail -n 1 "$T/reader.out")"
}
s3_put obj "$T/v1"
mnt_again attr_ttl=0s dir_ttl=0s
old_handle "same size" "$T/v1" "$T/v2"
like "$(tail -n 1 "$T/reader.out")" "ESTALE [1-9]" "what was not read before is ESTALE"
mnt_again attr_ttl=0s dir_ttl=0s
old_handle "shorter" "$T/v2" "$T/v3"
mnt_again attr_ttl=1h dir_ttl=1h
stat "$MNT/obj" >/dev/null
s3_put obj "$T/v1"
cat "$MNT/obj" >"$T/o" 2>"$T/e"
if cmp -s "$T/o" "$T/v1" || grep -q Stale "$T/e"; then
    pass "with an old attribute in the cache, an open gives the new version or ESTALE"
else
    fail "with an old attribute in the cache, an open gives the new version or ESTALE"
    diag "$(ls -l "$T/o" "$T/v1"; cat "$T/e")"
fi
mnt_again attr_ttl=0s dir_ttl=0s

# The object goes away under the handle.
exec {fd}<"$MNT/obj"
head -c 1000 <&"$fd" >/dev/null
s3_rm obj
timeout 60 cat <&"$fd" >"$T/rest" 2>"$T/err"
rc=$?
exec {fd}<&-
if [ $rc != 0 ]; then like "$(cat "$T/err")" "Stale file handle|No such file" "the rest of a deleted object is an error"; else
    is "$(tail -c 1000 "$T/rest" | sha)" "$(tail -c 1000 "$T/v1" | sha)" "the rest of a deleted object is its own"
fi
errno_is ENOENT "and it is not there any more" cat "$MNT/obj"

# Both write: where the server honours If-Match, theirs stays and our close says so.
printf base >"$T/small"
s3_put both "$T/small"
cat >"$T/both.py" <<'PY'
import os, sys
f = os.open(sys.argv[1], os.O_RDWR | (os.O_TRUNC if "trunc" in sys.argv else 0))
os.write(f, b"ours")
print("open", flush=True)
sys.stdin.readline()
try:
    os.close(f)
except OSError as e:
    sys.exit("close: %s" % os.strerror(e.errno))
PY
python3 "$T/both.py" "$MNT/both" <"$T/go" >"$T/both.out" 2>"$T/both.err" &
both=$!
exec {go}>"$T/go"
wait_until 30 grep -q open "$T/both.out"
s3_text both theirs
exec {go}>&-
wait $both
rc=$?
diag "both wrote: close returned $rc ($(<"$T/both.err")), the object is '$(s3_get both)', listed: $(s3_ls both | tr '\n' ' ')"
if [[ $("$MLOPSFS_BIN" status "$MNT") == *" put_if"* ]]; then
    is "$rc:$(wc -l <"$T/both.err")" 1:1 "our close fails"
    like "$(<"$T/both.err")" "^close: " "by an error of close"
    is "$(s3_get both)" theirs "and the object is theirs"
    is "$(s3_ls both)" both "nothing else was left beside it"
    is "$(cat "$MNT/both")" ours "what was written here is not lost yet: it can be read here"
    told() { # NAME COMMAND…: fails with 5, and says on stderr alone what happened and what helps
        "${@:2}" >"$T/out" 2>"$T/err"
        is "$?:$(wc -l <"$T/err")" "5:$([ "$1" = sync ] && echo 1 || echo 2)" "so $1 refuses"
        like "$(<"$T/err")" "^mlopsfs: $MNT/both: somebody else has changed .*copy it elsewhere.*remove it.*write it whole again" \
            "names it, says what happened and what helps"
        unlike "$(<"$T/out")" "both|Stale|0 files" "and that on one stream"
    }
    told umount "$MLOPSFS_BIN" umount "$MNT"
    like "$(<"$T/err")" "stays mounted" "it stays mounted"
    told sync "$MLOPSFS_BIN" sync "$MNT"
    cmd_ok "it can be saved" cp "$MNT/both" "$MNT/saved"
    is "$(s3_get saved):$(s3_get both)" ours:theirs "under another name"
    echo over >"$MNT/over"
    errno_is ESTALE "another file cannot be renamed over it" mv "$MNT/over" "$MNT/both"
    is "$(cat "$MNT/over"):$(cat "$MNT/both"):$(s3_get both)" over:ours:theirs "and nothing is lost by that"
    cmd_ok "and given up" rm "$MNT/both"
    is "$(s3_get both)" theirs "which leaves theirs alone"
    cmd_ok "nothing waits any more" "$MLOPSFS_BIN" sync "$MNT"
    is "$(cat "$MNT/both")" theirs "theirs is what is seen here"
else
    like "$(s3_get both)" "^(theirs|ours)$" "the object is one of both, whole"
fi
# Of a file of which only some bytes were written, the others are gone with the version they belong to.
gen 4 3000000 >"$T/base"
s3_put part "$T/base"
python3 "$T/both.py" "$MNT/part" <"$T/go" >"$T/both.out" 2>"$T/both.err" &
both=$!
exec {go}>"$T/go"
wait_until 30 grep -q open "$T/both.out"
s3_text part theirs
exec {go}>&-
wait $both
if [[ $("$MLOPSFS_BIN" status "$MNT") == *" put_if"* ]]; then
    drop_caches
    errno_is ESTALE "what needs bytes of the old version cannot be read" cat "$MNT/part"
    errno_is ESTALE "nor moved" mv "$MNT/part" "$MNT/part2"
    is "$(s3_get part)" theirs "theirs is as it was"
    chmod 640 "$MNT/part"
    cmd_ok "written whole it is committed, whatever was tried in between" cp "$T/base" "$MNT/part"
    is "$(s3_sha part)" "$(sha "$T/base")" "and replaces theirs"
    s3_text moved base
    python3 "$T/both.py" "$MNT/moved" <"$T/go" >"$T/both.out" 2>"$T/both.err" &
    both=$!
    exec {go}>"$T/go"
    wait_until 30 grep -q open "$T/both.out"
    s3_text moved theirs
    exec {go}>&-
    wait $both
    cmd_ok "what was overwritten whole can be moved out of the way" mv "$MNT/moved" "$MNT/away"
    is "$(s3_get moved):$(s3_get away):$(cat "$MNT/moved"):$(cat "$MNT/away")" theirs:ours:theirs:ours "and both are there"
fi
# The same where all of it is replaced from the start.
s3_text all "was here before"
python3 "$T/both.py" "$MNT/all" trunc <"$T/go" >"$T/both.out" 2>"$T/both.err" &
both=$!
exec {go}>"$T/go"
wait_until 30 grep -q open "$T/both.out"
s3_text all theirs
exec {go}>&-
wait $both
rc=$?
if [[ $("$MLOPSFS_BIN" status "$MNT") == *" put_if"* ]]; then
    like "$rc:$(<"$T/both.err")" "^1:close: Stale" "our close fails, also of a file that was opened to be overwritten"
    is "$(s3_get all)" theirs "and the object is theirs"
    cmd_ok "written whole again" bash -c "echo again >'$MNT/all'"
    is "$(s3_get all)" again "it replaces theirs"
fi
if [ "$MLOPSFS_STORE" = minio ]; then like "$("$MLOPSFS_BIN" status "$MNT")" "capabilities.* put_if" "MinIO honours If-Match"; fi
cmd_ok "the mount goes on" bash -c "echo fine >'$MNT/after' && [ \"\$(cat '$MNT/after')\" = fine ]"
s3_text shared one
is "$(cat "$MNT/shared")" one "theirs"
echo two >"$MNT/shared"
is "$(s3_get shared)" two "ours"
s3_text shared three
is "$(cat "$MNT/shared")" three "theirs again"
echo four >>"$MNT/shared"
is "$(s3_get shared)" threefour "an append is to the newest version"
# Two mounts of one bucket.
mkdir "$T/mnt2" "$T/cache2"
"$MLOPSFS_BIN" mount -o "cache_dir=$T/cache2,attr_ttl=0s,dir_ttl=0s" "$SOURCE" "$T/mnt2"
ok $? "a second mount of the bucket"
for i in {1..10}; do
    gen "$i" 300000 >"$MNT/pingpong"
    [ "$(sha "$T/mnt2/pingpong")" = "$(gen_sha "$i" 300000)" ] || fail "the second mount reads version $i"
    gen "$((i + 100))" 300000 >"$T/mnt2/pingpong"
    [ "$(sha "$MNT/pingpong")" = "$(gen_sha "$((i + 100))" 300000)" ] || fail "the first mount reads version $i"
done
pass "each sees what the other wrote"
cmd_ok "umount of the second" "$MLOPSFS_BIN" umount "$T/mnt2"
done_testing
