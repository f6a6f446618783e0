// The calls on a vCPU fd.
#include "vcpu.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "environment.h"

namespace elvisor {
namespace {

constexpr size_t max_reg_size = 256;  // KVM_REG_SIZE_U2048
constexpr size_t max_reg_list = 1 << 16;
constexpr size_t dirty_ring_page = 64;  // KVM_DIRTY_LOG_PAGE_OFFSET
constexpr uint64_t max_dirty_ring = uint64_t{65536} * 16;  // KVM_DIRTY_RING_MAX_ENTRIES

using VcpuCall = napi_value (*)(const Args&, Vcpu&);

// A call on a vCPU that never waits for its KVM_RUN.
template <VcpuCall call>
napi_value any_time(const Args& args) {
  auto* vcpu = args.open<Vcpu>(0, Kind::vcpu);
  return vcpu == nullptr ? number(args.env(), -EBADF) : call(args, *vcpu);
}

// One that would.
template <VcpuCall call>
napi_value between_runs(const Args& args) {
  auto* vcpu = args.open<Vcpu>(0, Kind::vcpu);
  if (vcpu == nullptr) return number(args.env(), -EBADF);
  return vcpu->busy() ? number(args.env(), -EBUSY) : call(args, *vcpu);
}

// vcpuRun(vcpu, limitNs): see Vcpu::enter.
napi_value run(const Args& args, Vcpu& vcpu) {
  if (vcpu.thread != nullptr && vcpu.thread->started()) return number(args.env(), -EBUSY);
  uint64_t limit;
  if (!args.u53(1, limit)) return number(args.env(), -EINVAL);
  return number(args.env(), vcpu.enter(environment(args).runner, std::min(limit, heartbeat_ns)));
}

// vcpuStart(vcpu, listener): runs it on its own thread; the listener gets what each KVM_RUN answered.
napi_value start(const Args& args, Vcpu& vcpu) {
  napi_valuetype type;
  if (napi_typeof(args.env(), args[1], &type) != napi_ok || type != napi_function) return number(args.env(), -EINVAL);
  if (vcpu.thread == nullptr) vcpu.thread = std::make_shared<VcpuThread>(vcpu, environment(args));
  return number(args.env(), vcpu.thread->start(args[0], args[1]));
}

// vcpuStop(vcpu): when it returns, the vCPU is not in the guest.
napi_value stop(const Args& args, Vcpu& vcpu) {
  if (vcpu.thread != nullptr) vcpu.thread->stop();
  return number(args.env(), 0);
}

// vcpuAnswerReads(vcpu, address, value or undefined): see Vcpu::answer_reads.
napi_value answer_reads(const Args& args, Vcpu& vcpu) {
  uint64_t address;
  uint32_t value = 0;
  if (!args.u53(1, address)) return number(args.env(), -EINVAL);
  if (args.absent(2)) {
    vcpu.answer_none();
  } else {
    if (!args.u32(2, value)) return number(args.env(), -EINVAL);
    vcpu.answer_reads(address, value);
  }
  return number(args.env(), 0);
}

// runArea(vcpu): struct kvm_run and the pages that follow it, as an ArrayBuffer.
napi_value run_area(const Args& args, Vcpu& vcpu) {
  return buffer_of(args.env(), vcpu.run);
}

// dirtyRing(vcpu, size): its dirty ring (KVM_CAP_DIRTY_LOG_RING_ACQ_REL), as an ArrayBuffer of `size` bytes.
napi_value dirty_ring(const Args& args, Vcpu& vcpu) {
  uint64_t size;
  if (!args.u53(1, size) || size == 0 || size > max_dirty_ring) return number(args.env(), -EINVAL);
  const auto mapping = map_fd(vcpu.fd.get(), size, static_cast<off_t>(dirty_ring_page * page_size()));
  if (mapping == nullptr) return number(args.env(), -errno);
  return buffer_of(args.env(), mapping);
}

napi_value kick(const Args& args, Vcpu& vcpu) {
  vcpu.kick();
  return number(args.env(), 0);
}

// vcpuToken(vcpu): what kickToken, from any thread of the process, takes.
napi_value token(const Args& args, Vcpu& vcpu) {
  return number(args.env(), static_cast<int64_t>(vcpu.token));
}

napi_value kick_by_token(const Args& args) {
  uint64_t token;
  if (!args.u53(0, token)) return number(args.env(), -EINVAL);
  return number(args.env(), kick_token(token) ? 0 : -ESRCH);
}

// setImmediateExit(vcpu, on)
napi_value set_immediate_exit(const Args& args, Vcpu& vcpu) {
  bool on;
  if (!args.boolean(1, on)) return number(args.env(), -EINVAL);
  vcpu.set_immediate_exit(on);
  return number(args.env(), 0);
}

// setSignalMask(vcpu, mask or undefined). The signal that kicks is never blocked: the vCPU could not be stopped.
napi_value set_signal_mask(const Args& args, Vcpu& vcpu) {
  if (args.absent(1)) return number(args.env(), kvm_ioctl(vcpu, abi::SET_SIGNAL_MASK));
  uint64_t mask;
  if (!args.u64(1, mask)) return number(args.env(), -EINVAL);
  const int signal = kick_signal();
  if (signal < 0) return number(args.env(), signal);
  mask &= ~(uint64_t{1} << (signal - 1));
  std::array<uint8_t, sizeof(abi::signal_mask) + sizeof mask> request{};
  const abi::signal_mask head{sizeof mask};
  std::memcpy(request.data(), &head, sizeof head);
  std::memcpy(request.data() + sizeof head, &mask, sizeof mask);
  return number(args.env(), kvm_ioctl(vcpu, abi::SET_SIGNAL_MASK, request.data()));
}

// vcpuInit(vcpu, target, features)
napi_value init(const Args& args, Vcpu& vcpu) {
  abi::vcpu_init init{};
  if (!args.u32(1, init.target) || !args.u32(2, init.features[0])) return number(args.env(), -EINVAL);
  return number(args.env(), kvm_ioctl(vcpu, abi::ARM_VCPU_INIT, &init));
}

// vcpuFinalize(vcpu, feature)
napi_value finalize(const Args& args, Vcpu& vcpu) {
  uint32_t feature;
  if (!args.u32(1, feature)) return number(args.env(), -EINVAL);
  return number(args.env(), kvm_ioctl(vcpu, abi::ARM_VCPU_FINALIZE, &feature));
}

// getRegList(vcpu, out or undefined): the number of registers; their ids go to `out`, eight bytes each, which must be
// large enough (-E2BIG).
napi_value get_reg_list(const Args& args, Vcpu& vcpu) {
  std::span<uint8_t> out;
  const bool count_only = args.absent(1);
  if (!count_only && (!args.bytes(1, out) || out.size() / 8 > max_reg_list)) return number(args.env(), -EINVAL);
  std::vector<uint64_t> list(1 + out.size() / 8);
  list[0] = out.size() / 8;
  const int64_t result = kvm_ioctl(vcpu, abi::GET_REG_LIST, list.data());
  if (result < 0 && !(result == -E2BIG && count_only)) return number(args.env(), result);
  if (!out.empty()) std::memcpy(out.data(), list.data() + 1, std::min(out.size(), list[0] * 8));
  return number(args.env(), static_cast<int64_t>(list[0]));
}

// getOneReg(vcpu, id, value) and setOneReg(vcpu, id, value): `value` has the size that the id says.
template <unsigned long request>
napi_value one_reg(const Args& args, Vcpu& vcpu) {
  abi::one_reg reg{};
  std::span<uint8_t> value;
  if (!args.u64(1, reg.id) || !args.bytes(2, value)) return number(args.env(), -EINVAL);
  const size_t size = size_t{1} << ((reg.id >> 52) & 15);
  if (size > max_reg_size || value.size() != size) return number(args.env(), -EINVAL);
  reg.addr = reinterpret_cast<uint64_t>(value.data());
  return number(args.env(), kvm_ioctl(vcpu, request, &reg));
}

// Calls (vcpu, bytes) whose struct TypeScript reads and writes.
template <class T, unsigned long request>
napi_value get_struct(const Args& args, Vcpu& vcpu) {
  std::span<uint8_t> out;
  T value{};
  if (!args.bytes(1, out) || out.size() != sizeof value) return number(args.env(), -EINVAL);
  const int64_t result = kvm_ioctl(vcpu, request, &value);
  if (result >= 0) std::memcpy(out.data(), &value, sizeof value);
  return number(args.env(), result);
}

template <class T, unsigned long request>
napi_value set_struct(const Args& args, Vcpu& vcpu) {
  std::span<uint8_t> in;
  T value{};
  if (!args.bytes(1, in) || in.size() != sizeof value) return number(args.env(), -EINVAL);
  std::memcpy(&value, in.data(), sizeof value);
  return number(args.env(), kvm_ioctl(vcpu, request, &value));
}

// getMpState(vcpu)
napi_value get_mp_state(const Args& args, Vcpu& vcpu) {
  abi::mp_state state{};
  const int64_t result = kvm_ioctl(vcpu, abi::GET_MP_STATE, &state);
  return number(args.env(), result < 0 ? result : state.mp_state);
}

// setMpState(vcpu, state)
napi_value set_mp_state(const Args& args, Vcpu& vcpu) {
  abi::mp_state state{};
  if (!args.u32(1, state.mp_state)) return number(args.env(), -EINVAL);
  return number(args.env(), kvm_ioctl(vcpu, abi::SET_MP_STATE, &state));
}

constexpr Export exports[] = {
    {"vcpuRun", entry<any_time<run>>},
    {"vcpuStart", entry<any_time<start>>},
    {"vcpuStop", entry<any_time<stop>>},
    {"vcpuAnswerReads", entry<any_time<answer_reads>>},
    {"runArea", entry<any_time<run_area>>},
    {"dirtyRing", entry<any_time<dirty_ring>>},
    {"kick", entry<any_time<kick>>},
    {"vcpuToken", entry<any_time<token>>},
    {"kickToken", entry<kick_by_token>},
    {"setImmediateExit", entry<any_time<set_immediate_exit>>},
    {"setSignalMask", entry<between_runs<set_signal_mask>>},
    {"vcpuInit", entry<between_runs<init>>},
    {"vcpuFinalize", entry<between_runs<finalize>>},
    {"getRegList", entry<between_runs<get_reg_list>>},
    {"getOneReg", entry<between_runs<one_reg<abi::GET_ONE_REG>>>},
    {"setOneReg", entry<between_runs<one_reg<abi::SET_ONE_REG>>>},
    {"getMpState", entry<between_runs<get_mp_state>>},
    {"setMpState", entry<between_runs<set_mp_state>>},
    {"getVcpuEvents", entry<between_runs<get_struct<abi::vcpu_events, abi::GET_VCPU_EVENTS>>>},
    {"setVcpuEvents", entry<between_runs<set_struct<abi::vcpu_events, abi::SET_VCPU_EVENTS>>>},
    {"setGuestDebug", entry<between_runs<set_struct<abi::guest_debug, abi::SET_GUEST_DEBUG>>>},
#ifdef __x86_64__
    // What a test needs to start a guest anywhere but at the reset vector.
    {"getRegs", entry<between_runs<get_struct<abi::x86_regs, abi::GET_REGS>>>},
    {"setRegs", entry<between_runs<set_struct<abi::x86_regs, abi::SET_REGS>>>},
    {"getSregs", entry<between_runs<get_struct<abi::x86_sregs, abi::GET_SREGS>>>},
    {"setSregs", entry<between_runs<set_struct<abi::x86_sregs, abi::SET_SREGS>>>},
#endif
};

}  // namespace

std::span<const Export> vcpu_exports() { return exports; }

}  // namespace elvisor
