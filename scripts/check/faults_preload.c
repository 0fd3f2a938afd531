/* Disturbs a process by the functions of its C library (LD_PRELOAD), as its environment says:
 *   FAULT_FSYNC_SECONDS=0.2   each fsync takes so long
 *   FAULT_FSYNC_FAILS=3       every third fsync fails with EIO
 *   FAULT_CLOCK_SECONDS=86400 at each call, the time of day jumps by up to so many seconds into the future or past
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static double setting(const char *name) {
  const char *value = getenv(name);
  return value ? atof(value) : 0;
}

int fsync(int descriptor) {
  static atomic_int calls;
  static int (*next)(int);
  if (!next) next = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
  int fails = (int)setting("FAULT_FSYNC_FAILS");
  usleep((useconds_t)(setting("FAULT_FSYNC_SECONDS") * 1e6));
  if (fails && atomic_fetch_add(&calls, 1) % fails == fails - 1) {
    errno = EIO;
    return -1;
  }
  return next(descriptor);
}

int clock_gettime(clockid_t clock, struct timespec *time) {
  static atomic_uint calls;
  static int (*next)(clockid_t, struct timespec *);
  if (!next) next = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
  int result = next(clock, time);
  double most = setting("FAULT_CLOCK_SECONDS");
  if (most && clock == CLOCK_REALTIME) {
    unsigned number = atomic_fetch_add(&calls, 1) * 2654435761u;
    time->tv_sec += (time_t)(most * (number / 2147483648.0 - 1));
  }
  return result;
}
