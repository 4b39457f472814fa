/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel's string functions beside libc's. Included in front of every kernel file. */

#define memcpy k_memcpy
#define memmove k_memmove
#define memset k_memset
#define memcmp k_memcmp
#define strlen k_strlen
#define strnlen k_strnlen
#define strcmp k_strcmp
