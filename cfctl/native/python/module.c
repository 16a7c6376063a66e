/* The extension module: multi-phase init, no static mutable state, one table of topics. */
#include "binding.h"

#include <errno.h>

#include "tick.h"

static const struct cf_binding_topic *const topics[] = {
    &cf_topic_clock, &cf_topic_segment,        &cf_topic_operation,
    &cf_topic_span,  &cf_topic_timed_function, &cf_topic_monitor,
    &cf_topic_probe, &cf_topic_perf,           &cf_topic_sparse,
    &cf_topic_pool,  &cf_topic_track,          &cf_topic_hlc,
    &cf_topic_bus,   &cf_topic_outcome,        &cf_topic_histogram,
};

PyObject *cf_raise_errno(int negative_errno, const char *what) {
    errno = -negative_errno;
    return PyErr_SetFromErrnoWithFilename(PyExc_OSError, what);
}

PyObject *cf_raise_error(const char *name, const char *what, const char *why, const char *todo) {
    PyObject *module = PyImport_ImportModule("cfctl.errors");
    PyObject *type = module ? PyObject_GetAttrString(module, name) : NULL;
    PyObject *error = type ? PyObject_CallFunction(type, "sss", what, why, todo) : NULL;
    if (error)
        PyErr_SetObject(type, error);
    Py_XDECREF(error);
    Py_XDECREF(type);
    Py_XDECREF(module);
    return NULL;
}

struct cf_module_state *cf_type_state(PyTypeObject *type) {
    return PyType_GetModuleState(type);
}

PyTypeObject *cf_add_type(PyObject *module, PyType_Spec *spec) {
    PyObject *type = PyType_FromModuleAndSpec(module, spec, NULL);
    if (!type)
        return NULL;
    if (PyModule_AddType(module, (PyTypeObject *)type) < 0)
        Py_CLEAR(type);
    return (PyTypeObject *)type;
}

void cf_free_instance(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    PyObject_Free(self);
    Py_DECREF(type);
}

static int module_exec(PyObject *module) {
    cf_tick_select();
    struct cf_module_state *state = PyModule_GetState(module);
    PyObject *types = PyImport_ImportModule("types");
    if (!types)
        return -1;
    state->method_type = PyObject_GetAttrString(types, "MethodType");
    Py_DECREF(types);
    if (!state->method_type)
        return -1;
    for (size_t i = 0; i < sizeof topics / sizeof topics[0]; i++) {
        if (topics[i]->methods && PyModule_AddFunctions(module, topics[i]->methods) < 0)
            return -1;
        if (topics[i]->add && topics[i]->add(module) < 0)
            return -1;
    }
    return 0;
}

static int module_traverse(PyObject *module, visitproc visit, void *arg) {
    struct cf_module_state *state = PyModule_GetState(module);
    Py_VISIT(state->operation_type);
    Py_VISIT(state->span_type);
    Py_VISIT(state->lease_type);
    Py_VISIT(state->message_type);
    Py_VISIT(state->participant_type);
    Py_VISIT(state->view_type);
    Py_VISIT(state->loan_type);
    Py_VISIT(state->hlc_type);
    Py_VISIT(state->method_type);
    return 0;
}

static int module_clear(PyObject *module) {
    struct cf_module_state *state = PyModule_GetState(module);
    Py_CLEAR(state->operation_type);
    Py_CLEAR(state->span_type);
    Py_CLEAR(state->lease_type);
    Py_CLEAR(state->message_type);
    Py_CLEAR(state->participant_type);
    Py_CLEAR(state->view_type);
    Py_CLEAR(state->loan_type);
    Py_CLEAR(state->hlc_type);
    Py_CLEAR(state->method_type);
    return 0;
}

static void module_free(void *module) {
    module_clear(module);
}

/* No gate runs the core without the interpreter lock, or in a second interpreter: neither is
 * declared. */
static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, (void *)module_exec},
#if PY_VERSION_HEX >= 0x030c0000
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
#if PY_VERSION_HEX >= 0x030d0000 && !defined(Py_LIMITED_API)
    {Py_mod_gil, Py_MOD_GIL_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT,
    .m_name = "cfctl._native",
    .m_doc = "The C core: ticks, clocks, segments and operations.",
    .m_size = sizeof(struct cf_module_state),
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__native(void) {
    return PyModuleDef_Init(&module_def);
}
