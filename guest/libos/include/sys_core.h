/* sys_core.h - the system calls of memory, threads, signals, time and identity: mm/, task/, time/, sys/.
 *
 * As in sys_file.h: arguments as in Linux's x86-64 ABI, pointers are the program's and are checked, the
 * value is >= 0 or a negative Linux errno. Those that always give the same are in sys/info.c only.
 */
#ifndef LIBOS_SYS_CORE_H
#define LIBOS_SYS_CORE_H

#include <linux/time_types.h>

#include "kernel.h"

struct action;
struct clone_args;
struct new_utsname;
struct rlimit64;
struct rusage;
struct signal_event;
struct signal_info;
struct signal_stack;
struct sysinfo;
struct tms;
struct __user_cap_data_struct;
struct __user_cap_header_struct;

/* sys/mem.c (mm.h does the work) */
int64_t sys_mmap(uint64_t addr, uint64_t len, int prot, int flags, int fd, uint64_t offset);
int64_t sys_munmap(uint64_t addr, uint64_t len);
int64_t sys_mprotect(uint64_t addr, uint64_t len, int prot);
int64_t sys_pkey_mprotect(uint64_t addr, uint64_t len, int prot, int key);
int64_t sys_mremap(uint64_t addr, uint64_t old_len, uint64_t new_len, int flags, uint64_t to);
int64_t sys_brk(uint64_t addr);
int64_t sys_madvise(uint64_t addr, uint64_t len, int advice);
int64_t sys_mincore(uint64_t addr, uint64_t len, uint8_t *vec);
int64_t sys_msync(uint64_t addr, uint64_t len, int flags);
int64_t sys_mlock(void);
int64_t sys_mlock2(void);
int64_t sys_munlock(void);
int64_t sys_mlockall(void);
int64_t sys_munlockall(void);
int64_t sys_membarrier(int command);

/* task/task.c */
int64_t sys_clone(uint64_t flags, uint64_t stack, uint64_t parent_tid, uint64_t child_tid,
                  uint64_t tls);
int64_t sys_clone3(const struct clone_args *args, size_t size);
int64_t sys_exit(int status);
int64_t sys_exit_group(int status);
int64_t sys_gettid(void);
int64_t sys_getpid(void);
int64_t sys_sched_yield(void);
int64_t sys_set_tid_address(uint64_t addr);
int64_t sys_set_robust_list(uint64_t head, size_t len);
int64_t sys_get_robust_list(int tid, uint64_t *ret_head, uint64_t *ret_len);

/* task/futex.c */
int64_t sys_futex(uint64_t addr, int op, uint32_t value, const struct __kernel_timespec *timeout,
                  uint64_t addr2, uint32_t value3);

/* task/signal.c, task/sigframe.c */
int64_t sys_rt_sigprocmask(int how, const uint64_t *set, uint64_t *ret_old, size_t size);
int64_t sys_rt_sigpending(uint64_t *ret, size_t size);
int64_t sys_rt_sigaction(int signal, const struct action *action, struct action *ret_old,
                         size_t size);
int64_t sys_sigaltstack(const struct signal_stack *stack, struct signal_stack *ret_old);
int64_t sys_kill(int pid, int signal);
int64_t sys_tgkill(int pid, int tid, int signal);
int64_t sys_tkill(int tid, int signal);
int64_t sys_rt_sigqueueinfo(int pid, int signal, const struct signal_info *info);
int64_t sys_rt_tgsigqueueinfo(int pid, int tid, int signal, const struct signal_info *info);
int64_t sys_rt_sigsuspend(const uint64_t *mask, size_t size);
int64_t sys_rt_sigtimedwait(const uint64_t *set, struct signal_info *ret_info,
                            const struct __kernel_timespec *timeout, size_t size);
int64_t sys_rt_sigreturn(void);

/* time/clock.c */
int64_t sys_clock_gettime(int clock, struct __kernel_timespec *ret);
int64_t sys_gettimeofday(struct __kernel_old_timeval *ret, uint64_t *ret_zone);
int64_t sys_time(int64_t *ret);
int64_t sys_clock_getres(int clock, struct __kernel_timespec *ret);
int64_t sys_clock_settime(void);

/* time/sleep.c */
int64_t sys_nanosleep(const struct __kernel_timespec *time, struct __kernel_timespec *remaining);
int64_t sys_clock_nanosleep(int clock, int flags, const struct __kernel_timespec *time,
                            struct __kernel_timespec *remaining);
int64_t sys_pause(void);
int64_t sys_getitimer(int which, struct __kernel_old_timeval ret[2]);
int64_t sys_setitimer(int which, const struct __kernel_old_timeval value[2],
                      struct __kernel_old_timeval ret_old[2]);
int64_t sys_alarm(uint32_t seconds);
int64_t sys_timer_create(int clock, const struct signal_event *event, int32_t *ret_id);
int64_t sys_timer_gettime(int32_t id, struct __kernel_timespec ret[2]);
int64_t sys_timer_settime(int32_t id, int flags, const struct __kernel_timespec value[2],
                          struct __kernel_timespec ret_old[2]);
int64_t sys_timer_getoverrun(int32_t id);
int64_t sys_timer_delete(int32_t id);

/* sys/info.c */
int64_t sys_getpgid(int pid);
int64_t sys_getresuid(uint32_t *real, uint32_t *effective, uint32_t *saved);
int64_t sys_getresgid(uint32_t *real, uint32_t *effective, uint32_t *saved);
int64_t sys_capget(struct __user_cap_header_struct *header, struct __user_cap_data_struct *data);
int64_t sys_uname(struct new_utsname *ret);
int64_t sys_sysinfo(struct sysinfo *ret);
int64_t sys_getcpu(uint32_t *ret_cpu, uint32_t *ret_node);
int64_t sys_sched_getaffinity(int tid, size_t size, uint64_t *ret);
int64_t sys_sched_getparam(int tid, int *ret);
int64_t sys_sched_rr_get_interval(int tid, struct __kernel_timespec *ret);
int64_t sys_prlimit64(int pid, uint32_t resource, const struct rlimit64 *new_limit,
                      struct rlimit64 *ret_old);
int64_t sys_getrlimit(uint32_t resource, struct rlimit64 *ret);
int64_t sys_setrlimit(uint32_t resource, const struct rlimit64 *limit);
int64_t sys_getrusage(int who, struct rusage *ret);
int64_t sys_times(struct tms *ret);
int64_t sys_prctl(int option, uint64_t a);
int64_t sys_arch_prctl(int option, uint64_t addr);

#endif
