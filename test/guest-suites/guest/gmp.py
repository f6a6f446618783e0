"""GMP against Python's own integers, which share no code: random operands of all sizes, those with long runs of equal bits
among them, because carries travel far in these."""
import ctypes
import math
import random

gmp = ctypes.CDLL("libgmp.so.10")


class Mpz(ctypes.Structure):
    _fields_ = [("alloc", ctypes.c_int), ("size", ctypes.c_int), ("limbs", ctypes.c_void_p)]


def mpz(value=0):
    z = Mpz()
    gmp.__gmpz_init_set_str(ctypes.byref(z), b"%x" % value if value >= 0 else b"-%x" % -value, 16)
    return z


def to_int(z):
    free = gmp.__gmpz_get_str
    free.restype = ctypes.c_void_p
    size = gmp.__gmpz_sizeinbase(ctypes.byref(z), 16) + 2
    text = ctypes.create_string_buffer(size)
    free(text, 16, ctypes.byref(z))
    return int(text.value, 16)


def call(name, results, *operands):
    out = [mpz() for _ in range(results)]
    given = [ctypes.byref(mpz(n)) for n in operands]
    getattr(gmp, "__gmpz_" + name)(*[ctypes.byref(z) for z in out], *given)
    values = tuple(to_int(z) for z in out)
    for z in out:
        gmp.__gmpz_clear(ctypes.byref(z))
    return values if results > 1 else values[0]


rng = random.Random(20260601)
# By their lengths in limbs: schoolbook, Karatsuba, Toom and FFT multiplication.
SIZES = [1, 63, 64, 65, 128, 1000, 3000, 12000, 40000, 300000]


def operand(bits):
    if rng.random() < 0.5:
        return rng.getrandbits(bits)
    value = 0
    while value.bit_length() < bits:
        run = rng.randrange(1, 200)
        value = value << run | (rng.getrandbits(1) and (1 << run) - 1)
        if value == 0:
            value = 1
    return value & ((1 << bits) - 1)


holds = 0


def check(name, got, expected):
    global holds
    if got != expected:
        raise SystemExit(f"mpz_{name}: {got} and not {expected}")
    holds += 1


for bits in SIZES:
    for _ in range(40 if bits <= 3000 else 6 if bits <= 40000 else 1):
        a, b, c = operand(bits), operand(bits), operand(max(bits // 2, 1))
        check("mul", call("mul", 1, a, b), a * b)
        check("add", call("add", 1, a, b), a + b)
        check("sub", call("sub", 1, b, a), b - a)
        check("and", call("and", 1, a, b), a & b)
        check("sqrtrem", call("sqrtrem", 2, a), (math.isqrt(a), a - math.isqrt(a) ** 2))
        if c != 0:
            check("tdiv_qr", call("tdiv_qr", 2, a, c), divmod(a, c))
        if bits <= 12000:
            check("gcd", call("gcd", 1, a * c, b * c), math.gcd(a * c, b * c))
        if bits <= 1000 and b != 0:
            odd = b | 1
            check("powm", call("powm", 1, a, c, odd), pow(a, c, odd))
            if odd > 1 and math.gcd(a, odd) == 1:
                check("invert", call("invert", 1, a, odd), pow(a, -1, odd))
print(holds, "identities hold")
