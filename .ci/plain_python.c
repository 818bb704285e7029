/* Loaded into the launcher of a frozen application, which holds a whole interpreter: what begins is a plain "python"
   instead of the launcher's own main. */
#define _GNU_SOURCE
#include <dlfcn.h>

typedef int main_function(int, char **, char **);
typedef int start_function(main_function *, int, char **, void *, void *, void *, void *);

int Py_BytesMain(int, char **);

static int python_main(int argc, char **argv, char **environment)
{
    (void)environment;
    return Py_BytesMain(argc, argv);
}

int __libc_start_main(main_function *launcher, int argc, char **argv, void *init, void *fini, void *loader, void *stack)
{
    start_function *start = (start_function *)dlsym(RTLD_NEXT, "__libc_start_main");
    (void)launcher;
    return start(python_main, argc, argv, init, fini, loader, stack);
}
