/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scalar types with a meaning, and the handful of macros every folder uses.
 *
 * Four kinds of address exist and are never mixed (docs/glossary.md):
 *   gva  guest-virtual (linear) address        gpa  guest-physical address
 *   mpa  machine address: offset in the pool   hva  pointer in this process
 * A frame number is an address >> 12.
 */
#ifndef BASE_TYPES_H
#define BASE_TYPES_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint64_t gva_t;
typedef uint64_t gpa_t;
typedef uint64_t mpa_t;
typedef uint64_t gfn_t;
typedef uint64_t mfn_t;

#define PAGE_SHIFT 12
#define PAGE_SIZE 4096ull
#define PAGE_MASK (PAGE_SIZE - 1)

#define nitems(a) (sizeof(a) / sizeof((a)[0]))
#define container_of(ptr, type, member) ((type *)((char *)(ptr) - offsetof(type, member)))
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define BIT(n) (1ull << (n))

#endif
