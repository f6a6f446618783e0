/* Code that is written, run and discarded, as a JIT does for ever: no address and no word of it lasts. */
#define _GNU_SOURCE
#include <sys/mman.h>

#include "bench.h"

enum { PAGE = 4096, PAGES = 32, FUNCTION = 256, FUNCTIONS = PAGES * PAGE / FUNCTION, TURNS = 6000 };

/* A loop of `turns`: value = ror((value ^ turns) + add, by). */
struct function {
  uint32_t start, add, by;
};

static void write_function(uint32_t *code, const struct function *f) {
  const uint32_t words[] = {
      0xd2800001 | f->start << 5,             /* movz x1, #start */
      0xca000021,                             /* loop: eor x1, x1, x0 */
      0x91000021 | f->add << 10,              /* add x1, x1, #add */
      0x93c10021 | f->by << 10,               /* ror x1, x1, #by */
      0xf1000400,                             /* subs x0, x0, #1 */
      0x54000001 | (0x7ffff & -4u) << 5,      /* b.ne loop */
      0xaa0103e0,                             /* mov x0, x1 */
      0xd65f03c0,                             /* ret */
  };
  memcpy(code, words, sizeof words);
}

static uint64_t expected(const struct function *f) {
  uint64_t value = f->start;
  for (uint64_t turns = TURNS; turns > 0; turns--) {
    value = (value ^ turns) + f->add;
    value = value >> f->by | value << (64 - f->by);
  }
  return value;
}

/* `count` times: memory is mapped, filled with functions that never were before, run and given back. */
static uint64_t code(uint64_t count) {
  static struct function functions[FUNCTIONS];
  uint64_t random = 11, sum = 0;
  while (count-- > 0) {
    char *memory =
        mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    need(memory != MAP_FAILED, "mmap");
    for (int i = 0; i < FUNCTIONS; i++) {
      uint64_t bits = next_random(&random);
      functions[i] = (struct function){bits & 0xffff, bits >> 16 & 0xfff, 1 + (bits >> 32) % 63};
      write_function((uint32_t *)(memory + i * FUNCTION), &functions[i]);
    }
    __builtin___clear_cache(memory, memory + PAGES * PAGE);
    for (int i = 0; i < FUNCTIONS; i++) {
      uint64_t value = ((uint64_t(*)(uint64_t))(memory + i * FUNCTION))(TURNS);
      need(value == expected(&functions[i]), "the function's result");
      sum = sum * 31 + value;
    }
    need(munmap(memory, PAGES * PAGE) == 0, "munmap");
  }
  return sum;
}

int main(int argc, char **argv) {
  static const struct kernel kernels[] = {{"code", code}, {0}};
  return run_kernel(kernels, argc, argv);
}
