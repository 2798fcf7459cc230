/* userns.h - a user namespace of this process's own (user_namespaces(7)). Needs nothing but the C library:
 * the monitor of the native driver is linked with it as well. */
#ifndef UNID_COMMON_USERNS_H
#define UNID_COMMON_USERNS_H

/* Moves this process, which must have one thread, into a new user namespace in which its effective user
 * and group are the only ones there are, under their own numbers. Files, rights to them and supplementary
 * groups stay as they are; the process has every capability over what is made in the namespace from now
 * on, and none over what was there before. A program that it runs has none at all, unless the user is
 * root. There is no way back.
 *
 * Returns 0 or a negative errno: -EPERM, -EACCES where a setting, a security module, a seccomp filter or
 * chroot forbids it, -ENOSPC for user.max_user_namespaces, -EINVAL with more threads than one, or in a
 * kernel without. Where only the numbers could not be written the process is in the namespace all the
 * same, as nobody in particular: try it in a child first. */
int un_userns_enter(void);

#endif
