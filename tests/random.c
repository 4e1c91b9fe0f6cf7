/* random.c - the random numbers of tests (check.h): splitmix64. */
#include <string.h>

#include "check.h"

static uint64_t state;

uint64_t check_random(void) {
  uint64_t z = state += UINT64_C(0x9e3779b97f4a7c15);
  z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
  return z ^ z >> 31;
}

size_t check_below(size_t n) { return (size_t)((check_random() >> 32) * n >> 32); }

float check_uniform(float low, float high) {
  return low + (high - low) * ((float)(check_random() >> 40) * 0x1p-24f);
}

float check_float(void) {
  uint32_t bits = (uint32_t)check_random();
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

void check_reseed(uint64_t seed, const char *name) {
  state = seed;
  for (; *name; name++) state = (state ^ (uint8_t)*name) * UINT64_C(0x100000001b3);
}
