// The calls on a VM fd.
#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "handle.h"
#include "kvm_abi.h"
#include "vcpu.h"

namespace elvisor {
namespace {

// KVM_MAX_IRQ_ROUTES.
constexpr size_t max_routes = 4096;

// enableCap(vm, cap, flags, arg0, arg1, arg2, arg3)
napi_value enable_cap(const Args& args) {
  auto* vm = args.open<Vm>(0, Kind::vm);
  if (vm == nullptr) return number(args.env(), -EBADF);
  abi::enable_cap cap{};
  bool ok = args.u32(1, cap.cap) && args.u32(2, cap.flags);
  for (size_t i = 0; i < 4; i++) ok = ok && args.u64(3 + i, cap.args[i]);
  if (!ok) return number(args.env(), -EINVAL);
  return number(args.env(), kvm_ioctl(*vm, abi::ENABLE_CAP, &cap));
}

// setUserMemoryRegion(vm, slot, flags, guestPhysAddr, memorySize, memory or undefined, memoryOffset)
napi_value set_user_memory_region(const Args& args) {
  auto* vm = args.open<Vm>(0, Kind::vm);
  if (vm == nullptr) return number(args.env(), -EBADF);
  abi::userspace_memory_region2 region{};
  auto& base = region.base;
  uint64_t offset;
  if (!args.u32(1, base.slot) || !args.u32(2, base.flags) || !args.u53(3, base.guest_phys_addr) ||
      !args.u53(4, base.memory_size) || !args.u53(6, offset)) {
    return number(args.env(), -EINVAL);
  }
  Memory* memory = nullptr;
  if (!args.absent(5)) {
    memory = args.open<Memory>(5, Kind::memory);
    if (memory == nullptr) return number(args.env(), -EBADF);
    if (offset > memory->size || base.memory_size > memory->size - offset) return number(args.env(), -EINVAL);
    if (memory->mapping != nullptr) base.userspace_addr = reinterpret_cast<uint64_t>(memory->mapping->data()) + offset;
  } else if (base.memory_size != 0) {
    return number(args.env(), -EINVAL);
  }
  const bool private_memory = (base.flags & abi::MEM_GUEST_MEMFD) != 0;
  if (private_memory) {
    if (memory == nullptr || memory->fd.get() < 0) return number(args.env(), -EINVAL);
    region.guest_memfd = static_cast<uint32_t>(memory->fd.get());
    region.guest_memfd_offset = offset;
  } else if (base.memory_size != 0 && base.userspace_addr == 0) {
    return number(args.env(), -EINVAL);
  }
  const int64_t result = private_memory ? kvm_ioctl(*vm, abi::SET_USER_MEMORY_REGION2, &region)
                                        : kvm_ioctl(*vm, abi::SET_USER_MEMORY_REGION, &base);
  if (result < 0) return number(args.env(), result);
  if (base.memory_size == 0) {
    vm->state->slots.erase(base.slot);
  } else {
    // The slot may be there with other memory: what it had is let go only now, when the kernel has let go of it.
    vm->state->slots.insert_or_assign(base.slot, VmState::Slot{base.memory_size, memory->mapping});
  }
  return number(args.env(), result);
}

// createVcpu(vm, id)
napi_value create_vcpu(const Args& args) {
  auto* vm = args.open<Vm>(0, Kind::vm);
  if (vm == nullptr) return number(args.env(), -EBADF);
  uint32_t id;
  if (!args.u32(1, id)) return number(args.env(), -EINVAL);
  const int64_t fd = kvm_ioctl(*vm, abi::CREATE_VCPU, static_cast<unsigned long>(id));
  if (fd < 0) return number(args.env(), fd);
  auto vcpu = std::make_shared<Vcpu>(static_cast<int>(fd), vm->state);
  vcpu->run = map_fd(static_cast<int>(fd), vm->run_size);
  if (vcpu->run == nullptr) return failed(args.env());
  vcpu->publish();
  return make_handle(args, std::move(vcpu));
}

// createDevice(vm, type, test): a handle, or 0 where it is only a test.
napi_value create_device(const Args& args) {
  auto* vm = args.open<Vm>(0, Kind::vm);
  if (vm == nullptr) return number(args.env(), -EBADF);
  abi::create_device device{};
  bool test;
  if (!args.u32(1, device.type) || !args.boolean(2, test)) return number(args.env(), -EINVAL);
  if (test) device.flags = abi::CREATE_DEVICE_TEST;
  const int64_t result = kvm_ioctl(*vm, abi::CREATE_DEVICE, &device);
  if (result < 0 || test) return number(args.env(), result);
  return make_handle(args, std::make_shared<Child>(Kind::device, static_cast<int>(device.fd), vm->state));
}

// preferredTarget(vm, out): struct kvm_vcpu_init.
napi_value preferred_target(const Args& args) {
  auto* vm = args.open<Vm>(0, Kind::vm);
  if (vm == nullptr) return number(args.env(), -EBADF);
  std::span<uint8_t> out;
  abi::vcpu_init init{};
  if (!args.bytes(1, out) || out.size() != sizeof init) return number(args.env(), -EINVAL);
  const int64_t result = kvm_ioctl(*vm, abi::ARM_PREFERRED_TARGET, &init);
  if (result >= 0) std::memcpy(out.data(), &init, sizeof init);
  return number(args.env(), result);
}

napi_value create_irqchip(const Args& args) {
  auto* vm = args.open<Vm>(0, Kind::vm);
  if (vm == nullptr) return number(args.env(), -EBADF);
  return number(args.env(), kvm_ioctl(*vm, abi::CREATE_IRQCHIP));
}

// irqLine(vm, irq, level)
napi_value irq_line(const Args& args) {
  auto* vm = args.open<Vm>(0, Kind::vm);
  if (vm == nullptr) return number(args.env(), -EBADF);
  abi::irq_level line{};
  bool level;
  if (!args.u32(1, line.irq) || !args.boolean(2, level)) return number(args.env(), -EINVAL);
  line.level = level ? 1 : 0;
  return number(args.env(), kvm_ioctl(*vm, abi::IRQ_LINE, &line));
}

// setGsiRouting(vm, entries): struct kvm_irq_routing_entry, one after the other.
napi_value set_gsi_routing(const Args& args) {
  auto* vm = args.open<Vm>(0, Kind::vm);
  if (vm == nullptr) return number(args.env(), -EBADF);
  std::span<uint8_t> entries;
  constexpr size_t size = sizeof(abi::irq_routing_entry);
  if (!args.bytes(1, entries) || entries.size() % size != 0 || entries.size() / size > max_routes) {
    return number(args.env(), -EINVAL);
  }
  std::vector<uint64_t> table((sizeof(abi::irq_routing) + entries.size()) / sizeof(uint64_t));
  const abi::irq_routing head{static_cast<uint32_t>(entries.size() / size), 0};
  std::memcpy(table.data(), &head, sizeof head);
  if (!entries.empty()) std::memcpy(table.data() + 1, entries.data(), entries.size());
  return number(args.env(), kvm_ioctl(*vm, abi::SET_GSI_ROUTING, table.data()));
}

// signalMsi(vm, address, data, flags, devid)
napi_value signal_msi(const Args& args) {
  auto* vm = args.open<Vm>(0, Kind::vm);
  if (vm == nullptr) return number(args.env(), -EBADF);
  abi::msi msi{};
  uint64_t address;
  if (!args.u64(1, address) || !args.u32(2, msi.data) || !args.u32(3, msi.flags) || !args.u32(4, msi.devid)) {
    return number(args.env(), -EINVAL);
  }
  msi.address_lo = static_cast<uint32_t>(address);
  msi.address_hi = static_cast<uint32_t>(address >> 32);
  return number(args.env(), kvm_ioctl(*vm, abi::SIGNAL_MSI, &msi));
}

// irqfd(vm, eventfd, gsi, flags, resamplefd or undefined)
napi_value irqfd(const Args& args) {
  auto* vm = args.open<Vm>(0, Kind::vm);
  auto* eventfd = args.open<EventFd>(1, Kind::eventfd);
  if (vm == nullptr || eventfd == nullptr) return number(args.env(), -EBADF);
  abi::irqfd irqfd{};
  if (!args.u32(2, irqfd.gsi) || !args.u32(3, irqfd.flags)) return number(args.env(), -EINVAL);
  irqfd.fd = static_cast<uint32_t>(eventfd->fd.get());
  if (!args.absent(4)) {
    auto* resample = args.open<EventFd>(4, Kind::eventfd);
    if (resample == nullptr) return number(args.env(), -EBADF);
    irqfd.resamplefd = static_cast<uint32_t>(resample->fd.get());
  } else {
    irqfd.resamplefd = UINT32_MAX;
  }
  return number(args.env(), kvm_ioctl(*vm, abi::IRQFD, &irqfd));
}

// ioeventfd(vm, eventfd, addr, len, flags, datamatch)
napi_value ioeventfd(const Args& args) {
  auto* vm = args.open<Vm>(0, Kind::vm);
  auto* eventfd = args.open<EventFd>(1, Kind::eventfd);
  if (vm == nullptr || eventfd == nullptr) return number(args.env(), -EBADF);
  abi::ioeventfd io{};
  if (!args.u53(2, io.addr) || !args.u32(3, io.len) || !args.u32(4, io.flags) || !args.u64(5, io.datamatch)) {
    return number(args.env(), -EINVAL);
  }
  io.fd = eventfd->fd.get();
  return number(args.env(), kvm_ioctl(*vm, abi::IOEVENTFD, &io));
}

// coalescedMmio(vm, addr, size, on)
napi_value coalesced_mmio(const Args& args) {
  auto* vm = args.open<Vm>(0, Kind::vm);
  if (vm == nullptr) return number(args.env(), -EBADF);
  abi::coalesced_mmio_zone zone{};
  bool on;
  if (!args.u53(1, zone.addr) || !args.u32(2, zone.size) || !args.boolean(3, on)) return number(args.env(), -EINVAL);
  return number(args.env(), kvm_ioctl(*vm, on ? abi::REGISTER_COALESCED_MMIO : abi::UNREGISTER_COALESCED_MMIO, &zone));
}

// The bytes of a bitmap with a bit for each of `pages`, as the kernel reads and writes it.
constexpr uint64_t bitmap_bytes(uint64_t pages) { return (pages + 63) / 64 * 8; }

// getDirtyLog(vm, slot, bitmap). With no bitmap: the bytes that it must have.
napi_value get_dirty_log(const Args& args) {
  auto* vm = args.open<Vm>(0, Kind::vm);
  if (vm == nullptr) return number(args.env(), -EBADF);
  abi::dirty_log log{};
  if (!args.u32(1, log.slot)) return number(args.env(), -EINVAL);
  const auto slot = vm->state->slots.find(log.slot);
  // The kernel says why, and has no bitmap to write.
  if (slot == vm->state->slots.end()) return number(args.env(), kvm_ioctl(*vm, abi::GET_DIRTY_LOG, &log));
  const uint64_t needed = bitmap_bytes(slot->second.size / page_size());
  if (args.absent(2)) return number(args.env(), static_cast<int64_t>(needed));
  std::span<uint8_t> bitmap;
  if (!args.bytes(2, bitmap) || bitmap.size() < needed) return number(args.env(), -EINVAL);
  log.dirty_bitmap = reinterpret_cast<uint64_t>(bitmap.data());
  return number(args.env(), kvm_ioctl(*vm, abi::GET_DIRTY_LOG, &log));
}

// clearDirtyLog(vm, slot, firstPage, numPages, bitmap)
napi_value clear_dirty_log(const Args& args) {
  auto* vm = args.open<Vm>(0, Kind::vm);
  if (vm == nullptr) return number(args.env(), -EBADF);
  abi::clear_dirty_log log{};
  std::span<uint8_t> bitmap;
  if (!args.u32(1, log.slot) || !args.u53(2, log.first_page) || !args.u32(3, log.num_pages) || !args.bytes(4, bitmap) ||
      bitmap.size() < bitmap_bytes(log.num_pages)) {
    return number(args.env(), -EINVAL);
  }
  log.dirty_bitmap = reinterpret_cast<uint64_t>(bitmap.data());
  return number(args.env(), kvm_ioctl(*vm, abi::CLEAR_DIRTY_LOG, &log));
}

napi_value reset_dirty_rings(const Args& args) {
  auto* vm = args.open<Vm>(0, Kind::vm);
  if (vm == nullptr) return number(args.env(), -EBADF);
  return number(args.env(), kvm_ioctl(*vm, abi::RESET_DIRTY_RINGS));
}

// setCounterOffset(vm, offset)
napi_value set_counter_offset(const Args& args) {
  auto* vm = args.open<Vm>(0, Kind::vm);
  if (vm == nullptr) return number(args.env(), -EBADF);
  abi::arm_counter_offset offset{};
  if (!args.u64(1, offset.counter_offset)) return number(args.env(), -EINVAL);
  return number(args.env(), kvm_ioctl(*vm, abi::ARM_SET_COUNTER_OFFSET, &offset));
}

// getRegWritableMasks(vm, out): 192 u64.
napi_value get_reg_writable_masks(const Args& args) {
  auto* vm = args.open<Vm>(0, Kind::vm);
  if (vm == nullptr) return number(args.env(), -EBADF);
  std::span<uint8_t> out;
  std::array<uint64_t, abi::reg_masks> masks{};
  if (!args.bytes(1, out) || out.size() != sizeof masks) return number(args.env(), -EINVAL);
  abi::reg_mask_range range{};
  range.addr = reinterpret_cast<uint64_t>(masks.data());
  const int64_t result = kvm_ioctl(*vm, abi::ARM_GET_REG_WRITABLE_MASKS, &range);
  if (result >= 0) std::memcpy(out.data(), masks.data(), sizeof masks);
  return number(args.env(), result);
}

// setDeviceAddr(vm, id, addr)
napi_value set_device_addr(const Args& args) {
  auto* vm = args.open<Vm>(0, Kind::vm);
  if (vm == nullptr) return number(args.env(), -EBADF);
  abi::arm_device_addr device{};
  if (!args.u64(1, device.id) || !args.u53(2, device.addr)) return number(args.env(), -EINVAL);
  return number(args.env(), kvm_ioctl(*vm, abi::ARM_SET_DEVICE_ADDR, &device));
}

// mteCopyTags(vm, guestIpa, length, tags, fromGuest): a tag, one byte, for each 16 bytes.
napi_value mte_copy_tags(const Args& args) {
  auto* vm = args.open<Vm>(0, Kind::vm);
  if (vm == nullptr) return number(args.env(), -EBADF);
  abi::arm_copy_mte_tags copy{};
  std::span<uint8_t> tags;
  bool from_guest;
  if (!args.u53(1, copy.guest_ipa) || !args.u53(2, copy.length) || !args.bytes(3, tags) || !args.boolean(4, from_guest) ||
      copy.length / 16 > tags.size()) {
    return number(args.env(), -EINVAL);
  }
  copy.addr = reinterpret_cast<uint64_t>(tags.data());
  copy.flags = from_guest ? 1 : 0;  // KVM_ARM_TAGS_FROM_GUEST
  return number(args.env(), kvm_ioctl(*vm, abi::ARM_MTE_COPY_TAGS, &copy));
}

constexpr Export exports[] = {
    {"enableCap", entry<enable_cap>},
    {"setUserMemoryRegion", entry<set_user_memory_region>},
    {"createVcpu", entry<create_vcpu>},
    {"createDevice", entry<create_device>},
    {"preferredTarget", entry<preferred_target>},
    {"createIrqchip", entry<create_irqchip>},
    {"irqLine", entry<irq_line>},
    {"setGsiRouting", entry<set_gsi_routing>},
    {"signalMsi", entry<signal_msi>},
    {"irqfd", entry<irqfd>},
    {"ioeventfd", entry<ioeventfd>},
    {"coalescedMmio", entry<coalesced_mmio>},
    {"getDirtyLog", entry<get_dirty_log>},
    {"clearDirtyLog", entry<clear_dirty_log>},
    {"resetDirtyRings", entry<reset_dirty_rings>},
    {"setCounterOffset", entry<set_counter_offset>},
    {"getRegWritableMasks", entry<get_reg_writable_masks>},
    {"setDeviceAddr", entry<set_device_addr>},
    {"mteCopyTags", entry<mte_copy_tags>},
};

}  // namespace

std::span<const Export> vm_exports() { return exports; }

}  // namespace elvisor
