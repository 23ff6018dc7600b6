/* For valgrind only: lets other threads run while one waits for io_uring.
 *
 * Valgrind runs one thread at a time, and lets go of its lock for system calls that may wait. Of io_uring_enter it does
 * not know that (seen with 3.19), so all other threads stand still until a completion comes, and the one that would
 * cause it may be among them. Here, waiting is done by poll, which it knows; io_uring_enter only submits and collects.
 */
#include <dlfcn.h>
#include <poll.h>
#include <stdarg.h>
#include <sys/syscall.h>

#define GETEVENTS 1L

typedef long (*syscall_fn)(long, ...);

long syscall(long number, ...) {
  static syscall_fn next;
  if (!next) *(void **)&next = dlsym(RTLD_NEXT, "syscall");
  va_list args;
  long a[6];
  va_start(args, number);
  for (int i = 0; i < 6; i++) a[i] = va_arg(args, long);
  va_end(args);
  if (number != SYS_io_uring_enter || a[2] == 0) return next(number, a[0], a[1], a[2], a[3], a[4], a[5]);
  long submitted = next(number, a[0], a[1], 0L, a[3] & ~GETEVENTS, a[4], a[5]);
  if (submitted < 0) return submitted;
  struct pollfd ring = {.fd = (int)a[0], .events = POLLIN};
  if (poll(&ring, 1, -1) < 0) return submitted;
  long collected = next(number, a[0], 0L, 0L, a[3] | GETEVENTS, a[4], a[5]);
  return collected < 0 ? collected : submitted;
}
