/* Several CPUs: timers on each, wake-ups and interrupts from one to another. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"

enum { MAX_CPUS = 8 };

struct worker {
  uint64_t count;
  int cpu;
  pthread_t thread;
};

static int cpus;
static atomic_bool over;
/* Whose turn it is: each CPU waits for its own. */
static struct {
  _Alignas(64) atomic_uint token;
} turns[MAX_CPUS];

static void pin(int cpu) {
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(cpu, &one);
  need(sched_setaffinity(0, sizeof one, &one) == 0, "sched_setaffinity");
}

static void on_each_cpu(struct worker *workers, int first, uint64_t count, void *(*run)(void *)) {
  for (int i = first; i < cpus; i++) {
    workers[i] = (struct worker){.count = count, .cpu = i};
    need(pthread_create(&workers[i].thread, NULL, run, &workers[i]) == 0, "pthread_create");
  }
}

static void join(struct worker *workers, int first) {
  for (int i = first; i < cpus; i++) pthread_join(workers[i].thread, NULL);
}

static void *sleeper(void *arg) {
  const struct worker *worker = arg;
  pin(worker->cpu);
  struct timespec pause = {.tv_nsec = 20000};
  for (uint64_t i = 0; i < worker->count; i++) clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
  return NULL;
}

/* On each CPU `count` sleeps of 20 us: a timer set, an interrupt, a wake-up. */
static uint64_t timers(uint64_t count) {
  struct worker workers[MAX_CPUS];
  on_each_cpu(workers, 0, count, sleeper);
  join(workers, 0);
  return count * (uint64_t)cpus;
}

static void futex_wait(atomic_uint *word, unsigned value) {
  syscall(SYS_futex, word, 0 /* FUTEX_WAIT */, value, NULL, NULL, 0);
}

static void futex_wake(atomic_uint *word) { syscall(SYS_futex, word, 1 /* FUTEX_WAKE */, 1, NULL, NULL, 0); }

static void *passer(void *arg) {
  const struct worker *worker = arg;
  pin(worker->cpu);
  atomic_uint *mine = &turns[worker->cpu].token, *next = &turns[(worker->cpu + 1) % cpus].token;
  for (uint64_t i = 0; i < worker->count; i++) {
    unsigned now;
    while ((now = atomic_load(mine)) <= i) futex_wait(mine, now);
    atomic_fetch_add(next, 1);
    futex_wake(next);
  }
  return NULL;
}

/* A token that goes from CPU to CPU, `count` times round: each hop wakes an idle CPU. */
static uint64_t wakeups(uint64_t count) {
  struct worker workers[MAX_CPUS];
  atomic_store(&turns[0].token, 1);
  on_each_cpu(workers, 0, count, passer);
  join(workers, 0);
  uint64_t hops = 0;
  for (int i = 0; i < cpus; i++) hops += atomic_load(&turns[i].token);
  return hops - 1;
}

static void *spinner(void *arg) {
  const struct worker *worker = arg;
  pin(worker->cpu);
  while (!atomic_load_explicit(&over, memory_order_relaxed)) continue;
  return NULL;
}

/* Memory barriers on all CPUs that run this process, asked for `count` times: an IPI to each, answered. */
static uint64_t ipis(uint64_t count) {
  enum { REGISTER_PRIVATE_EXPEDITED = 16, PRIVATE_EXPEDITED = 8 };
  struct worker workers[MAX_CPUS];
  need(syscall(SYS_membarrier, REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0, "membarrier");
  pin(0);
  on_each_cpu(workers, 1, 0, spinner);
  for (uint64_t i = 0; i < count; i++) need(syscall(SYS_membarrier, PRIVATE_EXPEDITED, 0, 0) == 0, "membarrier");
  atomic_store(&over, 1);
  join(workers, 1);
  return count;
}

int main(int argc, char **argv) {
  static const struct kernel kernels[] = {{"timers", timers}, {"wakeups", wakeups}, {"ipis", ipis}, {0}};
  cpus = (int)sysconf(_SC_NPROCESSORS_ONLN);
  if (cpus > MAX_CPUS) cpus = MAX_CPUS;
  return run_kernel(kernels, argc, argv);
}
