/* fake_guest.c - what fake guests do: the behaviours that fake.h lists, as small step functions.
 *
 * A step is called from the loop. It does one thing that calls back, and returns; it is called
 * again when that has been answered. A callback may free the VM, so nothing of it is touched
 * afterwards except by the helpers, which look at its state first.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "hypervisor/fake/fake_impl.h"

enum { FAKE_WORDS_MAX = 32, FAKE_FIELDS_MAX = 16 };

#define MARKER "unid-fake:"

/* --- what a guest can do ---------------------------------------------------------------------- */

static bool running(const struct fake_vm *vm)
{
    return vm->state == FAKE_RUNNING && !vm->exit_pending;
}

/* Comes back to the step function without waiting for anybody. */
static void again(struct fake_vm *vm, uint64_t in_us)
{
    (void)un_timer_arm_in(&vm->timer, in_us);
}

static void send_head(struct fake_vm *vm, unsigned status, char *const *fields)
{
    struct hv_field list[FAKE_FIELDS_MAX];
    char text[FAKE_FIELDS_MAX][256];
    struct hv_head head = {.status = status, .fields = list};

    for (size_t i = 0; fields && fields[i] && head.field_count < FAKE_FIELDS_MAX; i++) {
        char *colon, *copy = text[head.field_count];

        snprintf(copy, sizeof(text[0]), "%s", fields[i]);
        colon = strchr(copy, ':');
        if (!colon) {
            continue;
        }
        *colon++ = '\0';
        list[head.field_count++] = (struct hv_field){copy, colon + strspn(colon, " ")};
    }
    vm->head_sent = true;
    vm->events->on_head(vm->arg, &head);
}

/* Hands out vm->output; `last` when the guest ends with it. */
static void send(struct fake_vm *vm, const struct hv_exit *last)
{
    if (!vm->head_sent) {
        send_head(vm, 200, NULL);
    }
    if (!running(vm)) {
        return;
    }
    vm->output_held = true;
    vm->drv->stats.outputs++;
    vm->calls++;
    if (last) {
        vm->exit = *last;
    }
    vm->events->on_output(vm->arg, vm->output.data, vm->output.len, last ? &vm->exit : NULL);
}

/* What the host has no memory for would be missing in the answer: the VM is lost then, and nothing
 * is sent. */
static void put_bytes(struct fake_vm *vm, const void *data, size_t len)
{
    un_buf_reset(&vm->output);
    if (un_buf_append(&vm->output, data, len) < 0) {
        fake_vm_end(vm, HV_EXIT_LOST, 0, "out of memory");
    }
}

static void put(struct fake_vm *vm, const char *text)
{
    put_bytes(vm, text, strlen(text));
}

static const struct hv_exit success = {.kind = HV_EXIT_DONE, .fault_vector = ~0u};

/* The guest's last act: says `text` and ends. To be called from a step with at == 0, once. */
static void answer(struct fake_vm *vm, const char *text)
{
    if (vm->at++ == 0) {
        put(vm, text);
        send(vm, &success);
        return;
    }
    fake_vm_end(vm, HV_EXIT_DONE, 0, NULL);
}

static void log_text(struct fake_vm *vm, const char *text, size_t len)
{
    vm->events->on_log(vm->arg, text, len);
}

static void want_input(struct fake_vm *vm)
{
    vm->input_wanted = true;
    vm->calls++;
    vm->events->on_input_wanted(vm->arg, FAKE_ROOM_BYTES);
}

static unsigned long word_number(const struct fake_vm *vm, size_t i, unsigned long otherwise)
{
    for (size_t k = 0; k <= i; k++) {
        if (!vm->words[k]) {
            return otherwise;
        }
    }
    return strtoul(vm->words[i], NULL, 10);
}

static void fault(struct fake_vm *vm)
{
    fake_vm_end(vm, HV_EXIT_FAULT, 0, "page fault");
    vm->exit.fault_vector = 14;
    vm->exit.fault_error = 4;
    vm->exit.fault_rip = 0x200010;
}

/* --- the behaviours --------------------------------------------------------------------------- */

static void step_hello(struct fake_vm *vm)
{
    answer(vm, "hello from a fake VM\n");
}

static void step_echo(struct fake_vm *vm)
{
    if (vm->at == 1) { /* the last piece has been taken */
        fake_vm_end(vm, HV_EXIT_DONE, 0, NULL);
        return;
    }
    if (vm->input.len == 0 && !vm->input_eof) {
        want_input(vm);
        return;
    }
    put_bytes(vm, vm->input.data, vm->input.len);
    un_buf_reset(&vm->input);
    if (vm->input_eof) {
        vm->at = 1;
        send(vm, &success);
        return;
    }
    send(vm, NULL);
}

static void step_count(struct fake_vm *vm)
{
    char text[32];

    if (!vm->input_eof) {
        un_buf_reset(&vm->input);
        want_input(vm);
        return;
    }
    snprintf(text, sizeof(text), "%llu\n", (unsigned long long)vm->taken);
    answer(vm, text);
}

static void step_request(struct fake_vm *vm)
{
    answer(vm, vm->head);
}

static void answer_lines(struct fake_vm *vm, char *const *lines)
{
    struct un_buf text = {0};
    int rc = 0;

    for (size_t i = 0; lines[i] && rc == 0; i++) {
        rc = un_buf_printf(&text, "%s\n", lines[i]);
    }
    if (rc < 0) {
        fake_vm_end(vm, HV_EXIT_LOST, 0, "out of memory");
    } else {
        answer(vm, text.data ? (const char *)text.data : "");
    }
    un_buf_done(&text);
}

static void step_args(struct fake_vm *vm)
{
    answer_lines(vm, vm->argv);
}

static void step_env(struct fake_vm *vm)
{
    answer_lines(vm, vm->envp);
}

/* Fills the output with a pattern that tells where a byte stood. */
static void put_pattern(struct fake_vm *vm, size_t len)
{
    static const char digits[] = "0123456789abcdef";

    un_buf_reset(&vm->output);
    if (un_buf_reserve(&vm->output, len) < 0) {
        fake_vm_end(vm, HV_EXIT_LOST, 0, "out of memory");
        return;
    }
    for (size_t i = 0; i < len; i++) {
        vm->output.data[i] = (uint8_t)digits[i % 16];
    }
    vm->output.len = len;
}

static void step_size(struct fake_vm *vm)
{
    if (vm->at == 0) {
        vm->left = word_number(vm, 0, 0);
        vm->at = 1;
    }
    if (vm->at == 2) {
        fake_vm_end(vm, HV_EXIT_DONE, 0, NULL);
        return;
    }
    put_pattern(vm, vm->left < FAKE_PIECE_BYTES ? (size_t)vm->left : FAKE_PIECE_BYTES);
    vm->left -= vm->output.len;
    if (vm->left == 0) {
        vm->at = 2;
        send(vm, &success);
        return;
    }
    send(vm, NULL);
}

static void step_flood(struct fake_vm *vm)
{
    put_pattern(vm, FAKE_PIECE_BYTES);
    send(vm, NULL);
}

/* A head and an end without any output. */
static void step_status(struct fake_vm *vm)
{
    fake_vm_end(vm, HV_EXIT_DONE, 0, NULL);
    send_head(vm, (unsigned)word_number(vm, 0, 200), vm->words[0] ? vm->words + 1 : NULL);
}

static void step_exit(struct fake_vm *vm)
{
    fake_vm_end(vm, HV_EXIT_DONE, (int32_t)word_number(vm, 0, 1), NULL);
    if (vm->words[0] && vm->words[1]) {
        log_text(vm, vm->words[1], strlen(vm->words[1]));
    }
}

static void step_late_exit(struct fake_vm *vm)
{
    if (vm->at++ == 0) {
        put(vm, "partial\n");
        send(vm, NULL);
        return;
    }
    fake_vm_end(vm, HV_EXIT_DONE, (int32_t)word_number(vm, 0, 1), NULL);
}

static void step_crash(struct fake_vm *vm)
{
    fault(vm);
    log_text(vm, "about to crash\n", 15);
}

static void step_late_crash(struct fake_vm *vm)
{
    if (vm->at++ == 0) {
        put(vm, "partial\n");
        send(vm, NULL);
        return;
    }
    fault(vm);
}

static void step_sleep(struct fake_vm *vm)
{
    if (vm->left == 0) {
        vm->left = 1;
        again(vm, (uint64_t)word_number(vm, 0, 1) * 1000);
        return;
    }
    answer(vm, "slept\n");
}

static void step_spin(struct fake_vm *vm)
{
    (void)vm; /* nothing is armed: only vm_free ends it */
}

static void step_log(struct fake_vm *vm)
{
    if (vm->left == 0) {
        vm->left = 1;
        again(vm, 0);
        for (size_t i = 0; vm->words[i] && running(vm); i++) {
            log_text(vm, vm->words[i], strlen(vm->words[i]));
            log_text(vm, "\n", 1);
        }
        return;
    }
    answer(vm, "ok\n");
}

static void step_log_flood(struct fake_vm *vm)
{
    if (vm->at == 0 && vm->left == 0) {
        vm->left = word_number(vm, 0, 0) + 1; /* one more, to tell the end from the start */
    }
    if (vm->left > 1) {
        static const char line[] =
            "a line of the fake guest's log, sixty-three bytes and a newline\n";
        size_t len = vm->left - 1 < sizeof(line) - 1 ? (size_t)vm->left - 1 : sizeof(line) - 1;

        vm->left -= len;
        again(vm, 0);
        log_text(vm, line, len);
        return;
    }
    answer(vm, "ok\n");
}

static void step_lost(struct fake_vm *vm)
{
    fake_vm_end(vm, HV_EXIT_LOST, 0, "the fake hypervisor process was killed");
}

static void step_protocol(struct fake_vm *vm)
{
    fake_vm_end(vm, HV_EXIT_PROTOCOL, 0, "unknown operation 99");
}

static void step_limit(struct fake_vm *vm)
{
    fake_vm_end(vm, HV_EXIT_LIMIT, 0, "too many calls");
}

static void step_stillborn(struct fake_vm *vm)
{
    fake_vm_end(vm, HV_EXIT_DONE, 1, NULL);
    if (vm->words[0]) {
        log_text(vm, vm->words[0], strlen(vm->words[0]));
    }
}

/* --- programs of other interfaces ------------------------------------------------------------- */

/* A word with \\r, \\n, \\t and \\\\ in it, as bytes. */
static void put_word(struct fake_vm *vm, const char *word)
{
    static const char letters[] = "rnt", bytes[] = "\r\n\t";
    char *text = strdup(word), *to = text;

    if (!text) {
        fake_vm_end(vm, HV_EXIT_LOST, 0, "out of memory");
        return;
    }
    for (const char *at = word; *at; at++) {
        const char *letter = at[0] == '\\' && at[1] ? strchr(letters, at[1]) : NULL;

        at += at[0] == '\\' && at[1];
        *to++ = letter ? bytes[letter - letters] : *at;
    }
    put_bytes(vm, text, (size_t)(to - text));
    free(text);
}

/* Each word is a piece; the last one is the end. */
static void step_say(struct fake_vm *vm)
{
    char *const *word = vm->words + vm->at;

    if (vm->words[0] == NULL || *word == NULL) {
        fake_vm_end(vm, HV_EXIT_DONE, 0, NULL);
        return;
    }
    put_word(vm, *word);
    vm->at++;
    send(vm, word[1] ? NULL : &success);
}

/* As say, but the end comes after the last piece, with the status of the first word. */
static void step_say_exit(struct fake_vm *vm)
{
    if (vm->words[0] == NULL || vm->words[vm->at + 1] == NULL) {
        fake_vm_end(vm, HV_EXIT_DONE, (int32_t)word_number(vm, 0, 0), NULL);
        return;
    }
    put_word(vm, vm->words[++vm->at]);
    send(vm, NULL);
}

/* As say, but never ends. */
static void step_serve(struct fake_vm *vm)
{
    if (vm->words[0] != NULL && vm->words[vm->at] != NULL) {
        put_word(vm, vm->words[vm->at++]);
        send(vm, NULL);
    }
}

/* As size, with the second word before it, and never ends. */
static void step_serve_size(struct fake_vm *vm)
{
    if (vm->at == 0) {
        vm->at = 1;
        vm->left = word_number(vm, 0, 0);
        put_word(vm, vm->words[0] && vm->words[1] ? vm->words[1] : "");
        send(vm, NULL);
    } else if (vm->left > 0) {
        put_pattern(vm, vm->left < FAKE_PIECE_BYTES ? (size_t)vm->left : FAKE_PIECE_BYTES);
        vm->left -= vm->output.len;
        send(vm, NULL);
    }
}

/* A CGI program: its meta-variables, a line each, an empty line, and the body. */
static void step_cgi(struct fake_vm *vm)
{
    static const char header[] = "Content-Type: text/plain\r\n\r\n";

    if (vm->at > 0) {
        step_echo(vm); /* which goes on from 1, when it has sent the last of the body */
        return;
    }
    vm->at = 2;
    put(vm, header);
    for (size_t i = 0; i < vm->head_len; i++) {
        vm->head[i] = vm->head[i] ? vm->head[i] : '\n';
    }
    if (un_buf_append(&vm->output, vm->head, vm->head_len) < 0 ||
        un_buf_append_str(&vm->output, "\n") < 0) {
        fake_vm_end(vm, HV_EXIT_LOST, 0, "out of memory");
        return;
    }
    send(vm, NULL);
}

/* Frames what is in the output as one chunk. */
static void put_chunk(struct fake_vm *vm, const void *data, size_t len)
{
    un_buf_reset(&vm->output);
    if (un_buf_printf(&vm->output, "%zx\r\n", len) < 0 ||
        un_buf_append(&vm->output, data, len) < 0 || un_buf_append_str(&vm->output, "\r\n") < 0) {
        fake_vm_end(vm, HV_EXIT_LOST, 0, "out of memory");
    }
}

/* An HTTP server that keeps its connection: the request's head, then its body, in chunks. */
static void step_http(struct fake_vm *vm)
{
    switch (vm->at) {
    case 0:
        vm->at = 1;
        put(vm, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
                "Keep-Alive: timeout=5\r\nTransfer-Encoding: chunked\r\n\r\n");
        send(vm, NULL);
        return;
    case 1:
        vm->at = 2;
        put_chunk(vm, vm->head, vm->head_len);
        send(vm, NULL);
        return;
    case 2:
        if (vm->input.len == 0 && !vm->input_eof) {
            want_input(vm);
            return;
        }
        if (vm->input.len > 0) {
            put_chunk(vm, vm->input.data, vm->input.len);
            un_buf_reset(&vm->input);
        } else {
            vm->at = 3;
            put(vm, "0\r\nX-Trailer: dropped\r\n\r\n");
        }
        send(vm, NULL);
        return;
    default:
        return; /* waits for the next request of the connection */
    }
}

static void step_wait(struct fake_vm *vm)
{
    if (vm->left == 0) {
        vm->left = 1;
        fake_guest_ask(vm, &(struct hv_ask){.op = UNID_OP_WAIT,
                                            .wait_ns = word_number(vm, 0, 1) * UINT64_C(1000000)});
        return;
    }
    answer(vm, "waited\n");
}

/* What step_net does next; vm->left keeps it, and vm->taken the handle. */
enum net_step { NET_BEGIN, NET_OPENED, NET_SENDING, NET_SENT, NET_SHUT, NET_RECEIVED, NET_CLOSED };

static void ask_net(struct fake_vm *vm, uint32_t op, const char *text, enum net_step next)
{
    size_t len = op == UNID_OP_NET_RECV ? UNID_NET_SIZE : text ? strlen(text) : 0;
    vm->left = next;
    fake_guest_ask(
        vm,
        &(struct hv_ask){
            .op = op, .handle = (unsigned)vm->taken, .data = text, .len = len, .wait_ns = ~0ull});
}

/* The error that a call other than "not now" gave. */
static bool net_failed(struct fake_vm *vm)
{
    static const struct hv_exit failure = {.kind = HV_EXIT_DONE, .status = 1, .fault_vector = ~0u};
    char text[32];

    if (vm->result >= 0 || vm->result == -EAGAIN) {
        return false;
    }
    snprintf(text, sizeof(text), "error %d\n", -vm->result);
    log_text(vm, text, strlen(text));
    put(vm, text);
    vm->at = 1;
    send(vm, &failure);
    return true;
}

static void step_net(struct fake_vm *vm)
{
    char *const *words = vm->words;
    const char *text = words[0] && words[1] ? words[1] : "";

    if (vm->at == 1) { /* of net_failed */
        fake_vm_end(vm, HV_EXIT_DONE, 1, NULL);
        return;
    }
    if (vm->left > NET_BEGIN && vm->left < NET_CLOSED && net_failed(vm)) {
        return;
    }
    switch ((enum net_step)vm->left) {
    case NET_BEGIN:
        vm->taken = 0;
        un_buf_reset(&vm->input);
        ask_net(vm, UNID_OP_NET_OPEN, words[0] ? words[0] : "", NET_OPENED);
        break;
    case NET_OPENED:
        vm->taken = (uint64_t)vm->result;
        ask_net(vm, UNID_OP_NET_SEND, text, NET_SENT);
        break;
    case NET_SENDING:
        ask_net(vm, UNID_OP_NET_SEND, text, NET_SENT);
        break;
    case NET_SENT:
        if (vm->result == -EAGAIN) {
            ask_net(vm, UNID_OP_WAIT, NULL, NET_SENDING);
        } else {
            ask_net(vm, UNID_OP_NET_SHUT, NULL, NET_SHUT);
        }
        break;
    case NET_SHUT:
        ask_net(vm, UNID_OP_NET_RECV, NULL, NET_RECEIVED);
        break;
    case NET_RECEIVED:
        if (vm->result == -EAGAIN) {
            ask_net(vm, UNID_OP_WAIT, NULL, NET_SHUT);
        } else {
            ask_net(vm, vm->result ? UNID_OP_NET_RECV : UNID_OP_NET_CLOSE, NULL,
                    vm->result ? NET_RECEIVED : NET_CLOSED);
        }
        break;
    case NET_CLOSED:
        vm->left = NET_CLOSED + 1;
        put_bytes(vm, vm->input.data, vm->input.len);
        send(vm, &success);
        break;
    default:
        fake_vm_end(vm, HV_EXIT_DONE, 0, NULL);
        break;
    }
}

/* Opens a connection and does no more. */
static void step_net_hold(struct fake_vm *vm)
{
    if (vm->left == NET_BEGIN) {
        ask_net(vm, UNID_OP_NET_OPEN, vm->words[0] ? vm->words[0] : "", NET_OPENED);
    }
}

static void step_unsupported(struct fake_vm *vm)
{
    struct unid_report *r = &vm->report;

    for (size_t i = 0; vm->at == 0 && i + 1 < FAKE_WORDS_MAX && vm->words[i] && vm->words[i + 1] &&
                       r->unsupported_count < UNID_REPORT_CALLS;
         i += 2) {
        r->unsupported[r->unsupported_count].number = (uint32_t)word_number(vm, i, 0);
        r->unsupported[r->unsupported_count].times = (uint32_t)word_number(vm, i + 1, 0);
        r->made[r->unsupported[r->unsupported_count].number % UNID_REPORT_NUMBERS] +=
            r->unsupported[r->unsupported_count].times;
        r->calls += r->unsupported[r->unsupported_count++].times;
    }
    answer(vm, "ok\n");
}

static const struct fake_behaviour behaviours[] = {
    {"hello", step_hello},
    {"echo", step_echo},
    {"count", step_count},
    {"request", step_request},
    {"args", step_args},
    {"env", step_env},
    {"size", step_size},
    {"flood", step_flood},
    {"status", step_status},
    {"exit", step_exit},
    {"late-exit", step_late_exit},
    {"crash", step_crash},
    {"late-crash", step_late_crash},
    {"sleep", step_sleep},
    {"spin", step_spin},
    {"log", step_log},
    {"log-flood", step_log_flood},
    {"lost", step_lost},
    {"protocol", step_protocol},
    {"limit", step_limit},
    {"stillborn", step_stillborn},
    {"say", step_say},
    {"say-exit", step_say_exit},
    {"serve", step_serve},
    {"serve-size", step_serve_size},
    {"cgi", step_cgi},
    {"http", step_http},
    {"wait", step_wait},
    {"net", step_net},
    {"net-hold", step_net_hold},
    {"unsupported", step_unsupported},
};

/* --- finding the program ---------------------------------------------------------------------- */

static const struct fake_behaviour *behaviour_find(const char *name)
{
    for (size_t i = 0; i < UN_ARRAY_SIZE(behaviours); i++) {
        if (strcmp(behaviours[i].name, name) == 0) {
            return &behaviours[i];
        }
    }
    return NULL;
}

static void words_free(char **words)
{
    for (size_t i = 0; words && words[i]; i++) {
        free(words[i]);
    }
    free(words);
}

/* Copies at most FAKE_WORDS_MAX words; NULL when out of memory. */
static char **words_copy(const char *const *words)
{
    char **copy = calloc(FAKE_WORDS_MAX + 1, sizeof(*copy));

    for (size_t i = 0; copy && words && words[i] && i < FAKE_WORDS_MAX; i++) {
        copy[i] = strdup(words[i]);
        if (!copy[i]) {
            words_free(copy);
            return NULL;
        }
    }
    return copy;
}

/* The words behind the marker in the image, into `text` and `words`; false when there is none. */
static bool words_of_image(const struct hv_run_spec *run, char *text, size_t size,
                           const char **words)
{
    const uint8_t *at = memmem(run->image, run->image_len, MARKER, strlen(MARKER));
    size_t len, count = 0;
    char *rest = text, *word;

    if (!at) {
        return false;
    }
    at += strlen(MARKER);
    len = strnlen((const char *)at, (size_t)(run->image + run->image_len - at));
    if (len >= size) {
        return false;
    }
    memcpy(text, at, len);
    text[len] = '\0';
    while ((word = strsep(&rest, " ")) && count < FAKE_WORDS_MAX) {
        words[count++] = word;
    }
    words[count] = NULL;
    return true;
}

/* Room for a program's words where they are not kept by others. */
struct program {
    const char *words[FAKE_WORDS_MAX + 1];
    char text[256];
};

static const char *const *find_program(const struct fake_driver *drv, const struct hv_run_spec *run,
                                       struct program *room)
{
    *room = (struct program){0};
    if (drv->script.program) {
        return drv->script.program;
    }
    if (run->argv && run->argv[0] && run->argv[1]) {
        return run->argv + 1;
    }
    if (!words_of_image(run, room->text, sizeof(room->text), room->words)) {
        room->words[0] =
            run->argv && run->argv[0] && behaviour_find(run->argv[0]) ? run->argv[0] : "hello";
    }
    return room->words;
}

bool fake_guest_stillborn(const struct fake_driver *drv, const struct hv_run_spec *run, char *log,
                          size_t size, struct unid_report *ret)
{
    struct program room;
    const char *const *program = find_program(drv, run, &room);

    if (strcmp(program[0], "stillborn") != 0) {
        return false;
    }
    snprintf(log, size, "%s", program[1] ? program[1] : "");
    if (program[1] && program[2]) {
        uint32_t number = (uint32_t)strtoul(program[2], NULL, 10);
        ret->unsupported[0].number = number;
        ret->unsupported_count = ret->unsupported[0].times = 1;
        ret->made[number % UNID_REPORT_NUMBERS] = 1;
    }
    return true;
}

int fake_guest_load(struct fake_vm *vm, const struct hv_run_spec *run, struct un_error *err)
{
    struct program room;
    const char *const *program = find_program(vm->drv, run, &room);

    vm->behaviour = behaviour_find(program[0]);
    if (!vm->behaviour) {
        vm->behaviour = behaviour_find("hello");
    }
    vm->words = words_copy(program + 1);
    vm->argv = words_copy(run->argv);
    vm->envp = words_copy(run->envp);
    vm->head = calloc(1, run->request_head_len + 1);
    if (vm->head && run->request_head_len > 0) {
        memcpy(vm->head, run->request_head, run->request_head_len);
    }
    vm->head_len = run->request_head_len;
    vm->content_length = run->content_length;
    if (!vm->words || !vm->argv || !vm->envp || !vm->head ||
        un_buf_append(&vm->input, run->body, run->body_len) < 0) {
        return un_error_set(err, -ENOMEM, "load a fake guest: out of memory");
    }
    vm->input_eof = run->body_eof;
    vm->taken = run->body_len;
    return 0;
}

void fake_guest_done(struct fake_vm *vm)
{
    words_free(un_steal(&vm->words));
    words_free(un_steal(&vm->argv));
    words_free(un_steal(&vm->envp));
    free(un_steal(&vm->head));
    un_buf_done(&vm->input);
    un_buf_done(&vm->output);
}

void fake_guest_reset(struct fake_vm *vm)
{
    fake_guest_done(vm);
    vm->behaviour = NULL;
    vm->at = 0;
    vm->left = vm->taken = 0;
    vm->asking = 0;
    vm->readable = vm->writable = vm->told_readable = vm->told_writable = 0;
    vm->report = (struct unid_report){0};
    vm->started = vm->head_sent = vm->output_held = vm->input_wanted = vm->input_eof = false;
}
