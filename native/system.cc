// /dev/kvm itself: the calls on the system fd.
#include <fcntl.h>

#include <array>
#include <cstring>

#include "handle.h"
#include "kvm_abi.h"

namespace elvisor {
namespace {

// openKvm(path): a path without NUL, at most 4095 bytes.
napi_value open_kvm(const Args& args) {
  std::array<char, 4096> path;
  size_t length = 0;
  napi_valuetype type;
  if (args.absent(0) || napi_typeof(args.env(), args[0], &type) != napi_ok || type != napi_string ||
      napi_get_value_string_utf8(args.env(), args[0], path.data(), path.size(), &length) != napi_ok ||
      length >= path.size() - 1 || std::memchr(path.data(), 0, length) != nullptr) {
    return number(args.env(), -EINVAL);
  }
  const int fd = open(path.data(), O_RDWR | O_CLOEXEC);
  if (fd < 0) return failed(args.env());
  auto system = std::make_shared<System>(fd);
  const int64_t version = kvm_ioctl(*system, abi::GET_API_VERSION);
  if (version < 0) return number(args.env(), version);
  const int64_t run_size = kvm_ioctl(*system, abi::GET_VCPU_MMAP_SIZE);
  if (run_size < 0) return number(args.env(), run_size);
  if (static_cast<size_t>(run_size) < abi::run_size) return number(args.env(), -EINVAL);
  system->run_size = static_cast<size_t>(run_size);
  return make_handle(args, std::move(system));
}

napi_value get_api_version(const Args& args) {
  auto* system = args.open<System>(0, Kind::system);
  if (system == nullptr) return number(args.env(), -EBADF);
  return number(args.env(), kvm_ioctl(*system, abi::GET_API_VERSION));
}

napi_value get_vcpu_mmap_size(const Args& args) {
  auto* system = args.open<System>(0, Kind::system);
  if (system == nullptr) return number(args.env(), -EBADF);
  return number(args.env(), kvm_ioctl(*system, abi::GET_VCPU_MMAP_SIZE));
}

// checkExtension(system or vm, cap)
napi_value check_extension(const Args& args) {
  auto* resource = args.open_any(0, Kind::system | Kind::vm);
  if (resource == nullptr) return number(args.env(), -EBADF);
  uint32_t cap;
  if (!args.u32(1, cap)) return number(args.env(), -EINVAL);
  return number(args.env(), kvm_ioctl(*resource, abi::CHECK_EXTENSION, static_cast<unsigned long>(cap)));
}

// createVm(system, type)
napi_value create_vm(const Args& args) {
  auto* system = args.open<System>(0, Kind::system);
  if (system == nullptr) return number(args.env(), -EBADF);
  uint32_t type;
  if (!args.u32(1, type)) return number(args.env(), -EINVAL);
  const int64_t fd = kvm_ioctl(*system, abi::CREATE_VM, static_cast<unsigned long>(type));
  if (fd < 0) return number(args.env(), fd);
  return make_handle(args, std::make_shared<Vm>(static_cast<int>(fd), system->run_size));
}

// close(handle): idempotent.
napi_value close_handle(const Args& args) {
  Resource* resource = args.any(0);
  if (resource == nullptr) return number(args.env(), -EBADF);
  resource->close();
  return number(args.env(), 0);
}

napi_value get_page_size(const Args& args) { return number(args.env(), static_cast<int64_t>(page_size())); }

constexpr Export exports[] = {
    {"openKvm", entry<open_kvm>},
    {"getApiVersion", entry<get_api_version>},
    {"getVcpuMmapSize", entry<get_vcpu_mmap_size>},
    {"checkExtension", entry<check_extension>},
    {"createVm", entry<create_vm>},
    {"close", entry<close_handle>},
    {"pageSize", entry<get_page_size>},
};

}  // namespace

std::span<const Export> system_exports() { return exports; }

}  // namespace elvisor
