/* SPDX-License-Identifier: Apache-2.0 */
/* _unikraft: what Python needs of the machine, a builtin module. ring/unikraft.py is its only user,
 * besides start.py.
 *
 *   P1. Every failure is an OSError with Xen's number, which is Linux's.
 *   P2. A mapped page is given out as a memoryview; whoever unmaps it must have released it.
 * Knows nothing of what is asked for. */

#include "tardigrade.h"

#include <Python.h>
#include <frameobject.h>

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <uk/alloc.h>

#include "module.h"
#include "python.h"

#define PORTS_PER_CALL 256

extern PyThreadState *_PyThreadState_UncheckedGet(void);

/* ---- the last words of a program that cannot say them itself */

static void append(const char *text, size_t size)
{
    crash_write(text, size, crash_size());
}

static void append_number(int number)
{
    char digits[16];
    append(digits, (size_t)snprintf(digits, sizeof(digits), "%d", number));
}

static void append_string(PyObject *string)
{
    if (string && PyUnicode_Check(string) && PyUnicode_IS_COMPACT_ASCII(string))
        append(PyUnicode_DATA(string), (size_t)PyUnicode_GET_LENGTH(string));
    else
        append("???", 3);
}

#define FRAMES_MAX 20

void python_traceback(const char *line)
{
    append(line, strlen(line));
    append("\n\nStack (most recent call first):\n", 34);
    PyThreadState *state = _PyThreadState_UncheckedGet();
    PyFrameObject *frame = state ? state->frame : NULL;
    for (int depth = 0; frame && depth < FRAMES_MAX; depth++, frame = frame->f_back) {
        append("  File \"", 8);
        append_string(frame->f_code->co_filename);
        append("\", line ", 8);
        append_number(PyCode_Addr2Line(frame->f_code, frame->f_lasti * 2));
        append(" in ", 4);
        append_string(frame->f_code->co_name);
        append("\n", 1);
    }
}

/* ---- for every machine */

PyDoc_STRVAR(watchdog_doc, "watchdog(seconds)\n--\n\nEnd this life when it has run for so long, "
             "outside of waits, without another call; 0: never.");
static PyObject *module_watchdog(PyObject *module, PyObject *seconds)
{
    (void)module;
    double value = PyFloat_AsDouble(seconds);
    if (value == -1 && PyErr_Occurred())
        return NULL;
    machine_watchdog((uint64_t)(value * 1e9));
    Py_RETURN_NONE;
}

PyDoc_STRVAR(free_pages_doc, "free_pages()\n--\n\nPages of the heap that nobody uses.");
static PyObject *module_free_pages(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return PyLong_FromSsize_t(uk_alloc_availmem(uk_alloc_get_default()) / __PAGE_SIZE);
}

PyDoc_STRVAR(wait_doc, "wait(seconds) -> whether a port is raised; negative: without end");
static PyObject *module_wait(PyObject *module, PyObject *seconds)
{
    (void)module;
    double value = PyFloat_AsDouble(seconds);
    if (value == -1 && PyErr_Occurred())
        return NULL;
    return PyBool_FromLong(machine_wait(value < 0 ? -1 : (int64_t)(value * 1e9)));
}

PyDoc_STRVAR(exit_doc, "exit(code)\n--\n\nEnd this life, at once; with code 0 the machine.");
static PyObject *module_exit(PyObject *module, PyObject *code)
{
    (void)module;
    long value = PyLong_AsLong(code);
    if (value == 0)
        crash_end_cleanly();
    crash_end(NULL, "the program has ended with code %ld", value);
}

/* ---- on Xen */

#ifdef CONFIG_PLAT_XEN
static PyObject *failed(int64_t result)
{
    errno = (int)-result;
    return PyErr_SetFromErrno(PyExc_OSError);
}

static PyObject *done(int64_t result)
{
    if (result < 0)
        return failed(result);
    return PyLong_FromLongLong(result);
}

PyDoc_STRVAR(bind_virq_doc, "bind_virq(virq) -> local port");
static PyObject *module_bind_virq(PyObject *module, PyObject *arguments)
{
    (void)module;
    unsigned virq;
    if (!PyArg_ParseTuple(arguments, "I", &virq))
        return NULL;
    return done(port_bind_virq(virq));
}

PyDoc_STRVAR(bind_doc, "bind(domid, remote_port) -> local port");
static PyObject *module_bind(PyObject *module, PyObject *arguments)
{
    (void)module;
    unsigned domid, port;
    if (!PyArg_ParseTuple(arguments, "II", &domid, &port))
        return NULL;
    return done(port_bind(domid, port));
}

PyDoc_STRVAR(unbind_doc, "unbind(port)");
static PyObject *module_unbind(PyObject *module, PyObject *arguments)
{
    (void)module;
    unsigned port;
    if (!PyArg_ParseTuple(arguments, "I", &port))
        return NULL;
    return done(port_unbind(port));
}

PyDoc_STRVAR(notify_doc, "notify(port)");
static PyObject *module_notify(PyObject *module, PyObject *arguments)
{
    (void)module;
    unsigned port;
    if (!PyArg_ParseTuple(arguments, "I", &port))
        return NULL;
    return done(port_notify(port));
}

PyDoc_STRVAR(pending_doc, "pending() -> local ports raised since they were told last");
static PyObject *module_pending(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    uint32_t ports[PORTS_PER_CALL];
    uint32_t count = port_pending(ports, PORTS_PER_CALL);
    PyObject *list = PyList_New(count);
    for (uint32_t index = 0; list && index < count; index++) {
        PyObject *port = PyLong_FromUnsignedLong(ports[index]);
        if (!port) {
            Py_CLEAR(list);
            break;
        }
        PyList_SET_ITEM(list, index, port);
    }
    return list;
}

PyDoc_STRVAR(map_grant_doc, "map_grant(domid, ref) -> memoryview of the page");
static PyObject *module_map_grant(PyObject *module, PyObject *arguments)
{
    (void)module;
    unsigned domid, ref;
    int error;
    if (!PyArg_ParseTuple(arguments, "II", &domid, &ref))
        return NULL;
    void *page = grant_map(domid, ref, &error);
    return page ? PyMemoryView_FromMemory(page, __PAGE_SIZE, PyBUF_WRITE) : failed(-error);
}

PyDoc_STRVAR(unmap_grant_doc, "unmap_grant(page)");
static PyObject *module_unmap_grant(PyObject *module, PyObject *page)
{
    (void)module;
    Py_buffer buffer;
    if (PyObject_GetBuffer(page, &buffer, PyBUF_SIMPLE))
        return NULL;
    void *address = buffer.buf;
    PyBuffer_Release(&buffer);
    return done(grant_unmap(address));
}

PyDoc_STRVAR(hypercall_doc, "hypercall(number, a, b, c, d, e) -> what Xen answers");
static PyObject *module_hypercall(PyObject *module, PyObject *arguments)
{
    (void)module;
    unsigned long number, words[5] = {0};
    if (!PyArg_ParseTuple(arguments, "k|kkkkk", &number, &words[0], &words[1], &words[2],
                          &words[3], &words[4]))
        return NULL;
    return done(xen_hypercall(number, words));
}
#endif

static PyMethodDef functions[] = {
    {"wait", module_wait, METH_O, wait_doc},
    {"exit", module_exit, METH_O, exit_doc},
    {"watchdog", module_watchdog, METH_O, watchdog_doc},
    {"free_pages", module_free_pages, METH_NOARGS, free_pages_doc},
#ifdef CONFIG_PLAT_XEN
    {"bind_virq", module_bind_virq, METH_VARARGS, bind_virq_doc},
    {"bind", module_bind, METH_VARARGS, bind_doc},
    {"unbind", module_unbind, METH_VARARGS, unbind_doc},
    {"notify", module_notify, METH_VARARGS, notify_doc},
    {"pending", module_pending, METH_NOARGS, pending_doc},
    {"map_grant", module_map_grant, METH_VARARGS, map_grant_doc},
    {"unmap_grant", module_unmap_grant, METH_O, unmap_grant_doc},
    {"hypercall", module_hypercall, METH_VARARGS, hypercall_doc},
#endif
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_unikraft",
    .m_doc = "The machine beneath: event channels, grants, the wait, the watchdog.",
    .m_size = 0,
    .m_methods = functions,
};

PyMODINIT_FUNC PyInit__unikraft(void)
{
    return PyModuleDef_Init(&definition);
}
