/* SPDX-License-Identifier: Apache-2.0
 *
 * config: every option, once. One table in config.c names each option with its type, default and
 * help text; from it come the -o parser, the configuration file's parser, `--help`, the list in the
 * man page and mlopsfs.conf. Later sources win: defaults, configuration file, environment, -o.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "s3/store.h"

enum config_addressing { CONFIG_ADDRESSING_AUTO, CONFIG_ADDRESSING_PATH, CONFIG_ADDRESSING_VIRTUAL };
enum config_commit { CONFIG_COMMIT_CLOSE, CONFIG_COMMIT_BACKGROUND };
enum config_fsync { CONFIG_FSYNC_BUCKET, CONFIG_FSYNC_LOCAL };
enum config_conflict { CONFIG_CONFLICT_FAIL, CONFIG_CONFLICT_KEEP_BOTH, CONFIG_CONFLICT_OVERWRITE }; /* as enum cache_conflict */

#define CONFIG_RECOVERED "recovered" /* in cache_dir: cache/recovered.h */

struct config_caps {
    bool given; /* else they are probed */
    struct store_caps caps;
};

struct config {
    /* server */
    char *endpoint;        /* S3_ENDPOINT, AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL; NULL = AWS */
    char *region;          /* S3_REGION, AWS_REGION, AWS_DEFAULT_REGION; NULL = us-east-1 */
    int addressing;
    char *ca_file;         /* AWS_CA_BUNDLE */
    char *profile, *access_key, *secret_key;
    bool anonymous;
    unsigned connections;
    uint64_t op_timeout_ns;
    bool allow_bucket_ops;
    struct config_caps caps;
    /* cache */
    char *cache_dir;       /* default: /var/cache/mlopsfs for root, else $XDG_CACHE_HOME/mlopsfs or ~/.cache/mlopsfs */
    uint64_t memory, disk; /* bytes */
    uint64_t part_size;    /* bytes; 0 = the schedule's */
    uint64_t holes_max;    /* bytes of a file that nobody wrote and that are sent; 0 = no limit */
    unsigned uploads;
    int commit;            /* enum config_commit */
    int fsync;             /* enum config_fsync */
    int on_conflict;       /* enum config_conflict */
    /* attributes */
    uint64_t attr_ttl_ns, dir_ttl_ns;
    uint64_t local_sync_ns;
    uid_t uid; gid_t gid;  /* of objects that say nothing; default: who mounts */
    mode_t fmode, dmode;   /* same: 0644, 0755 */
    bool allow_other, read_only;
    uint64_t rename_max;   /* objects in a directory that rename will move */
    /* videos */
    bool probe;
    uint64_t probe_timeout_ns;
    /* running */
    bool foreground;
    int log_level;
    char *log_file;
    bool durable;          /* local store: sync to disk */
    char *fault;           /* tests: see s3/fault.h */
    char *kernel_options;  /* -o noexec,noatime,…: for the kernel, as given, comma-separated; NULL = none */
    /* what to mount: not options of the table */
    enum { CONFIG_S3, CONFIG_LOCAL } kind;
    char *source;          /* as given, a relative path completed: what the kernel shows, and mount -a looks for */
    char *bucket;          /* NULL = every bucket is a directory */
    char *prefix;          /* "" or "a/b/" */
    char *local_path;
    char *mountpoint;      /* absolute, resolved */
    char *conf_path;       /* file that was read, NULL if none */
};

void config_init(struct config *c); /* defaults */
void config_clear(struct config *c);
/* Reads a configuration file (name = value in section [mlopsfs], # comments). path NULL: $MLOPSFS_CONF, $XDG_CONFIG_HOME (~/.config where not set) /mlopsfs/mlopsfs.conf, /etc/mlopsfs.conf,
 * the first that exists; none is fine. A bad line: -EINVAL, logged with file, line, name, and what would be right.
 * A secret in a file that others can read: -EPERM, logged. */
int config_read_file(struct config *c, const char *path);
int config_read_environment(struct config *c);
/* "name=value,name2" as after -o; commas in a value are written \,. Unknown names: -EINVAL, logged, with the nearest name. Generic mount options
 * that mount(8) passes (rw, ro, noexec, user=, nofail, _netdev, x-*…) are accepted: see config_generic.c. */
int config_read_options(struct config *c, const char *options);
/* "s3://[bucket[/prefix]]", "local:PATH[,[bucket[/prefix]]]" (no comma: the bucket "data"; nothing after it: every bucket)
 * or NULL (S3_BUCKET). -EINVAL, logged. */
int config_set_source(struct config *c, const char *source);
/* Derived defaults and cross checks after all sources. */
int config_finish(struct config *c);
/* Only the default of cache_dir: for who mounts nothing. -EINVAL, logged. */
int config_finish_cache_dir(struct config *c);

void config_print_help(FILE *out); /* one line per option: name, default, what it does */
void config_print_conf(FILE *out); /* mlopsfs.conf, commented, every option with its default */
void config_print_man(FILE *out);  /* the man page's list (roff) */
