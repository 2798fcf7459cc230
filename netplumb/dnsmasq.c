/* dnsmasq.c - see dnsmasq.h. */
#include "netplumb/dnsmasq.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "netplumb/dnsmasq_impl.h"

enum {
    WRITE_PAUSE_US = 20000, /* between two writings of the files */
    PAUSE_FIRST_MS = 200,
    PAUSE_MOST_MS = 30000,
    SAID_SIZE = 160
};

struct net_dnsmasq {
    struct un_loop *loop;
    const struct net_names *names;
    const struct net_range *range;
    struct net_dnsmasq_user user;
    struct un_buf dir; /* with a NUL behind it */
    bool wanted, reconciled, told_missing;
    pid_t pid; /* 0: does not run */
    int pidfd, log_fd;
    struct event *ended, *said;
    struct un_timer restart, write;
    uint64_t written_us;
    unsigned failures;
    char line[SAID_SIZE]; /* the last that it said */
};

static const char *const files[] = {"conf", "hosts", "leases", "pid"};

const char *net_dnsmasq_path(void)
{
    static const char *const places[] = {"/usr/sbin/dnsmasq", "/usr/local/sbin/dnsmasq",
                                         "/usr/bin/dnsmasq"};
    for (size_t i = 0; i < UN_ARRAY_SIZE(places); i++) {
        if (access(places[i], X_OK) == 0) {
            return places[i];
        }
    }
    return NULL;
}

int net_dnsmasq_dir(const struct net_names *n, const char *state_dir, struct un_buf *ret)
{
    return geteuid() == 0 ? un_buf_printf(ret, "/run/unid-%s", n->tag)
                          : un_buf_printf(ret, "%s/net", state_dir);
}

int net_dnsmasq_config(const struct net_names *n, const struct net_range *range, const char *dir,
                       struct un_buf *out)
{
    char base[NET_IP_SIZE], gateway[NET_IP_SIZE], mask[NET_IP_SIZE];
    net_addr_text(range->base, base);
    net_range_netmask(range, mask);
    net_range_gateway(range, gateway);
    int rc =
        un_buf_printf(out,
                      "interface=%s*\nexcept-interface=lo\nlisten-address=%s\nbind-interfaces\n"
                      "no-resolv\nno-hosts\nno-poll\nno-ident\nlocal=/#/\ncache-size=0\n"
                      "addn-hosts=%s/hosts\npid-file\n",
                      n->bridges, gateway, dir);
    /* A guest's host name must not become a name that others are answered. */
    return rc < 0 ? rc
                  : un_buf_printf(out,
                                  "dhcp-range=%s,static,%s,1h\ndhcp-alternate-port=%u,68\n"
                                  "dhcp-hostsfile=%s/leases\n"
                                  "dhcp-option=option:router,%s\ndhcp-option=option:dns-server,%s\n"
                                  "dhcp-ignore-names\ndhcp-authoritative\ndhcp-lease-max=%u\n"
                                  "leasefile-ro\nno-ping\nquiet-dhcp\n",
                                  base, mask, n->dhcp_port, dir, gateway, gateway,
                                  (unsigned)NET_GUESTS_MAX);
}

/* --- files -------------------------------------------------------------------------------------- */

static const char *dir_of(const struct net_dnsmasq *d)
{
    return (const char *)d->dir.data;
}

/* The directory, which must be ours when it is there: below the state directory, or in /run, where root
 * alone makes things. */
static int make_dir(struct net_dnsmasq *d, struct un_error *err)
{
    const struct dnsmasq_who *who = dnsmasq_who();
    struct stat st;
    if (mkdir(dir_of(d), 0700) < 0 && errno != EEXIST) {
        return un_error_errno(err, -errno, "make %s", dir_of(d));
    }
    if (lstat(dir_of(d), &st) < 0 || !S_ISDIR(st.st_mode) || st.st_uid != geteuid()) {
        return un_error_set(err, -EEXIST, "%s is not a directory of unid's own", dir_of(d));
    }
    if (who->change && (chown(dir_of(d), (uid_t)-1, who->gid) < 0 || chmod(dir_of(d), 0750) < 0)) {
        return un_error_errno(err, -errno, "give %s to dnsmasq", dir_of(d));
    }
    return 0;
}

static int write_file(const struct net_dnsmasq *d, const char *name, const struct un_buf *text,
                      struct un_error *err)
{
    un_autofree char *path = NULL, *fresh = NULL;
    if (asprintf(&path, "%s/%s", dir_of(d), name) < 0 ||
        asprintf(&fresh, "%s/.%s", dir_of(d), name) < 0) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    un_autoclose int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    ssize_t n = fd < 0 ? -1 : write(fd, text->len ? (const void *)text->data : "", text->len);
    if (n != (ssize_t)text->len || fchmod(fd, 0644) < 0 || rename(fresh, path) < 0) {
        int rc = n >= 0 && n != (ssize_t)text->len ? -ENOSPC : -errno;
        unlink(fresh);
        return un_error_errno(err, rc, "write %s", path);
    }
    return 0;
}

static void remove_files(struct net_dnsmasq *d)
{
    for (size_t i = 0; i < UN_ARRAY_SIZE(files); i++) {
        for (int hidden = 0; hidden < 2; hidden++) {
            un_autofree char *path = NULL;
            if (asprintf(&path, "%s/%s%s", dir_of(d), hidden ? "." : "", files[i]) < 0) {
                path = NULL;
                return;
            }
            unlink(path);
        }
    }
    rmdir(dir_of(d));
}

/* What changes while it runs. */
static int write_lists(struct net_dnsmasq *d, struct un_error *err)
{
    un_autobuf struct un_buf hosts = {0}, leases = {0};
    if (d->user.hosts(d->user.arg, &hosts) < 0 || d->user.leases(d->user.arg, &leases) < 0) {
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    d->written_us = un_loop_now_us(d->loop);
    int rc = write_file(d, "hosts", &hosts, err);
    return rc < 0 ? rc : write_file(d, "leases", &leases, err);
}

static void on_write(void *arg)
{
    struct net_dnsmasq *d = arg;
    struct un_error err = UN_ERROR_INIT;
    if (!d->pid) {
        return; /* the start writes them */
    }
    if (write_lists(d, &err) < 0) {
        un_log(UN_LOG_WARN, "names of machines are not up to date", "error", err.text);
        (void)un_timer_arm_in(&d->write, (uint64_t)PAUSE_FIRST_MS * 1000);
        return;
    }
    /* It reads both files again. */
    syscall(SYS_pidfd_send_signal, d->pidfd, SIGHUP, NULL, 0);
}

void net_dnsmasq_changed(struct net_dnsmasq *d)
{
    if (d->pid && !un_timer_armed(&d->write)) {
        (void)un_timer_arm_at(&d->write, d->written_us + WRITE_PAUSE_US);
    }
}

/* --- the process -------------------------------------------------------------------------------- */

static void on_restart(void *arg);

static void forget_process(struct net_dnsmasq *d)
{
    if (d->ended) {
        event_free(un_steal(&d->ended));
    }
    if (d->said) {
        event_free(un_steal(&d->said));
    }
    if (d->pidfd >= 0) {
        close(d->pidfd);
        d->pidfd = -1;
    }
    if (d->log_fd >= 0) {
        close(d->log_fd);
        d->log_fd = -1;
    }
    d->pid = 0;
}

static void rest(struct net_dnsmasq *d, const char *why)
{
    uint64_t pause = (uint64_t)PAUSE_FIRST_MS << (d->failures < 8 ? d->failures : 8);
    d->failures++;
    pause = pause > PAUSE_MOST_MS ? PAUSE_MOST_MS : pause;
    un_log(UN_LOG_WARN,
           "dnsmasq does not run: machines get no DHCP and no names; it is started again", "reason",
           why);
    (void)un_timer_arm_in(&d->restart, pause * 1000);
}

/* A guest that declines its address (RFC 2131, section 3.1) makes dnsmasq keep it from that guest's MAC, which is the
 * next's as well, for ten minutes; or until it reads the files again. */
static bool has_declined(const char *text, size_t len)
{
    static const char words[] = "disabling DHCP static address";
    return memmem(text, len, words, sizeof(words) - 1) != NULL;
}

/* Keeps the last line. */
static void on_said(evutil_socket_t fd, short what, void *arg)
{
    struct net_dnsmasq *d = arg;
    char text[1024];
    ssize_t n = read(fd, text, sizeof(text));
    if (n <= 0) {
        if (n == 0 || errno != EAGAIN) {
            event_del(d->said);
        }
        return;
    }
    if (has_declined(text, (size_t)n)) {
        net_dnsmasq_changed(d);
    }
    while (n > 0 && text[n - 1] == '\n') {
        n--;
    }
    const char *line = memrchr(text, '\n', (size_t)n);
    line = line ? line + 1 : text;
    snprintf(d->line, sizeof(d->line), "%.*s", (int)(text + n - line), line);
}

static void on_ended(evutil_socket_t fd, short what, void *arg)
{
    struct net_dnsmasq *d = arg;
    on_said(d->log_fd, 0, d);
    waitpid(d->pid, NULL, 0);
    forget_process(d);
    rest(d, d->line[0] ? d->line : "it ended");
}

static int write_first(struct net_dnsmasq *d, struct un_error *err)
{
    un_autobuf struct un_buf text = {0};
    int rc = make_dir(d, err);
    if (rc == 0 && net_dnsmasq_config(d->names, d->range, dir_of(d), &text) < 0) {
        rc = un_error_set(err, -ENOMEM, "out of memory");
    }
    rc = rc < 0 ? rc : write_file(d, "conf", &text, err);
    return rc < 0 ? rc : write_lists(d, err);
}

static int spawn(struct net_dnsmasq *d, const char *program, struct un_error *err)
{
    un_autobuf struct un_buf text = {0};
    un_autofree char *conf = NULL;
    int ends[2];
    if (asprintf(&conf, "%s/conf", dir_of(d)) < 0) {
        conf = NULL;
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0) {
        return un_error_errno(err, -errno, "make a pipe");
    }
    const struct dnsmasq_spec spec = {
        .program = program, .config = conf, .log_fd = ends[1], .ns = d->user.ns};
    int rc = dnsmasq_spawn(&spec, &d->pid, &d->pidfd, err);
    close(ends[1]);
    d->log_fd = ends[0];
    if (rc < 0) {
        forget_process(d);
        return rc;
    }
    struct event_base *base = un_loop_base(d->loop);
    d->ended = event_new(base, d->pidfd, EV_READ, on_ended, d);
    d->said = event_new(base, d->log_fd, EV_READ | EV_PERSIST, on_said, d);
    if (!d->ended || !d->said || event_add(d->ended, NULL) < 0 || event_add(d->said, NULL) < 0) {
        syscall(SYS_pidfd_send_signal, d->pidfd, SIGKILL, NULL, 0);
        waitpid(d->pid, NULL, 0);
        forget_process(d);
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    /* Only a second string: the kernel ends it when unid does. */
    if (un_buf_printf(&text, "%d %llu\n", (int)d->pid, (unsigned long long)dnsmasq_began(d->pid)) ==
        0) {
        (void)write_file(d, "pid", &text, NULL);
    }
    return 0;
}

static void on_restart(void *arg)
{
    struct net_dnsmasq *d = arg;
    struct un_error err = UN_ERROR_INIT;
    const char *program = net_dnsmasq_path();
    if (!program) {
        if (!d->told_missing) {
            un_log(UN_LOG_WARN,
                   "dnsmasq is not installed: machines get no DHCP and no names; those with "
                   "an address on their command line run (apt-get install dnsmasq-base)");
        }
        d->told_missing = true;
        return;
    }
    if (write_first(d, &err) < 0 || spawn(d, program, &err) < 0) {
        rest(d, err.text);
    }
}

void net_dnsmasq_start(struct net_dnsmasq *d)
{
    if (!d->wanted) {
        net_dnsmasq_reconcile(d);
        d->wanted = true;
        d->failures = 0;
        d->line[0] = '\0';
        on_restart(d);
    }
}

void net_dnsmasq_stop(struct net_dnsmasq *d)
{
    un_timer_cancel(&d->restart);
    un_timer_cancel(&d->write);
    if (d->pid) {
        syscall(SYS_pidfd_send_signal, d->pidfd, SIGKILL, NULL, 0); /* it has nothing to save */
        waitpid(d->pid, NULL, 0);
        forget_process(d);
    }
    if (d->wanted) {
        remove_files(d);
    }
    d->wanted = false;
}

void net_dnsmasq_reconcile(struct net_dnsmasq *d)
{
    struct stat st;
    int pid = 0;
    unsigned long long began = 0;
    if (d->reconciled || lstat(dir_of(d), &st) < 0 || !S_ISDIR(st.st_mode) ||
        st.st_uid != geteuid()) {
        d->reconciled = true;
        return;
    }
    d->reconciled = true;
    un_autofree char *path = NULL;
    if (asprintf(&path, "%s/pid", dir_of(d)) < 0) {
        path = NULL;
        return;
    }
    FILE *f = fopen(path, "re");
    if (f) {
        if (fscanf(f, "%d %llu", &pid, &began) == 2 && pid > 1 &&
            dnsmasq_kill_known(pid, began, dir_of(d))) {
            un_log(UN_LOG_INFO, "ended the dnsmasq that an earlier unid left");
        }
        fclose(f);
    }
    remove_files(d);
}

/* --- the whole ---------------------------------------------------------------------------------- */

int net_dnsmasq_new(struct un_loop *loop, const struct net_names *names,
                    const struct net_range *range, const char *state_dir,
                    const struct net_dnsmasq_user *user, struct net_dnsmasq **ret,
                    struct un_error *err)
{
    struct net_dnsmasq *d = calloc(1, sizeof(*d));
    if (!d || net_dnsmasq_dir(names, state_dir, &d->dir) < 0) {
        free(d);
        return un_error_set(err, -ENOMEM, "out of memory");
    }
    d->loop = loop;
    d->names = names;
    d->range = range;
    d->user = *user;
    d->pidfd = d->log_fd = -1;
    un_timer_init(&d->restart, loop, on_restart, d);
    un_timer_init(&d->write, loop, on_write, d);
    *ret = d;
    return 0;
}

void net_dnsmasq_free(struct net_dnsmasq *d)
{
    if (d) {
        net_dnsmasq_stop(d);
        un_buf_done(&d->dir);
        free(d);
    }
}
