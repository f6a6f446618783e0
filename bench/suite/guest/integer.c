/* Integer kernels of the kinds that CoreMark has: a linked list, a matrix, a state machine, a CRC. */
#include "bench.h"

struct item {
  struct item *next;
  int32_t key;
};

static struct item *merge(struct item *a, struct item *b) {
  struct item head, *tail = &head;
  while (a != NULL && b != NULL) {
    struct item **least = a->key <= b->key ? &a : &b;
    tail->next = *least;
    tail = *least;
    *least = tail->next;
  }
  tail->next = a != NULL ? a : b;
  return head.next;
}

static struct item *sort_list(struct item *list, int length) {
  if (length == 1) {
    list->next = NULL;
    return list;
  }
  struct item *half = list;
  for (int i = 0; i < length / 2; i++) half = half->next;
  struct item *upper = sort_list(half, length - length / 2);
  return merge(sort_list(list, length / 2), upper);
}

/* Sorts, finds and reverses a list of 1,000 items. */
static uint64_t list(uint64_t count) {
  enum { LENGTH = 1000 };
  static struct item items[LENGTH];
  uint64_t random = 1, sum = 0;
  while (count-- > 0) {
    for (int i = 0; i < LENGTH; i++) {
      items[i].key = (int32_t)next_random(&random);
      items[i].next = &items[(i * 21 + 7) % LENGTH];
    }
    struct item *sorted = sort_list(items, LENGTH), *reversed = NULL;
    for (int i = 0; i < 10; i++) {
      int32_t wanted = items[i * 97].key;
      for (struct item *at = sorted; at->key != wanted; at = at->next) sum++;
    }
    while (sorted != NULL) {
      struct item *next = sorted->next;
      sorted->next = reversed;
      reversed = sorted;
      sorted = next;
    }
    sum = sum * 31 + (uint32_t)reversed->key;
  }
  return sum;
}

/* Products of 48 by 48 matrices of 16-bit numbers. */
static uint64_t matrix(uint64_t count) {
  enum { N = 48 };
  static int16_t a[N][N], b[N][N];
  static int32_t c[N][N];
  uint64_t random = 2, sum = 0;
  for (int i = 0; i < N; i++)
    for (int j = 0; j < N; j++) a[i][j] = (int16_t)next_random(&random), b[i][j] = (int16_t)next_random(&random);
  while (count-- > 0) {
    for (int i = 0; i < N; i++)
      for (int j = 0; j < N; j++) {
        uint32_t product = 0;
        for (int k = 0; k < N; k++) product += (uint32_t)(a[i][k] * b[k][j]);
        c[i][j] = (int32_t)product;
      }
    for (int i = 0; i < N; i++) {
      sum = sum * 31 + (uint32_t)c[i][(i * 5) % N];
      a[i][i] = (int16_t)sum;
    }
  }
  return sum;
}

enum state { START, SIGN, INTEGER, POINT, FRACTION, EXPONENT, EXPONENT_SIGN, SCALE, INVALID, STATES };

static enum state step(enum state state, char c) {
  switch (state) {
    case START:
      return c >= '0' && c <= '9' ? INTEGER : c == '+' || c == '-' ? SIGN : c == '.' ? POINT : INVALID;
    case SIGN:
      return c >= '0' && c <= '9' ? INTEGER : c == '.' ? POINT : INVALID;
    case INTEGER:
      return c >= '0' && c <= '9' ? INTEGER : c == '.' ? POINT : c == 'e' || c == 'E' ? EXPONENT : INVALID;
    case POINT:
    case FRACTION:
      return c >= '0' && c <= '9' ? FRACTION : c == 'e' || c == 'E' ? EXPONENT : INVALID;
    case EXPONENT:
      return c >= '0' && c <= '9' ? SCALE : c == '+' || c == '-' ? EXPONENT_SIGN : INVALID;
    case EXPONENT_SIGN:
    case SCALE:
      return c >= '0' && c <= '9' ? SCALE : INVALID;
    default:
      return INVALID;
  }
}

/* A state machine that tells numbers in a text from what is none. */
static uint64_t state(uint64_t count) {
  static const char letters[] = "0123456789+-.eE,,,x";
  static char text[4096];
  uint64_t random = 3, sum = 0;
  for (size_t i = 0; i < sizeof text; i++) text[i] = letters[next_random(&random) % (sizeof letters - 1)];
  while (count-- > 0) {
    uint32_t seen[STATES] = {0};
    enum state now = START;
    for (size_t i = 0; i < sizeof text; i++) {
      if (text[i] == ',') {
        seen[now]++;
        now = START;
      } else {
        now = step(now, text[i]);
      }
    }
    for (int i = 0; i < STATES; i++) sum = sum * 31 + seen[i];
    text[sum % sizeof text] = letters[sum % 10];
  }
  return sum;
}

/* CRC-16 bit by bit, and CRC-32 by a table. */
static uint64_t crc(uint64_t count) {
  static uint32_t table[256];
  for (uint32_t i = 0; i < 256; i++) {
    uint32_t c = i;
    for (int bit = 0; bit < 8; bit++) c = c & 1 ? c >> 1 ^ 0xedb88320 : c >> 1;
    table[i] = c;
  }
  uint8_t block[1024];
  uint64_t random = 4;
  for (size_t i = 0; i < sizeof block; i++) block[i] = (uint8_t)next_random(&random);
  uint32_t crc32 = ~0u;
  uint16_t crc16 = 0;
  while (count-- > 0) {
    for (size_t i = 0; i < sizeof block; i++) crc32 = table[(crc32 ^ block[i]) & 0xff] ^ crc32 >> 8;
    for (size_t i = 0; i < sizeof block / 8; i++) {
      crc16 ^= block[i];
      for (int bit = 0; bit < 8; bit++) crc16 = crc16 & 1 ? crc16 >> 1 ^ 0xa001 : crc16 >> 1;
    }
    block[crc16 % sizeof block]++;
  }
  return (uint64_t)crc16 << 32 | crc32;
}

int main(int argc, char **argv) {
  static const struct kernel kernels[] = {{"list", list}, {"matrix", matrix}, {"state", state}, {"crc", crc}, {0}};
  return run_kernel(kernels, argc, argv);
}
