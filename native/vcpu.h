#pragma once

#include <sys/types.h>

#include <atomic>
#include <ctime>

#include "handle.h"
#include "kvm_abi.h"

namespace elvisor {

// A KVM_RUN on a thread of JavaScript comes back to it at least this often.
constexpr uint64_t heartbeat_ns = 20'000'000;

// What ends KVM_RUN in time: the thread's own timer, whose signal also sets immediate_exit, so that it ends a KVM_RUN
// that has not begun yet. One per environment, which is one per thread.
//
// The timer is not set at every KVM_RUN, which costs a system call, but only where the one that is pending comes too
// late. One that comes too early, or while nothing runs, does no harm. It comes again until its handler has run: under a
// sanitizer, signals interrupt a system call and their handlers run later.
class Runner {
 public:
  Runner() = default;
  Runner(const Runner&) = delete;
  Runner& operator=(const Runner&) = delete;
  ~Runner();
  // Makes the timer at the first call. @returns 0 or a negative errno
  int prepare();
  // From now on the timer sets `run->immediate_exit`, at `deadline` at the latest (CLOCK_MONOTONIC, ns).
  void watch(abi::run* run, uint64_t deadline);
  void unwatch() { current_.store(nullptr); }
  // Whether the timer came since watch().
  bool fired() const { return fired_.load(); }
  pid_t tid() const { return tid_; }
  // From the signal handler, on the thread itself.
  void fire();

 private:
  bool ready_ = false;
  timer_t timer_{};
  pid_t tid_ = 0;
  uint64_t armed_until_ = 0;
  std::atomic<bool> armed_{false};
  std::atomic<bool> fired_{false};
  std::atomic<abi::run*> current_{nullptr};
};

class VcpuThread;

class Vcpu final : public Resource {
 public:
  Vcpu(int fd, std::shared_ptr<VmState> vm) : Resource(Kind::vcpu, fd), vm(std::move(vm)) {}
  ~Vcpu() override { close(); }
  std::shared_ptr<VmState> vm;
  // struct kvm_run and what follows it.
  std::shared_ptr<Mapping> run;
  // What other threads know it by; 0 before publish().
  uint64_t token = 0;

  // Gives it its token.
  void publish();
  // KVM_RUN for at most `limit_ns`. @returns 0 an exit, 1 the time is over, or a negative errno: -EINTR for a kick,
  // immediate_exit, or a change that the kernel reports so
  int64_t enter(Runner& runner, uint64_t limit_ns);
  // KVM_RUN on the thread `tid`, the caller's, for as long as the guest likes.
  int64_t enter(pid_t tid);
  // Ends enter(), or the next one. From any thread.
  void kick();
  // Until it is called with false, enter(tid) ends at once. From any thread.
  void interrupt(bool on);
  bool interrupted() const { return interrupted_.load(); }
  void set_immediate_exit(bool on);
  bool busy() const override;
  // What its own thread answers reads of a register at `address` with, instead of telling of them. Another register only behind
  // answer_none(): address and value are not read in one.
  void answer_reads(uint64_t address, uint32_t value);
  void answer_none();
  // Answers the exit that KVM_RUN left, if it is such a read.
  bool answered();
  // Its own thread, once it has had one.
  std::shared_ptr<VcpuThread> thread;

 protected:
  void before_close() override;
  void after_close() override;

 private:
  abi::run* area() const { return reinterpret_cast<abi::run*>(run->data()); }
  void signal();
  std::atomic<bool> kicked_{false};
  std::atomic<bool> interrupted_{false};
  // The thread inside enter(), 0 for none.
  std::atomic<pid_t> running_{0};
  std::atomic<bool> immediate_exit_{false};
  static constexpr uint64_t no_register = UINT64_MAX;
  std::atomic<uint64_t> answered_address_{no_register};
  std::atomic<uint32_t> answered_value_{0};
};

// Kicks the vCPU of a token. @returns whether it is there
bool kick_token(uint64_t token);

// The signal that ends KVM_RUN; a negative errno where none could be had.
int kick_signal();

}  // namespace elvisor
