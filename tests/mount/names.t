#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What other clients put into the bucket, seen through the mount, and the other way round.
. "$(dirname "$0")/../lib/tap.sh"
. "$TOP/tests/lib/servers.sh"
. "$TOP/tests/lib/mount.sh"
needs_mount
needs_foreign
store_up

s3_text one/two/three.txt deep
s3_text top.txt top
s3_text "sp ace/pl+us/ü.txt" odd
: >"$T/nothing"
s3_put emptydir/ "$T/nothing" "Content-Type: application/x-directory"
s3_put plainmarker/ "$T/nothing"
s3_text plainmarker/file x
s3_put odd-object "$T/nothing" "Content-Type: application/x-directory"
s3_put exe "$T/nothing" "x-amz-meta-mode: 33261" "x-amz-meta-uid: 1001" "x-amz-meta-gid: 1002" "x-amz-meta-mtime: 1000000000"
s3_put text.html "$T/nothing" "Content-Type: text/html" "x-amz-meta-color: blue"
mnt_up attr_ttl=0s dir_ttl=0s || bail_out "no mount"
cd "$MNT" || bail_out "cannot enter the mount"

is "$(find one | sort | tr '\n' ' ')" "one one/two one/two/three.txt " "directories that no marker stands for"
is "$(cat one/two/three.txt)" deep "a file in them"
is "$(stat -c '%F %a' one/two)" "directory 755" "their mode"
is "$(cat "sp ace/pl+us/ü.txt")" odd "odd characters"
is "$(stat -c %F emptydir plainmarker)" $'directory\ndirectory' "markers are directories"
is "$(ls -A emptydir | wc -l):$(ls plainmarker)" 0:file "what is in them"
cmd_ok "an empty object of a directory's type is no reason to die" bash -c 'stat odd-object; ls -la; true'
is "$(stat -c '%a %u %g %Y' exe)" "755 1001 1002 1000000000" "attributes that s3fs wrote"
is "$(stat -c %a top.txt)" 644 "the mode of an object that says nothing"
cmd_ok "mtime of an object that says nothing is its date" bash -c '[ $(( $(date +%s) - $(stat -c %Y top.txt) )) -lt 3600 ]'

# ---- coming and going ----
s3_text later.txt later
is "$(cat later.txt)" later "an object that appears"
like "$(ls)" "later.txt" "it is listed"
s3_rm later.txt
cmd_fails "one that goes" stat later.txt
unlike "$(ls)" "later.txt" "it is not listed"
s3_text newdir/x x
is "$(ls newdir)" x "a directory that appears"
s3_rm newdir/x
cmd_ok "remove the last file of a foreign directory" rm one/two/three.txt
is "$(stat -c %F one/two)" directory "the directory is still there"
cd /
mnt_again attr_ttl=0s dir_ttl=0s
cd "$MNT" || bail_out "cannot enter the mount"
is "$(stat -c %F one/two)" directory "also after a remount"
cmd_ok "rmdir of both" rmdir one/two one
cmd_fails "they are gone" stat one

# ---- what we write is an object like any other ----
printf written >w.txt
is "$(s3_get w.txt)" written "what is written is an object"
mkdir -p made/dir
printf x >made/dir/file
is "$(s3_ls made/dir/f)" made/dir/file "its key is its path"
mv made/dir moved
is "$(s3_ls moved/f; s3_get moved/file)" $'moved/file\nx' "a renamed directory's keys"
is "$(s3_ls made/dir/ | wc -l)" 0 "nothing is left at the old ones"
chmod 600 text.html
like "$(s3_head text.html)" "text/html" "chmod keeps the content type"
like "$(s3_head text.html)" "[cC]olor: blue" "and the metadata of others"
is "$(stat -c %a text.html)" 600 "and is kept"
echo more >>text.html
like "$(s3_head text.html)" "text/html" "so does a write keep the content type"
like "$(s3_head text.html)" "[cC]olor: blue" "and the metadata"
gen 9 20000000 >big
is "$(s3_sha big)" "$(gen_sha 9 20000000)" "a big one"
printf 12345 | dd of=big bs=1 seek=10000000 conv=notrunc status=none
is "$(s3_sha big)" "$( { gen 9 10000000; printf 12345; gen 9 20000000 | tail -c +10000006; } | sha)" "a change inside it"
cp /bin/true clip.mp4
like "$(s3_head clip.mp4)" "video/mp4" "the content type follows the name"
touch e1 && is "$(s3_head e1 | grep -i '^content-length' | tr -dc 0-9)" 0 "an empty file is an empty object"

# ---- a prefix ----
cd /
mnt_down
s3_text pre2/sub/f.txt inside
SOURCE=s3://$S3_BUCKET/pre2
mnt_up || bail_out "no mount of a prefix"
is "$(ls "$MNT")" sub "a mount of a prefix shows what is below it"
echo n >"$MNT/new"
is "$(s3_get pre2/new)" n "and writes below it"
mv "$MNT/sub" "$MNT/sub2"
is "$(s3_ls pre2/sub2/f)" pre2/sub2/f.txt "and renames below it"
mnt_down
SOURCE=s3://$S3_BUCKET/pre3/not/there
if mnt_up; then
    is "$(ls -A "$MNT")" "" "a prefix that nothing is below is an empty directory"
    echo x >"$MNT/x"
    is "$(s3_get pre3/not/there/x)" x "that can be written to"
    mnt_down
else
    fail "a prefix that nothing is below is an empty directory"
fi
SOURCE=s3://$S3_BUCKET
mnt_up read_only=on || mnt_up ro || bail_out "no read-only mount"
errno_is EROFS "a read-only mount takes no writes" touch "$MNT/w2"
is "$(cat "$MNT/w.txt")" written "and can be read"
done_testing
