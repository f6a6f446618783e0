#include "handle.h"

#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmath>
#include <ctime>

#include "environment.h"
#include "kvm_abi.h"

namespace elvisor {

struct Holder {
  std::shared_ptr<Resource> resource;
  // Its own, because the garbage collector may come after the environment's end.
  std::shared_ptr<Handles> handles;
};

namespace {

void finalize(napi_env, void* data, void*) {
  auto* holder = static_cast<Holder*>(data);
  holder->handles->erase(holder);
  delete holder;
}

}  // namespace

void UniqueFd::reset(int fd) {
  if (fd_ >= 0) close(fd_);
  fd_ = fd;
}

Mapping::~Mapping() { munmap(address_, size_); }

std::shared_ptr<Mapping> map_fd(int fd, size_t size, off_t offset) {
  void* address = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, offset);
  if (address == MAP_FAILED) return nullptr;
  return std::make_shared<Mapping>(address, size);
}

napi_value make_handle(const Args& args, std::shared_ptr<Resource> resource) {
  auto& handles = environment(args).handles;
  auto* holder = new Holder{std::move(resource), handles};
  napi_value external;
  if (napi_create_external(args.env(), holder, finalize, nullptr, &external) != napi_ok) {
    delete holder;
    return number(args.env(), -ENOMEM);
  }
  handles->insert(holder);
  return external;
}

bool Args::absent(size_t i) const {
  napi_valuetype type;
  return i >= size_ || napi_typeof(env_, values_[i], &type) != napi_ok || type == napi_undefined;
}

bool Args::u53(size_t i, uint64_t& out) const {
  double value;
  if (i >= size_ || napi_get_value_double(env_, values_[i], &value) != napi_ok) return false;
  if (!(value >= 0 && value <= 9007199254740991.0) || std::trunc(value) != value) return false;
  out = static_cast<uint64_t>(value);
  return true;
}

bool Args::u32(size_t i, uint32_t& out) const {
  uint64_t value;
  if (!u53(i, value) || value > UINT32_MAX) return false;
  out = static_cast<uint32_t>(value);
  return true;
}

bool Args::u64(size_t i, uint64_t& out) const {
  bool lossless = false;
  return i < size_ && napi_get_value_bigint_uint64(env_, values_[i], &out, &lossless) == napi_ok && lossless;
}

bool Args::boolean(size_t i, bool& out) const {
  return i < size_ && napi_get_value_bool(env_, values_[i], &out) == napi_ok;
}

bool Args::bytes(size_t i, std::span<uint8_t>& out) const {
  if (i >= size_) return false;
  bool is = false;
  if (napi_is_typedarray(env_, values_[i], &is) != napi_ok || !is) return false;
  napi_typedarray_type type;
  size_t length = 0;
  void* data = nullptr;
  if (napi_get_typedarray_info(env_, values_[i], &type, &length, &data, nullptr, nullptr) != napi_ok) return false;
  if (type != napi_uint8_array) return false;
  out = {static_cast<uint8_t*>(data), data == nullptr ? 0 : length};
  return true;
}

Resource* Args::any(size_t i) const {
  void* data = nullptr;
  if (i >= size_ || napi_get_value_external(env_, values_[i], &data) != napi_ok) return nullptr;
  const auto* holder = static_cast<const Holder*>(data);
  return environment(*this).handles->contains(holder) ? holder->resource.get() : nullptr;
}

Resource* Args::open_any(size_t i, uint32_t kinds) const {
  Resource* resource = any(i);
  if (resource == nullptr || resource->closed()) return nullptr;
  return (static_cast<uint32_t>(resource->kind()) & kinds) != 0 ? resource : nullptr;
}

napi_value number(napi_env env, int64_t value) {
  napi_value result = nullptr;
  napi_create_int64(env, value, &result);
  return result;
}

// syscall(2), because the type of ioctl()'s request is not the same in glibc and musl. Only KVM_RUN is ended by a signal:
// others, KVM_CREATE_VM for one, are repeated, because the timer that ends KVM_RUN may come after it.
int64_t kvm_ioctl(const Resource& resource, unsigned long request, unsigned long arg) {
  long result;
  do {
    result = syscall(SYS_ioctl, resource.fd.get(), request, arg);
  } while (result < 0 && errno == EINTR && request != abi::RUN);
  return result < 0 ? -errno : result;
}

int64_t kvm_ioctl(const Resource& resource, unsigned long request, const void* arg) {
  return kvm_ioctl(resource, request, reinterpret_cast<unsigned long>(arg));
}

size_t page_size() {
  static const auto size = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return size;
}

uint64_t now_ns() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<uint64_t>(time.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(time.tv_nsec);
}

}  // namespace elvisor
