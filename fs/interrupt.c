/* SPDX-License-Identifier: Apache-2.0
 *
 * interrupt: see interrupt.h. One lock for the list of those interrupted; give_up() runs under it, so that
 * interrupt_forget() waits for it. The timer runs only while the list is not empty.
 */
#include "fs/interrupt.h"

#include <assert.h>
#include <glib.h>
#include <signal.h>
#include <string.h>

#include "base/clock.h"
#include "base/mutex.h"
#include "base/timerq.h"

#define LOOK_AGAIN_NS (500 * NSEC_PER_MSEC)
#define RANK_INTERRUPTS ((enum mutex_rank)(RANK_NAMESPACE + 1)) /* below a parked request's lock */

struct interrupts {
    struct timerq *timers;
    struct mutex lock;
    struct interrupt *first; /* lock */
    bool ticking;            /* lock: the timer is queued or running */
    struct timer timer;
};

static uint64_t signal_set(const char *status, const char *field)
{
    const char *at = strstr(status, field);

    return at ? g_ascii_strtoull(at + strlen(field), NULL, 16) : 0;
}

#define SIG(n) (1ULL << ((n) - 1))

/* Whether the thread that waits for req has a signal pending that should end the wait. */
static bool wants_out(fuse_req_t req)
{
    const uint64_t wants = SIG(SIGKILL) | SIG(SIGINT) | SIG(SIGTERM) | SIG(SIGQUIT) | SIG(SIGHUP);
    const uint64_t harmless = SIG(SIGCHLD) | SIG(SIGURG) | SIG(SIGWINCH) | SIG(SIGCONT) | SIG(SIGTSTP) | SIG(SIGTTIN) |
                              SIG(SIGTTOU) | SIG(SIGSTOP);
    g_autofree char *path = g_strdup_printf("/proc/%d/status", (int)fuse_req_ctx(req)->pid);
    g_autofree char *status = NULL;
    uint64_t pending;

    if (!g_file_get_contents(path, &status, NULL, NULL))
        return true; /* gone, or out of sight in another namespace */
    pending = signal_set(status, "\nSigPnd:") | signal_set(status, "\nShdPnd:");
    return (pending & wants) || (pending & ~harmless & ~signal_set(status, "\nSigCgt:"));
}

static void look_again(void *arg)
{
    struct interrupts *l = arg;

    mutex_lock(&l->lock);
    for (struct interrupt *i = l->first; i; i = i->next)
        if (wants_out(i->req))
            i->give_up(i->ctx);
    l->ticking = l->first != NULL;
    if (l->ticking)
        timerq_add(l->timers, &l->timer, clock_mono_ns() + LOOK_AGAIN_NS);
    mutex_unlock(&l->lock);
}

int interrupts_new(struct interrupts **ret)
{
    struct interrupts *l = g_new0(struct interrupts, 1);
    int r = timerq_new("interrupts", &l->timers);

    if (r < 0) {
        g_free(l);
        return r;
    }
    mutex_init(&l->lock, RANK_INTERRUPTS);
    l->timer.fn = look_again;
    l->timer.arg = l;
    *ret = l;
    return 0;
}

void interrupts_free(struct interrupts *l)
{
    if (!l)
        return;
    assert(!l->first);
    (void)timerq_remove(l->timers, &l->timer); /* else it runs now, finds nobody and does not come again */
    timerq_free(l->timers);
    mutex_fini(&l->lock);
    g_free(l);
}

void interrupt_came(struct interrupts *l, struct interrupt *i)
{
    mutex_lock(&l->lock);
    if (wants_out(i->req)) {
        i->give_up(i->ctx);
    } else if (!i->listed) {
        i->listed = true;
        i->prev = NULL;
        i->next = l->first;
        if (i->next)
            i->next->prev = i;
        l->first = i;
        if (!l->ticking)
            timerq_add(l->timers, &l->timer, clock_mono_ns() + LOOK_AGAIN_NS);
        l->ticking = true;
    }
    mutex_unlock(&l->lock);
}

void interrupt_forget(struct interrupts *l, struct interrupt *i)
{
    mutex_lock(&l->lock);
    if (i->listed) {
        if (i->next)
            i->next->prev = i->prev;
        if (i->prev)
            i->prev->next = i->next;
        else
            l->first = i->next;
        i->listed = false;
    }
    mutex_unlock(&l->lock);
}
