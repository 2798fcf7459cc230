/* qemucaps.h - what libvirt remembers of QEMU, and what it need not.
 *
 * After it has started QEMU, libvirt asks for the CPU that the guest has got. Where QEMU can say which
 * features are unavailable, it asks for each property of the CPU by itself: 400 round trips of the
 * monitor, 200 ms. Where it cannot, one question for all feature words will do. Neither answer is of
 * use here: our domains ask for no feature that has to be verified. So that ability is left out of the
 * file in which libvirt keeps what a QEMU can do. It reads that file once in its life and knows a QEMU
 * by its path; hence a second path of the same QEMU, whose file is there before libvirt looks.
 */
#ifndef UNID_HYPERVISOR_LIBVIRT_QEMUCAPS_H
#define UNID_HYPERVISOR_LIBVIRT_QEMUCAPS_H

#include "common/error.h"

/* Writes, in libvirt's cache directory, the file of `alias` (a path at which the QEMU of `emulator` is
 * found as well) from that of `emulator`, without the ability. libvirt 9.0: its name is
 * qemu/capabilities/ and the path's SHA-256 in hexadecimal. -ENOENT: libvirt has not looked at
 * `emulator` yet; -EINVAL: the file is of another form; errors of the files. Nothing is changed then.
 * Worker. */
int lv_qemucaps_lighten(const char *cache_dir, const char *emulator, const char *alias,
                        struct un_error *err);

#endif
