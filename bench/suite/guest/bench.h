/* What the guest's programs share: `program KERNEL COUNT` runs one kernel and prints what it computed. */
#pragma once
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct kernel {
  const char *name;
  /* Runs `count` rounds; the result is the same on every machine. */
  uint64_t (*run)(uint64_t count);
};

/* Marsaglia's xorshift64: the same numbers everywhere. */
static inline uint64_t next_random(uint64_t *state) {
  *state ^= *state << 13;
  *state ^= *state >> 7;
  *state ^= *state << 17;
  return *state;
}

/* Ends the program: a measurement that did not do its work is none. */
static inline void need(int holds, const char *what) {
  if (holds) return;
  perror(what);
  exit(1);
}

static inline int run_kernel(const struct kernel *kernels, int argc, char **argv) {
  for (; argc == 3 && kernels->name != NULL; kernels++) {
    if (strcmp(kernels->name, argv[1]) != 0) continue;
    printf("%s %016llx\n", argv[1], (unsigned long long)kernels->run(strtoull(argv[2], NULL, 0)));
    return 0;
  }
  fprintf(stderr, "usage: %s KERNEL COUNT\n", argv[0]);
  return 2;
}
