// What JavaScript holds: an external that stands for a shared pointer to a Resource. Nothing here throws, in either language.
#pragma once

#include <napi.h>

#include <cerrno>
#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <unordered_set>
#include <utility>

namespace elvisor {

class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(const UniqueFd&) = delete;
  UniqueFd& operator=(const UniqueFd&) = delete;
  ~UniqueFd() { reset(); }
  int get() const { return fd_; }
  void reset(int fd = -1);

 private:
  int fd_ = -1;
};

// An mmap. It stays for as long as anything can reach it: a handle, an ArrayBuffer, a memory slot of a VM.
class Mapping {
 public:
  Mapping(void* address, size_t size) : address_(static_cast<uint8_t*>(address)), size_(size) {}
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping();
  uint8_t* data() const { return address_; }
  size_t size() const { return size_; }

 private:
  uint8_t* address_;
  size_t size_;
};

enum class Kind : uint32_t { system = 1, vm = 2, vcpu = 4, device = 8, stats = 16, eventfd = 32, memory = 64 };
constexpr uint32_t operator|(Kind a, Kind b) { return static_cast<uint32_t>(a) | static_cast<uint32_t>(b); }
constexpr uint32_t operator|(uint32_t a, Kind b) { return a | static_cast<uint32_t>(b); }

class Resource {
 public:
  explicit Resource(Kind kind, int fd = -1) : fd(fd), kind_(kind) {}
  Resource(const Resource&) = delete;
  Resource& operator=(const Resource&) = delete;
  virtual ~Resource() = default;  // a derived class closes in its own, while it is whole
  Kind kind() const { return kind_; }
  bool closed() const { return closed_; }
  // The kernel would let a call on it wait for KVM_RUN to end.
  virtual bool busy() const { return false; }
  // Gives back what it holds. Idempotent.
  void close() {
    if (std::exchange(closed_, true)) return;
    before_close();
    fd.reset();
    after_close();
  }
  UniqueFd fd;

 protected:
  virtual void before_close() {}
  virtual void after_close() {}

 private:
  Kind kind_;
  bool closed_ = false;
};

class Memory final : public Resource {
 public:
  // `fd` is a guest_memfd's, or -1; `mapping` is null for a guest_memfd that cannot be mapped.
  Memory(std::shared_ptr<Mapping> mapping, size_t size, int fd = -1)
      : Resource(Kind::memory, fd), mapping(std::move(mapping)), size(size) {}
  ~Memory() override { close(); }
  std::shared_ptr<Mapping> mapping;
  const size_t size;

 protected:
  void after_close() override { mapping.reset(); }
};

// What the kernel's struct kvm keeps for all fds of a VM: it lives until the last of them is closed, because until then
// a vCPU may still write to the memory of a slot.
struct VmState {
  struct Slot {
    uint64_t size;
    std::shared_ptr<Mapping> mapping;
  };
  std::unordered_map<uint32_t, Slot> slots;
};

class Vm final : public Resource {
 public:
  Vm(int fd, size_t run_size) : Resource(Kind::vm, fd), state(std::make_shared<VmState>()), run_size(run_size) {}
  ~Vm() override { close(); }
  std::shared_ptr<VmState> state;
  // KVM_GET_VCPU_MMAP_SIZE.
  const size_t run_size;

 protected:
  void after_close() override { state.reset(); }
};

// A device or statistics fd: it, too, keeps the VM.
class Child final : public Resource {
 public:
  Child(Kind kind, int fd, std::shared_ptr<VmState> vm) : Resource(kind, fd), vm_(std::move(vm)) {}
  ~Child() override { close(); }

 protected:
  void after_close() override { vm_.reset(); }

 private:
  std::shared_ptr<VmState> vm_;
};

class EventFd final : public Resource {
 public:
  explicit EventFd(int fd) : Resource(Kind::eventfd, fd) {}
  ~EventFd() override { close(); }
  // Its place in the event loop, while somebody listens.
  struct Poll* poll = nullptr;

 protected:
  void before_close() override;
};

class System final : public Resource {
 public:
  explicit System(int fd) : Resource(Kind::system, fd) {}
  // KVM_GET_VCPU_MMAP_SIZE.
  size_t run_size = 0;
};

// --- Handles --------------------------------------------------------------------------------------------------------

// What a handle's external points to.
struct Holder;

// The handles of one environment. An external's pointer is looked up here before it is followed: other addons have
// externals, too, and so has Node.
using Handles = std::unordered_set<const Holder*>;

// --- Calls ----------------------------------------------------------------------------------------------------------

// The arguments of a call. Each getter says whether the argument is what the call takes; the call then answers -EINVAL,
// or -EBADF for a handle of another kind or a closed one.
class Args {
 public:
  static constexpr size_t max = 8;
  Args(napi_env env, napi_callback_info info) : env_(env) {
    size_ = max;
    if (napi_get_cb_info(env, info, &size_, values_, nullptr, &data_) != napi_ok) size_ = 0;
    if (size_ > max) size_ = max;
  }
  napi_env env() const { return env_; }
  void* data() const { return data_; }
  // The i-th argument; null where there is none.
  napi_value operator[](size_t i) const { return i < size_ ? values_[i] : nullptr; }
  bool absent(size_t i) const;

  bool u32(size_t i, uint32_t& out) const;
  // An integer from 0 to 2^53 - 1: an address or a size.
  bool u53(size_t i, uint64_t& out) const;
  // A bigint from 0 to 2^64 - 1.
  bool u64(size_t i, uint64_t& out) const;
  bool boolean(size_t i, bool& out) const;
  // A Uint8Array.
  bool bytes(size_t i, std::span<uint8_t>& out) const;
  // An open handle of exactly this kind.
  template <class T>
  T* open(size_t i, Kind kind) const {
    return static_cast<T*>(open_any(i, static_cast<uint32_t>(kind)));
  }
  Resource* open_any(size_t i, uint32_t kinds) const;
  // A handle of this environment, open or closed; null for anything else.
  Resource* any(size_t i) const;

 private:
  napi_env env_;
  napi_value values_[max];
  size_t size_;
  void* data_ = nullptr;
};

// A fresh handle of `resource`, closed by the garbage collector if by nobody else; a negative errno on failure.
napi_value make_handle(const Args& args, std::shared_ptr<Resource> resource);

napi_value number(napi_env env, int64_t value);
inline napi_value failed(napi_env env) { return number(env, -errno); }

// ioctl(2) on a descriptor of a resource, with the pointer or integer that the request takes.
int64_t kvm_ioctl(const Resource& resource, unsigned long request, const void* arg);
int64_t kvm_ioctl(const Resource& resource, unsigned long request, unsigned long arg = 0);

size_t page_size();

// CLOCK_MONOTONIC.
uint64_t now_ns();

// mmap(2), shared, from `offset` bytes on; null, with errno, where it fails.
std::shared_ptr<Mapping> map_fd(int fd, size_t size, off_t offset = 0);

// An ArrayBuffer over a mapping, which stays mapped until the buffer is collected or detached; a negative errno on failure.
napi_value buffer_of(napi_env env, const std::shared_ptr<Mapping>& mapping);
// The same over a part of it, which must lie inside.
napi_value buffer_of(napi_env env, const std::shared_ptr<Mapping>& mapping, size_t offset, size_t length);

// A call: takes the arguments, answers a number (a negative errno on failure) or a handle.
using Call = napi_value (*)(const Args&);
template <Call call>
napi_value entry(napi_env env, napi_callback_info info) {
  return call(Args(env, info));
}

struct Export {
  const char* name;
  napi_callback function;
};
// Each file's functions.
std::span<const Export> system_exports();
std::span<const Export> vm_exports();
std::span<const Export> vcpu_exports();
std::span<const Export> device_exports();
std::span<const Export> memory_exports();
std::span<const Export> eventfd_exports();

}  // namespace elvisor
