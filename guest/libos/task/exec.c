/* exec.c - the one program is started: found, loaded, given its stack.
 *
 * The stack at the start (System V ABI, x86-64 supplement, 3.4.1), from the top of its area down:
 *
 *     strings: arguments, environment, file name; random bytes; "x86_64"
 *     auxiliary vector
 *     environment: pointers, NULL          (cgi, dynamic: room for the request's variables)
 *     arguments: pointers, NULL
 *     argc                                  <- rsp
 *
 * A cgi program gets the request in its environment, and any other may be told to have it (to be snapshotted)
 * before its own start. A static one starts when the request is there. A dynamic one starts before: its
 * loader does its work for the snapshot, and goes on to what AT_ENTRY says, which is program_hook; there the
 * request is had, the bytes of AT_RANDOM are drawn anew, and a cgi program's environment is filled in.
 */
#include <asm/unistd.h>
#include <linux/auxvec.h>
#include <linux/elf.h>
#include <linux/mman.h>

#include "host.h"
#include "sys/info.h"
#include "task/elf.h"
#include "task/task_internal.h"

#define STACK_TOP      0x00007fffffffe000ull
#define ARGS_MAX       1024
#define ENV_ROOM       512 /* variables of a request, for dynamic cgi programs */
#define SCRIPTS_NESTED 4
#define MIN_SIGSTACK   (2048 + 2688) /* a frame with the largest floating-point state */

struct exec {
    const char *argv[ARGS_MAX + 1];
    size_t argc;
    const char **env;
    size_t envc;
    struct elf_image image, loader;
    uint64_t sp; /* where the stack is built downwards */
    uint64_t random, platform, filename;
    size_t env_room;
    bool hooked; /* goes through program_hook */
    char *path;
};

/* What the hook needs of it. */
static struct {
    uint64_t entry;
    uint64_t *env, env_room;
    uint64_t *stack; /* at argc */
    void *random;    /* AT_RANDOM's */
} hook;

static struct {
    const char *exe, *cmdline, *environ;
    size_t cmdline_len, environ_len;
    uint64_t start_ns;
} program;

const char *process_exe(void)
{
    return program.exe;
}

const char *process_cmdline(size_t *ret_len)
{
    *ret_len = program.cmdline_len;
    return program.cmdline;
}

const char *process_environ(size_t *ret_len)
{
    *ret_len = program.environ_len;
    return program.environ;
}

uint64_t process_start_ns(void)
{
    return program.start_ns;
}

static const char *started; /* exec_start's path */

_Noreturn static void give_up(int status)
{
    host_done(status);
}

static const char *next_string(const char *s)
{
    return s + strlen(s) + 1;
}

/* --- arguments and environment ----------------------------------------------------------------- */

/* The strings of the boot page are the machine's arguments and environment. */
static void take_strings(struct exec *e)
{
    const struct unid_boot *b = (const struct unid_boot *)UNID_BOOT_ADDR;
    const char *s = (const char *)UNID_STRINGS_ADDR;
    if (b->argc == 0 || b->argc > ARGS_MAX - 2 * SCRIPTS_NESTED) {
        klog("%u arguments are none, or too many", b->argc);
        give_up(127);
    }
    for (e->argc = 0; e->argc < b->argc; s = next_string(s)) {
        e->argv[e->argc++] = s;
    }
    e->env = kalloc((b->envc + 2 + UNID_REQUEST_HEAD_MAX / 4) * sizeof(*e->env));
    if (!e->env) {
        kpanic("no memory for the environment");
    }
    for (; e->envc < b->envc; s = next_string(s)) {
        e->env[e->envc++] = s;
    }
}

/* Adds the request's variables. */
static void take_request_strings(struct exec *e)
{
    size_t len;
    const char *s = host_request_head(&len), *end = s + len;
    while (s < end && e->envc < UNID_REQUEST_HEAD_MAX / 4) {
        e->env[e->envc++] = s;
        s = next_string(s);
    }
}

/* --- finding it --------------------------------------------------------------------------------- */

static struct file *open_program(const char *path, const char *what)
{
    int error = 0;
    struct file *f = file_open_path(path, 0, &error);
    if (!f) {
        klog("%s %s cannot be opened (error %d)", what, path, -error);
        give_up(127);
    }
    if (!file_is_regular(f)) {
        klog("%s %s is no regular file", what, path);
        give_up(126);
    }
    return f;
}

/* "#!interpreter argument" in the first line of a script: puts both in front of the arguments, and
 * the script's path in the place of the program's name. */
static bool take_script(struct exec *e, struct file *f)
{
    char line[256];
    int64_t got = file_read_at(f, line, sizeof(line) - 1, 0);
    if (got < 2 || line[0] != '#' || line[1] != '!') {
        return false;
    }
    line[got] = '\0';
    char *p = line + 2, *words[2] = {NULL, NULL};
    for (int i = 0; i < 2; i++) {
        while (*p == ' ' || *p == '\t') {
            p++;
        }
        words[i] = *p && *p != '\n' ? p : NULL;
        while (*p && *p != '\n' && (i == 1 || (*p != ' ' && *p != '\t'))) {
            p++;
        }
        bool last = *p != ' ' && *p != '\t';
        if (*p) {
            *p++ = '\0';
        }
        if (last) {
            break;
        }
    }
    if (!words[0]) {
        klog("%s: no interpreter behind #!", e->path);
        give_up(126);
    }
    size_t extra = words[1] ? 2 : 1;
    char *copy = kalloc(sizeof(line));
    if (!copy) {
        kpanic("no memory for a script's interpreter");
    }
    memcpy(copy, line, sizeof(line));
    for (size_t i = e->argc; i > 0; i--) {
        e->argv[i - 1 + extra] = e->argv[i - 1];
    }
    e->argv[extra] = e->path;
    e->argv[0] = copy + (words[0] - line);
    if (words[1]) {
        e->argv[1] = copy + (words[1] - line);
    }
    e->argc += extra;
    e->path = copy + (words[0] - line);
    return true;
}

static void load(struct exec *e)
{
    struct file *f = open_program(e->path, "the program");
    for (int i = 0; take_script(e, f); i++) {
        if (i == SCRIPTS_NESTED) {
            klog("%s: too many scripts that name each other", e->path);
            give_up(126);
        }
        file_unref(f);
        f = open_program(e->path, "the interpreter");
    }
    program.exe = file_path(f);
    if (elf_load(f, ELF_PROGRAM, &e->image) < 0) {
        give_up(126);
    }
    mm_set_brk(e->image.end);
    if (e->image.has_interpreter) {
        struct file *ld = open_program(e->image.interpreter, "the dynamic loader");
        if (elf_load(ld, ELF_INTERPRETER, &e->loader) < 0) {
            give_up(126);
        }
        file_unref(ld);
    }
    /* `f` stays open: its path is /proc/self/exe. */
}

/* --- the stack ----------------------------------------------------------------------------------- */

static uint64_t push_bytes(struct exec *e, const void *data, size_t len)
{
    e->sp -= len;
    memcpy((void *)e->sp, data, len);
    return e->sp;
}

static void push_strings(struct exec *e, const char **strings, size_t count)
{
    for (size_t i = count; i > 0; i--) {
        strings[i - 1] = (const char *)push_bytes(e, strings[i - 1], strlen(strings[i - 1]) + 1);
    }
}

static uint32_t cpuid_edx(uint32_t leaf)
{
    uint32_t a = leaf, b, c = 0, d;
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    return d;
}

static uint64_t *put_auxv(const struct exec *e, uint64_t *to)
{
    const struct unid_boot *b = (const struct unid_boot *)UNID_BOOT_ADDR;
    const uint64_t pairs[][2] = {
        {AT_HWCAP, cpuid_edx(1)},
        {AT_PAGESZ, PAGE_SIZE},
        {AT_CLKTCK, 100},
        {AT_PHDR, e->image.phdrs},
        {AT_PHENT, sizeof(Elf64_Phdr)},
        {AT_PHNUM, e->image.phnum},
        {AT_BASE, e->image.has_interpreter ? e->loader.bias : 0},
        {AT_FLAGS, 0},
        {AT_ENTRY, e->hooked ? (uint64_t)program_hook : e->image.entry},
        {AT_UID, 0},
        {AT_EUID, 0},
        {AT_GID, 0},
        {AT_EGID, 0},
        {AT_SECURE, 0},
        {AT_RANDOM, e->random},
        {AT_HWCAP2, b->flags & UNID_BOOT_FSGSBASE ? 2 : 0},
        {AT_EXECFN, e->filename},
        {AT_PLATFORM, e->platform},
        {AT_MINSIGSTKSZ, MIN_SIGSTACK},
        {AT_NULL, 0},
    };
    memcpy(to, pairs, sizeof(pairs));
    return to + sizeof(pairs) / sizeof(uint64_t);
}

#define AUXV_WORDS   48 /* at least as many as put_auxv writes */
#define RANDOM_BYTES 16 /* of AT_RANDOM */

static void build_stack(struct exec *e)
{
    uint64_t size = stack_limit();
    uint8_t random[RANDOM_BYTES];
    if (mm_map_stack(STACK_TOP - size, STACK_TOP) < 0) {
        klog("%lu KiB are too little for the program and its stack of %lu KiB",
             (size_t)(frames_total() * 4), size / 1024);
        give_up(126);
    }
    e->sp = STACK_TOP - 8;
    e->filename = push_bytes(e, e->path, strlen(e->path) + 1);
    push_strings(e, e->env, e->envc);
    program.environ_len = e->filename - e->sp;
    program.environ = (const char *)e->sp;
    push_strings(e, e->argv, e->argc);
    program.cmdline_len = (uint64_t)program.environ - e->sp;
    program.cmdline = (const char *)e->sp;
    e->platform = push_bytes(e, "x86_64", 7);
    uint64_t empty = push_bytes(e, "", 1);
    host_random_at_start(random, sizeof(random));
    e->sp &= ~15ull;
    e->random = push_bytes(e, random, sizeof(random));
    hook.random = (void *)e->random;

    size_t words = 1 + e->argc + 1 + e->envc + e->env_room + 1 + AUXV_WORDS;
    uint64_t *w = (uint64_t *)((e->sp - words * 8) & ~15ull);
    e->sp = (uint64_t)w;
    hook.stack = w;
    *w++ = e->argc;
    memcpy(w, e->argv, e->argc * 8);
    w += e->argc + 1;
    memcpy(w, e->env, e->envc * 8);
    w += e->envc;
    hook.env = w;
    for (size_t i = 0; i < e->env_room; i++) {
        *w++ = empty;
    }
    put_auxv(e, w + 1);
}

/* --- starting ------------------------------------------------------------------------------------ */

void exec_start(const char *path)
{
    struct exec *e = kalloc(sizeof(*e));
    if (!e) {
        kpanic("no memory to start a program");
    }
    started = path;
    take_strings(e);
    e->path = (char *)(path ? path : e->argv[0]);
    load(e);
    bool cgi = host_interface() == UNID_INTERFACE_CGI, ask = cgi || host_asks_first();
    e->hooked = ask && e->image.has_interpreter;
    if (ask && !e->hooked) {
        host_next();
    }
    if (cgi && e->hooked) {
        e->env_room = ENV_ROOM;
        e->env[e->envc++] = "LD_BIND_NOW=1";
    } else if (cgi) {
        take_request_strings(e);
    }
    build_stack(e);
    program.start_ns = clock_monotonic_ns();
    hook.entry = e->image.entry;
    hook.env_room = e->env_room;
    struct regs *r = task_regs();
    *r = (struct regs){.rflags = 0x202, .rsp = e->sp};
    r->rip = e->image.has_interpreter ? e->loader.entry : e->image.entry;
    const char *name = e->path;
    for (const char *p = name; *p; p++) {
        name = *p == '/' ? p + 1 : name;
    }
    kformat(current->name, sizeof(current->name), "%s", name);
    kfree(e->env);
    kfree(e);
    __asm__ volatile("wrfsbase %0; wrgsbase %0" : : "r"(0ull));
    enter_program(r);
}

void exec_again(void)
{
    tasks_end_others();
    futex_init(); /* nobody waits any more */
    itimers_reset();
    signals_reset();
    current->clear_child_tid = current->robust_head = 0;
    files_init_again();
    mm_unmap_all();
    fpu_fresh(current->stack);
    fpu_restore(current->stack);
    exec_start(started);
}

/* What the loader handed to the libraries is the environment's place on the first stack; what starts from
 * the stack itself (the program's own _start) finds arguments, environment and auxiliary vector behind each
 * other in a copy below. */
static void fill_environment(struct regs *r)
{
    size_t len, count = 0;
    const char *head = host_request_head(&len);
    char *strings =
        (char *)mm_mmap(0, len + 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, NULL, 0);
    if ((int64_t)strings < 0) {
        kpanic("no memory for the request's variables");
    }
    memcpy(strings, head, len);
    for (size_t at = 0; at < len; at += strlen(strings + at) + 1) {
        if (count == hook.env_room) {
            klog("the request has more than %lu variables: the rest is left out", count);
            break;
        }
        hook.env[count++] = (uint64_t)(strings + at);
    }
    uint64_t *auxv = hook.env + hook.env_room + 1;
    hook.env[count] = 0;
    size_t front = (size_t)(hook.env + count + 1 - hook.stack);
    uint64_t *w = (uint64_t *)(((uint64_t)hook.stack - (front + AUXV_WORDS) * 8) & ~15ull);
    memcpy(w, hook.stack, front * 8);
    memcpy(w + front, auxv, AUXV_WORDS * 8);
    r->rsp = (uint64_t)w;
}

/* The loader is done. */
void program_hooked(struct regs *r)
{
    host_next();
    host_random_at_start(hook.random, RANDOM_BYTES);
    if (host_interface() == UNID_INTERFACE_CGI) {
        fill_environment(r);
    }
    r->rip = hook.entry;
}
