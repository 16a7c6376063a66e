/* The extension module: multi-phase init, no static mutable state, one table of topics. */
#include "binding.h"

#include <errno.h>

#include "tick.h"

static const struct cf_binding_topic *const topics[] = {
    &cf_topic_clock,
    &cf_topic_operation,
};

PyObject *cf_raise_errno(int negative_errno, const char *what) {
    errno = -negative_errno;
    return PyErr_SetFromErrnoWithFilename(PyExc_OSError, what);
}

static int module_exec(PyObject *module) {
    cf_tick_select();
    for (size_t i = 0; i < sizeof topics / sizeof topics[0]; i++) {
        if (topics[i]->methods && PyModule_AddFunctions(module, topics[i]->methods) < 0)
            return -1;
        if (topics[i]->add && topics[i]->add(module) < 0)
            return -1;
    }
    return 0;
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, __extension__(void *) module_exec},
#if PY_VERSION_HEX >= 0x030c0000
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#if PY_VERSION_HEX >= 0x030d0000 && !defined(Py_LIMITED_API)
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT,
    .m_name = "cfctl._native",
    .m_doc = "The C core: ticks, clocks, segments and operations.",
    .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit__native(void) {
    return PyModuleDef_Init(&module_def);
}
