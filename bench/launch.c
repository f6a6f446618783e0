// count MARKER COMMAND ARG...: runs a command until it prints MARKER, or to its end where MARKER is empty, and prints
// what the processor executed meanwhile: programs, the kernel with KVM, and guests. Events of the PMU (INST_RETIRED), of
// which QEMU with -icount tells each instruction once.
#define _GNU_SOURCE
#include <errno.h>
#include <linux/perf_event.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { INST_RETIRED = 8 };

static int counter(int programs, int kernel, int guests) {
  struct perf_event_attr attr = {
      .size = sizeof attr,
      .type = PERF_TYPE_RAW,
      .config = INST_RETIRED,
      .exclude_user = !programs && !guests,
      .exclude_kernel = !kernel && !guests,
      .exclude_hv = !kernel && !guests,
      .exclude_guest = !guests,
      .exclude_host = guests,
  };
  // Of the one processor that there is, whoever runs on it.
  int fd = (int)syscall(SYS_perf_event_open, &attr, -1, 0, -1, PERF_FLAG_FD_CLOEXEC);
  if (fd < 0) {
    perror("count: perf_event_open");
    exit(1);
  }
  return fd;
}

static uint64_t value(int fd) {
  uint64_t count = 0;
  if (read(fd, &count, sizeof count) != sizeof count) {
    perror("count: read");
    exit(1);
  }
  return count;
}

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  const char* marker = argv[1];
  int fds[] = {counter(1, 0, 0), counter(0, 1, 0), counter(0, 0, 1)};
  uint64_t before[3], after[3];
  int out[2];
  if (pipe(out) != 0) return 1;
  for (int i = 0; i < 3; i++) before[i] = value(fds[i]);
  pid_t child = fork();
  if (child == 0) {
    dup2(out[1], STDOUT_FILENO);
    close(out[0]);
    close(out[1]);
    execvp(argv[2], argv + 2);
    _exit(127);
  }
  close(out[1]);
  static char seen[1 << 20];
  size_t length = 0;
  int found = 0;
  while (!found && length < sizeof seen - 1) {
    ssize_t got = read(out[0], seen + length, sizeof seen - 1 - length);
    if (got <= 0) break;
    length += (size_t)got;
    seen[length] = 0;
    found = *marker != 0 && strstr(seen, marker) != NULL;
  }
  int status = 0;
  if (*marker == 0) waitpid(child, &status, 0);
  for (int i = 0; i < 3; i++) after[i] = value(fds[i]);
  if (*marker != 0) {
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    if (!found) {
      fprintf(stderr, "count: %s did not print the marker:\n%s\n", argv[2], seen);
      return 1;
    }
  } else if (status != 0) {
    return 1;
  }
  printf("count %llu %llu %llu\n", (unsigned long long)(after[0] - before[0]), (unsigned long long)(after[1] - before[1]),
         (unsigned long long)(after[2] - before[2]));
  return 0;
}
