/* proc_text.c - the texts of /proc and /sys. Formats: proc(5). */
#include <cpuid.h>

#include "fs/proc.h"
#include "fs/vfs.h"
#include "host.h"
#include "mm.h"

#define TICKS_PER_S 100
#define NS_PER_S    1000000000ull

static const char *command_name(void)
{
    const char *exe = process_exe(), *name = exe;
    for (const char *p = exe; *p; p++) {
        if (*p == '/') {
            name = p + 1;
        }
    }
    return name;
}

struct totals {
    uint64_t size, data, stack, code;
};

static void add_area(void *arg, const struct mm_area_info *a)
{
    struct totals *t = arg;
    uint64_t len = a->to - a->from;
    t->size += len;
    t->code += a->prot & 4 ? len : 0;
    t->data += a->prot & 2 && !a->shared ? len : 0;
    t->stack += strcmp(a->name, "[stack]") == 0 ? len : 0;
}

static struct totals measure(void)
{
    struct totals t = {0, 0, 0, 0};
    mm_for_each_area(add_area, &t);
    return t;
}

static uint64_t resident_pages(void)
{
    return frames_total() - frames_free();
}

static void count_task(void *arg, const struct task *t)
{
    (void)t;
    ++*(unsigned *)arg;
}

static unsigned task_count(void)
{
    unsigned n = 0;
    process_for_each_task(count_task, &n);
    return n;
}

static void add_map_line(void *arg, const struct mm_area_info *a)
{
    struct text *t = arg;
    text_hex(t, a->from, 8);
    text_bytes(t, "-", 1);
    text_hex(t, a->to, 8);
    text_format(t, " %c%c%c%c ", a->prot & 1 ? 'r' : '-', a->prot & 2 ? 'w' : '-',
                a->prot & 4 ? 'x' : '-', a->shared ? 's' : 'p');
    text_hex(t, a->offset, 8);
    text_format(t, " 00:0%c 0 ", a->name[0] == '/' ? '1' : '0');
    if (a->name[0]) {
        text_bytes(t, "                         ", 25);
        text_bytes(t, a->name, strlen(a->name));
    }
    text_bytes(t, "\n", 1);
}

static void self_maps(struct text *t)
{
    mm_for_each_area(add_map_line, t);
}

static void self_stat(struct text *t)
{
    struct totals m = measure();
    uint64_t used = clock_monotonic_ns() - process_start_ns();
    text_format(t, "%d (%.*s) R 0 1 1 0 -1 4194304 0 0 0 0 %lu 0 0 0 20 0 %u 0 %lu %lu %lu",
                process_pid(), 15, command_name(), (unsigned long)(used / (NS_PER_S / TICKS_PER_S)),
                task_count(), (unsigned long)(process_start_ns() / (NS_PER_S / TICKS_PER_S)),
                (unsigned long)m.size, (unsigned long)resident_pages());
    text_format(t,
                " 18446744073709551615 0 0 0 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n");
}

static void self_statm(struct text *t)
{
    struct totals m = measure();
    text_format(t, "%lu %lu 0 %lu 0 %lu 0\n", (unsigned long)(m.size / PAGE_SIZE),
                (unsigned long)resident_pages(), (unsigned long)(m.code / PAGE_SIZE),
                (unsigned long)(m.data / PAGE_SIZE));
}

static void self_status(struct text *t)
{
    struct totals m = measure();
    text_format(t,
                "Name:\t%.*s\nUmask:\t0%c%c%c\nState:\tR (running)\nTgid:\t1\nNgid:\t0\nPid:\t1\n"
                "PPid:\t0\nTracerPid:\t0\nUid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nFDSize:\t%d\n"
                "Groups:\t0 \n",
                15, command_name(), '0' + (char)(process_umask >> 6 & 7),
                '0' + (char)(process_umask >> 3 & 7), '0' + (char)(process_umask & 7), fd_count());
    text_format(t,
                "VmPeak:\t%lu kB\nVmSize:\t%lu kB\nVmLck:\t0 kB\nVmHWM:\t%lu kB\nVmRSS:\t%lu kB\n"
                "VmData:\t%lu kB\nVmStk:\t%lu kB\nVmExe:\t%lu kB\nVmSwap:\t0 kB\nThreads:\t%u\n",
                (unsigned long)(m.size / 1024), (unsigned long)(m.size / 1024),
                (unsigned long)(resident_pages() * 4), (unsigned long)(resident_pages() * 4),
                (unsigned long)(m.data / 1024), (unsigned long)(m.stack / 1024),
                (unsigned long)(m.code / 1024), task_count());
    text_format(t, "Seccomp:\t0\nCpus_allowed:\t1\nCpus_allowed_list:\t0\nMems_allowed:\t1\n"
                   "Mems_allowed_list:\t0\nvoluntary_ctxt_switches:\t0\n"
                   "nonvoluntary_ctxt_switches:\t0\n");
}

static void self_cmdline(struct text *t)
{
    size_t len;
    const char *line = process_cmdline(&len);
    text_bytes(t, line, len);
}

static void self_environ(struct text *t)
{
    size_t len;
    const char *line = process_environ(&len);
    text_bytes(t, line, len);
}

static void self_comm(struct text *t)
{
    text_format(t, "%.*s\n", 15, command_name());
}

static void self_mounts(struct text *t)
{
    text_format(t, "tmpfs / tmpfs rw 0 0\nproc /proc proc rw 0 0\nsysfs /sys sysfs ro 0 0\n");
}

static void self_mountinfo(struct text *t)
{
    text_format(t, "1 1 0:1 / / rw - tmpfs tmpfs rw\n2 1 0:2 / /proc rw - proc proc rw\n"
                   "3 1 0:2 / /sys ro - sysfs sysfs ro\n");
}

static void self_limits(struct text *t)
{
    text_format(t,
                "Limit                     Soft Limit           Hard Limit           Units     \n"
                "Max open files            %u                 %u                 files     \n",
                FD_MAX, FD_MAX);
}

static void self_cgroup(struct text *t)
{
    text_format(t, "0::/\n");
}

static void zero_line(struct text *t)
{
    text_format(t, "0\n");
}

const struct proc_text proc_process_texts[] = {
    {"maps", self_maps},
    {"stat", self_stat},
    {"statm", self_statm},
    {"status", self_status},
    {"cmdline", self_cmdline},
    {"environ", self_environ},
    {"comm", self_comm},
    {"mounts", self_mounts},
    {"mountinfo", self_mountinfo},
    {"limits", self_limits},
    {"cgroup", self_cgroup},
    {"oom_score_adj", zero_line},
    {NULL, NULL},
};

static const char *const cpu_flag_names_edx[32] = {
    "fpu",  "vme",  "de",   "pse", "tsc",  "msr", "pae",   "mce", "cx8",     "apic", NULL,
    "sep",  "mtrr", "pge",  "mca", "cmov", "pat", "pse36", "pn",  "clflush", NULL,   "dts",
    "acpi", "mmx",  "fxsr", "sse", "sse2", "ss",  "ht",    "tm",  "ia64",    "pbe"};
static const char *const cpu_flag_names_ecx[32] = {
    "pni",    "pclmulqdq", "dtes64", "monitor", "ds_cpl",
    "vmx",    "smx",       "est",    "tm2",     "ssse3",
    "cid",    "sdbg",      "fma",    "cx16",    "xtpr",
    "pdcm",   NULL,        "pcid",   "dca",     "sse4_1",
    "sse4_2", "x2apic",    "movbe",  "popcnt",  "tsc_deadline_timer",
    "aes",    "xsave",     NULL,     "avx",     "f16c",
    "rdrand", "hypervisor"};
static const char *const cpu_flag_names_7[32] = {
    [0] = "fsgsbase",  [3] = "bmi1",     [5] = "avx2",      [7] = "smep",     [8] = "bmi2",
    [9] = "erms",      [16] = "avx512f", [17] = "avx512dq", [18] = "rdseed",  [19] = "adx",
    [28] = "avx512cd", [29] = "sha_ni",  [30] = "avx512bw", [31] = "avx512vl"};

static void add_flags(struct text *t, uint32_t bits, const char *const names[32])
{
    for (int n = 0; n < 32; n++) {
        if ((bits >> n & 1) && names[n]) {
            text_format(t, " %s", names[n]);
        }
    }
}

static void cpuinfo(struct text *t)
{
    uint32_t r[13] = {0}, a, b = 0, c = 0, d = 0;
    char vendor[13] = "";
    __cpuid(0, a, r[0], r[2], r[1]);
    memcpy(vendor, r, 12);
    uint32_t highest = a;
    for (uint32_t n = 0; n < 3; n++) {
        __cpuid(0x80000002u + n, r[4 * n], r[4 * n + 1], r[4 * n + 2], r[4 * n + 3]);
    }
    r[12] = 0;
    __cpuid(1, a, b, c, d);
    uint32_t family = a >> 8 & 15, model = a >> 4 & 15;
    model += family == 6 || family == 15 ? (a >> 16 & 15) << 4 : 0;
    family += family == 15 ? a >> 20 & 255 : 0;
    text_format(t,
                "processor\t: 0\nvendor_id\t: %s\ncpu family\t: %u\nmodel\t\t: %u\n"
                "model name\t: %s\nstepping\t: %u\n",
                vendor, family, model, (const char *)r, a & 15);
    text_format(t, "physical id\t: 0\nsiblings\t: 1\ncore id\t\t: 0\ncpu cores\t: 1\n"
                   "fpu\t\t: yes\nflags\t\t:");
    add_flags(t, d, cpu_flag_names_edx);
    add_flags(t, c, cpu_flag_names_ecx);
    if (highest >= 7) {
        __cpuid_count(7, 0, a, b, c, d);
        add_flags(t, b, cpu_flag_names_7);
    }
    text_format(t, "\nclflush size\t: 64\naddress sizes\t: 48 bits physical, 48 bits virtual\n\n");
}

static void meminfo(struct text *t)
{
    unsigned long total = frames_total() * 4, left = frames_free() * 4;
    text_format(t,
                "MemTotal:       %lu kB\nMemFree:        %lu kB\nMemAvailable:   %lu kB\n"
                "Buffers:        0 kB\nCached:         0 kB\nSwapCached:     0 kB\n"
                "SwapTotal:      0 kB\nSwapFree:       0 kB\nShmem:          0 kB\n"
                "Committed_AS:   %lu kB\nCommitLimit:    %lu kB\nHugepagesize:   2048 kB\n",
                total, left, left, total - left, total);
}

static void stat_text(struct text *t)
{
    unsigned long ticks = clock_monotonic_ns() / (NS_PER_S / TICKS_PER_S);
    unsigned long boot = (clock_realtime_ns() - clock_monotonic_ns()) / NS_PER_S;
    text_format(t,
                "cpu  %lu 0 0 0 0 0 0 0 0 0\ncpu0 %lu 0 0 0 0 0 0 0 0 0\nintr 0\nctxt 0\n"
                "btime %lu\nprocesses 1\nprocs_running 1\nprocs_blocked 0\n",
                ticks, ticks, boot);
}

static void uptime(struct text *t)
{
    uint64_t hundredths = clock_monotonic_ns() / (NS_PER_S / 100);
    text_format(t, "%lu.%lu%lu 0.00\n", (unsigned long)(hundredths / 100),
                (unsigned long)(hundredths / 10 % 10), (unsigned long)(hundredths % 10));
}

static void loadavg(struct text *t)
{
    text_format(t, "0.00 0.00 0.00 1/%u 1\n", task_count());
}

static void filesystems(struct text *t)
{
    text_format(t, "nodev\tproc\nnodev\tsysfs\nnodev\ttmpfs\n");
}

static void uuid(struct text *t)
{
    uint8_t id[16];
    host_random(id, sizeof(id));
    id[6] = (id[6] & 15) | 0x40; /* RFC 9562: version 4, variant 10 */
    id[8] = (id[8] & 63) | 0x80;
    for (unsigned n = 0; n < sizeof(id); n++) {
        if (n == 4 || n == 6 || n == 8 || n == 10) {
            text_bytes(t, "-", 1);
        }
        text_hex(t, id[n], 2);
    }
    text_bytes(t, "\n", 1);
}

#define FIXED(name, value)                                                                         \
    static void name(struct text *t)                                                               \
    {                                                                                              \
        text_format(t, "%s\n", value);                                                             \
    }
FIXED(one_line, "1")
FIXED(ostype, "Linux")
FIXED(osrelease, LINUX_RELEASE)
FIXED(osversion, "#1 SMP unid")
FIXED(hostname, HOST_NAME)
FIXED(entropy, "256")
FIXED(pid_max, "32768")
FIXED(map_count, "65530")
FIXED(min_addr, "65536")
FIXED(file_max, "4096")
FIXED(pipe_max, "65536")
FIXED(somaxconn, "4096")
FIXED(groups_max, "65536")
FIXED(last_cap, "40")
FIXED(overflow_id, "65534")
#undef FIXED

static void version(struct text *t)
{
    text_format(t, "Linux version %s (unid) #1 SMP unid\n", LINUX_RELEASE);
}

const struct proc_text proc_texts[] = {
    {"cpuinfo", cpuinfo},
    {"meminfo", meminfo},
    {"stat", stat_text},
    {"uptime", uptime},
    {"loadavg", loadavg},
    {"filesystems", filesystems},
    {"version", version},
    {"sys/kernel/ostype", ostype},
    {"sys/kernel/osrelease", osrelease},
    {"sys/kernel/version", osversion},
    {"sys/kernel/hostname", hostname},
    {"sys/kernel/pid_max", pid_max},
    {"sys/kernel/threads-max", pid_max},
    {"sys/kernel/ngroups_max", groups_max},
    {"sys/kernel/cap_last_cap", last_cap},
    {"sys/kernel/overflowuid", overflow_id},
    {"sys/kernel/overflowgid", overflow_id},
    {"sys/kernel/random/uuid", uuid},
    {"sys/kernel/random/boot_id", uuid},
    {"sys/kernel/random/entropy_avail", entropy},
    {"sys/kernel/random/poolsize", entropy},
    {"sys/vm/overcommit_memory", one_line},
    {"sys/vm/max_map_count", map_count},
    {"sys/vm/mmap_min_addr", min_addr},
    {"sys/fs/file-max", file_max},
    {"sys/fs/nr_open", file_max},
    {"sys/fs/pipe-max-size", pipe_max},
    {"sys/net/core/somaxconn", somaxconn},
    {NULL, NULL},
};

const struct proc_text sys_texts[] = {
    {"devices/system/cpu/online", zero_line},
    {"devices/system/cpu/possible", zero_line},
    {"devices/system/cpu/present", zero_line},
    {NULL, NULL},
};
