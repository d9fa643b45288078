/* SPDX-License-Identifier: Apache-2.0
 *
 * stack: see stack.h. One thread. Layers of the store, from the top: retry, stats, fault (tests only),
 * and the store that does the work.
 */
#include "fs/stack.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/cancel.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/workq.h"
#include "cache/cache.h"
#include "catalog/catalog.h"
#include "fs/drain.h"
#include "fs/endpoint.h"
#include "fs/inode.h"
#include "fs/commits.h"
#include "fs/interrupt.h"
#include "fs/namespace.h"
#include "fs/opened.h"
#include "fs/offline.h"
#include "fs/recover.h"
#include "s3/fault.h"
#include "s3/retry.h"
#include "s3/stats.h"
#include "s3/store_local.h"
#include "s3/store_s3.h"

#define MOUNT_CHECK_NS (5 * NSEC_PER_SEC) /* how long mounting waits for a server that does not answer */
#define PROBES_AT_ONCE 2
#define RENAMES_AT_ONCE 8

enum exit_code { EXIT_CONFIG = 1, EXIT_ACCESS = 2, EXIT_BUCKET = 3, EXIT_OTHER = 5 };

static int open_s3(const struct config *c, struct store **ret)
{
    struct s3_credentials creds = {0};
    struct s3_credentials_params cp = {
        .anonymous = c->anonymous,
        .profile = c->profile,
        .conf_path = c->conf_path,
        .conf_access_key = c->access_key,
        .conf_secret_key = c->secret_key,
    };
    struct store_s3_params sp = {
        .endpoint = c->endpoint,
        .region = c->region,
        .addressing = (enum s3_addressing)c->addressing,
        .credentials = &creds,
        .ca_file = c->ca_file,
        .probe_prefix = c->prefix,
        .caps = c->caps.given ? &c->caps.caps : NULL,
        .connections = c->connections,
    };
    int r = s3_credentials_load(&cp, &creds);

    if (r < 0)
        return EXIT_ACCESS;
    r = store_s3_new(&sp, ret);
    s3_credentials_clear(&creds);
    /* It has not talked to the server yet. */
    return r == 0 ? 0 : r == -ENOMEM ? EXIT_OTHER : r == -EACCES ? EXIT_ACCESS : EXIT_CONFIG;
}

static int open_local(const struct config *c, struct store **ret)
{
    struct store_local_params p = {.path = c->local_path, .bucket = c->bucket, .durable = c->durable};

    return store_local_new(&p, ret) < 0 ? EXIT_BUCKET : 0;
}

static int open_store(struct fs *fs, const struct config *c)
{
    struct store_retry_params rp = {.op_timeout_ns = c->op_timeout_ns};
    struct store *s = NULL, *upper;
    int r = c->kind == CONFIG_LOCAL ? open_local(c, &s) : open_s3(c, &s);

    if (r)
        return r;
    if (c->fault && *c->fault) {
        if (store_fault_new(s, c->fault, &upper) < 0) {
            store_free(s);
            return EXIT_CONFIG;
        }
        s = upper;
    }
    fs->stats = s = store_stats_new(s);
    r = store_retry_new(s, &rp, &upper);
    if (r < 0) {
        store_free(s);
        log_error_errno(r, "cannot start the retry timer");
        return EXIT_OTHER;
    }
    fs->store = upper;
    return 0;
}

static const char *server_name(const struct config *c)
{
    return c->kind == CONFIG_LOCAL ? c->local_path : c->endpoint ? c->endpoint : "Amazon S3";
}

static int explain(const struct config *c, const struct store_result *res)
{
    const char *server = server_name(c), *bucket = c->bucket ? c->bucket : "";

    if (res->err == -ENOENT && *bucket) {
        log_error("bucket \"%s\" does not exist on %s: create it, or check the name, the endpoint and the region", bucket, server);
        return EXIT_BUCKET;
    }
    if (res->cls == STORE_CLASS_AUTH) {
        log_error("%s refuses access to %s%s (%s): check the access key, the secret key and the bucket's policy", server,
                  *bucket ? "bucket " : "its list of buckets", bucket, *res->code ? res->code : res->detail);
        return EXIT_ACCESS;
    }
    if (res->cls == STORE_CLASS_FATAL && res->http_status >= 400 && res->http_status < 500) {
        log_error("%s does not take this: %s: check the bucket's name and the prefix, and that the endpoint speaks S3", server, res->detail);
        return EXIT_BUCKET;
    }
    log_error("cannot use %s: %s: check the endpoint, and that the server runs and can be reached", server,
              *res->detail ? res->detail : g_strerror(-res->err));
    return EXIT_BUCKET;
}

static int check_bucket(struct fs *fs, const struct config *c)
{
    _cleanup_request_ struct store_request q = {
        .verb = c->bucket ? STORE_LIST : STORE_BUCKETS,
        .prio = STORE_PRIO_META,
        .bucket = c->bucket,
        .prefix = c->prefix,
        .max_keys = 1,
        .deadline_ns = clock_mono_ns() + MIN(MOUNT_CHECK_NS, c->op_timeout_ns ? c->op_timeout_ns : MOUNT_CHECK_NS),
    };

    store_stats_set_quiet(fs->stats, true); /* explain() says it, once */
    int r = store_run(fs->store, &q, NULL);
    store_stats_set_quiet(fs->stats, false);
    if (r == 0)
        return 0;
    if (!c->bucket && q.res.cls == STORE_CLASS_AUTH && !strcmp(q.res.code, "AccessDenied")) {
        log_warning("%s does not list its buckets to us; they can be used by name", server_name(c));
        return 0;
    }
    return explain(c, &q.res);
}

char *stack_dir(const struct config *c)
{
    g_autofree char *what = endpoint_identity(c);
    g_autofree char *id = g_compute_checksum_for_string(G_CHECKSUM_SHA256, what, -1);

    id[16] = '\0';
    return g_build_filename(c->cache_dir, id, NULL);
}

char *stack_journals(const struct config *c)
{
    g_autofree char *dir = stack_dir(c);

    return g_build_filename(dir, "journal", NULL);
}

static int make_dirs(struct fs *fs, const struct config *c, char **ret_staging)
{
    g_autofree char *dir = stack_dir(c);

    *ret_staging = stack_journals(c);
    if (g_mkdir_with_parents(*ret_staging, 0700) < 0 || access(*ret_staging, W_OK | X_OK) < 0) {
        log_error_errno(-errno, "cannot use cache directory %s (option cache_dir)", *ret_staging);
        return EXIT_CONFIG;
    }
    fs->catalog_path = g_build_filename(dir, STACK_CATALOG, NULL);
    return 0;
}

static char *find_probe_helper(void)
{
    g_autofree char *exe = g_file_read_link("/proc/self/exe", NULL);
    g_autofree char *dir = exe ? g_path_get_dirname(exe) : g_strdup(".");
    g_autofree char *beside = g_build_filename(dir, "mlopsfs-probe", NULL);
    g_autofree char *installed = g_build_filename(dir, "..", "libexec", "mlopsfs", "mlopsfs-probe", NULL);

    if (access(beside, X_OK) == 0)
        return g_steal_pointer(&beside);
    if (access(installed, X_OK) == 0)
        return g_steal_pointer(&installed);
    log_warning("mlopsfs-probe is neither at %s nor at %s: there will be no user.video.* attributes", beside, installed);
    return NULL;
}

static int open_probes(struct fs *fs, const struct config *c)
{
    if (!c->probe)
        return 0;
    fs->probe_helper = find_probe_helper();
    if (fs->probe_helper && !c->read_only && workq_new("probe", PROBES_AT_ONCE, &fs->probes) < 0)
        return EXIT_OTHER;
    return 0;
}

static_assert((int)CONFIG_CONFLICT_FAIL == CACHE_CONFLICT_FAIL && (int)CONFIG_CONFLICT_KEEP_BOTH == CACHE_CONFLICT_KEEP_BOTH &&
              (int)CONFIG_CONFLICT_OVERWRITE == CACHE_CONFLICT_OVERWRITE,
              "the option's values are the cache's");

static int open_cache(struct fs *fs, const struct config *c, const char *staging)
{
    g_autofree char *recovered = g_build_filename(c->cache_dir, CONFIG_RECOVERED, NULL);
    struct cache_params p = {
        .store = fs->store,
        .dir = staging,
        .recovered = recovered,
        .origin = c->kind == CONFIG_LOCAL ? c->local_path : c->endpoint ? c->endpoint : "",
        .memory = c->memory,
        .bucket = c->bucket,
        .disk = c->disk,
        .uploads = c->uploads,
        .part_size = c->part_size,
        .holes_max = c->holes_max,
        .local_sync_ns = c->local_sync_ns,
        .untagged_ttl_ns = c->attr_ttl_ns,
        .committed = ns_committed,
        .on_conflict = (enum cache_conflict)c->on_conflict,
        .parted = ns_parted,
    };

    return cache_new(&p, &fs->cache) < 0 ? EXIT_OTHER : 0;
}

static void init_root(struct fs *fs, const struct config *c)
{
    _cleanup_inode_ struct inode *root = NULL;

    fs->inodes = inode_table_new(fs, c->bucket, c->prefix);
    root = inode_root(fs->inodes);
    mutex_lock(&root->lock);
    attr_default(&root->attr, true, clock_real_ns(), &fs->defaults);
    mutex_unlock(&root->lock);
}

int stack_open_cache(struct fs *fs, const struct config *c)
{
    g_autofree char *staging = NULL;
    int r;

    *fs = (struct fs){
        .config = c,
        .ending = cancel_new(),
        .handles = opened_list_new(),
        .dir_handles = opened_list_new(),
        .parked = opened_list_new(),
        .defaults = {.fmode = c->fmode, .dmode = c->dmode, .uid = c->uid, .gid = c->gid},
    };
    r = interrupts_new(&fs->interrupts) < 0 ? EXIT_OTHER : open_store(fs, c);
    if (r == 0)
        r = check_bucket(fs, c);
    if (r == 0)
        r = make_dirs(fs, c, &staging);
    if (r == 0)
        r = open_cache(fs, c, staging);
    return r;
}

int stack_open(struct fs *fs, const struct config *c)
{
    int r = stack_open_cache(fs, c);

    if (r == 0)
        r = catalog_open(fs->catalog_path, false, &fs->catalog) < 0 ? EXIT_OTHER : 0;
    if (r == 0)
        r = open_probes(fs, c);
    if (r == 0)
        r = workq_new("behind", RENAMES_AT_ONCE, &fs->behind) < 0 ? EXIT_OTHER : 0;
    if (r == 0)
        r = commits_new(fs, &fs->commits) < 0 ? EXIT_OTHER : 0;
    if (r == 0) {
        init_root(fs, c);
        offline_settle(c);
        recover_run(fs);
        stack_warn_volatile(c);
    }
    return r;
}

/* The file systems that do not outlive a restart, or the container. */
static const char *volatile_type(const char *path, const char **ret_end)
{
    struct statfs st;

    *ret_end = "this machine restarts";
    if (statfs(path, &st) < 0)
        return NULL;
    switch ((unsigned long)st.f_type) {
    case TMPFS_MAGIC:
        return "tmpfs";
    case RAMFS_MAGIC:
        return "ramfs";
    case OVERLAYFS_SUPER_MAGIC:
        *ret_end = "the container is removed";
        return "overlay";
    default:
        return NULL;
    }
}

void stack_warn_volatile(const struct config *c)
{
    const char *end, *type = c->read_only ? NULL : volatile_type(c->cache_dir, &end);

    if (!type)
        return;
    log_warning("cache_dir %s is on %s: what is there and not in the bucket yet is lost when %s%s", c->cache_dir, type, end,
                c->commit == CONFIG_COMMIT_BACKGROUND ? "; with commit=background that may be files that were closed: choose another cache_dir" : "");
}

void stack_close(struct fs *fs)
{
    cancel_fire(fs->ending);
    opened_close_all(fs->handles);
    opened_close_all(fs->dir_handles);
    if (fs->behind)
        workq_free(fs->behind);
    commits_free(fs->commits);
    if (fs->inodes)
        (void)drain_run(fs, "", false, NULL); /* after it no commit runs that could ask for a probe */
    if (fs->probes)
        workq_free(fs->probes);
    if (fs->inodes)
        drain_last(fs);
    if (fs->inodes)
        inode_table_free(fs->inodes);
    if (fs->cache)
        cache_free(fs->cache);
    catalog_close(fs->catalog);
    store_free(fs->store);
    cancel_free(fs->ending);
    opened_list_free(fs->handles);
    opened_list_free(fs->dir_handles);
    opened_list_free(fs->parked);
    interrupts_free(fs->interrupts);
    g_free(fs->probe_helper);
    g_free(fs->catalog_path);
}
