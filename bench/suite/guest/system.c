/* The system: processes, pipes, system calls, page faults, mappings, switches between address spaces. */
#define _GNU_SOURCE
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"

static void reap(pid_t child) {
  int status;
  need(waitpid(child, &status, 0) == child && WIFEXITED(status), "waitpid");
  need(WEXITSTATUS(status) == 0, "the child");
}

static uint64_t fork_exec(uint64_t count) {
  for (uint64_t i = 0; i < count; i++) {
    pid_t child = fork();
    need(child >= 0, "fork");
    if (child == 0) {
      execl("/proc/self/exe", "system", "nothing", "0", NULL);
      _exit(1);
    }
    reap(child);
  }
  return count;
}

/* What fork_exec runs. */
static uint64_t nothing(uint64_t count) {
  (void)count;
  _exit(0);
}

static uint64_t ping_pong(uint64_t count) {
  int there[2], back[2];
  need(pipe(there) == 0 && pipe(back) == 0, "pipe");
  pid_t child = fork();
  need(child >= 0, "fork");
  uint64_t value = 0;
  if (child == 0) {
    close(there[1]);
    while (read(there[0], &value, sizeof value) == sizeof value) {
      value = value * 3 + 1;
      need(write(back[1], &value, sizeof value) == sizeof value, "write");
    }
    _exit(0);
  }
  for (uint64_t i = 0; i < count; i++) {
    need(write(there[1], &value, sizeof value) == sizeof value, "write");
    need(read(back[0], &value, sizeof value) == sizeof value, "read");
  }
  close(there[1]);
  reap(child);
  return value;
}

static uint64_t getpid_(uint64_t count) {
  long same = 0, pid = getpid();
  for (uint64_t i = 0; i < count; i++) same += syscall(SYS_getpid) == pid;
  return (uint64_t)same;
}

/* `count` pages touched for the first time, 4,096 to a mapping. */
static uint64_t faults(uint64_t count) {
  enum { PAGES = 4096 };
  uint64_t sum = 0;
  while (count > 0) {
    uint64_t pages = count < PAGES ? count : PAGES;
    uint8_t *memory = mmap(NULL, PAGES << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    need(memory != MAP_FAILED, "mmap");
    madvise(memory, PAGES << 12, MADV_NOHUGEPAGE);
    for (uint64_t i = 0; i < pages; i++) memory[i << 12] = (uint8_t)i;
    sum += memory[(pages - 1) << 12] + pages;
    munmap(memory, PAGES << 12);
    count -= pages;
  }
  return sum;
}

/* Mappings made, one page of each touched, and taken away. */
static uint64_t maps(uint64_t count) {
  uint64_t sum = 0;
  for (uint64_t i = 0; i < count; i++) {
    uint8_t *memory = mmap(NULL, 64 << 10, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    need(memory != MAP_FAILED, "mmap");
    memory[i % 16 << 12] = (uint8_t)i;
    sum += memory[i % 16 << 12];
    munmap(memory, 64 << 10);
  }
  return sum;
}

/* Four processes on one CPU that give way to each other, each with memory of its own to look at. */
static uint64_t switches(uint64_t count) {
  enum { PROCESSES = 4, WORDS = 8192 };
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(0, &one);
  need(sched_setaffinity(0, sizeof one, &one) == 0, "sched_setaffinity");
  pid_t children[PROCESSES];
  for (int p = 0; p < PROCESSES; p++) {
    children[p] = fork();
    need(children[p] >= 0, "fork");
    if (children[p] != 0) continue;
    static volatile uint64_t words[WORDS];
    for (uint64_t i = 0; i < count; i++) {
      words[i * 513 % WORDS] += i;
      sched_yield();
    }
    uint64_t sum = 0;
    for (int i = 0; i < WORDS; i++) sum += words[i];
    _exit(sum == count * (count - 1) / 2 ? 0 : 1);
  }
  for (int p = 0; p < PROCESSES; p++) reap(children[p]);
  return count * PROCESSES;
}

int main(int argc, char **argv) {
  static const struct kernel kernels[] = {{"fork-exec", fork_exec}, {"nothing", nothing}, {"ping-pong", ping_pong},
                                          {"getpid", getpid_},      {"faults", faults},   {"maps", maps},
                                          {"switches", switches},   {0}};
  return run_kernel(kernels, argc, argv);
}
