/* SPDX-License-Identifier: Apache-2.0
 *
 * _drill: deaths that Python code cannot die by itself, to be died on purpose.
 *
 * C1. Each does what its name says to the processor, whatever the compiler thinks of it: through
 *     volatile, or in assembly.
 * C2. A death that does not come is an error: the function raises, it does not return.
 * C3. corrupt_heap() and wild_write() return: what comes then, and when, is what is tried out.
 *
 * Knows nothing of who picks up the pieces. */

#include <Python.h>
#include <stdbool.h>
#include <stdint.h>

#define UNMAPPED ((uintptr_t)0x600000000000) /* between a program's data and its mappings */
#define NON_CANONICAL ((uintptr_t)1 << 63)   /* no address at all on this processor */
#define GARBAGE 0xA5
#define SMALL_MAX 512 /* Python's own allocator keeps blocks up to this size */
#define SMALL_STEP 16
#define BLOCKS 64 /* more than a pool holds of most sizes */

static PyObject *survived(void)
{
    PyErr_SetString(PyExc_SystemError, "the drill was survived");
    return NULL;
}

static void store_at(uintptr_t where)
{
    volatile uintptr_t address = where;

    *(volatile unsigned char *)address = GARBAGE;
}

PyDoc_STRVAR(page_fault_doc, "page_fault()\n--\n\nStore to an address where no memory is.");
static PyObject *page_fault(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    store_at(UNMAPPED);
    return survived();
}

PyDoc_STRVAR(null_doc, "null()\n--\n\nStore to address 0.");
static PyObject *null(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    store_at(0);
    return survived();
}

PyDoc_STRVAR(general_protection_doc,
             "general_protection()\n--\n\nStore to an address that cannot be one.");
static PyObject *general_protection(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    store_at(NON_CANONICAL);
    return survived();
}

PyDoc_STRVAR(illegal_instruction_doc,
             "illegal_instruction()\n--\n\nExecute an instruction that is none (ud2).");
static PyObject *illegal_instruction(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    __asm__ volatile("ud2");
    return survived();
}

PyDoc_STRVAR(divide_doc, "divide()\n--\n\nDivide by zero, as the processor does it.");
static PyObject *divide(PyObject *module, PyObject *unused)
{
    uint32_t low = 1, high = 0;

    (void)module, (void)unused;
    __asm__ volatile("divl %2" : "+a"(low), "+d"(high) : "r"(0) : "cc");
    return survived();
}

/* A page of stack for each call, all of it touched: no guard page is jumped over. Each call looks
 * into the page of the one above, so that the compiler cannot make a loop of them. */
static unsigned descend(volatile unsigned char *above)
{
    volatile unsigned char page[4096];

    for (size_t index = 0; index < sizeof(page); index++)
        page[index] = above[index];
    return above[0] == GARBAGE ? descend(page) + page[0] : 0;
}

PyDoc_STRVAR(stack_overflow_doc, "stack_overflow()\n--\n\nCall without an end, in C.");
static PyObject *stack_overflow(PyObject *module, PyObject *unused)
{
    volatile unsigned char page[4096];

    (void)module, (void)unused;
    for (size_t index = 0; index < sizeof(page); index++)
        page[index] = GARBAGE;
    descend(page);
    return survived();
}

PyDoc_STRVAR(loop_doc, "loop()\n--\n\nGo round for ever, in C: no handler of Python's runs.");
static PyObject *loop(PyObject *module, PyObject *unused)
{
    volatile bool is_ending = false;

    (void)module, (void)unused;
    while (!is_ending)
        ;
    return survived();
}

PyDoc_STRVAR(corrupt_heap_doc,
             "corrupt_heap()\n--\n\nFill free blocks of every small size with garbage. In them\n"
             "the allocator keeps where the next free block is: the interpreter soon stores to\n"
             "wild addresses.");
static PyObject *corrupt_heap(PyObject *module, PyObject *unused)
{
    void *blocks[BLOCKS];

    (void)module, (void)unused;
    for (size_t size = SMALL_STEP; size <= SMALL_MAX; size += SMALL_STEP) {
        size_t count = 0;

        while (count < BLOCKS && (blocks[count] = PyObject_Malloc(size)) != NULL)
            count++;
        for (size_t index = 0; index < count; index++)
            PyObject_Free(blocks[index]);
        for (size_t index = 0; index < count; index++)
            memset(blocks[index], GARBAGE, size); /* after it was freed: that is the drill */
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(wild_write_doc,
             "wild_write(address, size)\n--\n\nWrite 0xA5 over `size` bytes of memory.");
static PyObject *wild_write(PyObject *module, PyObject *arguments)
{
    unsigned long long address;
    Py_ssize_t size;

    (void)module;
    if (!PyArg_ParseTuple(arguments, "Kn", &address, &size))
        return NULL;
    for (Py_ssize_t index = 0; index < size; index++)
        store_at((uintptr_t)address + (uintptr_t)index);
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"page_fault", page_fault, METH_NOARGS, page_fault_doc},
    {"null", null, METH_NOARGS, null_doc},
    {"general_protection", general_protection, METH_NOARGS, general_protection_doc},
    {"illegal_instruction", illegal_instruction, METH_NOARGS, illegal_instruction_doc},
    {"divide", divide, METH_NOARGS, divide_doc},
    {"stack_overflow", stack_overflow, METH_NOARGS, stack_overflow_doc},
    {"loop", loop, METH_NOARGS, loop_doc},
    {"corrupt_heap", corrupt_heap, METH_NOARGS, corrupt_heap_doc},
    {"wild_write", wild_write, METH_VARARGS, wild_write_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_drill",
    .m_doc = "Deaths to be died on purpose. Nothing here is safe; that is what it is for.",
    .m_size = 0,
    .m_methods = functions,
};

PyMODINIT_FUNC PyInit__drill(void)
{
    return PyModuleDef_Init(&definition);
}
