/* lsan_libvirt.c - what LeakSanitizer says nothing about in a test that calls libvirt's driver on threads of its own.
 *
 * libvirt's threads end when they like, with memory that only they knew of. What is allocated through our own functions
 * is still looked at.
 */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libvirt.so\nleak:libvirt_driver_qemu\nleak:libyajl\nleak:libcrypto\n"
           "leak:libgnutls\nleak:ld-linux-x86-64.so\n";
}
