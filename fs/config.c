/* SPDX-License-Identifier: Apache-2.0
 *
 * config: the table of options, and the places their values come from. Runs before the first
 * thread; a struct config is only read after config_finish(). An option is one entry here: the
 * parsers, the help text, mlopsfs.conf and the man page's list all come from it.
 */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "fs/config.h"
#include "fs/config_table.h"
#include "fs/endpoint.h"

#define GROUP "mlopsfs"
#define KIB (1ULL << 10)
#define MIB (1ULL << 20)
#define GIB (1ULL << 30)
#define SECOND 1000000000ULL
#define DAY (86400 * SECOND)
/* Room for names below the prefix: a key has at most 1,024 bytes. */
#define PREFIX_MAX 900

static const struct config_name addressing_names[] = {
    {"auto", CONFIG_ADDRESSING_AUTO},
    {"path", CONFIG_ADDRESSING_PATH},
    {"virtual", CONFIG_ADDRESSING_VIRTUAL},
    {NULL},
};

static const struct config_name commit_names[] = {
    {"close", CONFIG_COMMIT_CLOSE},
    {"background", CONFIG_COMMIT_BACKGROUND},
    {NULL},
};
static const struct config_name fsync_names[] = {
    {"bucket", CONFIG_FSYNC_BUCKET},
    {"local", CONFIG_FSYNC_LOCAL},
    {NULL},
};
static const struct config_name conflict_names[] = {
    {"keep-both", CONFIG_CONFLICT_KEEP_BOTH},
    {"overwrite", CONFIG_CONFLICT_OVERWRITE},
    {"fail", CONFIG_CONFLICT_FAIL},
    {NULL},
};
static const struct config_name level_names[] = {
    {"error", LOG_ERR}, {"warning", LOG_WARNING}, {"notice", LOG_NOTICE},
    {"info", LOG_INFO}, {"debug", LOG_DEBUG},     {NULL},
};

#define AT(field) offsetof(struct config, field)

/* clang-format off */
const struct config_option config_options[] = {
    {"endpoint", "Server", CONFIG_STRING, AT(endpoint), .def_help = "Amazon S3 of the region",
     .env = {"S3_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"},
     .help = "The server's URL: http[s]://host[:port]."},
    {"region", "Server", CONFIG_STRING, AT(region), .def_help = "us-east-1",
     .env = {"S3_REGION", "AWS_REGION", "AWS_DEFAULT_REGION"},
     .help = "The region that requests are signed for."},
    {"addressing", "Server", CONFIG_ENUM, AT(addressing), "auto", .names = addressing_names,
     .help = "How a bucket is named in requests: path (host/bucket), virtual (bucket.host), or auto: virtual on "
             "Amazon's hosts where the bucket's name allows it, path on others."},
    {"ca_file", "Server", CONFIG_PATH, AT(ca_file), .def_help = "the system's", .env = {"AWS_CA_BUNDLE"},
     .help = "Certificates (PEM) of the authorities that may vouch for an https server."},
    {"profile", "Server", CONFIG_STRING, AT(profile), .def_help = "AWS_PROFILE, else default",
     .help = "Profile in ~/.aws/credentials (or AWS_SHARED_CREDENTIALS_FILE) to take keys from, when the environment has none."},
    {"access_key", "Server", CONFIG_STRING, AT(access_key), .def_help = "none", .flags = CONFIG_SECRET,
     .help = "Access key, when neither the environment nor a profile has one. Only in a configuration file that nobody else can read."},
    {"secret_key", "Server", CONFIG_STRING, AT(secret_key), .def_help = "none", .flags = CONFIG_SECRET,
     .help = "Secret key that belongs to access_key. Only in a configuration file that nobody else can read."},
    {"anonymous", "Server", CONFIG_BOOL, AT(anonymous), "off",
     .help = "Send requests unsigned, for public buckets."},
    {"connections", "Server", CONFIG_UNSIGNED, AT(connections), "128", .min = 1, .max = 1024,
     .help = "Connections to the server at most."},
    {"op_timeout", "Server", CONFIG_DURATION, AT(op_timeout_ns), "120s", .min = SECOND, .max = DAY,
     .help = "How long an operation goes on, retries included, while nothing moves, before it fails. A copy or completion by the server "
             "gets ten minutes more."},
    {"allow_bucket_ops", "Server", CONFIG_BOOL, AT(allow_bucket_ops), "off",
     .help = "Where every bucket is a directory (s3://): mkdir and rmdir at the top create and delete buckets."},
    {"capabilities", "Server", CONFIG_CAPS, AT(caps), "probe",
     .help = "What the server honours. probe: found out at the first commit, by small objects that are removed again. Else none, or a "
             "list with commas or colons: put_if, complete_if, copy_if, delete_if (conditions on PUT, on the end of an upload, on COPY, "
             "on DELETE), copy_part (parts copied by the server), list_meta (listings with metadata), checksum, checksum_part, "
             "checksum_mpu, copy_into_checksum_mpu (it looks at CRC32Cs of objects, of parts, of uploads made for them, also with "
             "copies in them), head_tags (HEAD counts tags). A name too many may overwrite what others wrote, or make commits "
             "fail. Not for local: stores."},

    {"cache_dir", "Cache", CONFIG_PATH, AT(cache_dir),
     .def_help = "/var/cache/mlopsfs for root, else mlopsfs in XDG_CACHE_HOME, which is ~/.cache where not set",
     .help = "Directory for what is being written, and for the catalog."},
    {"memory", "Cache", CONFIG_SIZE, AT(memory), "256M", .min = 32 * MIB,
     .help = "Memory for cached blocks and buffers, at most."},
    {"disk", "Cache", CONFIG_SIZE, AT(disk), "4G", .min = 64 * MIB,
     .help = "Space in cache_dir for what is written and not yet in the bucket, at most. A writer waits while "
             "uploads will free some, else it gets ENOSPC."},
    {"part_size", "Cache", CONFIG_SIZE, AT(part_size), "16M", .min = 5 * MIB, .max = 5 * GIB, .flags = CONFIG_ZERO_OK,
     .help = "Size of a multipart upload's first parts; they double after every 1,000 parts. 0 is the default."},
    {"holes_max", "Cache", CONFIG_SIZE, AT(holes_max), "64G",
     .help = "Bytes of a file that nobody wrote (truncate, seeking past the end), at most: an object has no holes, they are sent as zeros. A file "
             "with more costs nothing here, and cannot be brought into the bucket: EFBIG. 0: no limit."},
    {"uploads", "Cache", CONFIG_UNSIGNED, AT(uploads), "16", .min = 1, .max = 256,
     .help = "Parts and big objects that are uploaded at the same time, at most; of objects up to 1 MiB sixteen times as many."},
    {"commit", "Cache", CONFIG_ENUM, AT(commit), "background", .names = commit_names,
     .help = "What close(2) waits for. background: the file is sealed in cache_dir, from where it is brought into the bucket once nobody has "
             "it open, also by the next mount after a crash; what goes wrong is tried again, and `mlopsfs status` and `mlopsfs sync` show it. "
             "close: the bucket has the file, and close returns the error if it cannot be brought there."},
    {"fsync", "Cache", CONFIG_ENUM, AT(fsync), "bucket", .names = fsync_names,
     .help = "What fsync(2) waits for. bucket: the bucket has the file. local: the disk under cache_dir has it, so that it survives a power "
             "cut; it comes into the bucket after close, as `commit` says. Faster for programs that sync often, such as databases."},
    {"local_sync", "Cache", CONFIG_DURATION, AT(local_sync_ns), "5s", .min = SECOND / 10, .max = 3600 * SECOND,
     .help = "After this time what was closed, and is not in the bucket yet, is synced to the disk of cache_dir: a power cut loses no more "
             "than that. A daemon that is killed loses nothing of it at any time."},
    {"on_conflict", "Cache", CONFIG_ENUM, AT(on_conflict), "keep-both", .names = conflict_names,
     .help = "When somebody else has changed an object since the version that was written to here. keep-both: theirs keeps the name, "
             "ours is stored beside it as \"name (conflict DATE TIME).ext\", close and fsync return 0, and the log and `mlopsfs status` "
             "tell. overwrite: ours replaces theirs. fail: close and fsync return ESTALE, and ours stays in cache_dir. So it does in all "
             "three where ours has bytes of the version that is gone and they are not at hand: no file is made of two versions. `mlopsfs "
             "discard` gives it up."},

    {"attr_ttl", "Attributes", CONFIG_DURATION, AT(attr_ttl_ns), "1s", .max = DAY,
     .help = "How long the attributes of a file are believed before the server is asked again."},
    {"dir_ttl", "Attributes", CONFIG_DURATION, AT(dir_ttl_ns), "1s", .max = DAY,
     .help = "How long the listing of a directory is believed."},
    {"uid", "Attributes", CONFIG_UID, AT(uid), .def_help = "who mounts",
     .help = "Owner of objects that do not name one."},
    {"gid", "Attributes", CONFIG_GID, AT(gid), .def_help = "the group of who mounts",
     .help = "Group of objects that do not name one."},
    {"fmode", "Attributes", CONFIG_MODE, AT(fmode), "0644", .max = 0777,
     .help = "Permissions of files that do not say."},
    {"dmode", "Attributes", CONFIG_MODE, AT(dmode), "0755", .max = 0777,
     .help = "Permissions of directories that do not say."},
    {"allow_other", "Attributes", CONFIG_BOOL, AT(allow_other), "off",
     .help = "Let other users in. Not as root, this needs user_allow_other in /etc/fuse.conf."},
    {"read_only", "Attributes", CONFIG_BOOL, AT(read_only), "off",
     .help = "Change nothing in the bucket. The same as the mount option ro."},
    {"rename_max", "Attributes", CONFIG_COUNT, AT(rename_max), "10000", .min = 1, .max = 1000000000,
     .help = "Objects in a directory that can be renamed, at most: each is copied. Past it, rename fails with EXDEV "
             "and mv copies by itself."},

    {"probe", "Videos", CONFIG_BOOL, AT(probe), "on",
     .help = "Look into media files for the facts that user.video.* shows."},
    {"probe_timeout", "Videos", CONFIG_DURATION, AT(probe_timeout_ns), "20s", .min = SECOND / 10, .max = 3600 * SECOND,
     .help = "How long looking into one file may take."},

    {"log_level", "Running", CONFIG_ENUM, AT(log_level), "info", .names = level_names,
     .help = "What is logged: error, warning, notice, info or debug, each with all before it."},
    {"log_file", "Running", CONFIG_PATH, AT(log_file), .def_help = "syslog; with -f standard error",
     .help = "File to which messages are appended."},
    {"durable", "Running", CONFIG_BOOL, AT(durable), "off",
     .help = "local: stores only: sync to the disk at every write, so that it survives a power cut as well as a crash."},
    {"fault", "Running", CONFIG_STRING, AT(fault), .def_help = "none",
     .help = "For tests: makes requests fail, for example rate=0.05,seed=42."},
    {NULL},
};
/* clang-format on */

void config_init(struct config *c)
{
    *c = (struct config){.uid = getuid(), .gid = getgid()};
    for (const struct config_option *o = config_options; o->name; o++) {
        g_autofree char *why = NULL;
        if (o->def && config_value_set(c, o, o->def, false, &why) < 0)
            g_error("the default of %s is wrong: %s", o->name, why);
    }
}

void config_clear(struct config *c)
{
    if (c->secret_key)
        explicit_bzero(c->secret_key, strlen(c->secret_key));
    for (const struct config_option *o = config_options; o->name; o++)
        if (o->type == CONFIG_STRING || o->type == CONFIG_PATH)
            g_free(*(char **)((char *)c + o->offset));
    g_free(c->kernel_options);
    g_free(c->source);
    g_free(c->bucket);
    g_free(c->prefix);
    g_free(c->local_path);
    g_free(c->mountpoint);
    g_free(c->conf_path);
    *c = (struct config){0};
}

const struct config_option *config_option_find(const char *name)
{
    for (const struct config_option *o = config_options; o->name; o++)
        if (strcmp(o->name, name) == 0)
            return o;
    return NULL;
}

/* Levenshtein's distance. */
static unsigned distance(const char *a, const char *b)
{
    size_t m = strlen(b);
    g_autofree unsigned *row = g_new(unsigned, m + 1);

    for (size_t j = 0; j <= m; j++)
        row[j] = (unsigned)j;
    for (size_t i = 1; a[i - 1]; i++) {
        unsigned diagonal = row[0];
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= m; j++) {
            unsigned above = row[j];
            unsigned d = diagonal + (a[i - 1] != b[j - 1]);
            row[j] = MIN(d, MIN(above, row[j - 1]) + 1);
            diagonal = above;
        }
    }
    return row[m];
}

const char *config_option_nearest(const char *name)
{
    const char *best = NULL;
    unsigned least = MIN(4, (unsigned)strlen(name) / 2 + 1);

    if (strlen(name) > 64)
        return NULL;
    for (const struct config_option *o = config_options; o->name; o++) {
        unsigned d = distance(name, o->name);
        if (d < least) {
            least = d;
            best = o->name;
        }
    }
    return best;
}

static int unknown(const char *where, const char *name)
{
    const char *near = config_option_nearest(name);

    if (near)
        log_error("%s: there is no option \"%s\"; did you mean %s?", where, name, near);
    else
        log_error("%s: there is no option \"%s\"; `mlopsfs mount --help` lists them", where, name);
    return -EINVAL;
}

static int set(struct config *c, const struct config_option *o, const char *where, const char *text,
               bool relative_ok)
{
    g_autofree char *why = NULL;
    int r = config_value_set(c, o, text, relative_ok, &why);

    if (r < 0) {
        if (o->flags & CONFIG_SECRET)
            log_error("%s: %s has no usable value: %s", where, o->name, why);
        else
            log_error("%s: %s=%s: %s", where, o->name, text, why);
    }
    return r;
}

/* ---- the configuration file ---- */

/* The file itself: its text, and whether only its owner can read and write it. */
static int read_text(const char *path, char **ret, bool *ret_private)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    struct stat st;
    GString *text;
    char buf[4096];
    ssize_t n;

    if (fd < 0)
        return -errno;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        close(fd);
        return -EINVAL;
    }
    text = g_string_new(NULL);
    while ((n = read(fd, buf, sizeof(buf))) > 0 && text->len < MIB)
        g_string_append_len(text, buf, n);
    explicit_bzero(buf, sizeof(buf));
    int r = n < 0 ? -errno : memchr(text->str, 0, text->len) ? -EINVAL : 0;
    close(fd);
    *ret_private = (st.st_mode & 077) == 0;
    *ret = g_string_free(text, FALSE);
    return r;
}

static int read_line(struct config *c, const char *where, const char *path, char *line,
                     bool private)
{
    char *eq = strchr(line, '=');
    const struct config_option *o;

    if (!eq) {
        log_error("%s: this is neither a comment nor name = value", where);
        return -EINVAL;
    }
    *eq = 0;
    const char *name = g_strstrip(line), *value = g_strstrip(eq + 1);
    o = config_option_find(name);
    if (!o)
        return unknown(where, name);
    if ((o->flags & CONFIG_SECRET) && *value && !private) {
        log_error("%s: %s stands in a file that others can read; `chmod 600 %s` and make a new key",
                  where, name, path);
        return -EPERM;
    }
    return set(c, o, where, value, false);
}

static int parse_file(struct config *c, const char *path, char *text, bool private)
{
    unsigned number = 0;
    bool in_group = false;

    for (char *line = text, *next; line; line = next) {
        next = strchr(line, '\n');
        if (next)
            *next++ = 0;
        number++;
        g_strstrip(line);
        if (!*line || *line == '#' || *line == ';')
            continue;
        g_autofree char *where = g_strdup_printf("%s:%u", path, number);
        if (*line == '[') {
            in_group = strcmp(line, "[" GROUP "]") == 0;
            if (!in_group) {
                log_error("%s: the only section is [" GROUP "], not %s", where, line);
                return -EINVAL;
            }
        } else if (!in_group) {
            log_error("%s: [" GROUP "] must stand above the first option", where);
            return -EINVAL;
        } else {
            int r = read_line(c, where, path, line, private);
            if (r < 0)
                return r;
        }
    }
    return 0;
}

static char *find_file(void)
{
    const char *xdg = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
    g_autofree char *path = NULL;

    if (xdg && *xdg == '/')
        path = g_build_filename(xdg, "mlopsfs/mlopsfs.conf", NULL);
    else if (home && *home)
        path = g_build_filename(home, ".config/mlopsfs/mlopsfs.conf", NULL);
    if (path && access(path, F_OK) == 0)
        return g_steal_pointer(&path);
    return access("/etc/mlopsfs.conf", F_OK) == 0 ? g_strdup("/etc/mlopsfs.conf") : NULL;
}

int config_read_file(struct config *c, const char *path)
{
    const char *env = getenv("MLOPSFS_CONF");
    g_autofree char *found = NULL, *text = NULL;
    bool private = false;

    if (!path && env && *env)
        path = env;
    if (!path)
        path = found = find_file();
    if (!path)
        return 0;
    int r = read_text(path, &text, &private);
    if (r == -EINVAL)
        log_error("configuration file %s: this is not a text file", path);
    else if (r < 0)
        log_error_errno(r, "cannot read the configuration file %s", path);
    else
        r = parse_file(c, path, text, private);
    if (text)
        explicit_bzero(text, strlen(text));
    if (r == 0) {
        g_free(c->conf_path);
        c->conf_path = g_canonicalize_filename(path, NULL);
    }
    return r;
}

/* ---- the environment ---- */

int config_read_environment(struct config *c)
{
    for (const struct config_option *o = config_options; o->name; o++)
        for (size_t i = 0; i < CONFIG_ENV_MAX && o->env[i]; i++) {
            const char *value = getenv(o->env[i]);
            if (!value || !*value)
                continue;
            int r = set(c, o, o->env[i], value, true);
            if (r < 0)
                return r;
            break;
        }
    return 0;
}

/* ---- -o ---- */

static int read_option(struct config *c, char *word)
{
    if (!*word || config_generic_option(c, word))
        return 0;
    if (strcmp(word, "remount") == 0) {
        log_error(
            "-o remount: options of a mount cannot be changed; unmount it and mount it again");
        return -EINVAL;
    }
    char *eq = strchr(word, '=');
    if (eq)
        *eq = 0;
    const struct config_option *o = config_option_find(word);
    if (!o)
        return unknown("-o", word);
    if (o->flags & CONFIG_SECRET) {
        log_error("-o %s: everyone on this machine can read a command line; give it as S3_%s in "
                  "the environment, "
                  "in a profile, or in a configuration file that only you can read",
                  o->name, strcmp(o->name, "access_key") == 0 ? "ACCESS_KEY" : "SECRET_KEY");
        if (eq)
            explicit_bzero(eq + 1, strlen(eq + 1));
        return -EINVAL;
    }
    if (!eq && o->type != CONFIG_BOOL) {
        log_error("-o %s: a value is missing: %s=VALUE, %s", word, word, config_value_kind(o));
        return -EINVAL;
    }
    return set(c, o, "-o", eq ? eq + 1 : "on", true);
}

int config_read_options(struct config *c, const char *options)
{
    g_autoptr(GString) word = g_string_new(NULL);

    for (const char *p = options;; p++) {
        if (*p == '\\' && (p[1] == ',' || p[1] == '\\')) {
            g_string_append_c(word, *++p);
        } else if (*p && *p != ',') {
            g_string_append_c(word, *p);
        } else {
            int r = read_option(c, word->str);
            if (r < 0 || !*p)
                return r;
            g_string_truncate(word, 0);
        }
    }
}

/* ---- what to mount ---- */

/* Whether every segment of "" or "a/b/" can be a file's name. */
static bool is_path(const char *prefix)
{
    for (const char *p = prefix, *slash; *p; p = slash + 1) {
        slash = strchr(p, '/');
        size_t n = (size_t)(slash - p);
        if (n == 0 || (n == 1 && *p == '.') || (n == 2 && !strncmp(p, "..", 2)))
            return false;
    }
    return true;
}

static int set_bucket(struct config *c, const char *source, const char *text)
{
    const char *slash = strchrnul(text, '/');
    size_t n = (size_t)(slash - text);

    g_free(c->bucket);
    g_free(c->prefix);
    c->bucket = n ? g_strndup(text, n) : NULL;
    c->prefix = g_strdup(*slash ? slash + 1 : "");
    if (*c->prefix && !g_str_has_suffix(c->prefix, "/")) {
        char *p = g_strconcat(c->prefix, "/", NULL);
        g_free(c->prefix);
        c->prefix = p;
    }
    if (!c->bucket && *slash) {
        log_error("%s: a bucket's name is missing before the first /", source);
        return -EINVAL;
    }
    if (c->bucket &&
        (n > 63 ||
         strspn(c->bucket, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_") !=
             n ||
         strcmp(c->bucket, ".") == 0 || strcmp(c->bucket, "..") == 0)) {
        log_error(
            "%s: \"%s\" cannot be a bucket's name: letters, digits, dots and hyphens, at most 63",
            source, c->bucket);
        return -EINVAL;
    }
    if (!is_path(c->prefix)) {
        log_error("%s: the prefix holds an empty segment, \".\" or \"..\", which no path of a file can hold", source);
        return -EINVAL;
    }
    if (strlen(c->prefix) > PREFIX_MAX) {
        log_error("%s: the prefix is longer than %d bytes, too long for keys below it", source,
                  PREFIX_MAX);
        return -EINVAL;
    }
    return 0;
}

/* "PATH" is the bucket "data"; "PATH,bucket[/prefix]" that one; "PATH," every bucket. */
static int set_local(struct config *c, const char *source, const char *text)
{
    const char *comma = strrchr(text, ',');
    g_autofree char *path = comma ? g_strndup(text, (gsize)(comma - text)) : g_strdup(text);

    if (!*path) {
        log_error("local: takes a directory, such as local:/srv/store");
        return -EINVAL;
    }
    c->kind = CONFIG_LOCAL;
    g_free(c->local_path);
    c->local_path = g_canonicalize_filename(path, NULL);
    g_free(c->source);
    c->source = *path == '/' ? g_strdup(source) : g_strconcat("local:", c->local_path, comma, NULL);
    return set_bucket(c, source, comma ? comma + 1 : "data");
}

int config_set_source(struct config *c, const char *source)
{
    const char *bucket;

    if (source && g_str_has_prefix(source, "local:"))
        return set_local(c, source, source + strlen("local:"));
    c->kind = CONFIG_S3;
    g_free(c->source);
    c->source = g_strdup(source);
    if (source && g_str_has_prefix(source, "s3://"))
        return set_bucket(c, source, source + strlen("s3://"));
    if (source) {
        log_error("\"%s\" cannot be mounted: give s3://bucket, s3://bucket/prefix, s3:// for every "
                  "bucket, or local:PATH",
                  source);
        return -EINVAL;
    }
    bucket = getenv("S3_BUCKET");
    if (!bucket || !*bucket) {
        log_error("nothing says what to mount: give s3://bucket before the mount point, or set "
                  "S3_BUCKET");
        return -EINVAL;
    }
    if (g_str_has_prefix(bucket, "s3://"))
        bucket += strlen("s3://");
    c->source = g_strconcat("s3://", bucket, NULL);
    return set_bucket(c, "S3_BUCKET", bucket);
}

/* The endpoint as everything else sees it; a wrong one is a mistake in the configuration, not in the network. */
static int finish_endpoint(struct config *c)
{
    g_autofree char *why = NULL;
    char *normal;

    if (c->kind != CONFIG_S3 || !c->endpoint)
        return 0;
    int r = endpoint_normalize(c->endpoint, &normal, &why);
    if (r < 0) {
        if (strpbrk(c->endpoint, "@?")) /* what follows could be a secret */
            log_error("the endpoint cannot be used: %s", why);
        else
            log_error("the endpoint \"%s\" cannot be used: %s", c->endpoint, why);
        return r;
    }
    g_free(c->endpoint);
    c->endpoint = normal;
    return 0;
}

int config_finish_cache_dir(struct config *c)
{
    const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");

    if (c->cache_dir)
        return 0;
    if (geteuid() == 0)
        c->cache_dir = g_strdup("/var/cache/mlopsfs");
    else if (xdg && *xdg == '/')
        c->cache_dir = g_build_filename(xdg, "mlopsfs", NULL);
    else if (home && *home == '/')
        c->cache_dir = g_build_filename(home, ".cache/mlopsfs", NULL);
    else {
        log_error("HOME is not set, so there is no place for the cache; give -o cache_dir=DIR");
        return -EINVAL;
    }
    return 0;
}

int config_finish(struct config *c)
{
    int r = config_finish_cache_dir(c);

    if (r == 0)
        r = finish_endpoint(c);
    if (r < 0)
        return r;
    if (!c->access_key != !c->secret_key) {
        log_error("%s: %s is set and %s is not; they belong together", c->conf_path,
                  c->access_key ? "access_key" : "secret_key",
                  c->access_key ? "secret_key" : "access_key");
        return -EINVAL;
    }
    if (c->durable && c->kind != CONFIG_LOCAL) {
        log_error("durable=on is for local: stores; a bucket on a server is as durable as the "
                  "server makes it");
        return -EINVAL;
    }
    if (!c->prefix)
        c->prefix = g_strdup("");
    return 0;
}
