// The addon's face: one function a call, none of which throws. lib/host/native.ts has their types.
#include "environment.h"

namespace elvisor {
namespace {

void end_environment(napi_async_cleanup_hook_handle handle, void* data) {
  auto* environment = static_cast<Environment*>(data);
  environment->cleanup = handle;
  environment->ending = true;
  environment->bell.close();
  close_polls(*environment);
  end_if_done(*environment);
}

void delete_environment(napi_env, void* data, void*) { delete static_cast<Environment*>(data); }

Napi::Object init(Napi::Env env, Napi::Object exports) {
  auto* environment = new Environment;
  environment->env = env;
  if (napi_get_uv_event_loop(env, &environment->loop) != napi_ok ||
      napi_set_instance_data(env, environment, delete_environment, nullptr) != napi_ok) {
    delete environment;
    return exports;
  }
  if (napi_add_async_cleanup_hook(env, end_environment, environment, &environment->cleanup) != napi_ok) return exports;
  for (const auto& list : {system_exports(), vm_exports(), vcpu_exports(), device_exports(), memory_exports(), eventfd_exports()}) {
    for (const Export& entry : list) {
      napi_value function;
      if (napi_create_function(env, entry.name, NAPI_AUTO_LENGTH, entry.function, environment, &function) != napi_ok ||
          napi_set_named_property(env, exports, entry.name, function) != napi_ok) {
        return exports;
      }
    }
  }
  return exports;
}

}  // namespace

void end_if_done(Environment& environment) {
  if (!environment.ending || environment.polls != nullptr || !environment.bell.closed()) return;
  if (environment.cleanup != nullptr) napi_remove_async_cleanup_hook(std::exchange(environment.cleanup, nullptr));
}

}  // namespace elvisor

using elvisor::init;
NODE_API_MODULE(NODE_GYP_MODULE_NAME, init)
