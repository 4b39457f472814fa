/* SPDX-License-Identifier: Apache-2.0 */
/* main(): Python as the server needs it, from the root file system, and nothing else.
 *
 *   M1. Nothing outside decides what runs: no environment variable, configuration file or locale.
 *   M2. All words of the command line are the server's, behind Unikraft's own and `--`; start.py
 *       looks through them. The first one is the program's name to Unikraft, but Xen's tools put
 *       none there: one that begins as an option is one.
 *   M3. Python is never finalised, which can block here: start.py ends by _unikraft.exit(), and if
 *       it does not, that is a life's end.
 *   M4. There is no module `resource`: by that the server knows that the memory is all its own. */

#include <Python.h>

#include <string.h>

#include "module.h"
#include "tardigrade.h"

#define LIBRARY L"/lib/python"
#define SERVER L"/server"
#define START L"/start.py"

PyMODINIT_FUNC PyInit__drill(void);
PyMODINIT_FUNC PyInit_mmh3(void);
PyMODINIT_FUNC PyInit__cmsgpack(void);

static void check(PyStatus status)
{
    if (PyStatus_Exception(status))
        crash_end(NULL, "Python does not start: %s", status.err_msg ? status.err_msg : "?");
}

static void forget_module(const char *name)
{
    struct _inittab *to = PyImport_Inittab;
    for (struct _inittab *from = to; from->name; from++)
        if (strcmp(from->name, name))
            *to++ = *from;
    memset(to, 0, sizeof(*to));
}

static void set_modules(void)
{
    static struct _inittab ours[] = {
        {"_unikraft", PyInit__unikraft}, {"_drill", PyInit__drill}, {"mmh3", PyInit_mmh3},
        {"msgpack._cmsgpack", PyInit__cmsgpack}, {NULL, NULL},
    };
    forget_module("resource");
    if (PyImport_ExtendInittab(ours))
        crash_end(NULL, "Python has no memory for its table of modules");
}

static void set(PyConfig *config, wchar_t **field, const wchar_t *value)
{
    check(PyConfig_SetString(config, field, value));
}

static void set_paths(PyConfig *config)
{
    set(config, &config->program_name, L"/python");
    set(config, &config->executable, L"/python");
    set(config, &config->base_executable, L"/python");
    set(config, &config->home, L"/");
    set(config, &config->prefix, L"/");
    set(config, &config->base_prefix, L"/");
    set(config, &config->exec_prefix, L"/");
    set(config, &config->base_exec_prefix, L"/");
    config->module_search_paths_set = 1;
    check(PyWideStringList_Append(&config->module_search_paths, LIBRARY));
    check(PyWideStringList_Append(&config->module_search_paths, SERVER));
    config->pathconfig_warnings = 0;
}

static void start_python(int argc, char **argv)
{
    PyPreConfig before;
    PyPreConfig_InitIsolatedConfig(&before);
    before.utf8_mode = 1;
    before.configure_locale = 0;
    before.coerce_c_locale = 0;
    check(Py_PreInitialize(&before));
    set_modules();

    PyConfig config;
    PyConfig_InitIsolatedConfig(&config);
    set_paths(&config);
    config.parse_argv = 0;
    config.site_import = 0;
    config.write_bytecode = 0;
    config.install_signal_handlers = 0;
    config.optimization_level = 0; /* asserts stay on */
    config.use_hash_seed = 0;
    check(PyConfig_SetBytesArgv(&config, argc, argv));
    set(&config, &config.run_filename, START);
    check(Py_InitializeFromConfig(&config));
    PyConfig_Clear(&config);
}

int main(int argc, char **argv)
{
    static char *words[CONFIG_LIBUKBOOT_MAXNBARGS + 1] = {"tardigrade"};
    int count = 1;
    for (int index = argc && argv[0][0] == '-' ? 0 : 1; index < argc; index++)
        words[count++] = argv[index];
    machine_init();
    crash_begin();
    say("the region has %lu MiB at %p", (unsigned long)(place_note.size >> 20), place_note.address);
    start_python(count, words);
    crash_end(NULL, "Python has ended with code %d", Py_RunMain());
}
