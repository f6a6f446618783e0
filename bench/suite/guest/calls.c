/* Branches and calls: recursion, calls through pointers, an interpreter's dispatch. */
#include "bench.h"

__attribute__((noinline)) static uint64_t fibonacci(uint64_t n) {
  return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

static uint64_t recursion(uint64_t count) { return fibonacci(count); }

static uint64_t add(uint64_t x, uint64_t y) { return x + y; }
static uint64_t turn(uint64_t x, uint64_t y) { return (x << 7 | x >> 57) ^ y; }
static uint64_t mix(uint64_t x, uint64_t y) { return x * 0x9e3779b97f4a7c15 + y; }
static uint64_t half(uint64_t x, uint64_t y) { return x / 2 - y; }

/* Calls through a table, in an order that is no pattern. */
static uint64_t pointers(uint64_t count) {
  static uint64_t (*const volatile table[])(uint64_t, uint64_t) = {add, turn, mix, half};
  uint64_t random = 8, value = 1;
  while (count-- > 0) value = table[next_random(&random) >> 62](value, random);
  return value;
}

enum op { PUSH, ADD, SUB, XOR, DUP, SWAP, ROLL, LOOP, HALT };

/* A stack machine with a switch for its dispatch. */
static uint64_t interpreter(uint64_t count) {
  static const uint8_t code[] = {PUSH, 3,    ADD, DUP, PUSH, 17, XOR,  SWAP, PUSH, 5, SUB, XOR, DUP, ROLL,
                                 ADD,  PUSH, 7,   XOR, DUP,  ADD, SWAP, ROLL, XOR,  DUP, SWAP, SUB, PUSH, 9,
                                 ADD,  LOOP, HALT};
  uint64_t stack[64] = {1, 2, 3, 4};
  int top = 3;
  for (const uint8_t *pc = code;;) {
    uint64_t *x = &stack[top & 63], *y = &stack[(top - 1) & 63], *z = &stack[(top - 2) & 63], swap;
    switch ((enum op)*pc++) {
      case PUSH:
        stack[++top & 63] = *pc++;
        break;
      case ADD:
        *y += *x, top--;
        break;
      case SUB:
        *y -= *x, top--;
        break;
      case XOR:
        *y ^= *x, top--;
        break;
      case DUP:
        stack[++top & 63] = *x * 3;
        break;
      case SWAP:
        swap = *x, *x = *y, *y = swap;
        break;
      case ROLL:
        swap = *x, *x = *y, *y = *z, *z = swap;
        break;
      case LOOP:
        if (count-- > 0) pc = code;
        break;
      case HALT:
        return *x ^ *y;
    }
  }
}

int main(int argc, char **argv) {
  static const struct kernel kernels[] = {
      {"recursion", recursion}, {"pointers", pointers}, {"interpreter", interpreter}, {0}};
  return run_kernel(kernels, argc, argv);
}
