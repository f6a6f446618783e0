/* OpenSSL's libcrypto, so much work and not so much time. OPENSSL_armcap in the environment takes extensions away. */
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>

#include "bench.h"

enum { BLOCK = 64 << 10 };
static uint8_t block[BLOCK], sealed[BLOCK];

static uint64_t first_word(const uint8_t *bytes) {
  uint64_t word;
  memcpy(&word, bytes, sizeof word);
  return word;
}

static void fill(void) {
  for (size_t i = 0; i < BLOCK; i++) block[i] = (uint8_t)(i * 7 + (i >> 8));
}

/* `count` blocks of 64 KiB, each hashed with the hash before in it. */
static uint64_t sha256(uint64_t count) {
  fill();
  for (uint64_t i = 0; i < count; i++)
    need(EVP_Digest(block, BLOCK, block, NULL, EVP_sha256(), NULL) == 1, "SHA-256");
  return first_word(block);
}

/* `count` blocks of 64 KiB by AES-256-GCM. */
static uint64_t aes_gcm(uint64_t count) {
  static const uint8_t key[32] = {1, 2, 3}, nonce[12] = {4, 5, 6};
  uint8_t tag[16] = {0};
  fill();
  EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
  for (uint64_t i = 0; i < count; i++) {
    int length;
    block[0] = tag[0];
    need(EVP_EncryptInit_ex(context, EVP_aes_256_gcm(), NULL, key, nonce) == 1, "AES-GCM");
    need(EVP_EncryptUpdate(context, sealed, &length, block, BLOCK) == 1 && length == BLOCK, "AES-GCM");
    need(EVP_EncryptFinal_ex(context, sealed, &length) == 1, "AES-GCM");
    need(EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, sizeof tag, tag) == 1, "the tag");
  }
  EVP_CIPHER_CTX_free(context);
  return first_word(tag);
}

/* The largest primes below 2^1024: no secret, but as much work as any other. */
static BIGNUM *prime(unsigned below) {
  BIGNUM *p = BN_new();
  need(p != NULL && BN_set_bit(p, 1024) == 1 && BN_sub_word(p, below) == 1, "a prime");
  return p;
}

static EVP_PKEY *rsa_key(void) {
  BN_CTX *context = BN_CTX_new();
  BIGNUM *p = prime(105), *q = prime(179), *e = BN_new(), *one = BN_new();
  BIGNUM *n = BN_new(), *d = BN_new(), *p1 = BN_new(), *q1 = BN_new(), *phi = BN_new(), *dp = BN_new(), *dq = BN_new();
  BIGNUM *qinv = BN_new();
  BN_set_word(e, 65537);
  BN_set_word(one, 1);
  BN_mul(n, p, q, context);
  BN_sub(p1, p, one);
  BN_sub(q1, q, one);
  BN_mul(phi, p1, q1, context);
  BN_mod_inverse(d, e, phi, context);
  BN_mod(dp, d, p1, context);
  BN_mod(dq, d, q1, context);
  BN_mod_inverse(qinv, q, p, context);
  OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
  const struct {
    const char *name;
    BIGNUM *value;
  } parts[] = {{OSSL_PKEY_PARAM_RSA_N, n},
               {OSSL_PKEY_PARAM_RSA_E, e},
               {OSSL_PKEY_PARAM_RSA_D, d},
               {OSSL_PKEY_PARAM_RSA_FACTOR1, p},
               {OSSL_PKEY_PARAM_RSA_FACTOR2, q},
               {OSSL_PKEY_PARAM_RSA_EXPONENT1, dp},
               {OSSL_PKEY_PARAM_RSA_EXPONENT2, dq},
               {OSSL_PKEY_PARAM_RSA_COEFFICIENT1, qinv}};
  for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
    need(OSSL_PARAM_BLD_push_BN(build, parts[i].name, parts[i].value) == 1, "the key");
  EVP_PKEY *key = NULL;
  EVP_PKEY_CTX *maker = EVP_PKEY_CTX_new_from_name(NULL, "RSA", NULL);
  need(EVP_PKEY_fromdata_init(maker) == 1, "the key");
  need(EVP_PKEY_fromdata(maker, &key, EVP_PKEY_KEYPAIR, OSSL_PARAM_BLD_to_param(build)) == 1, "the key");
  return key;
}

/* `count` signatures, the last of them verified. */
static uint64_t rsa2048(uint64_t count) {
  EVP_PKEY *key = rsa_key();
  EVP_PKEY_CTX *signer = EVP_PKEY_CTX_new(key, NULL), *verifier = EVP_PKEY_CTX_new(key, NULL);
  uint8_t digest[32] = {0}, signature[256] = {0};
  size_t length = sizeof signature;
  need(EVP_PKEY_sign_init(signer) == 1 && EVP_PKEY_verify_init(verifier) == 1, "RSA");
  for (uint64_t i = 0; i < count; i++) {
    memcpy(digest, signature, sizeof digest);
    length = sizeof signature;
    need(EVP_PKEY_sign(signer, signature, &length, digest, sizeof digest) == 1, "a signature");
  }
  need(EVP_PKEY_verify(verifier, signature, length, digest, sizeof digest) == 1, "the signature's check");
  return first_word(signature);
}

int main(int argc, char **argv) {
  static const struct kernel kernels[] = {{"sha256", sha256}, {"aes-gcm", aes_gcm}, {"rsa2048", rsa2048}, {0}};
  return run_kernel(kernels, argc, argv);
}
