/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Confining doppel-fs to its folder.
 */
#ifndef FS_CONFINE_H
#define FS_CONFINE_H

#include "proto/share.h"

/*
 * Before threads exist: the folder becomes the root of the file system (where a mount namespace of our own allows; otherwise only
 * fs.h's invariant holds the guest inside), capabilities are dropped, limits set. *root and *proc are the descriptors that
 * fs_create() wants. 0, or -errno with nothing usable. *whole_ids: the rights to give files to anybody are there.
 */
int confine_enter(const struct share_start *start, int dir, int *root, int *proc, bool *whole_ids);

/* Once threads exist: the system call filter, for all of them. 0 or -errno; -ENOSYS in a sanitizer build. */
int confine_seal(void);

#endif
