/* KeptMethod: a method whose bound form each instance makes once and keeps.
 *
 * `with` looks its two methods up on the class and binds them each time, which makes and frees two
 * objects and is most of its cost: 104 ns with them and 58 without on CPython 3.11, 146 and 62 on
 * 3.12. */
#include "binding.h"

#include <structmember.h>

#include "atomic.h"

struct kept_method {
    PyObject_HEAD PyTypeObject *owner;
    PyMethodDef *definition;
    Py_ssize_t offset; /* of the PyObject * in the owner's instances, NULL = not made yet */
    const char *name;  /* this and the next: the definition's */
    const char *doc;
};

/* Returns the bound method of an instance of the owner. */
static PyObject *bound(struct kept_method *self, PyObject *instance) {
    PyObject **kept = (PyObject **)(void *)((char *)instance + self->offset);
    if (cf_unlikely(*kept == NULL))
        *kept = PyCFunction_NewEx(self->definition, instance, NULL);
    return Py_XNewRef(*kept);
}

static PyObject *kept_get(PyObject *object, PyObject *instance, PyObject *type) {
    struct kept_method *self = (struct kept_method *)object;
    (void)type;
    if (!instance || instance == Py_None)
        return Py_NewRef(object);
    if (!PyObject_TypeCheck(instance, self->owner))
        return PyErr_Format(PyExc_TypeError, "%s() needs an object of its own class", self->name);
    return bound(self, instance);
}

/* Called through the class, as contextlib.ExitStack does: the instance comes first. */
static PyObject *kept_call(PyObject *object, PyObject *args, PyObject *keywords) {
    struct kept_method *self = (struct kept_method *)object;
    PyObject *instance = PyTuple_Size(args) > 0 ? PyTuple_GetItem(args, 0) : NULL;
    if (!instance || !PyObject_TypeCheck(instance, self->owner))
        return PyErr_Format(PyExc_TypeError, "%s() needs an object of its own class", self->name);
    PyObject *method = bound(self, instance);
    PyObject *others = method ? PyTuple_GetSlice(args, 1, PyTuple_Size(args)) : NULL;
    PyObject *result = others ? PyObject_Call(method, others, keywords) : NULL;
    Py_XDECREF(others);
    Py_XDECREF(method);
    return result;
}

static int kept_traverse(PyObject *object, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(((struct kept_method *)object)->owner);
    return 0;
}

static int kept_clear(PyObject *object) {
    Py_CLEAR(((struct kept_method *)object)->owner);
    return 0;
}

static void kept_dealloc(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    kept_clear(object);
    PyObject_GC_Del(object);
    Py_DECREF(type);
}

static PyMemberDef kept_members[] = {
    {"__name__", T_STRING, offsetof(struct kept_method, name), READONLY, NULL},
    {"__doc__", T_STRING, offsetof(struct kept_method, doc), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot kept_slots[] = {
    {Py_tp_dealloc, (void *)kept_dealloc},
    {Py_tp_traverse, (void *)kept_traverse},
    {Py_tp_clear, (void *)kept_clear},
    {Py_tp_call, (void *)kept_call},
    {Py_tp_descr_get, (void *)kept_get},
    {Py_tp_members, kept_members},
    {0, NULL},
};

static PyType_Spec kept_spec = {
    .name = "cfctl._native.KeptMethod",
    .basicsize = sizeof(struct kept_method),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = kept_slots,
};

/* Sets one method of the owner. 0, or -1 with an exception. */
static int set_method(PyTypeObject *type, PyTypeObject *owner, PyMethodDef *definition,
                      Py_ssize_t offset) {
    struct kept_method *self = PyObject_GC_New(struct kept_method, type);
    if (!self)
        return -1;
    self->owner = (PyTypeObject *)Py_NewRef((PyObject *)owner);
    self->definition = definition;
    self->offset = offset;
    self->name = definition->ml_name;
    self->doc = definition->ml_doc;
    PyObject_GC_Track((PyObject *)self);
    int result = PyObject_SetAttrString((PyObject *)owner, definition->ml_name, (PyObject *)self);
    Py_DECREF((PyObject *)self);
    return result;
}

int cf_keep_methods(PyTypeObject *owner, PyMethodDef *definitions, Py_ssize_t first_offset) {
    PyTypeObject *type = (PyTypeObject *)PyType_FromSpec(&kept_spec);
    int result = type ? 0 : -1;
    for (Py_ssize_t i = 0; result == 0 && definitions[i].ml_name; i++)
        result = set_method(type, owner, &definitions[i],
                            first_offset + i * (Py_ssize_t)sizeof(PyObject *));
    Py_XDECREF((PyObject *)type);
    return result;
}
