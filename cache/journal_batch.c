/* SPDX-License-Identifier: Apache-2.0
 *
 * journal_batch: many threads' changes of an instance as one transaction, see journal_private.h.
 *
 * Who finds nobody leading leads: takes all that is queued, carries it out in one transaction, and tells each what came of it; who has
 * come meanwhile is led by the first of them. Threads: any; `queue_lock` covers the queue alone, and nothing is waited for under it but
 * one's turn. When anything in a transaction fails, it is taken back as a whole, and each change is made again in one of its own: nobody fails
 * for another's reason.
 */
#include "cache/journal_private.h"

enum turn { TURN_WAITS, TURN_LEADS, TURN_DONE };

struct journal_change {
    journal_op *op;
    const void *arg;
    int r;
    enum turn turn; /* queue_lock */
    struct cond cond; /* turn is another */
};

static int run_text(struct journal *j, const char *sql)
{
    sqlite3_stmt *st;
    int r = db_prepare_kept(j->db, j->statements, sql, &st);
    return r < 0 ? r : MIN(db_step(st), 0);
}

/* In order. 0, or the first -errno, and then none has been made. */
static int transact(struct journal *j, struct journal_change *const *changes, guint n)
{
    int r = run_text(j, "BEGIN IMMEDIATE");
    for (guint i = 0; r == 0 && i < n; i++)
        r = changes[i]->op(j, changes[i]->arg);
    if (r == 0)
        r = run_text(j, "COMMIT");
    if (r < 0 && !sqlite3_get_autocommit(j->db))
        (void)db_exec(j->db, "ROLLBACK");
    return r;
}

static void make(struct journal *j, struct journal_change *const *changes, guint n)
{
    mutex_lock(&j->lock);
    int r = transact(j, changes, n);
    for (guint i = 0; i < n; i++)
        changes[i]->r = r < 0 && n > 1 ? transact(j, &changes[i], 1) : r;
    mutex_unlock(&j->lock);
}

static void lead(struct journal *j)
{
    mutex_lock(&j->queue_lock);
    g_autoptr(GPtrArray) taken = j->queue;
    j->queue = g_ptr_array_new();
    mutex_unlock(&j->queue_lock);
    make(j, (struct journal_change *const *)taken->pdata, taken->len);
    mutex_lock(&j->queue_lock);
    for (guint i = 0; i < taken->len; i++) {
        struct journal_change *c = taken->pdata[i];
        c->turn = TURN_DONE; /* it may be gone after the unlock */
        cond_signal(&c->cond);
    }
    struct journal_change *next = j->queue->len > 0 ? j->queue->pdata[0] : NULL;
    j->led = next != NULL;
    if (next) {
        next->turn = TURN_LEADS;
        cond_signal(&next->cond);
    }
    mutex_unlock(&j->queue_lock);
}

int journal_change(struct journal *j, journal_op *op, const void *arg)
{
    struct journal_change c = {.op = op, .arg = arg};
    cond_init(&c.cond);
    mutex_lock(&j->queue_lock);
    g_ptr_array_add(j->queue, &c);
    if (!j->led)
        c.turn = TURN_LEADS;
    j->led = true;
    while (c.turn == TURN_WAITS)
        cond_wait(&c.cond, &j->queue_lock);
    bool leads = c.turn == TURN_LEADS;
    mutex_unlock(&j->queue_lock);
    if (leads)
        lead(j);
    cond_fini(&c.cond);
    return c.r;
}
