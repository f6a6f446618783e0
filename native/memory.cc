// Guest memory, and ArrayBuffers over what is mapped.
#include <sys/mman.h>
#include <unistd.h>

#include "handle.h"
#include "kvm_abi.h"

#ifndef MFD_HUGE_SHIFT
#define MFD_HUGE_SHIFT 26
#endif

namespace elvisor {
namespace {

constexpr size_t huge_page = 2 << 20;
// Flags of createMemory.
constexpr uint32_t memory_memfd = 1;

// Beyond this an ArrayBuffer cannot be: V8 aborts the process where Node 20 is asked for more.
size_t max_buffer(napi_env env) {
  const napi_node_version* version = nullptr;
  if (napi_get_node_version(env, &version) == napi_ok && version->major >= 22) return SIZE_MAX;
  return size_t{4} << 30;
}

// Anonymous memory, aligned so that the kernel can back it, and KVM map it, with huge pages.
std::shared_ptr<Mapping> map_anonymous(size_t size) {
  const size_t alignment = size >= huge_page ? huge_page : page_size();
  const size_t reserved = size + alignment - page_size();
  void* address = mmap(nullptr, reserved, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (address == MAP_FAILED) return nullptr;
  const auto start = reinterpret_cast<uintptr_t>(address);
  const uintptr_t aligned = (start + alignment - 1) & ~(alignment - 1);
  if (aligned > start) munmap(address, aligned - start);
  if (const size_t tail = start + reserved - (aligned + size); tail > 0) {
    munmap(reinterpret_cast<void*>(aligned + size), tail);
  }
  return std::make_shared<Mapping>(reinterpret_cast<void*>(aligned), size);
}

std::shared_ptr<Mapping> map_huge(size_t size, uint32_t shift) {
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | static_cast<int>(shift << MFD_HUGE_SHIFT);
  void* address = mmap(nullptr, size, PROT_READ | PROT_WRITE, flags, -1, 0);
  return address == MAP_FAILED ? nullptr : std::make_shared<Mapping>(address, size);
}

// createMemory(size, flags, hugePageShift): whole pages; the shift is 0 (the host's choice), 21 or another size of
// huge pages that the host has set aside.
napi_value create_memory(const Args& args) {
  uint64_t size;
  uint32_t flags, shift;
  if (!args.u53(0, size) || !args.u32(1, flags) || !args.u32(2, shift)) return number(args.env(), -EINVAL);
  const uint64_t unit = shift == 0 ? page_size() : uint64_t{1} << (shift < 40 ? shift : 40);
  if ((flags & ~memory_memfd) != 0 || (shift != 0 && (shift < 12 || shift > 40))) return number(args.env(), -EINVAL);
  if (size == 0 || size % unit != 0) return number(args.env(), -EINVAL);
  UniqueFd fd;
  std::shared_ptr<Mapping> mapping;
  if ((flags & memory_memfd) != 0) {
    const unsigned memfd_flags = MFD_CLOEXEC | (shift == 0 ? 0u : MFD_HUGETLB | (shift << MFD_HUGE_SHIFT));
    fd.reset(memfd_create("elvisor-guest", memfd_flags));
    if (fd.get() < 0 || ftruncate(fd.get(), static_cast<off_t>(size)) != 0) return failed(args.env());
    mapping = map_fd(fd.get(), size);
  } else {
    mapping = shift == 0 ? map_anonymous(size) : map_huge(size, shift);
  }
  if (mapping == nullptr) return failed(args.env());
  // A child process must not get copies of guest memory. Huge pages are a wish.
  madvise(mapping->data(), size, MADV_DONTFORK);
  if (shift == 0 && size >= huge_page) madvise(mapping->data(), size, MADV_HUGEPAGE);
  return make_handle(args, std::make_shared<Memory>(std::move(mapping), size));
}

// createGuestMemfd(vm, size, flags)
napi_value create_guest_memfd(const Args& args) {
  auto* vm = args.open<Vm>(0, Kind::vm);
  if (vm == nullptr) return number(args.env(), -EBADF);
  abi::create_guest_memfd create{};
  if (!args.u53(1, create.size) || !args.u53(2, create.flags)) return number(args.env(), -EINVAL);
  const int64_t fd = kvm_ioctl(*vm, abi::CREATE_GUEST_MEMFD, &create);
  if (fd < 0) return number(args.env(), fd);
  auto memory = std::make_shared<Memory>(nullptr, create.size, static_cast<int>(fd));
  if ((create.flags & abi::GUEST_MEMFD_FLAG_MMAP) != 0) {
    memory->mapping = map_fd(static_cast<int>(fd), create.size);
    if (memory->mapping == nullptr) return failed(args.env());
  }
  return make_handle(args, std::move(memory));
}

// memoryBuffer(memory, offset, length): of the whole memory without the last two.
napi_value memory_buffer(const Args& args) {
  auto* memory = args.open<Memory>(0, Kind::memory);
  if (memory == nullptr) return number(args.env(), -EBADF);
  if (memory->mapping == nullptr) return number(args.env(), -ENXIO);
  uint64_t offset = 0, length = memory->size;
  if (!args.absent(1) && (!args.u53(1, offset) || !args.u53(2, length))) return number(args.env(), -EINVAL);
  if (length == 0 || offset > memory->size || length > memory->size - offset) return number(args.env(), -EINVAL);
  return buffer_of(args.env(), memory->mapping, offset, length);
}

// detach(arrayBuffer): its views become empty.
napi_value detach(const Args& args) {
  bool is = false;
  if (args.absent(0) || napi_is_arraybuffer(args.env(), args[0], &is) != napi_ok || !is) return number(args.env(), -EINVAL);
  return number(args.env(), napi_detach_arraybuffer(args.env(), args[0]) == napi_ok ? 0 : -EINVAL);
}

void release(napi_env, void*, void* hint) { delete static_cast<std::shared_ptr<Mapping>*>(hint); }

constexpr Export exports[] = {
    {"createMemory", entry<create_memory>},
    {"createGuestMemfd", entry<create_guest_memfd>},
    {"memoryBuffer", entry<memory_buffer>},
    {"detach", entry<detach>},
};

}  // namespace

napi_value buffer_of(napi_env env, const std::shared_ptr<Mapping>& mapping) {
  return buffer_of(env, mapping, 0, mapping->size());
}

napi_value buffer_of(napi_env env, const std::shared_ptr<Mapping>& mapping, size_t offset, size_t length) {
  if (length > max_buffer(env)) return number(env, -ENOMEM);
  auto* hold = new std::shared_ptr<Mapping>(mapping);
  napi_value buffer = nullptr;
  const napi_status status = napi_create_external_arraybuffer(env, mapping->data() + offset, length, release, hold, &buffer);
  if (status == napi_ok) return buffer;
  // napi_no_external_buffers_allowed: a runtime with a memory cage, such as Electron.
  if (status == napi_no_external_buffers_allowed) delete hold;
  return number(env, status == napi_no_external_buffers_allowed ? -EOPNOTSUPP : -ENOMEM);
}

std::span<const Export> memory_exports() { return exports; }

}  // namespace elvisor
