#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Another client changes an object: a handle that is open never mixes versions, a new open gives the new bytes. It changes
# metadata alone, which no ETag shows: they are seen, and what is changed here goes on top of them.
. "$(dirname "$0")/../lib/tap.sh"
. "$TOP/tests/lib/servers.sh"
. "$TOP/tests/lib/mount.sh"
needs_mount
needs_foreign
store_up
mnt_up attr_ttl=0s dir_ttl=0s on_conflict=fail || bail_out "no mount"

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
mnt_again attr_ttl=0s dir_ttl=0s on_conflict=fail
old_handle "same size" "$T/v1" "$T/v2"
like "$(tail -n 1 "$T/reader.out")" "ESTALE [1-9]" "what was not read before is ESTALE"
mnt_again attr_ttl=0s dir_ttl=0s on_conflict=fail
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
mnt_again attr_ttl=0s dir_ttl=0s on_conflict=fail

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
ours_open() { # PATH [trunc]: ours is written and open; it is closed when $go is
    rm -f "$T/both.out" # the reader of the fifo is there before its output is truncated
    python3 "$T/both.py" "$@" <"$T/go" >"$T/both.out" 2>"$T/both.err" &
    both=$!
    exec {go}>"$T/go"
    wait_until 30 grep -q open "$T/both.out"
}
ours_open "$MNT/both"
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
ours_open "$MNT/part"
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
    ours_open "$MNT/moved"
    s3_text moved theirs
    exec {go}>&-
    wait $both
    cmd_ok "what was overwritten whole can be moved out of the way" mv "$MNT/moved" "$MNT/away"
    is "$(s3_get moved):$(s3_get away):$(cat "$MNT/moved"):$(cat "$MNT/away")" theirs:ours:theirs:ours "and both are there"
fi
# The same where all of it is replaced from the start.
s3_text all "was here before"
ours_open "$MNT/all" trunc
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
"$MLOPSFS_BIN" mount -o "commit=close,cache_dir=$T/cache2,attr_ttl=0s,dir_ttl=0s" "$SOURCE" "$T/mnt2"
ok $? "a second mount of the bucket"
for i in {1..10}; do
    gen "$i" 300000 >"$MNT/pingpong"
    [ "$(sha "$T/mnt2/pingpong")" = "$(gen_sha "$i" 300000)" ] || fail "the second mount reads version $i"
    gen "$((i + 100))" 300000 >"$T/mnt2/pingpong"
    [ "$(sha "$MNT/pingpong")" = "$(gen_sha "$((i + 100))" 300000)" ] || fail "the first mount reads version $i"
done
pass "each sees what the other wrote"
cmd_ok "umount of the second" "$MLOPSFS_BIN" umount "$T/mnt2"

# ---- the same bytes with other metadata: the ETag stays ----

mnt_again
"$MLOPSFS_BIN" mount -o "commit=close,cache_dir=$T/cache2" "$SOURCE" "$T/mnt2"
ok $? "two mounts again"
shows() { ls -l "$MNT" && [ "$(stat -c '%a %Y' "$1")" = "$2" ]; } # PATH "MODE MTIME"
sees() { # NAME PATH "MODE MTIME"
    if wait_until 20 shows "$2" "$3"; then pass "$1"; else
        fail "$1"
        diag "got $(stat -c '%a %Y' "$2"), wanted $3"
    fi
}
y2001=$(date -d 2001-01-01 +%s) y2002=$(date -d 2002-02-02 +%s)
echo data >"$MNT/m.txt"
: >"$MNT/empty"
mkdir "$MNT/md"
chmod 644 "$MNT/m.txt" "$MNT/empty"
ls -l "$MNT" >/dev/null
change() { # MODE DATE: through the second mount
    wait_until 20 test -e "$T/mnt2/md" -a -e "$T/mnt2/m.txt" -a -e "$T/mnt2/empty"
    chmod "$1" "$T/mnt2/m.txt" "$T/mnt2/empty" "$T/mnt2/md" && touch -d "$2" "$T/mnt2/m.txt" "$T/mnt2/empty" "$T/mnt2/md"
}
cmd_ok "chmod and touch through the second" change 700 2001-01-01
for i in m.txt empty md; do sees "the first sees those of $i" "$MNT/$i" "700 $y2001"; done
mnt_again
for i in m.txt empty md; do sees "so it does after a remount: $i" "$MNT/$i" "700 $y2001"; done
# With attributes that need not be asked for.
asks_nothing() {
    mnt_again && ls -l "$MNT" >"$T/ls" && grep -q empty "$T/ls" && [ "$(mnt_status 'requests LIST')" -gt 0 ] && [ -z "$(mnt_status 'requests HEAD')" ]
}
rmdir "$MNT/md"
if [ "$MLOPSFS_STORE" = minio ]; then # versitygw's dates tell nothing
    wait_until 30 asks_nothing
    ok $? "what has not changed for a while costs a listing no HEAD"
fi
mkdir "$MNT/md"
ls -l "$MNT" >/dev/null
exec {fd}<"$MNT/m.txt"
ino=$(stat -c %i "$MNT/m.txt")
cmd_ok "other ones through the second" change 755 2002-02-02
for i in m.txt empty md; do sees "the first sees them: $i" "$MNT/$i" "755 $y2002"; done
is "$(stat -L -c '%a %Y %i' "/dev/fd/$fd"):$(cat <&"$fd")" "755 $y2002 $ino:data" "so does a handle, which goes on reading"
exec {fd}<&-
cmd_ok "umount of the second, again" "$MLOPSFS_BIN" umount "$T/mnt2"

# Another client's metadata stay when something is changed here.
headers() { echo "$(s3_header "$1" x-amz-meta-color) $(s3_header "$1" x-amz-meta-team) $(s3_header "$1" content-type)"; }
paint() { s3_put "$1" "$T/body" "x-amz-meta-color: $2" "x-amz-meta-team: ${3-none}" "Content-Type: ${4-text/plain}"; }
echo body >"$T/body"
paint lu.txt blue
ls -l "$MNT" >/dev/null
stat "$MNT/lu.txt" >/dev/null
paint lu.txt red x text/special
type_is() { stat "$MNT/lu.txt" && [ "$(getfattr --only-values -n user.s3.content_type "$MNT/lu.txt")" = "$1" ]; }
wait_until 20 type_is text/special
ok $? "a new content type is seen"
cmd_ok "chmod" chmod 640 "$MNT/lu.txt"
is "$(headers lu.txt) $(s3_header lu.txt x-amz-meta-mode)" "red x text/special 33184" "keeps it, and the other client's metadata"

mnt_again attr_ttl=0s dir_ttl=0s on_conflict=fail
stat "$MNT/lu.txt" >/dev/null
ls -l "$MNT" >/dev/null
paint lu.txt green y
cmd_ok "chmod at once" chmod 600 "$MNT/lu.txt"
is "$(headers lu.txt)" "green y text/plain" "is on top of the newest"
paint lu.txt white z text/other
cmd_ok "touch" touch -d 2003-03-03 "$MNT/lu.txt"
is "$(headers lu.txt)" "white z text/other" "so is touch"
exec {fd}<>"$MNT/lu.txt"
paint lu.txt black a text/open
cmd_ok "chmod of an open file" chmod 640 "$MNT/lu.txt"
is "$(headers lu.txt)" "black a text/open" "so is this"
s3_meta lu.txt "x-amz-meta-color: pink" "x-amz-meta-team: b" "Content-Type: text/open"
python3 -c 'import os, sys; os.fchmod(int(sys.argv[1]), 0o604)' "$fd"
is "$(headers lu.txt) $(s3_header lu.txt x-amz-meta-mode)" "pink b text/open 33156" "and one through the handle"
exec {fd}<&-
cat >"$T/dirty.py" <<'PY'
import os, sys
f = os.open(sys.argv[1], os.O_RDWR)
os.write(f, b"ours")
if len(sys.argv) > 2:
    os.fchmod(f, 0o606)
print("dirty", flush=True)
sys.stdin.readline()
os.close(f)
PY
dirty() { # NAME "COLOR TEAM" MODE [fchmod]: written here, given other metadata there, closed here
    rm -f "$T/dirty.out"
    python3 "$T/dirty.py" "$MNT/lu.txt" ${4-} <"$T/go" >"$T/dirty.out" &
    local pid=$!
    exec {go}>"$T/go"
    wait_until 30 grep -q dirty "$T/dirty.out"
    s3_meta lu.txt "x-amz-meta-color: ${2% *}" "x-amz-meta-team: ${2#* }" "Content-Type: text/dirty" "x-amz-meta-mode: 33152"
    exec {go}>&-
    wait $pid
    is "$?:$(s3_get lu.txt):$(headers lu.txt) $(s3_header lu.txt x-amz-meta-mode)" "0:ours:$2 text/dirty $3" "$1"
}
s3_put lu.txt "$T/body"
dirty "what was written here goes with the metadata that were set there meanwhile" "gray c" 33152
dirty "but for what was set here" "gold d" 33158 fchmod
is "$(stat -c %a "$MNT/lu.txt")" 606 "which is seen here"
paint mv.txt red
ls -l "$MNT" >/dev/null
stat "$MNT/mv.txt" >/dev/null
paint mv.txt green e
cmd_ok "a rename" mv "$MNT/mv.txt" "$MNT/mv2.txt"
is "$(headers mv2.txt)" "green e text/plain" "takes the newest along"
: >"$T/none"
s3_put mark/ "$T/none" "x-amz-meta-color: red" "x-amz-meta-mode: 16877" "Content-Type: text/marker"
is "$(stat -c %a "$MNT/mark")" 755 "a marker"
s3_put mark/ "$T/none" "x-amz-meta-color: blue" "x-amz-meta-mode: 16832" "Content-Type: text/marker"
is "$(stat -c %a "$MNT/mark")" 700 "with another mode"
s3_put mark/ "$T/none" "x-amz-meta-color: green" "x-amz-meta-mode: 16832" "Content-Type: text/marker"
type=$(s3_header mark/ content-type) # versitygw's own
cmd_ok "chmod of the directory" chmod 750 "$MNT/mark"
is "$(s3_header mark/ x-amz-meta-color) $(s3_header mark/ content-type) $(s3_header mark/ x-amz-meta-mode)" "green $type 16872" "keeps what the other client wrote"
done_testing
