/* Memory: copies, a random chase through 64 MiB, sums with strides. */
#include "bench.h"

enum { MIB = 1 << 20 };

static uint8_t *buffer(size_t bytes) {
  uint8_t *memory = aligned_alloc(4096, bytes);
  need(memory != NULL, "memory");
  for (size_t i = 0; i < bytes; i += 8) {
    uint64_t value = i * 0x9e3779b97f4a7c15;
    memcpy(memory + i, &value, 8);
  }
  return memory;
}

/* `count` MiB, in pieces of 64 KiB to 4 MiB, aligned and not. */
static uint64_t copy(uint64_t count) {
  uint8_t *from = buffer(4 * MIB + 64), *to = buffer(4 * MIB + 64);
  uint64_t sum = 0, left = count * MIB;
  for (size_t size = 64 << 10, turn = 0; left > 0; size = size == 4 * MIB ? 64 << 10 : size * 2, turn++) {
    if (size > left) size = left;
    memcpy(to + turn % 7, from + turn % 5, size);
    sum = sum * 31 + to[size / 2];
    left -= size;
  }
  return sum;
}

/* Each load's address comes from the load before: one cycle through all of 64 MiB, in random order. */
static uint64_t chase(uint64_t count) {
  enum { SLOTS = 64 * MIB / 64 };
  struct slot {
    struct slot *next;
    uint64_t rest[7];
  } *slots = aligned_alloc(4096, 64 * MIB);
  uint32_t *order = malloc(SLOTS * sizeof *order);
  need(slots != NULL && order != NULL, "memory");
  uint64_t random = 9;
  for (uint32_t i = 0; i < SLOTS; i++) order[i] = i;
  for (uint32_t i = SLOTS - 1; i > 0; i--) {
    uint32_t j = (uint32_t)(next_random(&random) % i), swap = order[i];
    order[i] = order[j];
    order[j] = swap;
  }
  for (uint32_t i = 0; i < SLOTS; i++) slots[order[i]].next = &slots[order[(i + 1) % SLOTS]];
  struct slot *at = slots;
  while (count-- > 0) at = at->next;
  return (uint64_t)(at - slots);
}

/* `count` passes over 8 MiB, each with another stride. */
static uint64_t stride(uint64_t count) {
  enum { WORDS = 8 * MIB / 8 };
  const volatile uint64_t *words = (const volatile uint64_t *)buffer(8 * MIB);
  uint64_t sum = 0;
  for (uint64_t pass = 0; pass < count; pass++) {
    size_t step = (size_t)1 << pass % 10;
    for (size_t start = 0; start < step; start++)
      for (size_t i = start; i < WORDS; i += step) sum += words[i];
    sum = sum * 31 + pass;
  }
  return sum;
}

int main(int argc, char **argv) {
  static const struct kernel kernels[] = {{"copy", copy}, {"chase", chase}, {"stride", stride}, {0}};
  return run_kernel(kernels, argc, argv);
}
