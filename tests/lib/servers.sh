# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# servers: real object stores and proxies for tests, on 127.0.0.1 and random free ports, and a small
# S3 client that knows nothing of ours (curl). Needs tap.sh. Credentials are random, live in the
# environment and in curl configurations on stdin only, and are never printed.
#
#   start_minio [--tls DIR] [--shm]     sets S3_ENDPOINT, S3_ACCESS_KEY, S3_SECRET_KEY, server_pid
#   start_versitygw [--shm]             the same
#   start_toxiproxy                     sets TOXIPROXY (its API's URL)
#   toxi_proxy NAME UPSTREAM            makes a proxy, prints its address (host:port)
#   toxi_add NAME TYPE STREAM ATTRIBUTES   e.g. toxi_add s3 latency downstream '{"latency":30}'; its name is TYPE_STREAM
#   toxi_del NAME TOXIC
#   make_ca DIR                         DIR/ca.pem, and DIR/certs/{public.crt,private.key} for 127.0.0.1
#   stop_server PID                     ends a server that was started here
#
# On the bucket S3_BUCKET: s3_mb [B], s3_rb [B], s3_put KEY FILE [HEADER…], s3_text KEY TEXT, s3_meta KEY HEADER… (new headers, same bytes), s3_get KEY (to stdout),
# s3_head KEY, s3_rm KEY, s3_ls [PREFIX] (keys, one a line), s3_sha KEY, s3_exists KEY, s3_etag KEY, s3_buckets.

server_pids=()
# Where scripts/deps puts them.
MLOPSFS_TOOLS=${MLOPSFS_TOOLS:-${HOME:-$(getent passwd "$(id -u)" | cut -d: -f6)}/.cache/mlopsfs-tools}

# Prints the path of a program among the tools of the tests, else in PATH.
tool() {
    if [ -x "$MLOPSFS_TOOLS/bin/$1" ]; then echo "$MLOPSFS_TOOLS/bin/$1"; else command -v "$1"; fi
}

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}
server_data() { # [--shm]
    local base=$T d
    if [ "${1-}" = --shm ]; then base=/dev/shm; fi
    d=$(mktemp -d "$base/mlopsfs-data.XXXXXX") || bail_out "no directory for a server's data"
    at_exit "rm -rf --one-file-system '$d'"
    echo "$d" >"$T/.server_data"
}
stop_server() {
    kill -CONT "$1" 2>/dev/null
    kill -TERM "$1" 2>/dev/null
    wait_until 10 tap_gone "$1" || kill -KILL "$1" 2>/dev/null
    wait "$1" 2>/dev/null
    return 0
}
server_ready() { # PID URL [CURL-OPTION…]: until the server answers anything
    local pid=$1 url=$2
    shift 2
    server_answers() { tap_gone "$pid" || curl -s -o /dev/null --max-time 5 "$@" "$url"; }
    wait_until 60 server_answers "$@" && ! tap_gone "$pid"
}
new_credentials() {
    S3_ACCESS_KEY=$(openssl rand -hex 10) S3_SECRET_KEY=$(openssl rand -hex 20)
    export S3_ACCESS_KEY S3_SECRET_KEY
    unset AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN AWS_PROFILE AWS_REGION AWS_DEFAULT_REGION AWS_CA_BUNDLE \
        AWS_ENDPOINT_URL AWS_ENDPOINT_URL_S3 S3_REGION
}
# minio_at PORT: the same data and credentials (again) on that port; minio_args from start_minio.
minio_at() {
    MINIO_ROOT_USER=$S3_ACCESS_KEY MINIO_ROOT_PASSWORD=$S3_SECRET_KEY MINIO_BROWSER=off MINIO_UPDATE=off HOME=$T \
        "$minio_bin" server "$minio_data" --address "127.0.0.1:$1" --quiet --anonymous ${minio_args[@]+"${minio_args[@]}"} \
        >>"$T/minio.log" 2>&1 &
    server_pid=$!
    at_exit "stop_server $server_pid"
    server_ready "$server_pid" "${minio_scheme}://127.0.0.1:$1/minio/health/ready" -f -k
}
start_minio() {
    minio_bin=$(tool minio) || skip_all "no minio"
    minio_args=() minio_scheme=http
    local shm='' port try
    while [ $# -gt 0 ]; do
        case $1 in
        --tls) minio_args=(--certs-dir "$2") minio_scheme=https; shift 2 ;;
        --shm) shm=--shm; shift ;;
        *) bail_out "start_minio: $1?" ;;
        esac
    done
    new_credentials
    server_data $shm
    minio_data=$(<"$T/.server_data")
    for try in 1 2 3; do
        port=$(free_port)
        if minio_at "$port"; then
            server_port=$port
            export S3_ENDPOINT="$minio_scheme://127.0.0.1:$port"
            return 0
        fi
        diag "minio did not start on port $port (try $try)"
        stop_server "$server_pid"
    done
    bail_out "minio does not start: $(tail -n 3 "$T/minio.log")"
}
start_versitygw() {
    local bin shm='' port try data
    bin=$(tool versitygw) || skip_all "no versitygw"
    if [ "${1-}" = --shm ]; then shm=--shm; fi
    new_credentials
    server_data $shm
    data=$(<"$T/.server_data")
    for try in 1 2 3; do
        port=$(free_port)
        ROOT_ACCESS_KEY=$S3_ACCESS_KEY ROOT_SECRET_KEY=$S3_SECRET_KEY \
            "$bin" --port "127.0.0.1:$port" --quiet --keep-alive --health /health posix "$data" >>"$T/versitygw.log" 2>&1 &
        server_pid=$!
        at_exit "stop_server $server_pid"
        if server_ready "$server_pid" "http://127.0.0.1:$port/health" -f; then
            server_port=$port
            export S3_ENDPOINT="http://127.0.0.1:$port"
            return 0
        fi
        diag "versitygw did not start on port $port (try $try)"
        stop_server "$server_pid"
    done
    bail_out "versitygw does not start: $(tail -n 3 "$T/versitygw.log")"
}
start_toxiproxy() {
    local bin port try pid
    bin=$(tool toxiproxy-server) || skip_all "no toxiproxy"
    for try in 1 2 3; do
        port=$(free_port)
        "$bin" -host 127.0.0.1 -port "$port" >>"$T/toxiproxy.log" 2>&1 &
        pid=$!
        at_exit "stop_server $pid"
        if server_ready "$pid" "http://127.0.0.1:$port/version" -f; then
            TOXIPROXY="http://127.0.0.1:$port" toxiproxy_pid=$pid
            return 0
        fi
        diag "toxiproxy did not start on port $port (try $try)"
        stop_server "$pid"
    done
    bail_out "toxiproxy does not start"
}
toxi_proxy() { # NAME UPSTREAM(host:port)
    curl -sf -X POST "$TOXIPROXY/proxies" -d "{\"name\":\"$1\",\"listen\":\"127.0.0.1:0\",\"upstream\":\"$2\",\"enabled\":true}" |
        python3 -c 'import json, sys; print(json.load(sys.stdin)["listen"])'
}
toxi_add() { # NAME TYPE STREAM ATTRIBUTES
    curl -sf -o /dev/null -X POST "$TOXIPROXY/proxies/$1/toxics" -d "{\"type\":\"$2\",\"stream\":\"$3\",\"attributes\":$4}"
}
toxi_del() { curl -sf -o /dev/null -X DELETE "$TOXIPROXY/proxies/$1/toxics/$2"; }
toxi_enable() { # NAME true|false
    curl -sf -o /dev/null -X POST "$TOXIPROXY/proxies/$1" -d "{\"enabled\":$2}"
}

make_ca() {
    local d=$1
    mkdir -p "$d/certs"
    openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=mlopsfs test CA" \
        -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign \
        -keyout "$d/ca.key" -out "$d/ca.pem" 2>/dev/null &&
        openssl req -newkey rsa:2048 -nodes -subj "/CN=127.0.0.1" -keyout "$d/certs/private.key" -out "$d/server.csr" 2>/dev/null &&
        printf 'subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth\n' >"$d/ext" &&
        openssl x509 -req -in "$d/server.csr" -CA "$d/ca.pem" -CAkey "$d/ca.key" -CAcreateserial -days 2 \
            -extfile "$d/ext" -out "$d/certs/public.crt" 2>/dev/null
}

# ---- a client of other make ----

# URL-encodes a key; $2: also the slash.
s3_encode() {
    local out='' c i safe='[A-Za-z0-9._~/-]'
    if [ -n "${2-}" ]; then safe='[A-Za-z0-9._~-]'; fi
    for ((i = 0; i < ${#1}; i++)); do
        c=${1:i:1} # a byte: the locale is C
        # shellcheck disable=SC2053
        if [[ $c == $safe ]]; then out+=$c; else printf -v c '%%%02X' "'$c" && out+=${c/FFFFFFFFFFFFFF/}; fi
    done
    printf '%s\n' "$out"
}
# s3_curl PATH[?QUERY] CURL-OPTION…; the path is URL-encoded, the query's names in order. S3_MAX_TIME: seconds at most (20).
s3_curl() {
    local path=$1
    shift
    curl -sS --path-as-is ${S3_CURL_CA:+--cacert "$S3_CURL_CA"} --retry 3 --max-time "${S3_MAX_TIME:-20}" -H 'x-amz-content-sha256: UNSIGNED-PAYLOAD' "$@" \
        -K - "$S3_ENDPOINT/$path" <<CONF
user = "$S3_ACCESS_KEY:$S3_SECRET_KEY"
aws-sigv4 = "aws:amz:us-east-1:s3"
CONF
}
s3_mb() { s3_curl "${1:-$S3_BUCKET}" -f -X PUT; }
s3_rb() { s3_curl "${1:-$S3_BUCKET}" -f -X DELETE; }
s3_put() { # KEY FILE [HEADER…]
    local key=$1 file=$2 h=()
    shift 2
    while [ $# -gt 0 ]; do h+=(-H "$1"); shift; done
    case $key in
    */) # curl -T would add the file's name
        [ ${#h[@]} -gt 0 ] || h=(-H "Content-Type: binary/octet-stream")
        s3_curl "$S3_BUCKET/$(s3_encode "$key")" -f -o /dev/null -X PUT --data-binary "@$file" "${h[@]}"
        ;;
    *) s3_curl "$S3_BUCKET/$(s3_encode "$key")" -f -o /dev/null -T "$file" ${h[@]+"${h[@]}"} ;;
    esac
}
s3_text() { # KEY TEXT
    printf '%s' "$2" >"$T/.s3_text"
    s3_put "$1" "$T/.s3_text"
}
# The object copied onto itself with these headers in place of its own.
s3_meta() { # KEY HEADER…
    local key=$1 h=()
    shift
    while [ $# -gt 0 ]; do h+=(-H "$1"); shift; done
    s3_curl "$S3_BUCKET/$(s3_encode "$key")" -f -o /dev/null -X PUT -H "x-amz-copy-source: /$S3_BUCKET/$(s3_encode "$key")" \
        -H "x-amz-metadata-directive: REPLACE" "${h[@]}"
}
s3_get() { s3_curl "$S3_BUCKET/$(s3_encode "$1")" -f; }
s3_sha() { s3_get "$1" | sha; }
s3_head() { s3_curl "$S3_BUCKET/$(s3_encode "$1")" -f -I | tr -d '\r'; }
s3_header() { s3_head "$1" | sed -n "s/^$2: *//Ip"; } # KEY NAME
s3_exists() { s3_curl "$S3_BUCKET/$(s3_encode "$1")" -f -I -o /dev/null 2>/dev/null; }
s3_etag() { s3_head "$1" | sed -n 's/^[Ee][Tt]ag: *"\(.*\)"/\1/p'; }
s3_rm() { s3_curl "$S3_BUCKET/$(s3_encode "$1")" -f -X DELETE; }
s3_ls() { # [PREFIX]
    local token='' q xml="$T/.s3_ls" prefix
    prefix=$(s3_encode "${1-}" all)
    while :; do
        q="list-type=2&prefix=$prefix"
        [ -n "$token" ] && q="continuation-token=$token&$q"
        s3_curl "$S3_BUCKET?$q" -f -o "$xml" || return 1
        python3 - "$xml" "$T/.s3_token" <<'PY' || return 1
import sys, urllib.parse
import xml.etree.ElementTree as E
ns = "{http://s3.amazonaws.com/doc/2006-03-01/}"
root = E.parse(sys.argv[1]).getroot()
for c in root.iter(ns + "Key"):
    sys.stdout.buffer.write(c.text.encode() + b"\n")
token = root.findtext(ns + "NextContinuationToken") or ""
open(sys.argv[2], "w").write(urllib.parse.quote(token, safe=""))
PY
        token=$(<"$T/.s3_token")
        [ -n "$token" ] || break
    done
}
s3_buckets() {
    s3_curl "" -f | python3 -c 'import sys, re; print("\n".join(re.findall(r"<Name>([^<]*)</Name>", sys.stdin.read())))'
}
