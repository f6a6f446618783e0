#pragma once

#include <uv.h>

#include "handle.h"
#include "vcpu.h"

namespace elvisor {

// What the addon keeps for one environment: the main thread's, or a Worker's.
struct Environment {
  napi_env env = nullptr;
  uv_loop_t* loop = nullptr;
  Runner runner;
  // Listeners' places in the event loop, those that are being closed included.
  struct Poll* polls = nullptr;
  napi_async_cleanup_hook_handle cleanup = nullptr;
  bool ending = false;
};

inline Environment& environment(const Args& args) { return *static_cast<Environment*>(args.data()); }

// Closes every listener of an environment that ends, and then lets it end.
void close_polls(Environment& environment);

}  // namespace elvisor
