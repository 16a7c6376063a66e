#include "pool_object.h"

struct lease_object {
    PyObject_HEAD struct cf_pool_object *pool;
    PyObject *item; /* NULL outside of the block */
};

PyObject *cf_pool_item_method(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    (void)args;
    if (count != 0) {
        PyErr_SetString(PyExc_TypeError, "item takes no arguments");
        return NULL;
    }
    struct cf_pool_object *self = (struct cf_pool_object *)object;
    struct lease_object *lease = PyObject_GC_New(struct lease_object, self->lease_type);
    if (!lease)
        return NULL;
    lease->pool = (struct cf_pool_object *)Py_NewRef(object);
    lease->item = NULL;
    PyObject_GC_Track((PyObject *)lease);
    return (PyObject *)lease;
}

static PyObject *lease_enter(PyObject *object, PyObject *unused) {
    (void)unused;
    struct lease_object *lease = (struct lease_object *)object;
    if (lease->item) {
        PyErr_SetString(PyExc_RuntimeError, "the block has begun: take a new item() for each");
        return NULL;
    }
    PyObject *item = cf_pool_acquire(lease->pool);
    if (item && lease->item) {
        /* The factory entered this very lease. */
        int released = cf_pool_release(lease->pool, item);
        Py_DECREF(item);
        if (released == 0)
            PyErr_SetString(PyExc_RuntimeError, "the block has begun in the factory");
        return NULL;
    }
    lease->item = item;
    return item ? Py_NewRef(item) : NULL;
}

static PyObject *lease_exit(PyObject *object, PyObject *const *args, Py_ssize_t count) {
    (void)args, (void)count;
    struct lease_object *lease = (struct lease_object *)object;
    PyObject *item = lease->item;
    if (!item) {
        PyErr_SetString(PyExc_RuntimeError, "the block has not begun");
        return NULL;
    }
    lease->item = NULL;
    int released = cf_pool_release(lease->pool, item);
    Py_DECREF(item);
    if (released < 0)
        return NULL;
    Py_RETURN_NONE;
}

static int lease_traverse(PyObject *object, visitproc visit, void *arg) {
    struct lease_object *lease = (struct lease_object *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT((PyObject *)lease->pool);
    Py_VISIT(lease->item);
    return 0;
}

static int lease_clear(PyObject *object) {
    Py_CLEAR(((struct lease_object *)object)->item);
    return 0;
}

static void lease_dealloc(PyObject *object) {
    struct lease_object *lease = (struct lease_object *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    lease_clear(object);
    Py_DECREF((PyObject *)lease->pool);
    PyObject_GC_Del(object);
    Py_DECREF(type);
}

static PyMethodDef lease_methods[] = {
    {"__enter__", lease_enter, METH_NOARGS, "Acquire."},
    {"__exit__", CF_FASTCALL(lease_exit), METH_FASTCALL, "Release."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot lease_slots[] = {
    {Py_tp_dealloc, (void *)lease_dealloc},
    {Py_tp_traverse, (void *)lease_traverse},
    {Py_tp_clear, (void *)lease_clear},
    {Py_tp_methods, lease_methods},
    {Py_tp_doc, (void *)"One block's use of an item; made by Pool.item."},
    {0, NULL},
};

PyType_Spec cf_lease_spec = {
    .name = "cfctl._native.Lease",
    .basicsize = sizeof(struct lease_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = lease_slots,
};
