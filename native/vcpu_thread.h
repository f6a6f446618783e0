#pragma once

#include <pthread.h>
#include <uv.h>

#include <atomic>
#include <memory>
#include <vector>

#include "handle.h"

namespace elvisor {

struct Environment;
class Vcpu;
class VcpuThread;

// Where the vCPU threads of one environment tell that they have left the guest, and where its event loop answers them.
//
// An exit is a word that the thread sets, and a wake-up of the event loop where that is not looking already. Having
// answered, the loop looks on for a moment: guests that exit at all exit in rows, and waking costs as much as many exits.
class Bell {
 public:
  explicit Bell(Environment& environment) : environment_(environment) {}
  Bell(const Bell&) = delete;
  Bell& operator=(const Bell&) = delete;

  // Makes its place in the event loop, at the first call. @returns 0 or a negative errno
  int prepare();
  void add(std::shared_ptr<VcpuThread> thread);
  void remove(const VcpuThread* thread);
  // An exit waits. From any thread.
  void ring() {
    if (looking_.load()) return;
    rung_at_.store(now_ns(), std::memory_order_relaxed);
    uv_async_send(&async_);
  }
  // Ends all threads and gives its place back; `done` is called when libuv has let go of it.
  void close();
  bool closed() const { return closed_; }

 private:
  static void on_ring(uv_async_t* async);
  void answer();
  bool answer_all();

  Environment& environment_;
  uv_async_t async_{};
  bool ready_ = false;
  bool closed_ = true;
  std::atomic<bool> looking_{false};
  std::vector<std::shared_ptr<VcpuThread>> threads_;
  // How long to look on for the next exit (ns): all of it after a look that was worth it, half as long after each that
  // was not.
  uint64_t patience_ = 0;
  uint64_t answered_at_ = 0;
  std::atomic<uint64_t> rung_at_{0};
};

// The thread that a vCPU runs on, and what passes between it and the thread of the vCPU's JavaScript. The kernel wants
// every KVM_RUN of a vCPU on one thread: another costs a grace period of RCU.
class VcpuThread : public std::enable_shared_from_this<VcpuThread> {
 public:
  VcpuThread(Vcpu& vcpu, Environment& environment) : vcpu_(vcpu), environment_(environment) {}
  VcpuThread(const VcpuThread&) = delete;
  VcpuThread& operator=(const VcpuThread&) = delete;

  // Everything but this class's own thread function is for the thread of the environment.

  // Lets the vCPU run, and calls `listener` with the result of each KVM_RUN. `self`, the vCPU's handle, is not collected
  // meanwhile. @returns 0 or a negative errno
  int start(napi_value self, napi_value listener);
  // When it returns, the vCPU has left the guest. An exit that was on its way is told after the next start().
  void stop();
  // Ends the thread.
  void end();
  bool started() const { return listener_ != nullptr; }
  // Whether the kernel would let a call on the vCPU wait.
  bool in_guest() const { return state_.load() == State::running; }
  // Whether the listener has an exit to be told of.
  bool waits() const { return state_.load() == State::exited && !told_ && listener_ != nullptr; }
  void answer();

 private:
  // A futex: whoever waits for a change sleeps on it.
  enum State : uint32_t { parked, running, exited, ended };
  static void* main(void* self);
  void loop();
  void become(State next);
  void wait_while(State state);
  State wait_for_orders();

  Vcpu& vcpu_;
  Environment& environment_;
  bool created_ = false;
  pthread_t thread_{};
  std::atomic<uint32_t> state_{State::parked};
  std::atomic<uint32_t> sleepers_{0};
  int64_t result_ = 0;
  napi_ref listener_ = nullptr;
  napi_ref self_ = nullptr;
  // The listener knows of the exit that the state tells of.
  bool told_ = false;
  // The listener is being called, and has neither stopped the vCPU nor started it again.
  bool answering_ = false;
};

}  // namespace elvisor
