/* abi.h - the contract between a ring-3 guest and its host, version 1.0.
 *
 * The machine. One x86-64 CPU in 64-bit mode at privilege level 3, for ever: no kernel mode, no
 * interrupts, no devices, no system calls. One address space, virtual = physical, paging on.
 * Nothing is mapped below UNID_BOOT_ADDR, so that a null pointer faults; the image's segments carry
 * their ELF permissions; heap and stack are never executable. A fault ends the machine; the host
 * learns vector, error code, instruction and fault address.
 *
 * At entry: rdi = UNID_BOOT_ADDR; rsp = boot.stack_top - 8, where a zero stands (aligned as after a
 * call); all other general registers zero; direction flag clear; x87 as after FNINIT, MXCSR 0x1f80.
 * SSE2 may be used; AVX only when boot.flags has UNID_BOOT_AVX.
 *
 * The host is asked for what it alone has, by a call: the guest fills `struct unid_call`, raises
 * `seq`, rings the doorbell, and waits until `ack` equals `seq`. Ringing is one OUT of a byte (any
 * value) to boot.doorbell_port, or one 4-byte store to boot.doorbell_addr, as boot.doorbell_kind
 * says. On some drivers the call is done when the doorbell instruction returns, on others later:
 * the guest always waits for `ack` (with PAUSE).
 *
 * No pointer ever crosses the border. Data moves through three windows, at addresses which the host
 * chose: request (host to guest), response and log (guest to host). The guest says only lengths,
 * which the host checks.
 *
 *     guest                                     host
 *     NEXT   ------------------------------->   (a snapshot may be taken here)
 *            <----- request head + first body bytes in the request window, time, entropy, id
 *     READ   ------------------------------->
 *            <----- the next body bytes; UNID_CALL_EOF behind the last
 *     WRITE  response_len bytes ------------>   (the first time: head_len bytes of head in front)
 *     DONE   the last response bytes, status ->  the machine ends; ack never comes
 *
 * Bytes in the log window travel with any call (log_len); LOG carries nothing else. The host also
 * reads them when the machine has ended, so that a message written before a fault is not lost.
 *
 * Versions: a guest built for major M runs on any host with major M; fields are only ever added, in
 * reserved space or at the end, with a new minor. docs/guest-abi.md tells the same at more length.
 */
#ifndef UNID_ABI_H
#define UNID_ABI_H

#ifdef __ASSEMBLER__
#define UNID_U32(x) x
#define UNID_U64(x) x
#else
#include <stddef.h>
#include <stdint.h>
#define UNID_U32(x) x##u
#define UNID_U64(x) x##ull
#endif

#define UNID_ABI_MAGIC UNID_U64(0x313069626144494e) /* "NIDabi01" in memory order */
#define UNID_ABI_MAJOR 1
#define UNID_ABI_MINOR 0

/* The ELF note that marks an SDK image: owner "unid", this type, descriptor {u16 major, u16 minor,
 * u32 flags (0)}. */
#define UNID_NOTE_OWNER "unid"
#define UNID_NOTE_TYPE  1

/* Guest addresses, physical = virtual. The images' segments lie in [UNID_IMAGE_MIN, memory end). */
#define UNID_BOOT_ADDR UNID_U64(0x100000) /* struct unid_boot, one page */
#define UNID_CALL_ADDR UNID_U64(0x101000) /* struct unid_call, one page */
#define UNID_STRINGS_ADDR                                                                          \
    UNID_U64(0x102000) /* arguments, then environment: NUL-terminated, packed */
#define UNID_STRINGS_SIZE  UNID_U64(0x00e000)
#define UNID_LOG_ADDR      UNID_U64(0x110000)
#define UNID_LOG_SIZE      UNID_U64(0x010000)
#define UNID_REQUEST_ADDR  UNID_U64(0x120000)
#define UNID_REQUEST_SIZE  UNID_U64(0x040000)
#define UNID_RESPONSE_ADDR UNID_U64(0x160000)
#define UNID_RESPONSE_SIZE UNID_U64(0x040000)
#define UNID_CHANNEL_END   UNID_U64(0x1a0000) /* [BOOT_ADDR, CHANNEL_END): shared with the host */
#define UNID_IMAGE_MIN     UNID_U64(0x200000)
#define UNID_STACK_SIZE    UNID_U64(0x040000) /* below boot.stack_top; one unmapped page under it */

/* The longest heads. A request head leaves at least half of its window to the body. */
#define UNID_REQUEST_HEAD_MAX  (UNID_REQUEST_SIZE / 2)
#define UNID_RESPONSE_HEAD_MAX UNID_U64(0x4000)

/* boot.flags */
#define UNID_BOOT_REQUEST_READY 1 /* the first NEXT is answered already: do not ring for it */
#define UNID_BOOT_AVX           2 /* the CPU's AVX state is enabled */

/* boot.doorbell_kind */
#define UNID_DOORBELL_PORT   1
#define UNID_DOORBELL_MEMORY 2

/* call.op */
#define UNID_OP_NEXT  1 /* wait for the request */
#define UNID_OP_READ  2 /* refill the request window with body bytes */
#define UNID_OP_WRITE 3 /* take response_len bytes from the response window */
#define UNID_OP_DONE  4 /* take the rest and end; status 0 is success */
#define UNID_OP_LOG   5 /* take log_len bytes from the log window */

/* call.flags */
#define UNID_CALL_EOF 1 /* no body bytes follow those in the window */

/* call.content_length when the client did not declare one */
#define UNID_LENGTH_UNKNOWN UNID_U64(0xffffffffffffffff)

#define UNID_ID_SIZE      32 /* the invocation id, NUL-padded ASCII */
#define UNID_ENTROPY_SIZE 64

#ifndef __ASSEMBLER__

/* What a machine is told once, at its start. Written by the host before entry. */
struct unid_boot {
    uint64_t magic; /* UNID_ABI_MAGIC */
    uint16_t major, minor;
    uint32_t size; /* bytes of this struct that the host filled */
    uint32_t flags;
    uint32_t doorbell_kind;
    uint32_t doorbell_port;
    uint32_t argc; /* strings at UNID_STRINGS_ADDR, argc then envc of them */
    uint32_t envc;
    uint32_t strings_len; /* bytes in use there */
    uint64_t doorbell_addr;
    uint64_t memory_end; /* first address behind the guest's memory */
    uint64_t image_start, image_end;
    uint64_t heap_start, heap_end; /* zeroed, readable and writable, page-aligned */
    uint64_t stack_top;            /* page-aligned: the end of the stack */
    uint64_t tsc_hz;               /* rate of RDTSC, 0 when not known */
    uint64_t reserved[16];
};

/* The one call in flight. Guest-written fields first, host-written fields on cache lines of their
 * own. */
struct unid_call {
    /* guest to host */
    uint32_t seq; /* raised by one for each call, last of all fields */
    uint32_t op;
    uint32_t response_len; /* bytes valid in the response window, head included */
    uint32_t head_len; /* of which this many are the response head; only in the first WRITE/DONE */
    uint32_t log_len;  /* bytes valid in the log window; zeroed by the host when it took them */
    int32_t status;    /* DONE: exit status */
    uint32_t guest_reserved[10];
    /* host to guest; valid once ack == seq */
    uint32_t ack;
    uint32_t flags;
    uint32_t request_head_len; /* NEXT: bytes of request head at the window's start */
    uint32_t request_len;      /* NEXT and READ: body bytes behind the head */
    uint64_t content_length;   /* NEXT */
    uint64_t wall_ns;          /* NEXT: nanoseconds since 1970-01-01 UTC */
    uint64_t
        deadline_ns; /* NEXT: nanoseconds that the invocation may take from now; 0 = no limit */
    uint32_t host_reserved[6];
    uint8_t invocation_id[UNID_ID_SIZE]; /* NEXT */
    uint8_t reserved[32];
    uint8_t
        entropy[UNID_ENTROPY_SIZE]; /* NEXT: fresh random bytes, to seed the guest's generator */
};

/* The request head stays at the start of its window for good: body bytes, of NEXT and of every
 * READ, stand behind it, at UNID_REQUEST_ADDR + request_head_len, each time from there.
 *
 * Heads are text. Request: "METHOD SP target CRLF", then "name: value CRLF" for each field.
 * Response: "status CRLF" (three digits, 200 to 599), then fields likewise, no empty line at the
 * end of either. An absent response head means 200. The host drops fields that frame or concern the
 * connection. */

#define UNID_LAYOUT(type, field, at)                                                               \
    _Static_assert(offsetof(struct type, field) == (at), #type "." #field " moved")
UNID_LAYOUT(unid_boot, flags, 16);
UNID_LAYOUT(unid_boot, strings_len, 36);
UNID_LAYOUT(unid_boot, doorbell_addr, 40);
UNID_LAYOUT(unid_boot, heap_start, 72);
UNID_LAYOUT(unid_boot, tsc_hz, 96);
UNID_LAYOUT(unid_call, guest_reserved, 24);
UNID_LAYOUT(unid_call, ack, 64);
UNID_LAYOUT(unid_call, content_length, 80);
UNID_LAYOUT(unid_call, invocation_id, 128);
UNID_LAYOUT(unid_call, entropy, 192);
_Static_assert(sizeof(struct unid_boot) == 232, "struct unid_boot changed size");
_Static_assert(sizeof(struct unid_call) == 256, "struct unid_call changed size");
#undef UNID_LAYOUT

#endif /* __ASSEMBLER__ */
#endif
