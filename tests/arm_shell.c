/* Preloaded into a shell and what it starts, this makes an x86-64 machine look like a 64-bit ARM one: `uname` says aarch64,
 * /proc/cpuinfo is the file that ARM_CPUINFO names, and ARM programs are run by the qemu that ARM_QEMU names. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

static const char* given(const char* path) {
    const char* other = getenv("ARM_CPUINFO");
    return other && strcmp(path, "/proc/cpuinfo") == 0 ? other : path;
}

static int is_arm_program(const char* path) {
    unsigned char head[20];
    ssize_t n;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return 0;
    n = read(file, head, sizeof head);
    close(file);
    return n == (ssize_t)sizeof head && memcmp(head, "\177ELF", 4) == 0 && head[18] == 183 && head[19] == 0;
}

int execve(const char* path, char* const arguments[], char* const environment[]) {
    int (*real)(const char*, char* const[], char* const[]) = (int (*)(const char*, char* const[], char* const[]))dlsym(RTLD_NEXT, "execve");
    char* qemu = getenv("ARM_QEMU");
    char** all;
    size_t n = 0;
    if (!qemu || !is_arm_program(path)) return real(path, arguments, environment);
    while (arguments[n]) ++n;
    all = malloc((n + 4) * sizeof *all);
    if (!all) return -1;
    all[0] = qemu;
    all[1] = "-0";
    all[2] = arguments[0];
    all[3] = (char*)path;
    memcpy(all + 4, arguments + 1, n * sizeof *all);
    return real(qemu, all, environment);
}

int uname(struct utsname* out) {
    int (*real)(struct utsname*) = (int (*)(struct utsname*))dlsym(RTLD_NEXT, "uname");
    int status = real(out);
    if (status == 0) strcpy(out->machine, "aarch64");
    return status;
}

#define MODE(flags)                             \
    mode_t mode = 0;                            \
    if ((flags) & (O_CREAT | __O_TMPFILE)) {    \
        va_list rest;                           \
        va_start(rest, flags);                  \
        mode = (mode_t)va_arg(rest, int);       \
        va_end(rest);                           \
    }
#define OPEN(name)                                                                                          \
    int name(const char* path, int flags, ...) {                                                            \
        int (*real)(const char*, int, ...) = (int (*)(const char*, int, ...))dlsym(RTLD_NEXT, #name);       \
        MODE(flags)                                                                                         \
        return real(given(path), flags, mode);                                                              \
    }
#define OPEN_AT(name)                                                                                         \
    int name(int folder, const char* path, int flags, ...) {                                                  \
        int (*real)(int, const char*, int, ...) = (int (*)(int, const char*, int, ...))dlsym(RTLD_NEXT, #name); \
        MODE(flags)                                                                                           \
        return real(folder, given(path), flags, mode);                                                        \
    }
OPEN(open)
OPEN(open64)
OPEN_AT(openat)
OPEN_AT(openat64)
