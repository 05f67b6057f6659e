/* tools/bench/guest/int.c: integer kernels. */
#include "bench.h"

#include <string.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static uint32_t alu(uint32_t n)
{
    uint32_t h = 0;
    while (n--) {
        uint32_t a = 1, b = 2, c = 3, d = 4;
        for (uint32_t i = 0; i < 2048; i++) {
            a += (b << 5 | b >> 27) ^ i;
            b = (b - c) ^ (a >> 3);
            c += a * 5 + (d & 0xFF00FF);
            d = (d ^ c) - (b << 7 | b >> 25);
            if (d & 0x100)
                a ^= 0x9E3779B9u;
        }
        h = a ^ b ^ c ^ d;
    }
    return h;
}

static uint32_t sieve(uint32_t n)
{
    static uint8_t composite[16384];
    uint32_t primes = 0;
    while (n--) {
        memset(composite, 0, sizeof(composite));
        primes = 0;
        for (uint32_t i = 2; i < sizeof(composite); i++) {
            if (composite[i])
                continue;
            primes++;
            for (uint32_t j = i * i; j < sizeof(composite) && i < 128; j += i)
                composite[j] = 1;
        }
    }
    return primes;
}

static uint32_t crc(uint32_t n)
{
    static uint32_t table[256];
    static uint8_t data[32768];
    if (!table[1]) {
        uint32_t s = 7;
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t c = i;
            for (int k = 0; k < 8; k++)
                c = c & 1 ? c >> 1 ^ 0xEDB88320u : c >> 1;
            table[i] = c;
        }
        for (unsigned i = 0; i < sizeof(data); i++)
            data[i] = (uint8_t)bench_random(&s);
    }
    uint32_t c = 0;
    while (n--) {
        c = ~0u;
        for (unsigned i = 0; i < sizeof(data); i++)
            c = table[(c ^ data[i]) & 0xFF] ^ c >> 8;
    }
    return ~c;
}

static inline uint32_t ror(uint32_t x, unsigned k)
{
    return x >> k | x << (32 - k);
}

/* The rounds of SHA-256 (FIPS 180-4, 6.2.2) with constants of our own: only their cost counts. */
static uint32_t rounds(uint32_t n)
{
    uint32_t out = 0;
    while (n--) {
        uint32_t w[64], v[8], s = 99;
        for (int i = 0; i < 8; i++)
            v[i] = bench_random(&s);
        for (int block = 0; block < 16; block++) {
            for (int i = 0; i < 16; i++)
                w[i] = bench_random(&s);
            for (int i = 16; i < 64; i++)
                w[i] = w[i - 16] + w[i - 7] + (ror(w[i - 15], 7) ^ ror(w[i - 15], 18) ^ w[i - 15] >> 3) +
                       (ror(w[i - 2], 17) ^ ror(w[i - 2], 19) ^ w[i - 2] >> 10);
            for (int i = 0; i < 64; i++) {
                uint32_t t1 = v[7] + (ror(v[4], 6) ^ ror(v[4], 11) ^ ror(v[4], 25)) +
                              ((v[4] & v[5]) ^ (~v[4] & v[6])) + w[i] + 0x9E3779B9u * (uint32_t)i;
                uint32_t t2 = (ror(v[0], 2) ^ ror(v[0], 13) ^ ror(v[0], 22)) +
                              ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
                v[7] = v[6], v[6] = v[5], v[5] = v[4], v[4] = v[3] + t1;
                v[3] = v[2], v[2] = v[1], v[1] = v[0], v[0] = t1 + t2;
            }
        }
        out = v[0] ^ v[4];
    }
    return out;
}

/* Greedy matching with a hash of three bytes, as LZ compressors do. */
static uint32_t match(uint32_t n)
{
    static uint8_t text[16384];
    static uint16_t last[4096];
    if (!text[0]) {
        uint32_t s = 5;
        for (unsigned i = 0; i < sizeof(text); i++)
            text[i] = (uint8_t)("etaoin shrdlu\n.,"[bench_random(&s) >> 7 & 15]);
    }
    uint32_t h = 0;
    while (n--) {
        memset(last, 0, sizeof(last));
        h = 2166136261u;
        for (unsigned i = 1; i + 64 < sizeof(text);) {
            uint32_t key = (uint32_t)(text[i] | text[i + 1] << 8 | text[i + 2] << 16) * 2654435761u >> 20;
            unsigned at = last[key], len = 0;
            last[key] = (uint16_t)i;
            while (at && len < 60 && text[at + len] == text[i + len])
                len++;
            h = bench_mix(h, len > 2 ? len << 16 | (i - at) : text[i]);
            i += len > 2 ? len : 1;
        }
    }
    return h;
}

static uint32_t hash(uint32_t n)
{
    static struct {
        uint32_t key, value;
    } slot[4096];
    uint32_t sum = 0;
    while (n--) {
        memset(slot, 0, sizeof(slot));
        uint32_t s = 1;
        for (int i = 0; i < 2048; i++) {
            uint32_t key = bench_random(&s) | 1, at = key * 2654435761u >> 20;
            while (slot[at].key && slot[at].key != key)
                at = (at + 1) & 4095;
            slot[at].key = key;
            slot[at].value += (uint32_t)i;
        }
        s = 1, sum = 0;
        for (int i = 0; i < 2048; i++) {
            uint32_t key = bench_random(&s) | 1, at = key * 2654435761u >> 20;
            while (slot[at].key != key)
                at = (at + 1) & 4095;
            sum = bench_mix(sum, slot[at].value);
        }
    }
    return sum;
}

/* Words of a text, counted and folded to upper case byte by byte. */
static uint32_t text(uint32_t n)
{
    static const char source[] =
        "The leaf of a book has two sides: the recto is the page as it was written, the verso is "
        "its other side. It is turned, not copied; who reads on sees the same words again.";
    char fold[sizeof(source)];
    uint32_t h = 0;
    while (n--) {
        h = 1;
        for (int round = 0; round < 16; round++) {
            bool in = false;
            for (unsigned i = 0; i < sizeof(source); i++) {
                char c = source[i];
                bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
                h += letter && !in;
                in = letter;
                fold[i] = c >= 'a' && c <= 'z' ? (char)(c - 32) : c;
            }
            for (unsigned i = 0; i < sizeof(source); i++)
                h = bench_mix(h, (uint8_t)fold[i]);
        }
    }
    return h;
}

/* Products of 512-bit numbers: MUL and carries. */
static uint32_t bignum(uint32_t n)
{
    uint32_t h = 0;
    while (n--) {
        uint32_t a[16], b[16], r[32] = {0}, s = 11;
        for (int i = 0; i < 16; i++)
            a[i] = bench_random(&s), b[i] = bench_random(&s);
        for (int i = 0; i < 16; i++) {
            uint64_t carry = 0;
            for (int j = 0; j < 16; j++) {
                carry += (uint64_t)a[i] * b[j] + r[i + j];
                r[i + j] = (uint32_t)carry;
                carry >>= 32;
            }
            r[i + 16] = (uint32_t)carry;
        }
        h = 0;
        for (unsigned i = 0; i < COUNT(r); i++)
            h = bench_mix(h, r[i]);
    }
    return h;
}

static uint32_t divide(uint32_t n)
{
    uint32_t h = 0;
    while (n--) {
        uint32_t s = 3;
        h = 0;
        for (int i = 0; i < 256; i++) {
            uint32_t a = bench_random(&s), b = (bench_random(&s) >> (i & 15)) | 1;
            h = bench_mix(h, a / b ^ a % b);
        }
    }
    return h;
}

const struct bench bench_int[] = {{"int.alu", alu},       {"int.sieve", sieve},
                                  {"int.crc", crc},       {"int.rounds", rounds},
                                  {"int.match", match},   {"int.hash", hash},
                                  {"int.text", text},     {"int.bignum", bignum},
                                  {"int.divide", divide}, {0}};
