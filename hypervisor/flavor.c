/* flavor.c - see flavor.h.
 *
 * Sources: Unikraft's documentation of its library parameters (netdev.ip; nothing may stand before
 * them, and "--" ends them); MirageOS' runtime arguments (--ipv4, --ipv4-gateway); OSv's boot options
 * (--ip, --defaultgw, --nameserver); rumprun's doc/config.md (JSON); Linux,
 * Documentation/admin-guide/nfs/nfsroot.rst (ip=) and kernel-parameters.txt. Nanos asks DHCP.
 */
#include "hypervisor/flavor.h"

#include <errno.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/limits.h"
#include "common/linux64.h"

enum { DETECT_BYTES = 8 << 20 };

/* The rate of the time stamp counter is given because microvm has no clock that Linux could measure it by
 * beside the PIT, which fails on a busy host: then no timer interrupt ever comes, and it hangs. The self
 * tests of its cryptography take a tenth of the boot. */
#define LINUX                                                                                      \
    "console=ttyS0 quiet panic=-1 tsc_early_khz={tsckhz} tsc=reliable "                            \
    "cryptomgr.notests ip={ip}::{gateway}:{netmask}::eth0:off:{dns} {append}"

static const struct hv_flavor flavors[] = {
    {.name = "plain", .type = HV_MACHINE_MICROVM, .template = "{append}"},
    {.name = "pc", .type = HV_MACHINE_PC, .template = "{append}"},
    {.name = "q35", .type = HV_MACHINE_Q35, .template = "{append}"},
    {.name = "unikraft",
     .type = HV_MACHINE_PC,
     .template = "netdev.ip={ip}/{prefix}:{gateway} -- {append}"},
    /* Its images for Firecracker; the first word is the program's name. */
    {.name = "unikraft-fc",
     .type = HV_MACHINE_MICROVM,
     .template = "unikraft netdev.ip={ip}/{prefix}:{gateway} -- {append}",
     .by_words = true,
     .virtio1 = true},
    {.name = "firecracker",
     .type = HV_MACHINE_MICROVM,
     .template = "{append}",
     .by_words = true,
     .virtio1 = true},
    {.name = "solo5",
     .type = HV_MACHINE_PC,
     .template = "--ipv4={ip}/{prefix} --ipv4-gateway={gateway} {append}"},
    {.name = "osv",
     .type = HV_MACHINE_Q35,
     .template = "--ip=eth0,{ip},{netmask} --defaultgw={gateway} --nameserver={dns} {append}"},
    {.name = "rumprun",
     .type = HV_MACHINE_PC,
     .template = "{\"cmdline\":\"{append}\",\"net\":{\"if\":\"vioif0\",\"type\":\"inet\","
                 "\"method\":\"static\",\"addr\":\"{ip}\",\"mask\":\"{prefix}\","
                 "\"gw\":\"{gateway}\"}}",
     .json = true},
    /* A kernel beside its disk; from its disk alone it gets a PC, whatever stands here. */
    {.name = "nanos",
     .type = HV_MACHINE_MICROVM,
     .template = "{append}",
     .acpi = true,
     .virtio1 = true,
     .one_ioapic = true},
    {.name = "linux", .type = HV_MACHINE_MICROVM, .template = LINUX, .acpi = true, .guard = true},
    {.name = "linux-pc", .type = HV_MACHINE_PC, .template = LINUX, .acpi = true, .guard = true},
};

const struct hv_flavor *hv_flavor_find(const char *name)
{
    for (size_t i = 0; i < UN_ARRAY_SIZE(flavors); i++) {
        if (strcmp(flavors[i].name, name) == 0) {
            return &flavors[i];
        }
    }
    return NULL;
}

const char *hv_flavor_names(void)
{
    return "plain, pc, q35, firecracker, unikraft, unikraft-fc, solo5, osv, rumprun, nanos, linux, "
           "linux-pc";
}

/* Linux' own, which does not ask, says nothing of its machine. */
static bool asks_for_boot_params(const void *image, size_t len)
{
    struct un_elf elf;
    return un_elf_is(image, len) && un_elf_parse_library(image, len, len, &elf, NULL) == 0 &&
           un_linux64_file(image, len, &elf) == UN_LINUX64_ASKS;
}

static const struct hv_flavor *detect(const void *image, size_t len)
{
    /* rumprun before Solo5, as it runs on that as well. */
    static const struct {
        const char *word, *flavor;
    } words[] = {
        {"Powered by Unikraft", "unikraft"},
        {"CONFIG_UK_", "unikraft"},
        {"libkvmplat", "unikraft"}, /* in its messages, also where the banner is a picture */
        {"rumprun", "rumprun"},
        {"Solo5", "solo5"},
        {"OSv v", "osv"},
        {"OSv options:", "osv"}, /* its usage, also where it was built without a version */
        {"NANOS_VERSION", "nanos"},
        {"NVMTFS", "nanos"}, /* its file system */
    };
    const uint8_t *bytes = image;
    if (len > 0x206 && memcmp(bytes + 0x202, "HdrS", 4) == 0) {
        return hv_flavor_find("linux");
    }
    for (size_t i = 0; len > 0 && i < UN_ARRAY_SIZE(words); i++) {
        if (memmem(image, len, words[i].word, strlen(words[i].word))) {
            return hv_flavor_find(words[i].flavor);
        }
    }
    return hv_flavor_find("plain");
}

const struct hv_flavor *hv_flavor_detect(const void *image, size_t len)
{
    const struct hv_flavor *said = detect(image, len < DETECT_BYTES ? len : DETECT_BYTES);
    if (!asks_for_boot_params(image, len)) {
        return said;
    }
    return hv_flavor_find(strcmp(said->name, "unikraft") == 0 ? "unikraft-fc" : "firecracker");
}

static size_t word_length(const char *s)
{
    size_t n = 0;
    while (s[n] >= 'a' && s[n] <= 'z') {
        n++;
    }
    return n;
}

/* The value of a placeholder; NULL: there is none of that name. */
static const char *value_of(const char *word, size_t len, const struct hv_net_words *net)
{
    const struct {
        const char *name, *value;
    } words[] = {
        {"ip", net->ip},           {"prefix", net->prefix},  {"netmask", net->netmask},
        {"gateway", net->gateway}, {"dns", net->dns},        {"mac", net->mac},
        {"port", net->port},       {"tsckhz", net->tsc_khz},
    };
    for (size_t i = 0; i < UN_ARRAY_SIZE(words); i++) {
        if (strlen(words[i].name) == len && strncmp(words[i].name, word, len) == 0) {
            return words[i].value ? words[i].value : "";
        }
    }
    return NULL;
}

static int append_json(struct un_buf *out, const uint8_t *text, size_t len)
{
    int rc = 0;
    for (size_t i = 0; i < len && rc == 0; i++) {
        if (text[i] == '"' || text[i] == '\\') {
            rc = un_buf_append_str(out, "\\");
        }
        rc = rc < 0 ? rc : un_buf_append(out, &text[i], 1);
    }
    return rc;
}

/* `inner` is what {append} stands for, expanded already; NULL: {append} is unknown here. */
static int expand(const char *text, const struct hv_net_words *net, const struct un_buf *inner,
                  bool json, struct un_buf *out, struct un_error *err)
{
    int rc = 0;
    while (*text && rc == 0) {
        size_t len = *text == '{' ? word_length(text + 1) : 0;
        if (len == 0 || text[1 + len] != '}') {
            rc = un_buf_append(out, text++, 1);
            continue;
        }
        const char *value = value_of(text + 1, len, net);
        if (value) {
            rc = un_buf_append_str(out, value);
        } else if (inner && len == 6 && strncmp(text + 1, "append", 6) == 0) {
            rc = json ? append_json(out, inner->data, inner->len)
                      : un_buf_append(out, inner->data, inner->len);
        } else {
            return un_error_set(err, -EINVAL,
                                "command line: {%.*s} is not known; there are {ip}, {prefix}, "
                                "{netmask}, {gateway}, {dns}, {mac}, {port} and {tsckhz}",
                                (int)(len > 32 ? 32 : len), text + 1);
        }
        text += len + 2;
    }
    return rc < 0 ? un_error_set(err, rc, "out of memory") : 0;
}

int hv_cmdline_expand(const struct hv_flavor *flavor, const char *append,
                      const struct hv_net_words *net, struct un_buf *out, struct un_error *err)
{
    un_autobuf struct un_buf inner = {0};
    size_t before = out->len;
    int rc = expand(append ? append : "", net, NULL, false, &inner, err);
    if (rc == 0) {
        rc = expand(flavor->template, net, &inner, flavor->json, out, err);
    }
    if (rc == 0 && out->len - before > LIMIT_CMDLINE_BYTES) {
        return un_error_set(err, -E2BIG, "command line: longer than %d bytes", LIMIT_CMDLINE_BYTES);
    }
    return rc;
}
