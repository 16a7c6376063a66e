/* Counting Python's own allocations, and sharing what a process knows of its memory.
 *
 * Python's allocators are one set for the whole process, and so are the hooks and their counters:
 * the one state here that belongs to no module. The GIL guards it; a build without one has no
 * hooks. */
#include "binding.h"

#include <dlfcn.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>

#include "interpreter.h"
#include "process.h"
#include "tick.h"

#ifdef Py_LIMITED_API
/* Not part of the limited API, and unchanged since Python 3.5 (PEP 445): found by name. */
typedef struct {
    void *ctx;
    void *(*malloc)(void *ctx, size_t size);
    void *(*calloc)(void *ctx, size_t count, size_t size);
    void *(*realloc)(void *ctx, void *block, size_t size);
    void (*free)(void *ctx, void *block);
} PyMemAllocatorEx;
typedef int PyMemAllocatorDomain;
enum { PYMEM_DOMAIN_RAW, PYMEM_DOMAIN_MEM, PYMEM_DOMAIN_OBJ };
#endif

enum { DOMAINS = 2, LARGE = 512 };

struct tally {
    uint64_t allocations, reallocations, frees, requested_bytes, large_allocations, failures;
};

struct hook {
    PyMemAllocatorEx below;
    struct tally tally;
    bool installed; /* somewhere in the chain: it counts only while `windows` is not 0 */
};

static struct hook hooks[DOMAINS];
static uint64_t windows;

/* Guarded by the GIL; relaxed stores, as a reader of the counters may not hold it. */
static void count_allocation(struct hook *hook, size_t size, const void *block) {
    if (windows == 0)
        return;
    if (cf_unlikely(!block)) {
        cf_bump(&hook->tally.failures, 1);
        return;
    }
    cf_bump(&hook->tally.allocations, 1);
    cf_bump(&hook->tally.requested_bytes, size);
    if (size > LARGE)
        cf_bump(&hook->tally.large_allocations, 1);
}

static void *hook_malloc(void *ctx, size_t size) {
    struct hook *hook = ctx;
    void *block = hook->below.malloc(hook->below.ctx, size);
    count_allocation(hook, size, block);
    return block;
}

static void *hook_calloc(void *ctx, size_t count, size_t size) {
    struct hook *hook = ctx;
    void *block = hook->below.calloc(hook->below.ctx, count, size);
    count_allocation(hook, count * size, block); /* no overflow where there is a block */
    return block;
}

static void *hook_realloc(void *ctx, void *old, size_t size) {
    struct hook *hook = ctx;
    void *block = hook->below.realloc(hook->below.ctx, old, size);
    if (!old) {
        count_allocation(hook, size, block);
    } else if (windows != 0 && !block) {
        cf_bump(&hook->tally.failures, 1);
    } else if (windows != 0) {
        cf_bump(&hook->tally.reallocations, 1);
        cf_bump(&hook->tally.requested_bytes, size);
    }
    return block;
}

static void hook_free(void *ctx, void *block) {
    struct hook *hook = ctx;
    if (windows != 0 && block)
        cf_bump(&hook->tally.frees, 1);
    hook->below.free(hook->below.ctx, block);
}

struct allocators {
    void (*get)(PyMemAllocatorDomain domain, PyMemAllocatorEx *allocator);
    void (*set)(PyMemAllocatorDomain domain, PyMemAllocatorEx *allocator);
};

/* Finds Python's functions; false when this build has none that can be used. */
static bool find_allocators(struct allocators *found) {
#if defined(Py_GIL_DISABLED)
    (void)found;
    return false;
#elif defined(Py_LIMITED_API)
    void *get = dlsym(RTLD_DEFAULT, "PyMem_GetAllocator");
    void *set = dlsym(RTLD_DEFAULT, "PyMem_SetAllocator");
    memcpy(&found->get, &get, sizeof get);
    memcpy(&found->set, &set, sizeof set);
    return get && set;
#else
    *found = (struct allocators){PyMem_GetAllocator, PyMem_SetAllocator};
    return true;
#endif
}

static const PyMemAllocatorDomain domains[DOMAINS] = {PYMEM_DOMAIN_MEM, PYMEM_DOMAIN_OBJ};

static void install(const struct allocators *python) {
    for (int i = 0; i < DOMAINS; i++) {
        struct hook *hook = &hooks[i];
        if (hook->installed)
            continue;
        PyMemAllocatorEx own = {hook, hook_malloc, hook_calloc, hook_realloc, hook_free};
        python->get(domains[i], &hook->below);
        python->set(domains[i], &own);
        hook->installed = true;
    }
}

/* Removes the hooks. Another's hook that stands on top of one keeps it in the chain, where it only
 * hands calls on. */
static void uninstall(const struct allocators *python) {
    for (int i = 0; i < DOMAINS; i++) {
        PyMemAllocatorEx current;
        python->get(domains[i], &current);
        if (hooks[i].installed && current.ctx == &hooks[i]) {
            python->set(domains[i], &hooks[i].below);
            hooks[i].installed = false;
        }
    }
}

/* Whether both hooks are reached: somebody may have put back what was there before them, as
 * tracemalloc.stop() does. One that is not is taken for removed. */
static bool reached(void) {
    struct tally before[DOMAINS];
    for (int i = 0; i < DOMAINS; i++)
        before[i] = hooks[i].tally;
    PyMem_Free(PyMem_Malloc(1));
    PyObject_Free(PyObject_Malloc(1));
    bool all = true;
    for (int i = 0; i < DOMAINS; i++) {
        if (hooks[i].tally.frees == before[i].frees)
            all = hooks[i].installed = false;
        hooks[i].tally = before[i];
    }
    return all;
}

static PyObject *track_begin(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
    struct allocators python;
    if (!find_allocators(&python)) {
        PyErr_SetString(PyExc_NotImplementedError, "this Python's allocators can not be hooked");
        return NULL;
    }
    windows++;
    if (!reached())
        install(&python);
    Py_RETURN_NONE;
}

static PyObject *track_end(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
    struct allocators python;
    if (windows == 0 || !find_allocators(&python)) {
        PyErr_SetString(PyExc_RuntimeError, "nothing is tracked");
        return NULL;
    }
    bool whole = reached();
    if (--windows == 0)
        uninstall(&python);
    return PyBool_FromLong(whole);
}

/* Returns a snapshot, read before anything is made for it. */
static PyObject *track_counts(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
    struct tally mem = hooks[0].tally, obj = hooks[1].tally;
#define BOTH(member) (unsigned long long)(mem.member + obj.member)
    return Py_BuildValue("(KKKKKK)", BOTH(allocations), BOTH(reallocations), BOTH(frees),
                         BOTH(requested_bytes), BOTH(large_allocations), BOTH(failures));
#undef BOTH
}

static PyObject *track_record(PyObject *module, PyObject *args) {
    (void)module;
    const char *name;
    Py_ssize_t bytes;
    unsigned long long duration_ns, values[6];
    if (!PyArg_ParseTuple(args, "s#K(KKKKKK):track_record", &name, &bytes, &duration_ns, &values[0],
                          &values[1], &values[2], &values[3], &values[4], &values[5]))
        return NULL;
    if (bytes == 0 || bytes > CF_NAME_BYTES || memchr(name, '\0', (size_t)bytes)) {
        PyErr_SetString(PyExc_ValueError, "a name is 1 to 1024 bytes without a NUL character");
        return NULL;
    }
    int64_t id = cf_process_instrument(&cf_kind_pymalloc, name, (uint32_t)bytes, NULL, 0);
    if (id < 0)
        return PyErr_NoMemory();
    struct cf_pymalloc *shard = cf_process_payload(&cf_thread, (uint32_t)id);
    if (!shard) {
        cf_process_lost(1);
        Py_RETURN_FALSE;
    }
    cf_bump(&shard->windows, 1);
    cf_bump(&shard->duration_ns, duration_ns);
    cf_bump(&shard->allocations, values[0]);
    cf_bump(&shard->reallocations, values[1]);
    cf_bump(&shard->frees, values[2]);
    cf_bump(&shard->requested_bytes, values[3]);
    cf_bump(&shard->large_allocations, values[4]);
    cf_bump(&shard->failures, values[5]);
    Py_RETURN_TRUE;
}

/* Returns the interpreter's shard, NULL when it was refused, which is asked once per process. */
static struct cf_interpreter *facts_of(struct cf_module_state *state) {
    if (state->facts_asked_for != cf_process_generation + 1) {
        int64_t id = cf_process_instrument(&cf_kind_interpreter, "python", 6, NULL, 0);
        state->facts = id < 0 ? NULL : cf_process_claim_shard((uint32_t)id);
        state->facts_asked_for = id < 0 ? 0 : cf_process_generation + 1;
    }
    return state->facts ? cf_shard_payload(state->facts) : NULL;
}

static void store_heap(struct cf_interpreter *facts) {
    struct cf_heap heap;
    if (cf_heap_read(&heap) != 0)
        return;
    cf_store_relaxed(&facts->heap_in_use_bytes, heap.in_use_bytes);
    cf_store_relaxed(&facts->heap_free_bytes, heap.free_bytes);
    cf_store_relaxed(&facts->heap_mapped_bytes, heap.mapped_bytes);
    cf_store_relaxed(&facts->heap_trimmable_bytes, heap.trimmable_bytes);
    cf_store_relaxed(&facts->heap_known, UINT64_C(1));
}

static PyObject *interpreter_collection(PyObject *module, PyObject *args) {
    int is_full;
    unsigned long long collected, uncollectable, pause_ns;
    if (!PyArg_ParseTuple(args, "pKKK:interpreter_collection", &is_full, &collected, &uncollectable,
                          &pause_ns))
        return NULL;
    struct cf_interpreter *facts = facts_of(PyModule_GetState(module));
    if (!facts)
        Py_RETURN_FALSE;
    cf_bump(is_full ? &facts->full_collections : &facts->young_collections, 1);
    cf_bump(&facts->collected, collected);
    cf_bump(&facts->uncollectable, uncollectable);
    cf_bump(&facts->pause_ns, pause_ns);
    if (pause_ns > cf_load_relaxed(&facts->longest_pause_ns))
        cf_store_relaxed(&facts->longest_pause_ns, (uint64_t)pause_ns);
    Py_RETURN_TRUE;
}

static PyObject *interpreter_facts(PyObject *module, PyObject *args) {
    int gc_enabled;
    unsigned long long frozen, blocks;
    if (!PyArg_ParseTuple(args, "pKK:interpreter_facts", &gc_enabled, &frozen, &blocks))
        return NULL;
    struct cf_interpreter *facts = facts_of(PyModule_GetState(module));
    if (!facts)
        Py_RETURN_FALSE;
    cf_store_relaxed(&facts->gc_enabled, (uint64_t)gc_enabled);
    cf_store_relaxed(&facts->frozen, (uint64_t)frozen);
    cf_store_relaxed(&facts->blocks, (uint64_t)blocks);
    store_heap(facts);
    cf_store_relaxed(&facts->updated_unix_ns, cf_os_ns(CLOCK_REALTIME));
    Py_RETURN_TRUE;
}

static PyObject *heap_read(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
    struct cf_heap heap;
    if (cf_heap_read(&heap) != 0)
        Py_RETURN_NONE;
    return Py_BuildValue("(KKKK)", (unsigned long long)heap.in_use_bytes,
                         (unsigned long long)heap.free_bytes, (unsigned long long)heap.mapped_bytes,
                         (unsigned long long)heap.trimmable_bytes);
}

/* Does to each object what the collector does to garbage it does not keep (delete_garbage). */
static PyObject *clear_garbage(PyObject *module, PyObject *list) {
    (void)module;
    if (!PyList_Check(list)) {
        PyErr_SetString(PyExc_TypeError, "a list is needed");
        return NULL;
    }
    for (Py_ssize_t i = 0; i < PyList_Size(list); i++) {
        PyObject *object = Py_NewRef(PyList_GetItem(list, i));
        inquiry clear = (inquiry)PyType_GetSlot(Py_TYPE(object), Py_tp_clear);
        if (clear && clear(object) < 0)
            PyErr_WriteUnraisable(object);
        Py_DECREF(object);
    }
    Py_RETURN_NONE;
}

static PyMethodDef track_methods[] = {
    {"track_begin", track_begin, METH_NOARGS, "Count Python's allocations from now on."},
    {"track_end", track_end, METH_NOARGS, "End one track_begin; whether all was counted."},
    {"track_counts", track_counts, METH_NOARGS, "Return the counters of all tracking so far."},
    {"track_record", track_record, METH_VARARGS, "Add a window to the segment."},
    {"interpreter_collection", interpreter_collection, METH_VARARGS, "Add a collection."},
    {"interpreter_facts", interpreter_facts, METH_VARARGS, "Share the facts of this moment."},
    {"clear_garbage", clear_garbage, METH_O, "Break the cycles of objects that are garbage."},
    {"heap_read", heap_read, METH_NOARGS, "Return the heap of malloc, None when it is not told."},
    {NULL, NULL, 0, NULL},
};

const struct cf_binding_topic cf_topic_track = {track_methods, NULL};
