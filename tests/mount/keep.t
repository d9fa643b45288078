#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What a new version of an object keeps of the old one beside its headers: tags, and its storage class.
. "$(dirname "$0")/../lib/tap.sh"
. "$TOP/tests/lib/servers.sh"
. "$TOP/tests/lib/mount.sh"
needs_mount
have setfattr || skip_all "no setfattr"
store_up
# Tags that another client sets at any time count: hence attr_ttl=0s. Parts are small, so that 12 MB are several.
OPTIONS=(part_size=5M attr_ttl=0s dir_ttl=0s)
mnt_up "${OPTIONS[@]}" || bail_out "no mount"
gen 1 1000 >"$T/small"
gen 2 12000000 >"$T/big"
gen 3 13000000 >"$T/other"

# versitygw stores every object as STANDARD.
class=STANDARD
[ "$MLOPSFS_STORE" != minio ] || class=REDUCED_REDUNDANCY
make_one() { # NAME FILE: an object with two tags and a class, as another client makes it where there is one
    if foreign; then
        s3_put "$1" "$2" "x-amz-storage-class: REDUCED_REDUNDANCY" "x-amz-tagging: team=video&to%20do=a%2Bb%20%2Fc"
    else
        cp "$2" "$MNT/$1" && setfattr -n user.s3.tag.team -v video "$MNT/$1" &&
            setfattr -n "user.s3.tag.to do" -v "a+b /c" "$MNT/$1"
    fi
}
tag() { getfattr --only-values -n "user.s3.tag.$2" "$MNT/$1" 2>/dev/null; }
kept() { # as the mount sees it, and as another client does
    local f=$1 xml=''
    printf '%s|%s|%s' "$(tag "$f" team)" "$(tag "$f" "to do")" "$(getfattr --only-values -n user.s3.storage_class "$MNT/$f" 2>/dev/null)"
    if foreign; then
        xml=$(s3_curl "$S3_BUCKET/$(s3_encode "$f")?tagging=" -f | grep -o '<Tag>' | wc -l)
        printf '|%s|%s' "$xml" "$(s3_head "$f" | sed -n 's/^x-amz-storage-class: //Ip')"
    fi
}
want="video|a+b /c|$class"
if foreign; then want+="|2|$class"; fi

change() { # a name for what is done to file $1 (of kind $2)
    local f=$MNT/$1
    case $3 in
    append) echo more >>"$f" ;;
    chmod) chmod 600 "$f" ;;
    touch) touch -d 2020-01-02 "$f" ;;
    middle) printf x | dd of="$f" bs=1 seek=500 conv=notrunc status=none ;;
    cut) truncate -s 400 "$f" ;;
    rewrite) cat "$T/$2" >"$f" ;;
    larger) cat "$T/other" >"$f" ;;
    empty) : >"$f" ;;
    "mv and back") mv "$f" "$f.new" && mv "$f.new" "$f" ;;
    "mv of its directory") mv "$(dirname "$f")" "$MNT/away" && mv "$MNT/away" "$(dirname "$f")" ;;
    "write after mv") mv "$f" "$f.new" && echo end >>"$f.new" && mv "$f.new" "$f" ;;
    esac
}
mkdir "$MNT/dir"
for kind in small big; do
    for how in append chmod touch middle cut rewrite larger empty "mv and back" "mv of its directory" "write after mv"; do
        f="dir/$kind-${how// /-}"
        make_one "$f" "$T/$kind" || fail "make $f"
        wait_until 20 test -e "$MNT/$f"
        cmd_ok "$how, $kind" change "$f" "$kind" "$how"
        is "$(kept "$f")" "$want" "tags and class are kept"
    done
done
f=dir/small-append
mnt_again "${OPTIONS[@]}"
is "$(kept "$f")" "$want" "after a remount"
echo more >>"$MNT/$f"
is "$(kept "$f")" "$want" "written to by a mount that has asked for nothing yet"
mv "$MNT/$f" "$MNT/dir/new"
is "$(kept dir/new)" "$want" "and renamed"
mv "$MNT/dir" "$MNT/dir2"
is "$(kept dir2/new)" "$want" "a rename of the directory, and of all in it"
cp "$MNT/dir2/new" "$MNT/copy"
is "$(tag copy team)" "" "a copy is a new file, and has no tags"
rm "$MNT/dir2/new"
echo again >"$MNT/dir2/new"
is "$(tag dir2/new team)" "" "nor has one that is made where another was deleted"

# A directory's marker is an object too.
mkdir "$MNT/marked"
cmd_ok "a tag of a directory" setfattr -n user.s3.tag.team -v video "$MNT/marked"
chmod 700 "$MNT/marked"
is "$(tag marked team)" video "is kept by chmod"
mv "$MNT/marked" "$MNT/marked2"
is "$(tag marked2 team)" video "and by a rename"

# A tag that is set while the file is being uploaded.
make_one streamed "$T/big"
wait_until 20 test -e "$MNT/streamed"
cmd_ok "a tag set amid a rewrite" python3 -c '
import os, sys
data = open(sys.argv[2], "rb").read()
f = os.open(sys.argv[1], os.O_WRONLY | os.O_TRUNC)
os.write(f, data[:11 << 20])
os.setxattr(sys.argv[1], "user.s3.tag.team", b"audio")
os.write(f, data[11 << 20:])
os.close(f)
' "$MNT/streamed" "$T/other"
is "$(sha <"$MNT/streamed")" "$(sha <"$T/other")" "the bytes"
is "$(tag streamed team) $(tag streamed "to do")" "audio a+b /c" "it is there, beside the other"
cmd_ok "one that is removed amid a write" python3 -c '
import os, sys
f = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
os.write(f, b"end")
os.removexattr(sys.argv[1], "user.s3.tag.team")
os.close(f)
' "$MNT/streamed"
is "$(tag streamed team):$(tag streamed "to do")" ":a+b /c" "is gone, and only it"

# What HEAD has told costs nothing more.
mnt_again part_size=5M attr_ttl=1h dir_ttl=1h
make_one told "$T/small"
echo x >"$MNT/plain"
gets() { mnt_status "requests TAGS_GET"; }
before=$(gets)
for i in 1 2 3; do echo "$i" >>"$MNT/plain"; done
cat "$T/big" >"$MNT/plain"
chmod 600 "$MNT/plain"
mv "$MNT/plain" "$MNT/plain2"
echo 4 >>"$MNT/plain2"
is "$(gets)" "$before" "tags of a file that has none are not asked for"
cmd_ok "a tag set here" setfattr -n user.s3.tag.a -v 1 "$MNT/plain2"
echo 5 >>"$MNT/plain2"
is "$(tag plain2 a)" 1 "is kept by the next write, however long attributes are believed"
cat "$T/big" >"$MNT/plain2"
is "$(tag plain2 a)" 1 "and by the one after it"
if foreign; then
    s3_put known "$T/small"
    wait_until 20 test -e "$MNT/known" # its attributes come by a HEAD
    before=$(gets)
    echo more >>"$MNT/known"
    is "$(gets)" "$before" "nor are those of an object whose HEAD counted none"
fi
done_testing
