/* Whether what left a call is a failure of it. */
#include "binding.h"

int cf_is_error(PyObject *exception) {
    if (!PyErr_GivenExceptionMatches(exception, PyExc_SystemExit) ||
        !PyObject_TypeCheck(exception, (PyTypeObject *)PyExc_SystemExit))
        return 1;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *code = PyObject_GetAttrString(exception, "code");
    int status = 1, overflow = 0;
    if (code == Py_None)
        status = 0;
    else if (code && PyLong_Check(code))
        status = PyLong_AsLongAndOverflow(code, &overflow) != 0 || overflow;
    Py_XDECREF(code);
    PyErr_Restore(type, value, traceback);
    return status;
}

int cf_raised_error(void) {
    if (!PyErr_ExceptionMatches(PyExc_SystemExit))
        return 1;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    int error = value == NULL || cf_is_error(value);
    PyErr_Restore(type, value, traceback);
    return error;
}

static PyObject *is_error(PyObject *module, PyObject *exception) {
    (void)module;
    return PyBool_FromLong(cf_is_error(exception));
}

static PyMethodDef methods[] = {
    {"is_error", is_error, METH_O, "Return whether an exception is a failure of what it left."},
    {NULL, NULL, 0, NULL},
};

const struct cf_binding_topic cf_topic_outcome = {methods, NULL};
