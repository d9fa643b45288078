#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# ffmpeg and ffprobe on a mount; facts of videos as extended attributes; users' own attributes; query.
. "$(dirname "$0")/../lib/tap.sh"
. "$TOP/tests/lib/servers.sh"
. "$TOP/tests/lib/mount.sh"
have ffmpeg || skip_all "no ffmpeg"
ff() { ffmpeg -nostdin -hide_banner -v error -y "$@"; }
ff -f lavfi -i testsrc2=size=320x240:rate=25 -f lavfi -i sine=frequency=440 -t 4 -c:v libx264 -preset ultrafast -pix_fmt yuv420p -b:v 2M -c:a aac "$T/in.mov" || skip_all "ffmpeg cannot make a video"
ff -i "$T/in.mov" -t 2 -c copy "$T/short.mkv"
ff -i "$T/in.mov" -vn -c:a copy "$T/sound.m4a"
head -c 30000 "$T/in.mov" >"$T/cut.mov"
store_up
mnt_up || bail_out "no mount"

plays() { ff -i "$1" -f null - 2>&1; }
duration() { ffprobe -v error -show_entries format=duration -of csv=p=0 "$1"; }
cmd_ok "cp onto the mount" cp "$T/in.mov" "$T/short.mkv" "$T/sound.m4a" "$T/cut.mov" "$MNT/"
is "$(duration "$MNT/in.mov")" "$(duration "$T/in.mov")" "ffprobe"
cmd_ok "ffmpeg from the mount to the mount" ff -i "$MNT/in.mov" -c:v libx264 -preset ultrafast -c:a aac "$MNT/out.mp4"
is "$(plays "$MNT/out.mp4")" "" "the result plays"
cmd_ok "with faststart" ff -i "$MNT/in.mov" -c copy -movflags +faststart "$MNT/fast.mp4"
is "$(plays "$MNT/fast.mp4")" "" "the result plays"
is "$(python3 - "$MNT/fast.mp4" <<'PY'
import struct, sys
f = open(sys.argv[1], "rb"); names = []
while True:
    h = f.read(8)
    if len(h) < 8: break
    n, name = struct.unpack(">I4s", h); names.append(name.decode())
    f.seek(n - 8, 1)
print("moov first" if names.index("moov") < names.index("mdat") else names)
PY
)" "moov first" "its index lies in front"
cmd_ok "segments" bash -c "$(declare -f ff); mkdir '$MNT/hls' && ff -i '$MNT/in.mov' -c copy -f hls -hls_time 1 '$MNT/hls/v.m3u8'"
is "$(plays "$MNT/hls/v.m3u8")" "" "they play"
cmd_ok "a seek into the middle" ff -ss 2 -i "$MNT/in.mov" -frames:v 1 "$MNT/frame.png"
cmd_ok "mkv, written with seeks back" ff -i "$MNT/in.mov" -c copy "$MNT/out.mkv"
is "$(plays "$MNT/out.mkv")" "" "it plays"
mnt_again
is "$(plays "$MNT/out.mp4"; plays "$MNT/fast.mp4"; plays "$MNT/out.mkv"; plays "$MNT/hls/v.m3u8")" "" "all of them play after a remount"
[ -z "$MLOPSFS_PLAIN" ] || done_testing

# ---- facts ----
x() { getfattr --only-values -n "user.video.$2" -- "$1" 2>/dev/null; }
cmd_ok "getfattr" getfattr -d -m - -- "$MNT/in.mov"
all=$(getfattr -d -m - -- "$MNT/in.mov" 2>/dev/null)
for n in uuid container duration bit_rate codec width height frame_rate audio_codec; do
    like "$all" "user\.video\.$n=\"[^\"]+\"" "in.mov has $n"
done
is "$(x "$MNT/in.mov" codec) $(x "$MNT/in.mov" audio_codec) $(x "$MNT/in.mov" width)x$(x "$MNT/in.mov" height)" "h264 aac 320x240" "they are right"
like "$(x "$MNT/in.mov" duration)" "^4(\.0[0-9]*)?$" "duration in seconds, decimal"
like "$(x "$MNT/in.mov" frame_rate)" "^25(\.0+)?$" "frame rate"
uuid=$(x "$MNT/in.mov" uuid)
like "$uuid" "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$" "a UUID"
unlike "$(x "$MNT/fast.mp4" uuid)" "^$uuid$" "another file has another"
like "$(x "$MNT/short.mkv" container)" "matroska|mkv" "mkv"
is "$(x "$MNT/sound.m4a" audio_codec):$(x "$MNT/sound.m4a" codec)" "aac:" "sound alone"
cmd_ok "a file cut short is no reason to fail" bash -c "getfattr -d -m - '$MNT/cut.mov'; stat '$MNT/cut.mov'"
echo text >"$MNT/text.txt"
is "$(getfattr -d -m 'user.video' "$MNT/text.txt" 2>&1)" "" "a text has no facts of videos"
echo not a video >"$MNT/fake.mp4"
for i in "the first time" again; do
    getfattr --absolute-names -d -m 'user.video' "$MNT/fake.mp4" >"$T/out" 2>"$T/err"
    is "$?:$(<"$T/err")" "0:" "a text with a video's name, $i: no error"
    unlike "$(<"$T/out")" 'video\.(codec|duration|width|audio_codec)="[^"]' "and no facts"
done
is "$(x "$MNT/fake.mp4" codec)" "" "has none either"
mkdir "$MNT/sub"
mv "$MNT/in.mov" "$MNT/sub/moved.mov"
is "$(x "$MNT/sub/moved.mov" uuid)" "$uuid" "the UUID stays through a rename"
mv "$MNT/sub" "$MNT/sub2"
is "$(x "$MNT/sub2/moved.mov" uuid)" "$uuid" "and through a rename of its directory"
mnt_again
is "$(x "$MNT/sub2/moved.mov" uuid)" "$uuid" "and a remount"
ff -i "$T/in.mov" -t 3 -c copy "$T/v2.mov"
cp "$T/v2.mov" "$MNT/sub2/moved.mov"
is "$(x "$MNT/sub2/moved.mov" uuid)" "$uuid" "and a new version"
like "$(x "$MNT/sub2/moved.mov" duration)" "^3(\.[0-9]*)?$|^2\.9" "whose duration is the new one"
cmd_ok "cp -a with attributes" cp -a --preserve=all "$MNT/fast.mp4" "$MNT/fast2.mp4"
have rsync && cmd_ok "rsync -aX" rsync -aX "$MNT/fast.mp4" "$MNT/fast3.mp4"
cmd_ok "rsync -aX to another file system" rsync -aX "$MNT/sub2/" "$T/outside/"

# ---- the user's own ----
cmd_ok "setfattr" setfattr -n user.project -v "alpha beta" "$MNT/fast.mp4"
is "$(getfattr --only-values -n user.project "$MNT/fast.mp4")" "alpha beta" "getfattr"
cmd_ok "a binary one" setfattr -n user.bin -v 0x00ff0a00 "$MNT/fast.mp4"
is "$(getfattr -e hex -n user.bin "$MNT/fast.mp4" | grep bin)" "user.bin=0x00ff0a00" "is kept as it is"
cmd_ok "one of a text file and of a directory" bash -c "setfattr -n user.a -v 1 '$MNT/text.txt' && setfattr -n user.b -v 2 '$MNT/sub2'"
errno_is EEXIST "XATTR_CREATE" python3 -c 'import os, sys; os.setxattr(sys.argv[1], "user.project", b"x", os.XATTR_CREATE)' "$MNT/fast.mp4"
errno_is ENODATA "XATTR_REPLACE" python3 -c 'import os, sys; os.setxattr(sys.argv[1], "user.none", b"x", os.XATTR_REPLACE)' "$MNT/fast.mp4"
errno_is ENODATA "one that is not there" getfattr -n user.none "$MNT/fast.mp4"
mv "$MNT/fast.mp4" "$MNT/faster.mp4"
mnt_again
is "$(getfattr --only-values -n user.project "$MNT/faster.mp4")" "alpha beta" "it is there after a rename and a remount"
is "$(getfattr --only-values -n user.a "$MNT/text.txt"):$(getfattr --only-values -n user.b "$MNT/sub2")" "1:2" "so are those of the text file and the directory"
cmd_ok "removexattr" setfattr -x user.project "$MNT/faster.mp4"
mnt_again
errno_is ENODATA "it is gone, after a remount too" getfattr -n user.project "$MNT/faster.mp4"
rm "$MNT/text.txt"
echo new >"$MNT/text.txt"
errno_is ENODATA "a new file does not inherit from the one that had its name" getfattr -n user.a "$MNT/text.txt"
errno_is ENODATA "security.capability" getfattr -n security.capability "$MNT/text.txt"

# ---- tags: in the bucket, for everyone ----
cmd_ok "a tag" setfattr -n user.s3.tag.stage -v "to review" "$MNT/faster.mp4"
cmd_ok "another" setfattr -n user.s3.tag.owner -v ann "$MNT/faster.mp4"
tag() { getfattr --only-values -n "user.s3.tag.$1" "$MNT/faster.mp4" 2>/dev/null; }
is "$(tag stage):$(tag owner)" "to review:ann" "getfattr of both"
errno_is EEXIST "XATTR_CREATE of one that is there" python3 -c 'import os, sys; os.setxattr(sys.argv[1], "user.s3.tag.owner", b"x", os.XATTR_CREATE)' "$MNT/faster.mp4"
errno_is ENODATA "XATTR_REPLACE of one that is not" python3 -c 'import os, sys; os.setxattr(sys.argv[1], "user.s3.tag.none", b"x", os.XATTR_REPLACE)' "$MNT/faster.mp4"
cmd_ok "a new value" setfattr -n user.s3.tag.owner -v bob "$MNT/faster.mp4"
errno_is ENODATA "one that is not there" getfattr -n user.s3.tag.none "$MNT/faster.mp4"
tags() { # as another client sees them: NAME=VALUE, sorted
    s3_curl "$S3_BUCKET/faster.mp4?tagging=" -f | python3 -c 'import sys, re
print(" ".join(sorted("%s=%s" % p for p in re.findall("<Key>(.*?)</Key><Value>(.*?)</Value>", sys.stdin.read()))))'
}
if foreign; then
    is "$(tags)" "owner=bob stage=to review" "another client sees both"
    s3_curl "$S3_BUCKET/faster.mp4?tagging=" -f -X PUT --data-binary '<Tagging><TagSet><Tag><Key>theirs</Key><Value>1</Value></Tag><Tag><Key>owner</Key><Value>eve</Value></Tag></TagSet></Tagging>'
    is "$(tag theirs):$(tag owner)" "1:eve" "and its tags are seen here"
    cmd_ok "a third one" setfattr -n user.s3.tag.stage -v "to review" "$MNT/faster.mp4"
    is "$(tags)" "owner=eve stage=to review theirs=1" "keeps those of the other client"
fi
mnt_again
is "$(tag stage)" "to review" "after a remount"
cmd_ok "remove one" setfattr -x user.s3.tag.stage "$MNT/faster.mp4"
errno_is ENODATA "it is gone" getfattr -n user.s3.tag.stage "$MNT/faster.mp4"
errno_is ENODATA "it cannot be removed again" setfattr -x user.s3.tag.stage "$MNT/faster.mp4"
like "$(tag owner)" "^(bob|eve)$" "the other is still there"
if foreign; then is "$(tags)" "owner=eve theirs=1" "another client sees the same"; fi
cmd_ok "the bytes are as they were" cmp "$MNT/faster.mp4" "$MNT/fast2.mp4"

# ---- query ----
q() { "$MLOPSFS_BIN" query "$MNT" "$@"; }
for f in "$MNT"/*.m* "$MNT"/sub2/*.mov; do getfattr -d -m - "$f" >/dev/null 2>&1; done
cmd_ok "query" q
like "$(q)" "faster.mp4.*h264" "lists the videos"
unlike "$(q)" "fake.mp4" "and nothing else"
is "$(q --json | python3 -c 'import json, sys; print(" ".join(sorted(v["key"] for v in json.load(sys.stdin) if v["key"].startswith("sub2"))))')" "sub2/moved.mov" "as JSON"
is "$(q 'duration<2.5' --json | python3 -c 'import json, sys; print(" ".join(v["key"] for v in json.load(sys.stdin)))')" "short.mkv" "by duration"
is "$(q 'name~fas*.mp4' 'codec=h264' --json | python3 -c 'import json, sys; print(" ".join(v["key"] for v in json.load(sys.stdin)))')" "fast2.mp4 fast3.mp4 faster.mp4" "by name and codec"
is "$(q 'height>5000' --json)" "[]" "no match is an empty list"
is "$(cd "$MNT" && "$MLOPSFS_BIN" query "uuid=$uuid" --json | python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["path"])')" "$MNT/sub2/moved.mov" "by UUID, in the mount of the working directory"
cmd_fails "a condition that is none" q 'colour=red'
like "$(q 'colour=red' 2>&1)" "colour" "is named"
is "$(q "name='; drop table videos; --" --json)" "[]" "a quote is but a quote"
rm "$MNT/short.mkv"
is "$(q 'name=short.mkv' --json)" "[]" "what was deleted is not listed"

# ---- many, with the index at the end ----
# Uncompressed, so that a second of it is large: 32 MB, of which ffprobe needs the first bytes and the last.
ff -f lavfi -i testsrc2=size=640x480:rate=25 -t 2.1 -c:v rawvideo -pix_fmt uyvy422 -f mov "$T/tail.mov"
size=$(stat -c %s "$T/tail.mov")
want=$(duration "$T/tail.mov")
cmd_ok "$size bytes with the index at the end" python3 -c '
import os, sys
n = os.path.getsize(sys.argv[1])
f = open(sys.argv[1], "rb"); f.seek(-65536, 2)
assert n > 30000000 and b"moov" in f.read(), n' "$T/tail.mov"
many=$(sanitized && echo 4 || echo 20)
for ((i = 1; i <= many; i++)); do cp "$T/tail.mov" "$MNT/many$i.mov" || fail "cp $i"; done
most=0 most_bytes=0 wrong=''
for ((i = 1; i <= many; i++)); do
    rm -rf "$T/fresh"
    mkdir "$T/fresh"
    mnt_again ro "cache_dir=$T/fresh"
    n0=$(mnt_sum requests) b0=$(mnt_status bytes_in)
    [ "$(duration "$MNT/many$i.mov")" = "$want" ] || wrong+=" $i"
    n1=$(mnt_sum requests) b1=$(mnt_status bytes_in)
    [ $((n1 - n0)) -le $most ] || most=$((n1 - n0))
    [ $((${b1:-999999999} - b0)) -le $most_bytes ] || most_bytes=$((${b1:-999999999} - b0))
done
diag "requests at the last: $("$MLOPSFS_BIN" status "$MNT" | grep -E '^(requests|bytes_in)' | tr '\n' ' ')"
diag "at most $most requests and $most_bytes bytes for an ffprobe of $size bytes"
is "$wrong" "" "$many ffprobes, each in a new mount, know the duration"
cmd_ok "a request or more was counted" [ "$most" -ge 1 ]
cmd_ok "one costs at most 8 requests of all kinds" [ "$most" -le 8 ]
cmd_ok "and a fifth of the bytes" [ "$most_bytes" -le $((size / 5)) ]
mnt_again

if foreign; then
    s3_put foreign.mov "$T/in.mov"
    s3_put noext "$T/in.mov" "Content-Type: video/quicktime"
    wait_until 20 test -e "$MNT/foreign.mov"
    is "$(x "$MNT/foreign.mov" codec) $(x "$MNT/noext" codec)" "h264 h264" "videos that another client put there have facts"
    s3_put foreign.mov "$T/v2.mov"
    changed() { [[ $(x "$MNT/foreign.mov" duration) =~ ^(3|2\.9) ]]; }
    wait_until 20 changed
    ok $? "those of its new version, when it is replaced"
else
    skip "videos of another client" "a local store has none"
fi
done_testing
