// What VM, vCPU and device fds share: attributes, and statistics.
#include <unistd.h>

#include <array>
#include <cstring>

#include "handle.h"
#include "kvm_abi.h"
#include "vcpu.h"

namespace elvisor {
namespace {

constexpr uint32_t with_attributes = Kind::vm | Kind::vcpu | Kind::device;

// The kernel reads or writes as many bytes as the attribute has, whatever the caller gave: it does so here.
using Payload = std::array<uint8_t, 4096>;

// (handle, group, attr) of every call on an attribute.
bool read_attr(const Args& args, abi::device_attr& attr) { return args.u32(1, attr.group) && args.u64(2, attr.attr); }

// setDeviceAttr(handle, group, attr, payload or undefined)
napi_value set_device_attr(const Args& args) {
  auto* resource = args.open_any(0, with_attributes);
  if (resource == nullptr) return number(args.env(), -EBADF);
  if (resource->busy()) return number(args.env(), -EBUSY);
  abi::device_attr attr{};
  alignas(8) Payload payload{};
  std::span<uint8_t> given;
  if (!read_attr(args, attr)) return number(args.env(), -EINVAL);
  if (!args.absent(3)) {
    if (!args.bytes(3, given) || given.size() > payload.size()) return number(args.env(), -EINVAL);
    if (!given.empty()) std::memcpy(payload.data(), given.data(), given.size());
    attr.addr = reinterpret_cast<uint64_t>(payload.data());
  }
  return number(args.env(), kvm_ioctl(*resource, abi::SET_DEVICE_ATTR, &attr));
}

// getDeviceAttr(handle, group, attr, payload): what the payload holds is input, for attributes that take some.
napi_value get_device_attr(const Args& args) {
  auto* resource = args.open_any(0, with_attributes);
  if (resource == nullptr) return number(args.env(), -EBADF);
  if (resource->busy()) return number(args.env(), -EBUSY);
  abi::device_attr attr{};
  alignas(8) Payload payload{};
  std::span<uint8_t> given;
  if (!read_attr(args, attr) || !args.bytes(3, given) || given.size() > payload.size() || given.empty()) {
    return number(args.env(), -EINVAL);
  }
  std::memcpy(payload.data(), given.data(), given.size());
  attr.addr = reinterpret_cast<uint64_t>(payload.data());
  const int64_t result = kvm_ioctl(*resource, abi::GET_DEVICE_ATTR, &attr);
  if (result >= 0) std::memcpy(given.data(), payload.data(), given.size());
  return number(args.env(), result);
}

// hasDeviceAttr(handle, group, attr)
napi_value has_device_attr(const Args& args) {
  auto* resource = args.open_any(0, with_attributes);
  if (resource == nullptr) return number(args.env(), -EBADF);
  if (resource->busy()) return number(args.env(), -EBUSY);
  abi::device_attr attr{};
  if (!read_attr(args, attr)) return number(args.env(), -EINVAL);
  return number(args.env(), kvm_ioctl(*resource, abi::HAS_DEVICE_ATTR, &attr));
}

// getStatsFd(vm or vcpu)
napi_value get_stats_fd(const Args& args) {
  auto* resource = args.open_any(0, Kind::vm | Kind::vcpu);
  if (resource == nullptr) return number(args.env(), -EBADF);
  if (resource->busy()) return number(args.env(), -EBUSY);
  const int64_t fd = kvm_ioctl(*resource, abi::GET_STATS_FD);
  if (fd < 0) return number(args.env(), fd);
  auto state = resource->kind() == Kind::vm ? static_cast<Vm*>(resource)->state : static_cast<Vcpu*>(resource)->vm;
  return make_handle(args, std::make_shared<Child>(Kind::stats, static_cast<int>(fd), std::move(state)));
}

// readStats(stats, offset, buffer): pread(2), the bytes read.
napi_value read_stats(const Args& args) {
  auto* stats = args.open_any(0, static_cast<uint32_t>(Kind::stats));
  if (stats == nullptr) return number(args.env(), -EBADF);
  uint64_t offset;
  std::span<uint8_t> buffer;
  if (!args.u53(1, offset) || !args.bytes(2, buffer)) return number(args.env(), -EINVAL);
  const ssize_t count = pread(stats->fd.get(), buffer.data(), buffer.size(), static_cast<off_t>(offset));
  return count < 0 ? failed(args.env()) : number(args.env(), count);
}

constexpr Export exports[] = {
    {"setDeviceAttr", entry<set_device_attr>}, {"getDeviceAttr", entry<get_device_attr>},
    {"hasDeviceAttr", entry<has_device_attr>}, {"getStatsFd", entry<get_stats_fd>},
    {"readStats", entry<read_stats>},
};

}  // namespace

std::span<const Export> device_exports() { return exports; }

}  // namespace elvisor
