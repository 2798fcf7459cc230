/* module.h - drivers that are loaded when they are first needed.
 *
 * A driver that needs a large library is a module: a shared object with the symbol MODULE_SYMBOL, an
 * hv_driver_ops. In its stead stands a proxy, which costs nothing: its open() only remembers what it was
 * given, and the module is loaded and opened at the first vm_new or probe. If the driver was loaded in
 * an earlier life of this state directory and not closed (kill -9), open() loads it at once, so that
 * what was left over is removed.
 *
 * Modules are looked for in $UNID_MODULE_DIR, in ../lib/unid beside the program's directory (a build
 * tree, a moved installation), and in the library directory of the installation. They are never
 * unloaded, as libraries with threads of their own cannot be.
 */
#ifndef UNID_HYPERVISOR_MODULE_H
#define UNID_HYPERVISOR_MODULE_H

#include "hypervisor/hv.h"

#define MODULE_SYMBOL "unid_hv_driver"

/* The proxy of unid-libvirt.so, the driver `libvirt`. The VMs that it gives are the module's own. */
extern const struct hv_driver_ops module_libvirt_ops;

/* Loads a module by its file name; NULL with `err` when it is not there or no driver. Loop thread. */
const struct hv_driver_ops *module_load(const char *file, struct un_error *err);

#endif
