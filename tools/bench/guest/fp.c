/* tools/bench/guest/fp.c: floating point, compiled twice: BENCH_X87 (-mfpmath=387) and BENCH_SSE (-msse2
 * -mfpmath=sse). */
#include "bench.h"

#include <math.h>
#ifdef BENCH_SSE
#include <emmintrin.h>
#endif

/* Checksums must not depend on when an x87 register is rounded to a double, so the last bits are left out. */
static uint32_t coarse(double v)
{
    return (uint32_t)(int64_t)(v * 1048576.0);
}

/* Five bodies under gravity, 20 steps. */
static uint32_t bodies(uint32_t n)
{
    uint32_t h = 0;
    while (n--) {
        double p[5][3], v[5][3], m[5];
        for (int i = 0; i < 5; i++) {
            m[i] = 1.0 / (i + 1);
            for (int k = 0; k < 3; k++)
                p[i][k] = (i * 3 + k * 5) % 7 - 3 + 0.25 * i, v[i][k] = 0.125 * ((i + k) % 3 - 1);
        }
        for (int step = 0; step < 20; step++) {
            for (int i = 0; i < 5; i++)
                for (int j = i + 1; j < 5; j++) {
                    double d[3], r2 = 0.5;
                    for (int k = 0; k < 3; k++)
                        d[k] = p[i][k] - p[j][k], r2 += d[k] * d[k];
                    double f = 0.01 / (r2 * sqrt(r2));
                    for (int k = 0; k < 3; k++)
                        v[i][k] -= d[k] * m[j] * f, v[j][k] += d[k] * m[i] * f;
                }
            for (int i = 0; i < 5; i++)
                for (int k = 0; k < 3; k++)
                    p[i][k] += 0.01 * v[i][k];
        }
        h = 0;
        for (int i = 0; i < 5; i++)
            h = bench_mix(h, coarse(p[i][0] + p[i][1] + p[i][2]));
    }
    return h;
}

/* Gaussian elimination of a 24x24 matrix with a strong diagonal, then a back substitution. */
static uint32_t solve(uint32_t n)
{
    enum { N = 24 };
    static double a[N][N], x[N];
    uint32_t h = 0;
    while (n--) {
        uint32_t s = 31;
        for (int i = 0; i < N; i++) {
            for (int j = 0; j < N; j++)
                a[i][j] = (bench_random(&s) >> 16) / 65536.0 + (i == j ? N : 0);
            x[i] = i + 1;
        }
        for (int k = 0; k < N; k++)
            for (int i = k + 1; i < N; i++) {
                double f = a[i][k] / a[k][k];
                for (int j = k; j < N; j++)
                    a[i][j] -= f * a[k][j];
                x[i] -= f * x[k];
            }
        h = 0;
        for (int i = N - 1; i >= 0; i--) {
            for (int j = i + 1; j < N; j++)
                x[i] -= a[i][j] * x[j];
            x[i] /= a[i][i];
            h = bench_mix(h, coarse(x[i]));
        }
    }
    return h;
}

/* The logistic map's neighbour: a long chain of dependent operations. */
static uint32_t chain(uint32_t n)
{
    double r = 0;
    while (n--) {
        double x = 0.5;
        for (int i = 0; i < 1000; i++)
            x = x * 0.75 + 1.0 / (1.0 + x * x);
        r = x;
    }
    return coarse(r);
}

#ifdef BENCH_SSE
static uint32_t packed_float(uint32_t n)
{
    static __m128 x[256], y[256];
    uint32_t h = 0;
    while (n--) {
        for (int i = 0; i < 256; i++)
            x[i] = _mm_set1_ps((float)i), y[i] = _mm_setr_ps(1, 2, 3, (float)i);
        __m128 f = _mm_setr_ps(0.5f, 0.25f, 2, 4);
        for (int round = 0; round < 8; round++)
            for (int i = 0; i < 256; i++)
                y[i] = _mm_sub_ps(_mm_add_ps(_mm_mul_ps(x[i], f), y[i]), _mm_max_ps(x[i], f));
        h = 0;
        for (int i = 0; i < 256; i += 17)
            h = bench_mix(h, (uint32_t)_mm_cvtsi128_si32(_mm_castps_si128(y[i])));
    }
    return h;
}

static uint32_t packed_int(uint32_t n)
{
    static __m128i a[256], b[256];
    uint32_t h = 0;
    while (n--) {
        for (int i = 0; i < 256; i++)
            a[i] = _mm_set1_epi16((short)(i * 257)), b[i] = _mm_set1_epi16((short)(9999 - i * 31));
        for (int round = 0; round < 8; round++)
            for (int i = 0; i < 256; i++) {
                __m128i m = _mm_madd_epi16(a[i], b[i]);
                b[i] = _mm_xor_si128(_mm_adds_epi16(b[i], a[i]), _mm_packs_epi32(m, _mm_srai_epi32(m, 5)));
                a[i] = _mm_unpacklo_epi8(b[i], _mm_max_epu8(a[i], m));
            }
        h = 0;
        for (int i = 0; i < 256; i += 17)
            h = bench_mix(h, (uint32_t)_mm_cvtsi128_si32(a[i]));
    }
    return h;
}

const struct bench bench_sse[] = {{"sse.bodies", bodies},         {"sse.solve", solve},
                                  {"sse.chain", chain},           {"sse.packed_float", packed_float},
                                  {"sse.packed_int", packed_int}, {0}};
#else
const struct bench bench_x87[] = {{"x87.bodies", bodies}, {"x87.solve", solve}, {"x87.chain", chain}, {0}};
#endif
