/* Floating point: matrix products with scalars and with NEON, a Fourier transform, the Mandelbrot set, planets. */
#include <arm_neon.h>
#include <math.h>

#include "bench.h"

enum { N = 64 };
static float a[N][N], b[N][N], c[N][N];

static uint64_t bits(double value) {
  uint64_t all;
  memcpy(&all, &value, sizeof all);
  return all;
}

static void fill(void) {
  uint64_t random = 5;
  for (int i = 0; i < N; i++)
    for (int j = 0; j < N; j++) {
      a[i][j] = (float)(next_random(&random) % 1000) / 999.0f;
      b[i][j] = (float)(next_random(&random) % 1000) / 997.0f;
    }
}

static uint64_t sum_of_c(void) {
  double sum = 0;
  for (int i = 0; i < N; i++)
    for (int j = 0; j < N; j++) sum += c[i][j];
  return bits(sum);
}

__attribute__((optimize("no-tree-vectorize"))) static uint64_t matmul(uint64_t count) {
  fill();
  while (count-- > 0) {
    for (int i = 0; i < N; i++)
      for (int j = 0; j < N; j++) {
        float sum = 0;
        for (int k = 0; k < N; k++) sum += a[i][k] * b[k][j];
        c[i][j] = sum;
      }
    a[count % N][0] += c[0][count % N] / 4096;
  }
  return sum_of_c();
}

static uint64_t matmul_neon(uint64_t count) {
  fill();
  while (count-- > 0) {
    for (int i = 0; i < N; i++)
      for (int j = 0; j < N; j += 8) {
        float32x4_t low = vdupq_n_f32(0), high = vdupq_n_f32(0);
        for (int k = 0; k < N; k++) {
          low = vfmaq_n_f32(low, vld1q_f32(&b[k][j]), a[i][k]);
          high = vfmaq_n_f32(high, vld1q_f32(&b[k][j + 4]), a[i][k]);
        }
        vst1q_f32(&c[i][j], low);
        vst1q_f32(&c[i][j + 4], high);
      }
    a[count % N][0] += c[0][count % N] / 4096;
  }
  return sum_of_c();
}

/* Radix 2, 4,096 points, double. */
static uint64_t fft(uint64_t count) {
  enum { POINTS = 4096 };
  static double re[POINTS], im[POINTS], cosine[POINTS / 2], sine[POINTS / 2];
  /* By recurrence: the same on every libm. */
  double step_re = 1, step_im = 0;
  const double turn_re = 0.99999882345170188, turn_im = 0.0015339801862847655;
  for (int i = 0; i < POINTS / 2; i++) {
    cosine[i] = step_re;
    sine[i] = -step_im;
    double next = step_re * turn_re - step_im * turn_im;
    step_im = step_re * turn_im + step_im * turn_re;
    step_re = next;
  }
  uint64_t random = 6;
  for (int i = 0; i < POINTS; i++) {
    re[i] = (double)(next_random(&random) % 2000) / 1000 - 1;
    im[i] = 0;
  }
  while (count-- > 0) {
    for (int i = 1, j = 0; i < POINTS; i++) {
      int bit = POINTS >> 1;
      for (; j & bit; bit >>= 1) j ^= bit;
      j ^= bit;
      if (i >= j) continue;
      double swap = re[i];
      re[i] = re[j], re[j] = swap;
      swap = im[i];
      im[i] = im[j], im[j] = swap;
    }
    for (int size = 2; size <= POINTS; size *= 2)
      for (int start = 0; start < POINTS; start += size)
        for (int k = 0; k < size / 2; k++) {
          double w_re = cosine[k * (POINTS / size)], w_im = sine[k * (POINTS / size)];
          int low = start + k, high = low + size / 2;
          double t_re = re[high] * w_re - im[high] * w_im, t_im = re[high] * w_im + im[high] * w_re;
          re[high] = re[low] - t_re, im[high] = im[low] - t_im;
          re[low] += t_re, im[low] += t_im;
        }
    for (int i = 0; i < POINTS; i++) re[i] /= 64, im[i] /= 64;
  }
  double sum = 0;
  for (int i = 0; i < POINTS; i++) sum += re[i] * (i % 7) + im[i];
  return bits(sum);
}

/* `count` points a side, at most 200 rounds each. */
static uint64_t mandelbrot(uint64_t count) {
  uint64_t sum = 0;
  for (uint64_t row = 0; row < count; row++)
    for (uint64_t column = 0; column < count; column++) {
      double x0 = (double)column * 3 / (double)count - 2.25, y0 = (double)row * 2.5 / (double)count - 1.25;
      double x = 0, y = 0;
      int rounds = 0;
      for (; rounds < 200 && x * x + y * y <= 4; rounds++) {
        double next = x * x - y * y + x0;
        y = 2 * x * y + y0;
        x = next;
      }
      sum += (uint64_t)rounds;
    }
  return sum;
}

/* Five bodies that attract each other: divisions and square roots. */
static uint64_t bodies(uint64_t count) {
  enum { BODIES = 5 };
  static double at[BODIES][3], speed[BODIES][3], mass[BODIES];
  uint64_t random = 7;
  for (int i = 0; i < BODIES; i++) {
    mass[i] = (double)(next_random(&random) % 1000 + 1) / 100;
    for (int d = 0; d < 3; d++) {
      at[i][d] = (double)(next_random(&random) % 2000) / 10 - 100;
      speed[i][d] = (double)(next_random(&random) % 200) / 1000 - 0.1;
    }
  }
  while (count-- > 0) {
    for (int i = 0; i < BODIES; i++)
      for (int j = i + 1; j < BODIES; j++) {
        double way[3], square = 0.01;
        for (int d = 0; d < 3; d++) way[d] = at[i][d] - at[j][d], square += way[d] * way[d];
        double pull = 0.01 / (square * sqrt(square));
        for (int d = 0; d < 3; d++) {
          speed[i][d] -= way[d] * mass[j] * pull;
          speed[j][d] += way[d] * mass[i] * pull;
        }
      }
    for (int i = 0; i < BODIES; i++)
      for (int d = 0; d < 3; d++) at[i][d] += 0.01 * speed[i][d];
  }
  double sum = 0;
  for (int i = 0; i < BODIES; i++) sum += at[i][0] + at[i][1] * 3 + at[i][2] * 5;
  return bits(sum);
}

int main(int argc, char **argv) {
  static const struct kernel kernels[] = {{"matmul", matmul}, {"matmul-neon", matmul_neon},
                                          {"fft", fft},       {"mandelbrot", mandelbrot},
                                          {"bodies", bodies}, {0}};
  return run_kernel(kernels, argc, argv);
}
