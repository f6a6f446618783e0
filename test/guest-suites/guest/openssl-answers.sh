# Known answers of the standards, by OpenSSL's command.
right=0
answer() { # WHAT EXPECTED GOT
  if [ "$2" != "$3" ]; then
    echo "$1: $3, and not $2"
    exit 1
  fi
  right=$((right + 1))
}
digest() { printf %s "$2" | openssl dgst -r "-$1" | { read -r sum _; echo "$sum"; }; }
# FIPS 180-4 and FIPS 202, of "abc"
answer sha1 a9993e364706816aba3e25717850c26c9cd0d89d "$(digest sha1 abc)"
answer sha256 ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad "$(digest sha256 abc)"
answer sha512 ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f "$(digest sha512 abc)"
answer sha3-256 3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532 "$(digest sha3-256 abc)"
# RFC 1321
answer md5 900150983cd24fb0d6963f7d28e17f72 "$(digest md5 abc)"
# RFC 4231, test case 2
answer hmac 5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843 \
  "$(printf %s 'what do ya want for nothing?' | openssl dgst -r -sha256 -mac HMAC -macopt key:Jefe | { read -r sum _; echo "$sum"; })"
hex() { od -An -v -tx1 | tr -d ' \n'; }
block() { printf '\000\021\042\063\104\125\146\167\210\231\252\273\314\335\356\377'; }
# FIPS 197, appendix C
K=000102030405060708090a0b0c0d0e0f
answer aes-128 69c4e0d86a7b0430d8cdb78070b4c55a "$(block | openssl enc -aes-128-ecb -nopad -K $K | hex)"
answer aes-192 dda97ca4864cdfe06eaf70a0ec0d7191 "$(block | openssl enc -aes-192-ecb -nopad -K ${K}1011121314151617 | hex)"
answer aes-256 8ea2b7ca516745bfeafc49904b496089 "$(block | openssl enc -aes-256-ecb -nopad -K ${K}101112131415161718191a1b1c1d1e1f | hex)"
# What is signed is verified, and what was changed is not.
cd /tmp || exit 1
printf 'a message' >message
printf 'another' >other
for algorithm in 'RSA -pkeyopt rsa_keygen_bits:2048' 'EC -pkeyopt ec_paramgen_curve:P-256' 'EC -pkeyopt ec_paramgen_curve:P-384'; do
  openssl genpkey -quiet -algorithm $algorithm -out key.pem 2>/dev/null || openssl genpkey -algorithm $algorithm -out key.pem 2>/dev/null
  openssl pkey -in key.pem -pubout -out public.pem
  openssl dgst -sha256 -sign key.pem -out signature message
  answer "$algorithm" 'Verified OK' "$(openssl dgst -sha256 -verify public.pem -signature signature message 2>&1)"
  openssl dgst -sha256 -verify public.pem -signature signature other >/dev/null 2>&1 && answer "$algorithm" refused taken
done
openssl genpkey -algorithm ED25519 -out key.pem
openssl pkey -in key.pem -pubout -out public.pem
openssl pkeyutl -sign -rawin -inkey key.pem -in message -out signature
answer ed25519 'Signature Verified Successfully' "$(openssl pkeyutl -verify -rawin -pubin -inkey public.pem -in message -sigfile signature 2>&1)"
# 2^127 - 1, and 2^67 - 1
for number in '170141183460469231731687303715884105727 is' '147573952589676412927 is not'; do
  case $(openssl prime ${number%% *}) in
    *") ${number#* } prime") right=$((right + 1)) ;;
    *) echo "${number#* } prime: ${number%% *}, and openssl says otherwise"; exit 1 ;;
  esac
done
echo "$right answers are right"
