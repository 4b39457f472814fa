/* SPDX-License-Identifier: Apache-2.0 */
/* What the rest of this library knows of Python: module.c. */

#ifndef TARDIGRADE_PYTHON_H
#define TARDIGRADE_PYTHON_H

/* Where Python is, behind a line of our own, into the crash slot. Calls nothing that allocates. */
void python_traceback(const char *line);

#endif
