/* SPDX-License-Identifier: Apache-2.0 */
/* What corpus.S and main.c agree on. */
#ifndef TESTS_GUARD_GUARD_H
#define TESTS_GUARD_GUARD_H

#define GUARD_CODE 0xffff800000800000 /* guest address of the corpus */

#endif
