// A thread for each vCPU, and how its exits come to JavaScript and the answers back.
#include "vcpu_thread.h"

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>

#include "environment.h"
#include "vcpu.h"

namespace elvisor {
namespace {

constexpr size_t stack_size = 256 << 10;
// How long a vCPU that has exited waits awake for its answer: an event loop that is looking answers in a microsecond, one
// that has to be woken in some ten.
constexpr uint64_t answer_spin_ns = 30'000;
// How long the event loop looks on for another exit.
constexpr uint64_t max_patience_ns = 30'000;
constexpr uint64_t min_patience_ns = 2'000;
// How long exits may keep the event loop from everything else.
constexpr uint64_t turn_ns = 1'000'000;
constexpr unsigned spins_a_look = 16;

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  asm volatile("isb" ::: "memory");
#endif
}

// Waiting awake for another thread is of use only where it can run meanwhile.
bool can_spin() {
  static const bool several = [] {
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 1;
  }();
  return several;
}

long futex(std::atomic<uint32_t>& word, int operation, uint32_t value) {
  return syscall(SYS_futex, &word, operation | FUTEX_PRIVATE_FLAG, value, nullptr, nullptr, 0);
}

}  // namespace

// --- VcpuThread -----------------------------------------------------------------------------------------------------

void VcpuThread::become(State next) {
  state_.store(next);
  if (sleepers_.load() != 0) futex(state_, FUTEX_WAKE, INT32_MAX);
}

void VcpuThread::wait_while(State state) {
  sleepers_.fetch_add(1);
  while (state_.load() == state) futex(state_, FUTEX_WAIT, state);
  sleepers_.fetch_sub(1);
}

VcpuThread::State VcpuThread::wait_for_orders() {
  uint32_t state = state_.load();
  if (state == State::exited && can_spin()) {
    const uint64_t end = now_ns() + answer_spin_ns;
    do {
      for (unsigned i = 0; i < spins_a_look && state == State::exited; i++) {
        relax();
        state = state_.load();
      }
    } while (state == State::exited && now_ns() < end);
  }
  while (state == State::exited || state == State::parked) {
    wait_while(static_cast<State>(state));
    state = state_.load();
  }
  return static_cast<State>(state);
}

void* VcpuThread::main(void* self) {
  static_cast<VcpuThread*>(self)->loop();
  return nullptr;
}

void VcpuThread::loop() {
  // Signals of the process are other threads' business; the one that kicks must come through.
  sigset_t set;
  sigfillset(&set);
  sigdelset(&set, kick_signal());
  pthread_sigmask(SIG_SETMASK, &set, nullptr);
  const auto tid = static_cast<pid_t>(syscall(SYS_gettid));
  while (wait_for_orders() == State::running) {
    result_ = vcpu_.enter(tid);
    if (result_ == 0 && vcpu_.answered()) continue;
    if (result_ == -EINTR && vcpu_.interrupted()) {
      become(State::parked);
    } else {
      become(State::exited);
      environment_.bell.ring();
    }
  }
}

int VcpuThread::start(napi_value self, napi_value listener) {
  if (started()) return -EBUSY;
  napi_env env = environment_.env;
  if (const int signal = kick_signal(); signal < 0) return signal;
  if (const int error = environment_.bell.prepare(); error != 0) return error;
  if (napi_create_reference(env, listener, 1, &listener_) != napi_ok) return -ENOMEM;
  if (napi_create_reference(env, self, 1, &self_) != napi_ok) {
    napi_delete_reference(env, std::exchange(listener_, nullptr));
    return -ENOMEM;
  }
  if (!created_) {
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, stack_size);
    // The thread begins with every signal blocked: one that came before its mask is set would be handled there.
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    const int error = pthread_create(&thread_, &attributes, main, this);
    pthread_sigmask(SIG_SETMASK, &old, nullptr);
    pthread_attr_destroy(&attributes);
    if (error != 0) {
      stop();
      return -error;
    }
    created_ = true;
    pthread_setname_np(thread_, "elvisor-vcpu");
    environment_.bell.add(shared_from_this());
  }
  answering_ = false;
  if (waits()) {
    environment_.bell.ring();
  } else {
    told_ = false;
    become(State::running);
  }
  return 0;
}

void VcpuThread::stop() {
  answering_ = false;
  if (state_.load() == State::running) {
    vcpu_.interrupt(true);
    wait_while(State::running);
    vcpu_.interrupt(false);
  }
  napi_env env = environment_.env;
  if (listener_ != nullptr) napi_delete_reference(env, std::exchange(listener_, nullptr));
  if (self_ != nullptr) napi_delete_reference(env, std::exchange(self_, nullptr));
}

void VcpuThread::end() {
  if (!created_) return;
  stop();
  become(State::ended);
  pthread_join(thread_, nullptr);
  created_ = false;
  environment_.bell.remove(this);
}

void VcpuThread::answer() {
  napi_env env = environment_.env;
  napi_handle_scope scope;
  if (napi_open_handle_scope(env, &scope) != napi_ok) return;
  told_ = true;
  answering_ = true;
  napi_value listener = nullptr, global = nullptr, argument = nullptr;
  if (napi_get_reference_value(env, listener_, &listener) == napi_ok && listener != nullptr &&
      napi_get_global(env, &global) == napi_ok && napi_create_int64(env, result_, &argument) == napi_ok &&
      napi_make_callback(env, nullptr, global, listener, 1, &argument, nullptr) == napi_pending_exception) {
    // The listener threw: an uncaught exception, as of every callback.
    napi_value error;
    if (napi_get_and_clear_last_exception(env, &error) == napi_ok) napi_fatal_exception(env, error);
  }
  napi_close_handle_scope(env, scope);
  if (!std::exchange(answering_, false)) return;
  told_ = false;
  become(State::running);
}

// --- Bell -----------------------------------------------------------------------------------------------------------

int Bell::prepare() {
  if (ready_) return 0;
  if (environment_.ending) return -ECANCELED;
  if (const int error = uv_async_init(environment_.loop, &async_, on_ring); error != 0) return error;
  async_.data = this;
  // A vCPU that runs does not keep the process alive: whoever runs it decides.
  uv_unref(reinterpret_cast<uv_handle_t*>(&async_));
  ready_ = true;
  closed_ = false;
  return 0;
}

void Bell::add(std::shared_ptr<VcpuThread> thread) { threads_.push_back(std::move(thread)); }

void Bell::remove(const VcpuThread* thread) {
  std::erase_if(threads_, [thread](const auto& each) { return each.get() == thread; });
}

void Bell::on_ring(uv_async_t* async) { static_cast<Bell*>(async->data)->answer(); }

bool Bell::answer_all() {
  bool any = false;
  // A listener may close vCPUs, and start others.
  for (size_t i = 0; i < threads_.size(); i++) {
    const std::shared_ptr<VcpuThread> thread = threads_[i];
    if (!thread->waits()) continue;
    thread->answer();
    any = true;
  }
  return any;
}

void Bell::answer() {
  const uint64_t begin = now_ns();
  if (rung_at_.load(std::memory_order_relaxed) - answered_at_ <= max_patience_ns) patience_ = max_patience_ns;
  answered_at_ = begin;
  looking_.store(true);
  for (;;) {
    if (answer_all()) {
      answered_at_ = now_ns();
      if (answered_at_ - begin > turn_ns) break;
      continue;
    }
    if (!can_spin()) break;
    for (unsigned i = 0; i < spins_a_look; i++) relax();
    if (now_ns() - answered_at_ > patience_) {
      patience_ = patience_ / 2 < min_patience_ns ? 0 : patience_ / 2;
      break;
    }
  }
  looking_.store(false);
  // What came just before was not rung for.
  for (const auto& thread : threads_) {
    if (thread->waits()) {
      uv_async_send(&async_);
      break;
    }
  }
}

void Bell::close() {
  const std::vector<std::shared_ptr<VcpuThread>> threads = threads_;
  for (const auto& thread : threads) thread->end();
  if (!ready_) return;
  ready_ = false;
  uv_close(reinterpret_cast<uv_handle_t*>(&async_), [](uv_handle_t* handle) {
    auto* bell = static_cast<Bell*>(handle->data);
    bell->closed_ = true;
    end_if_done(bell->environment_);
  });
}

}  // namespace elvisor
