#pragma once

#include <uv.h>

#include "handle.h"
#include "vcpu.h"
#include "vcpu_thread.h"

namespace elvisor {

// What the addon keeps for one environment: the main thread's, or a Worker's.
struct Environment {
  napi_env env = nullptr;
  uv_loop_t* loop = nullptr;
  std::shared_ptr<Handles> handles = std::make_shared<Handles>();
  Runner runner;
  // Listeners' places in the event loop, those that are being closed included.
  struct Poll* polls = nullptr;
  Bell bell{*this};
  napi_async_cleanup_hook_handle cleanup = nullptr;
  bool ending = false;
};

inline Environment& environment(const Args& args) { return *static_cast<Environment*>(args.data()); }

// Closes every listener of an environment that ends.
void close_polls(Environment& environment);
// Lets it end, where libuv has let go of everything.
void end_if_done(Environment& environment);

}  // namespace elvisor
