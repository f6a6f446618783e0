# OpenSSL by the processor's cryptographic instructions and SIMD, and by plain code: the same bytes, for lengths around blocks.
cd /tmp || exit 1
same=0
openssl enc -aes-128-ctr -K 00112233445566778899aabbccddeeff -iv 0f0e0d0c0b0a09080706050403020100 -in /dev/zero 2>/dev/null | head -c 100000 >random
compare() { # NAME COMMAND
  with=$(eval "$2" | openssl dgst -r -md5)
  without=$(eval "OPENSSL_armcap=0 $2" | openssl dgst -r -md5)
  if [ "$with" != "$without" ]; then
    echo "$1: $with with the instructions, $without without"
    exit 1
  fi
  same=$((same + 1))
}
for size in 0 1 15 16 17 63 64 65 127 128 129 255 1000 4097 100000; do
  head -c $size random >part
  for digest in md5 sha1 sha224 sha256 sha384 sha512 sha512-256 sha3-256 sha3-512 blake2b512 sm3; do
    compare "$digest of $size" "openssl dgst -$digest part"
  done
  for cipher in aes-128-cbc aes-256-ctr aes-192-ecb aes-256-cfb aes-128-ofb chacha20 camellia-128-cbc sm4-cbc; do
    compare "$cipher of $size" "openssl enc -$cipher -K 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f -iv 000102030405060708090a0b0c0d0e0f -in part"
  done
done
echo "$same results are the same"
