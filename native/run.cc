// KVM_RUN and how it ends. It blocks the thread, so everything here must bring it back: a kick from another thread, or the
// thread's timer, which comes at least every heartbeat, so that JavaScript, a terminated Worker's last of all, gets its say.
#include <csignal>
#include <cstring>
#include <mutex>
#include <sys/syscall.h>
#include <unistd.h>

#include "vcpu.h"
#include "vcpu_thread.h"

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

namespace elvisor {
namespace {

constexpr uint64_t second = 1'000'000'000;

// A kick has set immediate_exit itself: its signal only has to arrive.
void on_signal(int, siginfo_t* info, void*) {
  if (info->si_code == SI_TIMER) static_cast<Runner*>(info->si_value.sival_ptr)->fire();
}

// The process's vCPUs by token.
std::mutex registry_mutex;
uint64_t last_token = 0;
std::unordered_map<uint64_t, Vcpu*>& registry() {
  // Never destroyed: a Worker may still run while the process's statics go away.
  static auto* vcpus = new std::unordered_map<uint64_t, Vcpu*>;
  return *vcpus;
}

// A plain store that the compiler leaves where it is: the kernel reads the byte.
void store_immediate_exit(abi::run* run, bool on) {
  __atomic_store_n(&run->immediate_exit, on ? 1 : 0, __ATOMIC_SEQ_CST);
}

int find_signal() {
  for (int signal = SIGRTMIN + 4; signal <= SIGRTMAX; signal++) {
    struct sigaction old {};
    if (sigaction(signal, nullptr, &old) != 0 || (old.sa_flags & SA_SIGINFO) != 0 || old.sa_handler != SIG_DFL) continue;
    struct sigaction action {};
    action.sa_sigaction = on_signal;
    // SA_RESTART spares what else the thread does; KVM_RUN answers EINTR all the same, it is never restarted.
    action.sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    if (sigaction(signal, &action, nullptr) == 0) return signal;
  }
  return -EAGAIN;
}

}  // namespace

int kick_signal() {
  static const int signal = find_signal();
  return signal;
}

// --- Runner ---------------------------------------------------------------------------------------------------------

Runner::~Runner() {
  // Its signal goes to this thread alone, so none is on its way when this returns.
  if (ready_) timer_delete(timer_);
}

int Runner::prepare() {
  if (ready_) return 0;
  const int signal = kick_signal();
  if (signal < 0) return signal;
  tid_ = static_cast<pid_t>(syscall(SYS_gettid));
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, signal);
  if (const int error = pthread_sigmask(SIG_UNBLOCK, &set, nullptr); error != 0) return -error;
  sigevent event{};
  event.sigev_notify = SIGEV_THREAD_ID;
  event.sigev_signo = signal;
  event.sigev_value.sival_ptr = this;
  event.sigev_notify_thread_id = tid_;
  if (timer_create(CLOCK_MONOTONIC, &event, &timer_) != 0) return -errno;
  ready_ = true;
  return 0;
}

void Runner::watch(abi::run* run, uint64_t deadline) {
  fired_.store(false);
  current_.store(run);
  if (armed_.load() && armed_until_ <= deadline) return;
  armed_until_ = deadline;
  armed_.store(true);
  itimerspec spec{};
  spec.it_value.tv_sec = static_cast<time_t>(deadline / second);
  spec.it_value.tv_nsec = static_cast<long>(deadline % second);
  spec.it_interval.tv_nsec = heartbeat_ns;
  timer_settime(timer_, TIMER_ABSTIME, &spec, nullptr);
}

void Runner::fire() {
  armed_.store(false);
  fired_.store(true);
  if (abi::run* run = current_.load()) {
    store_immediate_exit(run, true);
  } else {
    const itimerspec off{};
    timer_settime(timer_, 0, &off, nullptr);
  }
}

// --- Vcpu -----------------------------------------------------------------------------------------------------------

void Vcpu::publish() {
  const std::lock_guard lock(registry_mutex);
  token = ++last_token;
  registry().emplace(token, this);
}

void Vcpu::before_close() {
  if (thread != nullptr) thread->end();
  const std::lock_guard lock(registry_mutex);
  if (token != 0) registry().erase(token);
}

void Vcpu::after_close() {
  run.reset();
  vm.reset();
}

int64_t Vcpu::enter(Runner& runner, uint64_t limit_ns) {
  if (const int error = runner.prepare(); error != 0) return error;
  const uint64_t deadline = now_ns() + limit_ns;
  int64_t result;
  running_.store(runner.tid());
  for (;;) {
    runner.watch(area(), deadline);
    // In this order: whoever comes in between has its flag seen here, or finds immediate_exit written after ours.
    store_immediate_exit(area(), immediate_exit_);
    if (kicked_.load() || runner.fired()) store_immediate_exit(area(), true);
    result = kvm_ioctl(*this, abi::RUN);
    if (result != -EINTR || kicked_.exchange(false) || immediate_exit_ || !runner.fired()) break;
    if (now_ns() >= deadline) {
      result = 1;
      break;
    }
  }
  runner.unwatch();
  running_.store(0);
  store_immediate_exit(area(), immediate_exit_);
  return result;
}

int64_t Vcpu::enter(pid_t tid) {
  running_.store(tid);
  store_immediate_exit(area(), immediate_exit_);
  if (kicked_.load() || interrupted_.load()) store_immediate_exit(area(), true);
  const int64_t result = kvm_ioctl(*this, abi::RUN);
  if (result == -EINTR) kicked_.store(false);
  running_.store(0);
  store_immediate_exit(area(), immediate_exit_);
  return result;
}

void Vcpu::signal() {
  store_immediate_exit(area(), true);
  const pid_t thread = running_.load();
  if (thread != 0) syscall(SYS_tgkill, getpid(), thread, kick_signal());
}

void Vcpu::kick() {
  kicked_.store(true);
  signal();
}

void Vcpu::interrupt(bool on) {
  interrupted_.store(on);
  if (on) signal();
}

bool Vcpu::busy() const { return thread != nullptr && thread->in_guest(); }

void Vcpu::answer_reads(uint64_t address, uint32_t value) {
  answered_value_.store(value);
  answered_address_.store(address);
}

void Vcpu::answer_none() { answered_address_.store(no_register); }

bool Vcpu::answered() {
  auto& [address, data, length, is_write] = area()->mmio;
  if (area()->exit_reason != abi::EXIT_MMIO || is_write != 0 || address != answered_address_.load()) return false;
  const uint32_t value = answered_value_.load();
  // The value is that register's if it has been answered for all the while.
  if (address != answered_address_.load() || length > sizeof value) return false;
  std::memcpy(data, &value, length);
  return true;
}

void Vcpu::set_immediate_exit(bool on) {
  immediate_exit_ = on;
  store_immediate_exit(area(), on);
}

bool kick_token(uint64_t token) {
  // The lock keeps the vCPU from being closed meanwhile.
  const std::lock_guard lock(registry_mutex);
  const auto found = registry().find(token);
  if (found == registry().end()) return false;
  found->second->kick();
  return true;
}

}  // namespace elvisor
