/* SPDX-License-Identifier: Apache-2.0
 *
 * The server as one program: what `python -m app ARGS...` does, from frozen modules alone.
 *
 * M1. Nothing outside of this file decides what runs: no environment variable, no configuration
 *     file, no search path, no locale, no module from a file.
 * M2. All arguments are the server's: none is Python's.
 * M3. The handlers of signals are those which the server sets. SIGPIPE alone is ignored from the
 *     start, as Python does: a line to a console that is gone must not end the server.
 * M4. What the server says stands complete on the console: Python writes standard error line by
 *     line, and standard output, which holds nothing but a help text, at the end.
 *
 * Knows nothing of the server, nor of whether Linux is beneath or our kernel.
 * Change with: freeze.py, which makes the tables. */

#include <Python.h>
#include <signal.h>

#define MODULE L"app"
#define PROGRAM L"/python"

extern const struct _frozen image_frozen[];

static void check(PyStatus status)
{
    if (PyStatus_Exception(status))
        Py_ExitStatusException(status);
}

static void set(PyConfig *config, wchar_t **field, const wchar_t *value)
{
    check(PyConfig_SetString(config, field, value));
}

/* Say every path, or Python would go and look for it. */
static void set_paths(PyConfig *config)
{
    set(config, &config->program_name, PROGRAM);
    set(config, &config->executable, PROGRAM);
    set(config, &config->base_executable, PROGRAM);
    set(config, &config->home, L"/");
    set(config, &config->prefix, L"/");
    set(config, &config->base_prefix, L"/");
    set(config, &config->exec_prefix, L"/");
    set(config, &config->base_exec_prefix, L"/");
    set(config, &config->platlibdir, L"lib");
    config->module_search_paths_set = 1; /* and none is in it */
    config->pathconfig_warnings = 0;
}

int main(int argc, char **argv)
{
    PyPreConfig before;
    PyConfig config;

    signal(SIGPIPE, SIG_IGN);

    PyPreConfig_InitIsolatedConfig(&before);
    before.utf8_mode = 1;
    before.configure_locale = 0;
    before.coerce_c_locale = 0;
    check(Py_PreInitialize(&before));

    PyImport_FrozenModules = image_frozen;
    PyConfig_InitIsolatedConfig(&config);
    set_paths(&config);
    config.parse_argv = 0;
    config.site_import = 0;
    config.write_bytecode = 0;
    config.use_frozen_modules = 1;
    config.install_signal_handlers = 0;
    config.optimization_level = 0; /* asserts stay on */
    config.use_hash_seed = 0;      /* random, from getrandom() */
    check(PyConfig_SetBytesArgv(&config, argc, argv));
    set(&config, &config.run_module, MODULE);
    check(Py_InitializeFromConfig(&config));
    PyConfig_Clear(&config);
    return Py_RunMain();
}
