/* The bundle's bin/python3: starts the interpreter by the bundle's own loader, with the bundle's own libraries.
 *
 * A static program without a libc, so that it needs nothing of the image. It does what has to be done before a loader:
 *
 * The kernel would start a dynamic interpreter with the user's LD_PRELOAD, LD_LIBRARY_PATH and LD_AUDIT, which are made
 * for the image's libc and not for the bundle's. Their first byte is changed for the time of the start; the shim's
 * scripts set it back, so that the phase sees what it was given (shim/tools/install.py).
 *
 * pack packs the lifecycle's layer in every build, so the interpreter and the libraries that it always loads lie
 * compressed in lib/packed. They are unpacked into memory files, which the loader is told of as /proc/self/fd/N, and
 * the interpreter as -Xmemory, for the scripts to close. A bundle without lib/packed has them as files. Where no memory
 * file can be had, a drop-in's phase is run as it was called: no build fails of it.
 *
 * The bundle is found by argv[0], which the kernel takes from the #! line.
 *
 * lib/packed is made by shim/tools/pack.py: the interpreter first, each file as its size, and for each 256 KiB of it the
 * packed size and an LZ4 block (https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md); sizes have 32 bits.
 *
 * Built by packaging/start.sh into shim/tools/start/.
 */
typedef unsigned char byte;
typedef struct __attribute__((packed, may_alias)) { long half[2]; } chunk;
typedef struct __attribute__((packed, may_alias)) { unsigned int bytes; } size;

#if defined(__x86_64__)
__asm__(".globl _start\n_start:\n mov %rsp, %rdi\n and $-16, %rsp\n call begin\n");
enum { WRITE = 1, CLOSE = 3, LSEEK = 8, MMAP = 9, EXECVE = 59, EXIT = 60, FTRUNCATE = 77 };
enum { OPENAT = 257, PRLIMIT = 302, MEMFD_CREATE = 319, DIRECTORY = 0x10000 };
static long call(long number, long a, long b, long c, long d, long e, long f) {
  long result;
  register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
  __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                   : "rcx", "r11", "memory");
  return result;
}
#elif defined(__aarch64__)
__asm__(".globl _start\n_start:\n mov x0, sp\n bl begin\n");
enum { FTRUNCATE = 46, OPENAT = 56, CLOSE = 57, LSEEK = 62, WRITE = 64, EXIT = 93, EXECVE = 221, MMAP = 222 };
enum { PRLIMIT = 261, MEMFD_CREATE = 279, DIRECTORY = 0x4000 };
static long call(long number, long a, long b, long c, long d, long e, long f) {
  register long x8 __asm__("x8") = number, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c;
  register long x3 __asm__("x3") = d, x4 __asm__("x4") = e, x5 __asm__("x5") = f;
  __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
  return x0;
}
#else
#error "no start for this architecture yet"
#endif

enum { ROOM = 4096, FILES = 16, DIGITS = 20, BLOCK = 1 << 18 };
enum { READ_ONLY = 0, READ_WRITE = 2, CLOSED_ON_EXEC = 02000000, PATH_ONLY = 010000000, UNNAMED = 020000000 | DIRECTORY };
enum { TO_READ = 1, TO_EXECUTE = 4, PRIVATE = 2, POPULATED = 0x8000 };
enum { NOT_THERE = -2, HERE = -100, TO_END = 2, FILE_SIZE = 1, NOT_EXECUTABLE = 8 };

static char *add(char *to, const char *text) {
  while (*text) *to++ = *text++;
  *to = 0;
  return to;
}

static char *add_number(char *to, long number) {
  char digits[DIGITS + 1], *at = digits + DIGITS;
  *at = 0;
  do *--at = (char)('0' + number % 10);
  while (number /= 10);
  return add(to, at);
}

static char *add_descriptor(char *to, long descriptor) { return add_number(add(to, "/proc/self/fd/"), descriptor); }

static long open(const char *path, long flags) { return call(OPENAT, HERE, (long)path, flags, 0600, 0, 0); }

static void close(long descriptor) { call(CLOSE, descriptor, 0, 0, 0, 0, 0); }

static byte *map(long descriptor, long size, long rights, long kind) {
  long at = call(MMAP, 0, size, rights, kind, descriptor, 0);
  return at < 0 && at > -ROOM ? 0 : (byte *)at;
}

/* Copies what may overlap, as a match that repeats itself does; room is what may be read and written. */
static void copy(byte *to, const byte *from, long length, long room) {
  if ((unsigned long)to - (unsigned long)from >= sizeof(chunk))
    for (; length > 0 && room >= (long)sizeof(chunk); length -= sizeof(chunk), room -= sizeof(chunk)) {
      *(chunk *)to = *(const chunk *)from;
      to += sizeof(chunk), from += sizeof(chunk);
    }
  while (length-- > 0) *to++ = *from++;
}

/* Returns a length that begins with four bits and may go on in bytes. */
static long length_of(long length, const byte **from, const byte *end) {
  if (length == 15)
    while (*from < end) {
      length += **from;
      if (*(*from)++ != 255) break;
    }
  return length;
}

/* Unpacks an LZ4 block, and says whether it was one of that size. */
static int unpack(const byte *from, const byte *end, byte *to, long size) {
  byte *first = to, *last = to + size;
  while (from < end) {
    long token = *from++, length = length_of(token >> 4, &from, end);
    if (length > end - from || length > last - to) return 0;
    copy(to, from, length, last - to < end - from ? last - to : end - from);
    to += length, from += length;
    if (from == end) return to == last; /* a block ends with literals */
    if (end - from < 2) return 0;
    long back = from[0] | from[1] << 8;
    from += 2;
    length = length_of(token & 15, &from, end) + 4;
    if (back == 0 || back > to - first || length > last - to) return 0;
    copy(to, to - back, length, last - to);
    to += length;
  }
  return 0;
}

/* Says whether the loader can load what a descriptor has: by its path, and to execute it. */
static int loads(long descriptor) {
  char path[ROOM];
  add_descriptor(path, descriptor);
  long opened = open(path, READ_ONLY | CLOSED_ON_EXEC);
  byte *at = opened < 0 ? 0 : map(opened, 1, TO_READ | TO_EXECUTE, PRIVATE);
  if (opened >= 0) close(opened);
  return at != 0;
}

/* Returns the descriptor of a new file without a name, from which the loader can load; -1 if there can't be one. */
static long unnamed(long size) {
  unsigned long limit[2];
  if (call(PRLIMIT, 0, FILE_SIZE, 0, (long)limit, 0, 0) == 0 && limit[0] < (unsigned long)size) return -1;
  for (int way = 0; way < 3; way++) { /* the first is for Linux 6.3 and later, the last where no memory file may be loaded */
    long made = way == 2 ? open("/tmp", READ_WRITE | UNNAMED)
                         : call(MEMFD_CREATE, (long)"analyzed-shim", way ? 0 : NOT_EXECUTABLE, 0, 0, 0, 0);
    if (made < 0) continue;
    if (call(FTRUNCATE, made, size, 0, 0, 0, 0) == 0 && loads(made)) return made;
    close(made);
  }
  return -1;
}

/* Takes a size off what is left, and returns it; -1 if that has none. */
static long take_size(const byte **from, const byte *end) {
  if (end - *from < (long)sizeof(size)) return -1;
  *from += sizeof(size);
  return ((const size *)*from)[-1].bytes;
}

/* Unpacks the files of lib/packed, and says whether all of them could be. */
static int unpack_all(long packed, long *descriptors, int *count) {
  static byte block[BLOCK];
  long length = call(LSEEK, packed, 0, TO_END, 0, 0, 0);
  const byte *from = length > 0 ? map(packed, length, TO_READ, PRIVATE | POPULATED) : 0, *end = from + length;
  while (from && from < end && *count < FILES) {
    long left = take_size(&from, end), made = left < 0 ? -1 : unnamed(left);
    if (made < 0) return 0;
    for (descriptors[(*count)++] = made; left > 0; left -= BLOCK) {
      long here = left < BLOCK ? left : BLOCK, bytes = take_size(&from, end);
      if (bytes < 0 || bytes > end - from || !unpack(from, from + bytes, block, here)) return 0;
      if (call(WRITE, made, (long)block, here, 0, 0, 0) != here) return 0;
      from += bytes;
    }
  }
  return from && from == end;
}

/* Starts the interpreter; returns if it can't. */
static void start(const char *bundle, char **given, long count, char **environment) {
  char loader[ROOM], library[ROOM], interpreter[ROOM], packed[ROOM], program[ROOM], preload[ROOM], memory[ROOM];
  char *command[count + 10], **next = command, *loaded = add(preload, ""), *numbers = add(memory, "-Xmemory=");
  long descriptors[FILES];
  int files = 0;
  add(add(loader, bundle), "/lib/ld.so");
  add(add(library, bundle), "/lib");
  add(add(interpreter, bundle), "/lib/python");
  add(add(packed, bundle), "/lib/packed");
  *next++ = loader, *next++ = "--library-path", *next++ = library;
  long opened = open(packed, READ_ONLY | CLOSED_ON_EXEC);
  int complete = opened == NOT_THERE || (opened >= 0 && unpack_all(opened, descriptors, &files));
  if (complete && files) {
    add_descriptor(program, descriptors[0]);
    numbers = add_number(numbers, descriptors[0]);
    for (int file = 1; file < files; file++) {
      loaded = add_descriptor(add(loaded, file > 1 ? ":" : ""), descriptors[file]);
      numbers = add_number(add(numbers, ","), descriptors[file]);
    }
    *next++ = "--argv0", *next++ = interpreter, *next++ = "--preload", *next++ = preload, *next++ = program;
    *next++ = memory;
  } else {
    *next++ = interpreter;
  }
  for (long at = 1; at <= count; at++) *next++ = given[at]; /* with the NULL at its end */
  if (complete) call(EXECVE, (long)loader, (long)command, (long)environment, 0, 0, 0);
  while (files) close(descriptors[--files]);
}

/* Changes how the names of the loader's variables begin. */
static void rename(char **environment, char from, char to) {
  for (; *environment; environment++) {
    char *text = *environment;
    if (text[0] == from && text[1] == 'D' && text[2] == '_') text[0] = to;
  }
}

static void say(const char *text) {
  long length = 0;
  while (text[length]) length++;
  call(WRITE, 2, (long)text, length, 0, 0, 0);
}

__attribute__((noreturn, used)) void begin(long *stack) {
  long count = stack[0], end = 0, slashes = 0;
  char **given = (char **)(stack + 1), **environment = given + count + 1, path[ROOM];

  if (count > 0) {
    while (given[0][end]) end++;
    while (end > 0 && slashes < 2) slashes += given[0][--end] == '/'; /* DIRECTORY/bin/python3 */
  }
  if (slashes == 2 && end < ROOM - 64) {
    for (long at = 0; at < end; at++) path[at] = given[0][at];
    path[end] = 0;
    rename(environment, 'L', '\1');
    start(path, given, count, environment);
    rename(environment, '\1', 'L');
  }
  long length = 0;
  while (count > 2 && given[2][length]) length++;
  if (length > 0 && length < ROOM - 64) { /* python3 -ISXutf8 PHASE */
    add(add(path, given[2]), ".real");
    long real = open(path, PATH_ONLY | CLOSED_ON_EXEC);
    if (real >= 0) {
      say("analyzed-shim: WARNING: the bundle's interpreter can't be started here; it needs /proc and memory files;"
          " running the phase as called [passed-through]\n");
      given[2] = path;
      call(EXECVE, (long)path, (long)(given + 2), (long)environment, 0, 0, 0);
    }
  }
  say("analyzed-shim: ERROR: the bundle's interpreter can't be started; it needs /proc and memory files, or has to be"
      " installed again\n");
  for (;;) call(EXIT, 127, 0, 0, 0, 0, 0);
}
