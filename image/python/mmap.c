/* SPDX-License-Identifier: Apache-2.0
 *
 * mmap: shared mappings of files, as far as ring/linux.py and ring/sim.py use Python's module of
 * that name, which Debian's archive lacks.
 *
 * P1. A mapping lives until close(), or until nobody has it any more.
 * P2. It is a buffer of bytes, writable if PROT_WRITE was asked for. While there is a view of it
 *     close() is refused (BufferError), so no view ever leads to memory that is gone.
 * P3. Nothing else of Python's mmap is here: no file methods, no anonymous memory, and no length of
 *     0 for "the whole file". The descriptor is not duplicated: the mapping needs none.
 *
 * Knows nothing of what is mapped. */

#include <Python.h>
#include <stdbool.h>
#include <sys/mman.h>

typedef struct {
    PyObject_HEAD
    void *address; /* NULL: closed */
    Py_ssize_t size, views;
    bool is_read_only;
} Mapping;

static PyObject *mapping_new(PyTypeObject *type, PyObject *arguments, PyObject *names)
{
    static char *keywords[] = {"fileno", "length", "flags", "prot", "offset", NULL};
    int fd, flags = MAP_SHARED, prot = PROT_READ | PROT_WRITE;
    long long offset = 0;
    Py_ssize_t size;

    if (!PyArg_ParseTupleAndKeywords(arguments, names, "in|iiL", keywords, &fd, &size, &flags,
                                     &prot, &offset))
        return NULL;
    if (size <= 0) {
        PyErr_SetString(PyExc_ValueError, "a length of at least 1 is needed");
        return NULL;
    }
    Mapping *self = (Mapping *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    void *address = mmap(NULL, (size_t)size, prot, flags, fd, offset);
    if (address == MAP_FAILED) {
        Py_DECREF(self);
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    self->address = address;
    self->size = size;
    self->is_read_only = !(prot & PROT_WRITE);
    return (PyObject *)self;
}

static void unmap(Mapping *self)
{
    if (self->address != NULL)
        munmap(self->address, (size_t)self->size);
    self->address = NULL;
}

static void mapping_dealloc(Mapping *self)
{
    PyTypeObject *type = Py_TYPE(self);

    unmap(self);
    type->tp_free(self);
    Py_DECREF(type);
}

PyDoc_STRVAR(close_doc, "close()\n--\n\nUnmap it. BufferError while there is a view of it.");
static PyObject *mapping_close(Mapping *self, PyObject *unused)
{
    (void)unused;
    if (self->views > 0) {
        PyErr_SetString(PyExc_BufferError, "there are views of this mapping");
        return NULL;
    }
    unmap(self);
    Py_RETURN_NONE;
}

static Py_ssize_t mapping_length(Mapping *self)
{
    return self->address != NULL ? self->size : 0;
}

static int mapping_get_buffer(Mapping *self, Py_buffer *view, int flags)
{
    if (self->address == NULL) {
        PyErr_SetString(PyExc_ValueError, "the mapping is closed");
        return -1;
    }
    if (PyBuffer_FillInfo(view, (PyObject *)self, self->address, self->size, self->is_read_only,
                          flags) < 0)
        return -1;
    self->views++;
    return 0;
}

static void mapping_release_buffer(Mapping *self, Py_buffer *view)
{
    (void)view;
    self->views--;
}

static PyMethodDef mapping_methods[] = {
    {"close", (PyCFunction)mapping_close, METH_NOARGS, close_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(mapping_doc,
             "mmap(fileno, length, flags=MAP_SHARED, prot=PROT_READ|PROT_WRITE, offset=0)\n--\n\n"
             "A part of a file as a buffer.");

static PyType_Slot mapping_slots[] = {
    {Py_tp_new, mapping_new},
    {Py_tp_dealloc, mapping_dealloc},
    {Py_tp_methods, mapping_methods},
    {Py_tp_doc, (void *)mapping_doc},
    {Py_sq_length, mapping_length},
    {Py_bf_getbuffer, mapping_get_buffer},
    {Py_bf_releasebuffer, mapping_release_buffer},
    {0, NULL},
};

static PyType_Spec mapping_spec = {
    .name = "mmap.mmap",
    .basicsize = sizeof(Mapping),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = mapping_slots,
};

static int fill(PyObject *module)
{
    PyObject *type = PyType_FromSpec(&mapping_spec);

    if (type == NULL)
        return -1;
    int result = PyModule_AddObjectRef(module, "mmap", type);
    Py_DECREF(type);
    if (result < 0 || PyModule_AddIntMacro(module, MAP_SHARED) < 0 ||
        PyModule_AddIntMacro(module, PROT_READ) < 0 || PyModule_AddIntMacro(module, PROT_WRITE) < 0)
        return -1;
    return PyModule_AddIntConstant(module, "PAGESIZE", 4096);
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, fill}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "mmap",
    .m_doc = "Shared mappings of files.",
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit_mmap(void)
{
    return PyModuleDef_Init(&definition);
}
