/* spawner.c - see spawner.h. */
#include "hypervisor/kvm/spawner.h"

#include <errno.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <fcntl.h>
#include <pwd.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/fault.h"
#include "common/log.h"

extern char **environ;

/* Packets taken in one turn of the loop, so that others get theirs. */
enum { EVENTS_A_TURN = 64, RETRY_US = 1000 };

struct queued {
    struct vmm_command command;
    int fds[2]; /* -1 but for SPAWN */
};

struct spawner {
    struct un_list node;
    struct un_loop *loop;
    const struct spawner_events *events;
    void *arg;
    int sock, pidfd;
    pid_t pid;
    struct event sock_event, pid_event;
    struct un_post flush_post;
    struct un_timer retry_timer;
    /* Not sent yet: [sent, count) of queue. */
    struct queued *queue;
    size_t sent, count, cap;
    bool waits_to_write;
};

static void close_socket(struct spawner *sp)
{
    if (sp->sock >= 0) {
        event_del(&sp->sock_event);
        close(sp->sock);
        sp->sock = -1;
    }
}

static void spawner_free(struct spawner *sp)
{
    close_socket(sp);
    un_list_remove(&sp->node);
    un_loop_unpost(sp->loop, &sp->flush_post);
    un_timer_cancel(&sp->retry_timer);
    if (sp->pidfd >= 0) {
        event_del(&sp->pid_event);
        close(sp->pidfd);
    }
    free(sp->queue);
    free(sp);
}

/* --- commands --------------------------------------------------------------------------------- */

static void watch_socket(struct spawner *sp, bool write)
{
    if (sp->waits_to_write != write) {
        short what = (short)(EV_READ | EV_PERSIST | (write ? EV_WRITE : 0));
        event_del(&sp->sock_event);
        event_assign(&sp->sock_event, event_get_base(&sp->sock_event), sp->sock, what,
                     event_get_callback(&sp->sock_event), sp);
        event_add(&sp->sock_event, NULL);
        sp->waits_to_write = write;
    }
}

/* Sends a packet of the `n` oldest commands and their descriptors. */
static ssize_t send_packet(const struct spawner *sp, size_t n)
{
    struct vmm_command commands[VMM_COMMANDS_MAX];
    int fds[VMM_COMMANDS_MAX * VMM_SPAWN_FDS];
    size_t fd_count = 0;
    for (size_t i = 0; i < n; i++) {
        const struct queued *q = &sp->queue[sp->sent + i];
        commands[i] = q->command;
        if (q->command.op == VMM_OP_SPAWN) {
            memcpy(fds + fd_count, q->fds, sizeof(q->fds));
            fd_count += VMM_SPAWN_FDS;
        }
    }
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(fds))];
    } control;
    struct iovec io = {.iov_base = commands, .iov_len = n * sizeof(commands[0])};
    struct msghdr msg = {.msg_iov = &io, .msg_iovlen = 1};
    if (fd_count > 0) {
        msg.msg_control = &control;
        msg.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
        memcpy(CMSG_DATA(c), fds, fd_count * sizeof(int));
    }
    return sendmsg(sp->sock, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void flush(void *arg)
{
    struct spawner *sp = arg;
    while (sp->sock >= 0 && sp->sent < sp->count) {
        size_t n = sp->count - sp->sent;
        n = n < VMM_COMMANDS_MAX ? n : VMM_COMMANDS_MAX;
        ssize_t rc = send_packet(sp, n);
        if (rc < 0 && errno == EAGAIN) {
            watch_socket(sp, true);
            return;
        }
        if (rc < 0 && errno == ETOOMANYREFS && un_timer_arm_in(&sp->retry_timer, RETRY_US) == 0) {
            return; /* too many descriptors are on their way (unix(7)); the spawner takes them soon */
        }
        if (rc < 0 && errno != EINTR) {
            close_socket(sp);
            return;
        }
        sp->sent += rc < 0 ? 0 : n;
    }
    sp->sent = sp->count = 0;
    if (sp->sock >= 0) {
        watch_socket(sp, false);
    }
}

void spawner_command(struct spawner *sp, const struct vmm_command *command, const int fds[2])
{
    if (sp->sock < 0) {
        return;
    }
    if (sp->count == sp->cap) {
        size_t cap = sp->cap ? sp->cap * 2 : VMM_COMMANDS_MAX;
        struct queued *more = reallocarray(sp->queue, cap, sizeof(*more));
        if (!more) {
            spawner_stop(sp); /* a KILL must not get lost; the end of all is the safe side */
            return;
        }
        sp->queue = more;
        sp->cap = cap;
    }
    sp->queue[sp->count++] =
        (struct queued){.command = *command, .fds = {fds ? fds[0] : -1, fds ? fds[1] : -1}};
    un_loop_post(sp->loop, &sp->flush_post);
}

/* --- events ----------------------------------------------------------------------------------- */

/* Takes the sender out of the control data. There is no room in it for descriptors, which nobody has
 * to send: the kernel drops them. */
static int sender(struct msghdr *msg)
{
    int pid = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_CREDENTIALS) {
            struct ucred who;
            memcpy(&who, CMSG_DATA(c), sizeof(who));
            pid = who.pid;
        }
    }
    return pid;
}

/* Reads one packet. False when there is none, or never will be. */
static bool take_event(struct spawner *sp)
{
    struct vmm_event raw, e;
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(struct ucred))];
    } control;
    struct iovec io = {.iov_base = &raw, .iov_len = sizeof(raw)};
    struct msghdr msg = {.msg_iov = &io,
                         .msg_iovlen = 1,
                         .msg_control = &control,
                         .msg_controllen = sizeof(control)};
    ssize_t n = recvmsg(sp->sock, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return false;
    }
    if (n <= 0 || !vmm_event_parse(&raw, (size_t)n, &e)) {
        close_socket(sp); /* it ends now, if it has not; pid_event tells when it has */
        return false;
    }
    sp->events->on_event(sp->arg, &e, sender(&msg));
    return sp->sock >= 0;
}

static void on_socket(evutil_socket_t fd, short what, void *arg)
{
    struct spawner *sp = arg;
    if (what & EV_WRITE) {
        flush(sp);
    }
    for (int i = 0; sp->sock >= 0 && i < EVENTS_A_TURN && take_event(sp); i++) {
    }
}

static void on_pid(evutil_socket_t fd, short what, void *arg)
{
    struct spawner *sp = arg;
    int status;
    while (sp->sock >= 0 && take_event(sp)) { /* what it said before it died */
    }
    while (waitpid(sp->pid, &status, 0) < 0 && errno == EINTR) {
    }
    un_log(UN_LOG_DEBUG, "unid-vmm ended");
    sp->pid = 0;
    sp->events->on_dead(sp->arg, sp);
    spawner_free(sp);
}

/* --- start and end ---------------------------------------------------------------------------- */

/* The user that monitors run as when unid is root. */
static void unprivileged_user(char uid[16], char gid[16])
{
    const struct passwd *pw = getpwnam("unid-vmm");
    snprintf(uid, 16, "%u", pw ? pw->pw_uid : 65534u);
    snprintf(gid, 16, "%u", pw ? pw->pw_gid : 65534u);
}

static int start_process(const char *path, int sock, pid_t *ret, struct un_error *err)
{
    char uid[16], gid[16], name[] = "unid-vmm";
    char *argv[] = {name, uid, gid, NULL}, *envp[] = {NULL};
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    unprivileged_user(uid, gid);
    int rc = posix_spawn_file_actions_init(&actions);
    if (rc != 0) {
        return un_error_errno(err, -rc, "start %s", path);
    }
    rc = posix_spawnattr_init(&attr);
    if (rc == 0) {
        posix_spawnattr_setsigmask(&attr, &none);
        posix_spawnattr_setsigdefault(&attr, &all);
        posix_spawnattr_setpgroup(&attr, 0);
        posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
                                            POSIX_SPAWN_SETPGROUP);
        rc = posix_spawn_file_actions_adddup2(&actions, sock, VMM_FD_CONTROL);
        rc = rc ? rc : posix_spawn(ret, path, &actions, &attr, argv, envp);
        posix_spawnattr_destroy(&attr);
    }
    posix_spawn_file_actions_destroy(&actions);
    return rc ? un_error_errno(err, -rc, "start %s", path) : 0;
}

int spawner_start(const struct spawner_spec *spec, struct spawner **ret, struct un_error *err)
{
    int pair[2], on = 1, rc = un_fault("kvm.spawner");
    if (rc < 0) {
        return un_error_errno(err, rc, "start %s", spec->path);
    }
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
        return un_error_errno(err, -errno, "socket for unid-vmm");
    }
    struct spawner *sp = calloc(1, sizeof(*sp));
    if (!sp) {
        close(pair[0]);
        close(pair[1]);
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    *sp = (struct spawner){.loop = spec->loop,
                           .events = spec->events,
                           .arg = spec->arg,
                           .sock = pair[0],
                           .pidfd = -1,
                           .flush_post = {.fn = flush, .arg = sp}};
    un_timer_init(&sp->retry_timer, sp->loop, flush, sp);
    un_list_push(spec->list, &sp->node);
    event_assign(&sp->sock_event, un_loop_base(sp->loop), sp->sock, EV_READ | EV_PERSIST, on_socket,
                 sp);
    setsockopt(sp->sock, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on));
    rc = start_process(spec->path, pair[1], &sp->pid, err);
    close(pair[1]);
    if (rc == 0 && (sp->pidfd = (int)syscall(SYS_pidfd_open, sp->pid, 0)) < 0) {
        rc = un_error_errno(err, -errno, "watch unid-vmm");
        kill(sp->pid, SIGKILL);
        waitpid(sp->pid, NULL, 0);
    }
    if (rc < 0) {
        spawner_free(sp);
        return rc;
    }
    event_assign(&sp->pid_event, un_loop_base(sp->loop), sp->pidfd, EV_READ, on_pid, sp);
    event_add(&sp->sock_event, NULL);
    event_add(&sp->pid_event, NULL);
    *ret = sp;
    return 0;
}

void spawner_stop(struct spawner *sp)
{
    close_socket(sp);
}

void spawner_destroy_all(struct un_list *list)
{
    un_list_for_each (it, list) {
        close_socket(un_list_entry(it, struct spawner, node));
    }
    un_list_for_each_safe (it, list) {
        struct spawner *sp = un_list_entry(it, struct spawner, node);
        while (sp->pid > 0 && waitpid(sp->pid, NULL, 0) < 0 && errno == EINTR) {
        }
        spawner_free(sp);
    }
}

bool spawner_ending(const struct spawner *sp)
{
    return sp->sock < 0;
}

int spawner_pid(const struct spawner *sp)
{
    return sp->pid;
}
