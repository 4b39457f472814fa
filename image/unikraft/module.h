/* SPDX-License-Identifier: Apache-2.0 */
/* For main.c: the builtin module of module.c. Include Python.h before. */

#ifndef TARDIGRADE_MODULE_H
#define TARDIGRADE_MODULE_H

PyMODINIT_FUNC PyInit__unikraft(void);

#endif
