/* Devices: reads of a disk past the page cache, and loads from a device's register. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bench.h"

enum { MIB = 1 << 20 };

static uint64_t sum_of(const uint8_t *bytes, size_t length) {
  uint64_t sum = 0, word;
  for (size_t i = 0; i < length; i += 512) {
    memcpy(&word, bytes + i, sizeof word);
    sum = sum * 31 + word;
  }
  return sum;
}

static int open_disk(void) {
  int disk = open("/dev/vdb", O_RDONLY | O_DIRECT);
  need(disk >= 0, "/dev/vdb");
  return disk;
}

static uint8_t *buffer(size_t bytes) {
  uint8_t *memory = aligned_alloc(4096, bytes);
  need(memory != NULL, "memory");
  return memory;
}

/* `count` MiB from the start on, again and again. */
static uint64_t sequential(uint64_t count) {
  int disk = open_disk();
  uint8_t *bytes = buffer(MIB);
  uint64_t size = (uint64_t)lseek(disk, 0, SEEK_END) / MIB, sum = 0;
  for (uint64_t i = 0; i < count; i++) {
    need(pread(disk, bytes, MIB, (off_t)(i % size * MIB)) == MIB, "read");
    sum = sum * 31 + sum_of(bytes, MIB);
  }
  return sum;
}

/* `count` reads of 4 KiB from anywhere. */
static uint64_t scattered(uint64_t count) {
  int disk = open_disk();
  uint8_t *bytes = buffer(4096);
  uint64_t pages = (uint64_t)lseek(disk, 0, SEEK_END) / 4096, random = 10, sum = 0;
  for (uint64_t i = 0; i < count; i++) {
    need(pread(disk, bytes, 4096, (off_t)(next_random(&random) % pages * 4096)) == 4096, "read");
    sum = sum * 31 + sum_of(bytes, 4096);
  }
  return sum;
}

/* Loads from a register of the PL061 that says which device it is: each leaves the guest. */
static uint64_t mmio(uint64_t count) {
  int memory = open("/dev/mem", O_RDWR | O_SYNC);
  need(memory >= 0, "/dev/mem");
  const volatile uint8_t *gpio = mmap(NULL, 4096, PROT_READ, MAP_SHARED, memory, 0x09030000);
  need(gpio != MAP_FAILED, "the PL061");
  uint64_t sum = 0;
  for (uint64_t i = 0; i < count; i++) sum += *(const volatile uint32_t *)(gpio + 0xfe0);
  return sum;
}

int main(int argc, char **argv) {
  static const struct kernel kernels[] = {
      {"sequential", sequential}, {"scattered", scattered}, {"mmio", mmio}, {0}};
  return run_kernel(kernels, argc, argv);
}
