/* The bundle's bin/python3: starts the interpreter by the bundle's own loader, with the bundle's own libraries.
 *
 * A static program without a libc, so that it needs nothing of the image, not even /proc. Why it is there: the kernel
 * would start a dynamic interpreter with the user's LD_PRELOAD, LD_LIBRARY_PATH and LD_AUDIT, which are made for the
 * image's libc and not for the bundle's. Their first byte is changed for the time of the start; the shim's scripts set
 * it back, so that the phase sees what it was given (shim/tools/install.py).
 *
 * It finds the bundle by argv[0], which the kernel takes from the #! line.
 *
 * Built by packaging/start.sh into shim/tools/start/.
 */
#if defined(__x86_64__)
__asm__(".globl _start\n_start:\n mov %rsp, %rdi\n and $-16, %rsp\n call begin\n");
enum { WRITE = 1, EXECVE = 59, EXIT = 60 };
static long call(long number, long a, long b, long c) {
  long result;
  __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
  return result;
}
#elif defined(__aarch64__)
__asm__(".globl _start\n_start:\n mov x0, sp\n bl begin\n");
enum { WRITE = 64, EXECVE = 221, EXIT = 93 };
static long call(long number, long a, long b, long c) {
  register long x8 __asm__("x8") = number, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c;
  __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
  return x0;
}
#else
#error "no start for this architecture yet"
#endif

enum { ROOM = 4096 };

static void join(char *to, const char *directory, long length, const char *name) {
  while (length--) *to++ = *directory++;
  while ((*to++ = *name++)) {}
}

__attribute__((noreturn, used)) void begin(long *stack) {
  long count = stack[0], end = 0, slashes = 0;
  char **given = (char **)(stack + 1), **environment = given + count + 1;
  char loader[ROOM], library[ROOM], interpreter[ROOM];
  static const char problem[] = "analyzed-shim: ERROR: the bundle's interpreter can't be started; install it again\n";

  for (char **variable = environment; *variable; variable++) {
    char *text = *variable;
    if (text[0] == 'L' && text[1] == 'D' && text[2] == '_') text[0] = '\1';
  }
  if (count > 0) {
    const char *self = given[0];
    while (self[end]) end++;
    while (end > 0 && slashes < 2) slashes += self[--end] == '/'; /* DIRECTORY/bin/python3 */
  }
  if (slashes == 2 && end < ROOM - 64) {
    char *call_it[count + 4];
    join(loader, given[0], end, "/lib/ld.so");
    join(library, given[0], end, "/lib");
    join(interpreter, given[0], end, "/lib/python");
    call_it[0] = loader;
    call_it[1] = "--library-path";
    call_it[2] = library;
    call_it[3] = interpreter;
    for (long at = 1; at <= count; at++) call_it[at + 3] = given[at]; /* with the NULL at its end */
    call(EXECVE, (long)loader, (long)call_it, (long)environment);
  }
  call(WRITE, 2, (long)problem, sizeof problem - 1);
  for (;;) call(EXIT, 127, 0, 0);
}
