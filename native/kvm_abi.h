// The KVM API as this addon speaks it: request numbers and structs of its own, because the headers of the machine that
// builds it may be older than the kernel that it meets (include/uapi/linux/kvm.h and arch/arm64/include/uapi/asm/kvm.h of
// Linux 7.3). Every struct has its size and offsets asserted; the request numbers encode the sizes again.
#pragma once

#include <cstddef>
#include <cstdint>

#if !defined(__linux__) || !(defined(__aarch64__) || defined(__x86_64__))
#error "the addon is for Linux on arm64, and on x64 for its tests"
#endif

namespace elvisor::abi {

// asm-generic/ioctl.h
constexpr unsigned long io(unsigned nr) { return 0xae00ul | nr; }
template <class T>
constexpr unsigned long io_w(unsigned nr) { return 0x4000'0000ul | (static_cast<unsigned long>(sizeof(T)) << 16) | io(nr); }
template <class T>
constexpr unsigned long io_r(unsigned nr) { return 0x8000'0000ul | (static_cast<unsigned long>(sizeof(T)) << 16) | io(nr); }
template <class T>
constexpr unsigned long io_wr(unsigned nr) { return io_w<T>(nr) | io_r<T>(nr); }

struct userspace_memory_region {
  uint32_t slot, flags;
  uint64_t guest_phys_addr, memory_size, userspace_addr;
};
static_assert(sizeof(userspace_memory_region) == 32 && offsetof(userspace_memory_region, userspace_addr) == 24);

struct userspace_memory_region2 {
  userspace_memory_region base;
  uint64_t guest_memfd_offset;
  uint32_t guest_memfd, pad1;
  uint64_t pad2[14];
};
static_assert(sizeof(userspace_memory_region2) == 160 && offsetof(userspace_memory_region2, guest_memfd) == 40);

struct create_guest_memfd {
  uint64_t size, flags, reserved[6];
};
static_assert(sizeof(create_guest_memfd) == 64);

struct dirty_log {
  uint32_t slot, padding;
  uint64_t dirty_bitmap;
};
static_assert(sizeof(dirty_log) == 16 && offsetof(dirty_log, dirty_bitmap) == 8);

struct clear_dirty_log {
  uint32_t slot, num_pages;
  uint64_t first_page, dirty_bitmap;
};
static_assert(sizeof(clear_dirty_log) == 24 && offsetof(clear_dirty_log, dirty_bitmap) == 16);

struct enable_cap {
  uint32_t cap, flags;
  uint64_t args[4];
  uint8_t pad[64];
};
static_assert(sizeof(enable_cap) == 104 && offsetof(enable_cap, args) == 8);

struct irq_level {
  uint32_t irq, level;
};
static_assert(sizeof(irq_level) == 8);

struct irq_routing {
  uint32_t nr, flags;
};
static_assert(sizeof(irq_routing) == 8);

struct irq_routing_entry {
  uint32_t gsi, type, flags, pad;
  uint32_t u[8];
};
static_assert(sizeof(irq_routing_entry) == 48 && offsetof(irq_routing_entry, u) == 16);

struct irqfd {
  uint32_t fd, gsi, flags, resamplefd;
  uint8_t pad[16];
};
static_assert(sizeof(irqfd) == 32 && offsetof(irqfd, resamplefd) == 12);

struct ioeventfd {
  uint64_t datamatch, addr;
  uint32_t len;
  int32_t fd;
  uint32_t flags;
  uint8_t pad[36];
};
static_assert(sizeof(ioeventfd) == 64 && offsetof(ioeventfd, fd) == 20 && offsetof(ioeventfd, flags) == 24);

struct msi {
  uint32_t address_lo, address_hi, data, flags, devid;
  uint8_t pad[12];
};
static_assert(sizeof(msi) == 32 && offsetof(msi, devid) == 16);

struct coalesced_mmio_zone {
  uint64_t addr;
  uint32_t size, pio;
};
static_assert(sizeof(coalesced_mmio_zone) == 16);

struct create_device {
  uint32_t type, fd, flags;
};
static_assert(sizeof(create_device) == 12);

struct device_attr {
  uint32_t flags, group;
  uint64_t attr, addr;
};
static_assert(sizeof(device_attr) == 24 && offsetof(device_attr, addr) == 16);

struct vcpu_init {
  uint32_t target, features[7];
};
static_assert(sizeof(vcpu_init) == 32);

struct arm_device_addr {
  uint64_t id, addr;
};
static_assert(sizeof(arm_device_addr) == 16);

struct arm_copy_mte_tags {
  uint64_t guest_ipa, length, addr, flags, reserved[2];
};
static_assert(sizeof(arm_copy_mte_tags) == 48 && offsetof(arm_copy_mte_tags, addr) == 16);

struct arm_counter_offset {
  uint64_t counter_offset, reserved;
};
static_assert(sizeof(arm_counter_offset) == 16);

struct reg_mask_range {
  uint64_t addr;
  uint32_t range, reserved[13];
};
static_assert(sizeof(reg_mask_range) == 64 && offsetof(reg_mask_range, range) == 8);
// KVM_ARM_FEATURE_ID_RANGE_SIZE.
constexpr size_t reg_masks = 192;

struct one_reg {
  uint64_t id, addr;
};
static_assert(sizeof(one_reg) == 16);

struct reg_list {
  uint64_t n;
};
static_assert(sizeof(reg_list) == 8);

struct mp_state {
  uint32_t mp_state;
};
static_assert(sizeof(mp_state) == 4);

struct vcpu_events {
  uint8_t bytes[64];
};
static_assert(sizeof(vcpu_events) == 64);

// struct kvm_guest_debug of arm64: control, pad, then bcr, bvr, wcr and wvr, 16 of each.
struct guest_debug {
  uint32_t control, pad;
  uint64_t arch[4][16];
};
static_assert(sizeof(guest_debug) == 520 && offsetof(guest_debug, arch) == 8);

struct signal_mask {
  uint32_t len;
};
static_assert(sizeof(signal_mask) == 4);

// The head of struct kvm_run; TypeScript reads the rest through a view of the mapping.
struct run {
  uint8_t request_interrupt_window;
  uint8_t immediate_exit;
  uint8_t padding1[6];
  uint32_t exit_reason;
  uint8_t padding2[20];
  // Of the union that follows the head, what EXIT_MMIO says.
  struct {
    uint64_t phys_addr;
    uint8_t data[8];
    uint32_t len;
    uint8_t is_write;
  } mmio;
};
static_assert(offsetof(run, immediate_exit) == 1 && offsetof(run, exit_reason) == 8 && offsetof(run, mmio) == 32 &&
              offsetof(run, mmio.data) == 40 && offsetof(run, mmio.len) == 48 && offsetof(run, mmio.is_write) == 52);
constexpr uint32_t EXIT_MMIO = 6;
// sizeof(struct kvm_run): what a mapping must have at least.
constexpr size_t run_size = 2352;

#ifdef __x86_64__
struct x86_regs {
  uint64_t gpr[16], rip, rflags;
};
static_assert(sizeof(x86_regs) == 144);
struct x86_sregs {
  uint8_t bytes[312];
};
static_assert(sizeof(x86_sregs) == 312);
#endif

// System and VM.
constexpr unsigned long GET_API_VERSION = io(0x00), CREATE_VM = io(0x01), CHECK_EXTENSION = io(0x03),
                        GET_VCPU_MMAP_SIZE = io(0x04), CREATE_VCPU = io(0x41), CREATE_IRQCHIP = io(0x60),
                        RUN = io(0x80), RESET_DIRTY_RINGS = io(0xc7), GET_STATS_FD = io(0xce);
constexpr unsigned long GET_DIRTY_LOG = io_w<dirty_log>(0x42);
constexpr unsigned long SET_USER_MEMORY_REGION = io_w<userspace_memory_region>(0x46);
constexpr unsigned long SET_USER_MEMORY_REGION2 = io_w<userspace_memory_region2>(0x49);
constexpr unsigned long IRQ_LINE = io_w<irq_level>(0x61);
constexpr unsigned long REGISTER_COALESCED_MMIO = io_w<coalesced_mmio_zone>(0x67);
constexpr unsigned long UNREGISTER_COALESCED_MMIO = io_w<coalesced_mmio_zone>(0x68);
constexpr unsigned long SET_GSI_ROUTING = io_w<irq_routing>(0x6a);
constexpr unsigned long IRQFD = io_w<irqfd>(0x76);
constexpr unsigned long IOEVENTFD = io_w<ioeventfd>(0x79);
constexpr unsigned long ENABLE_CAP = io_w<enable_cap>(0xa3);
constexpr unsigned long SIGNAL_MSI = io_w<msi>(0xa5);
constexpr unsigned long ARM_SET_DEVICE_ADDR = io_w<arm_device_addr>(0xab);
constexpr unsigned long ARM_PREFERRED_TARGET = io_r<vcpu_init>(0xaf);
constexpr unsigned long ARM_MTE_COPY_TAGS = io_r<arm_copy_mte_tags>(0xb4);
constexpr unsigned long ARM_SET_COUNTER_OFFSET = io_w<arm_counter_offset>(0xb5);
constexpr unsigned long ARM_GET_REG_WRITABLE_MASKS = io_r<reg_mask_range>(0xb6);
constexpr unsigned long CLEAR_DIRTY_LOG = io_wr<clear_dirty_log>(0xc0);
constexpr unsigned long CREATE_GUEST_MEMFD = io_wr<create_guest_memfd>(0xd4);
constexpr unsigned long CREATE_DEVICE = io_wr<create_device>(0xe0);
constexpr unsigned long SET_DEVICE_ATTR = io_w<device_attr>(0xe1);
constexpr unsigned long GET_DEVICE_ATTR = io_w<device_attr>(0xe2);
constexpr unsigned long HAS_DEVICE_ATTR = io_w<device_attr>(0xe3);
static_assert(SET_USER_MEMORY_REGION == 0x4020ae46 && SET_USER_MEMORY_REGION2 == 0x40a0ae49);
static_assert(GET_DIRTY_LOG == 0x4010ae42 && CLEAR_DIRTY_LOG == 0xc018aec0 && ENABLE_CAP == 0x4068aea3);
static_assert(IRQ_LINE == 0x4008ae61 && SET_GSI_ROUTING == 0x4008ae6a && IRQFD == 0x4020ae76 && IOEVENTFD == 0x4040ae79);
static_assert(SIGNAL_MSI == 0x4020aea5 && REGISTER_COALESCED_MMIO == 0x4010ae67 && UNREGISTER_COALESCED_MMIO == 0x4010ae68);
static_assert(CREATE_DEVICE == 0xc00caee0 && SET_DEVICE_ATTR == 0x4018aee1 && CREATE_GUEST_MEMFD == 0xc040aed4);
static_assert(ARM_PREFERRED_TARGET == 0x8020aeaf && ARM_SET_DEVICE_ADDR == 0x4010aeab && ARM_MTE_COPY_TAGS == 0x8030aeb4);
static_assert(ARM_SET_COUNTER_OFFSET == 0x4010aeb5 && ARM_GET_REG_WRITABLE_MASKS == 0x8040aeb6);

// vCPU. GET_ONE_REG and ARM_SET_DEVICE_ADDR are one number; the fd tells them apart.
constexpr unsigned long SET_SIGNAL_MASK = io_w<signal_mask>(0x8b);
constexpr unsigned long GET_MP_STATE = io_r<mp_state>(0x98), SET_MP_STATE = io_w<mp_state>(0x99);
constexpr unsigned long SET_GUEST_DEBUG = io_w<guest_debug>(0x9b);
constexpr unsigned long GET_VCPU_EVENTS = io_r<vcpu_events>(0x9f), SET_VCPU_EVENTS = io_w<vcpu_events>(0xa0);
constexpr unsigned long GET_ONE_REG = io_w<one_reg>(0xab), SET_ONE_REG = io_w<one_reg>(0xac);
constexpr unsigned long ARM_VCPU_INIT = io_w<vcpu_init>(0xae);
constexpr unsigned long GET_REG_LIST = io_wr<reg_list>(0xb0);
constexpr unsigned long ARM_VCPU_FINALIZE = io_w<int32_t>(0xc2);
static_assert(SET_SIGNAL_MASK == 0x4004ae8b && GET_MP_STATE == 0x8004ae98 && SET_MP_STATE == 0x4004ae99);
static_assert(SET_GUEST_DEBUG == 0x4208ae9b && GET_VCPU_EVENTS == 0x8040ae9f && SET_VCPU_EVENTS == 0x4040aea0);
static_assert(GET_ONE_REG == 0x4010aeab && SET_ONE_REG == 0x4010aeac && ARM_VCPU_INIT == 0x4020aeae);
static_assert(GET_REG_LIST == 0xc008aeb0 && ARM_VCPU_FINALIZE == 0x4004aec2);

#ifdef __x86_64__
constexpr unsigned long GET_REGS = io_r<x86_regs>(0x81), SET_REGS = io_w<x86_regs>(0x82);
constexpr unsigned long GET_SREGS = io_r<x86_sregs>(0x83), SET_SREGS = io_w<x86_sregs>(0x84);
static_assert(GET_REGS == 0x8090ae81 && SET_SREGS == 0x4138ae84);
#endif

constexpr uint32_t CREATE_DEVICE_TEST = 1;
constexpr uint32_t MSI_VALID_DEVID = 1;
constexpr uint32_t MEM_GUEST_MEMFD = 4;
constexpr uint64_t GUEST_MEMFD_FLAG_MMAP = 1;

}  // namespace elvisor::abi
