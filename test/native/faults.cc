// Faults on purpose, one for each sanitizer: scripts/sanitize.js sees that it would be told of one, before it believes that
// there is none. Built as the addon is, where a sanitizer is.
#include <node_api.h>

#include <climits>
#include <memory>
#include <thread>

namespace {

// What the compiler must not see through.
volatile int one = 1;
volatile int shared = 0;

// The thread and its maker write the same word, each without asking the other.
napi_value race(napi_env, napi_callback_info) {
  std::thread other([] { shared = one; });
  shared = one + 1;
  other.join();
  return nullptr;
}

napi_value overrun(napi_env, napi_callback_info) {
  const auto bytes = std::make_unique<volatile char[]>(8);
  bytes[static_cast<size_t>(one) * 8] = 1;
  return nullptr;
}

napi_value overflow(napi_env, napi_callback_info) {
  shared = INT_MAX + one;
  return nullptr;
}

}  // namespace

NAPI_MODULE_INIT() {
  const napi_property_descriptor functions[] = {
      {"race", nullptr, race, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
      {"overrun", nullptr, overrun, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
      {"overflow", nullptr, overflow, nullptr, nullptr, nullptr, napi_enumerable, nullptr},
  };
  napi_define_properties(env, exports, sizeof functions / sizeof functions[0], functions);
  return exports;
}
